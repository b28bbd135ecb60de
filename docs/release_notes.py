"""Name a model's release by version and mIoU, and write its notes: python docs/release_notes.py BUNDLE

The first line is the tag, the rest are the notes: what the bundle's manifest says was measured, and the newest section
of CHANGELOG.md. The tag does not begin with v, so that it publishes no packages (.github/workflows/release.yml).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from edgeseg import __version__
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, EdgesegError

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def tag_and_notes(path: Path, changelog: str) -> tuple[str, str]:
    """NAME-VERSION-miouNN.NN, and Markdown; BundleError for a bundle whose accuracy was not measured."""
    bundle = Bundle.load(path)
    measured, parent = bundle.manifest.metrics, bundle.manifest.parent
    if measured is None or measured.miou is None:
        raise BundleError(f"Bundle {path} holds no measured mIoU.", "Compile it with --data DATASET.")
    miou = f"{100 * measured.miou:.2f}"
    rows = [("target", f"{bundle.target}, {bundle.precision.value}"), ("sha256 of bundle.json", f"`{bundle.digest}`"),
            ("mIoU", f"{miou} % on {measured.frames} frames ({measured.data} {measured.split})"),
            ("pixel accuracy", f"{100 * measured.pixel_accuracy:.2f} %")]  # fmt: skip
    rows += [("made from", f"{parent.file} `{parent.sha256}`")] if parent else []
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    changes = re.search(r"^## .*?(?=^## |\Z)", changelog, re.M | re.S)
    notes = f"# {bundle.name} {__version__}\n\n| | |\n|---|---|\n{table}\n\n{changes[0] if changes else ''}"
    return f"{bundle.name}-{__version__}-miou{miou}", notes.rstrip() + "\n"


if __name__ == "__main__":
    try:
        tag, text = tag_and_notes(Path(sys.argv[1]), CHANGELOG.read_text())
    except EdgesegError as error:
        sys.exit(str(error))
    print(tag, text, sep="\n", end="")
