"""The contract that every driver keeps, as cases for pytest."""

from __future__ import annotations

import pytest

_MODULES = (
    *("base", "batches", "binding", "interruption", "lifetime", "local_wrap", "names", "network", "portable"),
    *("refusals", "rewrapping", "roundtrip", "secrecy", "settings", "shape", "tampering", "versions"),
)
# Before the modules are imported, so that their failed asserts show the compared values.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

from kmsbridge_testing.contract.batches import BatchCases  # noqa: E402
from kmsbridge_testing.contract.binding import BindingCases  # noqa: E402
from kmsbridge_testing.contract.interruption import InterruptionCases  # noqa: E402
from kmsbridge_testing.contract.lifetime import LifetimeCases  # noqa: E402
from kmsbridge_testing.contract.local_wrap import LocalWrapCases  # noqa: E402
from kmsbridge_testing.contract.names import NameCases  # noqa: E402
from kmsbridge_testing.contract.network import NetworkCases  # noqa: E402
from kmsbridge_testing.contract.portable import PortableCases  # noqa: E402
from kmsbridge_testing.contract.refusals import RefusalCases  # noqa: E402
from kmsbridge_testing.contract.rewrapping import RewrapCases  # noqa: E402
from kmsbridge_testing.contract.roundtrip import RoundtripCases  # noqa: E402
from kmsbridge_testing.contract.secrecy import SecrecyCases  # noqa: E402
from kmsbridge_testing.contract.settings import SettingCases  # noqa: E402
from kmsbridge_testing.contract.shape import ShapeCases  # noqa: E402
from kmsbridge_testing.contract.tampering import TamperingCases  # noqa: E402
from kmsbridge_testing.contract.versions import VersionCases  # noqa: E402

__all__ = ["DriverContract"]


class DriverContract(
    ShapeCases,
    SettingCases,
    RoundtripCases,
    BindingCases,
    TamperingCases,
    VersionCases,
    RefusalCases,
    NetworkCases,
    LifetimeCases,
    SecrecyCases,
    NameCases,
    PortableCases,
    RewrapCases,
    LocalWrapCases,
    InterruptionCases,
    BatchCases,
):
    """All cases of the contract. To test a driver, derive a class named `Test...` with a fixture `harness`::

    class TestMyDriver(DriverContract):
        @pytest.fixture
        def harness(self):
            return MyHarness()
    """
