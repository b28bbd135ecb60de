"""Dynamic-range and full INT8 of a float .tflite file, by AI Edge Quantizer."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgeseg.cpus import usable_cpus
from edgeseg.errors import EdgesegError, MissingPackage, first_line
from edgeseg.tflite.algebra import FLOAT
from edgeseg.tflite.flatbuffer import Array, pack, schema, unpack

FRAME = "frame"
FRAME_AS_FLOAT = "pre_float"


def dynamic(model: bytes) -> bytes:
    """INT8 weights per channel; activations are quantized while it runs, each by its own range. No calibration."""
    aeq = _quantizer()
    with _quiet():
        quantizer = aeq.Quantizer(bytearray(model), aeq.recipe.dynamic_wi8_afp32())
        return _finish(quantizer, None)


def full(model: bytes, frames: Iterable[Array], spans: Mapping[str, tuple[float, float]] | None = None) -> bytes:
    """INT8 weights per channel and INT8 activations by the ranges that `frames` ([1, H, W, 3] uint8 BGR) give.

    `spans`: other ranges for some of the tensors. What loses most by INT8 stays float: the sums inside normalizations,
    and the logits as they leave.
    """
    aeq = _quantizer()
    with _quiet():
        quantizer = aeq.Quantizer(bytearray(model), aeq.recipe.static_wi8_ai8())
        for scope, operators in ((FLOAT, "*"), (".*", "OUTPUT")):
            quantizer.update_quantization_recipe(scope, operators, algorithm_key="no_quantize")
        calibrator = aeq.calibrator.Calibrator(
            model, num_threads=usable_cpus(), qsv_update_func=aeq.qsv_utils.min_max_update
        )
        recipe = aeq.recipe_manager.RecipeManager()
        recipe.load_quantization_recipe(quantizer.get_quantization_recipe())
        for frame in frames:
            calibrator.calibrate({"serving_default": [{FRAME: frame}]}, recipe)
        ranges = calibrator.get_model_qsvs()
        for name, span in (spans or {}).items():
            for side, value in zip(("min", "max"), span) if name in ranges else ():
                ranges[name][side] = np.full_like(ranges[name][side], value)
        if FRAME_AS_FLOAT in ranges:
            ranges[FRAME_AS_FLOAT] = {
                side: np.full((1, 1, 1, 1), v, np.float32) for side, v in (("min", 0), ("max", 255))
            }
        return requantize_frame(_finish(quantizer, ranges))


def requantize_frame(model: bytes) -> bytes:
    """Where the frame is cast to float and quantized again with a step of 1: only requantize it (the same numbers)."""
    s = schema()
    table = unpack(model)
    graph = table.subgraphs[0]
    codes = [code.builtinCode for code in table.operatorCodes]
    producers = {int(op.outputs[0]): op for op in graph.operators}
    for op in graph.operators:
        cast = producers.get(int(op.inputs[0])) if codes[op.opcodeIndex] == s.BuiltinOperator.QUANTIZE else None
        if cast is None or codes[cast.opcodeIndex] != s.BuiltinOperator.CAST:
            continue
        step, entry = graph.tensors[op.outputs[0]].quantization, graph.tensors[cast.inputs[0]]
        if abs(step.scale[0] - 1) > 1e-6 or step.zeroPoint[0] != -128 or entry.type != s.TensorType.UINT8:
            continue
        entry.quantization = s.QuantizationParametersT()
        entry.quantization.scale, entry.quantization.zeroPoint = [1.0], [0]
        op.inputs = [int(cast.inputs[0])]
    needed = {int(i) for op in graph.operators for i in op.inputs} | {int(i) for i in graph.outputs}
    graph.operators = [op for op in graph.operators if needed & {int(i) for i in op.outputs}]
    return pack(table)


def _finish(quantizer: Any, ranges: Mapping[str, Mapping[str, Array]] | None) -> bytes:
    try:
        result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError) as error:
        raise EdgesegError(
            f"AI Edge Quantizer cannot quantize this network: {first_line(error)}.", "Use fp32 or fp16."
        ) from error
    return bytes(result.quantized_model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide its progress bars, and a warning about memory that only concerns long-lived interpreters."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _quantizer() -> Any:
    """The parts of AI Edge Quantizer that are used here, under one name."""
    try:
        from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
        from ai_edge_quantizer.utils import qsv_utils
    except ImportError as error:
        raise MissingPackage("ai-edge-quantizer", "INT8 for TFLite", "compress,tflite") from error
    return SimpleNamespace(
        Quantizer=quantizer.Quantizer,
        calibrator=calibrator,
        recipe=recipe,
        recipe_manager=recipe_manager,
        qsv_utils=qsv_utils,
    )
