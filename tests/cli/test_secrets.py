"""No plaintext, passphrase or key is ever shown by a command that fails."""

from __future__ import annotations

import base64
import json
import os

import pytest

import kmsbridge
from kmsbridge import message as wire

PLAINTEXT = "canary-plaintext-7f3a"
PASSPHRASE = "canary-passphrase-91bc"
ENV = {"KMSBRIDGE_PASSPHRASE": PASSPHRASE}


@pytest.fixture
def canaries(empty, cheap_passphrases) -> list[bytes]:
    """Two configurations, one with a passphrase, and every form that their secrets could be shown in."""
    empty.ok("init", "-q", "--passphrase", env=ENV)
    os.mkdir("open", 0o700)
    empty.ok("init", "-q", "--config", "open/kmsbridge.toml")
    key = json.loads((empty.path / "open/dev-keys.json").read_bytes())["keys"]["app"]["versions"]["1"][
        "material"
    ]
    empty.write("plain", PLAINTEXT.encode() * 100)
    empty.write("pass", PASSPHRASE)
    empty.write("secret.bin", PLAINTEXT.encode() + b"\xff")
    empty.write("nul.bin", PLAINTEXT.encode() + b"\0")
    for name in ("plain", "secret.bin", "nul.bin"):
        empty.ok("encrypt", name, "-o", f"{name}.kmsb", env=ENV)
        empty.ok("encrypt", name, "-a", "-o", f"{name}.txt", env=ENV)
    data = (empty.path / "plain.kmsb").read_bytes()
    empty.write("changed.kmsb", data[:-1] + bytes((data[-1] ^ 1,)))
    toml = (empty.path / "kmsbridge.toml").read_text()
    empty.write("inline.toml", toml.replace("env:KMSBRIDGE_PASSPHRASE", PASSPHRASE))
    empty.write(
        "misspelt.toml",
        toml.replace("passphrase =", "pasphrase =").replace("env:KMSBRIDGE_PASSPHRASE", PASSPHRASE),
    )
    empty.write("nokey.toml", f"[keys.dev]\nuri = '{PASSPHRASE}'\n[profiles.dev]\nencrypt_to = ['dev']\n")
    empty.write("syntax.toml", f"passphrase = '{PASSPHRASE}\n")
    raw = base64.b64decode(key)
    return [
        PLAINTEXT.encode(),
        PASSPHRASE.encode(),
        key.encode(),
        raw,
        raw.hex().encode(),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
    ]


FAILING = {
    "too many arguments": ("init", "--passphrase", PASSPHRASE),
    "value for a flag": ("init", f"--passphrase={PASSPHRASE}"),
    "init over another": ("init", "--passphrase"),
    "passphrase file for itself": (
        "init",
        "--passphrase-file",
        "pass",
        "--name",
        "a b",
        "--config",
        "new.toml",
    ),
    "decrypt changed": ("decrypt", "changed.kmsb", "-o", "out"),
    "decrypt in another context": ("decrypt", "plain.kmsb", "-o", "out", "-c", "a=b"),
    "decrypt without the passphrase": (
        "--config",
        "open/kmsbridge.toml",
        "decrypt",
        "plain.kmsb",
        "-o",
        "out",
    ),
    "decrypt to a full disk": ("decrypt", "plain.kmsb", "-o", "/dev/full"),
    "encrypt to a full disk": ("encrypt", "plain", "-o", "/dev/full"),
    "encrypt over a file": ("encrypt", "plain", "-o", "plain.kmsb"),
    "decrypt the plaintext": ("decrypt", "plain"),
    "decrypt the armored plaintext": ("decrypt", "--armor", "plain"),
    "inspect the plaintext": ("inspect", "plain", "--json"),
    "inspect the key file": ("inspect", "open/dev-keys.json", "--json"),
    "rewrap the plaintext": ("rewrap", "plain", "--json"),
    "key file as configuration": ("--config", "open/dev-keys.json", "keys", "--json"),
    "plaintext as configuration": ("--config", "plain", "config", "explain", "--json"),
    "plaintext as audit file": ("audit", "verify", "plain", "--json"),
    "passphrase in the configuration": ("--config", "inline.toml", "decrypt", "changed.kmsb"),
    "passphrase under a wrong name": ("--config", "misspelt.toml", "keys", "--json"),
    "passphrase as key URI": ("--config", "nokey.toml", "keys", "--json"),
    "passphrase with wrong syntax": ("--config", "syntax.toml", "config", "explain", "--json"),
    "passphrase as key": ("rotate", "nokey"),
}


@pytest.mark.parametrize("args", FAILING.values(), ids=FAILING)
def test_failing_commands_show_no_secret(empty, canaries, args):
    """Not on stdout, not on stderr, not with --debug, not as JSON."""
    for env in (ENV, {"KMSBRIDGE_PASSPHRASE": f"{PASSPHRASE}-wrong"}):
        done = empty.run("--debug", *args, env=env)
        assert done.code != 0
        shown = done.out + done.err.encode()
        assert not [canary for canary in canaries if canary in shown]


@pytest.mark.parametrize("args", (("config", "explain"), ("keys",), ("providers",)), ids=" ".join)
@pytest.mark.parametrize("config", ("kmsbridge.toml", "inline.toml", "open/kmsbridge.toml"))
def test_commands_that_look_show_no_secret(empty, canaries, args, config):
    """What explains and lists masks secrets, wherever they stand."""
    for more in ((), ("--json",)):
        done = empty.run("--debug", "--config", config, *args, *more, env=ENV)
        assert done.code == 0, done.err
        shown = done.out + done.err.encode()
        assert not [canary for canary in canaries if canary in shown]


@pytest.mark.parametrize("name", ("secret.bin", "nul.bin", "changed"))
def test_exec_shows_no_secret(empty, canaries, name):
    """A value that cannot be handed on is not shown either, in a process of its own."""
    if name == "changed":
        with kmsbridge.Decryptor.from_config(env={**os.environ, **ENV}):
            value = wire.armor((empty.path / "changed.kmsb").read_bytes())
    else:
        value = (empty.path / f"{name}.txt").read_text().strip()
    done = empty.real("--debug", "exec", "--", "env", env={**ENV, "VALUE": value})
    assert done.code != 0
    shown = done.out + done.err.encode()
    assert b"VALUE" in shown
    assert not [canary for canary in canaries if canary in shown]
