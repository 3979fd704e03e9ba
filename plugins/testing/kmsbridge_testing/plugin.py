"""A pytest plugin: fixtures for tests of applications, and a list of the cases left out because of `Harness.cannot`.

Pytest loads it through the entry point of the distribution.
"""

from __future__ import annotations

from collections import Counter

import pytest

from kmsbridge_testing.fixtures import kms_cipher, kms_key

__all__ = ["kms_cipher", "kms_key", "pytest_terminal_summary", "record_gap"]

GAP = "kmsbridge: cannot"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what the harnesses declared that they cannot do, with the number of cases left out for each."""
    gaps = Counter(
        value
        for report in terminalreporter.getreports("skipped")
        for name, value in report.user_properties
        if name == GAP
    )
    if gaps:
        terminalreporter.section("left out of the contract, as declared")
    for gap, count in sorted(gaps.items()):
        terminalreporter.line(f"{gap} ({count} case{'s' if count > 1 else ''})")


def record_gap(item: pytest.Item, gap: str) -> None:
    """Record that `item` is skipped because of `gap`, for the summary."""
    item.user_properties.append((GAP, gap))
