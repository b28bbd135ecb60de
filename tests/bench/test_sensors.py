"""Sensors and doctor on file trees laid out as Linux, Intel and the Jetsons lay them out."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bench import doctor
from edgeseg.bench.sensors import Sample, Sensors, Watch
from edgeseg.results.bench import DeviceLog

Edgeseg = Callable[..., Any]


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3",
    "var/lib/nvpmodel/status": "pmode:0002",
    "proc/meminfo": "MemTotal: 31330000 kB\nMemAvailable: 400000 kB\nSwapTotal: 900000 kB\nSwapFree: 100000 kB",
    "proc/cpuinfo": "Features : fp asimd asimddp",
    "sys/class/thermal/thermal_zone0/temp": 51000,
    "sys/class/thermal/thermal_zone1/temp": 86500,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 2201600,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
    "sys/class/devfreq/17000000.gpu/cur_freq": 1300500000,
    "sys/class/devfreq/15340000.vic/cur_freq": 729600000,
    "sys/class/hwmon/hwmon1/in1_label": "VDD_GPU_SOC",
    "sys/class/hwmon/hwmon1/in1_input": 19080,
    "sys/class/hwmon/hwmon1/curr1_input": 200,
    "sys/class/hwmon/hwmon1/in2_label": "VIN_SYS_5V0",
    "sys/class/hwmon/hwmon1/in2_input": 5000,
    "sys/class/hwmon/hwmon1/curr2_input": 3000,
}


def test_a_jetson_of_jetpack_6(tmp_path: Path) -> None:
    result = Sensors(tree(tmp_path, JETSON)).sample()
    assert (result.celsius, result.cpu_mhz, result.gpu_mhz) == (86.5, 2201.6, 1300.5)
    assert result.watts == pytest.approx(15.0)  # the board's input, not its rails added to it
    assert result.joules is None and result.throttled is None


def test_a_jetson_of_jetpack_4(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    rails = {f"{folder}/rail_name_0": "POM_5V_IN", f"{folder}/in_power0_input": 4120}
    rails |= {f"{folder}/rail_name_1": "POM_5V_GPU", f"{folder}/in_power1_input": 900}
    assert Sensors(tree(tmp_path, rails)).sample().watts == 4.12


def test_a_machine_without_sensors(tmp_path: Path) -> None:
    result = Sensors(tmp_path).sample()
    assert [v for k, v in vars(result).items() if k != "time"] == [None] * 6
    with Watch(Sensors(tmp_path), 0.01) as watch:
        time.sleep(0.03)
    assert watch.summary(10) == DeviceLog(None, None, None, None, None, "")


def test_energy_counters_wrap_around(tmp_path: Path) -> None:
    package = "sys/class/powercap/intel-rapl:0"
    tree(tmp_path, {f"{package}/energy_uj": 9_000_000, f"{package}/max_energy_range_uj": 10_000_000})
    tree(tmp_path, {f"{package}:0/energy_uj": 5_000_000})  # a part of the package: not counted twice
    watch = Watch(Sensors(tmp_path), 60)
    with watch:
        tree(tmp_path, {f"{package}/energy_uj": 2_000_000})
    assert watch.summary(6).joules_per_frame == pytest.approx(0.5)


def test_energy_is_integrated_from_power_where_only_watts_are_measured(tmp_path: Path) -> None:
    with Watch(Sensors(tree(tmp_path, JETSON)), 0.02) as watch:
        time.sleep(0.2)
    joules = watch.summary(1).joules_per_frame
    assert joules == pytest.approx(15 * (watch.samples[-1].time - watch.samples[0].time), rel=1e-3)


@pytest.mark.parametrize(
    ("clocks", "celsius", "events", "message"),
    [
        ([2000, 2000, 2000, 2000], 90.0, 0, ""),
        ([2000, 2000, 1500, 1400], 90.0, 0, "the CPU went from 2000 to 1400 MHz at 90 °C"),
        ([2000, 2000, 1500, 1400], 50.0, 0, ""),  # cool and slow: it had less to do
        ([2000, 2000, 2000, 2000], 60.0, 3, "the CPU reports 3 thermal throttling events"),
    ],
)
def test_throttling_is_reported(clocks: list[float], celsius: float, events: int, message: str) -> None:
    samples = [Sample(i, celsius, mhz, None, None, None, i * events // 3) for i, mhz in enumerate(clocks)]
    assert Watch(Sensors(), samples=samples).throttled() == message


@given(st.binary(max_size=40))
def test_any_content_of_a_sensor_file_is_tolerated(text: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sys/class/thermal/thermal_zone0/temp"
        path.parent.mkdir(parents=True)
        path.write_bytes(text)
        result = Sensors(Path(folder)).sample()
        assert result.celsius is None or result.celsius > 0


def test_doctor_on_a_badly_set_up_jetson(tmp_path: Path) -> None:
    result = {row.about: row for row in doctor.examine(tree(tmp_path, JETSON))}
    assert result["board"].found == "NVIDIA Jetson AGX Orin Developer Kit, # R36 (release), REVISION: 4.3"
    assert result["power mode"].level == "note" and "nvpmodel -m 0" in result["power mode"].do
    assert result["governor"].level == "note" and result["governor"].found.startswith("schedutil")
    assert result["memory"].level == "problem" and result["memory"].found.startswith("390 of ")
    assert result["swap"].found == "781 MB in use"
    assert result["temperature"].level == "note"


def test_doctor_through_the_command_line(edgeseg: Edgeseg, tmp_path: Path) -> None:
    result = edgeseg("doctor", "--json", tmp_path / "d.json")
    found = json.loads((tmp_path / "d.json").read_text())
    levels = {row["about"]: row["level"] for row in found["findings"]}
    assert result.code == ("problem" in levels.values())
    assert levels["self-test openvino"] == levels["self-test onnxruntime"] == levels["edgeseg"] == "ok"
    measured = next(row["found"] for row in found["findings"] if row["about"] == "precisions")
    assert re.search(r"int8 \d+\.\d times as fast as fp32", measured)
    assert "self-test" not in edgeseg("doctor", "--quick").err


def test_the_self_test_network_matches_its_script() -> None:
    from make_selftest import model

    assert (Path(doctor.__file__).parent / doctor.SELF_TEST).read_bytes() == model()
