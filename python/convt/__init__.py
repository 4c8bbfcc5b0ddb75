"""Transposed convolution for NVIDIA GPUs with Triton kernels compiled ahead of time."""

from pathlib import Path
from typing import Any

from convt.aoti import aoti_compile_and_package
from convt.functional import conv_transpose2d, explain, preload
from convt.nn import ConvTranspose2d, ModelNew

__all__ = [
    "ConvTranspose2d",
    "ModelNew",
    "__version__",
    "aoti_compile_and_package",
    "cmake_prefix_path",
    "conv_transpose2d",
    "explain",
    "preload",
]

__version__: str
# For find_package(convt) in CMake.
cmake_prefix_path = str(Path(__file__).parent)


def __getattr__(name: str) -> Any:
    if name == "__version__":  # only who asks pays for reading the metadata
        from importlib.metadata import version

        return version("convt")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
