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
