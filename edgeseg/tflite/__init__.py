"""ONNX -> TFLite: our own writer, so that compiling for TFLite needs neither torch nor TensorFlow.

convert.py     the entry point                           writer.py      tensors and the order they are stored in
fusions/       groups of nodes that compute one thing    flatbuffer.py  the file format
pointwise.py   elements                                  shapes.py      reshape, slice, concat, reduce
spatial.py     convolutions, pools, resizes              algebra.py     products and normalizations
quantize.py    dynamic-range and full INT8, by AI Edge Quantizer
"""
