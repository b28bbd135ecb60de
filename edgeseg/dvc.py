"""dvc.yaml: the stages of a recipe for DVC (https://dvc.org), which decides what runs again and stores what came out.

Each stage is a command of edgeseg and has a folder of its own, since DVC removes what a stage makes before it runs. DVC
keeps the account here, not the ledger of `edgeseg pipeline`; the networks and settings are the same.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg import target, toml
from edgeseg.files import write_bytes
from edgeseg.pipeline import bundle_name, is_of_training
from edgeseg.precision import Precision
from edgeseg.recipe import Recipe

HEAD = "# Written by edgeseg pipeline --dvc. Run it with: dvc repro\n"


@dataclass(frozen=True)
class Stage:
    """`deps`, `outs`, `metrics`: paths. `params`: keys of the recipe. `inside`: metrics that lie in one of `outs`."""

    name: str
    cmd: Sequence[str]
    deps: Sequence[str]
    outs: Sequence[str] = ()
    params: Sequence[str] = ()
    metrics: Sequence[str] = ()
    inside: Sequence[str] = ()


def write(recipe: Recipe, file: Path, out: Path, path: Path) -> None:
    """Write `path` (dvc.yaml) for the recipe in `file`, whose stages write into `out`; paths become relative to it."""
    stages = list(_Stages(recipe, file, out, path.parent).all())
    given = toml.read(file, "Recipe")
    lines = [HEAD + "stages:"]
    for stage in stages:
        params = [key for key in stage.params if key in given]
        lines += [f"  {stage.name}:", f"    cmd: {_text(shlex.join(stage.cmd))}"]
        lines += _list("deps", stage.deps)
        if params:
            lines += ["    params:", f"      - {_text(_relative(file, path.parent))}:"]
            lines += [f"          - {key}" for key in params]
        lines += _list("outs", stage.outs)
        if stage.metrics:
            lines += ["    metrics:"]
            lines += [line for name in stage.metrics for line in (f"      - {_text(name)}:", "          cache: false")]
    lines += ["metrics:", *(f"  - {_text(name)}" for stage in stages for name in stage.inside)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


class _Stages:
    """The stages of one recipe; `folder` is the one of dvc.yaml."""

    def __init__(self, recipe: Recipe, file: Path, out: Path, folder: Path):
        self.recipe, self.file, self.out = recipe, _relative(file, folder), _relative(out, folder)
        rendered = recipe.data.synthetic is not None
        self.folder = folder
        self.root = f"{self.out}/data" if rendered else _relative(recipe.resolve(recipe.data.root), folder)
        golden = recipe.targets.golden
        self.golden = golden if golden in ("", "synthetic") else _relative(recipe.resolve(golden), folder)

    def all(self) -> Iterator[Stage]:
        recipe, name = self.recipe, self.recipe.name
        if recipe.data.synthetic is not None:
            yield self._render()
        yield self._train("teacher", ["train", self.file, "--role", "teacher"], [], ["teacher"])
        yield self._train("student", ["train", self.file, "--role", "student"], [], ["student"])
        yield self._train("distilled", ["distill", self.file], ["teacher"], ["student", "distill"])
        yield self._train(
            "pruned", ["prune", self.file], ["teacher", "distilled"], ["student", "distill", "prune", "targets"]
        )
        yield self._export("pruned", f"{name}.onnx")
        if recipe.qat.epochs:
            sections = ["student", "distill", "qat", "quantize"]
            yield self._train("qat", ["qat", self.file], ["teacher", "pruned"], sections)
            yield self._export("qat", f"{name}-qat.onnx")
        for profile, precision in map(target.split, recipe.targets.compile):
            yield from self._bundle(profile, precision)

    def _render(self) -> Stage:
        data = self.recipe.data.synthetic
        assert data is not None
        height, width = self.recipe.data.size
        counts = [f"--{key}={value}" for key, value in vars(data).items()]
        cmd = ["edgeseg", "synth", self.root, *counts, f"--size={width}x{height}"]
        return Stage("render", cmd, [], [self.root], ["data"])

    def _train(self, name: str, verb: list[str], parents: list[str], sections: list[str]) -> Stage:
        """OUT/NAME/NAME.pt; the last of two parents is the student to start from."""
        given = [f"--{role}={self._checkpoint(parent)}" for role, parent in zip(("teacher", "student"), parents)]
        folder = f"{self.out}/{name}"
        cmd = ["edgeseg", *verb, *given, f"--data={self.root}", f"--out={folder}"]
        deps = [*self._data("train", "val"), *map(self._checkpoint, parents)]
        deps += [path for part in ("teacher", "student") if part in sections for path in self._starts(part)]
        return Stage(name, cmd, deps, [folder], ["seed", "data", *sections], inside=[f"{folder}/{name}.json"])

    def _export(self, stage: str, name: str) -> Stage:
        checkpoint, path = self._checkpoint(stage), f"{self.out}/{name}"
        return Stage(f"export-{stage}", ["edgeseg", "export", checkpoint, f"--out={path}"], [checkpoint], [path])

    def _bundle(self, profile: target.Target, precision: Precision) -> Iterator[Stage]:
        recipe, name = self.recipe, bundle_name(self.recipe, profile, precision)
        trained = is_of_training(recipe, profile, precision)
        model = f"{self.out}/{recipe.name}{'-qat' if trained else ''}.onnx"
        bundle = f"{self.out}/bundles/{name}"
        cmd = ["edgeseg", "compile", model, f"--target={profile.name}", f"--precision={precision.value}"]
        if precision.is_int8 and not trained:
            int8 = recipe.quantize
            cmd += [f"--calibration={self.root}", f"--calibration-frames={int8.frames}", f"--ranges={int8.ranges}"]
            cmd += ["--bias" if int8.bias else "--no-bias", *(["--equalize"] if int8.equalize else [])]
        cmd += [f"--golden={self.golden}"] if self.golden else []
        cmd += [f"--trained-on={self.root}", f"--out={bundle}"]
        deps = [model, *self._data("train")]
        yield Stage(f"compile-{name}", cmd, deps, [bundle], ["quantize", "targets"])
        scores = f"{self.out}/eval/{name}.json"
        cmd = ["edgeseg", "eval", bundle, f"--data={self.root}", f"--json={scores}"]
        yield Stage(f"eval-{name}", cmd, [bundle, *self._data("test")], metrics=[scores])

    def _starts(self, role: str) -> list[str]:
        """The files that a network starts from: a checkpoint, pretrained weights."""
        net = getattr(self.recipe, role)
        is_file = net.weights.endswith(".safetensors") or "/" in net.weights  # else the name of a download
        names = [net.init, net.weights if is_file else ""]
        return [_relative(self.recipe.resolve(name), self.folder) for name in names if name]

    def _checkpoint(self, stage: str) -> str:
        return f"{self.out}/{stage}/{stage}.pt"

    def _data(self, *splits: str) -> list[str]:
        return [f"{self.root}/{name}" for name in ("classes.txt", *splits)]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _list(key: str, values: Sequence[str]) -> list[str]:
    return [f"    {key}:", *(f"      - {_text(value)}" for value in values)] if values else []


def _text(value: str) -> str:
    """A YAML string: any string of JSON is one. DVC would read ${...} as one of its own variables."""
    return json.dumps(value.replace("${", r"\${"), ensure_ascii=False)
