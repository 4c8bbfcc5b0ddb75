"""A kernel configuration, and the list of all that are compiled. Imports no kernel.

Each module of aot/families describes one family: `variants()` yields its configurations.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from aot import families

DTYPE_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
TRITON_TYPES = {"f32": "*fp32", "f16": "*fp16", "bf16": "*bf16"}
# Pointers of the layer's dtype, in every kernel that takes them.
TENSORS = ("x", "weight", "bias", "y")

# How a layer's numbers are multiplied: the first three say how fp32 numbers are.
MATHS = ("fp32", "tf32", "fp16", "f16", "bf16")
ARCHS = (80, 86, 89, 90, 100, 120)


@dataclass(frozen=True, eq=False)
class Variant:
    """One kernel configuration; everything the compiler and the planner need to know of it.

    A variant is equal to itself only, so that its mappings need not be hashable.
    """

    family: str
    math: str
    layout: str  # of input and output: nchw or nhwc
    label: str  # tells the family's variants of one math and layout apart
    constants: Mapping[str, int | bool | str]  # the kernel's compile-time parameters
    warps: int
    workers: int = 0  # warps beside them that the compiler adds for specialised parts
    stages: int = 1
    kernel: str = ""  # the function in aot/kernels/<family>.py, if it has not the family's name
    weight: str = "channels_last"  # the order it reads: channels_last, or torch (any strides)
    traits: Mapping[str, int | bool] = field(default_factory=dict)  # for the planner
    types: Mapping[str, str] = field(default_factory=dict)  # Triton types of run-time parameters
    divisors: Mapping[str, int] = field(default_factory=dict)  # of parameters; bytes for pointers
    registers: tuple[int, ...] = ()  # a thread's at most; the first limit that it does not spill at
    archs: tuple[int, ...] = ARCHS

    @property
    def dtype(self) -> str:
        return self.math if self.math in DTYPE_BYTES else "f32"

    @property
    def symbol(self) -> str:
        return self.kernel or self.family

    @property
    def name(self) -> str:
        words = [self.symbol, self.dtype]
        if self.dtype == "f32":
            words.append(self.math)
        if not self.symbol.endswith(self.layout):
            words.append(self.layout)
        return "_".join([*words, self.label])

    def type_of(self, parameter: str) -> str:
        """Triton type of a run-time parameter."""
        default = TRITON_TYPES[self.dtype] if parameter in TENSORS else "i32"
        return self.types.get(parameter, default)

    def divisibility(self, parameter: str) -> int:
        """The number that surely divides a parameter, for the compiler; 1 if none is known."""
        return self.divisors.get(parameter, 1)


def lanes(math: str) -> int:
    """Elements of a 16-byte vector."""
    return 16 // DTYPE_BYTES.get(math, 4)


def family_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(families.__path__))


def all_variants() -> list[Variant]:
    modules = [importlib.import_module(f"aot.families.{name}") for name in family_names()]
    variants = [variant for module in modules for variant in module.variants()]
    return sorted(variants, key=lambda variant: variant.name)
