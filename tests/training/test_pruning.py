"""Pruning removes whole channels down to the requested share, and never a class."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_helpers import SPEC, recipe

from edgeseg.data.dataset import Dataset
from edgeseg.errors import EdgesegError, OptionError
from edgeseg.profiling import measure
from edgeseg.profiling.layer import Layer
from edgeseg.recipe import NetConfig, Recipe, Settings
from edgeseg.spec import Spec
from edgeseg.training import checkpoint, importance, nets, pruning, stages
from edgeseg.training.complexity import layer_shapes, macs_params, total_cost
from edgeseg.training.importance import taylor_importance
from edgeseg.training.latency_meter import LatencyMeter
from edgeseg.training.loader import SegmentationDataset, batches
from edgeseg.training.objectives.objective import Objective

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nets.build(NetConfig("lite", width=0.75), 5).eval()


@pytest.mark.parametrize("keep", [0.8, 0.7, 0.5])
def test_the_share_of_macs_is_met_closely(model: nn.Module, keep: float) -> None:
    before = macs_params(model, SIZE)[0]
    pruned = pruning.prune(model, SIZE, keep, round_to=4)
    assert 0.85 * keep < macs_params(pruned, SIZE)[0] / before <= keep
    assert macs_params(model, SIZE)[0] == before, "the original is untouched"
    assert pruned(torch.zeros(2, 3, *SIZE)).shape == (2, 5, *SIZE)


def test_channels_stay_multiples_of_round_to(model: nn.Module) -> None:
    pruned = pruning.prune(model, SIZE, 0.6, round_to=8)
    head = nets.head(pruned)
    assert {m.out_channels % 8 for m in pruned.modules() if isinstance(m, nn.Conv2d) and m not in head} == {0}


@pytest.mark.parametrize("keep", [0.7, 0.5])
def test_layers_side_by_side_in_a_concatenation_are_rounded_each_for_itself(keep: float) -> None:
    """A depthwise convolution reads DeepLabV3+'s concatenation: what two layers make leaves in one group, and what
    leaves of which must be known to meet the goal."""
    torch.manual_seed(0)
    net = nets.build(NetConfig("deeplabv3plus", "tu-mobilenetv3_small_050"), 5).eval()
    scores = {name: torch.rand(len(m.weight)) for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    pruned = pruning.prune(net, SIZE, keep, round_to=8, importance=scores)
    before = macs_params(net, SIZE)[0]
    assert 0.95 * keep < macs_params(pruned, SIZE)[0] / before <= keep
    decoder = {n: m.out_channels for n, m in pruned.decoder.named_modules() if isinstance(m, nn.Conv2d)}
    assert {n: width for n, width in decoder.items() if width % 8} == {}
    assert decoder["block1.0"] < 48 and decoder["aspp.1.1"] < 256  # both were cut


def test_the_least_important_channels_go_first(model: nn.Module) -> None:
    """Channels with weights near zero can be removed without changing the outputs."""
    quiet = nets.build(NetConfig("lite", width=0.75), 5).eval()
    with torch.no_grad():
        for block in quiet.encoder.stages[3][1].first, quiet.encoder.stages[4][1].first:
            half = block[0].out_channels // 2
            for tensor in (block[0].weight, block[1].weight, block[1].bias):
                tensor[:half] *= 1e-4
        for block in quiet.encoder.stages[3][1].second, quiet.encoder.stages[4][1].second:
            block[0].weight[:, : block[0].in_channels // 2] *= 1e-4
            block[1].weight.fill_(1)
    pruned = pruning.prune(quiet, SIZE, 0.93, round_to=8)
    image = torch.randn(1, 3, *SIZE)
    assert pruned.encoder.stages[3][1].first[0].out_channels < quiet.encoder.stages[3][1].first[0].out_channels
    with torch.no_grad():
        torch.testing.assert_close(pruned(image), quiet(image), atol=1e-2, rtol=1e-2)


def test_keeping_everything_changes_nothing(model: nn.Module) -> None:
    assert macs_params(pruning.prune(model, SIZE, 1.0), SIZE) == macs_params(model, SIZE)


def test_a_share_that_cannot_be_reached(model: nn.Module) -> None:
    with pytest.raises(EdgesegError, match=r"cannot bring this net to 1%.*\nRaise prune\.macs"):
        pruning.prune(model, SIZE, 0.01)


def widths(model: nn.Module) -> dict[str, int]:
    return {name: m.out_channels for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def test_no_layer_keeps_less_than_a_fifth_of_its_parent_s_in_all_rounds(model: nn.Module) -> None:
    pruned = model
    for keep in (0.5, 0.25, 0.13):
        pruned = pruning.prune(pruned, SIZE, keep, round_to=4, parent=model)
        assert macs_params(pruned, SIZE)[0] <= keep * macs_params(model, SIZE)[0]
    before = widths(model)
    assert all(left >= 0.2 * before[name] for name, left in widths(pruned).items())


# Costs: what drives the pruning


def test_layers_add_up_to_the_net(model: nn.Module) -> None:
    assert sum(layer.macs for layer in layer_shapes(model, SIZE).values()) == macs_params(model, SIZE)[0]


def test_channels_leave_where_the_cost_is(model: nn.Module) -> None:
    """Where only maps at stride 2 and 4 cost anything, only what touches them is cut."""

    def cost(layer: Layer) -> float:
        return float(layer.macs if layer.size[0] >= SIZE[0] // 4 else 0)

    cheap = pruning.prune(model, SIZE, 0.6, round_to=4, cost=cost)
    assert total_cost(cheap, SIZE, cost) <= 0.6 * total_cost(model, SIZE, cost)
    before, after = widths(model), widths(cheap)
    cut = {name for name in before if after[name] < before[name]}
    assert cut and not any(name.startswith(("encoder.stages.3", "encoder.stages.4", "context")) for name in cut)


def test_a_cost_in_steps_is_cut_to_the_edge_of_a_step() -> None:
    """Channels cost in blocks of 16 here: cutting 8 saves nothing, so layers end on the edge of a stair."""
    torch.manual_seed(0)
    net = nets.build(NetConfig("lite", width=2), 5).eval()

    def cost(layer: Layer) -> float:
        return float(-(-layer.outputs // 16) * layer.inputs * layer.out[0] * layer.out[1])

    pruned = pruning.prune(net, SIZE, 0.7, round_to=8, cost=cost)
    before, after = widths(net), widths(pruned)
    ends = [after[name] % 16 for name in before if after[name] < before[name]]
    assert len(ends) > 5 and ends.count(0) >= 0.8 * len(ends)


def test_the_whole_is_measured_and_cut_again_where_the_sum_was_wrong(model: nn.Module) -> None:
    """A runtime whose fixed part no layer explains: 30 % of the time stays whatever is cut."""
    full = total_cost(model, SIZE, None)
    measured_shares: list[float] = []

    def measure(net: nn.Module) -> float:
        measured_shares.append(0.3 + 0.7 * macs_params(net, SIZE)[0] / full)
        return measured_shares[-1]

    def cost(layer: Layer) -> float:
        return float(layer.macs)

    pruned = pruning.prune_to_latency(model, SIZE, 0.6, 4, "magnitude", cost, model, measure)
    assert 1 < len(measured_shares) <= 3 and measured_shares[0] > 0.6, "the sum alone cuts too little"
    assert 0.9 * 0.6 < 0.3 + 0.7 * macs_params(pruned, SIZE)[0] / full <= 0.6
    with pytest.raises(EdgesegError, match=r"to 28% of its latency\..*\nRaise prune\.latency or lower prune\.round_to"):
        pruning.prune_to_latency(model, SIZE, 0.28, 4, "magnitude", cost, model, measure)


# Importance


def test_taylor_importance_is_the_gradient_of_gates(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside gates that are really there: multiply each module's output by ones, and ask autograd."""
    monkeypatch.setattr(importance, "BATCHES", 1)
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
    net = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), up, nn.ReLU(),
                        nn.Conv2d(4, 3, 1)).eval()  # fmt: skip
    settings, train = Settings(batch=2), SegmentationDataset(Dataset.open(root, "train"), SPEC, Settings(batch=2))
    scores = taylor_importance(net, train, settings, seed=3)
    assert set(scores) == {"1", "2", "4", "6"}
    gates = {name: torch.ones(len(own), requires_grad=True) for name, own in scores.items()}
    for name, gate in gates.items():
        net.get_submodule(name).register_forward_hook(lambda m, args, out, gate=gate: out * gate[:, None, None])
    torch.manual_seed(3)
    objective = Objective(settings, 3)
    images, labels, *_ = next(batches(train, 2, 0, True))
    objective(net, images, labels).backward()  # type: ignore[no-untyped-call]
    for name, gate in gates.items():
        assert gate.grad is not None and gate.grad.any()
        torch.testing.assert_close(scores[name], gate.grad.square(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("kind", ["magnitude", "bn", "taylor"])
def test_each_importance_finds_channels_that_do_nothing(kind: str, root: Path) -> None:
    torch.manual_seed(0)
    net = nets.build(NetConfig("lite", width=0.75), 3).eval()
    block: Any = net.encoder.stages[3][1].first  # type: ignore[union-attr,index]
    idle = [1, 4, 5, 8, 10, 13, 16, 20, 23, 25, 30, 31]
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d) and not m.weight.any():
                m.weight.fill_(1)  # the last norm of a residual block starts at 0
        block[1].bias.fill_(1)  # no ReLU is dead by chance
        for tensor in (block[0].weight, block[1].weight, block[1].bias):
            tensor[idle] *= 1e-3
        reader: Any = net.encoder.stages[3][1].second  # type: ignore[union-attr,index]
        reader[0].weight[:, idle] *= 1e-3
    train = SegmentationDataset(Dataset.open(root, "train"), SPEC, Settings(batch=2))
    by = taylor_importance(net, train, Settings(batch=2), 0) if kind == "taylor" else kind
    pruned: Any = pruning.prune(net, SIZE, 0.9, round_to=4, importance=by)
    left = pruned.encoder.stages[3][1].first[0].weight.abs().amax((1, 2, 3))
    gone = block[0].out_channels - len(left)
    idle_left = int((left < 0.01).sum())
    assert gone >= 4 and len(idle) - idle_left == min(gone, len(idle)), "idle channels go first"
    assert all(p.grad is None for p in pruned.parameters())


def test_importance_that_does_not_exist_or_lacks_gradients(model: nn.Module) -> None:
    with pytest.raises(OptionError, match=r"Unknown importance 'tailor'\.\nDid you mean 'taylor'"):
        pruning.prune(model, SIZE, 0.7, importance="tailor")
    with pytest.raises(EdgesegError, match="Taylor importance needs gradients of the loss"):
        pruning.prune(model, SIZE, 0.7, importance="taylor")


# Nets whose channels hang together in other ways


@pytest.mark.parametrize(
    "net",
    [
        NetConfig("segformer", "mit_b0"),  # attention: IndexError in torch-pruning unless it is left alone
        NetConfig("ddrnet", width=0.5),  # skips between branches
        NetConfig("liteseg", width=0.5),  # concatenations
        NetConfig("fpn", "tu-regnetx_002"),  # grouped convolutions and group norms
        NetConfig("pspnet", "tu-mobilenetv3_small_050"),  # depthwise convolutions and gates
    ],
    ids=lambda n: n.arch,
)
def test_skips_concatenations_groups_and_attention(net: NetConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = nets.build(net, 3).eval()
    pruned = pruning.prune(whole, SIZE, 0.7, round_to=4)
    assert 0.85 * 0.7 < macs_params(pruned, SIZE)[0] / macs_params(whole, SIZE)[0] <= 0.7
    loaded, *_ = checkpoint.load(checkpoint.save(tmp_path / "m.pt", pruned, net, SPEC))
    image = torch.randn(1, 3, *SIZE)
    with torch.inference_mode():
        assert torch.equal(loaded(image), pruned(image))


# On a target


@pytest.fixture
def meter(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LatencyMeter:
    monkeypatch.setattr(measure, "MAX_SECONDS", 0.02)
    monkeypatch.setattr(measure, "PAIRS", 3)
    pytest.importorskip("onnxruntime")
    config = recipe(targets={"compile": ["onnxruntime-cpu:fp32"]}, prune={"round_to": 8})
    spec = Spec(*SIZE, tuple("abcde"))
    return LatencyMeter(config, spec, model, tmp_path / "latency.json")


def test_a_net_is_cut_by_a_table_of_measured_layers(meter: LatencyMeter, model: nn.Module) -> None:
    """Real figures of a busy machine: only their sum can be asserted."""
    pruned = pruning.prune(model, SIZE, 0.7, cost=meter.layer_ms)
    assert total_cost(pruned, SIZE, meter.layer_ms) <= 0.7 * total_cost(model, SIZE, meter.layer_ms)
    assert len(meter.table.measured.layers) > 20
    measured = meter.compare(pruned)
    again = LatencyMeter(recipe(targets={"compile": ["onnxruntime-cpu:fp32"]}), meter.spec, model, meter.table.path)
    assert again.compare(pruned) == measured, "a run that continues decides on the same figures"


def test_a_net_that_is_slower_than_its_parent_is_refused(meter: LatencyMeter, model: nn.Module) -> None:
    torch.manual_seed(0)
    wider = nets.build(NetConfig("lite", width=4), 5).eval()
    with pytest.raises(EdgesegError, match=r"The pruned net takes .* ms on onnxruntime-cpu in fp32, its parent .* ms"):
        meter.require_no_slower(wider)


def test_a_board_cannot_drive_from_here(model: nn.Module, tmp_path: Path) -> None:
    config = recipe(targets={"compile": ["jetson-orin:fp16"]})
    meter = LatencyMeter(config, Spec(*SIZE, tuple("abcde")), model, tmp_path / "latency.json")
    with pytest.raises(EdgesegError, match=r"Latency cannot drive the pruning here: jetson-orin .*\nLet MACs drive it"):
        meter.require_available()


# The stage


def student_and_teacher(config: Recipe, folder: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    paths = []
    for name, role in (("student", config.student), ("teacher", config.teacher)):
        paths.append(checkpoint.save(folder / f"{name}.pt", nets.build(role.net, 3), role.net, SPEC))
    return paths[0], paths[1]


def test_rounds_alternate_pruning_and_training_and_resume(root: Path, tmp_path: Path) -> None:
    config = recipe(
        prune={"rounds": 2, "epochs": 3, "round_to": 2, "macs": 0.6, "importance": "taylor"},
        targets={"compile": ["jetson-orin:fp16"]},  # which cannot be timed here
    )
    student, teacher = student_and_teacher(config, tmp_path)
    path = stages.prune_student(config, student, teacher, root, tmp_path)
    first = json.loads((tmp_path / "pruned" / "round1.json").read_text())
    last = json.loads(path.with_suffix(".json").read_text())
    assert (len(first["history"]), len(last["history"])) == (1, 2), "the epochs are spread over the rounds"
    full = last["pruned_from_macs"]
    assert 0.9 * 0.6**0.5 < first["macs"] / full <= 0.6**0.5, "half of the way"
    assert 0.9 * 0.6 < last["macs"] / full <= 0.6
    assert "builds its engines on the board" in last["latency"]
    before = path.read_bytes()
    path.unlink()
    (tmp_path / "pruned" / "round1.pt").unlink()
    assert stages.prune_student(config, student, teacher, root, tmp_path).read_bytes() == before


def test_latency_drives_the_pruning_and_is_measured_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a predictable clock: layers and nets take as long as they have weights."""
    timed: list[str] = []

    def time_layer(layer: Layer, target: Any, precision: str) -> float:
        timed.append(str(layer))
        return float(layer.inputs * layer.outputs // layer.groups * layer.kernel[0] * layer.kernel[1])

    def race(parent: Any, child: Any, target: Any, precision: str) -> measure.LatencyComparison:
        timed.append("race")
        one, two = (sum(math.prod(w.dims) for w in g.graph.initializer) for g in (parent, child))
        return measure.LatencyComparison(one, two, two / one, two / one)

    monkeypatch.setattr(measure, "time_layer", time_layer)
    monkeypatch.setattr(measure, "compare", race)
    config = recipe(prune={"latency": 0.6, "epochs": 1, "round_to": 2})
    student, teacher = student_and_teacher(config, tmp_path)
    path = stages.prune_student(config, student, teacher, root, tmp_path)
    latency_row = json.loads(path.with_suffix(".json").read_text())["latency"]
    assert 0.9 * 0.6 < latency_row["share"] <= 0.6
    assert (latency_row["target"], latency_row["precision"]) == ("openvino-cpu", "fp32")
    params = [sum(p.numel() for p in checkpoint.load(p)[0].parameters()) for p in (student, path)]
    assert params[1] < 0.65 * params[0]
    before, count = path.read_bytes(), len(timed)
    path.unlink()
    assert stages.prune_student(config, student, teacher, root, tmp_path).read_bytes() == before
    assert len(timed) == count, "a run that continues measures nothing again"


def test_more_rounds_than_epochs() -> None:
    with pytest.raises(OptionError, match=r"prune\.rounds is 3\.\nExpected at most prune\.epochs, 2"):
        recipe(prune={"rounds": 3, "epochs": 2})
