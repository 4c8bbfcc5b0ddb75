"""Transposed convolution with few output channels: an input row is read once, for all its products.

y[n, co, i_h stride_h + t - padding_h, q stride_w + r - padding_w] += sum over ci and taps j of
    x[n, ci, i_h, q - j] w[ci, co, t, r + j stride_w]
A position is one (n, q) of all images' rows, laid end to end with zeros between them; a program has
BLOCK_PIXELS of them, less what its taps reach back, and a run of input rows. A row is in shared
memory as [position][channel], so that the input of tap j lies j lines before the position's own. A
column is one (ring slot, co, r): an accumulator of the row of outputs whose slot is (output row +
padding_h) modulo kernel_h. From one input row to the next the weights, not the sums, move by
stride_h slots: they are kept so often in succession that each turn of them is a tile. So every
product is of a tap that exists, but for columns of the last tap, whose product is left out where
they have none.

Operands of fp32 are kept as three bf16 pieces (see aot/kernels/precision.py), whose six products
are summed from zero for each tap and block of channels, and then added as fp32 adds. Where TF32's
accuracy is enough, they are two pieces, with three products. Where a weight
is not finite, products with the zeros beside the input are left out as well.

A program reads the next block of inputs while it multiplies one, too late for memory's latency:
the lines of two rows ahead are asked of L2 before.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from aot.kernels.heads_parts import (
    MOST_TAPS,
    NOWHERE,
    Row,
    Tile,
    Turns,
    Weights,
    add_some,
    add_tap,
    channel_and_phase,
    fetch,
    inputs_from,
    keep,
    lines_of,
    places,
    prefetch,
    product_of,
    shape_of,
    stage_weights,
    store,
)


@gluon.jit
def heads(
    x,
    weight,
    bias,
    y,
    partial,  # [slices, ...] as `y`, in fp32; where `slices` > 1
    has_bias,
    batch,
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
    x_n,
    x_c,
    x_h,
    x_w,
    y_n,
    y_c,
    y_h,
    y_w,
    weight_in,
    weight_out,
    weight_h,
    weight_w,
    rows_h,  # quotients (output + padding) / stride
    positions_w,  # positions of an image's row
    rows,  # quotients of a program
    ring,  # kernel_h, at least stride_h
    turned,  # slots that weights are kept beside the ring's: ring - gcd(ring, stride_h)
    taps_w,
    tile_out,  # output channels of a program
    out_tiles,
    tile_phases,  # width phases of a program
    phase_tiles,
    slice_in,  # input channels of a slice
    slices,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,  # of a product
    MORE: tl.constexpr,  # columns of a second one; 0: none
    BLOCK_PIXELS: tl.constexpr,  # lines of inputs
    BLOCK_IN: tl.constexpr,
    ROOM: tl.constexpr,  # lines of weights in shared memory
    WARPS: tl.constexpr,
    LAST: tl.constexpr,  # channels_last
):
    shape: gl.constexpr = shape_of(
        PRECISION, COLUMNS, MORE, BLOCK_PIXELS, BLOCK_IN, ROOM, WARPS, LAST
    )
    MMA: gl.constexpr = product_of(shape)
    FLAT: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    ELEMENT: gl.constexpr = gl.bfloat16 if shape.pieces > 1 else x.dtype.element_ty

    first = gl.program_id(1) * rows
    layer = gl.program_id(2)
    part = layer % slices
    layer = layer // slices
    first_phase = layer % phase_tiles * tile_phases
    layer = layer // phase_tiles
    group = layer // out_tiles
    tile = Tile(layer % out_tiles * tile_out, tile_out, first_phase, tile_phases)
    first_in = part * slice_in
    into = gl.minimum(slice_in, group_in - first_in)
    first_in += group * group_in
    blocks = (into + shape.depth - 1) // shape.depth
    columns = tile_out * tile_phases
    turns = Turns((ring + turned) * columns, columns, ring, taps_w, blocks, into)

    # Lines of inputs: those that the first position's taps reach, then the positions' own.
    reach = taps_w - 1
    own = shape.pixels - reach
    position = gl.program_id(0) * own
    images = (batch, in_w, positions_w)
    where = places(position - reach, images, (x_n, x_w), shape)
    BITS: gl.constexpr = x.dtype.element_ty.primitive_bitwidth
    ahead = lines_of(position - reach, images, (x_n, x_w, x_c), BITS, shape) + first_in * x_c
    final = batch * x_n - 1
    all_x = x
    x += first_in * x_c
    ROWS: gl.constexpr = shape.pieces * shape.pixels * shape.depth + 8 * MOST_TAPS
    inputs = gl.allocate_shared_memory(ELEMENT, [ROWS, 1], FLAT)
    begin = gl.maximum(first - (kernel_h - 1) // stride_h, 0)
    end = gl.minimum(first + rows, rows_h)
    last = gl.minimum(end, in_h)
    for early in range(begin, gl.minimum(begin + 2, last)):
        for block in range(blocks):
            prefetch(all_x, ahead + (early * x_h + block * shape.depth * x_c), final)
    value = fetch(x, begin * x_h, where, gl.where(begin < last, into, 0), x_c, shape)

    weights = gl.allocate_shared_memory(
        ELEMENT, [shape.pieces * shape.room * shape.depth + shape.beyond, 1], FLAT
    )
    weight += first_in.to(gl.int64) * weight_in
    w = Weights(weight, weight_in, weight_out, weight_h, weight_w, group_out,
                kernel_h, kernel_w, stride_w)  # fmt: skip
    infinite = stage_weights(weights, w, turns, tile, shape)

    # Where the outputs of positions and columns lie.
    line = gl.arange(0, shape.pixels, layout=gl.SliceLayout(1, MMA))
    m = position + line
    n = m // positions_w
    q_w = m - n * positions_w
    o_w = q_w * stride_w - padding_w
    place = n * y_n + o_w * y_w
    found = ()
    phases = ()
    sums = ()
    PRODUCTS: gl.constexpr = len(shape.columns)
    for i in gl.static_range(PRODUCTS):
        c = gl.arange(0, shape.columns[i], layout=gl.SliceLayout(0, MMA)) + i * shape.columns[0]
        slot = c // columns
        co, r = channel_and_phase(c - slot * columns, tile, shape)
        there = (slot < ring) & (co < group_out) & (r < stride_w)
        co += group * group_out
        biased = there & (has_bias != 0) & (slices == 1)
        start = gl.load(bias + co, mask=biased, other=0.0).to(gl.float32)
        stored = o_w[:, None] + r[None, :]
        stored = (
            (stored >= 0)
            & (stored < out_w)
            & ((n < batch) & (line < own))[:, None]
            & there[None, :]
        )
        offsets = place[:, None] + (co * y_c + r * y_w)[None, :]
        offsets = gl.where(stored, offsets, NOWHERE)
        found += ((slot, offsets, start),)
        phases += (r,)
        sums += (gl.zeros_like(offsets).to(gl.float32) + start[None, :],)

    target = (y, partial + part.to(gl.int64) * batch * y_n, slices)
    # Taps whose products are right wherever they are added.
    whole = gl.where(infinite, 0, kernel_w // stride_w)
    turn = begin * stride_h % ring
    for q in range(begin, end):
        from_slot = gl.where(turn > 0, ring - turn, 0) * columns
        for block in range(gl.where(q < last, blocks, 0)):
            gl.thread_barrier()
            keep(inputs, value, shape)
            gl.thread_barrier()
            next_block = gl.where(block + 1 < blocks, block + 1, 0)
            next_row = gl.where(block + 1 < blocks, q, q + 1)
            left = gl.where(next_row < last, into - next_block * shape.depth, 0)
            at = next_row * x_h + next_block * shape.depth * x_c
            value = fetch(x, at, where, left, x_c, shape)
            at = gl.minimum(q + 2, last - 1) * x_h + block * shape.depth * x_c
            prefetch(all_x, ahead + at, final)
            of_tap = from_slot + block * taps_w * turns.lines
            for tap in range(whole):
                a = inputs_from(inputs, reach - tap, shape)
                sums = add_tap(sums, a, weights, of_tap, shape)
                of_tap += turns.lines
            for tap in range(whole, taps_w):
                a = inputs_from(inputs, reach - tap, shape)
                inside = (q_w >= tap) & (q_w - tap < in_w)
                having = ()
                for i in gl.static_range(PRODUCTS):
                    having += (phases[i] + tap * stride_w < kernel_w,)
                sums = add_some(sums, a, weights, of_tap, (inside, having), shape)
                of_tap += turns.lines
        row = Row(q * stride_h - padding_h, turn, stride_h, ring, q >= first, out_h, y_h)
        kept = ()
        for i in gl.static_range(PRODUCTS):
            kept += (store(target, sums[i], found[i], row),)
        sums = kept
        turn += stride_h
        turn -= gl.where(turn >= ring, ring, 0)
