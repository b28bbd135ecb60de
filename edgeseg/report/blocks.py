"""A report as a list of blocks, drawn as one HTML page that works offline or as Markdown."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeseg.report import charts


class Block(Protocol):
    """Something a report can show."""

    def html(self) -> str: ...
    def markdown(self) -> str: ...


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2

    def html(self) -> str:
        return f"<h{self.level}>{html.escape(self.text)}</h{self.level}>"

    def markdown(self) -> str:
        return f"{'#' * self.level} {self.text}"


@dataclass(frozen=True)
class Text:
    """A paragraph; `strong` for the one that must not be missed."""

    text: str
    strong: bool = False

    def html(self) -> str:
        return f"<p{' class=strong' if self.strong else ''}>{html.escape(self.text)}</p>"

    def markdown(self) -> str:
        return f"**{self.text}**" if self.strong else self.text


@dataclass(frozen=True)
class Table:
    """`text`: cells are words and not figures: set left, the last column wrapped."""

    header: list[str]
    rows: list[list[str]]
    text: bool = False

    def html(self) -> str:
        head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in self.header)
        rows = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in self.rows
        )
        return f"<div class=wide><table{' class=text' if self.text else ''}><tr>{head}</tr>\n{rows}</table></div>"

    def markdown(self) -> str:
        rule = ["---"] + ["--:"] * (len(self.header) - 1)
        rows = [[str(cell).replace("|", "\\|") for cell in row] for row in [self.header, rule, *self.rows]]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@dataclass(frozen=True)
class Picture:
    title: str
    file: Path

    def html(self) -> str:
        kind = "png" if self.file.suffix == ".png" else "jpeg"
        data = base64.b64encode(self.file.read_bytes()).decode()
        title = html.escape(self.title)
        image = f"<img alt='{title}' src='data:image/{kind};base64,{data}'>"
        return f"<figure><div class=wide>{image}</div><figcaption>{title}</figcaption></figure>"

    def markdown(self) -> str:
        return f"![{self.title}]({self.file})"


STYLE = """
:root{--ink:#1c2430;--soft:#667;--line:#dde2ea;--accent:#0b6bcb;--bg:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa4b2;--line:#333c48;--accent:#6ab0ff;--bg:#14181e}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--bg);max-width:62rem;
margin:0 auto;padding:1rem}
h1{font-size:1.7rem;margin:.5rem 0}h2{margin:2rem 0 .5rem;font-size:1.25rem}h3{margin:1.2rem 0 .3rem;font-size:1.05rem}
.strong{font-weight:600;border-left:.25rem solid var(--accent);padding-left:.7rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;min-width:60%}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600;font-size:.85rem}
.text th,.text td{text-align:left;vertical-align:top}.text td:last-child{white-space:normal}
figure{margin:1rem 0}img{min-width:46rem;max-width:100%;height:auto}svg{min-width:34rem;max-width:46rem;width:100%}
figcaption{color:var(--soft);font-size:.85rem}
svg text{fill:var(--ink);font-size:13px}svg .axis{stroke:var(--line)}svg circle{fill:var(--accent)}
svg .front{fill:none;stroke:var(--accent);stroke-dasharray:4 4}
"""


def page(title: str, blocks: Sequence[Block]) -> str:
    """One self-contained HTML page; pictures are inlined, nothing is loaded from anywhere."""
    body = "\n".join(block.html() for block in blocks)
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}{charts.STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(block.markdown() for block in blocks) + "\n"
