"""INT8: preparing a float graph, and one quantization scheme for each kind of runtime."""
