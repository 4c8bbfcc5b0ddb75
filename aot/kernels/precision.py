"""How operands are multiplied; accumulation is always fp32."""

import triton
import triton.language as tl


@triton.jit
def _round_tf32(value):
    # The tensor core truncates to TF32; round to nearest first. The select keeps NaN a NaN.
    bits = value.to(tl.uint32, bitcast=True)
    rounded = ((bits + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True)
    return tl.where(value == value, rounded, value)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b. PRECISION: fp32, tf32 or fp16 products of fp32 operands, or native (16-bit)."""
    if PRECISION == "fp32":
        acc = tl.dot(a, b, acc, input_precision="tf32x3")
    elif PRECISION == "tf32":
        acc = tl.dot(_round_tf32(a), _round_tf32(b), acc, input_precision="tf32")
    elif PRECISION == "fp16":
        acc = tl.dot(a.to(tl.float16), b.to(tl.float16), acc)
    else:
        acc = tl.dot(a, b, acc)
    return acc


@triton.jit
def _top_half(value):
    """The upper 16 bits of an fp32 as bf16, and the exact rest."""
    bits = value.to(tl.uint32, bitcast=True)
    top = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return top, value - (bits & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def _finite(value):
    """The nearest finite number."""
    largest: tl.constexpr = 3.4028234663852886e38
    return tl.clamp(value, -largest, largest)


@triton.jit
def split_input(value, PRECISION: tl.constexpr):
    """Left operand of `split_product`: bf16 pieces, for fp32 three whose sum is `value` exactly.

    What is not finite is all in the first.
    """
    high = value
    middle = value
    low = value
    if PRECISION == "fp16":
        high = value.to(tl.float16)
    elif PRECISION != "native":
        high, rest = _top_half(value)
        if PRECISION == "fp32":
            _, rest = _top_half(_finite(value))
            middle, rest = _top_half(rest)
            low, _ = _top_half(rest)
        else:  # no clamp: that moves registers in the loop of `pixel_shuffle`, 14 % of its time
            middle = tl.where(rest == rest, rest, 0.0).to(tl.bfloat16)
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
