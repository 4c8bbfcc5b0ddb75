"""How operands are multiplied; accumulation is always fp32.

What an output is where its operands are extreme, in every family that multiplies with these:
    NaN, whatever its payload     NaN wherever fp64 has it
    infinity                      infinity or NaN wherever fp64 has it, and nowhere else
    finite                        never infinite by itself; "fp16" overflows beyond 65504
    subnormal, below 2^-133       may count as 0, beside an infinite weight too
A tap that lies outside the input does not exist: nothing is multiplied by it, NaN neither.
"""

import triton
import triton.language as tl

_LARGEST = tl.constexpr(3.4028234663852886e38)


@triton.jit
def _round_tf32(value):
    """What the tensor core truncates to the nearest TF32 number.

    Not beyond the largest, which would be infinity; and a NaN is made one with its upper bits.
    """
    rounded = (value.to(tl.uint32, bitcast=True) + 0x1000).to(tl.float32, bitcast=True)
    largest: tl.constexpr = 3.4011621342146535e38
    below_one: tl.constexpr = 1 - 2.0**-23
    return tl.where(tl.abs(value) <= largest, rounded, value * below_one)


@triton.jit
def _top_half(value):
    """The upper 16 bits of an fp32 as bf16, and the exact rest."""
    bits = value.to(tl.uint32, bitcast=True)
    top = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return top, value - (bits & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def _finite(value):
    """The nearest finite number; NaN for NaN."""
    return tl.clamp(value, -_LARGEST, _LARGEST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def split_input(value, PRECISION: tl.constexpr):
    """Left operand of `split_product`: bf16 pieces, for fp32 three whose sum is `value` exactly.

    Infinity is all in the first. A NaN may become infinity there; it is in the second as well.
    """
    high = value
    middle = value
    low = value
    if PRECISION == "fp16":
        high = value.to(tl.float16)
    elif PRECISION != "native":
        high, _ = _top_half(value)
        _, rest = _top_half(_finite(value))
        if PRECISION == "fp32":
            middle, rest = _top_half(rest)
            low, _ = _top_half(rest)
        else:
            middle = rest.to(tl.bfloat16)
    return high, middle, low


@triton.jit
def split_weight(value, PRECISION: tl.constexpr):
    """Right operand of `split_product`, made so that no sum of products needs repair.

    The left first piece may be infinite, and meets every piece of this: none is 0 where `value` is
    not, nor of the other sign. It alone meets the last piece: there goes what is not finite.
    """
    high = value
    middle = value
    low = value
    if PRECISION == "fp16":
        high = value.to(tl.float16)
    elif PRECISION != "native":
        tiny: tl.constexpr = 2.0**-32
        finite = _finite(value)
        high, rest = _top_half(finite)
        if PRECISION == "fp32":
            middle, rest = _top_half(rest + finite * tiny)
            low, _ = _top_half(rest + value * tiny)
        else:
            middle = (rest + value * tiny).to(tl.bfloat16)
    return high, middle, low


@triton.jit
def split_product(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b of pieces, the small products first.

    fp32: what is left out is under 2^-22 of a product. tf32: 2^-16, where the tensor core's own
    TF32 leaves out 2^-11 and wants operands transposed.
    """
    if PRECISION == "fp32":
        acc = tl.dot(a[2], b[0], acc)
        acc = tl.dot(a[0], b[2], acc)
        acc = tl.dot(a[1], b[1], acc)
    if PRECISION == "fp32" or PRECISION == "tf32":
        acc = tl.dot(a[0], b[1], acc)
        acc = tl.dot(a[1], b[0], acc)
    return tl.dot(a[0], b[0], acc)


@triton.jit
def add_product(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b of pieces, for sums of many blocks.

    Tensor cores truncate a sum whenever they add to it: the error grows with the number of blocks
    and never averages out. Of split operands a block is summed from 0, and added as fp32 adds.
    """
    if PRECISION == "fp32" or PRECISION == "tf32":
        acc += split_product(a, b, tl.zeros(acc.shape, tl.float32), PRECISION)
    else:
        acc = split_product(a, b, acc, PRECISION)
    return acc


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b of tiles as they are in memory, for sums of many blocks."""
    if PRECISION == "tf32":
        acc = tl.dot(_round_tf32(a), _round_tf32(b), acc, input_precision="tf32")
    else:
        acc = add_product(split_input(a, PRECISION), split_weight(b, PRECISION), acc, PRECISION)
    return acc
