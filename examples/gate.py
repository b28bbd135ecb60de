"""Gate a release from Python: python examples/gate.py [--bundle B --parent P --data D]

The gate answers pass, fail or undecided, the first two only with 95 % confidence. In CI the command line is enough; see
docs/ci in the repository.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from edgeseg.synth.files import write_dataset

parser = argparse.ArgumentParser(description="May this bundle replace its parent?")
parser.add_argument("--bundle", default="models/street/street-int8")
parser.add_argument("--parent", default="models/street/street-fp32")
parser.add_argument("--data", type=Path, default=Path("gate-data"))
options = parser.parse_args()

if not options.data.is_dir():
    write_dataset(options.data, train=1, val=1, test=30)
words = ["gate", options.bundle, "--parent", options.parent, "--data", options.data, "--max-drop", "2", "--json", "-"]
done = subprocess.run([sys.executable, "-m", "edgeseg", *map(str, words)], stdout=subprocess.PIPE, text=True)
if done.returncode not in (0, 1, 3):
    sys.exit(done.returncode)
for check in json.loads(done.stdout)["checks"]:
    print(f"{check['verdict']:9} {check['name']}: {check['text']}")
print({0: "ship it", 1: "do not ship it", 3: "undecided: label more frames"}[done.returncode])
