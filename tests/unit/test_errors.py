"""The error tree: what it carries, that it can be copied and pickled, and what is cleared from tracebacks."""

import copy
import inspect
import pickle
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
