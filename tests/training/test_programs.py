"""TorchScript and ExportedProgram become the ONNX that torch computes, and are not run unless they are trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra edgeseg[train]")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, which people still have files of

from edgeseg.errors import FileError, OptionError  # noqa: E402
from edgeseg.training.programs import export_program  # noqa: E402


class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, named: bool = False) -> None:
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8)
        self.last, self.named = torch.nn.Conv2d(8, 5, 1), named

    def forward(self, x: Any) -> Any:
        y = self.last(torch.relu(self.norm(self.first(x))))
        y = torch.nn.functional.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return {"out": y} if self.named else y


def saved(kind: str, path: Path) -> Any:
    """The network in a file; the network itself."""
    torch.manual_seed(0)
    net, image = Net(named=kind == "named").eval(), torch.zeros(1, 3, 64, 96)
    if kind in ("exported", "named"):
        torch.export.save(torch.export.export(net, (image,)), path)
    elif kind == "scripted":
        torch.jit.save(torch.jit.script(torch.nn.Sequential(net.first, net.norm, net.last)), path)
        return torch.nn.Sequential(net.first, net.norm, net.last)
    else:
        torch.jit.save(torch.jit.trace(net, image), path)
    return net


@pytest.mark.parametrize(("kind", "name"), [("traced", "a.pt"), ("named", "b.pt2"), ("scripted", "a.jit")])
def test_a_program_computes_the_same_as_onnx(kind: str, name: str, tmp_path: Path) -> None:
    net = saved(kind, tmp_path / name)
    path = export_program(tmp_path / name, tmp_path / "a.onnx", (64, 96) if kind in ("traced", "scripted") else None)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = net(image)
    found = onnxruntime.InferenceSession(str(path)).run(None, {"image": image.numpy()})
    np.testing.assert_allclose(found[0], expected["out"] if kind == "named" else expected, atol=1e-5)


def test_compile_runs_a_program_only_if_it_is_trusted(edgeseg: Callable[..., Any], tmp_path: Path) -> None:
    saved("exported", tmp_path / "net.pt2")
    flags = ("--mean", "0,0,0", "--std", "1,1,1", "--color", "RGB", "-o", tmp_path / "out")
    refused = edgeseg("compile", tmp_path / "net.pt2", *flags)
    assert refused.code == 2 and "to read it is to run what it holds" in refused.err
    assert f"edgeseg compile {tmp_path / 'net.pt2'} --trust" in refused.err and "torch.onnx.export(" in refused.err
    assert not (tmp_path / "net.onnx").exists()
    ran = edgeseg("compile", tmp_path / "net.pt2", "--trust", *flags)
    assert ran.code == 0 and (tmp_path / "out/bundle.json").is_file(), ran.err


def test_a_program_of_edgeseg_carries_its_spec(tmp_path: Path) -> None:
    from edgeseg.compile import spec_of
    from edgeseg.spec import ONNX_KEY, Spec

    spec = Spec(64, 96, tuple("abcde"), mean=(0, 0, 0), std=(1, 1, 1))
    traced = torch.jit.trace(Net().eval(), torch.zeros(1, 3, 64, 96))
    torch.jit.save(traced, tmp_path / "a.ts", _extra_files={ONNX_KEY: json.dumps(spec.to_dict())})
    assert spec_of(export_program(tmp_path / "a.ts", tmp_path / "a.onnx"), {}) == (spec, [])


def test_bad_input(tmp_path: Path) -> None:
    saved("traced", tmp_path / "a.ts")
    with pytest.raises(OptionError, match="does not say its input size"):
        export_program(tmp_path / "a.ts", tmp_path / "a.onnx")
    saved("exported", tmp_path / "a.pt2")
    with pytest.raises(OptionError, match="does not run at 64x64"):
        export_program(tmp_path / "a.pt2", tmp_path / "a.onnx", (64, 64))
    data = bytearray((tmp_path / "a.ts").read_bytes())
    data[100:4000] = bytes(3900)
    (tmp_path / "b.ts").write_bytes(bytes(data))
    with pytest.raises(FileError, match=r"b\.ts cannot be read"):
        export_program(tmp_path / "b.ts", tmp_path / "b.onnx", (64, 96))
    assert not (tmp_path / "a.onnx").exists()
