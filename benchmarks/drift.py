"""False alarms and detection of `edgeseg drift`, beside the detectors of river on the same streams.

scenes OUT.npz --seeds 6100:6120       statistics of rendered cameras: by day, then dusk, night, fog, defocus ...
detect SCENES.npz [CLIP...]            frames until the alarm, with a reference of other scenes or the camera's own
streams OUT.npz CLIP... --seeds 1:4    24 h of simulated statistics with the clips' autocorrelation and distribution
alarms STREAMS.npz                     false alarms in them
peers STREAMS.npz                      those of river's KSWIN, ADWIN and Page-Hinkley; run it where river is installed

Parameters were chosen on seeds 6000 to 6019 and streams 1 and 2; report others.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
BUNDLE = "models/street/street-int8"
FPS, EVERY = 30, 15
DAY = 86400 * FPS // EVERY  # observations
WARM = 1200  # observations of the camera's own reference: ten minutes
MARGIN_OF = 4  # one observation in so many has a margin
REFERENCE = range(5000, 5064)  # seeds of the scenes that stand for calibration frames
OWN = 120  # observations of a rendered day that are the camera's own reference; the next 10 come before the change
BEFORE = 40  # observations of the day before the change
PEERS = ("brightness", "sharpness", "margin")


def web(image: Any) -> Any:
    """A spider's web across the lens: blurred threads."""
    import cv2

    height, width = image.shape[:2]
    drawn = np.zeros((height, width), np.float32)
    center = (int(width * 0.6), int(height * 0.4))
    for k in range(14):
        angle = k * np.pi / 7
        end = (int(center[0] + width * np.cos(angle)), int(center[1] + width * np.sin(angle)))
        cv2.line(drawn, center, end, 1, 2)
    for r in range(20, width, 26):
        cv2.circle(drawn, center, r, 1, 2)
    alpha = 0.7 * cv2.GaussianBlur(drawn, (0, 0), 1.5)[..., None]
    return np.clip(image * (1 - alpha) + 210 * alpha, 0, 255).astype(np.uint8)


def conditions() -> dict[str, tuple[dict[str, float], Callable[[Any], Any] | None]]:
    import cv2

    def turned(degrees: float, scale: float) -> Callable[[Any], Any]:
        def turn(image: Any) -> Any:
            height, width = image.shape[:2]
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
            return cv2.warpAffine(image, matrix, (width, height))

        return turn

    return {
        "day": ({}, None),
        "dusk": ({"night": 0.5}, None),
        "night": ({"night": 1.0}, None),
        "fog": ({"fog": 0.7}, None),
        "defocus": ({}, lambda image: cv2.GaussianBlur(image, (0, 0), 2)),
        "web": ({}, web),
        "upside down": ({}, lambda image: np.ascontiguousarray(image[::-1, ::-1])),
        "turned 15 degrees": ({}, turned(15, 1.15)),
    }


def scenes(out: Path, seeds: range) -> None:
    from edgeseg.monitoring.statistics import measure
    from edgeseg.runtime import open_segmenter
    from edgeseg.synth.street import Street

    found: dict[str, Rows] = {}
    with open_segmenter(BUNDLE, margin=True) as segmenter:

        def rows(seed: int, name: str, count: int) -> Rows:
            settings, change = conditions()[name]
            street = Street(seed, night=settings.get("night", 0.0), fog=settings.get("fog", 0.0))
            images = (street.frame(EVERY * k)[0] for k in range(count))
            shown = (change(image) if change else image for image in images)
            return np.array([measure(segmenter(image), len(segmenter.spec.classes)) for image in shown])

        found["reference"] = np.concatenate([rows(seed, "day", 1) for seed in REFERENCE])
        for seed in seeds:
            for name in conditions():
                found[f"{name} {seed}"] = rows(seed, name, OWN + 10 if name == "day" else 10)
    np.savez(out, allow_pickle=False, **found)


def reference(rows: Rows, sequence: bool) -> Any:
    from edgeseg.results.drift import ReferenceStatistics

    return ReferenceStatistics(
        names=names(), rows=tuple(map(tuple, rows.tolist())), classes=classes(), sequence=sequence
    )


def classes() -> tuple[str, ...]:
    from edgeseg.synth.street import CLASSES

    return CLASSES.names


def names() -> tuple[str, ...]:
    from edgeseg.monitoring.statistics import names

    return names(classes())


def alarms(expected: Any, stream: Rows) -> Iterator[tuple[int, str]]:
    """(observation, statistic) of every alarm, set up as DriftMonitor does."""
    from edgeseg.monitoring.detector import ChangeDetector
    from edgeseg.monitoring.monitor import DAYS, PATIENCE
    from edgeseg.monitoring.ranges import SHORTEST, Ranges

    blocks = DAYS * DAY / SHORTEST
    detector = ChangeDetector(Ranges.of(expected, blocks), blocks, PATIENCE // EVERY)
    for i, row in enumerate(stream):
        yield from ((i, names()[change.index]) for change in detector.add(row))


def with_few_margins(rows: Rows) -> Rows:
    rows = rows.copy()
    rows[np.arange(len(rows)) % MARGIN_OF != 0, -1] = np.nan
    return rows


def repeated(rows: Rows, count: int) -> Rows:
    return rows[np.arange(count) % len(rows)]


def detect(path: Path, clips: list[str]) -> None:
    found = dict(np.load(path))
    if clips:
        found |= other_cameras(clips)
    seeds = sorted(int(key.split()[-1]) for key in found if key.startswith("day "))
    hour = DAY // 24
    for kind in ("other scenes", "its own"):
        expected = {
            s: reference(found["reference"], False)
            if kind == "other scenes"
            else reference(found[f"day {s}"][:OWN], True)
            for s in seeds
        }
        false = [
            len(list(alarms(expected[s], with_few_margins(repeated(found[f"day {s}"][OWN:], hour))))) for s in seeds
        ]
        print(f"\nreference: {kind}. False alarms in an hour of {len(seeds)} cameras by day: {sum(false)}")
        print("| change | frames until the alarm, median | worst | within 300 | not within 6,000 | first alarm |")
        for name in [*list(conditions())[1:], *(f"camera {Path(clip).stem}" for clip in clips)]:
            delays, first = [], Counter[str]()
            for s in seeds:
                at = BEFORE + int(np.random.default_rng(s).integers(0, 6))
                after = found[f"{name} {s}"] if f"{name} {s}" in found else found[name]
                stream = np.concatenate([repeated(found[f"day {s}"][OWN:], at), repeated(after, 400)])
                alarm = next((a for a in alarms(expected[s], with_few_margins(stream)) if a[0] >= at), None)
                delays.append((alarm[0] + 1 - at) * EVERY if alarm else np.inf)
                first[alarm[1] if alarm else "none"] += 1
            d = np.array(delays)
            cells = (f"{np.median(d):.0f}", f"{d.max():.0f}", f"{np.sum(d <= 300)} of {len(d)}", str(np.isinf(d).sum()))
            print(f"| {name} | {' | '.join(cells)} | {', '.join(k for k, _ in first.most_common(2))} |")


def other_cameras(clips: list[str]) -> dict[str, Rows]:
    return {f"camera {Path(clip).stem}": clip_rows(clip)[::EVERY] for clip in clips}


def clip_rows(clip: str) -> Rows:
    """[frames, S]: every frame of a clip."""
    from edgeseg.monitoring.statistics import measure
    from edgeseg.runtime import open_segmenter
    from edgeseg.stream import sources
    from edgeseg.stream.drift import _frames

    with open_segmenter(BUNDLE, margin=True) as segmenter, sources.open(clip) as source:
        return np.array([measure(segmenter(f.image), len(segmenter.spec.classes)) for f in _frames(source)])


def streams(out: Path, clips: list[str], seeds: range) -> None:
    """Each statistic: a Gaussian AR(1) with the clip's lag-1 correlation, its values mapped to the clip's own."""
    from scipy.signal import lfilter
    from scipy.stats import norm

    found: dict[str, Rows] = {}
    for clip in clips:
        rows = clip_rows(clip)
        for seed in seeds:
            rng = np.random.default_rng(seed)
            columns = []
            for values in rows.T:
                lag1 = np.corrcoef(values[1:], values[:-1])[0, 1] if values.std() > 0 else 0.9
                r = max(0.0, lag1) ** EVERY
                noise = rng.normal(size=WARM + DAY) * np.sqrt(1 - r * r)
                noise[0] /= np.sqrt(1 - r * r)
                ranks = norm.cdf(lfilter([1.0], [1.0, -r], noise))
                columns.append(np.interp(ranks, (np.arange(len(values)) + 0.5) / len(values), np.sort(values)))
            found[f"{Path(clip).stem} {seed}"] = np.stack(columns, 1)
            picked = rng.integers(0, len(rows), 256)
            found[f"reference {Path(clip).stem} {seed}"] = rows[picked]
    np.savez(out, allow_pickle=False, names=np.array(names()), **found)


def false_alarms(path: Path) -> None:
    found = np.load(path)
    print("| stream, 24 h at 30 FPS | reference of 64 pictures | of 256 pictures | of its own 10 minutes |")
    for key in (k for k in found.files if not k.startswith(("reference", "names"))):
        stream = with_few_margins(found[key])
        pictures = found[f"reference {key}"]
        stills = [len(list(alarms(reference(pictures[:n], False), stream[WARM:]))) for n in (64, 256)]
        own = len(list(alarms(reference(stream[:WARM], True), stream[WARM:])))
        print(f"| {key} | {stills[0]} | {stills[1]} | {own} |", flush=True)


def peers(path: Path) -> None:
    from river.drift import ADWIN, KSWIN, PageHinkley

    found = np.load(path)
    columns = [list(found["names"]).index(name) for name in PEERS]
    kinds = {"KSWIN": lambda: KSWIN(seed=0), "ADWIN": ADWIN, "Page-Hinkley": PageHinkley}
    print(f"| stream, 24 h, two values a second | {' | '.join(f'{k}: {n}' for k in kinds for n in PEERS)} |")
    for key in (k for k in found.files if not k.startswith(("reference", "names"))):
        counts = []
        for make in kinds.values():
            for column in columns:
                detector, count = make(), 0
                values = found[key][:, column]
                for value in (values / (values[:WARM].std() or 1)).tolist():
                    detector.update(value)
                    count += detector.drift_detected
                counts.append(count)
        print(f"| {key} | {' | '.join(map(str, counts))} |", flush=True)


def seed_range(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scenes", "detect", "streams", "alarms", "peers"))
    parser.add_argument("file", type=Path)
    parser.add_argument("clips", nargs="*")
    parser.add_argument("--seeds", type=seed_range, default=range(6100, 6120))
    given = parser.parse_args()
    if given.what == "scenes":
        scenes(given.file, given.seeds)
    elif given.what == "detect":
        detect(given.file, given.clips)
    elif given.what == "streams":
        streams(given.file, given.clips, given.seeds)
    elif given.what == "alarms":
        false_alarms(given.file)
    else:
        peers(given.file)


if __name__ == "__main__":
    main()
