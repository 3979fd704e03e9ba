"""Only the library's frames are cleared in tracebacks: the user's own, and earlier exceptions, stay whole."""

import traceback

import pytest

from kmsbridge import AuthenticationError
from kmsbridge.errors import forget_locals
from kmsbridge.message import chunked, compact


def locals_of(error, name):
    """The local variables of the first frame of the function `name` in the error's traceback."""
    return next(f.f_locals for f, _ in traceback.walk_tb(error.__traceback__) if f.f_code.co_name == name)


def test_the_callers_locals_are_kept(cipher, encrypt):
    """Every frame above the library, even finished ones."""

    def inner():
        mine = "kept inside"
        cipher.decrypt(encrypt(cipher, b"x"), aad=mine.encode())

    def outer():
        also_mine = "kept outside"
        inner()
        return also_mine

    with pytest.raises(AuthenticationError) as caught:
        outer()
    assert locals_of(caught.value, "inner")["mine"] == "kept inside"
    assert locals_of(caught.value, "outer")["also_mine"] == "kept outside"


def test_the_locals_of_an_exception_being_handled_are_kept(cipher):
    """It is the new error's context, and none of ours."""

    def failed_before():
        evidence = "kept"
        raise LookupError(len(evidence))

    with pytest.raises(TypeError) as caught:
        try:
            failed_before()
        except LookupError:
            cipher.encrypt("text")
    earlier = caught.value.__context__
    assert isinstance(earlier, LookupError)
    assert locals_of(earlier, "failed_before") == {"evidence": "kept"}


def test_the_chain_of_an_exception_being_handled_is_kept(cipher):
    """Its own cause, and a context that it hides, stay."""
    with pytest.raises(TypeError) as caught:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise LookupError("second") from None
        except LookupError:
            cipher.encrypt("text")
    earlier = caught.value.__context__
    assert isinstance(earlier.__context__, KeyError)
    assert earlier.__suppress_context__


@pytest.mark.parametrize(
    ("payload", "innermost_of"),
    ((b"x", compact.decrypt), (bytes(65_537), chunked.decrypt)),
    ids=("compact", "chunked"),
)
def test_our_own_frames_stay_in_the_traceback_without_their_locals(cipher, payload, innermost_of):
    """File and line are told: only values are cleared."""
    with pytest.raises(AuthenticationError) as caught:
        cipher.decrypt(cipher.encrypt(payload), aad=b"other")
    *_, innermost = (frame for frame, _ in traceback.walk_tb(caught.value.__traceback__))
    assert innermost.f_code is innermost_of.__code__
    assert innermost.f_locals == {}


def test_the_providers_error_is_named_with_the_lines_it_came_from(service, cipher):
    """The type of the client library's exception and its traceback, not its text."""
    from kmsbridge import KmsInvalidRequest

    def failing_service(operation):
        raise ConnectionError("quotes what it was sent")

    service.before = failing_service
    with pytest.raises(KmsInvalidRequest) as caught:
        cipher.encrypt(b"x")
    cause = caught.value.__cause__
    assert str(cause) == "builtins.ConnectionError"
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(cause.__traceback__)]
    assert "failing_service" in names


def test_the_parts_of_a_group_lose_their_locals_too():
    """A driver may let a group out, with parts from frames that hold a data key."""

    def part():
        payload = "canary"
        raise ValueError(len(payload))

    def several():
        errors = []
        for _ in range(2):
            try:
                part()
            except ValueError as error:
                errors.append(error)
        raise BaseExceptionGroup("several", errors)

    try:
        several()
    except BaseExceptionGroup as group:
        forget_locals(group)
        assert [locals_of(each, "part") for each in group.exceptions] == [{}, {}]


def test_causes_that_lead_back_to_where_they_began_come_to_an_end():
    """Whoever raises can set a cause to anything."""
    first, second = ValueError("first"), KeyError("second")
    for each in (first, second):
        try:
            raise each
        except (ValueError, KeyError):
            pass
    first.__cause__, second.__cause__ = second, first
    group = BaseExceptionGroup("both", [first, second])
    first.__context__ = group
    forget_locals(group)
    forget_locals(first)
