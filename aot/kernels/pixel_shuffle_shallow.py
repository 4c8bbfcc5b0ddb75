"""Transposed convolution with kernel == stride, no padding and few input channels; contiguous.

The product of `pixel_shuffle`, but little work for each byte: weights stay in a program's shared
memory while input passes by, and outputs leave from the tensor core's registers, 16 bytes at once.
For what one of its threads gets to be neighbours in memory, pixels and columns are multiplied in
this order, outermost first:

    rows     rounds of all warps, warps, a bit of the pixel, 8 threads' pixels
    columns  channels, kernel columns, 8 channels, of which a thread has two

One block of channels is all of a sum: the tensor core truncates it a few times at most. NaN,
infinity and the largest numbers do what aot/kernels/precision.py says.

Gluon, because Triton would take all outputs through shared memory.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from aot.kernels.blocks import kernel_row_place, place
from aot.kernels.neighbours import along, as_rows, of_input
from aot.kernels.precision import split_input, split_weight
from aot.kernels.target import has_wgmma


@gluon.constexpr_function
def of_output(channels, outputs, stride, vector, warps):
    """[channels, outputs] as the tensor core leaves them, `vector` neighbours in a thread."""
    run = max(stride, vector)
    block = 8 * vector // run  # channels of 8 columns
    register = [*along(1, 1, vector), [1, 0], *along(1, 8 * run * warps, outputs)]
    register += along(0, block, channels)
    lane = [*along(1, vector, run), *along(0, 2, block), *along(1, run, 8 * run)]
    warp = along(1, 8 * run, 8 * run * warps)
    return gl.DistributedLinearLayout(register, lane, warp, [], [channels, outputs])


@gluon.jit
def _as_columns(w, VECTOR: tl.constexpr):
    """[channels in, kernel columns, channels out] in the product's order of columns.

    If a pixel's kernel columns are two vectors, two threads have them: HALVES, among 8 columns.
    """
    HALVES: tl.constexpr = max(1, w.shape[1] // VECTOR)
    PAIRS: tl.constexpr = 4 // HALVES
    LOW: tl.constexpr = w.shape[1] // HALVES
    columns = w.reshape([w.shape[0], HALVES, LOW, w.shape[2] // (2 * PAIRS), PAIRS, 2])
    return columns.permute([0, 3, 2, 4, 1, 5]).reshape([w.shape[0], w.shape[1] * w.shape[2]])


@gluon.jit
def _as_outputs(acc, STRIDE: tl.constexpr, VECTOR: tl.constexpr, WARPS: tl.constexpr):
    """[channels, outputs] of a product: back from both orders."""
    EACH: tl.constexpr = max(1, VECTOR // STRIDE)
    NEAR: tl.constexpr = min(EACH, 2)
    FAR: tl.constexpr = EACH // NEAR
    ROUNDS: tl.constexpr = acc.shape[0] // (16 * WARPS * FAR)
    HALVES: tl.constexpr = max(1, STRIDE // VECTOR)
    PAIRS: tl.constexpr = 4 // HALVES
    LOW: tl.constexpr = STRIDE // HALVES
    BLOCKS: tl.constexpr = acc.shape[1] // (8 * LOW)
    outputs = acc.reshape([ROUNDS, FAR, WARPS, 2 // NEAR, NEAR, 8, BLOCKS, LOW, PAIRS, HALVES, 2])
    outputs = outputs.permute([6, 8, 10, 0, 3, 2, 5, 1, 4, 9, 7])
    return outputs.reshape([acc.shape[1] // STRIDE, acc.shape[0] * STRIDE])


@gluon.jit
def _load(shared, x, tile, in_group, pixel, item, items, pixel_tiles, image_in, x_c):
    """Begin to copy an item's input, [channels, pixels], to shared memory; zeros past the last."""
    first_pixel = item % pixel_tiles * shared.shape[1]
    mask = in_group & (pixel < gl.where(item < items, x_c - first_pixel, 0))[None, :]
    image = x + (item // pixel_tiles).to(gl.int64) * image_in * x_c + first_pixel
    async_copy.async_copy_global_to_shared(shared, image + tile, mask=mask)
    async_copy.commit_group()


@gluon.jit
def _add(a, weights, acc, RIGHT: tl.constexpr):
    """acc + a @ weights; what `wgmma` adds is not there before it was waited for."""
    if has_wgmma():
        acc = warpgroup_mma(a, weights, acc, is_async=True)
    else:
        acc = mma_v2(a, weights.load(RIGHT), acc)
    return acc


@gluon.jit
def _product(a, weights, first, acc, RIGHT: tl.constexpr, PRECISION: tl.constexpr):
    """acc + a @ weights of pieces, as `split_product`."""
    if PRECISION == "fp32":
        high = weights.index(first)
        middle = weights.index(first + 1)
        acc = _add(a[2], high, acc, RIGHT)
        acc = _add(a[0], weights.index(first + 2), acc, RIGHT)
        acc = _add(a[1], middle, acc, RIGHT)
        acc = _add(a[0], middle, acc, RIGHT)
        acc = _add(a[1], high, acc, RIGHT)
        acc = _add(a[0], high, acc, RIGHT)
    else:
        acc = _add(a[0], weights.index(first), acc, RIGHT)
    if has_wgmma():
        acc = warpgroup_mma_wait(0, deps=[acc])
    return acc


@gluon.jit
def pixel_shuffle_shallow(
    x,
    weight,  # [groups * group_in, kernel_d, kernel_h, STRIDE, group_out]
    bias,
    y,
    has_bias,
    groups,
    group_in,
    group_out,
    out_h,
    out_w,
    kernel_d,
    kernel_h,
    x_c,  # pixels of an input channel
    y_c,
    items,  # tiles of pixels, of all images
    tiles,  # of a program: kernel rows of some channels, then those of the next
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    STRIDE: tl.constexpr,  # along the width
    VECTOR: tl.constexpr,  # outputs stored at once
    HELD: tl.constexpr,  # tiles, or more
    WARPS: tl.constexpr,
):
    dtype: tl.constexpr = x.dtype.element_ty
    piece: tl.constexpr = gl.bfloat16 if PRECISION == "fp32" else dtype
    PIECES: tl.constexpr = 3 if PRECISION == "fp32" else 1
    LANES: tl.constexpr = 128 // dtype.primitive_bitwidth
    EACH: tl.constexpr = max(1, VECTOR // STRIDE)
    COLUMNS: tl.constexpr = STRIDE * BLOCK_OUT
    OUTPUTS: tl.constexpr = STRIDE * BLOCK_PIXELS

    VERSION: tl.constexpr = 3 if has_wgmma() else 2
    SHAPE: tl.constexpr = [16, COLUMNS, 16] if has_wgmma() else [16, 8]
    MMA: tl.constexpr = gl.NVMMADistributedLayout([VERSION, 0], [WARPS, 1], SHAPE)
    LEFT: tl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    RIGHT: tl.constexpr = gl.DotOperandLayout(1, MMA, 2)
    INPUT: tl.constexpr = of_input(BLOCK_IN, BLOCK_PIXELS, EACH, WARPS)
    OUTPUT: tl.constexpr = of_output(BLOCK_OUT, OUTPUTS, STRIDE, VECTOR, WARPS)
    COPIES: tl.constexpr = gl.BlockedLayout(
        [1, LANES], [LANES // 4, 128 // LANES], [WARPS, 1], [1, 0]
    )
    WEIGHTS: tl.constexpr = gl.BlockedLayout(
        [1, 1, 2], [64 // COLUMNS, STRIDE, BLOCK_OUT // 2], [WARPS, 1, 1], [2, 1, 0]
    )
    BY_CHANNEL: tl.constexpr = gl.SwizzledSharedLayout(LANES, 1, 8, [1, 0])
    BY_STEP: tl.constexpr = gl.NVMMASharedLayout(128, 16, 2)

    kernel_rows = kernel_d * kernel_h
    all_tiles = gl.cdiv(group_out, BLOCK_OUT) * kernel_rows
    parts = gl.cdiv(all_tiles, tiles)
    group = (gl.program_id(1) // parts).to(gl.int64)
    first_tile = gl.program_id(1) % parts * tiles
    tiles = gl.minimum(tiles, all_tiles - first_tile)

    # An item's input is copied while those before are multiplied.
    AHEAD: tl.constexpr = 2
    pixel_tiles = gl.cdiv(x_c, BLOCK_PIXELS)
    k = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(1, COPIES))
    pixel = gl.arange(0, BLOCK_PIXELS, layout=gl.SliceLayout(0, COPIES))
    x += group * group_in * x_c
    x_tile = (k * x_c)[:, None] + pixel[None, :]
    in_group = (k < group_in)[:, None]
    image_in = groups * group_in
    inputs = gl.allocate_shared_memory(dtype, [AHEAD, BLOCK_IN, BLOCK_PIXELS], BY_CHANNEL)
    item = gl.program_id(0)
    for i in gl.static_range(AHEAD):
        shared = inputs.index(i)
        _load(shared, x, x_tile, in_group, pixel, item, items, pixel_tiles, image_in, x_c)
        item += gl.num_programs(0)

    # The weights, [channels in, kernel columns, channels out] a tile.
    k = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(1, gl.SliceLayout(2, WEIGHTS)))
    tap = gl.arange(0, STRIDE, layout=gl.SliceLayout(0, gl.SliceLayout(2, WEIGHTS)))
    out = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(0, gl.SliceLayout(1, WEIGHTS)))
    w_row = STRIDE * group_out
    w_tile = (k * (kernel_rows * w_row))[:, None, None] + (tap * group_out)[None, :, None]
    w_tile += out[None, None, :]
    weight += group * group_in * (kernel_rows * w_row)
    weights = gl.allocate_shared_memory(piece, [HELD * PIECES, BLOCK_IN, COLUMNS], BY_STEP)
    for i in range(tiles):
        first_out = (first_tile + i) // kernel_rows * BLOCK_OUT
        in_weight = (k < group_in)[:, None, None] & (out < group_out - first_out)[None, None, :]
        w = weight + (first_tile + i) % kernel_rows * w_row + first_out
        w = split_weight(gl.load(w + w_tile, mask=in_weight, other=0.0), PRECISION)
        for j in gl.static_range(PIECES):
            weights.index(i * PIECES + j).store(_as_columns(w[j], VECTOR))
    if has_wgmma():
        fence_async_shared()

    column = gl.arange(0, OUTPUTS, layout=gl.SliceLayout(0, OUTPUT))
    out = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(1, OUTPUT))
    y += group * group_out * y_c
    bias += group * group_out
    current = 0
    for item in range(gl.program_id(0), items, gl.num_programs(0)):
        async_copy.wait_group(AHEAD - 1)
        shared = inputs.index(current)
        a = as_rows(shared.load(INPUT).permute([1, 0]), EACH, WARPS)
        later = item + AHEAD * gl.num_programs(0)
        _load(shared, x, x_tile, in_group, pixel, later, items, pixel_tiles, image_in, x_c)
        current = (current + 1) % AHEAD
        a = split_input(gl.convert_layout(a, LEFT), PRECISION)

        flat = item % pixel_tiles * OUTPUTS + column
        in_plane = (flat < x_c * STRIDE)[None, :]
        flat = place(flat, out_h, out_w, kernel_d, kernel_h)
        y_tile = (out * y_c)[:, None] + flat[None, :]
        image = y + (item // pixel_tiles).to(gl.int64) * groups * group_out * y_c
        for i in range(tiles):
            first_out = (first_tile + i) // kernel_rows * BLOCK_OUT
            in_y = out < group_out - first_out
            b = gl.load(bias + first_out + out, mask=in_y & (has_bias != 0), other=0.0)
            acc = gl.zeros([BLOCK_PIXELS, COLUMNS], gl.float32, MMA)
            acc = _product(a, weights, i * PIECES, acc, RIGHT, PRECISION)
            acc = gl.convert_layout(_as_outputs(acc, STRIDE, VECTOR, WARPS), OUTPUT)
            acc = (acc + b.to(gl.float32)[:, None]).to(y.dtype.element_ty)
            target = image + first_out.to(gl.int64) * y_c
            target += kernel_row_place((first_tile + i) % kernel_rows, out_h, out_w, kernel_h)
            stored = in_y[:, None] & in_plane
            gl.store(target + y_tile, acc, mask=stored, cache_modifier=".cs")
