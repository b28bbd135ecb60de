"""edgeseg accuracy: labeled frames of the field against a real bundle, its history, its verdicts and its pictures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.data.dataset import Classes
from edgeseg.errors import EdgesegError, FileError
from edgeseg.images import write_image
from edgeseg.labeling.history import History, HistoryHead
from edgeseg.runtime import open_segmenter

Edgeseg = Callable[..., Any]
DAY = 86400.0
START = 1.78e9 - 1.78e9 % DAY
NAMES = tiny.SPEC.classes


def frame(seed: int) -> np.ndarray:
    return tiny.frames(1, seed=seed)[0]


@pytest.fixture(scope="module")
def truth(bundle: Path) -> Callable[[int], np.ndarray]:
    """truth(seed): what the bundle itself sees, so that labels can be right or wrong by as much as a test wants."""
    known: dict[int, np.ndarray] = {}
    with open_segmenter(bundle) as segmenter:
        for seed in range(60):
            known[seed] = segmenter(frame(seed)).classmap.copy()
    return lambda seed: known[seed]


def spoiled(mask: np.ndarray, rows: int) -> np.ndarray:
    """Labels that disagree with the bundle in the first `rows` of 64 rows."""
    mask = mask.copy()
    mask[:rows] = (mask[:rows] + 1) % len(NAMES)
    return mask


def field(root: Path, truth: Callable[[int], np.ndarray], rows: list[dict[str, Any]], start: int = 0) -> Path:
    """A labeled dataset with the records of collect. A row: `wrong` (rows of labels), `camera`, `time`, `why`."""
    lines = []
    for seed, row in enumerate(rows, start):
        name = f"f{seed:03d}"
        write_image(root / "train" / "images" / f"{name}.png", frame(seed))
        write_image(root / "train" / "masks" / f"{name}.png", spoiled(truth(seed), row.get("wrong", 0)))
        if "why" in row:
            lines.append({"name": name, "stream": row["camera"], "time": row["time"], "why": row["why"]})
    (root / "classes.txt").write_text(Classes(NAMES, tiny.SPEC.palette, 255).text())
    if lines:
        with (root / "collected.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    return root


def rows_of(
    count: int, camera: str = "gate", why: str = "random", wrong: int = 0, day: int = 0
) -> list[dict[str, Any]]:
    """Frames of one day, an hour apart."""
    return [
        {"camera": camera, "time": START + day * DAY + i * 3600, "why": {why: 1.0}, "wrong": wrong}
        for i in range(count)
    ]


def result(ran: Any) -> dict[str, Any]:
    return json.loads(ran.out)


def test_frames_are_scored_once_and_again_when_their_labels_are_corrected(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    labels = field(tmp_path / "d", truth, rows_of(12, wrong=32))
    words = ("accuracy", bundle, "--labels", labels, "--history", tmp_path / "h.jsonl", "--json", "-")
    first = result(edgeseg(*words))
    assert (first["new"], first["replaced"], first["known"]) == (12, 0, 12)
    assert first["all"]["frames"] == 12 and 0 < first["all"]["miou"] < 0.6
    again = result(edgeseg(*words))
    assert again["new"] == 0 and again["known"] == 12 and again["all"] == first["all"]
    for seed in range(12):
        write_image(labels / "train" / "masks" / f"f{seed:03d}.png", truth(seed))
    fixed = result(edgeseg(*words))
    assert (fixed["new"], fixed["replaced"], fixed["known"]) == (12, 12, 12) and fixed["all"]["miou"] == 1
    assert len((tmp_path / "h.jsonl").read_text().splitlines()) == 1 + 24
    field(labels, truth, rows_of(12, day=1), start=12)
    more = result(edgeseg(*words))
    assert (more["new"], more["known"]) == (12, 24)
    days = [(row["camera"], row["begin"], row["random"]["frames"]) for row in more["windows"]]
    assert days == [("gate", "2026-05-28", 12), ("gate", "2026-05-29", 12)]
    weeks = result(edgeseg(*words, "--window", "week"))["windows"]
    assert [(row["begin"], row["all"]["frames"]) for row in weeks] == [("2026-05-25", 24)]


def test_a_run_that_is_cut_off_goes_on_where_it_was(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    labels = field(tmp_path / "d", truth, rows_of(12, wrong=8))
    history = tmp_path / "h.jsonl"
    words = ("accuracy", bundle, "--labels", labels, "--history", history, "--json", "-")
    whole = result(edgeseg(*words))
    lines = history.read_bytes().splitlines(keepends=True)
    history.write_bytes(b"".join(lines[:6]) + lines[6][:40])  # a power cut in the middle of a line
    rest = result(edgeseg(*words))
    assert rest["new"] == 7 and rest["all"] == whole["all"] and history.read_bytes().count(b"\n") == 13


def test_the_frames_drawn_at_random_decide(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    good = field(tmp_path / "good", truth, [*rows_of(12), *rows_of(12, why="uncertain", wrong=48)])
    ran = edgeseg("accuracy", bundle, "--labels", good, "--min-miou", "90", "--json", "-")
    found = result(ran)
    assert ran.code == 0 and found["verdict"] == "pass"
    camera = found["cameras"][0]
    assert camera["random"]["miou"] == 1 and camera["random"]["frames"] == 12 and camera["all"]["miou"] < 0.7
    assert "chosen because the model is unsure" in found["notes"][0]
    bad = field(tmp_path / "bad", truth, [*rows_of(12, wrong=48), *rows_of(12, why="uncertain")])
    ran = edgeseg("accuracy", bundle, "--labels", bad, "--min-miou", "90", "--json", "-")
    assert ran.code == 1 and result(ran)["cameras"][0]["verdict"] == "fail"
    chosen = field(tmp_path / "chosen", truth, rows_of(20, why="uncertain"))
    ran = edgeseg("accuracy", bundle, "--labels", chosen, "--min-miou", "90", "--json", "-")
    assert ran.code == 3 and result(ran)["cameras"][0]["text"] == "no frame of it was drawn at random"
    assert "Collect with random=" in result(ran)["notes"][0]


def test_too_few_frames_decide_nothing(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    few = field(tmp_path / "few", truth, rows_of(9, wrong=60))
    ran = edgeseg("accuracy", bundle, "--labels", few, "--min-miou", "90")
    assert ran.code == 3 and "9 of 10 frames, apart in time, that an interval takes" in ran.out
    second = [{"camera": "gate", "time": START + i, "why": {"random": 1.0}, "wrong": 60} for i in range(20)]
    alike = field(tmp_path / "alike", truth, second)  # twenty seconds of one scene
    ran = edgeseg("accuracy", bundle, "--labels", alike, "--min-miou", "90")
    assert ran.code == 3 and "1 of 10 frames, apart in time" in ran.out
    ran = edgeseg("accuracy", bundle, "--labels", alike, "--min-miou", "90", "--block", "0.5")
    assert ran.code == 1


def test_a_camera_that_fell_lately_fails_and_the_others_do_not(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    rows = [*rows_of(15), *rows_of(15, "yard"), *rows_of(12, wrong=48, day=40), *rows_of(12, "yard", day=40)]
    labels = field(tmp_path / "d", truth, rows)
    ran = edgeseg("accuracy", bundle, "--labels", labels, "--min-miou", "80", "--recent", "7", "--json", "-")
    found = result(ran)
    assert ran.code == 1 and {c["camera"]: c["verdict"] for c in found["cameras"]} == {"gate": "fail", "yard": "pass"}
    assert [c["all"]["frames"] for c in found["cameras"]] == [12, 12] and len(found["windows"]) == 4
    low, high = found["cameras"][0]["random"]["interval"]
    assert low <= found["cameras"][0]["random"]["miou"] <= high < 0.8


def test_without_records_a_dataset_is_taken_as_it_is(edgeseg: Edgeseg, bundle: Path, street: Path) -> None:
    ran = edgeseg("accuracy", bundle, "--labels", street, "--min-miou", "95", "--json", "-")
    found = result(ran)
    assert ran.code == 1 and found["known"] == 18 and found["random"] is None and not found["windows"]
    assert found["cameras"][0]["camera"] == "main" and "not known how the frames were chosen" in found["notes"][0]
    assert "no accepted level, so no verdict" in edgeseg("accuracy", bundle, "--labels", street).out
    wrong = edgeseg("accuracy", bundle, "--labels", street, "--window", "month")
    assert wrong.code == 2 and "Unknown window 'month'" in wrong.err
    unlimited = edgeseg("accuracy", bundle, "--labels", street, "--json", "-")  # this bundle was never evaluated
    assert unlimited.code == 0 and result(unlimited)["limit"] is None and result(unlimited)["verdict"] == ""
    same = result(edgeseg("eval", bundle, "--data", street, "--split", "train", "--json", "-"))
    assert same["frames"] == 12


def test_figures_are_those_of_eval(edgeseg: Edgeseg, bundle: Path, street: Path, tmp_path: Path) -> None:
    only = tmp_path / "only"
    shutil.copytree(street / "train", only / "train")
    shutil.copyfile(street / "classes.txt", only / "classes.txt")
    found = result(edgeseg("accuracy", bundle, "--labels", only, "--json", "-"))
    expected = result(edgeseg("eval", bundle, "--data", street, "--split", "train", "--json", "-"))
    assert found["all"]["miou"] == pytest.approx(expected["miou"], abs=1e-6)
    (low, high), inner = found["all"]["interval"], expected["interval"]["miou"]
    assert low <= inner[0] < inner[1] <= high and high - low < 1.6 * (inner[1] - inner[0])  # wider: they are few


def test_the_level_is_that_of_the_bundles_own_evaluation(
    edgeseg: Edgeseg, network: Path, street: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    assert edgeseg("compile", network, "-o", tmp_path / "b", "--data", street).code == 0
    labels = field(tmp_path / "d", truth, rows_of(12))
    ran = edgeseg("accuracy", tmp_path / "b", "--labels", labels, "--max-drop", "1", "--json", "-")
    stored = json.loads((tmp_path / "b" / "bundle.json").read_text())["metrics"]["miou"]
    assert ran.code == 0 and result(ran)["limit"] == pytest.approx(stored - 0.01)
    assert result(ran)["limit_from"] == f"1 points below {100 * stored:.1f} on street"


def test_what_was_drawn_and_never_labeled_is_said(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    labels = field(tmp_path / "d", truth, rows_of(12))
    for seed in (3, 4):
        (labels / "train" / "images" / f"f{seed:03d}.png").unlink()
    ran = edgeseg("accuracy", bundle, "--labels", labels)
    assert "2 frames that were drawn at random are not labeled" in ran.out


def test_a_frame_that_was_chosen_and_drawn_counts_as_drawn(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    labels = field(tmp_path / "d", truth, rows_of(12, why="uncertain"))
    words = ("accuracy", bundle, "--labels", labels, "--history", tmp_path / "h.jsonl", "--json", "-")
    assert result(edgeseg(*words))["random"] is None
    for kind in ("images", "masks"):  # the same picture under another name
        shutil.copyfile(labels / "train" / kind / "f003.png", labels / "train" / kind / "g003.png")
    with (labels / "collected.jsonl").open("a") as file:
        file.write(json.dumps({"name": "g003", "stream": "gate", "time": START, "why": {"random": 1.0}}) + "\n")
    found = result(edgeseg(*words))
    assert found["known"] == 12 and found["random"]["frames"] == 1 and found["new"] == 0
    write_image(labels / "train" / "masks" / "g003.png", spoiled(truth(3), 9))  # and somebody labeled them differently
    assert result(edgeseg(*words))["replaced"] == 1
    again = result(edgeseg(*words))
    assert again["new"] == 0 and again["random"]["frames"] == 1 and again["random"]["miou"] < 1


def test_labels_that_do_not_fit_are_named_and_the_rest_counts(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    labels = field(tmp_path / "d", truth, rows_of(13))
    write_image(labels / "train" / "masks" / "f001.png", np.zeros((10, 20), np.uint8))
    write_image(labels / "train" / "masks" / "f002.png", np.full((64, 96), 200, np.uint8))
    (labels / "train" / "images" / "f003.png").write_bytes(b"no image")
    (labels / "train" / "images" / "f004.png").unlink()
    (labels / "train" / "images" / "f004.png").symlink_to(tmp_path / "gone.png")
    ran = edgeseg("accuracy", bundle, "--labels", labels, "--json", "-")
    problems = {row["frame"]: row["what"] for row in result(ran)["problems"]}
    assert set(problems) == {"f001", "f002", "f003", "f004"} and result(ran)["known"] == 9
    assert "its mask is 20x10" in problems["f001"] and "label 200, outside the 8 classes" in problems["f002"]
    assert "Was it removed meanwhile?" in problems["f004"] and ran.code == 0


def test_a_clock_that_jumps_is_said(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    rows = rows_of(14)
    rows[5]["time"], rows[6]["time"], rows[7]["time"] = START - 10 * DAY, 3.0, 1e300
    ran = edgeseg("accuracy", bundle, "--labels", field(tmp_path / "d", truth, rows), "--json", "-")
    found = result(ran)
    assert "the clock of gate went backward 3 times" in ran.err
    assert {row["frame"] for row in found["problems"]} == {"f006", "f007"}
    assert all("none of a clock that is set" in row["what"] for row in found["problems"])
    assert found["all"]["frames"] == 14 and sum(row["all"]["frames"] for row in found["windows"]) == 12


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda d, h: (d / "classes.txt").write_text("road\nsky\n"),
            "The model's classes are .*; the dataset's road, sky",
        ),
        (lambda d, h: shutil.rmtree(d / "train"), "has none of the splits"),
        (lambda d, h: (d / "train" / "masks" / "f001.png").unlink(), "has no mask"),
        (lambda d, h: h.write_text("hello\n"), "h.jsonl is no history of edgeseg accuracy"),
        (lambda d, h: h.write_text('{"kind": "eval", "schema": 1}\n'), "is no history of edgeseg accuracy"),
        (lambda d, h: h.write_text(""), "is empty"),
        (lambda d, h: h.mkdir(), "h.jsonl is a folder"),
        (lambda d, h: h.write_text(head(digest="0" * 64)), r"is the history of another bundle: other \(000000000000\)"),
        (lambda d, h: h.write_text(head(classes=["road", "sea"])), "history of a bundle with the classes road, sea"),
        (lambda d, h: h.write_text(head() + '{"frame": 3}\n'), "h.jsonl:2 is no scored frame"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    edgeseg: Edgeseg,
    bundle: Path,
    truth: Callable[[int], np.ndarray],
    tmp_path: Path,
    spoil: Callable[[Path, Path], Any],
    message: str,
) -> None:
    labels, history = field(tmp_path / "d", truth, rows_of(3)), tmp_path / "h.jsonl"
    digest = result(edgeseg("accuracy", bundle, "--labels", labels, "--json", "-"))["bundle"]["digest"]
    spoil(labels, history)
    if history.is_file():
        history.write_text(history.read_text().replace("DIGEST", digest))
    ran = edgeseg("accuracy", bundle, "--labels", labels, "--history", history)
    assert ran.code == 2
    assert re.search(message, ran.err), ran.err


def head(digest: str = "DIGEST", classes: list[str] | None = None) -> str:
    row = {"kind": "accuracy-history", "schema": 1, "bundle": "other", "digest": digest}
    return json.dumps({**row, "classes": classes or list(NAMES)}) + "\n"


def test_a_confusion_matrix_of_other_classes_is_refused(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    labels, history = field(tmp_path / "d", truth, rows_of(3)), tmp_path / "h.jsonl"
    words = ("accuracy", bundle, "--labels", labels, "--history", history)
    assert edgeseg(*words).code == 0
    lines = history.read_text().splitlines()
    row = json.loads(lines[2])
    row["confusion"] = [[0, 8, 5]]
    history.write_text("\n".join([*lines[:2], json.dumps(row)]) + "\n")
    ran = edgeseg(*words)
    assert ran.code == 2 and "h.jsonl:3 is no scored frame: its confusion matrix is of other classes" in ran.err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("time", 1e300, "its time is 1e\\+300"),
        ("time", float("nan"), "its time is nan"),
        ("confusion", [[0, 0, 0]], "no numbers of pixels"),
        ("confusion", [[0, 0, 1 << 62]], "no numbers of pixels"),
        ("confusion", [[0, 0]], "confusion"),
        ("camera", None, "camera"),
    ],
)
def test_a_line_that_was_tampered_with_is_named(tmp_path: Path, key: str, value: object, message: str) -> None:
    row = {**GOOD, key: value}
    with pytest.raises(FileError, match=f"h.jsonl:2 is no scored frame.*{message}"):
        read_history(tmp_path, json.dumps(row).encode())


@given(st.binary(max_size=80), st.integers(0, 400), st.integers(0, 60))
def test_a_damaged_history_is_read_or_refused(noise: bytes, at: int, length: int) -> None:
    line = json.dumps(GOOD).encode()
    with TemporaryDirectory() as folder, suppress(EdgesegError):
        read_history(Path(folder), line[:at] + noise + line[at + length :])


GOOD = {"frame": "a", "image": "0", "labels": "1", "camera": "gate", "time": START, "random": True, "why": ["random"],
        "confusion": [[0, 0, 5], [1, 0, 2]]}  # fmt: skip


def read_history(folder: Path, line: bytes) -> History:
    (folder / "h.jsonl").write_bytes(head(digest="d").encode() + line + b"\n")
    return History(folder / "h.jsonl", HistoryHead(bundle="b", digest="d", classes=NAMES))


def test_a_full_disk_keeps_what_was_scored(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    import resource
    import signal

    labels, history = field(tmp_path / "d", truth, rows_of(12)), tmp_path / "h.jsonl"
    words = ("accuracy", bundle, "--labels", labels, "--history", history, "--json", "-")
    expected = result(edgeseg(*words))
    room = sum(map(len, history.read_bytes().splitlines(keepends=True)[:6])) + 50
    history.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        ran = edgeseg(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert ran.code == 2 and "h.jsonl: File too large" in ran.err
    assert len(history.read_text().splitlines()) == 6
    rest = result(edgeseg(*words))
    assert rest["new"] == 7 and rest["all"] == expected["all"]


def test_records_stay_with_frames_that_are_imported_and_reviewed(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    from edgeseg.labeling.review import Review

    collection = field(tmp_path / "c", truth, rows_of(12))
    assert edgeseg("label", "export", collection, "--format", "masks", "--out", tmp_path / "out").code == 0
    assert edgeseg("label", "import", tmp_path / "out", "--collection", collection, "--out", tmp_path / "in").code == 0
    review = Review(collection, tmp_path / "reviewed")
    for row in review.frames()["frames"]:
        review.decide(row["name"], "accept")
    for labels in (tmp_path / "in", tmp_path / "reviewed"):
        found = result(edgeseg("accuracy", bundle, "--labels", labels, "--json", "-"))
        assert found["random"]["frames"] == 12 and found["cameras"][0]["camera"] == "gate" and found["missing"] == 0


def test_the_report_draws_the_track(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    rows = [*rows_of(12), *rows_of(12, "yard"), *rows_of(12, wrong=30, day=1), *rows_of(5, "yard", day=1)]
    labels = field(tmp_path / "d", truth, rows)
    assert edgeseg("accuracy", bundle, "--labels", labels, "--min-miou", "70", "--json", tmp_path / "a.json").code == 1
    assert edgeseg("report", tmp_path / "a.json", "--out", tmp_path / "r.html").code == 0
    page = (tmp_path / "r.html").read_text()
    assert (
        page.count("<polyline class='track") == 2 and page.count("<line class='track") == 3
    )  # five frames: no interval
    assert "2026-05-28" in page and "accepted 70.0" in page
    assert edgeseg("report", tmp_path / "a.json", "--out", tmp_path / "r.md").code == 0
    assert "| yard 2026-05-29 | 100.0 | - |" in (tmp_path / "r.md").read_text()


def test_metrics_for_the_textfile_collector(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    labels = field(tmp_path / "d", truth, [*rows_of(12, wrong=48), *rows_of(12, why="uncertain")])
    words = ("--min-miou", "90", "--prometheus", tmp_path / "accuracy.prom")
    assert edgeseg("accuracy", bundle, "--labels", labels, *words).code == 1
    families = parser.text_string_to_metric_families((tmp_path / "accuracy.prom").read_text())
    found = {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}
    assert (
        found["edgeseg_accuracy_verdict", "gate", "fail"] == 1
        and found["edgeseg_accuracy_verdict", "gate", "pass"] == 0
    )
    assert found["edgeseg_accuracy_limit_ratio", "gate"] == 0.9
    assert (
        found["edgeseg_accuracy_frames", "random", "gate"] == 12
        and found["edgeseg_accuracy_frames", "all", "gate"] == 24
    )
    high = found["edgeseg_accuracy_high_ratio", "random", "gate"]
    assert (
        found["edgeseg_accuracy_low_ratio", "random", "gate"]
        <= found["edgeseg_accuracy_miou_ratio", "random", "gate"]
        <= high
    )


def test_only_the_frames_drawn_at_random_are_exported_and_none_of_them_is_trained_with(
    edgeseg: Edgeseg, bundle: Path, truth: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    from edgeseg.labeling.choosing import candidates

    collection = field(tmp_path / "c", truth, [*rows_of(3), *rows_of(5, why="uncertain")])
    words = ("label", "export", collection, "--format", "masks", "--out")
    assert edgeseg(*words, tmp_path / "drawn", "--only", "random").code == 0
    assert {path.stem for path in (tmp_path / "drawn").rglob("f*.png")} == {"f000", "f001", "f002"}
    assert edgeseg(*words, tmp_path / "two", "--only", "uncertain", "--frames", "2").code == 0
    assert len({path.stem for path in (tmp_path / "two").rglob("f*.png")}) == 2
    wrong = edgeseg(*words, tmp_path / "none", "--only", "randm")
    assert wrong.code == 2 and "kept for the reason 'randm'" in wrong.err and "Did you mean 'random'" in wrong.err
    assert {one.image.stem for one in candidates([collection])} == {f"f{i:03d}" for i in range(3, 8)}
