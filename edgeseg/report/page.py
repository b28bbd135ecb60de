"""Reports: results (JSON) in, a page for people out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeseg.errors import FileError, unknown
from edgeseg.files import write_bytes
from edgeseg.images import read_image
from edgeseg.records import read_json
from edgeseg.report.blocks import Block, Heading, markdown, page
from edgeseg.report.blocks import Picture as PictureBlock
from edgeseg.report.comparison import compare
from edgeseg.report.drawings import DRAWINGS, draw
from edgeseg.results.common import Picture

KINDS = {str(kind.KIND): kind for kind in DRAWINGS}


def load(path: Path) -> Any:
    """The result in a JSON file, as its own type; FileError for anything else."""
    return parse(read_json(path), path)


def parse(document: Mapping[str, Any], name: object) -> Any:
    """The result in a JSON document, as its own type."""
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise FileError(f"{name} is not a result of edgeseg (kind {kind!r}).", f"Expected one of: {', '.join(KINDS)}.")
    return KINDS[kind].from_dict(document, name)


def write(results: Sequence[tuple[Path, Any]], out: Path) -> None:
    """Draw results (the path each was read from, the result) as OUT.html or OUT.md."""
    if out.suffix not in (".html", ".md"):
        raise unknown("report type", out.suffix, (".html", ".md"))
    blocks: list[Block] = [Heading("edgeseg report", 1), *compare([result for _, result in results])]
    for path, result in results:
        try:
            blocks += draw(result)
        except (LookupError, ValueError, ArithmeticError) as error:  # figures that contradict each other
            raise FileError(
                f"{path} is not a complete {result.KIND} result: {type(error).__name__} {error}.", "Measure it again."
            ) from error
        blocks += _pictures(path, getattr(result, "pictures", ()))
    text = page("edgeseg report", blocks) if out.suffix == ".html" else markdown(blocks)
    write_bytes(out, text.encode())


def _pictures(path: Path, pictures: Sequence[Picture]) -> list[Block]:
    blocks: list[Block] = []
    for row in pictures:
        file = next((p for p in (path.parent / row.file, Path(row.file)) if p.is_file()), None)
        if file is None:
            raise FileError(f"{path} names the picture {row.file}, which is gone.", "Measure it again.")
        read_image(file)  # FileError for anything that is not an image
        blocks.append(PictureBlock(row.title, file))
    return [Heading("Pictures", 3), *blocks] if blocks else []
