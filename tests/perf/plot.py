"""Figures as SVG, written by hand: a row for each, its spread as a line, its median as a dot, the run before as a ring.

Pure: figures in, text out. No scripts and no fonts of its own, so that it shows in a repository's web page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

ROW = 22
LEFT = 540
WIDTH = 520
RIGHT = 150
TOP = 64
_INK, _GREY, _GOOD, _BAD, _BUDGET, _THEIRS = "#222", "#999", "#1a7f4b", "#c0392b", "#2c5aa0", "#b8860b"  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One figure as it is drawn. All numbers are in the unit of the axis."""

    title: str
    low: float
    median: float
    high: float
    shown: str
    before: float | None = None
    budget: float | None = None
    upstream: float | None = None


def chart(title: str, unit: str, rows: Sequence[Row], *, limit: float | None = None) -> str:
    """The rows over one linear axis from 0 to `limit`, or to the largest number in them; what is larger sits at the edge."""
    top = limit or max(
        (
            value
            for row in rows
            for value in (row.high, row.budget, row.upstream, row.before)
            if value is not None
        ),
        default=1.0,
    )
    top = top or 1.0
    height = TOP + ROW * len(rows) + 40
    total = LEFT + WIDTH + RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" viewBox="0 0 {total} {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{total}" height="{height}" fill="white"/>',
        f'<text x="16" y="24" font-size="16" fill="{_INK}">{escape(title)}</text>',
        *_legend(),
        *_axis(top, unit, height),
    ]
    for number, row in enumerate(rows):
        parts += _row(row, TOP + ROW * number + ROW / 2, top)
    return "\n".join([*parts, "</svg>\n"])


def _x(value: float, top: float) -> float:
    return round(LEFT + WIDTH * min(max(value, 0.0), top) / top, 1)


def _row(row: Row, y: float, top: float) -> list[str]:
    over = row.budget is not None and row.median > row.budget
    colour = _BAD if over else _GOOD if row.budget is not None else _INK
    parts = [
        f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end" fill="{_INK}">{escape(row.title)}</text>',
        f'<line x1="{_x(row.low, top)}" x2="{_x(row.high, top)}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
    ]
    if row.budget is not None:
        x = _x(row.budget, top)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{y - 8}" y2="{y + 8}" stroke="{_BUDGET}" stroke-width="2"/>')  # fmt: skip
    if row.upstream is not None:
        x = _x(row.upstream, top)
        parts.append(f'<path d="M{x} {y - 5} l5 5 l-5 5 l-5 -5 z" fill="{_THEIRS}"/>')
    if row.before is not None:
        parts.append(f'<circle cx="{_x(row.before, top)}" cy="{y}" r="5" fill="none" stroke="{_GREY}" stroke-width="1.5"/>')  # fmt: skip
    parts += [
        f'<circle cx="{_x(row.median, top)}" cy="{y}" r="3.5" fill="{colour}"/>',
        f'<text x="{LEFT + WIDTH + 14}" y="{y + 4}" fill="{colour}">{escape(row.shown)}</text>',
    ]
    return parts


def _axis(top: float, unit: str, height: int) -> list[str]:
    step = 10 ** math.floor(math.log10(top))
    while top / step < 4:
        step /= 2
    parts, value = [], 0.0
    while value <= top * 1.0001:
        x = _x(value, top)
        parts += [
            f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{height - 36}" stroke="#e5e5e5"/>',
            f'<text x="{x}" y="{height - 20}" text-anchor="middle" fill="{_GREY}">{value:g}</text>',
        ]
        value += step
    return [*parts, f'<text x="{LEFT + WIDTH + 14}" y="{height - 20}" fill="{_GREY}">{escape(unit)}</text>']  # fmt: skip


def _legend() -> list[str]:
    entries = (
        (f'<circle cx="0" cy="-4" r="3.5" fill="{_INK}"/>', "median, line: minimum to maximum"),
        (f'<circle cx="0" cy="-4" r="5" fill="none" stroke="{_GREY}" stroke-width="1.5"/>', "the run before"),
        (f'<rect x="-1" y="-11" width="2" height="14" fill="{_BUDGET}"/>', "budget"),
        (f'<path d="M0 -9 l5 5 l-5 5 l-5 -5 z" fill="{_THEIRS}"/>', "KubeVirt"),
    )  # fmt: skip
    parts, x = [], 24
    for mark, text in entries:
        parts.append(f'<g transform="translate({x} 48)">{mark}<text x="12" fill="{_INK}">{escape(text)}</text></g>')  # fmt: skip
        x += 40 + 7 * len(text)
    return parts
