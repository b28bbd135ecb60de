"""A report as a list of blocks, drawn as one HTML page that works offline or as Markdown."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Table:
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Picture:
    title: str
    file: Path


@dataclass(frozen=True)
class Scatter:
    """Labelled points (label, x, y); up and to the left is better."""

    title: str
    x: str
    y: str
    points: list[tuple[str, float, float]]


Block = Heading | Text | Table | Picture | Scatter

STYLE = """
:root{--ink:#1c2430;--soft:#667;--line:#dde2ea;--accent:#0b6bcb;--bg:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa4b2;--line:#333c48;--accent:#6ab0ff;--bg:#14181e}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--bg);max-width:62rem;
margin:0 auto;padding:1rem}
h1{font-size:1.7rem;margin:.5rem 0}h2{margin:2rem 0 .5rem;font-size:1.25rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;min-width:60%}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600;font-size:.85rem}
figure{margin:1rem 0}img,svg{max-width:100%;height:auto}figcaption{color:var(--soft);font-size:.85rem}
svg text{fill:var(--ink);font-size:13px}svg .axis{stroke:var(--line)}svg circle{fill:var(--accent)}
"""


def page(title: str, blocks: list[Block]) -> str:
    """One self-contained HTML page; pictures are inlined, nothing is loaded from anywhere."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def markdown(blocks: list[Block]) -> str:
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _html(block: Block) -> str:
    def escape(text: object) -> str:
        return html.escape(str(text))

    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Table):
        head = "".join(f"<th>{escape(cell)}</th>" for cell in block.header)
        rows = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in block.rows)
        return f"<div class=wide><table><tr>{head}</tr>\n{rows}</table></div>"
    if isinstance(block, Picture):
        kind = "png" if block.file.suffix == ".png" else "jpeg"
        data = base64.b64encode(block.file.read_bytes()).decode()
        caption = f"<figcaption>{escape(block.title)}</figcaption>"
        return f"<figure><img alt='{escape(block.title)}' src='data:image/{kind};base64,{data}'>{caption}</figure>"
    return _svg(block)


def _svg(plot: Scatter) -> str:
    """Points with labels in a 640 x 320 drawing."""
    xs, ys = [p[1] for p in plot.points], [p[2] for p in plot.points]
    x0, x1 = 0.0, max(xs) * 1.25 or 1.0
    pad = (max(ys) - min(ys)) * 0.15 or 1.0
    y0, y1 = min(ys) - pad, max(ys) + pad

    def at(x: float, y: float) -> tuple[float, float]:
        return 60 + (x - x0) / (x1 - x0) * 560, 270 - (y - y0) / (y1 - y0) * 250

    parts = ["<line class=axis x1=60 y1=270 x2=620 y2=270 /><line class=axis x1=60 y1=20 x2=60 y2=270 />"]
    for i in range(5):
        (x, _), (_, y) = at(x0 + i * (x1 - x0) / 4, y0), at(x0, y0 + i * (y1 - y0) / 4)
        parts.append(f"<text x={x:.0f} y=288 text-anchor=middle>{x0 + i * (x1 - x0) / 4:.1f}</text>")
        parts.append(f"<text x=54 y={y + 4:.0f} text-anchor=end>{y0 + i * (y1 - y0) / 4:.1f}</text>")
    taken: list[tuple[float, float]] = []
    for label, px, py in sorted(plot.points, key=lambda point: point[2]):
        x, y = at(px, py)
        parts.append(f"<circle cx={x:.1f} cy={y:.1f} r=5 />")
        text_y = y + 4
        while any(abs(text_y - ty) < 14 and abs(x - tx) < 110 for tx, ty in taken):
            text_y -= 14  # a label gives way upwards to the ones below it
        taken.append((x, text_y))
        parts.append(f"<text x={x + 9:.1f} y={text_y:.1f}>{html.escape(label)}</text>")
    parts.append(f"<text x=340 y=312 text-anchor=middle>{html.escape(plot.x)}</text>")
    parts.append(f"<text x=60 y=14>{html.escape(plot.y)}</text>")
    return (
        f"<figure><svg viewBox='0 0 720 320' role=img aria-label='{html.escape(plot.title)}'>{''.join(parts)}</svg>"
        f"<figcaption>{html.escape(plot.title)}</figcaption></figure>"
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Table):
        rule = ["---"] + ["--:"] * (len(block.header) - 1)
        rows = [[str(cell).replace("|", "\\|") for cell in row] for row in [block.header, rule, *block.rows]]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    if isinstance(block, Picture):
        return f"![{block.title}]({block.file})"
    return "\n".join(f"- {label}: {plot_value(x, y, block)}" for label, x, y in block.points)


def plot_value(x: float, y: float, plot: Scatter) -> str:
    return f"{plot.y} {y:.2f}, {plot.x} {x:.2f}"
