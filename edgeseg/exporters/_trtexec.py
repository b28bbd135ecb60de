"""A script that builds a TensorRT engine where it will run, with the settings of a bundle's plan."""

from __future__ import annotations

from pathlib import Path

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, OptionError
from edgeseg.tensorrt.plan import FILE, Plan

FLAGS = {"FP16": "fp16", "INT8": "int8"}  # of plans, in trtexec's words
SCRIPT = """#!/bin/sh
# Builds {engine} from {model} with this machine's TensorRT (minutes on a small board).
# An engine runs on the GPU and the TensorRT that built it only: build it where, and in the container in which, it runs.
set -eu
cd "$(dirname "$0")"
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
if [ ! -x "$trtexec" ]; then
    echo "trtexec was not found. It comes with TensorRT (on a Jetson: sudo apt install libnvinfer-bin)." >&2
    exit 2
fi
help=$("$trtexec" --help 2>&1 || true)
set -- "--onnx={model}" "--saveEngine={engine}.tmp" --skipInference{device}
for flag in {flags}; do
    case $help in *"--$flag"*) set -- "$@" "--$flag" ;; esac # TensorRT 11 takes the types of the graph instead
done
case $help in *--memPoolSize*) set -- "$@" "--memPoolSize=workspace:{workspace}" ;; esac
"$trtexec" "$@"
mv "{engine}.tmp" "{engine}"
"""


def refuse(bundle: Bundle, title: str) -> None:
    """OptionError for INT8 whose ranges only edgeseg's own calibrator finds, on the device."""
    if plan(bundle).int8 == "entropy":
        raise OptionError(
            f"{title} cannot serve {bundle.name}: its INT8 ranges are found on the device, by edgeseg build.",
            "Compile it without --entropy: the ranges are then in the graph.",
        )


def plan(bundle: Bundle) -> Plan:
    return Plan.parse(bundle.read(FILE), bundle.path / FILE)


def write(bundle: Bundle, script: Path, model: str, engine: str) -> None:
    """`model` and `engine`: paths relative to the script's folder. BundleError for a plan with unknown flags."""
    made = plan(bundle)
    if unfit := next((flag for flag in made.flags if flag not in FLAGS), None):
        raise BundleError(f"{bundle.path / FILE}: unknown flag {unfit[:40]!r}.", f"Known: {', '.join(FLAGS)}.")
    device = f" --useDLACore={made.dla} --allowGPUFallback" if made.dla >= 0 else ""
    flags = " ".join(FLAGS[flag] for flag in made.flags) or "noTF32"
    text = SCRIPT.format(model=model, engine=engine, device=device, flags=flags, workspace=made.workspace_mb)
    script.write_text(text)
    script.chmod(0o755)
