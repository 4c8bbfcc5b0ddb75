"""Transposed convolution with at most one tap per output and axis; contiguous tensors.

That is kernel <= stride / gcd(stride, dilation): upsampling by k == s, and sparser. Every output is
one product of input channels or nothing but bias, and writing it is most of the work. A program
takes a piece of one input row and writes all output rows that it reaches, for a few channels. The
products of a kernel column belong `STRIDE` output columns apart: they go to shared memory in a
layout that leaves those gaps, are joined there by the other kernel columns' and by bias, and leave
as whole 32-byte sectors. Gluon, because Triton cannot store to shared memory with a stride.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from aot.kernels.precision import split_input, split_weight
from aot.kernels.taps import tap_of


@gluon.constexpr_function
def spread(pixels, channels, stride, gap):
    """[pixels, slots, channels]: pixels `stride` apart, channels their row and `gap` apart.

    Paddings are powers of two; with several slots they make any stride. Only the first is used.
    """
    slots = 1 if stride - 1 & stride - 2 == 0 else min(4, 1 << stride.bit_length() - 1)
    rest = stride - slots
    gaps = [[1, rest]] if slots == 1 else [[1, rest >> 2], [2, rest >> 1 & 1], [slots, rest & 1]]
    # Pairs of channels are 8 further apart: the tensor core's threads meet no bank twice.
    rows = [[slots * pixels, gap], [2 * slots * pixels, 8]]
    return gl.PaddedSharedLayout.with_identity_for(
        [pair for pair in gaps if pair[1] > 0] + rows, [pixels, slots, channels], [1, 0, 2]
    )


@gluon.constexpr_function
def gathered(shape, pitch):
    """[channels, ..., columns] of the same memory, a row every `pitch`."""
    width = shape[-1] * (shape[1] if len(shape) > 2 else 1)
    rows = [[width, pitch - width], [2 * width, 8]]
    order = list(range(len(shape)))[::-1]
    return gl.PaddedSharedLayout.with_identity_for(rows, shape, order)


@gluon.jit
def _product(a, weights, tap: tl.constexpr, acc, RIGHT: tl.constexpr, PRECISION: tl.constexpr):
    """acc + a @ weights of a tap, as `split_product`, in two chains of the tensor core."""
    if PRECISION == "fp32":
        high = weights[3 * tap].load(RIGHT)
        middle = weights[3 * tap + 1].load(RIGHT)
        low = weights[3 * tap + 2].load(RIGHT)
        small = mma_v2(a[2], high, gl.zeros_like(acc))
        acc = mma_v2(a[0], middle, acc)
        small = mma_v2(a[0], low, small)
        acc = mma_v2(a[1], high, acc)
        small = mma_v2(a[1], middle, small)
        acc = mma_v2(a[0], high, acc) + small
    else:
        acc = mma_v2(a[0], weights[tap].load(RIGHT), acc)
    return acc


@gluon.jit
def single_tap_nchw(
    x,
    weight,  # [groups * group_in, kernel_h, kernel_w, group_out]
    bias,
    y,
    taps_h,  # 4 bits a residue, see tap_of
    taps_w,
    has_bias,
    groups,
    group_in,
    group_out,
    in_h,
    in_w,
    out_h,
    out_w,
    kernel_h,
    kernel_w,
    stride_h,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    first_h,  # input rows and columns, some outside the image, whose outputs are all of the output
    first_w,
    halo_w,  # input columns left of an output's own that its tap may reach
    tile_w,  # input columns of a program whose outputs are complete
    tiles_w,
    log2_step,  # channels of a program are 2^this apart: their planes begin alike in a sector
    out_tiles,  # programs for the channels of a group
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    STRIDE: tl.constexpr,  # across
    TAPS: tl.constexpr,  # kernel columns, or more
    GAP: tl.constexpr,  # between the rows of the shared image
    COLUMNS: tl.constexpr,  # of it, stored at once; GAP and COLUMNS make its pitch
    WARPS: tl.constexpr,
):
    dtype: tl.constexpr = y.dtype.element_ty
    VECTOR: tl.constexpr = 128 // dtype.primitive_bitwidth
    SECTOR: tl.constexpr = 2 * VECTOR
    PITCH: tl.constexpr = BLOCK_PIXELS * STRIDE + GAP
    PIECES: tl.constexpr = 3 if PRECISION == "fp32" else 1
    piece: tl.constexpr = gl.bfloat16 if PRECISION == "fp32" else x.dtype.element_ty

    MMA: tl.constexpr = gl.NVMMADistributedLayout([2, 0], [WARPS, 1], [16, 8])
    LEFT: tl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    RIGHT: tl.constexpr = gl.DotOperandLayout(1, MMA, 2)
    LINES: tl.constexpr = gl.BlockedLayout([1, VECTOR], [1, 32], [WARPS, 1], [1, 0])
    ENDS: tl.constexpr = gl.BlockedLayout(
        [1, 1, 1], [32 // SECTOR, 1, SECTOR], [WARPS, 1, 1], [2, 1, 0]
    )
    WEIGHTS: tl.constexpr = gl.BlockedLayout(
        [1, 2], [64 // BLOCK_OUT, BLOCK_OUT // 2], [WARPS, 1], [1, 0]
    )
    FLAT: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    ROWS: tl.constexpr = gl.SwizzledSharedLayout(8, 1, 1, [1, 0])
    SPREAD: tl.constexpr = spread(BLOCK_PIXELS, BLOCK_OUT, STRIDE, GAP)
    LONG: tl.constexpr = gathered([BLOCK_OUT, COLUMNS], PITCH)
    SHORT: tl.constexpr = gathered([BLOCK_OUT, COLUMNS // SECTOR, SECTOR], PITCH)

    # Neighbouring programs write neighbouring columns, then rows, then channels.
    tile = 0
    i_h = gl.program_id(0)
    if tiles_w > 1:
        tile = i_h % tiles_w
        i_h = i_h // tiles_w
    i_h += first_h
    group = 0
    out_tile = gl.program_id(1)
    if groups > 1:
        group = out_tile // out_tiles
        out_tile = out_tile % out_tiles
    n = gl.program_id(2).to(gl.int64)
    step = 1 << log2_step
    first_out = (out_tile >> log2_step) * (BLOCK_OUT * step) + (out_tile & (step - 1))
    outs = group_out - first_out
    plane = out_h * out_w
    origin = ((n * groups + group) * group_out + first_out) * plane
    lead = (origin & (SECTOR - 1)).to(gl.int32)  # y starts a sector so far before this plane
    y += gl.multiple_of(origin - lead, SECTOR)
    bias += group * group_out + first_out
    first_pixel = first_w + tile * tile_w
    first_column = first_pixel * STRIDE - padding_w

    # The input, [pixels, channels].
    plane_in = in_h * in_w
    p = gl.arange(0, BLOCK_PIXELS, layout=gl.SliceLayout(1, LEFT))
    k = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(0, LEFT))
    x += (n * groups + group) * group_in * plane_in + i_h * in_w + first_pixel
    left_end = gl.where((i_h >= 0) & (i_h < in_h), -first_pixel, BLOCK_PIXELS)
    right_end = in_w - first_pixel
    in_image = (p >= left_end) & (p < right_end)
    in_x = in_image[:, None] & (k < group_in)[None, :]
    a = gl.load((x + k * plane_in)[None, :] + p[:, None], mask=in_x, other=0.0)
    a = split_input(a, PRECISION)

    # A tap's weights, [channels in, channels out].
    taps = kernel_h * kernel_w
    weight += (group * group_in).to(gl.int64) * (taps * group_out) + first_out
    w_in = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(1, WEIGHTS))[:, None]
    w_out = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(0, WEIGHTS))[None, :] * step
    w_tile = w_in * (taps * group_out) + w_out
    in_weight = (w_in < group_in) & (w_out < outs)

    # Its products, [pixels, channels].
    q = gl.arange(0, BLOCK_PIXELS, layout=gl.SliceLayout(1, MMA))
    out = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(0, MMA)) * step
    has_product = ((q >= left_end) & (q < right_end))[:, None]
    plain = gl.load(bias + out, mask=(out < outs) & (has_bias != 0), other=0.0).to(gl.float32)
    plain = plain[None, :] + gl.zeros([BLOCK_PIXELS, BLOCK_OUT], gl.float32, MMA)

    # Of a row of the shared image, [channels, columns]: most of it, and a sector at either end.
    ELEMENTS: tl.constexpr = BLOCK_OUT * PITCH + BLOCK_OUT // 2 * 8 + COLUMNS
    image = gl.allocate_shared_memory(dtype, [ELEMENTS, 1], FLAT)
    y_step = gl.multiple_of(step * plane, SECTOR)
    channel = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(1, LINES))
    column = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, LINES))
    stored = channel * step < outs
    empty = gl.load(bias + channel * step, mask=stored & (has_bias != 0), other=0.0).to(dtype)
    empty = empty[:, None] + gl.zeros([BLOCK_OUT, COLUMNS], dtype, LINES)
    sector = gl.where(stored[:, None], column[None, :] // SECTOR, -65536)
    y_lines = y_step * channel
    channel = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(1, gl.SliceLayout(2, ENDS)))
    end_column = gl.arange(0, SECTOR, layout=gl.SliceLayout(0, gl.SliceLayout(1, ENDS)))
    end_stored = (channel * step < outs)[:, None, None]
    end_mask = (channel * step < outs) & (has_bias != 0)
    end_empty = gl.load(bias + channel * step, mask=end_mask, other=0.0).to(dtype)
    end_empty = end_empty[:, None, None] + gl.zeros([BLOCK_OUT, 1, SECTOR], dtype, ENDS)
    y_ends = (y_step * channel)[:, None, None] + end_column[None, None, :]

    weights = ()
    for _ in gl.static_range(TAPS * PIECES):
        weights += (gl.allocate_shared_memory(piece, [BLOCK_IN, BLOCK_OUT], ROWS),)

    for residue in range(stride_h):
        tap_h = tap_of(taps_h, residue)
        tapped = tap_h < kernel_h
        o_h = i_h * stride_h - padding_h + gl.where(tapped, tap_h * dilation_h, residue)
        if (o_h >= 0) & (o_h < out_h):
            # From here on a position counts outputs from where y starts. What a program stores
            # begins and ends on a sector where it can: all but between two rows with taps, and at
            # the ends of a plane. A row with taps takes sectors shared with one that has none.
            row = lead + o_h * out_w
            row_end = row + out_w
            base = gl.multiple_of((row + first_column) & -SECTOR, SECTOR)  # maybe negative
            shift = row + first_column - base
            above = tap_of(taps_h, gl.where(residue > 0, residue, stride_h) - 1) < kernel_h
            below = tap_of(taps_h, gl.where(residue + 1 < stride_h, residue + 1, 0)) < kernel_h
            start = (row + gl.where(tapped, 0, SECTOR - 1)) // SECTOR * SECTOR
            start = gl.where((tapped & above) | (o_h == 0), row, start)
            end = (row_end + gl.where(below, 0, SECTOR - 1)) // SECTOR * SECTOR
            end = gl.where((tapped & below) | (o_h == out_h - 1), row_end, end)
            complete = row + first_column + halo_w * STRIDE + SECTOR - 1
            if tile > 0:
                start = gl.minimum(complete // SECTOR * SECTOR, end)
            if tile < tiles_w - 1:
                end = gl.minimum((complete + tile_w * STRIDE) // SECTOR * SECTOR, end)

            row -= base
            row_end -= base
            start -= base
            end -= base
            first = (gl.maximum(row, start) + SECTOR - 1) // SECTOR  # whole sectors of this row
            last = gl.minimum(row_end, end) // SECTOR
            target = (y + base + y_lines)[:, None] + column[None, :]
            LINES_A_ROW: tl.constexpr = (BLOCK_PIXELS * STRIDE + 2 * SECTOR - 1) // COLUMNS + 1

            if tapped:
                for tap in gl.static_range(TAPS):
                    w_tap = weight + ((tap_h * kernel_w + tap) * group_out + w_tile)
                    w = gl.load(w_tap, mask=in_weight & (tap < kernel_w), other=0.0)
                    w = split_weight(w, PRECISION)
                    for i in gl.static_range(PIECES):
                        weights[tap * PIECES + i].store(w[i])
                for slot in gl.static_range(STRIDE):
                    if tap_of(taps_w, slot) >= kernel_w:
                        _spread_out(image, shift + slot, plain, SPREAD)
                for tap in gl.static_range(TAPS):
                    if tap < kernel_w:
                        value = _product(a, weights, tap, plain, RIGHT, PRECISION)
                        value = gl.where(has_product, value, plain)
                        _spread_out(image, shift + tap * dilation_w, value, SPREAD)
                for i in gl.static_range(LINES_A_ROW):
                    number = sector + i * (COLUMNS // SECTOR)
                    line = _sector(image, i * (COLUMNS // SECTOR), SECTOR, LONG).load(LINES)
                    gl.store(target + i * COLUMNS, line, mask=(number >= first) & (number < last))
            else:
                for i in gl.static_range(LINES_A_ROW):
                    number = sector + i * (COLUMNS // SECTOR)
                    gl.store(target + i * COLUMNS, empty, mask=(number >= first) & (number < last))
            if start < first * SECTOR:
                in_end = end_stored & _within(first - 1, end_column, SECTOR, start, end)
                in_row = tapped & _within(first - 1, end_column, SECTOR, row, row_end)
                shared = _shared_end(image, first - 1, SECTOR, SHORT, ENDS)
                position = base + (first - 1) * SECTOR + y_ends
                gl.store(y + position, gl.where(in_row, shared, end_empty), mask=in_end)
            if last * SECTOR < end:
                in_end = end_stored & _within(last, end_column, SECTOR, start, end)
                in_row = tapped & _within(last, end_column, SECTOR, row, row_end)
                shared = _shared_end(image, last, SECTOR, SHORT, ENDS)
                position = base + last * SECTOR + y_ends
                gl.store(y + position, gl.where(in_row, shared, end_empty), mask=in_end)


@gluon.jit
def _spread_out(image, position, value, SPREAD: tl.constexpr):
    """Store [pixels, channels] to the shared image, the first pixel's at `position`."""
    view = image.index(position)._reinterpret(image.dtype, SPREAD.shape, SPREAD)
    value = value.to(image.dtype)
    view.slice(0, 1, 1).store(value.reshape([value.shape[0], 1, value.shape[1]]))


@gluon.jit
def _sector(image, number, SECTOR: tl.constexpr, LAYOUT: tl.constexpr):
    """A view of the shared image from a sector on."""
    FLAT: tl.constexpr = image.layout
    sectors = image._reinterpret(image.dtype, [image.shape[0] // SECTOR, SECTOR], FLAT)
    return sectors.index(number)._reinterpret(image.dtype, LAYOUT.shape, LAYOUT)


@gluon.jit
def _shared_end(image, number, SECTOR: tl.constexpr, SHORT: tl.constexpr, ENDS: tl.constexpr):
    """A sector of every channel's row of the shared image."""
    return _sector(image, number, SECTOR, SHORT).slice(0, 1, 1).load(ENDS)


@gluon.jit
def _within(number, column, SECTOR: tl.constexpr, start, end):
    """Which columns of a sector lie between two positions."""
    position = number * SECTOR + column
    return ((position >= start) & (position < end))[None, None, :]
