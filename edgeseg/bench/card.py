"""A model card, drawn from a pipeline's report; never written by hand."""

from __future__ import annotations

from typing import Any

from edgeseg.bench.blocks import Block, Heading, Text, markdown
from edgeseg.bench.report import pipeline


def card(report: dict[str, Any]) -> str:
    """Markdown: what the model is, what it was trained on, what was measured, what it is not for."""
    recipe = report["recipe"]
    about = recipe["card"]
    synthetic = recipe["data"].get("synthetic")
    data = (
        f"Rendered by edgeseg.data.synthetic: {synthetic['train']} training, {synthetic['val']} validation and "
        f"{synthetic['test']} test frames, seed {synthetic['seed']}; no camera and no person was involved."
        if synthetic
        else f"{recipe['data']['root']}."
    )
    blocks: list[Block] = [
        Heading(f"Model card: {report['name']}", 1),
        Text("Drawn by `edgeseg pipeline --publish` from its own measurements."),
        Heading("Intended use"),
        Text(about["use"]),
        Heading("Data and licence"),
        Text(data),
        Text(f"Licence of the weights: {about['licence']}."),
        Text(f"sha256 of the splits: {', '.join(f'{k} `{v[:16]}`' for k, v in report['data']['digests'].items())}."),
        Heading("Measured"),
        *pipeline(report)[1:],
        Heading("Limits"),
        Text(about["limits"]),
    ]
    return markdown(blocks)
