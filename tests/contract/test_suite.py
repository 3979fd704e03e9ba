"""The suite's own manners: what it leaves out, what it does not forgive, and what it counts and sees."""

import logging
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kmsbridge_testing.contract.network import ERRORS, MAX_MEMORY, OVERCOME
from kmsbridge_testing.contract.secrecy import Canaries
from kmsbridge_testing.faults.proxied import FAULTS

from kmsbridge import (
    EnvelopeCipher,
    KmsThrottled,
    KmsTimeout,
    KmsUnavailable,
    ProviderNotFound,
    registry,
)
from kmsbridge.driver import ErrorKind
from kmsbridge.testing import FakeDriver, Fault, Misdirection, UnboundFakeDriver, counted, installed

REFERENCE = (Path(__file__).parents[2] / "docs/reference/contract-suite.md").read_text()

MODULE = '''
import pytest

from kmsbridge.testing import DriverContract, FakeDriver, FakeHarness, Harness


class Lacking(FakeHarness):
    """Neither rotates nor says why not."""

    rotate = Harness.rotate


class Declaring(FakeHarness):
    """Leaves out an ability, a fault and one case of two."""

    cannot = {
        "rotate": "its keys are for ever",
        "status 503": "it is always available",
        "test_hostile_name_is_refused[slash]": "its names hold slashes",
        "test_close_twice": "known",
        "sdk": "it needs none",
        "secrets": "contradicted by a token",
    }


class Misspelling(FakeHarness):
    """Declares what there is not."""

    cannot = {"rotation": "its keys are for ever"}


def examined(make):
    return type("Examined", (DriverContract,), {"harness": pytest.fixture(lambda self: make())})


TestLacking, TestDeclaring, TestMisspelling = map(examined, (Lacking, Declaring, Misspelling))
TestBare = type("TestBare", (DriverContract,), {})
'''

ROTATION = "test_rotation_keeps_the_key_id"
NAMES = "test_hostile_name_is_refused"
LOOKED_FOR = "test_harness_says_what_the_cases_look_for"
TOLD = "test_fault_is_told_and_survived"
CASES = (
    f"TestLacking::{ROTATION}",
    f"TestDeclaring::{ROTATION}",
    f"TestDeclaring::{NAMES}[slash]",
    f"TestDeclaring::{NAMES}[parent]",
    f"TestDeclaring::{TOLD}[status 503-wrap]",
    f"TestDeclaring::{TOLD}[status 500-wrap]",
    "TestDeclaring::test_close_twice",
    "TestDeclaring::test_close_before_any_call",
    "TestMisspelling::test_harness_declares_only_abilities_and_cases",
    f"TestMisspelling::{LOOKED_FOR}[sdk]",
    f"TestMisspelling::{LOOKED_FOR}[secrets]",
    f"TestDeclaring::{LOOKED_FOR}[sdk]",
    f"TestDeclaring::{LOOKED_FOR}[secrets]",
    "TestDeclaring::test_open_imports_no_sdk",
    "TestBare::test_close_twice",
)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What pytest prints of some cases, with nothing set up but the harnesses."""
    return printed(
        tmp_path_factory.mktemp("suite"), "-p", "no:xdist", *(f"test_generated.py::{case}" for case in CASES)
    )


def printed(folder, *arguments):
    (folder / "test_generated.py").write_text(MODULE)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-v", "-W", "error", "-p", "no:cacheprovider"),
            *("--rootdir", str(folder), *arguments),
        ],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def outcome(output, case):
    """PASSED, FAILED, SKIPPED or ERROR."""
    found = re.search(rf"::{re.escape(case)} (\w+)", output)
    return found and found[1]


def test_ability_that_is_neither_there_nor_declared_fails_its_cases(output):
    """Silence is no declaration; the failure says what to write."""
    assert outcome(output, f"TestLacking::{ROTATION}") == "FAILED"
    assert "does not implement 'rotate'; implement it, or declare in `cannot` why not" in output


def test_missing_fixture_says_what_to_write(output):
    assert outcome(output, "TestBare::test_close_twice") == "ERROR"
    assert "there is no fixture `harness`" in output


@pytest.mark.parametrize(
    ("left_out", "left_in"),
    (
        (f"{NAMES}[slash]", f"{NAMES}[parent]"),
        (f"{TOLD}[status 503-wrap]", f"{TOLD}[status 500-wrap]"),
        ("test_close_twice", "test_close_before_any_call"),
    ),
    ids=("one of several", "one fault", "one case"),
)
def test_only_what_is_declared_is_left_out(output, left_out, left_in):
    """An ability, a fault, a case or one of its parameters; the next one runs."""
    assert outcome(output, f"TestDeclaring::{left_out}") == "SKIPPED"
    assert outcome(output, f"TestDeclaring::{left_in}") == "PASSED"


def test_run_ends_with_what_was_declared(output):
    """With the reasons, though no conftest.py enables it."""
    _, _, summary = output.partition("left out of the contract, as declared")
    assert "Declaring cannot rotate: its keys are for ever (1 case)" in summary
    assert "Declaring cannot status 503: it is always available (1 case)" in summary


def test_run_on_several_processes_ends_with_it_too(tmp_path):
    """Under pytest-xdist, where the process that prints the summary runs no case."""
    output = printed(tmp_path, "-n", "1", f"test_generated.py::TestDeclaring::{ROTATION}")
    _, _, summary = output.partition("left out of the contract, as declared")
    assert "Declaring cannot rotate: its keys are for ever (1 case)" in summary


def test_misspelt_declaration_fails(output):
    """Else it would leave out nothing, unseen."""
    case = "TestMisspelling::test_harness_declares_only_abilities_and_cases"
    assert outcome(output, case) == "FAILED"


def test_harness_without_sdk_or_secrets_fails_unless_it_says_why(output):
    """A case that looks for nothing finds nothing; so does one that is left out although there is something."""
    assert outcome(output, f"TestMisspelling::{LOOKED_FOR}[sdk]") == "FAILED"
    assert outcome(output, f"TestMisspelling::{LOOKED_FOR}[secrets]") == "PASSED"
    assert outcome(output, f"TestDeclaring::{LOOKED_FOR}[sdk]") == "PASSED"
    assert outcome(output, f"TestDeclaring::{LOOKED_FOR}[secrets]") == "FAILED"
    assert "set 'sdk', or say in `cannot` why there is none" in output
    assert outcome(output, "TestDeclaring::test_open_imports_no_sdk") == "SKIPPED"


# --- what is promised, and where it stands ---------------------------------------------------------------


def test_there_are_enough_faults():
    """At least 25 that a call fails of, each with the class that it is told as, and some that it overcomes."""
    assert len(ERRORS) >= 25
    assert {*ERRORS, *OVERCOME} == {*Fault}
    assert {*FAULTS} == {*Fault}
    assert {kind for kinds in ERRORS.values() for kind in kinds} == {KmsUnavailable, KmsTimeout, KmsThrottled}


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
def test_reference_says_how_each_fault_is_told(fault):
    """In its table, with the text that `cannot` names it by."""
    told = " or ".join(f"`{kind.__name__}`" for kind in ERRORS.get(fault, ())) or "works"
    assert f"\n| `{fault.name}` | `{fault.value}` | {told} |\n" in REFERENCE


def test_reference_counts_the_faults():
    """In words that a reader can check."""
    failing = f"A call fails with {len(ERRORS)} of the faults and with the {len(Misdirection)} misdirections"
    assert f"{failing}, and succeeds with {len(OVERCOME)} faults." in REFERENCE
    assert f"{MAX_MEMORY >> 20} MiB of memory" in REFERENCE


# --- drivers without an entry point ---------------------------------------------------------------------


def test_installed_driver_is_found_for_a_while():
    """Inside the block, beside the others."""
    with installed(FakeDriver), installed(UnboundFakeDriver):
        assert registry.driver_class("fake") is FakeDriver
        assert registry.driver_class("fake-unbound") is UnboundFakeDriver
        assert registry.driver_class("local").scheme == "local"
    with pytest.raises(ProviderNotFound):
        registry.driver_class("fake")


def test_counted_driver_counts_calls():
    """Of drivers opened inside the block."""
    FakeDriver.service.create("counted")
    with installed(FakeDriver), counted(FakeDriver) as calls:
        with EnvelopeCipher.from_uri("fake:counted") as cipher:
            messages = cipher.encrypt_many([b"a", b"b"])
        with EnvelopeCipher.from_uri("fake:counted") as cipher:
            cipher.decrypt_many(messages)
            cipher.needs_rewrap(messages[0])
    assert calls == {"wrap": 1, "unwrap_many": 1, "describe": 1}


def test_fake_key_fails_as_often_as_it_is_told():
    """A fault that ends by itself is overcome by the library's next attempt."""
    key = FakeDriver.service.create("failing")
    with installed(FakeDriver), EnvelopeCipher.from_uri("fake:failing", calls={"max_attempts": 1}) as cipher:
        key.fail("wrap", ErrorKind.THROTTLED, times=1)
        with pytest.raises(KmsThrottled):
            cipher.encrypt(b"x")
        assert cipher.encrypt(b"x")
        key.fail("unwrap", ErrorKind.UNAVAILABLE)
        message = cipher.encrypt(b"x")
        for _ in range(3):
            with pytest.raises(KmsUnavailable):
                cipher.decrypt(message)
        key.heal()
        assert cipher.decrypt(message) == b"x"


def test_fake_key_gives_a_wrong_answer_when_told():
    """The library notices what cannot be a data key's."""
    key = FakeDriver.service.create("lying")
    with installed(FakeDriver), EnvelopeCipher.from_uri("fake:lying", direct=True) as cipher:
        message = cipher.encrypt(b"x")
        key.answer("unwrap", b"another payload", times=1)
        assert cipher.decrypt(message) == b"another payload"
        assert cipher.decrypt(message) == b"x"


# --- the canaries' eyes ---------------------------------------------------------------------------------


@pytest.fixture
def canaries(caplog):
    caplog.set_level(logging.DEBUG)
    return Canaries([b"token-of-the-caller"], caplog)


@pytest.mark.parametrize(
    "show",
    (
        lambda canary: canary,
        lambda canary: canary.decode(),
        lambda canary: repr([canary]),
        lambda canary: canary.hex(),
        lambda canary: pickle.dumps({"key": canary}),
        lambda canary: __import__("base64").b64encode(canary),
        lambda canary: __import__("base64").b64encode(b"x" + canary),
        lambda canary: __import__("base64").urlsafe_b64encode(b"{}" + canary + b"}"),
    ),
    ids=("bytes", "text", "repr", "hex", "pickle", "base64", "base64 after one", "base64 after two"),
)
def test_canary_is_seen_in_every_disguise(canaries, show):
    """As bytes or text, in hex or base64 at every offset."""
    with pytest.raises(AssertionError) as caught:
        canaries.not_shown(show(canaries.payload))
    assert canaries.payload.decode() not in str(caught.value)


def test_canary_is_seen_in_logs(canaries):
    """In a record's arguments too."""
    logging.getLogger("somewhere").debug("sent %r", b"token-of-the-caller")
    with pytest.raises(AssertionError):
        canaries.not_shown("")


def test_canary_is_seen_in_local_variables(canaries):
    """Of a frame that a raised error keeps alive, below the one that called."""

    def careless():
        payload = canaries.payload
        raise KmsThrottled(f"{len(payload)} bytes")

    def call():
        careless()

    with pytest.raises(AssertionError):
        canaries.not_shown_by_failure(call)


def test_canary_is_seen_in_a_cause(canaries):
    """The exception of a provider's client, with its text."""

    def call():
        raise KmsThrottled("later") from ValueError(canaries.payload)

    with pytest.raises(AssertionError):
        canaries.not_shown_by_failure(call)


def test_discreet_failure_passes(canaries):
    def call():
        raise KmsThrottled("later", key_id="fake:app")

    canaries.not_shown_by_failure(call)
    with pytest.raises(AssertionError, match="succeeded"):
        canaries.not_shown_by_failure(lambda: None)
