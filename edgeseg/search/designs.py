"""Designs of a student: what an architecture search may choose, and the order in which it tries them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from edgeseg.errors import EdgesegError, MissingPackage, OptionError
from edgeseg.files import alone
from edgeseg.precision import Precision
from edgeseg.recipe import Recipe

ARCHS = ("lite", "liteseg", "ddrnet")  # with channels that scale, and no encoder that must be downloaded
WIDTHS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5)
WIDEST = (0.1, 16.0)  # what a recipe may say
SCALES = (0.5, 0.625, 0.75, 0.875, 1.0)  # of the recipe's input size
STRIDE = 32
SAMPLERS = ("guided", "random")
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Design:
    """A student: family, width of its channels, input size, and the precision it is compiled in."""

    arch: str
    width: float
    height: int
    input_width: int
    precision: Precision

    @property
    def name(self) -> str:
        return f"{self.arch}-{self.width:g}-{self.input_width}x{self.height}-{self.precision}"

    def applied_to(self, recipe: Recipe) -> Recipe:
        """The recipe with this student in place of its own."""
        own = recipe.student
        same = own.arch == self.arch
        student = replace(
            own,
            arch=self.arch,
            width=self.width,
            encoder=own.encoder if same else "",
            weights=own.weights if same else "",
        )
        return replace(recipe, student=student, data=replace(recipe.data, size=(self.height, self.input_width)))


@dataclass(frozen=True)
class Space:
    """What may be chosen: every combination is a design. `own`: the recipe's student, which is always measured."""

    archs: tuple[str, ...]
    widths: tuple[float, ...]
    sizes: tuple[tuple[int, int], ...]
    precisions: tuple[Precision, ...]
    own: Design

    @classmethod
    def of(
        cls, recipe: Recipe, precisions: Sequence[Precision], archs: Sequence[str] = (), widths: Sequence[float] = ()
    ) -> Space:
        """The families `archs` (by default ARCHS, or the student's alone where it has an encoder) at `widths`, from
        half the recipe's input size to all of it. OptionError where nothing is left."""
        student, (height, width) = recipe.student, recipe.data.size
        families = tuple(archs) or ((student.arch,) if student.encoder else ARCHS)
        sizes = sorted({(_rounded(height * scale), _rounded(width * scale)) for scale in SCALES})
        if wrong := next((each for each in widths if not WIDEST[0] <= each <= WIDEST[1]), None):
            raise OptionError(f"Width {wrong:g} cannot be built.", f"Expected {WIDEST[0]:g} to {WIDEST[1]:g}.")
        if not precisions:
            raise OptionError("The search space is empty: no precision.", "Name one that the target has: --precision.")
        own = Design(student.arch, student.width, height, width, precisions[-1])
        return cls(families, tuple(widths) or WIDTHS, tuple(sizes), tuple(precisions), own)

    def suggest(self, trial: Any) -> Design:
        """One of them, by a trial of Optuna."""
        size = trial.suggest_categorical("size", [f"{w}x{h}" for h, w in self.sizes])
        width, height = (int(side) for side in size.split("x"))
        index = trial.suggest_int("width", 0, len(self.widths) - 1)
        precision = Precision.parse(trial.suggest_categorical("precision", [str(p) for p in self.precisions]))
        return Design(trial.suggest_categorical("arch", list(self.archs)), self.widths[index], height, width, precision)


@dataclass(frozen=True)
class Measured:
    """`ms`: median latency; `miou`: 0..1 on the validation frames, None where the design was too slow to be trained."""

    ms: float
    miou: float | None
    seconds: float


def explore(
    space: Space,
    folder: Path,
    sampler: str,
    count: int,
    limit_ms: float | None,
    seed: int,
    measure: Callable[[Design], Measured],
    log: Callable[[str], None],
) -> list[tuple[Design, Measured]]:
    """`count` trials of one sampler, in order; several processes with the same `folder` share them.

    `guided`: a multi-objective tree of Parzen estimators (Ozaki et al. 2022) in which designs slower than `limit_ms`
    are infeasible; `random`: every design alike. What a process that was killed had begun is begun again.
    """
    study = _study(folder, sampler, seed, count)
    _requeue_abandoned(study, folder)
    while len(_finished(study)) < count:
        trial = study.ask()
        with alone(_lock(folder, sampler, trial.number), EdgesegError("")):
            design = space.suggest(trial)
            log(f"{sampler} {trial.number + 1} of {count}: {design.name}")
            found = measure(design)
            trial.set_user_attr("design", asdict(design))
            trial.set_user_attr("measured", asdict(found))
            trial.set_constraint("latency", found.ms - limit_ms if limit_ms else 0.0)
            study.tell(trial, [found.miou or 0.0, found.ms])
        _requeue_abandoned(study, folder)
    return [_read(done) for done in _finished(study)[:count]]


def _read(trial: Any) -> tuple[Design, Measured]:
    """What `explore` noted of a trial that is finished."""
    noted = [trial.user_attrs[key] for key in ("design", "measured")]
    return msgspec.convert(noted, tuple[Design, Measured])


def shared(folder: Path, design: Design, work: Callable[[], Measured]) -> Measured:
    """`work`, by one process at a time for each design; the others wait for it and find it done."""
    while True:
        try:
            with alone(folder / f"{design.name}.lock", _Busy("")):
                return work()
        except _Busy:
            time.sleep(POLL_SECONDS)


def _rounded(side: float) -> int:
    """To a multiple of STRIDE, which the deepest stage needs."""
    return max(STRIDE, round(side / STRIDE) * STRIDE)


class _Busy(EdgesegError):
    pass


def _study(folder: Path, sampler: str, seed: int, count: int) -> Any:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise MissingPackage("optuna", "Searching for a student", "search") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    storage = JournalStorage(JournalFileBackend(str(folder / "trials.journal")))
    known = [s for s in optuna.study.get_all_study_summaries(storage) if s.study_name == sampler]
    seed = 1000 * seed + (known[0].n_trials if known else 0)  # or a resumed search would draw the same ones again
    kind = (
        optuna.samplers.RandomSampler(seed=seed + 500)
        if sampler == "random"
        else optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=max(3, count // 3))
    )
    return optuna.create_study(
        storage=storage, study_name=sampler, sampler=kind, directions=["maximize", "minimize"], load_if_exists=True,
    )  # fmt: skip


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def _requeue_abandoned(study: Any, folder: Path) -> None:
    """Trials whose process is gone fail, and their designs are tried next."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.RUNNING:
            continue
        try:
            with alone(_lock(folder, study.study_name, trial.number), _Busy("")):
                study.tell(trial.number, state=TrialState.FAIL)
                if trial.params:
                    study.enqueue_trial(trial.params)
        except (_Busy, ValueError):  # it lives, or another process was faster
            continue


def _lock(folder: Path, sampler: str, number: int) -> Path:
    return folder / f"{sampler}-{number}.lock"
