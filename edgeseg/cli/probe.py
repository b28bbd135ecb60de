"""What `compile --probe` prints: which normalization a network was probably trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.cli.common import emit, percent, results, status, styled, table, wrote
from edgeseg.errors import OptionError

if TYPE_CHECKING:
    from edgeseg.images import Image
    from edgeseg.results.probe import ProbeResult, ProbeRow

FRAMES = 8
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def probe_normalization(
    model: Path, source: Path, overrides: Mapping[str, object], output: str, sheet_to: Path | None, json_to: str | None
) -> None:
    """Try the common normalizations on frames of `source`; `sheet_to`: a picture of the masks."""
    from edgeseg.compile import spec_of
    from edgeseg.images import write_image
    from edgeseg.probe import probe, sheet

    if sheet_to and sheet_to.suffix.lower() not in PICTURES:
        raise OptionError(
            f"With --probe, --out is a picture of the masks, and {sheet_to} is none.",
            f"Give a file that ends in {', '.join(PICTURES)}; without --out only the table is shown.",
        )
    frames = _frames(source)
    spec, _ = spec_of(model, overrides, output)
    with status(f"probing {model.name}") as update:
        probed = probe(model, spec, frames, output, "color" not in overrides, update)
    _show(probed.result, json_to)
    if sheet_to:
        write_image(sheet_to, sheet(probed, spec, frames))
        wrote(sheet_to)
    emit(probed.result, json_to)


def _frames(source: Path) -> list[Image]:
    """A few frames, spread over a folder of images or the train split of a dataset; or one image."""
    from edgeseg.images import list_images, read_image

    if source.is_file():
        return [read_image(source)]
    if (source / "classes.txt").is_file():
        source = source / "train" / "images"
    files = list_images(source)
    chosen = np.linspace(0, len(files) - 1, min(FRAMES, len(files))).astype(int)
    return [read_image(files[i]) for i in chosen]


def _show(result: ProbeResult, json_to: str | None) -> None:
    shown = table(
        f"{result.model} on {result.frames} frames",
        "normalization",
        "color",
        "confidence",
        "stability",
        "classes",
        "score",
    )
    for i, row in enumerate(result.rows):
        figures = percent(row.confidence), percent(row.stability), f"{row.classes:.1f}", percent(row.score)
        shown.add_row(row.name, row.color, *figures, style="" if i else "bold")
    out = results(json_to)
    out.print(shown)
    best = result.rows[0]
    if len(result.rows) > 1:
        ahead = f"ahead of the next one on {result.ahead} of {result.frames} frames"
        verdict = styled("undecided", "yellow") if result.close else styled("most likely", "green")
        out.print(verdict.append(f": {best.name}, {best.color}, {ahead}"))
    out.print(f"compile it with: {_flags(best)}")


def _flags(row: ProbeRow) -> str:
    mean, std = (",".join(f"{value:.7g}" for value in values) for values in (row.mean, row.std))
    return f"--color {row.color} --mean {mean} --std {std}"
