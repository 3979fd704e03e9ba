"""The headers of compact messages: rewrapped, looked at, too long, and with a data key that is in a store."""

import os

import pytest

from kmsbridge import (
    AuthenticationError,
    EnvelopeCipher,
    LimitExceeded,
    MalformedMessage,
    UnsupportedMessage,
    inspect,
    inspect_file,
)
from kmsbridge import message as wire
from kmsbridge.datakeys import datakey
from kmsbridge.message import Kind, compact, xaes
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.support import encrypt_chunked, encrypt_compact, install, parts
from tests.unit.compact_messages import (
    BINDING,
    CONTEXT,
    DATA_KEY,
    LONGEST,
    READ,
    made,
    many,
    run,
    temporary_folder,
    with_commitment,
)
from tests.vectors import writer

# --- rewrapping, looking at ---------------------------------------------------------------------------


@pytest.mark.parametrize("armored", (False, True), ids=("bytes", "text"))
def test_inspect_shows_kind_body_and_commitment(service, tmp_path, armored):
    """From memory and from a file, without a key."""
    message = made(service, b"payload")
    (tmp_path / "message").write_bytes(message)
    info = inspect(wire.armor(message) if armored else message)
    assert (info.kind, info.body, info.commitment) == (
        "inline",
        "compact",
        writer.derive_compact(DATA_KEY, CONTEXT)[1].hex(),
    )
    assert (info.plaintext_length, info.body_length, info.padding) == (7, 47, 0)
    assert inspect_file(tmp_path / "message") == info


def test_a_chunked_message_shows_no_commitment(cipher):
    """Its body has one."""
    info = inspect(encrypt_chunked(cipher, b"payload"))
    assert (info.kind, info.body, info.commitment) == ("inline", "chunked", "")


@pytest.mark.parametrize("length", (0, 39, LONGEST + 41), ids="{} bytes".format)
def test_a_body_of_an_impossible_length_is_not_rewrapped(service, tmp_path, length):
    """In memory or in a file, which stays as it is."""
    message = parts(made(service, b"payload"))[0] + bytes(length)
    path = tmp_path / "message"
    path.write_bytes(message)
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as mover:
        for rewrap in (lambda: mover.rewrap(message, **BINDING), lambda: mover.rewrap_file(path, **BINDING)):
            with pytest.raises(MalformedMessage):
                rewrap()
    assert path.read_bytes() == message
    assert os.listdir(tmp_path) == ["message"]


def test_a_wrong_commitment_is_not_rewrapped_where_the_data_key_is_seen(service, tmp_path):
    """It would stay unreadable; cold and warm."""
    good = made(service, b"payload")
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as mover:
        for _ in range(2):
            with pytest.raises(AuthenticationError):
                mover.rewrap(with_commitment(good, lambda _: bytes(32)), **BINDING)
            assert mover.decrypt(mover.rewrap(good, context=CONTEXT), **BINDING) == b"payload"


class Long(FakeDriver):
    """Its service's ciphertexts are about 4 KB long."""

    scheme = "long"
    length = 4000

    def wrap(self, plaintext, context, *, timeout):
        wrapped = super().wrap(plaintext, context, timeout=timeout)
        return wrapped._replace(ciphertext=wrapped.ciphertext.ljust(self.length, b"\0"))

    def unwrap(self, wrapped, context, *, timeout):
        return super().unwrap(
            wrapped._replace(ciphertext=wrapped.ciphertext.rstrip(b"\0")), context, timeout=timeout
        )


@pytest.fixture
def sixteen(service, monkeypatch, tmp_path):
    """Opens a profile of sixteen keys, with what each of them wraps so long that a chunked header has 65,535 bytes
    less so many; decrypts with app as well.
    """

    def open_with(spare):
        names = [f"k{n:x}" for n in range(16)]
        driver = type("Driver", (Long,), {"service": service, "capabilities": FakeDriver.capabilities})
        install(monkeypatch, driver)
        entry = 2 + len("long:k0") + 1 + len("1") + 2
        total = wire.MAX_HEADER - wire.FIXED - 1 - spare - 16 * entry
        lengths = [total // 16 + (n < total % 16) for n in range(16)]
        monkeypatch.setattr(driver, "length", property(lambda self: lengths[names.index(self.name)]))
        for name in names:
            if name not in service._keys:
                service.create(name)
        path = tmp_path / "kmsbridge.toml"
        path.write_text(
            '[keys.app]\nuri = "fake:app"\n'
            + "".join(f'[keys.{name}]\nuri = "long:{name}"\n' for name in names)
            + f"[profiles.p]\nencrypt_to = {names}\ndecrypt_with = {[*names, 'app']}\n"
        )
        return EnvelopeCipher.from_config(path)

    return open_with


def test_a_header_of_65535_bytes_is_written_and_read(sixteen):
    """With its commitment; what is chunked then has room for 32 bytes more."""
    with sixteen(32) as cipher:
        message = encrypt_compact(cipher, b"payload", **BINDING)
        assert wire.parse(message).length == wire.MAX_HEADER
        assert len(wire.parse(message).recipients) == 16
        assert cipher.decrypt(message, **BINDING) == b"payload"
        assert wire.parse(encrypt_chunked(cipher, b"payload", **BINDING)).length == wire.MAX_HEADER - 32


@pytest.mark.parametrize("spare", (31, 0))
def test_a_header_that_has_no_room_for_the_commitment_is_told(service, sixteen, spare):
    """`LimitExceeded` for whatever would be compact, each time, and nothing is written; a stream still fits."""
    moved = made(service, b"payload")
    with sixteen(spare) as cipher:
        for _ in range(2):
            for call in (
                lambda: cipher.encrypt(b"payload", **BINDING),
                lambda: cipher.encrypt_text("payload", **BINDING),
                lambda: cipher.encrypt_many([b"payload"], context=CONTEXT),
                lambda: cipher.rewrap(moved, **BINDING),
            ):
                with pytest.raises(LimitExceeded, match="header would have 6[56]"):
                    call()
        assert cipher.decrypt(encrypt_chunked(cipher, b"payload", **BINDING), **BINDING) == b"payload"
        assert cipher.decrypt(cipher.encrypt(bytes(LONGEST + 1), **BINDING), **BINDING) == bytes(LONGEST + 1)


# --- data keys in a store -----------------------------------------------------------------------------

STORED = {
    "chunked": wire.Header(Kind.STORED, 40, (), bytes(32)).encode() + bytes(72),
    "compact": wire.Header(Kind.STORED_COMPACT, 40, (), bytes(32)).encode() + bytes(40),
}


def rewrapped_file(cipher, message, options):
    with temporary_folder() as folder:
        (folder / "message").write_bytes(message)
        try:
            cipher.rewrap_file(folder / "message", **options)
        finally:
            assert (folder / "message").read_bytes() == message


ALL = READ | {
    "rewrap": lambda c, m, o: c.rewrap(m, **o),
    "rewrap_many": lambda c, m, o: c.rewrap_many([m], **many(o)),
    "rewrap_file": rewrapped_file,
    "async rewrap": lambda c, m, o: run(lambda c: c.rewrap(m, **o)),
}


def needs_rewrap(cipher, message, _):
    """Takes no context and no aad."""
    return cipher.needs_rewrap(message)


@pytest.mark.parametrize("way", [*ALL.values(), needs_rewrap], ids=[*ALL, "needs_rewrap"])
@pytest.mark.parametrize("message", STORED.values(), ids=STORED)
def test_a_message_whose_data_key_is_in_a_store_is_unsupported_in_every_way(service, cipher, way, message):
    """It can be looked at; to decrypt it takes a store, which nobody has."""
    assert inspect(message).kind == "stored"
    cipher.encrypt(b"warm")
    service.app.calls.clear()
    with pytest.raises(UnsupportedMessage, match="key store"):
        way(cipher, message, BINDING)
    assert not service.app.calls


def test_xaes_and_the_library_s_limits_are_those_of_the_format():
    """The numbers that other programs rely on."""
    assert (xaes.NONCE, xaes.PREFIX, xaes.TAG, xaes.KEY) == (24, 12, 16, 32)
    assert (compact.MAX_PAYLOAD, compact.PER_PREFIX, datakey.MAX_PREFIXES) == (LONGEST, 2**24, 64)
    assert (wire.MIN_COMPACT_BODY, wire.MAX_COMPACT_BODY) == (40, 65_576)
