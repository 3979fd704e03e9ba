"""The table as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.report import Line, rounded

OURS, OTHER, LIMIT = "#2b6cb0", "#b8bec7", "#c53030"


SKIPPED = ("64 bytes", "Cold start", "Decryptor.open", "One cipher")
"""Parts that the table has and the picture has no room for."""


def draw(lines: Sequence[Line], title: str, path: str) -> None:
    """Write an SVG to `path`. Raises `ImportError` without matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    # Text stays text, and the same figures give the same file.
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "kmsbridge", "font.size": 8}
    groups = _groups(lines)
    rows = (len(groups) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(13, 3.2 * rows), layout="constrained", squeeze=False)
    figure.suptitle(title, fontsize=8)
    for one, (name, group) in zip(axes.flat, groups, strict=False):
        _bars(one, name, group)
    for spare in axes.flat[len(groups) :]:
        spare.remove()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _groups(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """The lines of each part that have the unit of its first one."""
    parts = dict.fromkeys(line.part for line in lines if not line.part.startswith(SKIPPED))
    mine = {part: [line for line in lines if line.part == part] for part in parts}
    return [(part, [line for line in group if line.unit == group[0].unit]) for part, group in mine.items()]


def _bars(axes: Any, name: str, group: list[Line]) -> None:
    limits = any(line.limit for line in group) and group[0].unit == "us"
    drawn = [line for line in group if line.ratio is not None or not limits]
    values = [line.ratio if limits else line.figure for line in drawn]
    bars = axes.barh(
        [line.name for line in drawn], values, color=[OURS if _is_ours(line) else OTHER for line in drawn]
    )
    axes.bar_label(
        bars, [f"{line.ratio:.2f}" if limits else rounded(line.figure) for line in drawn], padding=3
    )
    for bar, line in zip(bars, drawn, strict=True):
        if line.limit and limits:
            axes.plot([line.limit] * 2, [bar.get_y(), bar.get_y() + bar.get_height()], color=LIMIT, lw=2)
    if limits:
        axes.axvline(1, color="black", lw=0.8)
    elif group[0].unit == "us":
        axes.set_xscale("log")  # the others are hundreds of times apart
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    unit = "times the bare cipher; red: limit" if limits else f"{group[0].unit}{_scale(axes)}"
    axes.set_title(f"{name.partition(', ratio')[0]} ({unit})", loc="left", fontweight="bold", fontsize=8)


def _scale(axes: Any) -> str:
    return ", logarithmic" if axes.get_xscale() == "log" else ""


def _is_ours(line: Line) -> bool:
    return not any(word in line.name for word in ("AWS", "Tink", "bare", "aws_", "tink", "cryptography"))
