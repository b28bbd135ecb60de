"""The device's sensors during a measurement: temperature, clocks, power, throttling. Read from sysfs.

Nothing here is assumed to exist: virtual machines have none, Intel and AMD count energy (RAPL), Jetson's INA3221
chips measure the power of each rail.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeseg.results.bench import DeviceLog, Reading

SLOWDOWN = 0.9  # a clock below this share of its start, while hot, is called throttling
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")  # the whole board's input, by Jetson generation


@dataclass(frozen=True)
class Sample:
    """One reading: degrees Celsius, MHz, watts, joules since some start, events since boot; None where unknown."""

    time: float
    celsius: float | None
    cpu_mhz: float | None
    gpu_mhz: float | None
    watts: float | None
    joules: float | None
    throttled: int | None


class Sensors:
    """The sensors of this machine. `root` is "/" but for tests."""

    def __init__(self, root: Path = Path("/")):
        self.root = root
        self.zones = sorted(root.glob("sys/class/thermal/thermal_zone*/temp"))
        self.clocks = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self.gpu = next(iter(sorted(p for p in root.glob("sys/class/devfreq/*/cur_freq") if _is_gpu(p))), None)
        self.rapl = [p for p in sorted(root.glob("sys/class/powercap/*/energy_uj")) if p.parent.name.count(":") == 1]
        self.rails = _rails(root)
        self.throttle = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._last: dict[Path, tuple[float, int]] = {}

    def sample(self) -> Sample:
        heat = [v / 1000 for v in map(_number, self.zones) if v is not None and v > 0]
        clocks = [v / 1000 for v in map(_number, self.clocks) if v is not None] or _proc_clocks(self.root)
        gpu = _number(self.gpu) if self.gpu else None
        watts = [read() for read in self.rails]
        known = [w for w in watts if w is not None]
        counts = [v for v in map(_number, self.throttle) if v is not None]
        return Sample(
            time.monotonic(),
            max(heat, default=None),
            float(np.mean(clocks)) if clocks else None,
            gpu / 1e6 if gpu else None,
            sum(known) if known else None,
            self._joules(),
            int(sum(counts)) if counts else None,
        )

    def _joules(self) -> float | None:
        """RAPL's counters wrap around; the range lost at a wrap is added back."""
        total: float | None = None
        for path in self.rapl:
            now = _number(path)
            if now is None:  # readable by root only
                continue
            before, wraps = self._last.get(path, (now, 0))
            wraps += now < before
            self._last[path] = (now, wraps)
            span = _number(path.with_name("max_energy_range_uj")) or 0.0
            total = (total or 0.0) + (now + wraps * span) / 1e6
        return total


@dataclass
class Watch:
    """Samples in the background: `with Watch(Sensors()) as watch: ...; watch.summary(frames)`."""

    sensors: Sensors
    every: float = 1.0
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Watch:
        self._stop = threading.Event()
        self.samples.append(self.sensors.sample())
        self._thread = threading.Thread(target=self._work, name="sensors", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.samples.append(self.sensors.sample())

    def _work(self) -> None:
        while not self._stop.wait(self.every):
            self.samples.append(self.sensors.sample())

    def summary(self, frames: int) -> DeviceLog:
        """Means and extremes; `joules_per_frame` of the whole package or board, idle draw included; `throttled`."""
        first, last = self.samples[0], self.samples[-1]
        joules = self._energy(first, last)
        return DeviceLog(
            celsius=_reading([s.celsius for s in self.samples]),
            cpu_mhz=_reading([s.cpu_mhz for s in self.samples]),
            gpu_mhz=_reading([s.gpu_mhz for s in self.samples]),
            watts=_reading([s.watts for s in self.samples]),
            joules_per_frame=round(joules / frames, 6) if joules is not None and frames else None,
            throttled=self.throttled(),
        )

    def _energy(self, first: Sample, last: Sample) -> float | None:
        if first.joules is not None and last.joules is not None:
            return last.joules - first.joules
        watts = [s.watts for s in self.samples if s.watts is not None]
        return float(np.mean(watts)) * (last.time - first.time) if watts else None

    def throttled(self) -> str:
        """Why the figures of this time are not the device's best; "" where no sensor reports it."""
        first, last = self.samples[0], self.samples[-1]
        if first.throttled is not None and last.throttled is not None and last.throttled > first.throttled:
            return f"the CPU reports {last.throttled - first.throttled} thermal throttling events"
        for name in ("cpu_mhz", "gpu_mhz"):
            clocks = [value for value in (getattr(s, name) for s in self.samples) if value is not None]
            hot = last.celsius is not None and last.celsius >= 80
            if hot and len(clocks) >= 4 and np.mean(clocks[-2:]) < SLOWDOWN * np.mean(clocks[:2]):
                unit = name.split("_")[0].upper()
                return f"the {unit} went from {clocks[0]:.0f} to {clocks[-1]:.0f} MHz at {last.celsius:.0f} °C"
        return ""


def _reading(values: list[float | None]) -> Reading | None:
    known = [v for v in values if v is not None]
    if not known:
        return None
    return Reading(round(known[0], 2), round(float(np.mean(known)), 2), round(known[-1], 2), round(max(known), 2))


def _rails(root: Path) -> list[Callable[[], float | None]]:
    """Readers (watts) of the board's input where one is named, else of every rail."""
    rails: dict[str, Callable[[], float | None]] = {}
    for label in sorted(root.glob("sys/class/hwmon/hwmon*/in*_label")):  # JetPack 5 and later
        name, index = _text(label), re.sub(r"\D", "", label.name)
        volts, amps = label.with_name(f"in{index}_input"), label.with_name(f"curr{index}_input")
        if volts.is_file() and amps.is_file():
            rails[name] = lambda volts=volts, amps=amps: _product(volts, amps)  # type: ignore[misc]
    for label in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*")):  # JetPack 4
        power = label.with_name(f"in_power{label.name.rsplit('_', 1)[1]}_input")
        rails[_text(label)] = lambda power=power: _milli(power)  # type: ignore[misc]
    total = [rails[name] for name in TOTAL_RAILS if name in rails]
    return total[:1] or list(rails.values())


def _product(volts: Path, amps: Path) -> float | None:
    v, a = _number(volts), _number(amps)
    return None if v is None or a is None else v * a / 1e6


def _milli(path: Path) -> float | None:
    value = _number(path)
    return None if value is None else value / 1000


def _is_gpu(path: Path) -> bool:
    return bool(re.search(r"gpu|ga10b|gv11b|gp10b|gm20b|gb10b", path.parent.name))


def _proc_clocks(root: Path) -> list[float]:
    return [float(v) for v in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text(root / "proc/cpuinfo"), re.M)]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None
