"""zones: the zones of a rules file as a picture."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import console, results, table, wrote
from edgeseg.errors import StreamError

if TYPE_CHECKING:
    from edgeseg.images import Image

app = typer.Typer()
log = logging.getLogger(__name__)
WAIT_SECONDS = 30.0


@app.command(rich_help_panel=options.RUN, epilog="Example: edgeseg zones clip.mp4 --rules zones.toml --out zones.png")
def zones(
    source: Annotated[str, typer.Argument(help="Where the frame comes from, as for run --source.", show_default=False)],
    rules: Annotated[Path, typer.Option(help="Zones and rules (TOML).", metavar="FILE", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write.")] = Path("zones.png"),
    stream: Annotated[str, typer.Option(help="Only the zones of the stream of this name.")] = "",
) -> None:
    """Draw the zones of a rules file over the first frame of a source: for whoever draws them.

    See docs/events.md.
    """
    from edgeseg.images import write_image
    from edgeseg.stream.events.picture import draw
    from edgeseg.stream.events.rules import load

    loaded = load(rules)
    own = loaded.of(stream) if stream else loaded
    image = _first_frame(source)
    if mismatch := own.mismatch(*image.shape[:2]):
        log.warning("%s They are stretched to it.", mismatch)
    write_image(out, draw(image, tuple(own.zones.values())))
    shown = table("", "rule", "begins when", "ends when")
    for rule in own.rules:
        shown.add_row(rule.name, rule.text, f"{rule.clear} for {rule.clear_seconds:g} s")
    results().print(shown)
    wrote(out)


def _first_frame(uri: str) -> Image:
    from edgeseg.stream import sources

    until = time.monotonic() + WAIT_SECONDS
    with sources.open(uri) as source, console.status("waiting for a frame"):
        while time.monotonic() < until:
            frame = source.read(0.5)
            if frame is not None:
                return frame.image
    raise StreamError(f"{source.name} gave no frame for {WAIT_SECONDS:g} s.", "Is the camera on?")
