"""Transposed convolution for NVIDIA GPUs with Triton kernels compiled ahead of time."""

from typing import Any

from convt import _late
from convt.aoti import aoti_compile_and_package
from convt.freezing import freeze
from convt.functional import conv_transpose2d, conv_transpose3d, explain, preload
from convt.functional_nd import conv_transpose1d
from convt.nn import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    LazyConvTranspose1d,
    LazyConvTranspose2d,
    LazyConvTranspose3d,
    ModelNew,
)
from convt.ops import LIBRARY_FOLDER
from convt.replacing import replace, restore
from convt.tables import load_environment, load_tuned
from convt.tuning import tune

__all__ = [
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "ModelNew",
    "__version__",
    "aoti_compile_and_package",
    "cmake_prefix_path",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "explain",
    "freeze",
    "load_tuned",
    "preload",
    "replace",
    "restore",
    "tune",
]

__version__: str
# For find_package(convt) in CMake.
cmake_prefix_path = str(LIBRARY_FOLDER.parent)
load_environment()


def __getattr__(name: str) -> Any:
    if name == "__version__":  # only who asks pays for reading the metadata
        from importlib.metadata import version

        return version("convt")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_late.install()
