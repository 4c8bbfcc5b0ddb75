"""Tiles and divisors that several families describe their variants with."""

from __future__ import annotations

from dataclasses import dataclass

from aot.variants import lanes

# Every offset is formed from one of these; 64-bit in wide variants.
STRIDES = ("x_n", "x_c", "x_h", "x_w", "y_n", "y_c", "y_h", "y_w")

# The products of layers that are bound by memory: fp32's accuracy costs these no time, so their
# fp32 variants serve TF32's problems as well.
ACCURATE_MATHS = ("fp32", "f16", "bf16")


@dataclass(frozen=True)
class Tile:
    """Work of one program: pixels x output channels, input channels per step."""

    pixels: int
    out: int
    into: int

    @property
    def label(self) -> str:
        return f"{self.pixels}x{self.out}x{self.into}"

    def constants(self, math: str) -> dict[str, int | bool | str]:
        """The compile-time parameters that every kernel with such tiles has."""
        return {
            "PRECISION": "native" if math in ("f16", "bf16") else math,
            "BLOCK_PIXELS": self.pixels,
            "BLOCK_OUT": self.out,
            "BLOCK_IN": self.into,
        }


def output_vectors(vector: int) -> dict[str, int]:
    """Divisors for a variant that stores so many columns of a contiguous row at once."""
    return {"y": 16, "y_c": vector, "out_w": vector}


def channel_vectors(math: str, layout: str) -> dict[str, int]:
    """Divisors of a variant that loads vectors of channels."""
    pointers, integers = ["weight"], ["group_out"]
    if layout == "nhwc":  # in nchw, pixels start anywhere
        pointers += ["x", "y"]
        integers += ["group_in", *STRIDES]
    return {**dict.fromkeys(pointers, 16), **dict.fromkeys(integers, lanes(math))}
