"""TensorRT beyond its backend: off the device a legal graph and a plan; on it CUDA, the builder and a cache."""
