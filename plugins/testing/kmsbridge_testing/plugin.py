"""For pytest: ends a run of the contract suite with what the harnesses declared that they cannot do.

Pytest loads this by itself, through the entry point of the distribution.
"""

from __future__ import annotations

from collections import Counter

import pytest

GAP = "kmsbridge: cannot"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the gaps, with the number of cases each one left out."""
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
    """Have the summary tell of `gap`, which `item` is skipped for."""
    item.user_properties.append((GAP, gap))
