"""`completion`."""

from __future__ import annotations

import click

from kmsbridge.cli import output
from kmsbridge.cli.options import Command
from kmsbridge.cli.runner import COMPLETE, PROGRAM


@click.command(cls=Command, short_help="Print a script for shell completion.")
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of this command for SHELL: bash, zsh or fish.

    \b
    kmsbridge completion bash > ~/.local/share/bash-completion/completions/kmsbridge
    kmsbridge completion zsh > ~/.zfunc/_kmsbridge
    kmsbridge completion fish > ~/.config/fish/completions/kmsbridge.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise AssertionError(f"click has no completion for {shell}")
    output.result(found(click.get_current_context().find_root().command, {}, PROGRAM, COMPLETE).source())
