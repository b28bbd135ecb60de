"""Only what pyproject.toml cannot say: the C kernels are optional, mask.py and motion/ have the same in numpy."""

from setuptools import Extension, setup

# No fused multiply-add: results must equal the numpy version bit for bit.
flags = ["-O3", "-ffp-contract=off"]
kernels = ("_mask", "_motion")
setup(
    ext_modules=[
        Extension(f"edgeseg.{name}", [f"edgeseg/{name}.c"], extra_compile_args=flags, optional=True) for name in kernels
    ]
)
