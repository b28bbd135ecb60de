"""A model card (Mitchell et al. 2019), drawn from a recipe and measurements; never written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeseg.data.datasheet import read_datasheet
from edgeseg.recipe import Recipe
from edgeseg.report.blocks import Block, Heading, Table, Text, markdown
from edgeseg.report.comparison import compare
from edgeseg.report.drawings import by_slice, draw
from edgeseg.results.bench import BenchResult, HostsResult
from edgeseg.results.evaluation import EvalResult
from edgeseg.results.pipeline import PipelineResult
from edgeseg.results.stage import StageResult

POINTS = 8  # of a training curve


def model_card(recipe: Recipe, results: Sequence[Any]) -> str:
    """Markdown: what the model is for, what it was trained on, what was measured, what it is not for, and its lineage.

    `results`: of a pipeline; or of eval, bench and training stages.
    """
    blocks: list[Block] = [
        Heading(f"Model card: {recipe.name}", 1),
        Text("Drawn by edgeseg from its own measurements."),
        Heading("Intended use"),
        Text(recipe.card.use),
        Heading("Data and license"),
        Text(_data(recipe)),
        Text(f"License of the weights: {recipe.card.license.rstrip('.')}."),
        *_datasheet(recipe, results),
        *_digests(results),
        Heading("Limits"),
        Text(recipe.card.limits),
        *_trained([r for r in results if isinstance(r, StageResult)]),
        Heading("Measured"),
        *_measured(results),
        *_lineage(results),
    ]
    return markdown(blocks)


def _data(recipe: Recipe) -> str:
    rendered = recipe.data.synthetic
    if rendered is None:
        return f"The dataset {Path(recipe.data.root).name}."
    return (
        f"Rendered by edgeseg.synth.street: {rendered.train} training, {rendered.val} validation and "
        f"{rendered.test} test frames, seed {rendered.seed}; no camera and no person was involved."
    )


def _datasheet(recipe: Recipe, results: Sequence[Any]) -> list[Block]:
    """Of the dataset that a pipeline trained on; without a pipeline, of the recipe's as it is now."""
    trained_on = [r.data.datasheet for r in results if isinstance(r, PipelineResult)]
    if not trained_on and recipe.data.root:
        trained_on = [read_datasheet(recipe.resolve(recipe.data.root))]
    sheets = dict.fromkeys(sheet for sheet in trained_on if sheet)
    rows = [line.split(": ", 1) for sheet in sheets for line in sheet.lines()]
    return [Table(["data", "stated by its owner"], rows, text=True)] if rows else []


def _digests(results: Sequence[Any]) -> list[Block]:
    splits = [r.data.digests for r in results if isinstance(r, PipelineResult)]
    return [Text(f"sha256 of the splits: {', '.join(f'{k} `{v[:16]}`' for k, v in row.items())}.") for row in splits]


def _trained(stages: Sequence[StageResult]) -> list[Block]:
    """One row for each training stage."""
    rows = []
    for d in stages:
        net = d.recipe["teacher" if d.stage == "teacher" else "student"]
        name = "/".join(part for part in (net["arch"], net["encoder"]) if part)
        counts = [f"{d.macs / 1e9:.2f}", f"{d.params / 1e6:.2f} M", str(len(d.history))]
        rows.append([d.stage, name, *counts, f"{100 * d.val_miou:.2f}", f"{d.seconds / 60:.0f}"])
    table = Table(["stage", "net", "GMACs", "params", "epochs", "val mIoU", "minutes"], rows)
    return [Heading("Trained"), table, *(Text(_curve(d)) for d in stages)] if stages else []


def _curve(d: StageResult) -> str:
    """Loss and val mIoU at up to POINTS epochs, the first and the last among them."""
    last = len(d.history) - 1
    chosen = sorted({round(i * last / (POINTS - 1)) for i in range(POINTS)})
    figures = [f"{r.loss:.2f} / {100 * r.val_miou:.1f}" for r in (d.history[i] for i in chosen)]
    epochs = ", ".join(str(i + 1) for i in chosen)
    return f"{d.stage}, training loss / val mIoU after epochs {epochs}: {', '.join(figures)}."


def _measured(results: Sequence[Any]) -> list[Block]:
    blocks = [block for r in results if isinstance(r, PipelineResult) for block in draw(r)[1:]]
    measured = [r for r in results if isinstance(r, (EvalResult, BenchResult, HostsResult))]
    blocks += [block for block in compare(measured) if getattr(block, "text", "") != "At a glance"]
    if len(measured) == 1:
        blocks += draw(measured[0])[1:]
    else:
        blocks += [block for r in measured if isinstance(r, EvalResult) for block in by_slice(r.slices)]
    machines = {r.machine.id: r.machine for r in measured if isinstance(r, BenchResult) and r.machine}
    for machine in machines.values():
        versions = ", ".join(f"{k} {v}" for k, v in machine.versions.items())
        blocks.append(Text(f"Speeds on {machine.cpu}, {machine.cores} cores, {machine.system}; {versions}."))
    return blocks


def _lineage(results: Sequence[Any]) -> list[Block]:
    """One row a bundle: its digest and the model it was compiled from."""
    bundles = {r.bundle.digest: r.bundle for r in results if isinstance(r, (EvalResult, BenchResult)) and r.bundle}
    rows = [
        [b.name, f"`{digest[:16]}`", f"{b.parent.file} `{b.parent.sha256[:16]}`" if b.parent else "-"]
        for digest, b in bundles.items()
    ]
    return [Heading("Lineage"), Table(["bundle", "sha256", "made from"], rows)] if rows else []
