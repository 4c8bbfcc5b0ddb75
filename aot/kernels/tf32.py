"""fp32 numbers as tensor cores take them, which truncate to TF32 whatever they read."""

import triton
import triton.language as tl

_LARGEST = tl.constexpr(3.4011621342146535e38)  # of TF32


@triton.jit
def nearest_tf32(value):
    """The nearest TF32 number, as an fp32.

    Not beyond the largest, which would be infinity; and a NaN is made one with its upper bits.
    """
    below_one: tl.constexpr = 1 - 2.0**-23
    rounded = (value.to(tl.uint32, bitcast=True) + 0x1000).to(tl.float32, bitcast=True)
    rounded = tl.where(tl.abs(value) <= _LARGEST, rounded, value * below_one)
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
