"""Every kernel configuration that is compiled: an explicit, finite list. Imports no kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DTYPE_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
TRITON_TYPES = {"f32": "*fp32", "f16": "*fp16", "bf16": "*bf16"}
POINTERS = ("x", "weight", "bias", "y")
# 64-bit in wide variants; every offset is formed from one of these.
STRIDES = ("x_n", "x_c", "x_h", "x_w", "y_n", "y_c", "y_h", "y_w")

# (dtype, precision): how a problem's numbers are multiplied.
MATHS = (
    ("f32", "fp32"),
    ("f32", "tf32"),
    ("f32", "fp16"),
    ("f16", "native"),
    ("bf16", "native"),
)


@dataclass(frozen=True)
class Tile:
    """Work of one program: output pixels x output channels, input channels per step."""

    pixels: int
    out: int
    into: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Variant:
    """One kernel configuration; everything the compiler and the planner need to know of it."""

    family: str
    dtype: str
    precision: str
    layout: str
    aligned: bool
    wide: bool
    tile: Tile

    @property
    def name(self) -> str:
        precision = "" if self.precision == "native" else f"_{self.precision}"
        flags = ("_a16" if self.aligned else "") + ("_i64" if self.wide else "")
        t = self.tile
        return (
            f"{self.family}_{self.dtype}{precision}_{self.layout}"
            f"_{t.pixels}x{t.out}x{t.into}_w{t.warps}{flags}"
        )

    @property
    def constants(self) -> dict[str, int | bool | str]:
        """Values of the kernel's compile-time parameters; an innermost stride of 1 is one."""
        innermost = ("x_c", "y_c") if self.layout == "nhwc" else ("x_w", "y_w")
        return {
            **dict.fromkeys(innermost, 1),
            "PRECISION": self.precision,
            "BLOCK_PIXELS": self.tile.pixels,
            "BLOCK_OUT": self.tile.out,
            "BLOCK_IN": self.tile.into,
        }

    def type_of(self, parameter: str) -> str:
        """Triton type of a run-time parameter."""
        if parameter in POINTERS:
            return TRITON_TYPES[self.dtype]
        return "i64" if self.wide and parameter in STRIDES else "i32"

    def divisibility(self, parameter: str) -> int:
        """What the compiler may assume divides a parameter (bytes for pointers); 1 for nothing."""
        if not self.aligned:
            return 1
        pointers, integers = ["weight"], ["group_out"]
        if self.layout == "nhwc":  # in nchw, pixels start anywhere
            pointers += ["x", "y"]
            integers += ["group_in", *STRIDES]
        if parameter in pointers:
            return 16
        return 16 // DTYPE_BYTES[self.dtype] if parameter in integers else 1


@dataclass(frozen=True)
class Pack(Variant):
    """A copy of weights: its tile is taps x output channels."""

    @property
    def name(self) -> str:
        return f"pack_{self.dtype}_{self.tile.pixels}x{self.tile.out}_w{self.tile.warps}"

    @property
    def constants(self) -> dict[str, int | bool | str]:
        return {"BLOCK_TAPS": self.tile.pixels, "BLOCK_OUT": self.tile.out}


def _pack() -> Iterator[Variant]:
    for dtype in DTYPE_BYTES:
        tile = Tile(16, 64, 1, warps=4, stages=1)
        yield Pack("pack", dtype, "native", "nhwc", aligned=False, wide=True, tile=tile)


def _phase() -> Iterator[Variant]:
    narrow = Tile(128, 16, 16, warps=4, stages=3)
    far = Tile(64, 32, 16, warps=4, stages=2)
    for dtype, precision in MATHS:
        # fp32 products hold split or converted operands in registers: smaller tiles, or they spill.
        if dtype == "f32":
            into = 16 if precision == "fp32" else 32
            large, medium = (
                Tile(128, 64, into, warps=8, stages=3),
                Tile(64, 32, 16, warps=4, stages=3),
            )
        else:
            large, medium = (
                Tile(128, 128, 32, warps=8, stages=3),
                Tile(64, 64, 32, warps=4, stages=3),
            )
        for layout in ("nchw", "nhwc"):
            for tile in (large, medium):
                yield Variant("phase", dtype, precision, layout, True, False, tile)
            for tile in (medium, narrow):
                yield Variant("phase", dtype, precision, layout, False, False, tile)
            yield Variant("phase", dtype, precision, layout, False, True, far)


def all_variants() -> list[Variant]:
    return sorted((*_pack(), *_phase()), key=lambda variant: variant.name)
