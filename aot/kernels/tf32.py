"""fp32 numbers as tensor cores take them, which truncate to TF32 whatever they read."""

import triton
import triton.language as tl

from aot.kernels.precision import _round_tf32

_LARGEST = tl.constexpr(3.4011621342146535e38)  # of TF32


@triton.jit
def nearest_tf32(value):
    """The nearest TF32 number, as an fp32: what a tensor core would truncate, truncated."""
    rounded = _round_tf32(value)
    return (rounded.to(tl.uint32, bitcast=True) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def tf32_parts(value):
    """(nearest TF32 number, what is left of `value`, 0 if that is not finite).

    Of the four products of two such pairs, three make fp32's to 2^-22. What is left of a number
    beyond the largest of TF32 is truncated: rounded up, the sum of both would be infinite.
    """
    high = nearest_tf32(value)
    rest = tl.where(tl.abs(value) < float("inf"), value - high, 0.0)
    rounded = (rest.to(tl.uint32, bitcast=True) + 0x1000).to(tl.float32, bitcast=True)
    return high, tl.where(tl.abs(value) <= _LARGEST, rounded, rest)
