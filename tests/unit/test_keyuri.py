"""Key URIs: what is a name is kept, what may be a secret does not show."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmsbridge import ConfigError
from kmsbridge.keyuri import MAX_LENGTH, KeyURI


@pytest.mark.parametrize(
    ("text", "scheme", "path", "query", "fragment", "slashes"),
    [
        ("local:keys.json#app", "local", "keys.json", {}, "app", False),
        ("local:/srv/keys.json", "local", "/srv/keys.json", {}, "", False),
        ("aws-kms://alias/app?region=eu-west-1", "aws-kms", "alias/app", {"region": "eu-west-1"}, "", True),
        ("aws-kms:arn:aws:kms:eu:1:key/2", "aws-kms", "arn:aws:kms:eu:1:key/2", {}, "", False),
        ("vault://transit/app?a=1&b=#f", "vault", "transit/app", {"a": "1", "b": ""}, "f", True),
        ("local:a%20b%23c.json", "local", "a b#c.json", {}, "", False),
        ("local:ключ.json#名", "local", "ключ.json", {}, "名", False),
        ("vault://mount/key@2", "vault", "mount/key@2", {}, "", True),
        ("vault://mo%40unt/key", "vault", "mo@unt/key", {}, "", True),
        ("aws-kms://app?profile=me@corp", "aws-kms", "app", {"profile": "me@corp"}, "", True),
        ("local:a@b.json#c", "local", "a@b.json", {}, "c", False),
        ("x:?", "x", "", {}, "", False),
        ("x:#", "x", "", {}, "", False),
        ("x:", "x", "", {}, "", False),
        ("x:p#f?q=1", "x", "p", {}, "f?q=1", False),
    ],
)
def test_the_parts_of_a_uri(text, scheme, path, query, fragment, slashes):
    """Scheme, path, query and fragment, with %XX decoded."""
    uri = KeyURI.parse(text)
    assert (uri.scheme, uri.path, dict(uri.query), uri.fragment, uri.slashes) == (
        scheme, path, query, fragment, slashes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "scheme", id="nothing"),
        pytest.param("keys.json", "scheme", id="no scheme"),
        pytest.param(":keys.json", "scheme", id="empty scheme"),
        pytest.param("Local:keys.json", "scheme", id="upper case"),
        pytest.param("1x:keys", "scheme", id="scheme begins with a digit"),
        pytest.param("lo cal:keys", "scheme", id="space in the scheme"),
        pytest.param(" local:keys", "scheme", id="space before"),
        pytest.param("local\n:keys", "scheme", id="newline in the scheme"),
        pytest.param("local:a\nb", "control", id="newline"),
        pytest.param("local:a%00b", "control", id="encoded NUL"),
        pytest.param("local:a#b%7F", "control", id="encoded DEL in the fragment"),
        pytest.param("local:a%FF", "UTF-8", id="path not UTF-8"),
        pytest.param("local:a\ud800", "UTF-8", id="surrogate in the path"),
        pytest.param("local:a#%C3", "UTF-8", id="fragment not UTF-8"),
        pytest.param("local:a?canary", "query", id="parameter without a value"),
        pytest.param("local:a?x=canary&&y=canary", "query", id="empty parameter"),
        pytest.param("local:a?x=canary&x=canary", "twice", id="parameter given twice"),
        pytest.param("local:a?x%0Ay=canary", "control", id="newline in a parameter's name"),
        pytest.param("local:a?x=canary%00", "control", id="NUL in a parameter's value"),
        pytest.param("local:a?x=canary%FF", "query", id="query not UTF-8"),
        pytest.param("local:a?x=canary\ud800", "query", id="surrogate in the query"),
        pytest.param("vault://root:canary@host/transit/key", "user or password", id="user and password"),
        pytest.param("vault://canary@host/key", "user or password", id="user"),
        pytest.param("vault://canary@", "user or password", id="user and no host"),
        pytest.param("vault://a:canary@canary@host/k?x=1#f", "user or password", id="password with an @"),
        pytest.param("local:" + "a" * MAX_LENGTH, str(MAX_LENGTH + 6), id="too long"),
    ],
)
def test_a_wrong_uri_is_refused_without_quoting_values(text, words):
    """The error says which part is wrong, and holds nothing of a query's values."""
    with pytest.raises(ConfigError, match=words) as caught:
        KeyURI.parse(text)
    assert "canary" not in f"{caught.value!s} {caught.value!r}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("vault://root:can/ary@host/k", "vault://***@host/k", id="password with a slash"),
        pytest.param("vault://root:canary%40host/k", "vault://***@host/k", id="encoded"),
        pytest.param("vault://mount/a:b@2", "vault://mount/a:b@2", id="a name below a mount"),
        pytest.param("aws-kms://arn:aws:kms:eu:1:key/2", "aws-kms://arn:aws:kms:eu:1:key/2", id="ARN"),
    ],
)
def test_what_looks_like_a_password_does_not_show(text, shown):
    """A URI that may be meant so is kept, and not shown in full."""
    assert str(KeyURI.parse(text)) == shown


@pytest.mark.parametrize("wrong", [None, b"local:keys", 1])
def test_what_is_no_text_is_a_type_error(wrong):
    """A URI is `str`."""
    with pytest.raises(TypeError, match="str"):
        KeyURI.parse(wrong)


@given(
    st.one_of(
        st.text(),
        st.text().map("local:".__add__),
        st.text("%0123456789abcdefABCDEF?#&=:/+ ").map("x:".__add__),
    )
)
def test_any_text_is_a_uri_or_a_config_error(text):
    """Nothing else comes of it, and what is shown of a URI is printable in every part that is a name."""
    try:
        uri = KeyURI.parse(text)
    except ConfigError:
        return
    assert text.startswith(uri.scheme + ":")
    for part in (uri.path, uri.fragment, *uri.query, *uri.query.values(), str(uri)):
        part.encode()
        assert not any(ord(sign) < 32 or ord(sign) == 127 for sign in part)


@given(
    st.text(
        st.characters(min_codepoint=33, exclude_characters="&=#%+;\x7f", exclude_categories=["Cs"]),
        min_size=1,
    )
)
def test_values_of_a_query_do_not_show(value):
    """`str` and `repr` give the names of parameters alone."""
    uri = KeyURI.parse(f"x:path?token=canary{value}canary#name"[:MAX_LENGTH])
    assert uri.query["token"].startswith("canary")
    for shown in (str(uri), repr(uri), f"{uri}"):
        assert shown == "x:path?token=...#name"


def test_a_logger_that_writes_json_finds_no_value_of_the_query():
    """Neither fields to iterate over nor attributes to collect."""
    uri = KeyURI.parse("vault-transit://transit/app?token=hvs.secret")
    assert "hvs.secret" not in json.dumps({"key": uri}, default=str)
    assert not hasattr(uri, "__dict__")
    with pytest.raises(TypeError):
        iter(uri)


def test_uris_are_compared_by_what_they_say():
    parse = KeyURI.parse
    assert parse("local:a#b") == parse("local:a#b") != parse("local:a#c")
    assert parse("local:a") != "local:a"


def test_a_uri_cannot_be_changed():
    with pytest.raises(AttributeError, match="cannot be changed"):
        KeyURI.parse("local:a").path = "b"
