"""Errors are of bounded length, whatever a stranger's text in a message, a file or an answer is."""

import io
import json
from hashlib import sha256

import pytest

from kmsbridge import EnvelopeCipher, KmsBridgeError, NoMatchingKey, audit, config
from kmsbridge import message as wire
from kmsbridge.driver import ErrorDetails, ErrorKind
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.errors import MAX_CODE, MAX_MESSAGE, MAX_REMEDY
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.support import install, with_recipients

LONGEST = MAX_MESSAGE + len("; ") + MAX_REMEDY
SIGNS = {"ASCII": "x", "control characters": "\0", "unassigned characters": "\U0010ffff"}
every_sign = pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS)


def told(call):
    """The error that `call` raises, once every text in it is found to be short."""
    with pytest.raises(KmsBridgeError) as caught:
        call()
    error = caught.value
    assert len(str(error)) <= LONGEST
    assert all(len(note) <= len("also: ") + LONGEST for note in getattr(error, "__notes__", ()))
    return error


def hostile(sign, kind):
    """A message of this kind whose 16 recipients have names and versions as long as may be."""
    most = (wire.MAX_KEY_ID - 4) // len(sign.encode())
    version = sign * (wire.MAX_KEY_VERSION // len(sign.encode()))
    recipients = tuple(wire.Recipient(f"x:{n:x}" + sign * most, version, b"w") for n in range(16))
    commitment = bytes(32) if kind in wire.COMPACT_KINDS else b""
    return wire.inline(recipients, kind=kind, commitment=commitment).encode() + bytes(72)


READ = {
    "decrypt": lambda c, message, path: c.decrypt(message),
    "decrypt_text": lambda c, message, path: c.decrypt_text(wire.armor(message)),
    "decrypt_many": lambda c, message, path: c.decrypt_many([message]),
    "decrypt_stream": lambda c, message, path: c.decrypt_stream(io.BytesIO(message), io.BytesIO()),
    "decrypt_file": lambda c, message, path: c.decrypt_file(path, path.with_name("plain")),
    "open": lambda c, message, path: c.open(path),
    "rewrap": lambda c, message, path: c.rewrap(message),
    "rewrap_file": lambda c, message, path: c.rewrap_file(path),
}


@every_sign
@pytest.mark.parametrize("kind", (wire.Kind.INLINE, wire.Kind.INLINE_COMPACT), ids=("chunked", "compact"))
@pytest.mark.parametrize("way", READ)
def test_a_message_for_sixteen_others_names_three_of_them(cipher, tmp_path, sign, kind, way):
    """16 KB of key ids made an error of 41,025 characters."""
    message, path = hostile(sign, kind), tmp_path / "message"
    path.write_bytes(message)
    assert len(message) > 16_000
    error = told(lambda: READ[way](cipher, message, path))
    assert isinstance(error, NoMatchingKey)
    assert str(error).isprintable()
    assert "and 13 more, and this profile decrypts with 'fake:app'; add" in str(error)
    assert all(
        len(each) <= 100 for each in error.message.split("is for ")[1].split(" and 13 more")[0].split(", ")
    )


def test_a_profile_of_many_keys_names_three_of_them(service, cipher, encrypt):
    """And each of several failures that are told together is short."""
    names = [f"key{n}" + "k" * 100 for n in range(16)]
    for name in names:
        service.create(name)
    message = encrypt(cipher, b"x")
    uris = [f"fake:{name}" for name in names]
    with EnvelopeCipher.from_uri(uris[0], decrypt_uris=uris[1:]) as many:
        error = told(lambda: many.decrypt(message))
        assert "this profile decrypts with 'fake:key0kk" in error.message
        assert "and 13 more; add" in str(error)


class Wordy(FakeDriver):
    """Its service answers with a megabyte of everything."""

    scheme = "wordy"

    def error_details(self, error):
        return ErrorDetails(code="\0" * 10**6, request_id="r" * 10**6, remedy="\U0010ffff" * 10**6)


@pytest.mark.parametrize(
    "kind", (ErrorKind.ACCESS_DENIED, ErrorKind.INVALID_REQUEST, ErrorKind.KEY_NOT_FOUND)
)
def test_a_provider_that_answers_with_megabytes_makes_a_short_error(service, encrypt, monkeypatch, kind):
    """Its code, its request id and its remedy; of one key as of several."""
    monkeypatch.setattr(Wordy, "service", service)
    install(monkeypatch, Wordy)
    with EnvelopeCipher.from_uri("wordy:app", decrypt_uris=["wordy:other"]) as cipher:
        message = encrypt(cipher, b"x")
        (first,) = wire.parse(message).recipients
        both = with_recipients(message, first, first._replace(key_id="wordy:other"))
        service.app.fail("wrap", kind)
        for key in (service.app, service.other):
            key.fail("unwrap", kind)
        refusal = told(lambda: cipher.encrypt(b"x", context={"a": "b"}))
        refusals = told(lambda: cipher.decrypt(both, context={"a": "b"}))
        for error in (refusal, refusals):
            assert max(len(error.provider_code), len(error.request_id)) <= MAX_CODE
        assert len(refusals.__notes__) == 1


@every_sign
@pytest.mark.parametrize(
    "text",
    (
        "{name} = 1",
        "default_profile = {name}",
        "[keys.{name}]\nuri = 'local:a#a'",
        "[profiles.{name}]\nencrypt_to = ['a']",
        "[profiles.p]\n{name} = 1",
        "[profiles.p]\nencrypt_to = [{name}]",
        "[profiles.p]\nencrypt_to = ['a', 'a']\n[keys.a]\nuri = {name}",
        "[keys.a]\nuri = {name}\n[profiles.p]\nencrypt_to = ['a']",
        "[keys.a]\nuri = 'local:a#a'\n{name} = 1\n[profiles.p]\nencrypt_to = ['a']",
    ),
)
def test_a_configuration_of_long_words_makes_a_short_error(tmp_path, sign, text):
    """Wherever the words stand: names of tables, settings, keys and profiles, and URIs."""
    path = tmp_path / "c.toml"
    path.write_text(text.replace("{name}", json.dumps(sign * 5000, ensure_ascii=False)))
    told(lambda: EnvelopeCipher.from_config(path, env={}))


@pytest.mark.parametrize("count", (10, 1000))
def test_a_configuration_of_many_words_makes_a_short_error(tmp_path, count):
    """The valid ones are told, as many as there is room for."""
    names = [f"name-{n}-" + "k" * 20 for n in range(count)]
    path = tmp_path / "c.toml"
    path.write_text(
        "[keys.a]\nuri = 'local:a#a'\n" + "".join(f"[profiles.{n}]\nencrypt_to = ['a']\n" for n in names)
    )
    for profile in (None, "nam", "x" * 10**6):
        told(lambda profile=profile: config.load(path, profile=profile, env={}))


@every_sign
def test_a_context_that_is_refused_is_told_in_short(cipher, sign):
    """A name that is reserved, or has no value."""
    for context in ({"kmsbridge" + sign * 10**6: "v"}, {sign * 10**6: ""}):
        told(lambda context=context: cipher.encrypt(b"x", context=context))


def audit_line(**fields):
    bare = json.dumps(fields, separators=(",", ":")).encode()[:-1]
    return bare + b',"sum":"' + sha256(bare).hexdigest().encode() + b'"}\n'


@pytest.mark.parametrize(
    "line",
    (
        pytest.param(audit_line(seq=10**4000, prev="0" * 64, time="t"), id="a number of 4,001 digits"),
        pytest.param(audit_line(seq=-(10**4000), prev="0" * 64, time="t"), id="a negative one"),
        pytest.param(audit_line(seq=1, prev="p" * 10**5, time="t" * 10**5), id="a long predecessor"),
        pytest.param(b'{"seq":' + b"9" * 10**5 + b"}\n", id="a number that is too long to read"),
        pytest.param(b"x" * 10**6 + b"\n", id="no line at all"),
    ),
)
def test_an_audit_file_of_long_lines_makes_a_short_error(tmp_path, line):
    """Whoever may write the file may put anything into it."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(line)
    told(lambda: audit.verify(path))
    path.write_bytes(b"")
    told(lambda: audit.verify(path, head="\0" * 10**6))


@every_sign
def test_a_key_file_of_long_words_makes_a_short_error(tmp_path, sign):
    """Names, members and versions that no key file has."""
    path = tmp_path / "keys.json"
    KeyFile.create(path, "app")
    whole, long = json.loads(path.read_text()), sign * 10**5
    key = whole["keys"]["app"]
    for changed in (
        {**whole, long: 1},
        {**whole, "keys": {long: key}},
        {**whole, "keys": {"app": {**key, long: 1}}},
        {**whole, "keys": {"app": {**key, "current": long}}},
        {**whole, "keys": {"app": {**key, "versions": {long: key["versions"]["1"]}}}},
        {**whole, "format": long},
    ):
        path.write_text(json.dumps(changed))
        told(lambda: EnvelopeCipher.from_uri(f"local:{path}#app"))


def test_a_key_file_of_many_keys_makes_a_short_error(tmp_path):
    """Those that are there are told, as many as there is room for."""
    path = tmp_path / "keys.json"
    file = KeyFile.create(path, "app")
    for n in range(60):
        file.add_key(f"key-{n}-" + "k" * 100)
    for uri in (f"local:{path}", f"local:{path}#none", f"local:{path}#" + "n" * 1500):
        told(lambda uri=uri: EnvelopeCipher.from_uri(uri))


@every_sign
def test_a_key_uri_of_long_words_makes_a_short_error(sign):
    """Its scheme, and its parameters."""
    for uri in (f"{sign * 1500}:x", f"x{'y' * 1500}:x", f"local:keys.json?{sign * 1500}=1#app", sign * 10**6):
        told(lambda uri=uri: EnvelopeCipher.from_uri(uri))
