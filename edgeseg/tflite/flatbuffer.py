"""The .tflite file: TFLite's schema, the names in it, and how its tables become bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import MissingPackage

Array = NDArray[Any]
# The names of the option tables in TFLite's schema, where they do not follow from the operator's.
OPTIONS = {
    "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "AVERAGE_POOL_2D": "Pool2D", "MAX_POOL_2D": "Pool2D",
    "MEAN": "Reducer", "SUM": "Reducer", "REDUCE_MAX": "Reducer", "REDUCE_MIN": "Reducer",
    "BATCH_MATMUL": "BatchMatMul", "SELECT_V2": "SelectV2", "MAXIMUM": "MaximumMinimum", "MINIMUM": "MaximumMinimum",
    "PADV2": "PadV2",
}  # fmt: skip
# Operators without options of their own.
BARE = {"RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "SQRT", "RSQRT", "LOG", "ELU", "PRELU", "SIN", "COS",
        "CEIL", "FLOOR", "ROUND"}  # fmt: skip
# Version 1 of these had other semantics, or does not exist; a runtime that knows only that one must refuse the file.
VERSIONS = {"RESIZE_BILINEAR": 3, "RESIZE_NEAREST_NEIGHBOR": 3, "FULLY_CONNECTED": 5, "BROADCAST_TO": 2}
TYPES: dict[Any, str] = {
    np.dtype(np.float32): "FLOAT32",
    np.dtype(np.float16): "FLOAT16",
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.int8): "INT8",
    np.dtype(np.int32): "INT32",
    np.dtype(np.int64): "INT64",
    np.dtype(np.bool_): "BOOL",
}


def schema() -> Any:
    """TFLite's flatbuffer schema, as LiteRT ships it."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingPackage("ai-edge-litert", "Writing TFLite", "compress,tflite") from error
    return schema_py_generated


def build_model(
    graph: Any,
    codes: list[str],
    buffers: list[Any],
    inputs: dict[str, int],
    outputs: dict[str, int],
    metadata: dict[str, bytes],
) -> Any:
    """A schema.ModelT of one graph with one signature; `codes` are the names of its operators."""
    s = schema()
    model_table, signature = s.ModelT(), s.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs = [_with_fields(s.TensorMapT(), name=name, tensorIndex=index) for name, index in inputs.items()]
    signature.outputs = [_with_fields(s.TensorMapT(), name=name, tensorIndex=index) for name, index in outputs.items()]
    buffers = [*buffers, *(aligned_buffer(np.frombuffer(data, np.uint8)) for data in metadata.values())]
    positions = range(len(buffers) - len(metadata), len(buffers))
    model_table.version, model_table.description = 3, "edgeseg"
    model_table.subgraphs, model_table.signatureDefs, model_table.buffers = [graph], [signature], buffers
    model_table.metadata = [_with_fields(s.MetadataT(), name=key, buffer=i) for key, i in zip(metadata, positions)]
    model_table.operatorCodes = []
    for name in codes:
        code = getattr(s.BuiltinOperator, name)
        entry = _with_fields(s.OperatorCodeT(), builtinCode=code, version=VERSIONS.get(name, 1))
        model_table.operatorCodes.append(_with_fields(entry, deprecatedBuiltinCode=min(code, 127)))
    return model_table


def _with_fields(table: Any, **fields: Any) -> Any:
    for key, value in fields.items():
        setattr(table, key, value)
    return table


def aligned_buffer(data: Array | None) -> Any:
    """A buffer of the file, aligned to 16 bytes as the schema asks; the generated code aligns to 4."""
    tables = schema()

    class Buffer(tables.BufferT):  # type: ignore[misc,name-defined]
        def Pack(self, builder: Any) -> int:
            builder.StartVector(1, len(self.data), 16)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data.tobytes()
            vector = builder.EndVector()
            tables.BufferStart(builder)
            tables.BufferAddData(builder, vector)
            return int(tables.BufferEnd(builder))

    return tables.BufferT() if data is None else Buffer(data)


def pack(model: Any) -> bytes:
    """The file of a schema.ModelT."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def unpack(data: bytes) -> Any:
    """A file as a schema.ModelT that pack() writes again, also where its weights lie behind the flatbuffer."""
    model_table = schema().ModelT.InitFromPackedBuf(data, 0)
    for buffer in model_table.buffers:
        if buffer.offset:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
    model_table.buffers = [model_table.buffers[0], *(aligned_buffer(buffer.data) for buffer in model_table.buffers[1:])]
    return model_table
