"""A model card (Mitchell et al. 2019), drawn from a recipe and measurements; never written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeseg.report.blocks import Block, Heading, Table, Text, markdown
from edgeseg.report.comparison import compare
from edgeseg.report.page import KINDS, pipeline

Document = dict[str, Any]
POINTS = 8  # of a training curve


def card(recipe: dict[str, Any], documents: Sequence[Document]) -> str:
    """Markdown: what the model is for, what it was trained on, what was measured, what it is not for, and its lineage.

    `recipe` is resolved (Recipe.to_dict()). `documents`: a pipeline's report, or results of eval and bench and the
    JSON files that training wrote.
    """
    about = recipe["card"]
    blocks: list[Block] = [
        Heading(f"Model card: {recipe['name']}", 1),
        Text("Drawn by edgeseg from its own measurements."),
        Heading("Intended use"),
        Text(about["use"]),
        Heading("Data and license"),
        Text(_data(recipe)),
        Text(f"License of the weights: {about['license'].rstrip('.')}."),
        *_digests(documents),
        Heading("Limits"),
        Text(about["limits"]),
        *_trained([d for d in documents if "stage" in d and "history" in d]),
        Heading("Measured"),
        *_measured(documents),
        *_lineage(documents),
    ]
    return markdown(blocks)


def _data(recipe: dict[str, Any]) -> str:
    synthetic = recipe["data"].get("synthetic")
    if not synthetic:
        return f"The dataset {Path(recipe['data']['root']).name}."
    return (
        f"Rendered by edgeseg.synth.street: {synthetic['train']} training, {synthetic['val']} validation and "
        f"{synthetic['test']} test frames, seed {synthetic['seed']}; no camera and no person was involved."
    )


def _digests(documents: Sequence[Document]) -> list[Block]:
    found = [d["data"]["digests"] for d in documents if d.get("kind") == "pipeline"]
    return [Text(f"sha256 of the splits: {', '.join(f'{k} `{v[:16]}`' for k, v in row.items())}.") for row in found]


def _trained(rows: Sequence[Document]) -> list[Block]:
    """One row for each JSON file of a training stage."""
    drawn = []
    for d in rows:
        net = d["recipe"]["teacher" if d["stage"] == "teacher" else "student"]
        name = "/".join(part for part in (net["arch"], net["encoder"]) if part)
        counts = [f"{d['macs'] / 1e9:.2f}", f"{d['params'] / 1e6:.2f} M", str(len(d["history"]))]
        drawn.append([d["stage"], name, *counts, f"{100 * d['val_miou']:.2f}", f"{d['seconds'] / 60:.0f}"])
    table = Table(["stage", "net", "GMACs", "params", "epochs", "val mIoU", "minutes"], drawn)
    return [Heading("Trained"), table, *(Text(_curve(d)) for d in rows)] if rows else []


def _curve(d: Document) -> str:
    """Loss and val mIoU at up to POINTS epochs, the first and the last among them."""
    history, last = d["history"], len(d["history"]) - 1
    picked = sorted({round(i * last / (POINTS - 1)) for i in range(POINTS)})
    told = [f"{r['loss']:.2f} / {100 * r['val_miou']:.1f}" for r in (history[i] for i in picked)]
    epochs = ", ".join(str(i + 1) for i in picked)
    return f"{d['stage']}, training loss / val mIoU after epochs {epochs}: {', '.join(told)}."


def _measured(documents: Sequence[Document]) -> list[Block]:
    blocks = [block for d in documents if d.get("kind") == "pipeline" for block in pipeline(d)[1:]]
    results = [d for d in documents if d.get("kind") in ("eval", "bench", "benches")]
    blocks += [block for block in compare(results) if getattr(block, "text", "") != "At a glance"]
    if len(results) == 1:
        blocks += KINDS[results[0]["kind"]](results[0])[1:]
    machines = {d["machine"]["id"]: d["machine"] for d in results if d.get("kind") == "bench"}
    for machine in machines.values():
        versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
        blocks.append(Text(f"Speeds on {machine['cpu']}, {machine['cores']} cores, {machine['system']}; {versions}."))
    return blocks


def _lineage(documents: Sequence[Document]) -> list[Block]:
    """One row a bundle: what it is, what it was made from."""
    bundles = {d["bundle"]["digest"]: d["bundle"] for d in documents if d.get("kind") in ("eval", "bench")}
    rows = [
        [b["name"], f"`{digest[:16]}`", f"{b['parent']['file']} `{b['parent']['sha256'][:16]}`"]
        for digest, b in bundles.items()
    ]
    return [Heading("Lineage"), Table(["bundle", "sha256", "made from"], rows)] if rows else []
