"""The key file's format: everything but a well-formed file is one `ConfigError` that shows no material."""

import base64
import contextlib
import copy
import json
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmsbridge.driver import KeyState, Secret
from kmsbridge.drivers.local import document as document_module
from kmsbridge.drivers.local.document import Cost, Document, Protection, StoredKey, Version, parse, render
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.errors import ConfigError, LimitExceeded
from tests.support import is_library

MATERIAL = b"\x01canary-material-of-32-bytes-long"[:32]
MATERIAL_TEXT = base64.b64encode(MATERIAL).decode()
TIME = "2025-01-31T23:59:59Z"

GOOD: Any = {
    "format": 1,
    "protection": {
        "kdf": "argon2id",
        "salt": base64.b64encode(b"s" * 16).decode(),
        "iterations": 1,
        "memory_kib": 64,
        "lanes": 1,
        "check": base64.b64encode(b"c" * 72).decode(),
    },
    "keys": {
        "app": {
            "id": "0123456789abcdef",
            "created": TIME,
            "state": "enabled",
            "current": "1",
            "versions": {"1": {"created": TIME, "material": base64.b64encode(MATERIAL + b"m" * 72).decode()}},
        }
    },
}
PLAIN = copy.deepcopy(GOOD)
del PLAIN["protection"]
PLAIN["keys"]["app"]["versions"]["1"]["material"] = MATERIAL_TEXT

KEY = ("keys", "app")
VERSION = ("keys", "app", "versions", "1")
GUARD = ("protection",)
ABSENT = object()


def changed(template, path, value):
    """`template` as bytes, with what stands at `path` replaced, or removed for ABSENT."""
    whole = copy.deepcopy(template)
    place = whole
    for name in path[:-1]:
        place = place[name]
    if value is ABSENT:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(whole).encode()


TEXT = json.dumps(PLAIN)
PLACES = {
    "empty": b"",
    "one newline": b"\n",
    "cut short": TEXT[: len(TEXT) // 2].encode(),
    "without its last byte": TEXT[:-1].encode(),
    "with bytes after its end": TEXT.encode() + b"x",
    "two documents": TEXT.encode() * 2,
    "not JSON": b"key = 'value'",
    "binary": bytes(range(256)),
    "all zero": bytes(512),
    "UTF-16": TEXT.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "a Latin-1 byte": TEXT.replace("enabled", "enabl\xe9d").encode("latin-1"),
    "a list": b"[]",
    "a text": b'"app"',
    "null": b"null",
    "an empty object": b"{}",
    "nested too deep": b"[" * 100_000,
    "objects nested too deep": b'{"keys":' * 100_000,
    "a number of 5000 digits": TEXT.replace('"format": 1', '"format": ' + "9" * 5000).encode(),
    "NaN": TEXT.replace('"format": 1', '"format": NaN').encode(),
    "Infinity": TEXT.replace('"format": 1', '"format": Infinity').encode(),
    "a float as format": TEXT.replace('"format": 1', '"format": 1.0').encode(),
    "true as format": changed(PLAIN, ("format",), True),
    "a text as format": changed(PLAIN, ("format",), "1"),
    "format zero": changed(PLAIN, ("format",), 0),
    "a later format": changed(PLAIN, ("format",), 2),
    "no format": changed(PLAIN, ("format",), ABSENT),
    "no keys": changed(PLAIN, ("keys",), ABSENT),
    "keys as a list": changed(PLAIN, ("keys",), []),
    "an unknown member": changed(PLAIN, ("comment",), "hello"),
    "material as a member's name": changed(PLAIN, (MATERIAL_TEXT,), 1),
    "a member twice": TEXT.replace('"format": 1', '"format": 1, "format": 1').encode(),
    "a key twice": TEXT.replace('"keys": {', '"keys": {"app": 1, ').encode(),
    "an empty key name": changed(PLAIN, ("keys", ""), PLAIN["keys"]["app"]),
    "a key name with a slash": changed(PLAIN, ("keys", "a/b"), PLAIN["keys"]["app"]),
    "a key name with two dots": changed(PLAIN, ("keys", "a..b"), PLAIN["keys"]["app"]),
    "a key name with a surrogate": changed(PLAIN, ("keys", "a\ud800"), PLAIN["keys"]["app"]),
    "a key name ending in a newline": changed(PLAIN, ("keys", "a\n"), PLAIN["keys"]["app"]),
    "a key name of 129 characters": changed(PLAIN, ("keys", "a" * 129), PLAIN["keys"]["app"]),
    "a key as text": changed(PLAIN, KEY, MATERIAL_TEXT),
    "a key as null": changed(PLAIN, KEY, None),
    "a key without an id": changed(PLAIN, (*KEY, "id"), ABSENT),
    "a key with an unknown member": changed(PLAIN, (*KEY, "comment"), ""),
    "an id in capitals": changed(PLAIN, (*KEY, "id"), "0123456789ABCDEF"),
    "an id too short": changed(PLAIN, (*KEY, "id"), "0123"),
    "an id as a number": changed(PLAIN, (*KEY, "id"), 123456789012345),
    "a time without a zone": changed(PLAIN, (*KEY, "created"), TIME[:-1]),
    "a time in other digits": changed(
        PLAIN, (*KEY, "created"), TIME.replace("2025", "\u0662\u0660\u0662\u0665")
    ),
    "an unknown state": changed(PLAIN, (*KEY, "state"), "pending deletion"),
    "a state as false": changed(PLAIN, (*KEY, "state"), False),
    "a current version that is not there": changed(PLAIN, (*KEY, "current"), "2"),
    "a current version as a number": changed(PLAIN, (*KEY, "current"), 1),
    "no versions": changed(PLAIN, (*KEY, "versions"), {}),
    "versions as a list": changed(PLAIN, (*KEY, "versions"), [{}]),
    "version zero": changed(PLAIN, (*KEY, "versions", "0"), {}),
    "version 01": changed(PLAIN, (*KEY, "versions", "01"), {}),
    "version -1": changed(PLAIN, (*KEY, "versions", "-1"), {}),
    "a version of 10 digits": changed(PLAIN, (*KEY, "versions", "1" * 10), {}),
    "a version as text": changed(PLAIN, VERSION, MATERIAL_TEXT),
    "a version without material": changed(PLAIN, (*VERSION, "material"), ABSENT),
    "a version without a time": changed(PLAIN, (*VERSION, "created"), ABSENT),
    "material of 31 bytes": changed(PLAIN, (*VERSION, "material"), base64.b64encode(MATERIAL[:31]).decode()),
    "material of 33 bytes": changed(
        PLAIN, (*VERSION, "material"), base64.b64encode(MATERIAL + b"x").decode()
    ),
    "material in hex": changed(PLAIN, (*VERSION, "material"), MATERIAL.hex()),
    "material without padding": changed(PLAIN, (*VERSION, "material"), MATERIAL_TEXT.rstrip("=")),
    "material with a space": changed(PLAIN, (*VERSION, "material"), f" {MATERIAL_TEXT}"),
    "material with stray low bits": changed(PLAIN, (*VERSION, "material"), MATERIAL_TEXT[:-2] + "h="),
    "material beyond ASCII": changed(PLAIN, (*VERSION, "material"), MATERIAL_TEXT[:-1] + "\u2028"),
    "material as a list": changed(PLAIN, (*VERSION, "material"), list(MATERIAL)),
    "material as null": changed(PLAIN, (*VERSION, "material"), None),
    "sealed material without protection": changed(GOOD, GUARD, ABSENT),
    "plain material under protection": changed(GOOD, (*VERSION, "material"), MATERIAL_TEXT),
    "protection as null": changed(GOOD, GUARD, None),
    "protection as true": changed(GOOD, GUARD, True),
    "another derivation": changed(GOOD, (*GUARD, "kdf"), "scrypt"),
    "no salt": changed(GOOD, (*GUARD, "salt"), ABSENT),
    "a salt of 15 bytes": changed(GOOD, (*GUARD, "salt"), base64.b64encode(b"s" * 15).decode()),
    "no check value": changed(GOOD, (*GUARD, "check"), ABSENT),
    "a check value of 71 bytes": changed(GOOD, (*GUARD, "check"), base64.b64encode(b"c" * 71).decode()),
    "no iterations": changed(GOOD, (*GUARD, "iterations"), 0),
    "a million iterations": changed(GOOD, (*GUARD, "iterations"), 1_000_000),
    "iterations as true": changed(GOOD, (*GUARD, "iterations"), True),
    "iterations as a float": changed(GOOD, (*GUARD, "iterations"), 3.0),
    "iterations below zero": changed(GOOD, (*GUARD, "iterations"), -1),
    "a terabyte of memory": changed(GOOD, (*GUARD, "memory_kib"), 1 << 30),
    "a number of 4000 digits as memory": changed(GOOD, (*GUARD, "memory_kib"), 10**4000),
    "too little memory": changed(GOOD, (*GUARD, "memory_kib"), 7),
    "no lanes": changed(GOOD, (*GUARD, "lanes"), 0),
    "a thousand lanes": changed(GOOD, (*GUARD, "lanes"), 1000),
    "an unknown member of the protection": changed(GOOD, (*GUARD, "pepper"), ""),
}


def everything(error):
    """All that a reporter could print of an error: texts, arguments, attributes, local variables of ours."""
    report = ""
    todo = [error]
    while todo:
        exc = todo.pop()
        report += repr(exc) + str(exc) + repr(exc.args) + repr(vars(exc))
        for frame, _ in traceback.walk_tb(exc.__traceback__):
            if is_library(frame.f_code.co_filename):
                report += repr(frame.f_locals)
        todo += [linked for linked in (exc.__cause__, exc.__context__) if linked is not None]
    return report


@pytest.mark.parametrize("template", (GOOD, PLAIN), ids=["protected", "plain"])
def test_the_templates_of_the_bad_files_are_good(template):
    """Otherwise each bad file below could be refused for another reason than its own."""
    assert list(parse(json.dumps(template).encode(), "k.json").keys) == ["app"]


@pytest.mark.parametrize("data", PLACES.values(), ids=PLACES.keys())
def test_a_bad_file_is_one_typed_error_that_names_the_file_and_a_remedy(data):
    """`ConfigError` and nothing else, with the path and what to do."""
    with pytest.raises(ConfigError) as caught:
        parse(data, "/some/keys.json")
    assert "/some/keys.json" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("data", PLACES.values(), ids=PLACES.keys())
def test_a_bad_file_on_disk_shows_no_material_in_its_error(tmp_path, data):
    """Neither in a text nor in an attribute or a local variable that the error keeps alive."""
    path = tmp_path / "keys.json"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        KeyFile(path).names()
    shown = everything(caught.value)
    assert MATERIAL_TEXT[:20] not in shown
    assert "canary-material" not in shown


def test_a_later_format_is_told_from_damage():
    """A user with an old library learns that it is the library which is old."""
    with pytest.raises(ConfigError, match="later version"):
        parse(b'{"format": 2, "anything": []}', "k.json")


def test_every_truncation_is_refused():
    """A key file cut short anywhere never opens as a smaller one."""
    for end in range(len(TEXT)):
        with pytest.raises(ConfigError):
            parse(TEXT[:end].encode(), "k.json")


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
times = st.just(TIME)


def stored_keys(length):
    version = st.builds(Version, times, st.binary(min_size=length, max_size=length).map(Secret))
    versions = st.dictionaries(st.integers(1, 999_999_999).map(str), version, min_size=1, max_size=4)
    return versions.flatmap(
        lambda several: st.builds(
            StoredKey,
            name=st.just(""),
            id=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
            created=times,
            state=st.sampled_from([KeyState.ENABLED, KeyState.DISABLED]),
            current=st.sampled_from(sorted(several)),
            versions=st.just(several),
        )
    )


def documents(protection, length):
    return st.builds(Document, st.just(protection), st.dictionaries(names, stored_keys(length), max_size=4))


@given(st.one_of(documents(None, 32), documents(Protection(b"s" * 16, Cost(), b"c" * 72), 104)))
def test_what_is_written_reads_back_the_same(document):
    """`render` and `parse` are inverse, so a change to a file alters nothing else in it."""
    data = render(document)
    assert render(parse(data, "k.json")) == data


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_raise_anything_else(data):
    """Total: any bytes are a document or a `ConfigError`."""
    with pytest.raises(ConfigError):
        parse(data, "k.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
spots: list[tuple[Any, tuple[str, ...]]] = [
    *[(GOOD, (name,)) for name in GOOD],
    *[(GOOD, (*GUARD, name)) for name in GOOD["protection"]],
    *[(GOOD, (*KEY, name)) for name in GOOD["keys"]["app"]],
    *[(GOOD, (*VERSION, name)) for name in GOOD["keys"]["app"]["versions"]["1"]],
]


@given(st.sampled_from(spots), json_values)
def test_any_value_in_any_place_is_a_document_or_a_config_error(spot, value):
    """Types are checked before they are used, everywhere."""
    template, path = spot
    with contextlib.suppress(ConfigError):
        assert parse(changed(template, path, value), "k.json").keys.keys() <= {"app"}


def test_a_file_is_not_grown_past_what_can_be_read(monkeypatch):
    """Writing refuses what reading would refuse."""
    monkeypatch.setattr(document_module, "MAX_BYTES", 100)
    with pytest.raises(LimitExceeded):
        render(parse(TEXT.encode(), "k.json"))


def test_nothing_in_a_document_shows_its_material():
    """The repr of a document and of each of its parts."""
    document = parse(TEXT.encode(), "k.json")
    assert "canary" not in repr(document)
    assert MATERIAL_TEXT not in repr(document)
