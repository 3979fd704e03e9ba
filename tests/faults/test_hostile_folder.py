"""A message in a folder where others may put things beside it."""

import os

import pytest

from kmsbridge import AuthenticationError, EnvelopeCipher, inspect_file, journal
from kmsbridge import message as wire

AAD = b"payments/1"


@pytest.fixture
def message(tmp_path, cipher):
    """A file, and its message."""
    (tmp_path / "plain").write_bytes(b"pay 10 to alice")
    cipher.encrypt_file(tmp_path / "plain", tmp_path / "message", aad=AAD)
    return tmp_path / "message"


def beside(message):
    return message.with_name(message.name + journal.SUFFIX)


def read(cipher, message):
    target = message.with_name("read")
    cipher.decrypt_file(message, target, aad=AAD)
    return target.read_bytes()


def test_a_link_beside_a_message_does_not_lead_a_rewrap_elsewhere(cipher, message, tmp_path):
    """What it points to stays as it was."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    beside(message).symlink_to(victim)
    cipher.rewrap_file(message)
    assert victim.read_bytes() == b"precious"
    assert not os.path.lexists(beside(message))
    assert read(cipher, message) == b"pay 10 to alice"


def test_a_direct_message_beside_a_file_does_not_stand_in_for_it(service, cipher, message):
    """Its header is as long as the whole file, so that no body would be left to compare."""
    with EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
        other = wire.parse(direct.encrypt(b"pay 9999 to mallory", aad=AAD))
    size = message.stat().st_size
    whole = wire.Header(other.kind, size, other.recipients).encode()
    beside(message).write_bytes(whole + bytes(32))
    assert read(cipher, message) == b"pay 10 to alice"


@pytest.mark.parametrize("kind", ("fifo", "folder", "endless", "empty", "huge"))
def test_what_is_no_saved_header_is_passed_over(cipher, message, kind):
    """It is not waited for, not read without bound, and no error."""
    place = beside(message)
    match kind:
        case "fifo":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "endless":
            place.symlink_to("/dev/zero")
        case "empty":
            place.touch()
        case "huge":
            place.write_bytes(message.read_bytes() + bytes(10**6))
    assert read(cipher, message) == b"pay 10 to alice"
    assert inspect_file(message).kind == "inline"


def test_a_saved_header_is_also_what_inspect_shows(service, cipher, message):
    """After a crash in the middle of a rewrap: the file's own header is torn."""
    data = message.read_bytes()
    header = wire.parse_header(data)
    mark = data[header.length : header.length + 56]
    beside(message).write_bytes(data[: header.length] + mark + bytes(32))
    message.write_bytes(data[:20] + bytes(20) + data[40:])
    assert inspect_file(message).recipients[0].key_id == header.recipients[0].key_id
    assert journal.interrupted(message)
    assert read(cipher, message) == b"pay 10 to alice"
    cipher.rewrap_file(message)
    assert not journal.interrupted(message)
    with pytest.raises(AuthenticationError):
        cipher.decrypt(message.read_bytes(), aad=b"other")
