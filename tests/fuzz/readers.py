"""Everything that reads files of others, and small sound files for it to begin with.

A backend or a format of labels that is added is read here, too: every backend that runs here has a bundle, and a format
needs a folder seeds/NAME.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import cv2
import numpy as np

from edgeseg.errors import EdgesegError
from edgeseg.files import describe

HERE = Path(__file__).parent
Run = Callable[[Path], int]
VERSION, BINDING = ("--version", 3), ("--min-version", 3)  # of the signature


@dataclass(frozen=True)
class Reader:
    """`files`: which of its seeds are mutated (globs). `run`: reads a folder of seeds, gives an exit status.

    `weight`: how often it gets a file. `before`: what is done after the mutation, such as fitting digests.
    """

    name: str
    files: tuple[str, ...]
    run: Run
    weight: int = 10
    before: Callable[[Path, str, Random], None] = lambda folder, name, random: None


def cli(*words: object) -> int:
    """The exit status of the command line, run in this process."""
    from edgeseg.cli import main

    sys.argv = ["edgeseg", *map(str, words)]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0


def api(call: Callable[[Path], object]) -> Run:
    """What the command line would say of an error of a function."""

    def run(folder: Path) -> int:
        try:
            call(folder)
            return 0
        except EdgesegError as error:
            print(f"Error: {error.what}", file=sys.stderr)
            return error.exit_code
        except OSError as error:
            if not (fault := describe(error)):
                raise
            print(f"Error: {fault.what}", file=sys.stderr)
            return fault.exit_code

    return run


def all_of(seeds: Path) -> list[Reader]:
    """The readers of what lies in `seeds`, see make_seeds."""
    from edgeseg.data import formats

    bundles = [
        Reader(f"bundle-{path.name}", ("*", "golden/*"), _verify, 12, reseal)
        for path in sorted((seeds / "bundles").iterdir())
    ]
    labels = [
        Reader(f"labels-{name}", ("**/*.*",), _import_as(name), 20)
        for name in formats.names()
        if (seeds / f"labels-{name}").is_dir()
    ]
    return [
        *bundles,
        *labels,
        Reader("signature", ("bundle.sig", "key.pub.pem", "bundle.json"), _verify_signature, 5),
        Reader("model signing", ("model.sig", "key.pub.pem"), _verify_model_signature, 5),
        Reader("onnx", ("net.onnx",), _compile, 6),
        Reader("dataset", ("test/*/*", "classes.txt"), _evaluate(seeds), 12),
        Reader("image", ("image*",), api(_read_images), 40),
        Reader("mask", ("mask*",), api(_read_masks), 20),
        Reader("classes", ("classes*.txt",), api(_read_classes), 15),
        Reader("recipe", ("recipe.toml",), api(_read_recipe), 25),
        Reader("spec", ("spec.toml",), api(_read_spec), 10),
        Reader("target", ("target.toml",), api(_read_target), 10),
        Reader("stream", ("stream.toml",), api(_read_stream), 25),
        Reader("uri", ("*.txt",), api(_read_uris), 25),
        Reader("calibration", ("calibration.json",), api(_read_calibration), 15),
        Reader("ledger", ("ledger.json",), api(_read_ledger), 10),
        Reader("plan", ("plan.json",), api(_read_plan), 10),
        Reader("checkpoint", ("net.pt",), api(_read_checkpoint), 25),
        Reader("baseline", ("baseline.json",), api(_read_baseline), 12),
        Reader("report", ("*.json",), _report, 30),
    ]


def reseal(folder: Path, name: str, random: Random) -> None:
    """Mostly: digests that fit the mutated file, so that it is read further; the manifest itself stays as it is."""
    if name == "bundle.json" or random.random() < 0.1:
        return
    manifest = json.loads((folder / "bundle.json").read_text())
    data = (folder / name).read_bytes()
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "bundle.json").write_text(json.dumps(manifest))


def _verify(folder: Path) -> int:
    return cli("verify", folder, "--json", folder.parent / "out.json")


def _verify_signature(folder: Path) -> int:
    key = shutil.move(folder / "key.pub.pem", folder.parent / "key.pub.pem")
    return cli("verify", folder, "--key", key, *BINDING)


def _verify_model_signature(folder: Path) -> int:
    key = shutil.move(folder / "key.pub.pem", folder.parent / "key.pub.pem")
    return cli("verify", folder, "--oms-key", key)


def _compile(folder: Path) -> int:
    return cli("compile", folder / "net.onnx", "-t", "onnxruntime-cpu", "-o", folder / "out")


def _evaluate(seeds: Path) -> Run:
    [bundle] = (seeds / "bundles").glob("onnxruntime*")
    return lambda folder: cli("eval", bundle, "--data", folder, "--json", folder.parent / "out.json")


def _import_as(name: str) -> Run:
    return lambda folder: cli("data", "import", folder, "--out", folder.parent / "imported", "--format", name)


def _report(folder: Path) -> int:
    return cli("report", *sorted(folder.glob("*.json")), "--out", folder.parent / "report.html")


def _read_images(folder: Path) -> None:
    from edgeseg.images import read_image

    for path in sorted(folder.iterdir()):
        image = read_image(path)
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


def _read_masks(folder: Path) -> None:
    from edgeseg.images import read_mask

    for path in sorted(folder.iterdir()):
        mask = read_mask(path)
        assert mask.ndim == 2 and mask.dtype == np.uint8


def _read_classes(folder: Path) -> None:
    from edgeseg.data.dataset import read_classes

    for path in sorted(folder.iterdir()):
        read_classes(path).text().encode()


def _read_recipe(folder: Path) -> None:
    from edgeseg.recipe import Recipe

    json.dumps(Recipe.load(folder / "recipe.toml").to_dict())


def _read_spec(folder: Path) -> None:
    from edgeseg import toml
    from edgeseg.spec import Spec

    Spec.from_dict(toml.read(folder / "spec.toml", "Spec"))


def _read_target(folder: Path) -> None:
    from edgeseg import target

    target._files = lambda: {"fuzzed": folder / "target.toml"}  # type: ignore[assignment]
    target.Target.load("fuzzed")


def _read_stream(folder: Path) -> None:
    from edgeseg.stream import config

    config.load(folder / "stream.toml", bundle=Path("b"))


def _read_uris(folder: Path) -> None:
    """Parsed and redacted, not opened: mutated ones could be anywhere."""
    from edgeseg.stream import config, sinks, sources
    from edgeseg.stream.uri import Uri

    def lines(name: str) -> list[str]:
        return (folder / name).read_bytes().decode(errors="surrogateescape").splitlines()

    for line in lines("sources.txt"):
        str(Uri.parse(line))
        for stream in config.from_options([line], ["null://"]):
            sources.is_camera(stream.source)
    for line in lines("sinks.txt"):
        str(sinks.find(line)[1])


def _read_calibration(folder: Path) -> None:
    from edgeseg.calibration.frames import CalibrationSet

    assert len(CalibrationSet.load(folder / "calibration.json").digest) == 64


def _read_ledger(folder: Path) -> None:
    from edgeseg.ledger import Ledger

    Ledger(folder, lambda text: None).stage("eval", {"a": 1}, [], dict, dict)


def _read_plan(folder: Path) -> None:
    from edgeseg.tensorrt.plan import Plan

    path = folder / "plan.json"
    Plan.parse(path.read_bytes(), path) if hasattr(Plan, "parse") else Plan.read(path)


def _read_checkpoint(folder: Path) -> None:
    from edgeseg.training import checkpoint

    checkpoint.load(folder / "net.pt")


def _read_baseline(folder: Path) -> None:
    from edgeseg.evaluation.gate import Measured

    Measured.load(folder / "baseline.json")


def make_seeds(root: Path) -> None:
    """A folder of sound files for each reader."""
    import tiny

    from edgeseg.synth.files import write_dataset

    network, data = tiny.network(root / "tiny.onnx"), root / "dataset"
    write_dataset(data, train=8, val=1, test=2, height=tiny.HEIGHT, width=tiny.WIDTH)
    _bundles(root, network)
    shutil.copytree(root / "bundles" / "onnxruntime-cpu", root / "signature")
    cli("keygen", root / "key.pem")
    cli("sign", root / "signature", "--key", root / "key.pem", *VERSION)
    shutil.copy(root / "key.pub.pem", root / "signature")
    shutil.copytree(root / "bundles" / "onnxruntime-cpu", root / "model signing")
    cli("keygen", root / "oms.pem", "--oms")
    cli("sign", root / "model signing", "--oms-key", root / "oms.pem")
    shutil.copy(root / "oms.pub.pem", root / "model signing" / "key.pub.pem")
    _copy(network, root / "onnx" / "net.onnx")
    _images(root)
    _texts(root, data)
    _checkpoint(root)
    _results(root, data)
    for folder in (HERE / "seeds").iterdir():
        shutil.copytree(folder, root / f"labels-{folder.name}")
    _labels(root)


def _labels(root: Path) -> None:
    """The labels in seeds/masks in every other format that can be written; the others have seeds of their own."""
    from edgeseg.data import formats
    from edgeseg.data.exporting import export_dataset
    from edgeseg.data.importing import import_dataset

    import_dataset(HERE / "seeds" / "masks", root / "labeled")
    known = root / "labeled-cityscapes"  # which knows no other classes
    shutil.copytree(root / "labeled", known)
    count = len((known / "classes.txt").read_text().splitlines())
    (known / "classes.txt").write_text("\n".join(formats.get("cityscapes").NAMES[:count]) + "\n")
    for name in formats.names():
        if hasattr(formats.get(name), "write") and not (root / f"labels-{name}").exists():
            export_dataset(known if name == "cityscapes" else root / "labeled", name, root / f"labels-{name}")


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)


def _bundles(root: Path, network: Path) -> None:
    """One for each backend that runs here."""
    from edgeseg import backends
    from edgeseg.target import Target, names

    done: set[str] = set()
    for target in sorted(map(Target.load, names()), key=lambda target: target.device != "CPU"):
        if target.backend not in done and not target.build_mode and not backends.missing(target):
            out = root / "bundles" / target.name
            assert cli("compile", network, "-t", target.name, "--golden", "synthetic", "-o", out) == 0
            shutil.copytree(out, root / f"bundle-{target.name}")
            done.add(target.backend)


def _images(root: Path) -> None:
    for name in ("image", "mask"):
        (root / name).mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    for suffix in ("png", "jpg", "webp", "bmp", "tif"):
        cv2.imwrite(str(root / "image" / f"image.{suffix}"), picture)
    cv2.imwrite(str(root / "image" / "image16.png"), picture.astype(np.uint16) << 4)
    cv2.imwrite(str(root / "mask" / "mask.png"), picture[:, :, 0] // 64)
    cv2.imwrite(str(root / "mask" / "mask1.png"), picture[:, :, 0] // 128 * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])


def _texts(root: Path, data: Path) -> None:
    from edgeseg import target
    from edgeseg.calibration.frames import CalibrationSet

    texts = {
        "classes/classes.txt": (data / "classes.txt").read_text(),
        "classes/classes-names.txt": "road\ncar\nsky\n",
        "recipe/recipe.toml": (HERE.parents[1] / "models/street/recipe.toml").read_text(),
        "spec/spec.toml": 'height = 64\nwidth = 96\nclasses = ["a", "b"]\nmean = [0.1, 0.2, 0.3]\nstd = [1, 1, 1]\n',
        "target/target.toml": target._files()["jetson-orin"].read_text(),
        "stream/stream.toml": STREAM,
        "uri/sources.txt": SOURCES,
        "uri/sinks.txt": SINKS,
        "ledger/ledger.json": json.dumps({"eval": {"inputs": "a" * 64, "outputs": [], "seconds": 1.5, "result": {}}}),
        "plan/plan.json": PLAN,
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    shutil.copytree(data / "train" / "images", root / "calibration" / "frames")
    CalibrationSet.choose(root / "calibration" / "frames", 8).save(root / "calibration" / "calibration.json")


def _checkpoint(root: Path) -> None:
    import tiny

    from edgeseg.recipe import NetConfig
    from edgeseg.training import checkpoint, nets

    net = NetConfig("fcn", width=0.25)
    (root / "checkpoint").mkdir()
    checkpoint.save(root / "checkpoint" / "net.pt", nets.build(net, len(tiny.SPEC.classes)), net, tiny.SPEC)


def _results(root: Path, data: Path) -> None:
    bundle, out = root / "bundles" / "onnxruntime-cpu", root / "report"
    (out).mkdir()
    (root / "baseline").mkdir()
    cli("eval", bundle, "--data", data, "--json", out / "eval.json")
    cli("bench", bundle, "--seconds", 1, "--json", out / "bench.json")
    cli("run", bundle, "--source", data / "test" / "images", "--json", out / "run.json")
    cli("baseline", bundle, "--data", data, "--out", root / "baseline" / "baseline.json")
    cli("gate", bundle, "--data", data, "--baseline", root / "baseline" / "baseline.json", "--json", out / "gate.json")


STREAM = """mode = "latency"
watchdog = 30
deadline_ms = 150
fallback = ["a/b"]
require_signature = "owner.pub"
metrics = "127.0.0.1:9100"

[[stream]]
name = "gate"
source = "rtsp://user:pw@camera/stream?timeout=5"
sinks = ["out/{name}.mp4", "webhook+http://host/x"]

[[stream]]
source = "synthetic://street"
"""
SOURCES = """rtsp://user:p%20w@camera:554/a/b?timeout=5&x=1
video.mp4
images/*.png
csi://0?width=1280
gate=rtsp://[::1]/x
synthetic://street
"""
SINKS = """out.mp4
masks/
results.jsonl
webhook+https://host/path?token=abc
rtsp://user:pw@server:8554/x
mjpeg://127.0.0.1:8090
"""
PLAN = json.dumps(
    {"target": "jetson-orin", "precision": "fp16", "int8": "", "flags": ["FP16"], "tensorrt": ["10.3"], "way": "native",
     "workspace_mb": 256, "dla": -1, "gpu_fallback": False, "opset": 17, "frame": "uint8", "shape": [1, 64, 96, 3],
     "timing_cache": "timing.cache", "golden_agreement": 0.99, "notes": [], "format": 1}, indent=1)  # fmt: skip
