"""Values that must show up nowhere, and everywhere that an error can show something."""

import base64
import hashlib
import pickle
import traceback

from kmsbridge.context import EncryptionContext
from kmsbridge.message import compact
from kmsbridge.testing.fakes.fake import FakeDriver

CONTEXT = {"tenant": "acme"}

SHORTEST = 12
"""A leak is this many bytes in a row of a canary, at its beginning, in its middle or at its end."""


class Canary:
    """A secret whose repr tells nothing, so that the test's own frames may hold it."""

    __slots__ = ("_forms", "_value", "name")

    def __init__(self, name, value):
        self.name, self._value = name, value
        self._forms = frozenset(self._all_forms())

    def reveal(self):
        return self._value

    def text(self):
        return self._value.decode()

    def _all_forms(self):
        """Yield the forms in which a part of it would appear in text."""
        middle = len(self._value) // 2
        for start in (0, middle - SHORTEST // 2, len(self._value) - SHORTEST):
            part = self._value[start : start + SHORTEST]
            yield part.decode("latin-1")
            yield part.hex()
            yield part.hex().upper()
            yield repr(part)[2:-1]
            yield ", ".join(map(str, part))
            yield "".join(f"\\u00{byte:02x}" for byte in part)
            for skip in range(3):  # base64 looks different at each of three alignments
                whole = base64.b64encode(part[skip : skip + 9]).decode()
                yield whole
                yield whole.replace("+", "-").replace("/", "_")

    def is_in(self, data):
        text = data.decode("latin-1") if isinstance(data, bytes) else data
        return any(form in text for form in self._forms)

    def __repr__(self):
        return f"Canary({self.name})"


PLAINTEXT = Canary("plaintext", b"canary plaintext: +1 555 0100 is nobody's number")
DATA_KEY = Canary("data key", bytes((37 * n + 11) % 256 for n in range(32)))
PASSPHRASE = Canary("passphrase", b"canary passphrase: correct horse battery staple")
DERIVED_KEY = Canary(
    "derived key", compact.derive(DATA_KEY.reveal(), EncryptionContext.of(CONTEXT).canonical())[0]
)
"""The key that compact bodies under that data key and context are encrypted with."""
SEED = Canary("seed", bytes((91 * n + 57) % 256 for n in range(32)))
EXPANDED = Canary("expanded seed", hashlib.shake_256(SEED.reveal()).digest(96))
"""The private key of the hybrid suite that the seed makes."""
CANARIES = (PLAINTEXT, DATA_KEY, DERIVED_KEY, PASSPHRASE, SEED, EXPANDED)


def assert_clean(data, where):
    """No canary in `data`, text or bytes."""
    leaked = [canary.name for canary in CANARIES if canary.is_in(data)]
    assert not leaked, f"{' and '.join(leaked)} in {where}"


def failure_of(call):
    """Return the exception that `call()` raises; it must raise."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - interrupts are among what is looked at
        return error
    raise AssertionError("nothing was raised")


def reachable(error):
    """The error and every exception that it leads to, shown or not."""
    found, todo = [], [error]
    while todo:
        each = todo.pop()
        if each is not None and all(each is not other for other in found):
            found.append(each)
            todo += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
            todo += [argument for argument in each.args if isinstance(argument, BaseException)]
    return found


def assert_discreet(error):
    """Nothing that can be had from this error holds a canary: texts, tracebacks with locals, pickle."""
    for each in reachable(error):
        told = traceback.TracebackException.from_exception(each, capture_locals=True)
        assert_clean("".join(told.format()), f"the traceback of {type(each).__name__}")
        for text in (str(each), repr(each), repr(each.args), repr(vars(each))):
            assert_clean(text, f"{type(each).__name__} itself")
    try:
        pickled = pickle.dumps(error)
    except Exception as refusal:  # noqa: BLE001 - not every exception can be pickled
        assert_clean(str(refusal), "the refusal to pickle")
    else:
        assert_clean(pickled, "the pickle")
        assert_clean(repr(pickle.loads(pickled)), "what the pickle gives")


class Quoting(FakeDriver):
    """A driver whose provider quotes in its errors what it was sent, and what it was about to answer."""

    scheme = "quoting"
    fails = frozenset()
    kind = None
    worse = ""

    def call(self, operation, arguments, timeout):
        answer = super().call(operation, arguments, timeout)
        if operation in self.fails:
            try:
                raise KeyError(arguments, answer)
            except KeyError as first:
                error = ConnectionError(
                    f"{operation} of {arguments!r}, {answer!r}, {_hex(arguments)}{_hex(answer)}"
                )
                error.body = (arguments, answer)
                raise error from first
        return answer

    def classify(self, error, operation):
        if self.worse == "classify fails":
            raise ValueError(f"no kind for {error}") from error
        return self.worse or self.kind

    def error_details(self, error):
        if self.worse == "details fail":
            raise ValueError(f"no details of {error}")
        return super().error_details(error)


def _hex(value):
    parts = value if isinstance(value, (tuple, list)) else [value]
    return " ".join(part.hex() for part in parts if isinstance(part, bytes))
