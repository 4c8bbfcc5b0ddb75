"""Which taps an output has: tap k of input i where output + padding = i * stride + k * dilation.

Taps of one output are `period` = stride / gcd(stride, dilation) apart, their inputs `shift` =
dilation / gcd, in the other direction. Outputs `dilation` apart share inputs: tap k of the first
and tap k + 1 of the second are of the same one.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def divided(n, divisor):
    """n // d of 0 <= n < 2^31.

    divisor: l = ceil(log2(d)) and, from bit 32 on, ceil(2^(31 + l) / d).
    """
    high = gl.umulhi((n * 2).to(gl.uint32), (divisor >> 32).to(gl.uint32))
    return (high >> (divisor & 31).to(gl.uint32)).to(gl.int32)


@gluon.jit
def first_of(base, axis):
    """First tap of output base - padding, and its input. The tap is `kernel` if there is none."""
    kernel, stride, dilation, period, inverse = axis
    k = base * 0
    i = base
    if stride > 1:
        i = base // stride
        k = base - i * stride
        if dilation > 1:
            gcd = stride // period
            place = base // gcd
            k = place % period * inverse % period
            i = (base - k * dilation) // stride
            k = gl.where(place * gcd == base, k, kernel)
    return k, i


@gluon.jit
def first_of_some(place, axis, OUTPUTS: tl.constexpr):
    """The first output that shares inputs with OUTPUTS - 1 others, its first tap and that's input.

    OUTPUTS is 1 or 2. Places count, from -padding on, outputs that share none. The tap is -1 where
    the input's only tap is of the second output. Both outputs' taps, strides and periods are small:
    without a dilation no division is needed.
    """
    kernel, stride, dilation, period, inverse = axis
    if dilation > 1:
        base = place + place // dilation * ((OUTPUTS - 1) * dilation)
        gcd = stride // period
        k = base // gcd % period * inverse % period
        k -= gl.where(k + OUTPUTS > period, period, 0)
        i = (base - k * dilation) // stride
        k = gl.where(base % gcd == 0, k, kernel)
    else:
        base = place * OUTPUTS
        i = (base >= stride).to(gl.int32)
        k = base - i * stride
        before = (k + OUTPUTS > stride).to(gl.int32)
        i += before
        k -= before * stride
    return base, k, i


@gluon.jit
def accumulated(acc, pixels, weight, FIRST: tl.constexpr, STEP: tl.constexpr, COUNT: tl.constexpr):
    """acc with weight * pixels[i] added to its FIRST + STEP * i, for COUNT of them."""
    for i in gl.static_range(COUNT):
        added = acc[FIRST + STEP * i] + weight * pixels[i]
        acc = acc[: FIRST + STEP * i] + (added,) + acc[FIRST + STEP * i + 1 :]
    return acc
