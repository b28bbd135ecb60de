"""Pictures of numbers for reports: bars, stacked bars, a heat map, a histogram, a scatter of points, a track of days.

Bars are HTML so that they stay readable on a phone; the rest is SVG that a narrow screen scrolls sideways.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeseg.results.search import pareto_front

Box = tuple[float, float, float, float]  # left, top, right, bottom
NAME_PX = 7.4  # of a letter of 13 px: a little more than a name takes in the usual fonts
MOST_NAMES = 6  # of days below an axis
SERIES = 6  # colors in the style sheet: .s0 to .s5, then again

STYLE = """
.bars{display:grid;grid-template-columns:max-content 1fr;gap:.15rem .6rem;align-items:center;font-size:.9rem}
.bars .name{grid-row:span var(--n)}.bar{position:relative;background:var(--line);height:1.1rem;border-radius:.15rem}
.bar i{position:absolute;inset:0 auto 0 0;border-radius:.15rem}
.bar b{position:absolute;left:.35rem;font-weight:500;font-size:.78rem;line-height:1.1rem;white-space:nowrap;
color:#fff;text-shadow:0 0 2px #000,0 0 2px #000,0 0 3px #000}
.stack{display:flex;height:1.6rem;border-radius:.2rem;overflow:hidden;margin:.2rem 0 .1rem}.stack i{min-width:1px}
.legend{font-size:.8rem;color:var(--soft)}
.legend i{display:inline-block;width:.75rem;height:.75rem;margin:0 .25rem 0 .7rem}
.s0{background:#2f7dd1;fill:#2f7dd1}.s1{background:#e08a2e;fill:#e08a2e}.s2{background:#4aa564;fill:#4aa564}
.s3{background:#b0568f;fill:#b0568f}.s4{background:#8a7bd8;fill:#8a7bd8}.s5{background:#8b8f98;fill:#8b8f98}
.track{fill:none;stroke-width:2}.c0{stroke:#2f7dd1}.c1{stroke:#e08a2e}.c2{stroke:#4aa564}.c3{stroke:#b0568f}
.c4{stroke:#8a7bd8}.c5{stroke:#8b8f98}
.heat td,.heat th{padding:.2rem .35rem;font-size:.75rem;text-align:center;min-width:2.2rem}
.heat th:first-child{text-align:right}.heat td{border:1px solid var(--bg)}
"""


@dataclass(frozen=True)
class Bars:
    """rows: (label, one value per series or None, in `unit`); bars run from 0 to `top` (the largest value)."""

    title: str
    series: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | None]]]
    unit: str = ""
    top: float = 0.0
    notes: Sequence[str] = ()  # one per row, behind the value of the first series

    def html(self) -> str:
        top = self.top or max((v for _, row in self.rows for v in row if v is not None), default=1.0) or 1.0
        parts = []
        for i, (label, values) in enumerate(self.rows):
            parts.append(f"<span class=name style='--n:{len(values)}'>{html.escape(label)}</span>")
            for k, value in enumerate(values):
                note = f" {self.notes[i]}" if self.notes and k == 0 else ""
                text = "-" if value is None else f"{value:.1f}{self.unit}{note}"
                width = 0.0 if value is None else max(0.0, min(100.0, 100 * value / top))
                bar = f"<i class=s{k % SERIES} style='width:{width:.1f}%'></i><b>{html.escape(text)}</b>"
                parts.append(f"<span class=bar>{bar}</span>")
        legend = _legend(self.series) if len(self.series) > 1 else ""
        caption = f"<figcaption>{html.escape(self.title)}</figcaption>"
        return f"<figure>{legend}<div class=bars>{''.join(parts)}</div>{caption}</figure>"

    def markdown(self) -> str:
        head = f"| | {' | '.join(self.series)} |\n| --- |{' --: |' * len(self.series)}"
        cells = (["-" if v is None else f"{v:.1f}{self.unit}" for v in values] for _, values in self.rows)
        return "\n".join([head, *(f"| {label} | {' | '.join(row)} |" for (label, _), row in zip(self.rows, cells))])


@dataclass(frozen=True)
class Stack:
    """Rows of parts that add up: (label, {part: value}); all rows share one scale."""

    title: str
    rows: Sequence[tuple[str, dict[str, float]]]
    unit: str = " ms"

    def html(self) -> str:
        names = list(dict.fromkeys(part for _, parts in self.rows for part in parts))
        top = max(sum(parts.values()) for _, parts in self.rows) or 1.0
        rows = []
        for label, parts in self.rows:
            bars = "".join(
                f"<i class=s{names.index(part) % SERIES} style='width:{100 * value / top:.2f}%' "
                f"title='{html.escape(part)} {value:.2f}{self.unit}'></i>"
                for part, value in parts.items()
            )
            total = f"{html.escape(label)}: {sum(parts.values()):.2f}{self.unit}"
            rows.append(f"<div class=legend>{total}</div><div class=stack>{bars}</div>")
        labels = [f"{n} {self.rows[0][1].get(n, 0):.2f}" if len(self.rows) == 1 else n for n in names]
        caption = f"<figcaption>{html.escape(self.title)}</figcaption>"
        return f"<figure>{''.join(rows)}{_legend(labels)}{caption}</figure>"

    def markdown(self) -> str:
        return "\n".join(
            f"- {label}: " + ", ".join(f"{part} {value:.2f}{self.unit}" for part, value in parts.items())
            for label, parts in self.rows
        )


@dataclass(frozen=True)
class Heat:
    """A square of shares of 1, rows are truth; darker is more."""

    title: str
    names: Sequence[str]
    shares: Sequence[Sequence[float]]

    def html(self) -> str:
        head = "<tr><th></th>" + "".join(f"<th>{html.escape(name[:6])}</th>" for name in self.names) + "</tr>"
        rows = []
        for name, row in zip(self.names, self.shares):
            cells = "".join(
                f"<td style='background:rgba(47,125,209,{share:.2f})'>{100 * share:.0f}</td>" if share >= 0.005
                else "<td></td>"
                for share in row
            )  # fmt: skip
            rows.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
        caption = f"<figcaption>{html.escape(self.title)}</figcaption>"
        return f"<figure><div class='wide heat'><table>{head}{''.join(rows)}</table></div>{caption}</figure>"

    def markdown(self) -> str:
        lines = []
        for name, row in zip(self.names, self.shares):
            wrong = sorted(((share, other) for share, other in zip(row, self.names) if other != name), reverse=True)
            confused = ", ".join(f"{other} {100 * share:.0f} %" for share, other in wrong[:2] if share >= 0.005)
            lines.append(f"- {name} is taken for: {confused or 'nothing else'}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Histogram:
    """Counts in equal steps from `low` to `high`; `marks` are named positions on the axis."""

    title: str
    low: float
    high: float
    counts: Sequence[int]
    marks: Sequence[tuple[str, float]] = ()
    unit: str = " ms"

    def html(self) -> str:
        top, width = max(self.counts) or 1, 640 / len(self.counts)
        bars = "".join(
            f"<rect class=s0 x={i * width:.1f} y={150 - 140 * n / top:.1f} width={max(width - 1, 1):.1f} "
            f"height={140 * n / top:.1f} />"
            for i, n in enumerate(self.counts)
        )
        for i, (name, value) in enumerate(self.marks):
            x = 640 * min(1.0, max(0.0, (value - self.low) / ((self.high - self.low) or 1.0)))
            anchor = "end" if x > 500 else "start"
            bars += f"<line class=axis x1={x:.1f} x2={x:.1f} y1=0 y2=150 />"
            position = f"x={x + (-4 if x > 500 else 4):.1f} y={14 + 16 * i} text-anchor={anchor}"
            bars += f"<text {position}>{html.escape(name)} {value:.2f}</text>"
        ends = f"<text x=0 y=168>{self.low:.2f}{self.unit}</text>"
        ends += f"<text x=640 y=168 text-anchor=end>{self.high:.2f}{self.unit}</text>"
        return _figure(self.title, bars + ends, 640, 175)

    def markdown(self) -> str:
        return f"{self.title}: " + ", ".join(f"{name} {value:.2f}{self.unit}" for name, value in self.marks)


@dataclass(frozen=True)
class Scatter:
    """Labeled points (label, x, y); up and to the left is better, and the best of that front are joined by a line."""

    title: str
    x: str
    y: str
    points: Sequence[tuple[str, float, float]]

    def html(self) -> str:
        xs, ys = [p[1] for p in self.points], [p[2] for p in self.points]
        right = max(xs) * 1.25 or 1.0
        pad = max((max(ys) - min(ys)) * 0.15, 1.0)
        low, high = min(ys) - pad, max(ys) + pad

        def at(x: float, y: float) -> tuple[float, float]:
            return 60 + x / right * 560, 270 - (y - low) / (high - low) * 250

        parts = ["<line class=axis x1=60 y1=270 x2=620 y2=270 /><line class=axis x1=60 y1=20 x2=60 y2=270 />"]
        digits = 0 if right > 10 else 2
        for quarter in range(5):
            tick, level = quarter * right / 4, low + quarter * (high - low) / 4
            x, y = at(tick, level)
            parts.append(f"<text x={x:.0f} y=288 text-anchor=middle>{tick:.{digits}f}</text>")
            parts.append(f"<text x=54 y={y + 4:.0f} text-anchor=end>{level:.1f}</text>")
        front = pareto_front(self.points)
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(px, py) for _, px, py in front))
        parts.append(f"<polyline class=front points='{joined}' />")
        parts += _labels([(label, *at(px, py)) for label, px, py in dict.fromkeys([*front, *self.points])])
        parts.append(f"<text x=340 y=312 text-anchor=middle>{html.escape(self.x)}</text>")
        parts.append(f"<text x=60 y=14>{html.escape(self.y)}</text>")
        return _figure(self.title, "".join(parts), 720, 320)

    def markdown(self) -> str:
        return "\n".join(f"- {label}: {self.y} {y:.2f}, {self.x} {x:.2f}" for label, x, y in self.points)


@dataclass(frozen=True)
class TrackPoint:
    """`day`: a number of days; `name`: what to call it; `low`, `high`: an interval, None where there is none."""

    day: int
    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Track:
    """Values over days, a line for each series; `limit`: a dashed line across."""

    title: str
    y: str
    series: Mapping[str, Sequence[TrackPoint]]
    limit: float | None = None

    def html(self) -> str:
        points = [point for row in self.series.values() for point in row]
        first, last = min(p.day for p in points), max(p.day for p in points)
        ends = [v for p in points for v in (p.low, p.value, p.high) if v is not None]
        ends += [] if self.limit is None else [self.limit]
        pad = max(2.0, 0.1 * (max(ends) - min(ends)))
        low, high = max(0.0, min(ends) - pad), min(100.0, max(ends) + pad)

        def at(day: float, value: float) -> tuple[float, float]:
            share = (day - first) / (last - first) if last > first else 0.5
            return 80 + share * 560, 270 - (value - low) / (high - low) * 250

        parts = ["<line class=axis x1=60 y1=270 x2=660 y2=270 /><line class=axis x1=60 y1=20 x2=60 y2=270 />"]
        for quarter in range(5):
            value = low + quarter * (high - low) / 4
            parts.append(f"<text x=54 y={at(first, value)[1] + 4:.0f} text-anchor=end>{value:.1f}</text>")
        for point in _apart(points):
            parts.append(
                f"<text x={at(point.day, low)[0]:.0f} y=288 text-anchor=middle>{html.escape(point.name)}</text>"
            )
        if self.limit is not None:
            y = at(first, self.limit)[1]
            parts.append(f"<line class=front x1=60 x2=660 y1={y:.1f} y2={y:.1f} />")
            parts.append(f"<text x=666 y={y + 4:.1f}>accepted {self.limit:.1f}</text>")
        for k, row in enumerate(self.series.values()):
            parts.append(self._line(k, [(p, *at(p.day, p.value)) for p in row], at))
        parts.append(f"<text x=60 y=14>{html.escape(self.y)}</text>")
        legend = _legend(list(self.series)) if len(self.series) > 1 else ""
        return legend + _figure(self.title, "".join(parts), 780, 296)

    def _line(
        self, k: int, row: Sequence[tuple[TrackPoint, float, float]], at: Callable[[float, float], tuple[float, float]]
    ) -> str:
        """Series number `k`: its line, its points, their intervals; series are set apart by some pixels."""
        shift = 5 * k
        joined = " ".join(f"{x + shift:.1f},{y:.1f}" for _, x, y in row)
        parts = [f"<polyline class='track c{k % SERIES}' points='{joined}' />"]
        for point, x, y in row:
            if point.low is not None and point.high is not None:
                top, bottom = at(point.day, point.high)[1], at(point.day, point.low)[1]
                span = f"x1={x + shift:.1f} x2={x + shift:.1f} y1={top:.1f} y2={bottom:.1f}"
                parts.append(f"<line class='track c{k % SERIES}' {span} />")
            parts.append(f"<rect class=s{k % SERIES} x={x + shift - 4:.1f} y={y - 4:.1f} width=8 height=8 />")
        return "".join(parts)

    def markdown(self) -> str:
        lines = [f"| | {self.y} | 95 % |", "| --- | --: | --: |"]
        for name, row in self.series.items():
            for p in row:
                span = "-" if p.low is None or p.high is None else f"{p.low:.1f} to {p.high:.1f}"
                lines.append(f"| {name} {p.name} | {p.value:.1f} | {span} |")
        return "\n".join(lines)


def _apart(points: Sequence[TrackPoint]) -> list[TrackPoint]:
    """One point a day, as many as have room for their names below the axis."""
    days = sorted({point.day: point for point in points}.values(), key=lambda point: point.day)
    step = max(1.0, (days[-1].day - days[0].day) / MOST_NAMES)
    shown: list[TrackPoint] = []
    for point in days:
        if not shown or point.day - shown[-1].day >= step:
            shown.append(point)
    return shown


def _labels(places: Sequence[tuple[str, float, float]]) -> list[str]:
    """Dots with names. A name is drawn where it fits beside its dot, the first ones first; where it does not fit, it
    is the dot's tooltip.
    """
    dots, names = [], []
    occupied = [(x - 5, y - 5, x + 5, y + 5) for _, x, y in places]
    for label, x, y in places:
        name, width = html.escape(label), NAME_PX * len(label)
        dots.append(f"<circle cx={x:.1f} cy={y:.1f} r=5><title>{name}</title></circle>")
        for left, middle in [(x + 9, y + up) for up in (0, -14, 14, -28, 28)] + [(x - 9 - width, y)]:
            box = (left, middle - 6, left + width, middle + 6)
            inside = left > 62 and left + width < 720 and 22 < middle < 264  # between the axes and the edge
            if inside and not any(_meet(box, other) for other in occupied):
                names.append(f"<text x={left:.1f} y={middle + 4:.1f}>{name}</text>")
                occupied.append(box)
                break
    return dots + names


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(names: Sequence[str]) -> str:
    return "<div class=legend>" + "".join(
        f"<span><i class=s{i % SERIES}></i>{html.escape(name)}</span>" for i, name in enumerate(names)
    ) + "</div>"  # fmt: skip


def _figure(title: str, drawing: str, width: int, height: int) -> str:
    label = html.escape(title)
    svg = f"<svg viewBox='0 0 {width} {height}' role=img aria-label='{label}'>{drawing}</svg>"
    return f"<figure><div class=wide>{svg}</div><figcaption>{label}</figcaption></figure>"
