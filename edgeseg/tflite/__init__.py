"""ONNX -> TFLite: our own writer, so that compiling for TFLite needs neither torch nor TensorFlow.

convert.py     the entry point                           writer.py      tensors and the order they are stored in
fusions/       groups of nodes that compute one thing    flatbuffer.py  the file format
quantize.py    dynamic-range and full INT8, by AI Edge Quantizer

One file for each kind of operator, with a table OPERATORS: pointwise.py, shapes.py (reshape, slice, concat, reduce),
algebra.py (products, normalizations), and those on images, channels last: convolution.py, pooling.py, resizing.py,
padding.py; windows.py computes their borders.
"""
