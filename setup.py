"""Only what pyproject.toml cannot say: the C kernels are optional, mask.py and motion/ have the same in numpy.

From Python 3.11 on, whose stable ABI has buffers, they use that alone: one wheel serves every later Python.
"""

import sys
import sysconfig

from setuptools import Extension, setup

# No fused multiply-add: results must equal the numpy version bit for bit.
flags = ["-O3", "-ffp-contract=off"]
kernels = ("_mask", "_motion")
stable = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")
setup(
    ext_modules=[
        Extension(
            f"edgeseg.{name}",
            [f"edgeseg/{name}.c"],
            extra_compile_args=flags,
            optional=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if stable else [],
            py_limited_api=stable,
        )
        for name in kernels
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if stable else {},
)
