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
def split(value, PRECISION: tl.constexpr):
    """Operands of `product`. fp32: three bf16 whose sum is `value` exactly; native: `value`."""
    if PRECISION == "fp32":
        high, rest = _top_half(value)
        middle, rest = _top_half(rest)
        low, rest = _top_half(rest)
    else:
        high = value
        middle = value
        low = value
    return high, middle, low


@triton.jit
def product(a, a_middle, a_low, b, b_middle, b_low, PRECISION: tl.constexpr):
    """a @ b of operands that were split once and are used often."""
    if PRECISION == "fp32":
        # What is left out is under 2^-22 of a product. Infinities have no parts: 0 * inf in a
        # correction must not spoil them.
        small = tl.dot(a_low, b)
        small = tl.dot(a, b_low, small)
        small = tl.dot(a_middle, b_middle, small)
        small = tl.dot(a_middle, b, small)
        small = tl.dot(a, b_middle, small)
        acc = tl.dot(a, b, tl.where(small == small, small, 0.0))
    else:
        acc = tl.dot(a, b)
    return acc


@triton.jit
def accumulate(acc, small, a, b, PRECISION: tl.constexpr):
    """A sum of products in two parts: acc + small grows by a @ b."""
    if PRECISION == "native":
        acc = tl.dot(a, b, acc)
    elif PRECISION == "fp16":
        acc = tl.dot(a.to(tl.float16), b.to(tl.float16), acc)
    else:
        a, a_rest = _top_half(a)
        b, b_rest = _top_half(b)
        if PRECISION == "fp32":
            a_middle, a_rest = _top_half(a_rest)
            b_middle, b_rest = _top_half(b_rest)
            a_low, a_rest = _top_half(a_rest)
            b_low, b_rest = _top_half(b_rest)
            small = tl.dot(a_low, b, small)
            small = tl.dot(a, b_low, small)
            small = tl.dot(a_middle, b_middle, small)
        else:  # tf32: 16 bits of an operand, not 11, for the tensor core reads bf16 from any side
            a_middle = a_rest.to(tl.bfloat16)
            b_middle = b_rest.to(tl.bfloat16)
        small = tl.dot(a_middle, b, small)
        small = tl.dot(a, b_middle, small)
        acc = tl.dot(a, b, acc)
    return acc, small


@triton.jit
def total(acc, small, PRECISION: tl.constexpr):
    """The sum that `accumulate` made."""
    if PRECISION == "fp32" or PRECISION == "tf32":
        acc += tl.where(small == small, small, 0.0)  # infinities have no parts, see `product`
    return acc


@triton.jit
def split_input(value, PRECISION: tl.constexpr):
    """Left operand of `split_product`. fp32: three bf16 whose sum is `value` exactly.

    What is not finite is all in the first.
    """
    if PRECISION == "fp32":
        high, rest = _top_half(value)
        middle, rest = _top_half(tl.where(rest == rest, rest, 0.0))
        low, _ = _top_half(rest)
    else:
        high = value
        middle = value
        low = value
    return high, middle, low


@triton.jit
def split_weight(value, PRECISION: tl.constexpr):
    """Right operand of `split_product`, made so that no sum of products needs repair.

    The left first piece may be infinite, and meets every piece of this: none is 0 where `value` is
    not, nor of the other sign. It alone meets the last piece: there goes what is not finite.
    """
    if PRECISION == "fp32":
        largest: tl.constexpr = 3.4028234663852886e38
        tiny: tl.constexpr = 2.0**-32
        finite = tl.clamp(value, -largest, largest)
        high, rest = _top_half(finite)
        middle, rest = _top_half(rest + finite * tiny)
        low, _ = _top_half(rest + value * tiny)
    else:
        high = value
        middle = value
        low = value
    return high, middle, low


@triton.jit
def split_product(a, b, PRECISION: tl.constexpr):
    """a @ b of pieces, the small products first; what is left out is under 2^-22 of a product."""
    if PRECISION == "fp32":
        acc = tl.dot(a[2], b[0])
        acc = tl.dot(a[0], b[2], acc)
        acc = tl.dot(a[1], b[1], acc)
        acc = tl.dot(a[0], b[1], acc)
        acc = tl.dot(a[1], b[0], acc)
        acc = tl.dot(a[0], b[0], acc)
    else:
        acc = tl.dot(a[0], b[0])
    return acc
