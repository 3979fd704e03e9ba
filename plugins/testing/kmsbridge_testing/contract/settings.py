"""Cases for the URI's parameters, a driver's declarations, and the policies that it prints."""

from __future__ import annotations

from typing import Any, Final, get_args

import pytest

from kmsbridge.driver import PolicyRole
from kmsbridge.errors import ConfigError
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import Cases, Keys, bound, driver_of, needs, refused
from kmsbridge_testing.contract.watch import network_events_of
from kmsbridge_testing.harness import Harness, KeyAddress

UNKNOWN: Final = "no-such-parameter"
CANARY: Final = "value-in-the-wrong-place"

every_role = pytest.mark.parametrize("role", get_args(PolicyRole))


class SettingCases(Cases):
    """Cases for parameters of the URI, declarations of single objects, and policies."""

    def test_unknown_parameter_is_refused(self, harness: Harness) -> None:
        """A misspelt parameter is a `ConfigError` that names it without its value."""
        address = harness.address("first")
        front, mark, fragment = address.uri.partition("#")
        uri = f"{front}{'&' if '?' in front else '?'}{UNKNOWN}={CANARY}{mark}{fragment}"
        misspelt = KeyAddress(uri, address.options)
        error = refused(lambda: driver_of(misspelt).close(), ConfigError)
        assert isinstance(error, ConfigError)
        assert UNKNOWN in str(error)
        assert CANARY not in f"{error} {error.remedy}"
        assert error.remedy

    def test_declarations_of_an_object_stay(self, keys: Keys, key: ManagedKey, plaintext: bytes) -> None:
        """Capabilities and limits do not change with use, and are the same for all objects of a key."""
        fresh = keys.driver()
        before = fresh.capabilities, fresh.max_plaintext, fresh.batch_limit
        assert key.unwrap(key.wrap(plaintext, bound()), bound()) == plaintext
        fresh.describe(timeout=10)
        for driver in (fresh, key.driver):
            assert (driver.capabilities, driver.max_plaintext, driver.batch_limit) == before

    def test_development_settings_are_clauses(self, harness: Harness, keys: Keys) -> None:
        """`development_settings` returns printable texts without a secret, and makes no call."""
        driver = keys.driver()
        settings = driver.development_settings()
        assert not network_events_of(driver.development_settings)
        assert not isinstance(settings, str)
        assert [*settings] == [*driver.development_settings()]
        assert {type(text) for text in settings} <= {str}
        assert all(text.strip() and text.isprintable() for text in settings)
        shown = " ".join(settings).encode()
        assert not [number for number, secret in enumerate(harness.secrets) if secret in shown]

    @every_role
    def test_policy_is_text_without_a_call(self, keys: Keys, role: PolicyRole) -> None:
        """A policy is whole lines, always the same; or a `ConfigError` with a remedy; or not implemented."""
        driver = keys.driver()
        events = network_events_of(lambda: _policy(driver, role))
        text = _policy(driver, role)
        assert not events
        assert text == _policy(driver, role)
        if text is not None:
            assert text.strip()
            assert text.endswith("\n")

    @needs("secrets")
    @every_role
    def test_policy_shows_no_secret(self, harness: Harness, keys: Keys, role: PolicyRole) -> None:
        """A policy contains no secret, because it is passed on to others."""
        text = (_policy(keys.driver(), role) or "").encode()
        assert not [number for number, secret in enumerate(harness.secrets) if secret in text]

    def test_policies_of_the_roles_differ(self, keys: Keys) -> None:
        """No two roles have the same policy: who may encrypt may not also decrypt."""
        driver = keys.driver()
        texts = [_policy(driver, role) for role in get_args(PolicyRole)]
        given = [text for text in texts if text is not None]
        assert len(set(given)) == len(given)


def _policy(driver: Any, role: PolicyRole) -> str | None:
    """Return the policy's text; None if the driver has none or cannot write one from its configuration."""
    try:
        text = driver.policy(role)
    except NotImplementedError:
        return None
    except ConfigError as error:
        assert error.remedy  # noqa: PT017 - or none is raised
        return None
    assert isinstance(text, str)
    return text
