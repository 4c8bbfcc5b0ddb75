"""Transposed convolution with at most one tap per output and axis; channels_last tensors.

That is kernel <= stride / gcd(stride, dilation): upsampling by k == s, and sparser. An input pixel
owns one output per residue modulo the stride, and those of a row are neighbours in memory, with
their channels: [pixels, channels] @ [channels, (residue, channel)] is stored as it is.
"""

import triton
import triton.language as tl

from aot.kernels.precision import dot, product, split
from aot.kernels.taps import tap_of


@triton.jit
def _next(n, row, step, rows):
    """The rows after these: `step` further down, or the first of the next image."""
    row += step
    return n + (row >= rows).to(tl.int32), tl.where(row >= rows, 0, row)


@triton.jit
def single_tap_nhwc(
    x,
    weight,  # [groups * group_in, kernel_h, kernel_w, group_out]
    bias,
    y,
    taps_h,  # 4 bits a residue, see tap_of
    taps_w,
    has_bias,
    batch,
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
    stride_w,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    first_w,  # input columns, some outside the image, that own all output columns
    span_w,
    tile_w,  # input columns of a tile; it has BLOCK_PIXELS / tile_w rows
    tiles,  # tiles of a program, one below the other
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,  # of the stride_w * group_out columns of a pixel
    BLOCK_IN: tl.constexpr,
    DEEP: tl.constexpr,  # group_in may be over BLOCK_IN
):
    dtype: tl.constexpr = y.dtype.element_ty
    program = tl.program_id(0)
    columns = stride_w * group_out
    column_tiles = tl.cdiv(columns, BLOCK_OUT)
    first_column = program % column_tiles * BLOCK_OUT
    program = program // column_tiles
    tiles_w = tl.cdiv(span_w, tile_w)
    first_pixel = program % tiles_w * tile_w
    program = program // tiles_w
    group = program % groups
    program = program // groups

    # A program's output rows have the same residue modulo stride_h, so the same kernel row.
    phase_h = program % stride_h
    program = program // stride_h
    rows = tl.cdiv(tl.maximum(out_h - phase_h, 0), stride_h)
    tile_h = BLOCK_PIXELS // tile_w
    image_tiles = tl.cdiv(rows, tile_h)
    first_tile = program * tiles
    last_tile = tl.minimum(first_tile + tiles, batch * image_tiles)
    n = first_tile // tl.maximum(image_tiles, 1)
    row = first_tile % tl.maximum(image_tiles, 1) * tile_h
    tap_h = tap_of(taps_h, (phase_h + padding_h) % stride_h)
    origin_h = (phase_h + padding_h - tap_h * dilation_h) // stride_h

    column = first_column + tl.arange(0, BLOCK_OUT)
    residue = column // group_out
    out = column - residue * group_out
    tap_w = tap_of(taps_w, residue)
    has_tap = (tap_w < kernel_w) & (column < columns)
    pixel = tl.arange(0, BLOCK_PIXELS)
    down = pixel // tile_w
    across = first_pixel + pixel - down * tile_w
    in_tile = (down < tile_h) & (across < span_w)
    x_w = first_w + across
    reach = tl.where(has_tap, tap_w * dilation_w, residue)
    o_w = (x_w * stride_w - padding_w)[:, None] + reach[None, :]
    stored = (o_w >= 0) & (o_w < out_w) & in_tile[:, None] & (column < columns)[None, :]

    channel = group * group_out + out
    b = tl.load(bias + channel, mask=(column < columns) & (has_bias != 0), other=0.0)
    b = b.to(tl.float32)[None, :]
    empty = tl.broadcast_to(b.to(dtype), (BLOCK_PIXELS, BLOCK_OUT))
    out_c = groups * group_out
    y_tile = (down * (stride_h * out_w) * out_c)[:, None] + (o_w * out_c + channel[None, :])

    if (tap_h < kernel_h) & (tl.max(has_tap.to(tl.int32), 0) > 0):
        in_c = groups * group_in
        k = tl.arange(0, BLOCK_IN)
        x_tile = ((down * in_w + x_w) * in_c + group * group_in)[:, None] + k[None, :]
        x_stored = in_tile & (x_w >= 0) & (x_w < in_w)
        taps = kernel_h * kernel_w
        weight += ((group * group_in).to(tl.int64) * taps + tap_h * kernel_w) * group_out
        w_tile = (k * (taps * group_out))[:, None] + (tap_w * group_out + out)[None, :]
        if not DEEP:
            in_weight = (k < group_in)[:, None] & has_tap[None, :]
            w = tl.load(weight + w_tile, mask=in_weight, other=0.0)
            w, w_middle, w_low = split(w, PRECISION)
        for _tile in range(first_tile, last_tile):
            i_h = origin_h + row
            x_row = x + ((n.to(tl.int64) * in_h + i_h) * in_w) * in_c
            y_row = y + ((n.to(tl.int64) * out_h + phase_h + row * stride_h) * out_w) * out_c
            inside = x_stored & (i_h + down >= 0) & (i_h + down < in_h)
            in_image = (row + down < rows)[:, None]
            n, row = _next(n, row, tile_h, rows)
            if DEEP:
                acc = tl.zeros((BLOCK_PIXELS, BLOCK_OUT), tl.float32)
                for c in range(0, group_in, BLOCK_IN):
                    in_channels = k < group_in - c
                    w_step = weight + tl.cast(c, tl.int64) * taps * group_out
                    w = tl.load(
                        w_step + w_tile, mask=in_channels[:, None] & has_tap[None, :], other=0.0
                    )
                    a = tl.load(
                        x_row + c + x_tile, mask=inside[:, None] & in_channels[None, :], other=0.0
                    )
                    acc = dot(a, w, acc, PRECISION)
            else:
                a = tl.load(
                    x_row + x_tile, mask=inside[:, None] & (k < group_in)[None, :], other=0.0
                )
                a, a_middle, a_low = split(a, PRECISION)
                acc = product(a, a_middle, a_low, w, w_middle, w_low, PRECISION)
            value = tl.where(inside[:, None] & has_tap[None, :], (acc + b).to(dtype), empty)
            tl.store(y_row + y_tile, value, mask=stored & in_image, cache_modifier=".cs")
    else:
        for _tile in range(first_tile, last_tile):
            y_row = y + ((n.to(tl.int64) * out_h + phase_h + row * stride_h) * out_w) * out_c
            in_image = (row + down < rows)[:, None]
            n, row = _next(n, row, tile_h, rows)
            tl.store(y_row + y_tile, empty, mask=stored & in_image, cache_modifier=".cs")
