"""Keeps the figures in SPECIFICATION.md in step with the last run.

A table cell that begins with `part/key` shows that figure's median, its spread and its unit behind the name. Pure.
"""

import re
from collections.abc import Callable

from tests.perf.measure import Figure

_CELL = re.compile(r"(?<=\| )`(\w+)/([\w-]+)`[^|\n]*")


def with_figures(text: str, figure: Callable[[str, str], Figure | None]) -> str:
    """`text` with the figures that `figure(part, key)` gives; those it does not know are marked as not measured."""

    def cell(match: re.Match[str]) -> str:
        part, key = match[1], match[2]
        found = figure(part, key)
        shown = "not measured" if found is None else shown_figure(found)
        return f"`{part}/{key}` {shown} "

    return _CELL.sub(cell, text)


def shown_figure(figure: Figure) -> str:
    """`median unit (minimum–maximum)`; the spread is left out of a single sample. Over budget in bold."""
    unit = "" if figure.unit == "1" else f" {figure.unit}"
    text = f"{_number(figure.median)}{unit}"
    if figure.budget is not None and figure.median > figure.budget:
        text = f"**{text}**"
    if len(figure.samples) > 1:
        text += f" ({_number(min(figure.samples))}–{_number(max(figure.samples))})"
    return text


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"  # fmt: skip
