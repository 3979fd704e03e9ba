"""What becomes of a cipher that nobody closed, and of one that is copied."""

import copy
import json
import pickle
import subprocess
import sys

import pytest

from kmsbridge import EnvelopeCipher
from kmsbridge.cipher import session
from kmsbridge.drivers.local.keyfile import KeyFile

PROGRAM = """
from kmsbridge import EnvelopeCipher
cipher = EnvelopeCipher.from_uri("local:keys.json#app", audit={"file": "audit.jsonl"})
for message in [cipher.encrypt(b"x") for _ in range(10)]:
    cipher.decrypt(message)
"""


def test_a_program_that_ends_without_close_has_its_counts_in_the_audit_trail(tmp_path):
    """Ten encrypted, ten decrypted."""
    tmp_path.chmod(0o700)
    KeyFile.create(tmp_path / "keys.json", "app")
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, check=True)
    events = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    counts = {event["operation"]: event["messages"] for event in events if event["source"] == "cache"}
    assert counts == {"encrypt": 10, "decrypt": 10}


@pytest.mark.parametrize("take", (pickle.dumps, copy.copy, copy.deepcopy), ids=lambda take: take.__name__)
def test_a_cipher_refuses_to_be_copied_and_says_what_to_do(cipher, take):
    """Open one in each process instead."""
    assert isinstance(cipher, EnvelopeCipher)
    with pytest.raises(TypeError, match="open one in each process"):
        take(cipher)


def test_one_that_cannot_report_at_the_end_does_not_keep_the_others_from_it(service, monkeypatch):
    """Every cipher reports, whichever comes first."""
    ciphers = [EnvelopeCipher.from_uri("fake:app") for _ in range(3)]

    def broken():
        raise OSError("broken")

    told = []
    for each in ciphers[:2]:
        monkeypatch.setattr(each._session, "report", broken)
    monkeypatch.setattr(ciphers[2]._session, "report", lambda: told.append(ciphers[2]))
    with pytest.raises(OSError, match="broken"):
        session._report_all()
    assert told == [ciphers[2]]
