"""How the cost of an answer grows with hosts, days and busy intervals: the engine alone, in one process, without JSON.

.venv/bin/python bench/growth.py [--write]

Prints the table; with --write puts it, and the plot, into docs/availability-cost.md and docs/availability-cost.svg.
"""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from _machine import machine
from engine import FIRST, LIMITS, MADRID, NOW, best, count, facts_of, least, plan_of

from kalends_availability.domain import offer
from kalends_availability.domain.ask import quoted
from kalends_availability.domain.bits import ones
from kalends_availability.domain.rules import Ask, View

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PLOT = DOCS / "availability-cost.md", DOCS / "availability-cost.svg"
MARKS = "<!-- measured by bench/growth.py --write -->", "<!-- end of what was measured -->"
ASK = Ask(now=NOW, minutes=30)
COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce")
HOSTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
DAYS = (1, 7, 14, 31, 62, 92)
BUSY = (0, 10, 60, 200, 1000, 5000)


class Line(NamedTuple):
    name: str
    points: list[tuple[int, float]]


class Panel(NamedTuple):
    """What grows, and milliseconds by it."""

    title: str
    unit: str
    lines: list[Line]


def cost(hosts: int, busy: int, days: int, assignment: str = "collective", *, limits: bool = False) -> float:
    """Milliseconds of an answer after the busy time of all hosts has changed; settings are known."""
    plan = plan_of(hosts, assignment, LIMITS if limits else None)
    frame = offer.frame_of(plan, ASK, MADRID, FIRST, FIRST + days - 1)
    assert frame is not None
    anew = [facts_of(hosts, busy, days) for _ in range(3 if hosts > 50 or busy > 500 else 25)]
    for facts in anew if limits else ():
        count(facts, hosts)
    return least(lambda facts: ones(View(plan, facts, ASK, frame).offered), anew)


def quote(hosts: int) -> float:
    plan, facts = plan_of(hosts, "round_robin"), facts_of(hosts, 60, 31)
    return best(partial(quoted, plan, facts, ASK, datetime(2026, 3, 3, 9, tzinfo=UTC), {}))


def line(name: str, xs: Sequence[int], measure: Callable[[int], float]) -> Line:
    return Line(name, [(x, measure(x)) for x in xs])


def measured() -> list[Panel]:
    by_hosts = [
        line("collective", HOSTS, lambda n: cost(n, 60, 31)),
        line("collective, limits", HOSTS, lambda n: cost(n, 60, 31, limits=True)),
        line("round robin", HOSTS, lambda n: cost(n, 60, 31, "round_robin")),
        line("quote, round robin", HOSTS, quote),
    ]
    by_days = [
        line("1 host", DAYS, lambda days: cost(1, 2 * days, days)),
        line("50 hosts collective", DAYS, lambda days: cost(50, 2 * days, days)),
    ]
    by_busy = [
        line("1 host, 31 days", BUSY, lambda busy: cost(1, busy, 31)),
        line("1 host, 92 days", BUSY, lambda busy: cost(1, busy, 92)),
    ]
    return [
        Panel("31 days, 60 busy intervals a host", "hosts", by_hosts),
        Panel("2 busy intervals a day and host", "days", by_days),
        Panel("one host", "busy intervals", by_busy),
    ]


def table(panel: Panel) -> str:
    """The panel as a table of Markdown, in milliseconds."""
    rows = [
        f"| {panel.unit} | {' | '.join(one.name for one in panel.lines)} |",
        "|" + " ---: |" * (len(panel.lines) + 1),
    ]
    for n, (x, _) in enumerate(panel.lines[0].points):
        rows.append(f"| {x:,} | {' | '.join(f'{one.points[n][1]:.3f}' for one in panel.lines)} |")
    return f"**{panel.title}** (ms)\n\n" + "\n".join(rows)


# --- the plot: both axes logarithmic, so that a line of slope 1 is a cost in proportion

WIDTH, HEIGHT, LEFT, TOP, GAP = 320, 300, 60, 40, 70


def plot(panels: list[Panel]) -> str:
    every = [y for panel in panels for one in panel.lines for _, y in one.points]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    total = len(panels) * (WIDTH + GAP) + LEFT
    height = TOP + HEIGHT + 50 + 18 * max(len(panel.lines) for panel in panels)
    drawn = [drawing(panel, LEFT + n * (WIDTH + GAP), low, high) for n, panel in enumerate(panels)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{total}" height="{height}" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def drawing(panel: Panel, left: int, low: int, high: int) -> str:
    """One panel with its axes, lines and names."""
    xs = [x for one in panel.lines for x, _ in one.points]
    widest = math.log10(max(xs) + 1)
    bottom = TOP + HEIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        # One more, so that no busy interval at all has a place too.
        across, up = math.log10(x + 1) / widest, (math.log10(y) - low) / (high - low)
        return round(left + across * WIDTH, 1), round(bottom - up * HEIGHT, 1)

    out = [f'<text x="{left}" y="{TOP - 14}" font-weight="bold">{panel.title}</text>']
    for power in range(low, high + 1):
        y = place(0, 10.0**power)[1]
        out.append(f'<line x1="{left}" y1="{y}" x2="{left + WIDTH}" y2="{y}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>')
    shown = sorted(set(xs))
    for x in shown if len(shown) < 8 else shown[::2]:
        at = place(x, 1)[0]
        out.append(f'<line x1="{at}" y1="{bottom}" x2="{at}" y2="{bottom + 4}" stroke="black"/>')
        out.append(f'<text x="{at}" y="{bottom + 17}" text-anchor="middle">{x}</text>')
    out.append(f'<text x="{left + WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">{panel.unit}; milliseconds</text>')
    out.append(f'<path d="M{left} {TOP}V{bottom}H{left + WIDTH}" fill="none" stroke="black"/>')
    for n, (one, colour) in enumerate(zip(panel.lines, COLOURS, strict=False)):
        points = " ".join("{},{}".format(*place(x, y)) for x, y in one.points)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = bottom + 54 + 18 * n
        out.append(f'<line x1="{left}" y1="{y}" x2="{left + 24}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{left + 30}" y="{y + 4}">{one.name}</text>')
    return "\n".join(out)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--write", action="store_true", help="into docs/ too")
    args = flags.parse_args()
    panels = measured()
    text = f"{machine()}\n\n" + "\n\n".join(table(panel) for panel in panels)
    print(text)
    if args.write:
        begin, end = MARKS
        page = PAGE.read_text(encoding="utf-8")
        block = f"{begin}\n\n{text}\n\n{end}"
        PAGE.write_text(re.sub(f"{begin}.*{end}", lambda _: block, page, flags=re.DOTALL), encoding="utf-8")
        PLOT.write_text(plot(panels), encoding="utf-8")


if __name__ == "__main__":
    main()
