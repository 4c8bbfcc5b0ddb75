"""Operands of tensor cores as bf16 pieces, in Gluon: what aot/kernels/precision.py tells of.

Three pieces sum to an fp32 number exactly, two to 2^-16 of it; 16-bit numbers are one piece.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

LARGEST = gl.constexpr(3.4028234663852886e38)
_ALL = gl.constexpr(tl.PropagateNan.ALL)


@gluon.jit
def _top_half(value):
    """The upper 16 bits of an fp32 as bf16, and the exact rest."""
    bits = value.to(gl.uint32, bitcast=True)
    top = (bits >> 16).to(gl.uint16).to(gl.bfloat16, bitcast=True)
    return top, value - (bits & 0xFFFF0000).to(gl.float32, bitcast=True)


@gluon.jit
def pieces_of_input(value, COUNT: gl.constexpr):
    """Of infinity, and of a NaN that looks like it in the first, the second is NaN."""
    if COUNT == 1:
        return (value,)
    else:
        high, rest = _top_half(value)
        if COUNT == 2:
            return high, rest.to(gl.bfloat16)
        else:
            middle, rest = _top_half(rest)
            low, _ = _top_half(rest)
            return high, middle, low


@gluon.jit
def pieces_of_weight(value, COUNT: gl.constexpr):
    """No piece is 0 where `value` is not: an infinite input meets each of them."""
    if COUNT == 1:
        return (value,)
    else:
        tiny: gl.constexpr = 2.0**-32
        finite = gl.minimum(gl.maximum(value, -LARGEST, _ALL), LARGEST, _ALL)
        high, rest = _top_half(finite)
        if COUNT == 2:
            return high, (rest + value * tiny).to(gl.bfloat16)
        else:
            middle, rest = _top_half(rest + finite * tiny)
            low, _ = _top_half(rest + value * tiny)
            return high, middle, low
