"""MLflowRun: parameters, metrics and tags of one run in MLflow, an optional package; and accuracy in the field as one.

Where to: the server that MLflow's own environment variables name, or else FOLDER/mlflow.db (SQLite).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timezone
from pathlib import Path
from typing import Any

from edgeseg.errors import MissingPackage
from edgeseg.results.accuracy import AccuracyResult, SampleScore

RUN_FILE = "mlflow-run.txt"
LONGEST_TAG = 5000  # characters that every release of MLflow takes


def require_mlflow(job: str) -> Any:
    """The module mlflow; MissingPackage where it is not installed."""
    try:
        importlib.import_module("sqlalchemy")  # mlflow-skinny leaves it out, SQLite needs it
        return importlib.import_module("mlflow")
    except ImportError as error:
        raise MissingPackage("mlflow-skinny", job, "mlflow") from error


class MLflowRun:
    """An open run, until end(). FOLDER/RUN_FILE names it, so that it is continued; `settings` are the parameters of a
    new one. MissingPackage, which says what `job` needs it, without the package."""

    def __init__(self, folder: Path, title: str, settings: Mapping[str, Any], job: str, run_file: str = RUN_FILE):
        self._mlflow = require_mlflow(job)
        if not self._mlflow.is_tracking_uri_set():
            folder.mkdir(parents=True, exist_ok=True)
            self._mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        known = folder / run_file
        run = self._mlflow.start_run(run_id=known.read_text() if known.is_file() else None, run_name=title)
        if not known.is_file():
            known.write_text(run.info.run_id)
            self._mlflow.log_params(dict(settings))

    def log(self, values: Mapping[str, float], step: int, milliseconds: int | None = None) -> None:
        """Metrics at a step. `milliseconds`: since 1970, now if not given."""
        self._mlflow.log_metrics(dict(values), step=step, timestamp=milliseconds)

    def tag(self, values: Mapping[str, str]) -> None:
        """Set tags; longer texts are cut."""
        self._mlflow.set_tags({key: value[:LONGEST_TAG] for key, value in values.items()})

    def end(self, failed: bool = False) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


@contextmanager
def continued(folder: Path, job: str) -> Iterator[MLflowRun | None]:
    """The run that a training in `folder` has written; None where there is none."""
    run = MLflowRun(folder, "", {}, job) if (folder / RUN_FILE).is_file() else None
    try:
        yield run
    finally:
        if run:
            run.end()


def log_accuracy(result: AccuracyResult, folder: Path) -> None:
    """One run for a bundle, in `folder`: mIoU with its interval of each camera, a step a day (its ordinal number)."""
    bundle = result.bundle
    settings = {"bundle": bundle.name, "digest": bundle.digest, "target": bundle.target, "precision": bundle.precision}
    run_file = f"mlflow-accuracy-{bundle.digest[:12]}.txt"
    run = MLflowRun(folder, f"accuracy of {bundle.name}", settings, "--mlflow", run_file)
    failed = True
    try:
        for row in result.windows:
            day = date.fromisoformat(row.begin)
            noon = int(datetime.combine(day, time(12), timezone.utc).timestamp() * 1000)
            values = _values(row.camera, "all", row.all)
            values |= _values(row.camera, "random", row.random) if row.random else {}
            run.log(values, day.toordinal(), noon)
        run.tag({"edgeseg.verdict": result.verdict, "edgeseg.frames": str(result.known)})
        failed = False
    finally:
        run.end(failed)


def _values(camera: str, sample: str, score: SampleScore) -> dict[str, float]:
    name = f"{re.sub(r'[^A-Za-z0-9_. -]', '-', camera)}/{sample}"
    values: dict[str, float] = {f"{name}/frames": score.frames}
    if score.miou is not None:
        values[f"{name}/miou"] = score.miou
    if score.interval is not None:
        values[f"{name}/low"], values[f"{name}/high"] = score.interval
    return values
