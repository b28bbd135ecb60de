"""RTSP on loopback: glass-to-mask latency, and four cameras of which one is killed every ten seconds.

    python benchmarks/rtsp.py BUNDLE [--seconds 60] [--json FILE|-]
    python benchmarks/rtsp.py BUNDLE --flap 55 --seconds 600
    python benchmarks/rtsp.py BUNDLE --gops 1,4,10,30

The second form kills one camera's server so many times, for 1 to 4 s, and reconnects as `edgeseg run` does by default.
`share`: of the frames that there were while the server was up. The third joins a camera that has a key frame every so
many seconds, at different times between two of them, and measures the time to the first image: of joining while it
runs, and after its server was killed and started again. `trouble`: connections that failed while joining.

Each camera is edgeseg's stamped loopback camera (the time of capture is drawn into every image) behind GStreamer's
RTSP server: MJPEG -> H.264 (x264, zero latency) -> RTP over TCP. What is measured at the sink is therefore the age of
the scene: camera, two encoders, network, decoder, inference and class map.
"""

from __future__ import annotations

import argparse
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.cli.common import emit
from edgeseg.machine import fingerprint
from edgeseg.runtime import open_segmenter
from edgeseg.stream import sources
from edgeseg.stream.loop import Run
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.soak.loopback import LoopbackCamera
from edgeseg.stream.soak.rig import AgeObserver
from edgeseg.stream.supervise import ReconnectPolicy, SupervisedSource

FPS = 12.5
DOWN_SECONDS = (1.0, 4.0)
QUICK = ReconnectPolicy(connect=5, stall=1.5, first_delay=0.25, longest_delay=2)
SERVER = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( souphttpsrc location={sys.argv[2]} is-live=true do-timestamp=true ! multipartdemux ! "
    "jpegdec ! videoconvert ! video/x-raw,format=I420 ! "
    f"x264enc tune=zerolatency speed-preset=ultrafast key-int-max={sys.argv[3]} ! "
    "rtph264pay name=pay0 config-interval=1 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
assert server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


class RtspCamera:
    """A stamped camera and the RTSP server in front of it; the server can be killed and started again."""

    def __init__(self, gop: int = 12) -> None:
        self._camera, self._gop = LoopbackCamera(FPS), gop
        self._server: subprocess.Popen[str] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def __enter__(self) -> RtspCamera:
        self._camera.start()
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self._camera.kill()

    def start(self) -> None:
        command = ["/usr/bin/python3", "-c", SERVER, str(self.port), self._camera.uri, str(self._gop)]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout and self._server.stdout.readline() == "ready\n"

    def kill(self) -> None:
        server, self._server = self._server, None
        if server:
            server.kill()
            server.communicate()

    @property
    def uri(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/live"

    def supervised(self, name: str, policy: ReconnectPolicy) -> SupervisedSource:
        return SupervisedSource(lambda: sources.open(f"{self.uri}#timeout=3"), name, policy)


def measure(
    bundle: Path, cameras: int, seconds: float, kill_every: float | None, policy: ReconnectPolicy = QUICK
) -> dict[str, Any]:
    with ExitStack() as stack:
        rigs = [stack.enter_context(RtspCamera()) for _ in range(cameras)]
        segmenter = stack.enter_context(open_segmenter(bundle, "latency"))
        watchers = [AgeObserver() for _ in rigs]
        streams = [
            Stream(rig.supervised(f"camera{i}", policy), [watcher], f"camera{i}")
            for i, (rig, watcher) in enumerate(zip(rigs, watchers))
        ]
        stop = threading.Event()
        recovered: list[float | None] = []
        down: list[float] = []
        script = threading.Thread(target=_script, args=(rigs, watchers, seconds, kill_every, recovered, down, stop))
        script.start()
        summary = Run(segmenter, streams, stop=stop).go()
        script.join()
    ages = np.concatenate([watcher.ages.values() for watcher in watchers])[cameras * 25 :] * 1e3
    result: dict[str, Any] = {
        "cameras": cameras,
        "seconds": round(summary.seconds, 3),
        "frames": summary.frames,
        "glass_to_mask_ms": {f"p{p}": round(float(np.percentile(ages, p)), 1) for p in (50, 90, 99)},
        "drops": summary.drops,
        "result": summary.result,
    }
    if kill_every:
        times = [t for t in recovered if t is not None]
        result["kills"] = len(recovered)
        result["never_back"] = len(recovered) - len(times)
        result["reconnect_s"] = {f"p{p}": round(float(np.percentile(times, p)), 2) for p in (50, 95, 100)}
        there = FPS * (cameras * summary.seconds - sum(down))
        result["share"] = round(summary.frames / there, 3)
        result["frames_per_camera"] = [watcher.frames for watcher in watchers]
    return result


def measure_gop(seconds: float, joins: int = 4) -> dict[str, Any]:
    """Seconds to the first image of a camera with a key frame every `seconds`."""
    first, waited, trouble = [], 0, list[str]()
    with RtspCamera(max(1, round(seconds * FPS))) as rig:
        with _viewer(rig.uri):
            for i in range(joins):
                time.sleep(seconds * (i + 0.5) / joins)  # other joins, other distances to the next key frame
                source = rig.supervised("camera", ReconnectPolicy())
                first.append(_first_image(source))
                waited += source.visits["WAITING"]
                source.close()
                trouble += source.warnings
        source = rig.supervised("camera", ReconnectPolicy())
        _first_image(source)
        rig.kill()
        down = time.monotonic()
        while time.monotonic() < down + 2:
            source.read(0.1)
        rig.start()
        back = _first_image(source)
        reconnects = source.reconnects
        source.close()
    return {
        "key_frame_every_s": seconds,
        "first_image_s": [round(value, 2) for value in sorted(first)],
        "waited_for_a_key_frame": waited,
        "after_restart_s": round(back, 2),
        "reconnects": reconnects,
        "trouble": trouble,
    }


@contextmanager
def _viewer(uri: str) -> Iterator[None]:
    """Somebody else who watches, so that the camera's encoder goes on and a new viewer comes between two key frames."""
    command = [
        "ffmpeg",
        "-nostdin",
        "-loglevel",
        "error",
        "-rtsp_transport",
        "tcp",
        "-i",
        uri,
        "-c",
        "copy",
        "-f",
        "null",
    ]
    watching = subprocess.Popen([*command, "-"])
    time.sleep(2)
    try:
        yield
    finally:
        watching.kill()
        watching.wait()


def _first_image(source: SupervisedSource) -> float:
    begin = time.monotonic()
    while source.read(0.1) is None:
        if time.monotonic() > begin + 90:
            return float("nan")
    return time.monotonic() - begin


def _script(rigs: list[RtspCamera], watchers: list[AgeObserver], seconds: float, kill_every: float | None,
            recovered: list[float | None], down: list[float], stop: threading.Event) -> None:  # fmt: skip
    """Kill one server after another; measure the time from its restart to the first frame captured after it."""
    while not all(watcher.frames for watcher in watchers):
        time.sleep(0.1)
    end = time.monotonic() + seconds
    kills, rng = 0, random.Random(0)
    while time.monotonic() < end:
        if kill_every is None:
            time.sleep(0.5)
            continue
        begin = time.monotonic()
        rig, watcher = rigs[kills % len(rigs)], watchers[kills % len(rigs)]
        rig.kill()
        time.sleep(rng.uniform(*DOWN_SECONDS))
        rig.start()
        down.append(time.monotonic() - begin)
        back = time.monotonic()
        while watcher.stamped < back and time.monotonic() < back + 15:
            time.sleep(0.02)
        recovered.append(time.monotonic() - back if watcher.stamped >= back else None)
        kills += 1
        time.sleep(max(0.0, begin + kill_every - time.monotonic()))
    stop.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", help="FILE or - for standard output")
    parser.add_argument("--flap", type=int, help="kill one camera so many times, and nothing else")
    parser.add_argument("--gops", help="seconds between key frames, comma separated: the time to the first image")
    options = parser.parse_args()
    if options.gops:
        rows = []
        for gop in options.gops.split(","):
            rows.append(measure_gop(float(gop)))
            print(rows[-1], file=sys.stderr, flush=True)
        emit({"kind": "rtsp benchmark", "machine": asdict(fingerprint()), "runs": rows}, options.json)
        return
    if options.flap:
        rows = [measure(options.bundle, 1, options.seconds, options.seconds / options.flap, ReconnectPolicy())]
        emit({"kind": "rtsp benchmark", "machine": asdict(fingerprint()), "runs": rows}, options.json)
        print(rows[-1], file=sys.stderr)
        return
    rows = [measure(options.bundle, 1, options.seconds / 2, None)]
    print(rows[-1], file=sys.stderr)
    rows.append(measure(options.bundle, 4, 2 * options.seconds, 10.0))
    print(rows[-1], file=sys.stderr)
    emit({"kind": "rtsp benchmark", "machine": asdict(fingerprint()), "runs": rows}, options.json)


if __name__ == "__main__":
    main()
