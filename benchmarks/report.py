"""The table, on a terminal and as Markdown, and what a machine reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

HEADINGS = ("", "figure", "ratio", "limit", "")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. `limit` is for the ratio where there is one, else for the figure itself."""

    part: str
    name: str
    figure: float
    unit: str
    ratio: float | None = None
    limit: float | None = None
    at_least: bool = False
    """Whether the limit is a lower one."""

    @property
    def verdict(self) -> str:
        """Empty where there is no limit."""
        if self.limit is None:
            return ""
        value = self.figure if self.ratio is None else self.ratio
        kept = value >= self.limit if self.at_least else value <= self.limit
        return "PASS" if kept else "OVER LIMIT"

    def cells(self) -> tuple[str, ...]:
        """As the columns of a table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        limit = "" if self.limit is None else f"{'>=' if self.at_least else '<='} {self.limit:g}"
        if limit and self.ratio is None:
            limit += f" {self.unit}"
        return self.name, f"{rounded(self.figure)} {self.unit}", ratio, limit, self.verdict


def rounded(value: float) -> str:
    """Three digits that count."""
    if value == int(value):  # 0 among them
        return f"{int(value):,}"
    return f"{value:,.{max(0, 2 - int(math.log10(value)))}f}"


def terminal(lines: Iterable[Line], notes: Iterable[str]) -> str:
    """Plain text in columns."""
    text = []
    for part, group in itertools.groupby(lines, key=lambda line: line.part):
        text.append(f"\n{part}")
        for name, figure, ratio, limit, verdict in (line.cells() for line in group):
            text.append(f"  {name:<58}{figure:>14}  {ratio:>6}  {limit:<9} {verdict}".rstrip())
    return "\n".join([*text, "", *notes])


def markdown(lines: Iterable[Line], notes: Iterable[str]) -> str:
    """A table for each part."""
    text = []
    for part, group in itertools.groupby(lines, key=lambda line: line.part):
        text += [f"**{part}**", "", f"| {' | '.join(HEADINGS)} |", "|---|--:|--:|---|---|"]
        text += [f"| {' | '.join(line.cells())} |" for line in group]
        text.append("")
    return "\n".join([*text, *(f"- {note}" for note in notes), ""])
