"""The error tree: what it carries, that it can be copied and pickled, and what is cleared from tracebacks."""

import copy
import inspect
import pickle
import re
import traceback

import pytest

import kmsbridge
from kmsbridge import errors

TREE = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.KmsBridgeError)
]


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_every_error_is_public_and_documented(cls):
    """In `kmsbridge` itself, with a sentence."""
    assert getattr(kmsbridge, cls.__name__) is cls
    assert cls.__doc__


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "way",
    (copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))),
    ids=("copy", "deepcopy", "pickle"),
)
def test_errors_survive_copies_and_pickles(cls, way):
    """With text, remedy, details and notes."""
    error = cls("it failed", remedy="do this")
    if isinstance(error, errors.KmsError):
        error.key_id, error.attempts = "local:app", 3
    error.add_note("also: that")
    again = way(error)
    assert type(again) is cls
    assert str(again) == "it failed; do this"
    assert vars(again) == vars(error)
    assert again.args == error.args


def test_the_remedy_is_told_after_the_message():
    """And nothing is put there where there is none."""
    assert str(errors.ConfigError("no key", remedy="name one")) == "no key; name one"
    assert str(errors.ConfigError("no key")) == "no key"


WORST = {"ASCII": "x", "escapes": "\U0010ffff", "control characters": "\0", "lone surrogates": "\udcff"}
LONGEST_TEXT = 1000 + 2 + 500


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("sign", WORST.values(), ids=WORST)
@pytest.mark.parametrize("length", (1001, 2**20))
def test_an_error_is_of_bounded_length_whatever_is_told(cls, sign, length):
    """1,000 characters and 500 of remedy; what was left out is counted, the beginning and the end are there."""
    error = cls("begins" + sign * length + "ends", remedy="do" + sign * length + "this")
    assert len(str(error)) <= LONGEST_TEXT
    assert len(error.args[0]) <= 1000
    assert error.args == (error.message,)
    assert re.fullmatch(r"begins.+\.\.\. \(\d+ characters left out\) \.\.\..+ends", error.message, re.DOTALL)
    assert re.fullmatch(r"do.+\.\.\. \(\d+ characters left out\) \.\.\..+this", error.remedy, re.DOTALL)


@pytest.mark.parametrize("most", (60, 61, 100, 1000))
@pytest.mark.parametrize("over", (0, 1, 10, 10**6))
def test_the_marker_counts_exactly_what_was_left_out(most, over):
    """What fits is not touched; else all characters are either there or counted."""
    text = "".join(chr(0x100 + n % 1000) for n in range(most + over))
    told = errors.shortened(text, most)
    if not over:
        assert told == text
        return
    assert len(told) <= most
    head, count, tail = re.fullmatch(
        r"(.*)\.\.\. \((\d+) characters left out\) \.\.\.(.*)", told, re.DOTALL
    ).groups()
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + int(count) + len(tail) == len(text)


def test_an_unpickled_error_is_of_bounded_length_too():
    """It may come from a version that shortened nothing."""
    error = errors.ConfigError("short", remedy="short")
    error.message = error.remedy = "x" * 10**6
    again = pickle.loads(pickle.dumps(error))
    assert len(str(again)) <= LONGEST_TEXT
    assert again.args == (again.message,)


def test_an_error_with_a_long_text_survives_copies_as_it_is():
    """What was shortened once is not shortened again."""
    error = errors.KmsError("x" * 10**6, remedy="y" * 10**6)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.args) == (str(error), error.args)


def test_what_a_provider_calls_itself_is_of_bounded_length():
    """Its codes and request ids are its own text, and a key id has at most 1,024 characters."""
    long = "\0" * 10**6
    error = errors.KmsError("x", key_id=long, provider_code=long, request_id=long)
    assert max(map(len, (error.provider_code, error.request_id))) <= 200
    assert len(error.key_id) <= 1024
    assert errors.KmsError("x", key_id="k" * 1024).key_id == "k" * 1024


@pytest.mark.parametrize("sign", WORST.values(), ids=WORST)
def test_a_quoted_text_is_on_one_line_and_short(sign):
    """Escapes count as they are shown."""
    told = errors.quoted(sign * 1000)
    assert len(told) <= 100
    assert told.isprintable()
    assert errors.quoted("local:app") == "'local:app'"


def test_of_many_names_the_first_three_are_told():
    """And how many more there are."""
    assert errors.listed(["a"]) == "'a'"
    assert errors.listed(["a", "b", "c"]) == "'a', 'b', 'c'"
    assert errors.listed(["a", "b", "c", "d"]) == "'a', 'b', 'c' and 1 more"
    assert errors.listed(list("abcdefgh")) == "'a', 'b', 'c' and 5 more"


def test_all_reasons_for_not_being_authentic_have_one_wording():
    """No oracle."""
    assert str(errors.AuthenticationError()) == str(errors.AuthenticationError())


def test_the_stand_in_for_a_providers_error_has_its_type_and_lines_only():
    """Not its text, not its attributes."""

    def client(payload):
        raise ConnectionError(payload)

    with pytest.raises(ConnectionError) as caught:
        client("secret")
    stand_in = errors.ProviderFailure.of(caught.value)
    assert str(stand_in) == "builtins.ConnectionError"
    frames = [frame for frame, _ in traceback.walk_tb(stand_in.__traceback__)]
    assert frames[-1].f_code.co_name == "client"
    assert frames[-1].f_locals == {}


def test_locals_of_causes_below_are_forgotten_too():
    """Chained errors that our own frames raised; what a cause or `from None` hides is dropped."""

    def lowest():
        secret = "low"
        raise KeyError(len(secret))

    def lower():
        secret = "lower"
        try:
            lowest()
        except KeyError as error:
            raise ValueError(len(secret)) from error

    def hiding():
        try:
            lower()
        except ValueError:
            raise LookupError from None

    for call in (lower, hiding):
        try:
            call()
        except (ValueError, LookupError) as error:
            errors.forget_locals(error)
            for each in (error, error.__cause__):
                for frame, _ in traceback.walk_tb(each.__traceback__ if each else None):
                    assert "secret" not in frame.f_locals
            assert error.__context__ is None


def test_only_what_a_signal_handler_raised_is_taken_for_its_own():
    """Not what passed through the class of the signals' default actions, which is an enumeration."""
    import enum
    import signal

    class Colour(enum.Enum):
        RED = 1

    def on_signal(number, frame):
        raise LookupError

    with pytest.raises(ValueError, match="not a valid") as of_an_enumeration:
        Colour(2)
    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with pytest.raises(LookupError) as of_a_handler:
            signal.raise_signal(signal.SIGUSR1)
        assert errors.is_from_signal_handler(of_a_handler.value)
        assert not errors.is_from_signal_handler(of_an_enumeration.value)
    finally:
        signal.signal(signal.SIGUSR1, before)
