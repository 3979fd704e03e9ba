"""Rewrapping: other keys or newer versions, the same body."""

import io
import os

import pytest

from kmsbridge import (
    AuthenticationError,
    ConfigError,
    EnvelopeCipher,
    KmsKeyNotFound,
    MalformedMessage,
    NoMatchingKey,
    inspect,
    inspect_file,
)
from kmsbridge import message as wire
from kmsbridge.cipher import rewrapping
from kmsbridge.driver import ErrorKind
from kmsbridge.drivers.local.keyfile import KeyFile
from tests.support import encrypt_chunked, parts

CONTEXT = {"tenant": "acme"}


def body_of(message):
    return parts(message)[1]


def assert_same_but_for_recipients(moved, message):
    """The kind, the commitment and the body, byte for byte; no padding where there was none."""
    new, old = wire.parse(moved), wire.parse(message)
    assert (new.kind, new.commitment, new.padding) == (old.kind, old.commitment, 0)
    assert body_of(moved) == body_of(message)


@pytest.fixture
def mover(service):
    """Encrypts to other, decrypts with other and app."""
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as cipher:
        yield cipher


def test_a_message_moves_to_another_key_without_its_body_being_touched(cipher, mover, encrypt):
    """Afterwards the old key is not needed."""
    message = encrypt(cipher, b"x", context=CONTEXT, aad=b"1")
    assert mover.needs_rewrap(message)
    moved = mover.rewrap(message, context=CONTEXT)
    assert_same_but_for_recipients(moved, message)
    assert [each.key_id for each in inspect(moved).recipients] == ["fake:other"]
    assert not mover.needs_rewrap(moved)
    assert mover.decrypt(moved, context=CONTEXT, aad=b"1") == b"x"
    with pytest.raises(NoMatchingKey):
        cipher.decrypt(moved, context=CONTEXT, aad=b"1")


def test_a_rotated_key_needs_a_rewrap_to_its_new_version(service, cipher, encrypt):
    """The body stays, the version in the header is the new one."""
    message = encrypt(cipher, b"x")
    service.app.rotate()
    with EnvelopeCipher.from_uri("fake:app") as later:
        assert later.needs_rewrap(message)
        moved = later.rewrap(message)
        assert not later.needs_rewrap(moved)
        assert_same_but_for_recipients(moved, message)
        assert not later.needs_rewrap(parts(moved)[0])  # the header will do
        assert later.decrypt(moved) == b"x"


def test_versions_are_asked_for_every_ten_seconds_at_most(monkeypatch, service, cipher, encrypt):
    """And a rotation is seen after that."""
    now = [100.0]
    monkeypatch.setattr(rewrapping, "age", lambda: now[0])
    message = encrypt(cipher, b"x")
    for _ in range(100):
        assert not cipher.needs_rewrap(message)
    assert service.app.calls["describe"] == 1
    service.app.rotate()
    now[0] += rewrapping.CURRENT_FOR
    assert cipher.needs_rewrap(message)


def test_messages_of_one_data_key_are_rewrapped_by_one_call(service, cipher, mover):
    """1,000 messages with both formats of body, one unwrap and one wrap."""
    messages = [
        *cipher.encrypt_many([b"%d" % n for n in range(600)]),
        *(encrypt_chunked(cipher, b"%d" % n) for n in range(600, 1000)),
    ]
    service.app.calls.clear()
    moved = [mover.rewrap(message) for message in messages]
    assert (service.app.calls["unwrap"], service.other.calls["wrap"]) == (1, 1)
    for after, before in zip(moved, messages, strict=True):
        assert_same_but_for_recipients(after, before)
    assert mover.decrypt_many(moved) == [b"%d" % n for n in range(1000)]


def test_direct_messages_are_rewrapped_with_their_aad(service, mover):
    """The payload itself is wrapped anew."""
    with EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
        message = direct.encrypt(b"x", context=CONTEXT, aad=b"1")
    with pytest.raises(AuthenticationError):
        mover.rewrap(message, context=CONTEXT, aad=b"2")
    moved = mover.rewrap(message, context=CONTEXT, aad=b"1")
    assert mover.decrypt(moved, context=CONTEXT, aad=b"1") == b"x"


def test_a_direct_message_is_not_rewrapped_to_several_keys(tmp_path, service):
    """It would have several recipients, which no message of this kind has; the file stays as it is."""
    with EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
        message = direct.encrypt(b"x", context=CONTEXT)
    path, config = tmp_path / "message", tmp_path / "c.toml"
    path.write_bytes(message)
    config.write_text(
        "[keys]\napp.uri = 'fake:app'\nother.uri = 'fake:other'\n"
        "[profiles.p]\nencrypt_to = ['app', 'other']\ndecrypt_with = ['app']\n"
    )
    with EnvelopeCipher.from_config(config) as cipher:
        for rewrap in (
            lambda: cipher.rewrap(message, context=CONTEXT),
            lambda: cipher.rewrap_file(path, context=CONTEXT),
        ):
            with pytest.raises(
                ConfigError, match="a direct message is encrypted to one key.*one key in encrypt_to"
            ):
                rewrap()
    assert path.read_bytes() == message
    assert sorted(os.listdir(tmp_path)) == ["c.toml", "message"]


def test_a_wrong_context_changes_nothing(tmp_path, cipher, mover):
    """The key service refuses; the file is as before."""
    (tmp_path / "plain").write_bytes(b"x")
    cipher.encrypt_file(tmp_path / "plain", tmp_path / "sealed", context=CONTEXT)
    before = (tmp_path / "sealed").read_bytes()
    with pytest.raises(AuthenticationError):
        mover.rewrap_file(tmp_path / "sealed", context={"tenant": "other"})
    assert (tmp_path / "sealed").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["plain", "sealed"]


def test_a_file_with_room_is_rewrapped_in_place(tmp_path, cipher, mover):
    """Same inode, same length, same body; nothing is left beside it."""
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    plain.write_bytes(os.urandom(100_000))
    cipher.encrypt_file(plain, sealed, context=CONTEXT)
    before, inode = sealed.read_bytes(), sealed.stat().st_ino
    mover.rewrap_file(sealed, context=CONTEXT)
    after = sealed.read_bytes()
    assert sealed.stat().st_ino == inode
    assert (len(after), body_of(after)) == (len(before), body_of(before))
    assert inspect_file(sealed).recipients[0].key_id == "fake:other"
    assert sorted(os.listdir(tmp_path)) == ["plain", "sealed"]
    mover.decrypt_file(sealed, tmp_path / "opened", context=CONTEXT)
    assert (tmp_path / "opened").read_bytes() == plain.read_bytes()


@pytest.fixture
def config(tmp_path, service):
    """Encrypts to two keys, decrypts with the first."""
    config = tmp_path / "kmsbridge.toml"
    config.write_text(
        '[keys.a]\nuri = "fake:app"\n[keys.b]\nuri = "fake:other"\n'
        '[profiles.p]\nencrypt_to = ["a", "b"]\ndecrypt_with = ["a"]\n'
    )
    return config


def test_a_file_without_room_is_replaced_whole_and_keeps_its_mode(tmp_path, cipher, config):
    """What a stream wrote has no padding."""
    sealed = tmp_path / "sealed"
    with sealed.open("wb") as file:
        cipher.encrypt_stream(io.BytesIO(bytes(3_000_000)), file)
    sealed.chmod(0o640)
    before = sealed.read_bytes()
    with EnvelopeCipher.from_config(config) as both:
        both.rewrap_file(sealed)
    after = sealed.read_bytes()
    assert body_of(after) == body_of(before)
    assert len(inspect(after).recipients) == 2
    assert inspect(after).padding >= 512
    assert sealed.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("payload", (b"", b"x", bytes(65_536)), ids=len)
def test_a_file_with_a_compact_message_is_replaced_whole_and_keeps_its_mode(
    tmp_path, cipher, config, mover, payload
):
    """It has no padding, and gets none: neither for more recipients nor for as many of the same length."""
    sealed = tmp_path / "sealed"
    message = cipher.encrypt(payload, context=CONTEXT, aad=b"1")
    sealed.write_bytes(message)
    sealed.chmod(0o640)
    with EnvelopeCipher.from_config(config) as both:
        for count, rewrap in ((2, both.rewrap_file), (1, mover.rewrap_file), (1, mover.rewrap_file)):
            inode = sealed.stat().st_ino
            with sealed.open("rb") as before:  # while it is open, its inode is not given to another
                rewrap(sealed, context=CONTEXT)
                assert sealed.stat().st_ino != inode
                assert before.read()
            assert_same_but_for_recipients(sealed.read_bytes(), message)
            assert len(inspect_file(sealed).recipients) == count
            assert sealed.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["kmsbridge.toml", "sealed"]
    assert mover.decrypt(sealed.read_bytes(), context=CONTEXT, aad=b"1") == payload


def test_a_link_is_followed_and_stays(tmp_path, cipher, mover):
    """The file that it points to is rewrapped."""
    (tmp_path / "plain").write_bytes(b"x")
    cipher.encrypt_file(tmp_path / "plain", tmp_path / "sealed")
    (tmp_path / "link").symlink_to("sealed")
    mover.rewrap_file(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert inspect_file(tmp_path / "sealed").recipients[0].key_id == "fake:other"


def test_a_name_as_long_as_a_name_may_be_is_no_hindrance(tmp_path, cipher, mover):
    """255 bytes, in any script."""
    for name in ("n" * 255, "名" * 85):
        sealed = tmp_path / name
        (tmp_path / "plain").write_bytes(b"x")
        cipher.encrypt_file(tmp_path / "plain", sealed)
        mover.rewrap_file(sealed)
        mover.decrypt_file(sealed, tmp_path / "opened")
        assert (tmp_path / "opened").read_bytes() == b"x"


def test_what_is_no_message_is_refused_and_left(tmp_path, mover):
    """`MalformedMessage`."""
    path = tmp_path / "text"
    path.write_text("not a message at all")
    with pytest.raises(MalformedMessage):
        mover.rewrap_file(path)
    assert path.read_text() == "not a message at all"


def test_local_keys_rotate_and_rewrap(tmp_path, encrypt):
    """End to end with the local driver; without the old version the old message is lost, as it should be."""
    path = tmp_path / "keys.json"
    keys = KeyFile.create(path, "app")
    with EnvelopeCipher.from_uri(f"local:{path}") as cipher:
        message = encrypt(cipher, b"x")
        keys.rotate("app")
    with EnvelopeCipher.from_uri(f"local:{path}") as cipher:
        assert cipher.needs_rewrap(message)
        moved = cipher.rewrap(message)
        assert inspect(moved).recipients[0].key_version == "2"
        assert cipher.decrypt(message) == cipher.decrypt(moved) == b"x"
        keys.remove_key("app")
    new = KeyFile.create(tmp_path / "new.json", "app").path
    with EnvelopeCipher.from_uri(f"local:{new}") as other, pytest.raises((NoMatchingKey, KmsKeyNotFound)):
        other.decrypt(moved)


# --- by the service ---------------------------------------------------------------------------------


def test_the_service_rewraps_where_it_can(service, cipher, encrypt):
    """Nobody here sees the data key: no unwrap and no wrap."""
    message = encrypt(cipher, b"x")
    service.app.rotate()
    service.app.calls.clear()
    with EnvelopeCipher.from_uri("fake:app") as other:
        again = other.rewrap(message)
        assert (service.app.calls["rewrap"], service.app.calls["unwrap"], service.app.calls["wrap"]) == (
            1,
            0,
            0,
        )
        assert_same_but_for_recipients(again, message)
        assert inspect(again).recipients[0].key_version == "2"
        assert other.decrypt(again) == b"x"


def test_a_caller_that_may_not_rewrap_unwraps_and_wraps(service, cipher, encrypt):
    """As one that may do both is allowed to."""
    message = encrypt(cipher, b"x")
    service.app.fail("rewrap", ErrorKind.ACCESS_DENIED)
    with EnvelopeCipher.from_uri("fake:app") as other:
        assert other.decrypt(other.rewrap(message)) == b"x"
    assert (service.app.calls["rewrap"], service.app.calls["unwrap"]) == (1, 2)


def test_a_service_is_not_asked_to_rewrap_what_another_key_wrapped(service, cipher, mover, encrypt):
    """Unless its driver says that it takes that key's."""
    service.other.calls.clear()
    mover.rewrap(encrypt(cipher, b"x"))
    assert service.other.calls["rewrap"] == 0
    assert service.other.calls["wrap"] == 1


def test_a_rewrap_by_the_service_wants_the_context_too(service, cipher, encrypt):
    message = encrypt(cipher, b"x", context={"a": "b"})
    with EnvelopeCipher.from_uri("fake:app") as other, pytest.raises(AuthenticationError):
        other.rewrap(message, context={"a": "c"})


def test_direct_messages_are_rewrapped_by_the_service_too(service):
    with EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
        message = direct.encrypt(b"x", aad=b"1")
        service.app.rotate()
        service.app.calls.clear()
        again = direct.rewrap(message, aad=b"1")
        assert service.app.calls["unwrap"] == 0
        assert direct.decrypt(again, aad=b"1") == b"x"
        assert inspect(again).recipients[0].key_version == "2"


def test_a_damaged_recipient_does_not_keep_a_message_from_being_rewrapped(tmp_path, service, encrypt):
    """As it does not keep it from being decrypted, where another is sound."""
    path = tmp_path / "kmsbridge.toml"
    path.write_text(
        '[keys.app]\nuri = "fake:app"\n[keys.other]\nuri = "fake:other"\n'
        '[profiles.p]\nencrypt_to = ["app", "other"]\ndecrypt_with = ["app", "other"]\n'
    )
    with EnvelopeCipher.from_config(path) as both:
        message = encrypt(both, b"x")
        wrapped = wire.parse(message).recipients[0].wrapped
        damaged = message.replace(wrapped, wrapped[:-1] + bytes([wrapped[-1] ^ 1]))
        assert both.decrypt(damaged) == b"x"
        again = both.rewrap(damaged)
    with EnvelopeCipher.from_uri("fake:app") as one:
        assert one.decrypt(again) == b"x"
