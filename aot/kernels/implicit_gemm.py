"""Any transposed convolution with several taps an output, as a matrix product of tensor cores.

Output o = q * stride + r of phase r takes the same taps for every quotient q, from inputs that lie
`shift` apart: rows of the product are the quotients of all images, columns are output channels, and
what is summed is every (tap, block of input channels). Both operands have their channels innermost
and come to shared memory by asynchronous copies, several blocks ahead.

`fold`: columns are pairs of a channel and a width phase. Then o + padding = q * stride + r, kernel
columns come `stride` at a time, all phases share the inputs, and output rows are stored whole.

Sums of fp32's products are fp32 additions of blocks of BLOCK_IN channels; other sums are the tensor
core's. NaN, infinity and the largest numbers do what aot/kernels/precision.py says.
"""

import triton
import triton.language as tl

from aot.kernels.implicit_gemm_prepare import implicit_gemm_prepare
from aot.kernels.tf32 import tf32_parts

__all__ = ["implicit_gemm", "implicit_gemm_prepare"]  # the kernels of this family


@triton.jit
def _divided(n, divisor):
    """n // d of 0 <= n < 2^31; the divisor is written as aot.kernels.taps.divided reads it."""
    high = tl.umulhi((n * 2).to(tl.uint32), (divisor >> 32).to(tl.uint32))
    return (high >> (divisor & 31).to(tl.uint32)).to(tl.int32)


@triton.jit
def _taps(phase, axis):
    """(number of taps, input of the first at quotient 0) of a phase of one axis."""
    kernel, stride, padding, dilation, gcd, tap_period, tap_inverse, by_stride = axis
    origin = phase + padding
    count = kernel
    if stride > 1:
        shifted = origin
        origin = _divided(shifted, by_stride)
        residue = shifted - origin * stride
        count = _divided(kernel - 1 - residue + stride, by_stride)
        if dilation > 1:
            first = (residue // gcd) * tap_inverse % tap_period
            origin = (shifted - first * dilation) // stride  # exact wherever there is a tap
            count = (kernel - first + tap_period - 1) // tap_period
            count = tl.where(residue % gcd == 0, tl.maximum(count, 0), 0)
    return count, origin


@triton.jit
def _multiply(a, b, low, acc, PRECISION: tl.constexpr, EXACT: tl.constexpr):
    """acc + a @ b^T, for fp32 with the rest of b that its rounding left.

    EXACT: an infinite operand meets no part of the other but the whole.
    """
    if PRECISION == "fp32":
        high, rest = tf32_parts(a)
        left = high
        right = b
        if EXACT:
            left = tl.where(tl.abs(high) < float("inf"), high, 0.0)
            right = tl.where(tl.abs(b) < float("inf"), b, 0.0)
        zero = tl.zeros(acc.shape, tl.float32)
        total = tl.dot(rest, tl.trans(right), zero, input_precision="tf32")
        total = tl.dot(left, tl.trans(low), total, input_precision="tf32")
        acc += tl.dot(high, tl.trans(b), total, input_precision="tf32")
    elif PRECISION == "tf32":
        acc = tl.dot(a, tl.trans(b), acc, input_precision="tf32")
    else:
        acc = tl.dot(a, tl.trans(b), acc)
    return acc


@triton.jit
def _sum(pixels, weights, steps, place, PRECISION: tl.constexpr, BLOCK_IN: tl.constexpr,
         EXACT: tl.constexpr):  # fmt: skip
    """The products of a tile of pixels and columns.

    EXACT: taps outside the image and columns without a tap count for nothing; else they are zeros
    times something.
    """
    inputs, row, x_pixel, axis_d, axis_h, axis_w = pixels
    i_d, in_d, _count_d, shift_d, x_d = axis_d
    i_h, in_h, count_h, shift_h, x_h = axis_h
    i_w, in_w, count_w, shift_w, x_w = axis_w
    columns, w_column, w_block, w_low, taps_h, taps_w, tap_size = weights
    count, c, t_d, t_h, t_w = steps
    place, fold, step_w, folded_w = place
    PLANES: tl.constexpr = 2 if PRECISION == "fp32" else 1
    lane = tl.arange(0, BLOCK_IN)[None, :]
    w = columns + ((t_d * taps_h + t_h) * taps_w + t_w).to(tl.int64) * tap_size
    w += c // BLOCK_IN * w_block
    acc = tl.zeros((x_pixel.shape[0], w_column.shape[0]), tl.float32)
    for _ in tl.range(0, count, num_stages=1 if EXACT else None, disable_licm=EXACT):
        s_d = t_d * shift_d
        s_h = t_h * shift_h
        s_w = t_w * shift_w
        # Unsigned, a negative index is beyond every size.
        inside = (i_d - s_d).to(tl.uint32) < in_d.to(tl.uint32)
        inside &= (i_h - s_h).to(tl.uint32) < in_h.to(tl.uint32)
        inside &= (i_w - s_w).to(tl.uint32) < in_w.to(tl.uint32)
        source = inputs + (c - s_d * x_d - s_h * x_h - s_w * x_w)
        a = tl.load(source + x_pixel + lane, mask=inside & (lane < row - c), other=0.0)
        b = tl.load(w + w_column + lane)
        low = b
        if PLANES == 2:
            low = tl.load(w + w_low + w_column + lane)
        total = _multiply(a, b, low, acc, PRECISION, EXACT)
        if EXACT:
            has_tap = (fold == 1) | (t_w * step_w + place < folded_w)
            total = tl.where(inside & has_tap[None, :], total, acc)
        acc = total
        c += BLOCK_IN
        w += w_block
        over = c >= row
        c = tl.where(over, 0, c)
        t_w += over.to(tl.int32)
        over = t_w == count_w
        t_w = tl.where(over, 0, t_w)
        t_h += over.to(tl.int32)
        over = t_h == count_h
        t_h = tl.where(over, 0, t_h)
        t_d += over.to(tl.int32)
        w = tl.where(
            c == 0, columns + ((t_d * taps_h + t_h) * taps_w + t_w).to(tl.int64) * tap_size, w
        )
    return acc


@triton.jit
def _quotients(pixel, sizes):
    """(image, d, h, w) of pixels that are counted through all images."""
    quotients_d, quotients_h, quotients_w, by_d, by_h, by_w = sizes
    h = _divided(pixel, by_w)
    w = pixel - h * quotients_w
    d = _divided(h, by_h)
    h -= d * quotients_h
    n = _divided(d, by_d)
    return n, d - n * quotients_d, h, w


@triton.jit
def _store_pixels(y, acc, pixel, column, places, VECTORS: tl.constexpr):
    """A tile [pixels, columns] whose columns are neighbours in memory, where it is in the row."""
    o_w, place, is_out, out_w = places
    dtype: tl.constexpr = y.dtype.element_ty
    some = (o_w[:, None] + place[None, :]).to(tl.uint32) < out_w.to(tl.uint32)
    some &= is_out[None, :]
    target = y + (pixel[:, None] + column[None, :])
    if VECTORS:
        VECTOR: tl.constexpr = 128 // dtype.primitive_bitwidth
        target = tl.max_contiguous(tl.multiple_of(target, [1, 16]), [1, VECTOR])
        some = tl.max_constancy(some, [1, VECTOR])
    tl.store(target, acc.to(dtype), mask=some, cache_modifier=".cs")


@triton.jit
def _store(acc, first_column, first_pixel, output, FOLD: tl.constexpr, VECTORS: tl.constexpr):
    """Stores a tile [pixels, columns], plus bias."""
    bias, y, has_bias, group_out, fold, batch, sizes, first_n, outs, strides, origins = output
    out_d, out_h, out_w = outs
    y_n, y_c, y_d, y_h, y_w = strides
    stride_d, stride_h, step_w, phase_d, phase_h, first_w = origins
    PIXELS: tl.constexpr = acc.shape[0]
    COLUMNS: tl.constexpr = acc.shape[1]
    PHASES: tl.constexpr = 1 if FOLD == 0 else FOLD
    line = tl.arange(0, PIXELS * PHASES)
    n, q_d, q_h, q_w = _quotients(first_pixel + line // PHASES, sizes)
    o_d = q_d * stride_d + phase_d
    o_h = q_h * stride_h + phase_h
    o_w = q_w * step_w + first_w + line % PHASES
    some = (n < batch) & (o_d < out_d) & (o_h < out_h)
    y_pixel = (n - first_n) * y_n + o_d * y_d + o_h * y_h + o_w * y_w
    if FOLD == 0:
        column = first_column + tl.arange(0, COLUMNS)
        place = column // group_out
        is_out = column < group_out * fold
        b = tl.load(bias + (column - place * group_out), mask=is_out & (has_bias != 0), other=0.0)
        acc += b.to(tl.float32)[None, :]
        # Width phases of an output row are neighbours in memory, as channels are.
        o_w = tl.where(some, o_w, out_w)
        _store_pixels(y, acc, y_pixel, column, (o_w, place, is_out, out_w), VECTORS)
    else:
        # Lines of the tile: [channel, (pixel, width phase)].
        CHANNELS: tl.constexpr = COLUMNS // FOLD
        acc = tl.reshape(acc, (PIXELS, CHANNELS, FOLD))
        acc = tl.reshape(tl.permute(acc, (1, 0, 2)), (CHANNELS, PIXELS * FOLD))
        out = first_column // FOLD + tl.arange(0, CHANNELS)
        is_out = out < group_out
        b = tl.load(bias + out, mask=is_out & (has_bias != 0), other=0.0)
        acc += b.to(tl.float32)[:, None]
        some &= (line % PHASES < fold) & (o_w >= 0) & (o_w < out_w)
        # Neighbours along a line are neighbours in memory: threads go along it.
        y_tile = (out * y_c)[:, None] + tl.max_contiguous(y_pixel, 2)[None, :]
        some = is_out[:, None] & some[None, :]
        tl.store(y + y_tile, acc.to(y.dtype.element_ty), mask=some, cache_modifier=".cs")


@triton.jit
def implicit_gemm(
    bias,
    y,
    inputs,  # [batch, in_d, in_h, in_w, groups, row]
    columns,  # [groups, phases, taps, blocks, BLOCK_OUT * out_tiles, BLOCK_IN], see _prepare
    has_bias,
    batch,
    groups,
    group_out,
    in_d,
    in_h,
    in_w,
    out_d,
    out_h,
    out_w,
    kernel_d,
    kernel_h,
    kernel_w,
    x_n,
    x_d,
    x_h,
    x_w,
    y_n,
    y_c,
    y_d,
    y_h,
    y_w,
    stride_d,
    stride_h,
    stride_w,
    padding_d,
    padding_h,
    padding_w,
    dilation_d,
    dilation_h,
    dilation_w,
    gcd_d,
    gcd_h,
    gcd_w,
    tap_period_d,
    tap_period_h,
    tap_period_w,
    tap_inverse_d,
    tap_inverse_h,
    tap_inverse_w,
    tap_shift_d,
    tap_shift_h,
    tap_shift_w,
    quotients_d,
    quotients_h,
    quotients_w,
    row,  # channels of a group, zeros included
    fold,  # width phases that are columns; the words of the width are then of one phase
    step_w,  # outputs between neighbouring quotients
    back_w,  # output of quotient 0, negated
    folded_w,  # kernel columns, where they are folded
    taps_h,  # of the phase that has the most
    taps_w,
    phase_size,  # elements of `columns`: of a phase of a group,
    tap_size,  # of a tap
    out_tiles,
    slices,  # programs that share a sum; then y is fp32's [slices, *y.shape]
    slice_size,
    by_tiles,  # divisors: of `out_tiles`,
    by_groups,
    by_stride_d,  # of the words of the same names
    by_stride_h,
    by_stride_w,
    by_d,  # and of quotients
    by_h,
    by_w,
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    FOLD: tl.constexpr,  # nchw: columns of a channel; 0: nhwc
    VECTORS: tl.constexpr,  # nhwc: whether output channels are whole vectors
):
    # Columns and phases are innermost: they share an input tile.
    program = tl.program_id(0)
    above = _divided(program, by_tiles)
    out_tile = program - above * out_tiles
    program = _divided(above, by_stride_w)
    phase_w = above - program * stride_w
    above = _divided(program, by_stride_h)
    phase_h = program - above * stride_h
    program = _divided(above, by_stride_d)
    phase_d = above - program * stride_d
    above = _divided(program, by_groups)
    group = program - above * groups
    part = 0
    if slices > 1:
        part = above % slices
        above = above // slices
    first_pixel = above * BLOCK_PIXELS

    axis_d = (
        kernel_d, stride_d, padding_d, dilation_d, gcd_d, tap_period_d, tap_inverse_d, by_stride_d,
    )  # fmt: skip
    axis_h = (
        kernel_h, stride_h, padding_h, dilation_h, gcd_h, tap_period_h, tap_inverse_h, by_stride_h,
    )  # fmt: skip
    axis_w = (
        kernel_w, stride_w, padding_w, dilation_w, gcd_w, tap_period_w, tap_inverse_w, by_stride_w,
    )  # fmt: skip
    count_d, origin_d = _taps(phase_d, axis_d)
    count_h, origin_h = _taps(phase_h, axis_h)
    count_w, origin_w = _taps(phase_w, axis_w)

    # Offsets are relative to the first pixel's image, where 32 bits hold them.
    sizes = (quotients_d, quotients_h, quotients_w, by_d, by_h, by_w)
    first_n, _d, _h, _w = _quotients(first_pixel, sizes)
    pixel = first_pixel + tl.arange(0, BLOCK_PIXELS)
    n, q_d, q_h, q_w = _quotients(pixel, sizes)
    i_d = tl.where(n < batch, q_d + origin_d, -1)[:, None]  # -1: no input has a tap of it
    i_h = (q_h + origin_h)[:, None]
    i_w = (q_w + origin_w)[:, None]

    inputs += first_n.to(tl.int64) * x_n + group * row
    x_pixel = (n - first_n)[:, None] * x_n + i_d * x_d + i_h * x_h + i_w * x_w
    pixels = (
        inputs, row, x_pixel,
        (i_d, in_d, count_d, tap_shift_d, x_d),
        (i_h, in_h, count_h, tap_shift_h, x_h),
        (i_w, in_w, count_w, tap_shift_w, x_w),
    )  # fmt: skip
    phase = ((group * stride_d + phase_d) * stride_h + phase_h) * stride_w + phase_w
    PLANES: tl.constexpr = 2 if PRECISION == "fp32" else 1
    w_block = out_tiles * (BLOCK_OUT * BLOCK_IN * PLANES)
    w_low: tl.constexpr = BLOCK_OUT * BLOCK_IN
    columns += phase.to(tl.int64) * phase_size + out_tile * (BLOCK_OUT * BLOCK_IN * PLANES)
    column = tl.arange(0, BLOCK_OUT)
    weights = (columns, column[:, None] * BLOCK_IN, w_block, w_low, taps_h, taps_w, tap_size)
    blocks = tl.cdiv(row, BLOCK_IN)
    count = count_d * count_h * count_w * blocks
    c = 0
    t_d = 0
    t_h = 0
    t_w = 0
    if slices > 1:
        begin = count * part // slices
        count = count * (part + 1) // slices - begin
        tap = begin // blocks
        c = begin % blocks * BLOCK_IN
        t_w = tap % tl.maximum(count_w, 1)
        tap = tap // tl.maximum(count_w, 1)
        t_h = tap % tl.maximum(count_h, 1)
        t_d = tap // tl.maximum(count_h, 1)
    steps = (count, c, t_d, t_h, t_w)
    acc = _sum(pixels, weights, steps, (column, fold, step_w, folded_w), PRECISION, BLOCK_IN, False)

    at = first_n.to(tl.int64) * y_n + (group * group_out).to(tl.int64) * y_c
    at += part.to(tl.int64) * slice_size
    outs = (out_d, out_h, out_w)
    strides = (y_n, y_c, y_d, y_h, y_w)
    origins = (stride_d, stride_h, step_w, phase_d, phase_h, phase_w - back_w)
    output = (
        bias + group * group_out, y + at, has_bias, group_out, fold, batch, sizes, first_n, outs,
        strides, origins,
    )  # fmt: skip
    again = tl.max(tl.max((acc != acc).to(tl.int32), 1), 0) != 0
    # Places of outputs are found after the sum: they would be in registers all the time.
    first_pixel = tl.where(again, tl.minimum(first_pixel, 0x7FFFFFFE), first_pixel)
    first_column = out_tile * BLOCK_OUT
    _store(acc, first_column, first_pixel, output, FOLD, VECTORS)

    # A weight that is not finite makes NaN of the zeros of a tap outside the image. That is rare:
    # tiles with a NaN are made again without such taps, a few columns at a time.
    FEW: tl.constexpr = 16
    if again:
        for first in range(0, BLOCK_OUT, FEW):
            few = first + tl.arange(0, FEW)
            some = (columns, few[:, None] * BLOCK_IN, w_block, w_low, taps_h, taps_w, tap_size)
            few += first_column
            few = few // group_out if FOLD == 0 else few % FOLD
            places = (few, fold, step_w, folded_w)
            total = _sum(pixels, some, steps, places, PRECISION, BLOCK_IN, True)
            _store(total, first_column + first, first_pixel, output, FOLD, VECTORS)
