"""The fixtures for tests of applications: each test has a key service of its own."""

import os
import subprocess
import sys

import pytest

from kmsbridge import EnvelopeCipher, KmsAccessDenied, shared, testing
from kmsbridge.driver import ErrorKind

names = []


def test_the_cipher_uses_the_key(kms_cipher, kms_key):
    assert kms_cipher.decrypt(kms_cipher.encrypt(b"x")) == b"x"
    assert (kms_key.calls["wrap"], kms_key.calls["unwrap"]) == (1, 1)
    kms_key.fail("wrap", ErrorKind.ACCESS_DENIED)
    with pytest.raises(KmsAccessDenied):
        kms_cipher.encrypt(b"x", context={"tenant": "acme"})


@pytest.mark.parametrize("nth", (1, 2))
def test_an_application_that_opens_its_own_gets_this_test_s_key(kms_key, nth):
    """Also of the one that is shared by the process, which an earlier test has used."""
    for cipher in (shared(), EnvelopeCipher.from_config()):
        message = cipher.encrypt(b"x")
        assert cipher.decrypt(message) == b"x"
        cipher.close()
    assert kms_key.calls["wrap"] == kms_key.calls["unwrap"] == 2
    names.append(kms_key.name)
    assert len(set(names)) == len(names)


def test_what_was_configured_is_not_used_meanwhile(monkeypatch, tmp_path, request):
    monkeypatch.setenv("KMSBRIDGE_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("KMSBRIDGE_PROFILE", "none")
    key = request.getfixturevalue("kms_key")
    with EnvelopeCipher.from_config() as cipher:
        cipher.encrypt(b"x")
    assert key.calls["wrap"] == 1


def test_the_environment_is_as_it_was():
    assert "KMSBRIDGE_KEY" not in os.environ


def test_they_are_names_of_the_library_s_tests_too():
    assert testing.kms_cipher is not testing.kms_key


def test_the_plugin_imports_nothing_of_the_library():
    """Else what is imported at its beginning would be left out where coverage is measured."""
    code = "import kmsbridge_testing.plugin, sys; print([m for m in sys.modules if m.split('.')[0] == 'kmsbridge'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
