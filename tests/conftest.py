"""What every test shares: one seed for the run, the size of torture, and a clean environment."""

import os
import random
import secrets
import signal
from dataclasses import dataclass
from types import FrameType

import pytest

from tests import backends

_SEED = "KMSBRIDGE_SEED"


@dataclass(frozen=True, slots=True)
class Torture:
    """How hard to try: `scale` is the part of the full number of attempts; `seed` decides which."""

    scale: float
    seed: int

    def rng(self, name: str) -> random.Random:
        """A generator for the test `name`: the same seed gives the same numbers, on every worker."""
        return random.Random(f"{self.seed}/{name}")

    def times(self, full: int) -> int:
        """How many of `full` attempts to make, at least one."""
        return max(1, round(full * self.scale))


_TORTURE = pytest.StashKey[Torture]()
_SCALES = {"full": 1.0, "light": 0.04}
"""By the variable KMSBRIDGE_TORTURE; else it is a tenth."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-backend",
        action="append",
        default=[],
        choices=sorted(backends.GIVEN),
        help="skip what needs this server; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    _forget_inherited_signals()  # first: what is started from here on would inherit them
    backends.configure(config)
    # Set in the environment as well, because xdist's workers inherit it and must agree on the seed.
    seed = int(os.environ.setdefault(_SEED, str(secrets.randbits(32))))
    scale = _SCALES.get(os.environ.get("KMSBRIDGE_TORTURE", ""), 0.1)
    config.stash[_TORTURE] = Torture(scale=scale, seed=seed)


def _forget_inherited_signals() -> None:
    """Have the programs that are tested start with no signal ignored and none blocked, as from a terminal.

    A run in a shell's background ignores Ctrl-C, one under `nohup` the hangup, and others what they like. Here
    everything is as in a fresh Python, but for a hangup that was ignored: it does not end this process, and is
    not ignored by those that it starts.
    """
    fresh = {
        signal.SIGHUP: _stay,
        signal.SIGINT: signal.default_int_handler,
        signal.SIGPIPE: signal.SIG_IGN,
        signal.SIGXFSZ: signal.SIG_IGN,
    }
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, fresh.get(number, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _stay(_number: int, _frame: FrameType | None) -> None:
    """Unlike being ignored, a handler is not inherited by another program."""


def pytest_unconfigure(config: pytest.Config) -> None:
    backends.unconfigure(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if backends.summary():
        terminalreporter.section(backends.summary())


def pytest_report_header(config: pytest.Config) -> str:
    torture = config.stash[_TORTURE]
    return f"kmsbridge: {_SEED}={torture.seed}, torture at {torture.scale:.0%} of its size"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.failed:
        report.sections.append(("seed", f"{_SEED}={item.config.stash[_TORTURE].seed} repeats this run"))
    return report


@pytest.fixture(scope="session")
def torture(pytestconfig: pytest.Config) -> Torture:
    """The seed and the size of this run."""
    return pytestconfig.stash[_TORTURE]


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KMSBRIDGE_")]:
        monkeypatch.delenv(name)
