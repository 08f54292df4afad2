"""Plots as inline SVG, without a script and without anything from elsewhere. Every text in them is escaped."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 250, 46, 34, 22, 14
BLUE, RED, GREY, INK = "#2f6fb3", "#b3372f", "#d8dde3", "#39424e"


def curve(points: Sequence[tuple[float, float]], x: str, y: str) -> str:
    """A line through points between 0 and 1 on both axes."""
    path = " ".join(f"{'M' if n == 0 else 'L'}{_x(px):.1f},{_y(py):.1f}" for n, (px, py) in enumerate(points))
    dots = "".join(f'<circle cx="{_x(px):.1f}" cy="{_y(py):.1f}" r="3" fill="{BLUE}"/>' for px, py in points)
    grid = "".join(_across(share, f"{share:.1f}") for share in (0, 0.2, 0.4, 0.6, 0.8, 1))
    ticks = "".join(_text(_x(share), HEIGHT - 18, f"{share:.1f}", "middle") for share in (0, 0.2, 0.4, 0.6, 0.8, 1))
    line = f'<path d="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>'
    return _svg(HEIGHT, f"{y} by {x}", grid + ticks + line + dots + _named(x, y))


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """A horizontal bar a row: its name, its length from 0 to 1, and what is written at its end."""
    step, name_width = 24, 210
    height, room = step * len(rows) + 8, WIDTH - name_width - 120
    parts = []
    for n, (name, value, told) in enumerate(rows):
        y, length = n * step + 6, max(1.0, room * min(1.0, max(0.0, value)))
        shown = name if len(name) <= 32 else name[:31] + "…"
        parts.append(_text(name_width - 8, y + 12, shown, "end"))
        parts.append(f'<rect x="{name_width}" y="{y}" width="{room}" height="16" fill="#eef1f4"/>')
        parts.append(f'<rect x="{name_width}" y="{y}" width="{length:.1f}" height="16" fill="{BLUE}"/>')
        parts.append(_text(name_width + room + 8, y + 12, told, "start"))
    return _svg(height, "bars", "".join(parts))


def histogram(values: Sequence[float], x: str, bins: int = 30) -> str:
    """How many of the values fall into each of equally wide bins; the last holds the largest."""
    low, high = 0.0, max(values)
    width = (high - low) / bins or 1.0
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / width))] += 1
    most = max(counts)
    each = (WIDTH - LEFT - RIGHT) / bins
    parts = [_across(1.0, str(most)), _across(0.0, "0")]
    for n, count in enumerate(counts):
        top = _y(count / most)
        parts.append(f'<rect x="{LEFT + n * each + 1:.1f}" y="{top:.1f}" width="{each - 2:.1f}" '
                     f'height="{_y(0) - top:.1f}" fill="{BLUE}"/>')  # fmt: skip
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_text(_x(share), HEIGHT - 18, f"{low + share * (high - low):.0f}", "middle"))
    return _svg(HEIGHT, f"distribution of {x}", "".join(parts) + _named(x, "questions"))


def deltas(values: Sequence[float], y: str) -> str:
    """A bar a question, losses first and below the line."""
    ordered, most = sorted(values), max(1e-9, *(abs(value) for value in values))
    middle, half = (HEIGHT - BOTTOM + TOP) / 2, (HEIGHT - BOTTOM - TOP) / 2
    each = (WIDTH - LEFT - RIGHT) / len(ordered)
    parts = []
    for n, value in enumerate(ordered):
        length = abs(value) / most * half
        top = middle - length if value > 0 else middle
        parts.append(f'<rect x="{LEFT + n * each:.2f}" y="{top:.1f}" width="{max(each * 0.9, 0.4):.2f}" '
                     f'height="{length:.1f}" fill="{BLUE if value > 0 else RED}"/>')  # fmt: skip
    for at, told in ((TOP, f"+{most:.2f}"), (middle, "0"), (HEIGHT - BOTTOM, f"−{most:.2f}")):
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="{GREY}"/>')
        parts.append(_text(LEFT - 6, at + 4, told, "end"))
    lost, won = sum(v < 0 for v in ordered), sum(v > 0 for v in ordered)
    told = f"{len(ordered)} questions by change of {y}: {lost} lost, {won} won"
    return _svg(HEIGHT, told, "".join(parts) + _text(WIDTH / 2, HEIGHT - 8, told, "middle"))


def _svg(height: float, told: str, body: str) -> str:
    return (f'<svg viewBox="0 0 {WIDTH} {math.ceil(height)}" width="{WIDTH}" height="{math.ceil(height)}" role="img" '
            f'aria-label="{escape(told)}" font-family="inherit" font-size="12">{body}</svg>')  # fmt: skip


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _across(share: float, told: str) -> str:
    line = f'<line x1="{LEFT}" y1="{_y(share):.1f}" x2="{WIDTH - RIGHT}" y2="{_y(share):.1f}" stroke="{GREY}"/>'
    return line + _text(LEFT - 6, _y(share) + 4, told, "end")


def _named(x: str, y: str) -> str:
    return _text((WIDTH + LEFT) / 2, HEIGHT - 3, x, "middle") + _text(6, 13, y, "start")


def _text(x: float, y: float, told: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(told)}</text>'
