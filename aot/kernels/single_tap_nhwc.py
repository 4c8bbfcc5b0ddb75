"""Transposed convolution with at most one tap per output and axis; channels_last tensors.

That is kernel <= stride / gcd(stride, dilation): upsampling by k == s, and sparser. An input pixel
owns one output per residue modulo the stride, at stride * input - padding + reach. A program has
one tap, so one residue of rows and one of columns: its weights are loaded once, and
[pixels, channels] @ [channels, channels] is stored as it is. While they are on their way it stores
its share of the residues without a tap. Slices of a volume are images: slice d makes slices
d * kernel_d + tap_d.

Stores should bound it. To keep up with them, the input comes from memory in bursts, masks are by
pixel and not by element, offsets are 32 bits from one 64-bit address, and what only an edge or a
bias needs is in a loop of its own.

One block of channels is all of a sum of fp32's products, and bias is added to it as fp32 adds. NaN,
infinity and the largest numbers do what aot/kernels/precision.py says.
"""

import triton
import triton.language as tl

from aot.kernels.precision import dot, split_input, split_product, split_weight
from aot.kernels.prefetch import prefetch_slab
from aot.kernels.target import has_wgmma


@triton.jit
def _residue(residues, place):
    """Of (o + padding) % stride, where those with a tap are first, in order of taps: a nibble."""
    return ((residues >> (place * 4)) & 15).to(tl.int32)


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
def _offsets(column, columns, pixel, down, line):
    """Of a tile's pixels in its rows, `down` of `line` each; far below 0 for those in no image."""
    offset = down * line + column * pixel
    return tl.where(column.to(tl.uint32) < columns.to(tl.uint32), offset, -(1 << 31))[:, None]


@triton.jit
def single_tap_nhwc(
    x,
    weight,  # [groups * group_in, kernel_d, kernel_h, kernel_w, group_out]
    bias,
    y,
    residues_h,  # 4 bits a place, see _residue
    residues_w,
    has_bias,
    edges,  # whether there is a bias, or a tap of an output outside the image
    images,  # batch * in_d
    groups,
    group_in,
    group_out,
    in_h,
    in_w,
    out_h,
    out_w,
    kernel_d,  # also the stride of that axis
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
    slab,  # see prefetch_slab
    slab_lines,
    input_lines,
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    DEEP: tl.constexpr,  # group_in may be over BLOCK_IN
    WARPS: tl.constexpr,
):
    dtype: tl.constexpr = y.dtype.element_ty
    # Weights that tensor cores take from registers: as pieces, 64 channels' would need 192 of them.
    RELOAD: tl.constexpr = PRECISION == "fp32" and BLOCK_IN > 32 and not has_wgmma()
    tap_w = tl.program_id(0) % kernel_w
    first_column = tl.program_id(0) // kernel_w * tile_w
    tap_h = tl.program_id(1) % kernel_h
    out_tile = tl.program_id(1) // kernel_h
    tap_d = 0
    if kernel_d > 1:
        tap_d = out_tile % kernel_d
        out_tile = out_tile // kernel_d
    out_tiles = tl.cdiv(group_out, BLOCK_OUT)
    group = out_tile // out_tiles
    first_out = (out_tile - group * out_tiles) * BLOCK_OUT
    first_tile = tl.program_id(2) * tiles
    last_tile = tl.minimum(first_tile + tiles, images * tiles_h)
    n = first_tile // tiles_h
    tile = first_tile - n * tiles_h
    prefetch_slab(
        x,
        tl.program_id(2),
        slab,
        slab_lines,
        input_lines,
        tl.program_id(0) + tl.program_id(1) * tl.num_programs(0),
        tl.num_programs(0) * tl.num_programs(1),
        32 * WARPS,
    )

    x_h = first_h + tile * tile_h
    pixel = tl.arange(0, BLOCK_PIXELS)
    down = (pixel * inverse_w) >> 16  # pixel // tile_w
    x_w = first_w + first_column + pixel - down * tile_w

    out_c = groups * group_out
    y_line = out_w * out_c
    y_rows = tile_h * stride_h
    y_image = kernel_d * out_h  # lines from an image's outputs to the next one's
    y += (n.to(tl.int64) * y_image + tap_d * out_h) * y_line
    out = first_out + tl.arange(0, BLOCK_OUT)
    out_stored = (out < group_out)[None, :]
    channel = (group * group_out + out)[None, :]
    b = tl.zeros((1, BLOCK_OUT), tl.float32)
    if has_bias != 0:
        b = tl.load(bias + channel, mask=out_stored, other=0.0).to(tl.float32)

    k = tl.arange(0, BLOCK_IN)
    taps = kernel_d * kernel_h * kernel_w
    own = (tap_d * kernel_h + tap_h) * kernel_w + tap_w
    weight += ((group * group_in).to(tl.int64) * taps + own) * group_out
    w_tile = (k * (taps * group_out))[:, None] + out[None, :]
    if not DEEP:
        in_weight = (k < group_in)[:, None] & out_stored
        w = tl.load(weight + w_tile, mask=in_weight, other=0.0)

    # Residues without a tap: beside the own one in its row, then in rows of their own. In one loop,
    # for two take registers that products need.
    empty = tl.broadcast_to(b.to(dtype), (BLOCK_PIXELS, BLOCK_OUT))
    place_h = tap_h
    place_w = kernel_w + tap_w
    while place_h < stride_h:
        y_h = x_h * stride_h - padding_h + _residue(residues_h, place_h)
        y_w = x_w * stride_w - padding_w + _residue(residues_w, place_w)
        y_pixel = _offsets(y_w, out_w, out_c, down, stride_h * y_line)
        y_row = y + y_h.to(tl.int64) * y_line
        y_offset = 0
        empty_tile = tile
        for _tile in range(first_tile, tl.where(place_w < stride_w, last_tile, first_tile)):
            stored = _within(y_pixel, y_h, y_rows, out_h, y_line) & out_stored
            y_tile = y_offset + y_pixel + channel
            tl.store(y_row + y_tile, empty, mask=stored, cache_modifier=".cs")
            empty_tile += 1
            last = empty_tile == tiles_h
            empty_tile = tl.where(last, 0, empty_tile)
            y_offset, y_h = _advance(y_offset, y_h, y_rows, y_image, y_line, tiles_h, last)
        place_w += kernel_w
        is_past = place_w >= stride_w
        place_h += tl.where(is_past, kernel_h, 0)
        place_w = tl.where(is_past, tap_w, place_w)

    y_h = x_h * stride_h - padding_h + tap_h * dilation_h
    y_w = x_w * stride_w - padding_w + tap_w * dilation_w
    y_pixel = _offsets(y_w, out_w, out_c, down, stride_h * y_line)
    y += y_h.to(tl.int64) * y_line
    y_offset = 0
    in_c = groups * group_in
    x_line = in_w * in_c
    x_pixel = _offsets(x_w, in_w, in_c, down, x_line)
    x += (n.to(tl.int64) * in_h + x_h) * x_line + group * group_in
    x_offset = 0
    if not DEEP:
        w = split_weight(w, PRECISION)
    for EDGES in tl.static_range(2):
        if edges == EDGES:
            for _tile in tl.range(first_tile, last_tile, disable_licm=RELOAD):
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
                y_offset, y_h = _advance(y_offset, y_h, y_rows, y_image, y_line, tiles_h, last)
