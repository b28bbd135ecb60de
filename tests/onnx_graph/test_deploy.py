"""Graphs as exporters write them: what is cut, what stays, and that the bundle agrees with its parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from tiny import HEIGHT, PAIR, SPEC, WIDTH, Net

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, numpy_helper

from edgeseg import onnx_graph
from edgeseg.compile import compile_model
from edgeseg.errors import EdgesegError, OptionError
from edgeseg.runtime import open_segmenter
from edgeseg.spec import Spec
from edgeseg.target import Target

C = len(SPEC.classes)


@dataclass(frozen=True)
class Case:
    """An exported network, how it is compiled, and what the deploy graph must contain."""

    model: Any
    upsample: str = "half_pixel"
    spec: Spec = SPEC
    output: str = ""
    largest: str = ""  # the output that is read where none is named
    layout: str = "NCHW"
    gone: tuple[str, ...] = ("Resize",)  # operators that the deploy graph must not have
    kept: tuple[str, ...] = ()  # and those it must have


def plain() -> Case:
    net = Net()
    return Case(net.model(net.resize(net.head("image", C))), gone=("Resize", "BatchNormalization", "Gather"))


def align_corners() -> Case:
    net = Net()
    return Case(net.model(net.resize(net.head("image", C), "align_corners", [1, C, HEIGHT, WIDTH])), "align_corners")


def asymmetric() -> Case:
    net = Net()
    return Case(net.model(net.resize(net.head("image", C), "asymmetric")), "asymmetric")


def pytorch_half_pixel() -> Case:
    net = Net()
    return Case(net.model(net.resize(net.head("image", C), "pytorch_half_pixel")))


def tail(*ops: tuple[str, dict[str, Any]], **case: Any) -> Callable[[], Case]:
    """`ops` one after another behind the Resize."""

    def build() -> Case:
        net = Net()
        x = net.resize(net.head("image", case.get("spec", SPEC) is PAIR or C))
        for op, attributes in ops:
            x = net.add(op, x, **attributes)
        gone = ("Resize", *(op for op, _ in ops if op != "Cast"))
        return Case(net.model(x), gone=gone, **case)

    return build


def squeezed() -> Case:
    net = Net()
    x = net.add("ArgMax", net.resize(net.head("image", C)), axis=1, keepdims=1)
    x = net.add("Squeeze", x, net.constant([1], kind=np.int64))
    return Case(net.model(net.add("Cast", x, to=TensorProto.UINT8)), gone=("Resize", "ArgMax", "Squeeze"))


def argmax_as_float() -> Case:
    net = Net()
    x = net.add("ArgMax", net.resize(net.head("image", C)), axis=-3, keepdims=1)
    return Case(net.model(net.add("Cast", x, to=TensorProto.FLOAT)), gone=("Resize", "ArgMax"))


def argmax_without_resize() -> Case:
    net = Net()
    x = net.head("image", C)
    return Case(net.model(net.add("ArgMax", net.resize(x, kind="nearest"), axis=1)), "none", gone=("ArgMax",))


def nearest() -> Case:
    net = Net()
    x = net.resize(net.head("image", C), "asymmetric", kind="nearest", nearest_mode="floor")
    return Case(net.model(net.add("Softmax", x, axis=1)), "none", gone=("Softmax",), kept=("Resize",))


def cubic() -> Case:
    net = Net()
    return Case(net.model(net.resize(net.head("image", C), kind="cubic")), "none", gone=(), kept=("Resize",))


def to_another_size() -> Case:
    net = Net()
    x = net.resize(net.head("image", C), sizes=[1, C, HEIGHT // 2, WIDTH // 2])
    return Case(net.model(x), gone=(), kept=("Resize",))


def down_to_the_size() -> Case:
    net = Net()
    x = net.resize(net.resize(net.head("image", C)), sizes=[1, C, 2 * HEIGHT, 2 * WIDTH])
    x = net.resize(x, sizes=[1, C, HEIGHT, WIDTH])
    return Case(net.model(x), "none", gone=(), kept=("Resize",))


def scale_that_is_not_the_ratio_of_sizes() -> Case:
    """66 x 99 from 33 x 50 by the scales 2.02 and 1.99: ONNX samples with those, not with the ratio of the sizes."""
    net = Net()
    x = net.conv(net.add("Relu", net.conv("image", 3, 8, stride=2)), 8, C, size=1)
    scales = net.constant([1, 1, 2.02, 1.99], kind=np.float32)
    x = net.add("Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
    spec = replace(SPEC, height=66, width=99)
    return Case(net.model(x, shape=(1, 3, 66, 99)), "none", spec=spec, gone=(), kept=("Resize",))


def softmax_before_resize() -> Case:
    net = Net()
    x = net.resize(net.add("Softmax", net.head("image", C), axis=1))
    return Case(net.model(x), kept=("Softmax",))


def softmax_over_rows() -> Case:
    net = Net()
    x = net.add("Softmax", net.resize(net.head("image", C)), axis=2)
    return Case(net.model(x), "none", gone=(), kept=("Softmax", "Resize"))


def two_resizes() -> Case:
    net = Net()
    x = net.add("Relu", net.resize(net.head("image", 8), sizes=[1, 8, HEIGHT // 2, WIDTH // 2]))
    x = net.resize(net.conv(x, 8, C), "align_corners", sizes=[1, C, HEIGHT, WIDTH])
    return Case(net.model(x), "align_corners", gone=(), kept=("Resize",))


def low_resolution() -> Case:
    net = Net()
    return Case(net.model(net.head("image", C)), gone=())


def full_resolution() -> Case:
    net = Net()
    x = net.add("Relu", net.norm(net.conv("image", 3, 8), 8))
    return Case(net.model(net.conv(x, 8, C)), "none", gone=("BatchNormalization",))


def sigmoid(*, before: bool, cast: bool = False) -> Callable[[], Case]:
    def build() -> Case:
        net = Net(3)
        x = net.head("image", 1)
        x = net.resize(net.add("Sigmoid", x)) if before else net.add("Sigmoid", net.resize(x))
        x = net.add("Cast", x, to=TensorProto.DOUBLE) if cast else x
        gone = ("Resize",) if before else ("Resize", "Sigmoid")
        return Case(net.model(x), spec=PAIR, gone=gone, kept=("Sigmoid",) if before else ())

    return build


def sigmoid_low_resolution() -> Case:
    net = Net(3)
    return Case(
        net.model(net.add("Cast", net.add("Sigmoid", net.head("image", 1)), to=1)), spec=PAIR, gone=("Sigmoid",)
    )


def sigmoid_then_cast_then_resize() -> Case:
    net = Net(3)
    x = net.add("Cast", net.add("Sigmoid", net.head("image", 1)), to=TensorProto.FLOAT)
    return Case(net.model(net.resize(x)), spec=PAIR, kept=("Sigmoid",))


def sigmoid_squeezed() -> Case:
    net = Net(3)
    x = net.add("Squeeze", net.add("Sigmoid", net.resize(net.head("image", 1))), net.constant([1], kind=np.int64))
    return Case(net.model(x), spec=PAIR, gone=("Resize", "Sigmoid", "Squeeze"))


def argmax_of_one_image() -> Case:
    """out[0].argmax(0), as much example code ends."""
    net = Net()
    x = net.add("Squeeze", net.resize(net.head("image", C)), net.constant([0], kind=np.int64))
    return Case(net.model(net.add("ArgMax", x, axis=0, keepdims=0)), gone=("Resize", "ArgMax", "Squeeze"))


def one_logit() -> Case:
    net = Net(3)
    return Case(net.model(net.resize(net.head("image", 1))), spec=PAIR)


def nhwc() -> Case:
    net = Net()
    x = net.add("Transpose", "image", perm=[0, 3, 1, 2])
    return Case(net.model(net.resize(net.head(x, C)), shape=(1, HEIGHT, WIDTH, 3)), layout="NHWC", kept=("Gather",))


def dynamic() -> Case:
    """As exporters write F.interpolate(x, size=image.shape[-2:]): sizes computed while the network runs."""
    net = Net()
    logits = net.head("image", C)
    size = net.add("Shape", "image")
    indices = [net.constant(i, kind=np.int64) for i in (2, 3)]
    parts = [net.add("Unsqueeze", net.add("Gather", size, i), net.constant([0], kind=np.int64)) for i in indices]
    half = net.constant([2], kind=np.int64)
    parts = [net.add("Mul", net.add("Div", part, half), half) for part in parts]
    start = net.add("Slice", net.add("Shape", logits), *(net.constant([i], kind=np.int64) for i in (0, 2)))
    x = net.resize(logits, sizes=net.add("Concat", start, *parts, axis=0))
    gone = ("Resize", "Shape", "Gather", "Concat", "Slice", "Unsqueeze", "Div")
    return Case(net.model(x, shape=("n", 3, "h", "w")), gone=gone)


def half(spec: Spec) -> Callable[[], Case]:
    def build() -> Case:
        net = Net(3, np.float16)
        return Case(net.model(net.resize(net.head("image", C if spec is SPEC else 1))), spec=spec)

    return build


def clashing_names() -> Case:
    """A network that already uses every name of the deploy graph."""
    net = Net()
    x = net.add("Relu", net.conv("frame", 3, 8, stride=2, name="pre_Sub"), name="logits")
    x = net.add("Relu", net.norm(net.conv(x, 8, 16, stride=2, name="pre_float"), 16, "bn", prefix="bn"), name="pre_rgb")
    x = net.add("Mul", x, net.constant(1.5, "pre_Sub_value"), name="pre_nchw")
    x = net.add("Add", x, net.constant(0.25, "pre_Mul_value"), name="pre_Mul")
    x = net.add("Add", x, net.constant(0.25, "inner_frame"), name="inner_logits")
    x = net.conv(x, 16, C, size=1, name="pre_order")
    return Case(net.model(net.resize(x), entry="frame"), gone=("Resize", "BatchNormalization"))


def clashing_names_of_one_logit() -> Case:
    net = Net(3)
    x = net.add("Add", net.head("image", 1, name="both"), net.constant(0.25, "background"), name="with_background")
    return Case(net.model(net.resize(x)), spec=PAIR)


def chosen_output() -> Case:
    net = Net()
    features = net.add("Relu", net.norm(net.conv("image", 3, 8, stride=2), 8))
    aux = net.resize(net.conv(features, 8, C, size=1, stride=2), "align_corners", [1, C, HEIGHT, WIDTH])
    main = net.resize(net.conv(net.conv(features, 8, 8, stride=2), 8, C))
    return Case(net.model(aux, main), output=main)


def largest_of_several_outputs() -> Case:
    net = Net()
    features = net.add("Relu", net.norm(net.conv("image", 3, 8, stride=2), 8))
    aux = net.conv(features, 8, C, size=1, stride=2)
    main = net.resize(net.conv(net.conv(features, 8, 8, stride=2), 8, C))
    return Case(net.model(aux, main), largest=main)


def conv_used_twice() -> Case:
    """The convolution's own result is used beside the BatchNormalization: folding would change it."""
    net = Net()
    x = net.conv("image", 3, 8, stride=4)
    x = net.add("Add", net.add("Relu", net.norm(x, 8)), x)
    return Case(net.model(net.resize(net.conv(x, 8, C))), kept=("BatchNormalization",))


def norm_before_conv() -> Case:
    net = Net()
    x = net.add("Relu", net.norm(net.add("Relu", net.conv("image", 3, 8, stride=4)), 8))
    return Case(net.model(net.resize(net.conv(x, 8, C))), kept=("BatchNormalization",))


def norm_of_the_input() -> Case:
    net = Net()
    return Case(net.model(net.resize(net.head(net.norm("image", 3), C))), kept=("BatchNormalization",))


def shared_weights() -> Case:
    """One weight tensor in two convolutions, one of them on the image: neither may change the other's."""
    net = Net()
    weight = net.constant(net.random.normal(0, 0.2, (3, 3, 3, 3)))
    x = net.conv("image", 3, 3, stride=2, weight=weight)
    x = net.add("Relu", net.conv(x, 3, 3, stride=2, weight=weight))
    return Case(net.model(net.resize(net.conv(x, 3, C))), kept=("Gather",))


def image_used_twice() -> Case:
    net = Net()
    a, b = net.conv("image", 3, 8, stride=4), net.conv("image", 3, 8, stride=4)
    return Case(net.model(net.resize(net.conv(net.add("Add", a, b), 8, C))), kept=("Gather",))


def bgr() -> Case:
    net = Net()
    model = net.model(net.resize(net.head("image", C)))
    return Case(model, spec=replace(SPEC, color="BGR", mean=(0.5, 0.3, 0.1), std=(0.2, 0.4, 0.6)))


def rgb_uneven() -> Case:
    return replace(bgr(), spec=replace(SPEC, mean=(0.5, 0.3, 0.1), std=(0.2, 0.4, 0.6)))


def grouped_first_conv() -> Case:
    net = Net()
    weight = net.constant(net.random.normal(0, 0.3, (6, 1, 3, 3)))
    x = net.add("Conv", "image", weight, group=3, strides=[2, 2], pads=[1] * 4)
    x = net.conv(net.add("Relu", net.norm(x, 6)), 6, C, stride=2)
    return Case(net.model(net.resize(x)), gone=("Resize", "BatchNormalization"), kept=("Gather",))


def depthwise_and_transposed() -> Case:
    """Normalization folds after a depthwise convolution and after a transposed one."""
    net = Net()
    x = net.add("Relu", net.norm(net.conv("image", 3, 8, stride=4), 8))
    weight = net.constant(net.random.normal(0, 0.5, (8, 1, 3, 3)))
    x = net.add("Relu", net.norm(net.add("Conv", x, weight, group=8, pads=[1] * 4), 8))
    up = net.constant(net.random.normal(0, 0.5, (8, C, 2, 2)))
    x = net.norm(net.add("ConvTranspose", x, up, strides=[2, 2]), C)
    gone = ("Resize", "BatchNormalization")
    return Case(net.model(net.resize(x, sizes=[1, C, HEIGHT, WIDTH])), gone=gone, kept=("ConvTranspose",))


def identities_and_dropout() -> Case:
    net = Net()
    x = net.add("Identity", net.head(net.add("Identity", "image"), C))
    return Case(
        net.model(net.add("Identity", net.resize(net.add("Dropout", x)))), gone=("Resize", "Identity", "Dropout")
    )


def weights_as_constants() -> Case:
    """Weights from Constant nodes, through a Transpose and a Mul, as some converters leave them."""
    net = Net()
    values = net.random.normal(0, 0.3, (3, 3, 8, 3)).astype(np.float32)
    weight = net.add("Constant", value=numpy_helper.from_array(values))
    weight = net.add("Mul", net.add("Transpose", weight, perm=[2, 3, 0, 1]), net.constant(0.5))
    x = net.add("Relu", net.norm(net.add("Conv", "image", weight, strides=[4, 4], pads=[1] * 4), 8))
    gone = ("Resize", "BatchNormalization", "Transpose_", "Constant", "Mul_")
    return Case(net.model(net.resize(net.conv(x, 8, C))), gone=gone)


CASES: dict[str, Callable[[], Case]] = {
    f.__name__: f
    for f in (
        plain, align_corners, asymmetric, pytorch_half_pixel, squeezed, argmax_as_float, argmax_without_resize, nearest,
        cubic, to_another_size, down_to_the_size, scale_that_is_not_the_ratio_of_sizes, softmax_before_resize,
        softmax_over_rows, two_resizes, low_resolution, full_resolution, sigmoid_low_resolution, sigmoid_squeezed,
        argmax_of_one_image,
        sigmoid_then_cast_then_resize, one_logit, nhwc, dynamic, clashing_names, clashing_names_of_one_logit,
        chosen_output, largest_of_several_outputs, conv_used_twice, norm_before_conv, norm_of_the_input, shared_weights,
        image_used_twice, bgr, rgb_uneven, grouped_first_conv, depthwise_and_transposed, identities_and_dropout,
        weights_as_constants,
    )
} | {
    "softmax": tail(("Softmax", {"axis": 1})),
    "log_softmax": tail(("LogSoftmax", {"axis": -3})),
    "argmax": tail(("ArgMax", {"axis": 1, "keepdims": 0})),
    "softmax_argmax_cast": tail(("Softmax", {"axis": 1}), ("ArgMax", {"axis": 1}), ("Cast", {"to": TensorProto.INT32})),
    "sigmoid_before": sigmoid(before=True),
    "sigmoid_after": sigmoid(before=False),
    "sigmoid_after_cast": sigmoid(before=False, cast=True),
    "sigmoid_before_cast": sigmoid(before=True, cast=True),
    "half": half(SPEC),
    "half_one_logit": half(PAIR),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_deploy_graph_is_what_it_should_be(name: str) -> None:
    case = CASES[name]()
    before = case.model.SerializeToString()
    made = onnx_graph.deploy_graph(case.model, case.spec, case.output)
    assert case.model.SerializeToString() == before, "the parent was changed"
    assert made.upsample == case.upsample
    ops = onnx_graph.operator_counts(made.model)
    assert not [op for op in case.gone if ops[op]]
    assert not [op for op in case.kept if not ops[op]]
    entry, leave = made.model.graph.input[0], made.model.graph.output[0]
    assert (entry.name, entry.type.tensor_type.elem_type) == ("frame", TensorProto.UINT8)
    assert [d.dim_value for d in entry.type.tensor_type.shape.dim] == [1, case.spec.height, case.spec.width, 3]
    assert (leave.name, leave.type.tensor_type.elem_type) == ("logits", TensorProto.FLOAT)
    assert leave.type.tensor_type.shape.dim[1].dim_value == len(case.spec.classes)
    names = [i.name for i in made.model.graph.initializer] + [o for n in made.model.graph.node for o in n.output]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_the_bundle_agrees_with_its_parent(name: str, target: str, tmp_path: Path) -> None:
    case = CASES[name]()
    onnx.save(case.model, str(tmp_path / "model.onnx"))
    frames = tiny.frames(6, 4, case.spec.height, case.spec.width)
    bundle = compile_model(
        tmp_path / "model.onnx",
        tmp_path / "bundle",
        Target.load(target),
        "fp32",
        spec=case.spec,
        frames=frames[:2],
        output=case.output,
    )
    expected = [tiny.parent_says(case.model, f, case.spec, case.output or case.largest, case.layout) for f in frames]
    assert len(np.unique(expected)) > 1, "a constant class map proves nothing"
    with open_segmenter(bundle.path, threads=1) as segmenter:
        found = [segmenter(frame).classmap for frame in frames]
    lowest = 0.99 if "half" in name else 0.999
    assert np.mean(np.equal(found, expected)) >= lowest
    assert bundle.manifest.parity.agreement >= lowest


def batchnorm_count(build: Callable[[], Case]) -> tuple[int, int]:
    case = build()
    made = onnx_graph.deploy_graph(case.model, case.spec)
    return made.batchnorm_before, made.batchnorm_after


@pytest.mark.parametrize(
    ("build", "counts"),
    [
        (plain, (2, 0)),
        (conv_used_twice, (1, 1)),
        (norm_before_conv, (1, 1)),
        (norm_of_the_input, (3, 1)),
        (depthwise_and_transposed, (3, 0)),
        (low_resolution, (2, 0)),
    ],
)
def test_batchnorm_nodes_are_counted(build: Callable[[], Case], counts: tuple[int, int]) -> None:
    assert batchnorm_count(build) == counts


def test_the_notes_say_what_was_done() -> None:
    notes = onnx_graph.deploy_graph(squeezed().model, SPEC).notes
    assert notes == (
        "cut from the end: Resize (half_pixel), ArgMax, Squeeze, Cast",
        "BGR -> RGB folded into the first convolution",
    )
    notes = onnx_graph.deploy_graph(low_resolution().model, SPEC).notes
    assert notes[0] == "logits are 24x16: upsampled bilinearly (half-pixel) to 96x64"


def test_a_resize_in_align_corners_differs_from_half_pixel() -> None:
    """The conventions are not interchangeable: mistaking one for the other changes the mask."""
    from edgeseg import mask

    logits = tiny.frames(1, 2, 16, 24)[0].transpose(2, 0, 1).astype(np.float32)
    maps = [mask.class_map(logits, HEIGHT, WIDTH, mode) for mode in ("half_pixel", "align_corners", "asymmetric")]
    assert np.mean(maps[0] == maps[1]) < 0.999 > np.mean(maps[0] == maps[2])


# What is no segmentation network of one image


def two_inputs() -> Any:
    model = plain().model
    model.graph.input.append(onnx.helper.make_tensor_value_info("prompt", TensorProto.FLOAT, [1, 4]))
    return model


def of_kind(kind: int) -> Any:
    net = Net()
    x = net.head(net.add("Cast", "image", to=TensorProto.FLOAT), C)
    model = net.model(x)
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def gray() -> Any:
    net = Net()
    return net.model(net.conv("image", 1, C), shape=(1, 1, HEIGHT, WIDTH))


def classifier() -> Any:
    net = Net()
    x = net.add("Flatten", net.add("GlobalAveragePool", net.head("image", C)))
    return net.model(x)


def reshaped() -> Any:
    """Works at its own size only."""
    net = Net()
    x = net.add("Reshape", net.head("image", C), net.constant([1, C, 16, 24], kind=np.int64))
    return net.model(x, shape=(1, 3, "h", "w"))


@pytest.mark.parametrize(
    ("build", "spec", "output", "message"),
    [
        (two_inputs, SPEC, "", "Expected one image input"),
        (lambda: of_kind(TensorProto.INT32), SPEC, "", "Input image is int32"),
        (gray, SPEC, "", "takes 1 channels, and the color order is RGB"),
        (classifier, SPEC, "", "Expected logits [1, 8, h, w]"),
        (lambda: chosen_output().model, SPEC, "", "The model has 2 outputs: "),
        (lambda: plain().model, replace(SPEC, height=128), "", "fixed at 96x64, not 96x128"),
        (lambda: plain().model, replace(SPEC, classes=("a", "b"), palette=()), "", "Expected logits [1, 2, h, w]"),
        (lambda: plain().model, PAIR, "", "Expected logits [1, 1, h, w]"),
        (lambda: chosen_output().model, SPEC, "masks", "The model has no output 'masks'.\nIts outputs: t"),
    ],
)
def test_what_is_refused(build: Callable[[], Any], spec: Spec, output: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        onnx_graph.deploy_graph(build(), spec, output)
    assert message in str(caught.value)


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu"])
def test_a_network_that_runs_at_its_own_size_only(target: str, tmp_path: Path) -> None:
    onnx.save(reshaped(), str(tmp_path / "model.onnx"))
    spec = replace(SPEC, height=128)
    with pytest.raises(EdgesegError, match="--size"):
        compile_model(
            tmp_path / "model.onnx",
            tmp_path / "out",
            Target.load(target),
            "fp32",
            spec=spec,
            frames=tiny.frames(1),
        )
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


# Half weights


def test_half_weights_are_half_the_file_and_load_again() -> None:
    import onnxruntime

    made = onnx_graph.deploy_graph(plain().model, SPEC).model
    small = onnx_graph.half_weights(made)
    onnx.checker.check_model(small)
    weights = {numpy_helper.to_array(i).dtype for i in small.graph.initializer if numpy_helper.to_array(i).size >= 16}
    assert weights == {np.dtype(np.float16)}
    frame = tiny.frames(1)[0][None]
    a, b = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(["logits"], {"frame": frame})[0] for m in (made, small)
    )
    np.testing.assert_allclose(a, b, atol=0.05)
    assert not np.array_equal(a, b)


def test_weights_beyond_float16_are_clipped_not_infinite() -> None:
    net = Net()
    model = net.model(net.add("Mul", "image", net.constant(np.full((1, 3, 8, 1), 1e6)), name="y"), shape=(1, 3, 8, 8))
    assert np.isfinite(numpy_helper.to_array(onnx_graph.half_weights(model).graph.initializer[0])).all()
