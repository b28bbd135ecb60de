"""Only what pyproject.toml cannot say: the C kernel is optional, mask.py has the same in numpy."""

from setuptools import Extension, setup

# No fused multiply-add: results must equal the numpy version bit for bit.
flags = ["-O3", "-ffp-contract=off"]
setup(ext_modules=[Extension("edgeseg._mask", ["edgeseg/_mask.c"], extra_compile_args=flags, optional=True)])
