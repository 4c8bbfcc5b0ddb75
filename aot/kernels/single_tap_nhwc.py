"""Transposed convolution with at most one tap per output and axis; channels_last tensors.

That is kernel <= stride / gcd(stride, dilation): upsampling by k == s, and sparser. An input pixel
owns one output per residue modulo the stride, at stride * input - padding + reach. A program has
one residue of rows and one of columns, so one tap or none: its weights are loaded once, and
[pixels, channels] @ [channels, channels] is stored as it is.

Stores should bound it. To keep up with them, masks are by pixel and not by element, offsets are 32
bits from one 64-bit address, and what only an edge or a bias needs is in a loop of its own.
"""

import triton
import triton.language as tl

from aot.kernels.precision import dot, split_input, split_product, split_weight


@triton.jit
def _tap_of(taps, residue):
    """The tap of outputs o with (o + padding) % stride == residue: a nibble; >= kernel is none."""
    return ((taps >> (residue * 4)) & 15).to(tl.int32)


@triton.jit
def _within(pixel, first, rows, size, line):
    """Which pixels, by their offsets in `rows` rows of `line` elements, lie in an image.

    Its height is `size`, and the first of the rows is its row `first`.
    """
    begin = tl.minimum(tl.maximum(-first, 0), rows) * line
    end = tl.minimum(tl.maximum(size - first, 0), rows) * line
    return (pixel >= begin) & (pixel < end)


@triton.jit
def _advance(offset, first, rows, size, line, tiles, last):
    """Offset and first row of the next tile: below, or after the last of `tiles` the next image."""
    above = (tiles - 1) * rows
    offset += tl.where(last, size - above, rows) * line
    return offset, first + tl.where(last, -above, rows)


@triton.jit
def single_tap_nhwc(
    x,
    weight,  # [groups * group_in, kernel_h, kernel_w, group_out]
    bias,
    y,
    taps_h,  # 4 bits a residue, see _tap_of
    taps_w,
    has_bias,
    edges,  # whether there is a bias, or a tap of an output outside the image
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
    first_h,  # input rows and columns from these on own all outputs
    first_w,
    tile_h,  # a tile's rows and columns of them: tile_h * tile_w <= BLOCK_PIXELS
    tile_w,
    inverse_w,  # 65536 / tile_w, rounded up
    tiles_h,  # tiles of an image's rows
    tiles,  # of a program, one below the other and on into the next image
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    DEEP: tl.constexpr,  # group_in may be over BLOCK_IN
):
    dtype: tl.constexpr = y.dtype.element_ty
    OUTSIDE: tl.constexpr = -(1 << 31)  # the offset of a pixel in no image
    residue_w = tl.program_id(0) % stride_w
    first_column = tl.program_id(0) // stride_w * tile_w
    phases_h = tl.minimum(stride_h, out_h)
    residue_h = (tl.program_id(1) % phases_h + padding_h) % stride_h
    out_tile = tl.program_id(1) // phases_h
    out_tiles = tl.cdiv(group_out, BLOCK_OUT)
    group = out_tile // out_tiles
    first_out = (out_tile - group * out_tiles) * BLOCK_OUT
    first_tile = tl.program_id(2) * tiles
    last_tile = tl.minimum(first_tile + tiles, batch * tiles_h)
    n = first_tile // tiles_h
    tile = first_tile - n * tiles_h

    tap_h = _tap_of(taps_h, residue_h)
    tap_w = _tap_of(taps_w, residue_w)
    reach_h = tl.where(tap_h < kernel_h, tap_h * dilation_h, residue_h)
    reach_w = tl.where(tap_w < kernel_w, tap_w * dilation_w, residue_w)
    x_h = first_h + tile * tile_h
    y_h = x_h * stride_h - padding_h + reach_h
    pixel = tl.arange(0, BLOCK_PIXELS)
    down = (pixel * inverse_w) >> 16  # pixel // tile_w
    x_w = first_w + first_column + pixel - down * tile_w
    y_w = x_w * stride_w - padding_w + reach_w

    # A pixel's offset says whether it is stored: pixels past a tile or its columns lie too far.
    out_c = groups * group_out
    y_line = out_w * out_c
    y_rows = tile_h * stride_h
    y_pixel = down * (stride_h * y_line) + y_w * out_c
    y_pixel = tl.where(y_w.to(tl.uint32) < out_w.to(tl.uint32), y_pixel, OUTSIDE)[:, None]
    y += (n.to(tl.int64) * out_h + y_h) * y_line
    y_offset = 0
    out = first_out + tl.arange(0, BLOCK_OUT)
    out_stored = (out < group_out)[None, :]
    channel = (group * group_out + out)[None, :]
    b = tl.zeros((1, BLOCK_OUT), tl.float32)
    if has_bias != 0:
        b = tl.load(bias + channel, mask=out_stored, other=0.0).to(tl.float32)

    if (tap_h < kernel_h) & (tap_w < kernel_w):
        in_c = groups * group_in
        x_line = in_w * in_c
        x_pixel = down * x_line + x_w * in_c
        x_pixel = tl.where(x_w.to(tl.uint32) < in_w.to(tl.uint32), x_pixel, OUTSIDE)[:, None]
        x += (n.to(tl.int64) * in_h + x_h) * x_line + group * group_in
        x_offset = 0
        k = tl.arange(0, BLOCK_IN)
        taps = kernel_h * kernel_w
        weight += ((group * group_in).to(tl.int64) * taps + tap_h * kernel_w + tap_w) * group_out
        w_tile = (k * (taps * group_out))[:, None] + out[None, :]
        if not DEEP:
            in_weight = (k < group_in)[:, None] & out_stored
            w = split_weight(tl.load(weight + w_tile, mask=in_weight, other=0.0), PRECISION)
        for EDGES in tl.static_range(2):
            if edges == EDGES:
                for _tile in range(first_tile, last_tile):
                    inside = _within(x_pixel, x_h, tile_h, in_h, x_line)
                    acc = tl.zeros((BLOCK_PIXELS, BLOCK_OUT), tl.float32)
                    if DEEP:
                        for c in range(0, group_in, BLOCK_IN):
                            in_channels = k < group_in - c
                            w_step = weight + tl.cast(c, tl.int64) * taps * group_out
                            in_weight = in_channels[:, None] & out_stored
                            w = tl.load(w_step + w_tile, mask=in_weight, other=0.0)
                            a_tile = x_offset + c + x_pixel + k[None, :]
                            a = tl.load(x + a_tile, mask=inside & in_channels[None, :], other=0.0)
                            acc = dot(a, w, acc, PRECISION)
                    else:
                        a_tile = x_offset + x_pixel + k[None, :]
                        a = tl.load(x + a_tile, mask=inside & (k < group_in)[None, :], other=0.0)
                        acc = split_product(split_input(a, PRECISION), w, acc, PRECISION)
                    if EDGES:
                        acc = tl.where(inside, acc, 0.0) + b
                    stored = _within(y_pixel, y_h, y_rows, out_h, y_line) & out_stored
                    y_tile = y_offset + y_pixel + channel
                    tl.store(y + y_tile, acc.to(dtype), mask=stored, cache_modifier=".cs")
                    tile += 1
                    last = tile == tiles_h
                    tile = tl.where(last, 0, tile)
                    x_offset, x_h = _advance(x_offset, x_h, tile_h, in_h, x_line, tiles_h, last)
                    y_offset, y_h = _advance(y_offset, y_h, y_rows, out_h, y_line, tiles_h, last)
    else:
        empty = tl.broadcast_to(b.to(dtype), (BLOCK_PIXELS, BLOCK_OUT))
        for _tile in range(first_tile, last_tile):
            stored = _within(y_pixel, y_h, y_rows, out_h, y_line) & out_stored
            y_tile = y_offset + y_pixel + channel
            tl.store(y + y_tile, empty, mask=stored, cache_modifier=".cs")
            tile += 1
            last = tile == tiles_h
            tile = tl.where(last, 0, tile)
            y_offset, y_h = _advance(y_offset, y_h, y_rows, out_h, y_line, tiles_h, last)
