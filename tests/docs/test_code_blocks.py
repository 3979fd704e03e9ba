"""Every code block of a page runs, in order, in a folder where `kmsbridge init` was run.

- `python` blocks of a page share one namespace.
- `console` blocks: each line after `$ ` is run by bash, and what it prints must match the lines below
  it, where `...` stands for anything; no lines below it: anything may be printed. It must exit with 0,
  unless a comment `<!-- exits N -->` stands before the block, for its last command.
- A block after `<!-- file: NAME -->` is written to that file.
- A block after `<!-- not run: REASON -->` is only shown; the reason stands for the reader of the source.
- A block after `<!-- with: aws, vault -->` finds these servers through the environment, each on its own
  for this page: see `servers.py`. With `--without-backend` such a page is skipped.

Several comments may stand before a block, each on a line of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs import servers

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "plugins").glob("*/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(
    r"(?P<notes>(?:^<!-- [^>]*? -->\n+)*)^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block, its language, the notes before it, and the line it begins at."""

    language: str
    code: str
    line: int = 0
    notes: tuple[str, ...] = ()

    def said(self, word: str) -> str:
        """What the note that begins with this word says, or nothing."""
        return next((note.removeprefix(word).strip() for note in self.notes if note.startswith(word)), "")

    @property
    def servers(self) -> list[str]:
        """Those that it needs."""
        return [name.strip() for name in self.said("with:").split(",") if name]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(
            m["language"],
            m["code"],
            text.count("\n", 0, m.start("code")),
            tuple(re.findall(r"<!-- (.*?) -->", m["notes"], re.DOTALL)),
        )
        for m in BLOCK.finditer(text)
    ]


def environment(folder: Path) -> dict[str, str]:
    """The environment of a reader who has kmsbridge on PATH, and nothing configured."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "TERM": "dumb"}


def run_console(block: Block, folder: Path, where: str, **variables: str) -> None:
    """Run a block's commands and hold what they print against what it says."""
    steps = re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]
    exits = int(block.said("exits") or 0)
    for number, step in enumerate(steps, 1):
        command, _, expected = step.partition("\n")
        while command.endswith("\\"):
            more, _, expected = expected.partition("\n")
            command = command[:-1] + more.removeprefix("> ")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment(folder) | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        wanted = exits if number == len(steps) else 0
        assert done.returncode == wanted, f"{where}: $ {command}\nexits {done.returncode}:\n{done.stdout}"
        if expected.strip():
            pattern = ".*".join(map(re.escape, expected.strip().split("...")))
            assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), (
                f"{where}: $ {command}\nprints:\n{done.stdout}"
            )


def run_python(block: Block, page: Path, namespace: dict[str, object], **variables: str) -> None:
    """Run a block in the page's namespace."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        exec(compile("\n" * block.line + block.code, str(page), "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_run_as_printed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who types what a page shows gets what the page says."""
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    run_console(Block("console", "$ kmsbridge init\n"), tmp_path, "set-up")
    found = [block for block in blocks(page.read_text()) if not block.said("not run:")]
    running = {name: servers.variables(name) for name in {name for block in found for name in block.servers}}
    namespace: dict[str, object] = {"__name__": "page"}
    for block in found:
        variables = {key: value for name in block.servers for key, value in running[name].items()}
        if block.said("file:"):
            (tmp_path / block.said("file:")).write_text(block.code)
        elif block.language == "python":
            run_python(block, page, namespace, **variables)
        elif block.language == "console":
            run_console(block, tmp_path, f"{page.relative_to(ROOT)}:{block.line}", **variables)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_note_is_one_that_is_known(page: Path) -> None:
    """A misspelt one would silently change what is run."""
    words = ("not run:", "file:", "with:", "exits ")
    unknown = [
        note for block in blocks(page.read_text()) for note in block.notes if not note.startswith(words)
    ]
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_its_language(page: Path) -> None:
    """A block without a language would silently not be run."""
    unnamed = [block.line for block in blocks(page.read_text()) if not block.language]
    assert not unnamed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A relative link names a file that exists, and a heading that the file has."""
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in headings(linked.read_text()), target


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    titles = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_runner_notices_what_does_not_hold(tmp_path: Path) -> None:
    """A block that fails, or prints something else, fails the page."""
    with pytest.raises(AssertionError):
        run_console(Block("console", "$ echo one\ntwo\n"), tmp_path, "here")
    with pytest.raises(AssertionError):
        run_console(Block("console", "$ false\n"), tmp_path, "here")
    run_console(Block("console", "$ echo one; exit 3\no...e\n", notes=("exits 3",)), tmp_path, "here")
    run_console(Block("console", "$ echo $WHERE\nhere\n"), tmp_path, "here", WHERE="here")


def test_every_note_before_a_block_is_read() -> None:
    """Of several, each on its own line, and of none that stands before something else."""
    (first, second) = blocks(
        "<!-- with: aws, vault -->\n<!-- exits 3 -->\n```console\n```\n\n<!-- file: x -->\n\ntext\n```sh\n```\n"
    )
    assert (first.servers, first.said("exits"), second.notes) == (["aws", "vault"], "3", ())
