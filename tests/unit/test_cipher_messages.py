"""encrypt and decrypt: bytes, text, many, direct; what is refused and how it is told."""

import array
import contextlib
import threading

import pytest

from kmsbridge import (
    AuthenticationError,
    ClosedError,
    ConfigError,
    Decryptor,
    EnvelopeCipher,
    KmsBridgeError,
    LimitExceeded,
    MalformedMessage,
    UnsupportedMessage,
    inspect,
)
from kmsbridge import message as wire
from kmsbridge.driver import Capability, ErrorKind
from kmsbridge.testing import installed
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.support import BODIES, encrypt_chunked

CONTEXT = {"tenant": "acme", "purpose": "Rückzahlung"}
SIZES = {"compact": 1, "chunked": 20_000}
"""Times that a small payload is repeated, to have each format of body from `encrypt`."""


@pytest.fixture
def direct(service):
    with EnvelopeCipher.from_uri("fake:app", direct=True) as cipher:
        yield cipher


@pytest.mark.parametrize("size", (0, 1, 100, 16383, 16384, 16385, 65535, 65536, 65537, 100_000))
def test_what_is_encrypted_comes_back(cipher, size):
    """At and around the edges of chunks, and of compact bodies."""
    plaintext = bytes(n % 251 for n in range(size))
    binding = {"context": CONTEXT, "aad": b"users/42"}
    for message in (cipher.encrypt(plaintext, **binding), encrypt_chunked(cipher, plaintext, **binding)):
        assert type(message) is bytes
        for _ in range(2):
            assert cipher.decrypt(message, **binding) == plaintext


@pytest.mark.parametrize(
    "kind",
    (bytes, bytearray, memoryview, lambda b: array.array("B", b)),
    ids=("bytes", "bytearray", "memoryview", "array"),
)
def test_any_contiguous_buffer_will_do(cipher, direct, kind):
    """As plaintext, aad and message, direct or not."""
    for each, payload in ((cipher, b"payload"), (cipher, b"payload" * 10_000), (direct, b"payload")):
        message = each.encrypt(kind(payload), aad=kind(b"aad"))
        for _ in range(2):
            assert each.decrypt(kind(message), aad=kind(b"aad")) == payload


@pytest.mark.parametrize(
    "wrong",
    (
        {"context": None},
        {"context": {"tenant": "acme"}},
        {"context": {**CONTEXT, "x": "y"}},
        {"aad": b""},
        {"aad": b"users/43"},
    ),
    ids=("no context", "part of the context", "more context", "no aad", "another aad"),
)
def test_any_other_context_or_aad_is_refused_in_one_wording(cipher, direct, wrong):
    """Which of them was wrong is not told."""
    binding = {"context": CONTEXT, "aad": b"users/42"}
    messages = [(cipher, encrypt(cipher, b"x", **binding)) for encrypt in BODIES.values()]
    for each, message in (*messages, (direct, direct.encrypt(b"x", **binding))):
        each.decrypt(message, context=CONTEXT, aad=b"users/42")
        with pytest.raises(AuthenticationError) as caught:
            each.decrypt(message, **({"context": CONTEXT, "aad": b"users/42"} | wrong))
        assert str(caught.value) == str(AuthenticationError())


@pytest.mark.parametrize("kind", (*BODIES, "direct"))
def test_no_changed_byte_gives_another_plaintext(service, cipher, kind):
    """In the header or the body, with the data key cached or not; an error is one of the tree.

    A changed version in the header can be harmless: it is there to be read, the ciphertext has its own.
    """
    with EnvelopeCipher.from_uri("fake:app", direct=kind == "direct") as writer:
        message = BODIES.get(kind, EnvelopeCipher.encrypt)(writer, b"payload")
    cipher.decrypt(message)
    for n in range(len(message)):
        changed = bytearray(message)
        changed[n] ^= 1
        with contextlib.suppress(KmsBridgeError):
            assert cipher.decrypt(bytes(changed)) == b"payload"
        with pytest.raises(KmsBridgeError):
            cipher.decrypt(message[:n])


TELLING = {
    "str to encrypt": (
        lambda c, m: c.encrypt("text"),
        "plaintext must be bytes-like, not str: use encrypt_text",
    ),
    "str to decrypt": (
        lambda c, m: c.decrypt("text"),
        "message must be bytes-like, not str: use decrypt_text",
    ),
    "str to rewrap": (lambda c, m: c.rewrap("text"), "message must be bytes-like, not str"),
    "str to needs_rewrap": (lambda c, m: c.needs_rewrap("text"), "message must be bytes-like"),
    "bytes to encrypt_text": (lambda c, m: c.encrypt_text(b"x"), "text must be str, not bytes: use encrypt"),
    "bytes to decrypt_text": (
        lambda c, m: c.decrypt_text(b"x"),
        "text must be str, not bytes: use encrypt and decrypt",
    ),
    "None to encrypt": (lambda c, m: c.encrypt(None), "plaintext must be bytes-like, not NoneType"),
    "a list to encrypt": (lambda c, m: c.encrypt([1, 2]), "plaintext must be bytes-like, not list"),
    "an int to decrypt": (lambda c, m: c.decrypt(7), "message must be bytes-like, not int"),
    "buffer of two dimensions": (
        lambda c, m: c.encrypt(memoryview(bytes(6)).cast("B", (3, 2))),
        "contiguous",
    ),
    "buffer of wider items": (lambda c, m: c.encrypt(memoryview(array.array("I", [1, 2]))), "of bytes"),
    "strided buffer": (lambda c, m: c.encrypt(memoryview(b"abcd")[::2]), "contiguous"),
    "str as aad of encrypt": (
        lambda c, m: c.encrypt(b"x", aad="a"),
        "aad must be bytes-like, not str: encode it",
    ),
    "str as aad of decrypt": (lambda c, m: c.decrypt(m, aad="a"), "aad must be bytes-like, not str"),
    "None as aad": (lambda c, m: c.encrypt(b"x", aad=None), "aad must be bytes-like, not NoneType"),
    "list as context": (lambda c, m: c.encrypt(b"x", context=[("a", "b")]), "context must be a mapping"),
    "str as context": (lambda c, m: c.decrypt(m, context="a=b"), "context must be a mapping"),
    "int in context": (lambda c, m: c.encrypt(b"x", context={"id": 7}), "context must map str to str"),
    "unhashable in context": (
        lambda c, m: c.encrypt(b"x", context={"id": []}),
        "context must map str to str",
    ),
    "one str for many": (lambda c, m: c.encrypt_many("ab"), "plaintexts must be an iterable .* not one str"),
    "one message for many": (lambda c, m: c.decrypt_many(m), "messages must be an iterable .* not one bytes"),
    "int among many": (lambda c, m: c.decrypt_many([m, 7]), r"messages\[1\] must be bytes-like, not int"),
    "too few aads": (lambda c, m: c.encrypt_many([b"x", b"y"], aads=[b"1"]), "aads must be a sequence of 2"),
    "bytes as aads": (lambda c, m: c.encrypt_many([b"x"], aads=b"1"), "aads must be a sequence of 1"),
    "str among aads": (lambda c, m: c.decrypt_many([m], aads=["1"]), r"aads\[0\] must be bytes-like"),
    "aads for nothing": (lambda c, m: c.decrypt_many([], aads=[b"1"]), "aads must be a sequence of 0"),
}


@pytest.mark.parametrize(("call", "words"), TELLING.values(), ids=TELLING)
@pytest.mark.parametrize("warm", (False, True), ids=("cold", "warm"))
def test_a_wrong_type_is_told_by_name(service, cipher, encrypt, call, words, warm):
    """`TypeError`, the same with a data key at hand and without, and no call is made."""
    with EnvelopeCipher.from_uri("fake:app") as writer:
        message = encrypt(writer, b"x")
    if warm:
        cipher.encrypt(b"x")
        cipher.decrypt(message)
    service.app.calls.clear()
    with pytest.raises(TypeError, match=words):
        call(cipher, message)
    assert not service.app.calls


@pytest.mark.parametrize(
    ("context", "error"),
    (
        ({"": "x"}, ConfigError),
        ({"x": ""}, ConfigError),
        ({"kmsbridge": "dek"}, ConfigError),
        ({"\ud800": "x"}, ConfigError),
        ({str(n): "x" for n in range(65)}, LimitExceeded),
        ({"x": "y" * 4096}, LimitExceeded),
    ),
    ids=("empty name", "empty value", "reserved", "surrogate", "65 pairs", "4 KiB"),
)
def test_a_context_that_cannot_be_is_refused_before_any_call(service, cipher, encrypt, context, error):
    """Everywhere, with a remedy."""
    message = encrypt(cipher, b"x")
    service.app.calls.clear()
    for call in (
        lambda: cipher.encrypt(b"x", context=context),
        lambda: cipher.decrypt(message, context=context),
    ):
        with pytest.raises(error) as caught:
            call()
        assert caught.value.remedy
    assert not service.app.calls


@pytest.mark.parametrize(
    "text",
    ("", "plain", "Grüße, 世界, مرحبا, 🔑", "\0\n", "long, " * 20_000),
    ids=("empty", "ascii", "scripts", "controls", "long"),
)
def test_text_goes_through_text(cipher, text):
    """The armored form survives white space around it."""
    armored = cipher.encrypt_text(text, context=CONTEXT, aad=b"1")
    assert armored.startswith("kmsb1_")
    assert cipher.decrypt_text(f"\n {armored}\t", context=CONTEXT, aad=b"1") == text


@pytest.mark.parametrize(
    ("damage", "words"),
    (
        (lambda t: t[:-1], "damaged|could not be authenticated"),
        (lambda t: t + "!", "damaged"),
        (lambda t: t[:20] + " " + t[20:], "damaged"),
        (lambda t: t[6:], "does not begin"),
        (lambda t: "", "does not begin"),
    ),
    ids=("cut", "junk behind", "space inside", "no prefix", "nothing"),
)
@pytest.mark.parametrize("times", SIZES.values(), ids=SIZES)
def test_damaged_text_is_told(cipher, damage, words, times):
    """`MalformedMessage`, or not authentic."""
    with pytest.raises((MalformedMessage, AuthenticationError), match=words):
        cipher.decrypt_text(damage(cipher.encrypt_text("text" * times)))


@pytest.mark.parametrize("times", SIZES.values(), ids=SIZES)
def test_an_armored_message_as_bytes_is_told(cipher, times):
    """Pointing to `decrypt_text`."""
    with pytest.raises(MalformedMessage, match="armored.*decrypt_text"):
        cipher.decrypt(cipher.encrypt_text("text" * times).encode())


def test_bytes_that_are_no_text_are_told(cipher, encrypt):
    """`decrypt_text` of what `encrypt` made of anything."""
    with pytest.raises(ValueError, match="not text: use decrypt"):
        cipher.decrypt_text(wire.armor(encrypt(cipher, b"\xff")))


def test_later_versions_and_kinds_are_told_apart_from_junk(cipher, encrypt):
    """`UnsupportedMessage` says to upgrade."""
    message = encrypt(cipher, b"x")
    for changed in (message[:4] + b"\2" + message[5:], message[:5] + b"\7" + message[6:]):
        with pytest.raises(UnsupportedMessage, match="upgrade"):
            cipher.decrypt(changed)
    stored = b"KMSB\1\1" + (40).to_bytes(2, "big") + bytes(32) + bytes(72)
    with pytest.raises(UnsupportedMessage, match="key store"):
        cipher.decrypt(stored)


def test_many_take_few_calls_and_keep_their_order(service, cipher):
    """1,000 messages of 5 data keys, with both formats of body: one batch."""
    messages = []
    for n in range(5):
        with EnvelopeCipher.from_uri("fake:app") as writer:
            batch = [f"{n}/{i}".encode() for i in range(200)]
            messages += writer.encrypt_many(batch[:100], aads=batch[:100])
            messages += [encrypt_chunked(writer, each, aad=each) for each in batch[100:]]
    plaintexts = [f"{n}/{i}".encode() for n in range(5) for i in range(200)]
    service.app.calls.clear()
    assert cipher.decrypt_many(messages, aads=plaintexts) == plaintexts
    assert service.app.calls == {"unwrap_many": 1}
    assert cipher.decrypt_many(iter(messages[:3]), aads=plaintexts[:3]) == plaintexts[:3]
    assert cipher.encrypt_many([]) == cipher.decrypt_many([]) == []


def test_many_ask_the_keys_in_their_order(tmp_path, service, encrypt):
    """A later key with batches is not asked for what an earlier one without can open."""
    config = tmp_path / "kmsbridge.toml"
    config.write_text(
        '[keys.first]\nuri = "single:other"\n[keys.second]\nuri = "fake:app"\n'
        '[profiles.both]\nencrypt_to = ["first", "second"]\ndecrypt_with = ["first", "second"]\n'
    )
    single = type(
        "Single",
        (FakeDriver,),
        {
            "scheme": "single",
            "capabilities": FakeDriver.capabilities - {Capability.BATCH_UNWRAP},
            "service": service,
        },
    )
    with installed(single), EnvelopeCipher.from_config(config) as both:
        messages = [encrypt(both, b"1"), encrypt(both, b"2")]
        assert both.decrypt_many(messages) == [b"1", b"2"]
    assert service.other.calls["unwrap"] == 1
    assert not service.app.calls["unwrap_many"]


def test_many_count_each_message_for_the_audit_trail(service, caplog):
    """1,000 messages of one data key are a count of 1,000, whatever their bodies are."""
    caplog.set_level("INFO", "kmsbridge.audit")
    with EnvelopeCipher.from_uri("fake:app") as many:
        chunked = [encrypt_chunked(many, b"x") for _ in range(400)]
        many.decrypt_many([*many.encrypt_many([b"x"] * 600), *chunked])
    counts = [record.kmsbridge for record in caplog.records if record.kmsbridge["source"] == "cache"]
    assert {(event["operation"], event["messages"]) for event in counts} == {
        ("encrypt", 1000),
        ("decrypt", 1000),
    }


def test_one_bad_message_among_many_is_an_error(service, cipher, encrypt):
    """All or none; a failing batch falls back to single calls."""
    good = encrypt(cipher, b"x")
    with pytest.raises(AuthenticationError):
        cipher.decrypt_many([good, good[:-1] + bytes([good[-1] ^ 1])])
    with EnvelopeCipher.from_uri("fake:app") as reader:
        service.app.fail("unwrap_many", ErrorKind.INVALID_REQUEST)
        assert reader.decrypt_many([good, good]) == [b"x", b"x"]


def test_direct_messages_have_no_data_key_and_their_limit_is_told(direct, cipher):
    """Up to what the provider wraps at once; no files or streams."""
    message = direct.encrypt(bytes(4096), context=CONTEXT, aad=b"1")
    assert inspect(message).kind == "direct"
    assert cipher.decrypt(message, context=CONTEXT, aad=b"1") == bytes(4096)
    assert cipher.decrypt_many([message], context=CONTEXT, aads=[b"1"]) == [bytes(4096)]
    with pytest.raises(LimitExceeded, match="4096"):
        direct.encrypt(bytes(4097))
    with pytest.raises(ConfigError, match="direct"):
        direct.encrypt_file("a", "b")


def test_a_wrapped_data_key_cannot_be_passed_off_as_a_direct_message(cipher, encrypt):
    """Else the data key would be handed out as a plaintext."""
    message = encrypt(cipher, b"x")
    forged = wire.inline(wire.parse(message).recipients, kind=wire.Kind.DIRECT).encode()
    with pytest.raises(AuthenticationError):
        cipher.decrypt(forged)


CLOSED = {
    "encrypt": lambda c, m, p: c.encrypt(b"x"),
    "encrypt_text": lambda c, m, p: c.encrypt_text("x"),
    "encrypt_many": lambda c, m, p: c.encrypt_many([b"x"]),
    "encrypt_file": lambda c, m, p: c.encrypt_file(p, p),
    "decrypt": lambda c, m, p: c.decrypt(m),
    "decrypt_many": lambda c, m, p: c.decrypt_many([m]),
    "decrypt_file": lambda c, m, p: c.decrypt_file(p, p),
    "open": lambda c, m, p: c.open(p),
    "rewrap": lambda c, m, p: c.rewrap(m),
    "rewrap_file": lambda c, m, p: c.rewrap_file(p),
    "needs_rewrap": lambda c, m, p: c.needs_rewrap(m),
}


@pytest.mark.parametrize("call", CLOSED.values(), ids=CLOSED)
@pytest.mark.parametrize(
    "options", ({}, {"direct": True}, {"data_keys": {"max_messages": 1}}), ids=("shared", "direct", "alone")
)
def test_use_after_close_raises(service, encrypt, tmp_path, call, options):
    """`ClosedError`, also with everything warm before; closing again is nothing."""
    with EnvelopeCipher.from_uri("fake:app", **options) as cipher:
        message = cipher.encrypt(b"x") if "direct" in options else encrypt(cipher, b"x")
        cipher.decrypt(message)
        cipher.rewrap(message)
        cipher.needs_rewrap(message)
    path = tmp_path / "message"
    path.write_bytes(message)
    cipher.close()
    if call is CLOSED["encrypt_file"] and "direct" in options:
        return  # refused for being direct
    with pytest.raises(ClosedError, match="open a new"):
        call(cipher, message, path)
    assert path.read_bytes() == message


@pytest.mark.parametrize("times", SIZES.values(), ids=SIZES)
def test_the_caller_may_reuse_a_buffer_after_the_call(cipher, times):
    """Nothing of a mutable buffer is kept."""
    buffer = bytearray(b"first" * times)
    message = cipher.encrypt(buffer)
    buffer[:] = b"other" * times
    assert cipher.decrypt(message) == b"first" * times


def test_an_unbound_provider_gets_the_context_bound_for_it(service, encrypt):
    """Through the whole API."""
    with EnvelopeCipher.from_uri("fake-unbound:app") as cipher:
        message = encrypt(cipher, b"x", context=CONTEXT)
    with EnvelopeCipher.from_uri("fake-unbound:app") as cipher:
        assert cipher.decrypt(message, context=CONTEXT) == b"x"
        with pytest.raises(AuthenticationError):
            cipher.decrypt(message, context={"tenant": "other"})


# --- errors among many ----------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["in batches", "each by a call"])
def reader(request, service):
    """Decrypts with `fake:app`, which has batches or has none."""
    without = FakeDriver.capabilities - {Capability.BATCH_UNWRAP}
    capabilities = FakeDriver.capabilities if request.param else without
    driver = type("Driver", (FakeDriver,), {"capabilities": capabilities, "service": service})
    with installed(driver), Decryptor.from_uri("fake:app") as reader:
        yield reader


def test_one_bad_message_does_not_lose_the_rest(service, reader, encrypt, direct):
    """With `errors="return"` each error stands in its message's place, whatever is wrong with it."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_messages": 1}) as writer:
        good = [encrypt(writer, payload, context=CONTEXT) for payload in (b"0", b"1", b"2")]
        moved = encrypt(writer, b"x", context={"another": "context"})
    with EnvelopeCipher.from_uri("fake:other") as foreign:
        elsewhere = encrypt(foreign, b"x", context=CONTEXT)
    changed = good[0][:-1] + bytes([good[0][-1] ^ 1])
    whole = direct.encrypt(b"3", context=CONTEXT)
    results = reader.decrypt_many(
        [good[0], b"no message", good[1], changed, moved, elsewhere, good[2], whole],
        context=CONTEXT,
        errors="return",
    )
    assert [results[n] for n in (0, 2, 6, 7)] == [b"0", b"1", b"2", b"3"]
    assert [type(results[n]).__name__ for n in (1, 3, 4, 5)] == [
        "MalformedMessage",
        "AuthenticationError",
        "AuthenticationError",
        "NoMatchingKey",
    ]


def test_the_first_error_in_the_messages_order_is_raised(reader, cipher, encrypt):
    """By default, and whichever turned up first."""
    good = encrypt(cipher, b"x")
    changed = good[:-1] + bytes([good[-1] ^ 1])
    with pytest.raises(AuthenticationError):
        reader.decrypt_many([good, changed, b"no message"])
    with pytest.raises(MalformedMessage):
        reader.decrypt_many([good, b"no message", changed])


def test_returned_refusals_are_audited(reader, cipher, encrypt, caplog):
    """As raised ones are."""
    caplog.set_level("INFO", "kmsbridge.audit")
    good = encrypt(cipher, b"x")
    reader.decrypt_many([good, good[:-1] + bytes([good[-1] ^ 1])], errors="return")
    refusals = [each.kmsbridge for each in caplog.records if each.kmsbridge["operation"] == "refusal"]
    assert [each["outcome"] for each in refusals] == ["AuthenticationError"]


def test_a_service_that_is_down_fails_each_message_after_few_calls(service, reader, encrypt):
    """Not one call for each of them, one after the other."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_messages": 1}) as writer:
        messages = [encrypt(writer, b"x") for _ in range(100)]
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE)
    service.app.fail("unwrap_many", ErrorKind.UNAVAILABLE)
    results = reader.decrypt_many(messages, errors="return")
    assert {type(each).__name__ for each in results} == {"KmsUnavailable"}
    assert service.app.calls["unwrap"] + service.app.calls["unwrap_many"] <= 60


def test_many_wrapped_keys_are_unwrapped_side_by_side(service, cipher, encrypt):
    """Sixteen at a time where the provider has no batches."""
    without = FakeDriver.capabilities - {Capability.BATCH_UNWRAP}
    driver = type("Driver", (FakeDriver,), {"capabilities": without, "service": service})
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_messages": 1}) as writer:
        messages = [encrypt(writer, bytes([n])) for n in range(16)]
    together = threading.Barrier(16)
    service.before = lambda operation: together.wait(30)
    with installed(driver), Decryptor.from_uri("fake:app") as reader:
        assert reader.decrypt_many(messages * 50) == [bytes([n]) for n in range(16)] * 50
    assert service.app.calls["unwrap"] == 16


def test_how_errors_are_wanted_is_checked(cipher):
    with pytest.raises(ValueError, match="raise"):
        cipher.decrypt_many([], errors="ignore")
