"""Deep layers on sm_90: persistent programs of two loading warps and eight multiplying ones.

Output o = q * stride + r takes the taps k with (r + padding - k) % stride == 0, from the inputs
q + (r + padding - k) / stride: consecutive shifts. A tile is BLOCK_PIXELS quotients q of
GROUP_H x GROUP_W neighbouring phases r, times BLOCK_OUT columns. For each block of input channels
and each column shift, TMA brings one box of input pixels with the halo rows; a row shift is an
offset into the box, so that one read of the input serves all kernel rows and all phases of a tile.
Weights stream beside it, a block [BLOCK_OUT, BLOCK_K] for each product.

Columns are output channels, or (KIND "fold") pairs of an output channel and a width phase: then
kernel columns come `fold` at a time, and the width phases of an output row lie side by side.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from aot.kernels.halo_prepare import halo_prepare
from aot.kernels.halo_store import add_bias, put_all
from aot.kernels.halo_tiles import (
    ARRIVALS,
    BOXES,
    BYTE_BITS,
    PERIOD,
    Box,
    Output,
    Place,
    Rings,
    Taps,
    Tiles,
    following,
    mma_layout,
    place_of,
    rows_of,
    shape_of,
    spans,
    weight_block,
)

__all__ = ["halo", "halo_prepare"]  # the kernels of this family


@gluon.jit
def load_boxes(x, rings, tiles, taps, box, shape: gl.constexpr):
    UNIT: gl.constexpr = PERIOD * shape.depth * x.dtype.primitive_bitwidth // 8
    slot = 0
    parity = 1
    for tile in range(gl.program_id(0), tiles.total, gl.num_programs(0)):
        _column, group, r_h, r_w, n0, h0, w0 = place_of(tile, tiles, taps, shape)
        top, left, width, _rows, _columns = spans(r_h, r_w, taps, shape)
        for block in range(tiles.blocks):
            for u in range(width):
                full = rings.x_full.index(slot)
                mbarrier.wait(rings.x_empty.index(slot), parity)
                # Its instruction has a constant number of bytes: one for each bit that is set.
                for bit in gl.static_range(BYTE_BITS):
                    if ((box.periods >> bit) & 1) == 1:
                        mbarrier.expect(full, UNIT << bit)
                to = rings.x.index(slot * box.periods)
                to = to._reinterpret(x.dtype, x.block_type.shape, x.layout)
                of = [n0, h0 + top, w0 + left + u, group, block * shape.depth]
                tma.async_copy_global_to_shared(x, of, full, to)
                slot, parity = following(slot, parity, box.stages)


@gluon.jit
def load_block(weight, at, ready, to, some, shape: gl.constexpr):
    group, tap, column, k = at
    to = to._reinterpret(weight.dtype, weight.block_type.shape, weight.layout)
    of = [group, k, tap, column] if shape.straight else [tap, group, column, k]
    tma.async_copy_global_to_shared(weight, of, ready, to, pred=some)


@gluon.jit
def load_weights(weight, rings, tiles, taps, shape: gl.constexpr):
    slot = 0
    parity = 1
    row_taps = taps.stride_h * taps.kernel_w
    for tile in range(gl.program_id(0), tiles.total, gl.num_programs(0)):
        column, group, r_h, r_w, _n0, _h0, _w0 = place_of(tile, tiles, taps, shape)
        top, left, width, rows, columns = spans(r_h, r_w, taps, shape)
        for block in range(tiles.blocks):
            for u in range(width):
                for g in gl.static_range(shape.group_h * shape.group_w):
                    tap_h = r_h + g // shape.group_w + taps.padding_h - top * taps.stride_h
                    tap_w = r_w + g % shape.group_w + taps.padding_w - (left + u) * taps.stride_w
                    begin, end = rows_of(u, rows, columns, g, shape)
                    first = tap_h * taps.kernel_w + tap_w
                    for r in range(begin, end, shape.rows):
                        ready = rings.w_full.index(slot)
                        mbarrier.wait(rings.w_empty.index(slot), parity)
                        at = (group, first - r * row_taps, column, block * shape.depth)
                        if shape.rows == 1:
                            mbarrier.expect(ready, weight.block_type.nbytes)
                            load_block(weight, at, ready, rings.w.index(slot), True, shape)
                        else:
                            both = r + 1 < end
                            mbarrier.expect(ready, weight.block_type.nbytes, pred=both == 0)
                            mbarrier.expect(ready, 2 * weight.block_type.nbytes, pred=both)
                            load_block(weight, at, ready, rings.w.index(2 * slot), True, shape)
                            at = (group, at[1] - row_taps, column, at[3])
                            load_block(weight, at, ready, rings.w.index(2 * slot + 1), both, shape)
                        slot, parity = following(slot, parity, shape.stages)


@gluon.jit
def product(acc, rings, pixels, block, shape: gl.constexpr, FLAT: gl.constexpr):
    a = rings.x.index(pixels)._reinterpret(rings.x.dtype, [shape.pixels, shape.depth], FLAT)
    b = rings.w.index(block)
    if shape.straight:
        return warpgroup_mma(a, b, acc, is_async=True)
    elif shape.kind == "rows" or shape.kind == "lines":
        return warpgroup_mma(b, a.permute([1, 0]), acc, is_async=True)
    else:
        return warpgroup_mma(a, b.permute([1, 0]), acc, is_async=True)


@gluon.jit
def multiply_rows(
    acc, rings, base, begin, end, state, box, shape: gl.constexpr, FLAT: gl.constexpr
):
    """Products of one phase with the box at `base`: `shape.rows` row shifts a step."""
    slot, parity, done, busy, x_done, x_busy = state
    for r in range(begin, end, shape.rows):
        mbarrier.wait(rings.w_full.index(slot), parity)
        at = base + r * box.row_periods
        if shape.rows == 1:
            acc = product(acc, rings, at, slot, shape, FLAT)
            acc = warpgroup_mma_wait(1, deps=[acc])
        elif r + 1 < end:
            acc = product(acc, rings, at, 2 * slot, shape, FLAT)
            acc = product(acc, rings, at + box.row_periods, 2 * slot + 1, shape, FLAT)
            acc = warpgroup_mma_wait(2, deps=[acc])
        else:
            acc = product(acc, rings, at, 2 * slot, shape, FLAT)
            acc = warpgroup_mma_wait(1, deps=[acc])
        # The step before this one is complete: what it read may be overwritten.
        mbarrier.arrive(rings.w_empty.index(done), count=1, pred=busy == 1)
        if x_busy == 1:
            mbarrier.arrive(rings.x_empty.index(x_done), count=1)
        done = slot
        busy = 1
        x_busy = 0
        slot, parity = following(slot, parity, shape.stages)
    return acc, (slot, parity, done, busy, x_done, x_busy)


@gluon.jit
def multiply_all(rings, bias, y, has_bias, tiles, taps, box, out, shape: gl.constexpr):
    ROWS_FIRST: gl.constexpr = shape.kind == "rows" or shape.kind == "lines"
    GROUPS: gl.constexpr = shape.group_h * shape.group_w
    R: gl.constexpr = shape.columns if ROWS_FIRST else shape.pixels
    C: gl.constexpr = shape.pixels if ROWS_FIRST else shape.columns
    MMA: gl.constexpr = mma_layout(R, C, shape.depth)
    FLAT: gl.constexpr = rings.x.layout
    x_slot = 0
    x_parity = 0
    # Slot and parity of the next weights; what the last product read, and whether it is held.
    state = (0, 0, 0, 0, 0, 0)
    for tile in range(gl.program_id(0), tiles.total, gl.num_programs(0)):
        column, group, r_h, r_w, n0, h0, w0 = place_of(tile, tiles, taps, shape)
        _top, _left, width, rows, columns = spans(r_h, r_w, taps, shape)
        a0 = gl.zeros([R, C], gl.float32, layout=MMA)
        a1 = a0
        a2 = a0
        a3 = a0
        for _ in range(tiles.blocks):
            for u in range(width):
                mbarrier.wait(rings.x_full.index(x_slot), x_parity)
                base = x_slot * box.periods
                b, e = rows_of(u, rows, columns, 0, shape)
                a0, state = multiply_rows(a0, rings, base, b, e, state, box, shape, FLAT)
                if GROUPS > 1:
                    b, e = rows_of(u, rows, columns, 1, shape)
                    a1, state = multiply_rows(a1, rings, base, b, e, state, box, shape, FLAT)
                if GROUPS > 2:
                    b, e = rows_of(u, rows, columns, 2, shape)
                    a2, state = multiply_rows(a2, rings, base, b, e, state, box, shape, FLAT)
                    b, e = rows_of(u, rows, columns, 3, shape)
                    a3, state = multiply_rows(a3, rings, base, b, e, state, box, shape, FLAT)
                state = (state[0], state[1], state[2], state[3], x_slot, 1)
                x_slot, x_parity = following(x_slot, x_parity, box.stages)
        if GROUPS == 1:
            a0 = warpgroup_mma_wait(0, deps=[a0])
        elif GROUPS == 2:
            a0, a1 = warpgroup_mma_wait(0, deps=[a0, a1])
        else:
            a0, a1, a2, a3 = warpgroup_mma_wait(0, deps=[a0, a1, a2, a3])
        mbarrier.arrive(rings.w_empty.index(state[2]), count=1, pred=state[3] == 1)
        mbarrier.arrive(rings.x_empty.index(state[4]), count=1, pred=state[5] == 1)
        state = (state[0], state[1], state[2], 0, state[4], 0)

        if has_bias:
            at = bias + group * out.group_out
            a0 = add_bias(a0, at, column, out, ROWS_FIRST, shape)
            if GROUPS > 1:
                a1 = add_bias(a1, at, column, out, ROWS_FIRST, shape)
            if GROUPS > 2:
                a2 = add_bias(a2, at, column, out, ROWS_FIRST, shape)
                a3 = add_bias(a3, at, column, out, ROWS_FIRST, shape)
        o_h = h0 * out.step_h + r_h
        start = n0.to(gl.int64) * out.y_n + o_h.to(gl.int64) * out.y_h
        start += (group * out.group_out).to(gl.int64) * out.y_c
        images = gl.minimum(out.batch - n0, tiles.tile_n)
        # Zero, which the compiler must not know: else it keeps all tiles' pixels in registers.
        first = state[0] >> 16
        place = Place(start, first, images, out.out_h - o_h, w0, r_w - out.back, column)
        put_all(y, (a0, a1, a2, a3), place, out, shape)


@gluon.jit
def halo(
    inputs,  # map of [images, h, w, groups, channels], boxes [images, rows, tile_w, 1, BLOCK_K]
    columns,  # map of [taps, groups, columns, channels], or [groups, channels, taps, columns]
    bias,
    y,
    has_bias,
    tiles,
    tiles_out,
    groups,
    tiles_w,
    tiles_h,
    tile_w,
    tile_h,
    tile_n,
    blocks,
    taps_h,
    taps_w,
    phases_h,
    phases_w,
    padding_h,
    before_w,
    box_periods,
    row_periods,
    boxes,
    rows,
    images,
    group_out,
    out_h,
    out_w,
    y_n,
    y_c,
    y_h,
    y_w,
    stride_h,
    stride_w,
    fold,
    back,
    by_row,
    by_w,
    by_fold,
    KIND: gl.constexpr,
    BLOCK_PIXELS: gl.constexpr,
    BLOCK_OUT: gl.constexpr,
    BLOCK_K: gl.constexpr,
    GROUP_H: gl.constexpr,
    GROUP_W: gl.constexpr,
    PERIODS: gl.constexpr,  # of all boxes
    STAGES: gl.constexpr,  # of weights, each of ROWS blocks
    ROWS: gl.constexpr,
    STRAIGHT: gl.constexpr,
):
    SHAPE: gl.constexpr = shape_of(
        KIND, BLOCK_PIXELS, BLOCK_OUT, BLOCK_K, GROUP_H, GROUP_W, STAGES, ROWS, STRAIGHT
    )
    BITS: gl.constexpr = inputs.dtype.primitive_bitwidth
    FLAT: gl.constexpr = gl.NVMMASharedLayout(128, BITS, 2)
    SWIZZLE: gl.constexpr = min(128, BLOCK_OUT * BITS // 8) if STRAIGHT else 128
    WEIGHTS: gl.constexpr = gl.NVMMASharedLayout(SWIZZLE, BITS, 2)
    BLOCK: gl.constexpr = weight_block(SHAPE)
    BARRIER: gl.constexpr = mbarrier.MBarrierLayout()
    rings = Rings(
        gl.allocate_shared_memory(inputs.dtype, [PERIODS, PERIOD, BLOCK_K], FLAT),
        gl.allocate_shared_memory(inputs.dtype, [STAGES * ROWS, BLOCK[0], BLOCK[1]], WEIGHTS),
        gl.allocate_shared_memory(gl.int64, [BOXES, 1], BARRIER),
        gl.allocate_shared_memory(gl.int64, [BOXES, 1], BARRIER),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER),
    )
    arrivals = 0
    for bit in gl.static_range(BYTE_BITS):
        arrivals += (box_periods >> bit) & 1
    for i in gl.static_range(BOXES):
        for count in gl.static_range(1, ARRIVALS + 1):
            if arrivals == count:
                mbarrier.init(rings.x_full.index(i), count=count)
        mbarrier.init(rings.x_empty.index(i), count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(rings.w_full.index(i), count=1)
        mbarrier.init(rings.w_empty.index(i), count=1)
    fence_async_shared()
    taps = Taps(taps_h, taps_w, phases_h, phases_w, padding_h, before_w)
    counts = Tiles(tiles, tiles_out, groups, tiles_w, tiles_h, tile_w, tile_h, tile_n, blocks)
    box = Box(box_periods, row_periods, boxes)
    out = Output(
        images, group_out, out_h, out_w, y_n, y_c, y_h, y_w, stride_h, stride_w, fold, back,
        counts, rows, by_row, by_w, by_fold,
    )  # fmt: skip
    gl.warp_specialize(
        [
            (multiply_all, (rings, bias, y, has_bias, counts, taps, box, out, SHAPE)),
            (load_boxes, (inputs, rings, counts, taps, box, SHAPE)),
            (load_weights, (columns, rings, counts, taps, SHAPE)),
        ],
        [1, 1],
        [40, 40],
    )
