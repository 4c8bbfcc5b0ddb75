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
    PAIR,
    PAIR_BITS,
    PERIOD,
    Box,
    Output,
    Place,
    Rings,
    Side,
    Taps,
    Tiles,
    advanced,
    before,
    blocks_of,
    depths_of,
    digits_of,
    following,
    mma_layout,
    place_of,
    rows_of,
    shape_of,
    span_of,
    tap_of,
    weight_block,
)

__all__ = ["halo", "halo_prepare"]  # the kernels of this family


@gluon.jit
def load_boxes(x, rings, tiles, taps, box, shape: gl.constexpr):
    UNIT: gl.constexpr = PAIR * shape.depth * x.dtype.primitive_bitwidth // 8
    slot = 0
    parity = 1
    at = digits_of(gl.program_id(0), tiles)
    for _tile in range(gl.program_id(0), tiles.total, gl.num_programs(0)):
        _column, group, r_w, r_h, w0, h0, o_d, n0 = place_of(at, tiles, shape)
        span = span_of(r_h, r_w, taps, shape)
        front, back, _tap = depths_of(o_d, taps.d)
        for depth in range(front, back, taps.d.step):
            n = n0 * tiles.in_d + depth
            for block in range(blocks_of(depth, tiles)):
                for i in range(span.width):
                    full = rings.x_full.index(slot)
                    mbarrier.wait(rings.x_empty.index(slot), parity)
                    # Its instruction has a constant number of bytes: one for each bit that is set.
                    for bit in gl.static_range(PAIR_BITS):
                        if ((box.pairs >> bit) & 1) == 1:
                            mbarrier.expect(full, UNIT << bit)
                    to = rings.x.index(slot * box.periods * PERIOD)
                    to = to._reinterpret(x.dtype, x.block_type.shape, x.layout)
                    column = w0 + span.left + i * taps.w.step
                    of = [n, h0 + span.top, column, group, block * shape.depth]
                    tma.async_copy_global_to_shared(x, of, full, to)
                    slot, parity = following(slot, parity, box.stages)
        at = advanced(at, tiles)


@gluon.jit
def load_block(weight, at, ready, to, some, shape: gl.constexpr):
    group, tap, column, k = at
    to = to._reinterpret(weight.dtype, weight.block_type.shape, weight.layout)
    of = [group, k, tap, column] if shape.straight else [tap, group, column, k]
    tma.async_copy_global_to_shared(weight, of, ready, to, pred=some)


@gluon.jit
def load_rows(weight, rings, at, begin, end, ring, taps, shape: gl.constexpr):
    """Weights of the row shifts of one phase, from the tap of `at` on downwards."""
    group, tap, column, k = at
    slot, parity = ring
    row_taps = taps.h.period * taps.kernel_w
    for r in range(begin, end, shape.rows * taps.h.step):
        ready = rings.w_full.index(slot)
        mbarrier.wait(rings.w_empty.index(slot), parity)
        if shape.rows == 1:
            mbarrier.expect(ready, weight.block_type.nbytes)
            load_block(weight, (group, tap, column, k), ready, rings.w.index(slot), True, shape)
        else:
            both = r + taps.h.step < end
            mbarrier.expect(ready, weight.block_type.nbytes, pred=both == 0)
            mbarrier.expect(ready, 2 * weight.block_type.nbytes, pred=both)
            to = 2 * slot
            load_block(weight, (group, tap, column, k), ready, rings.w.index(to), True, shape)
            below = (group, tap - row_taps, column, k)
            load_block(weight, below, ready, rings.w.index(to + 1), both, shape)
        tap -= shape.rows * row_taps
        slot, parity = following(slot, parity, shape.stages)
    return slot, parity


@gluon.jit
def load_weights(weight, rings, tiles, taps, shape: gl.constexpr):
    ring = (0, 1)
    at = digits_of(gl.program_id(0), tiles)
    for _tile in range(gl.program_id(0), tiles.total, gl.num_programs(0)):
        column, group, r_w, r_h, _w0, _h0, o_d, _n0 = place_of(at, tiles, shape)
        span = span_of(r_h, r_w, taps, shape)
        front, back, tap_d = depths_of(o_d, taps.d)
        for depth in range(front, back, taps.d.step):
            for block in range(blocks_of(depth, tiles)):
                for i in range(span.width):
                    for g in gl.static_range(shape.group_h * shape.group_w):
                        tap = tap_of(i, tap_d, span, taps, g, shape)
                        of = (group, tap, column, block * shape.depth)
                        begin, end = rows_of(i, span, g, shape)
                        ring = load_rows(weight, rings, of, begin, end, ring, taps, shape)
            tap_d -= taps.d.period
        at = advanced(at, tiles)


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
    acc, rings, x_slot, begin, end, step, state, box, shape: gl.constexpr, FLAT: gl.constexpr
):
    """Products of one phase with a box: `shape.rows` row shifts a step.

    The last `shape.lag` steps run while the next is prepared; what earlier ones read is given back.
    """
    slot, parity, held, x_left = state
    base = x_slot * box.periods * PERIOD
    for r in range(begin, end, shape.rows * step):
        mbarrier.wait(rings.w_full.index(slot), parity)
        at = base + r * box.row
        if shape.rows == 1:
            acc = product(acc, rings, at, slot, shape, FLAT)
            acc = warpgroup_mma_wait(shape.lag, deps=[acc])
        elif r + step < end:
            acc = product(acc, rings, at, 2 * slot, shape, FLAT)
            acc = product(acc, rings, at + step * box.row, 2 * slot + 1, shape, FLAT)
            acc = warpgroup_mma_wait(2, deps=[acc])
        else:
            acc = product(acc, rings, at, 2 * slot, shape, FLAT)
            acc = warpgroup_mma_wait(1, deps=[acc])
        done = before(slot, shape.lag, shape.stages)
        mbarrier.arrive(rings.w_empty.index(done), count=1, pred=held == shape.lag)
        if x_left == 1:
            mbarrier.arrive(rings.x_empty.index(before(x_slot, 1, box.stages)), count=1)
        held = gl.minimum(held + 1, shape.lag)
        x_left -= 1
        slot, parity = following(slot, parity, shape.stages)
    return acc, (slot, parity, held, x_left)


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
    # Slot and parity of the next weights, steps that may still run, and after how many of them
    # the box before this one is given back.
    state = (0, 0, 0, 0)
    at = digits_of(gl.program_id(0), tiles)
    for _tile in range(gl.program_id(0), tiles.total, gl.num_programs(0)):
        column, group, r_w, r_h, w0, h0, o_d, n0 = place_of(at, tiles, shape)
        span = span_of(r_h, r_w, taps, shape)
        step = taps.h.step
        a0 = gl.zeros([R, C], gl.float32, layout=MMA)
        a1 = a0
        a2 = a0
        a3 = a0
        front, back, _tap = depths_of(o_d, taps.d)
        for depth in range(front, back, taps.d.step):
            for _ in range(blocks_of(depth, tiles)):
                for i in range(span.width):
                    mbarrier.wait(rings.x_full.index(x_slot), x_parity)
                    b, e = rows_of(i, span, 0, shape)
                    a0, state = multiply_rows(
                        a0, rings, x_slot, b, e, step, state, box, shape, FLAT
                    )
                    if GROUPS > 1:
                        b, e = rows_of(i, span, 1, shape)
                        a1, state = multiply_rows(
                            a1, rings, x_slot, b, e, step, state, box, shape, FLAT
                        )
                    if GROUPS > 2:
                        b, e = rows_of(i, span, 2, shape)
                        a2, state = multiply_rows(
                            a2, rings, x_slot, b, e, step, state, box, shape, FLAT
                        )
                        b, e = rows_of(i, span, 3, shape)
                        a3, state = multiply_rows(
                            a3, rings, x_slot, b, e, step, state, box, shape, FLAT
                        )
                    if shape.lag > 1:  # noqa: SIM102 (a constant)
                        if state[3] > 0:  # the box had fewer steps
                            a0 = warpgroup_mma_wait(1, deps=[a0])
                            done = before(x_slot, 1, box.stages)
                            mbarrier.arrive(rings.x_empty.index(done), count=1)
                    state = (state[0], state[1], state[2], shape.lag)
                    x_slot, x_parity = following(x_slot, x_parity, box.stages)
        if GROUPS == 1:
            a0 = warpgroup_mma_wait(0, deps=[a0])
        elif GROUPS == 2:
            a0, a1 = warpgroup_mma_wait(0, deps=[a0, a1])
        else:
            a0, a1, a2, a3 = warpgroup_mma_wait(0, deps=[a0, a1, a2, a3])
        for i in gl.static_range(1, shape.lag + 1):
            done = before(state[0], i, shape.stages)
            mbarrier.arrive(rings.w_empty.index(done), count=1, pred=state[2] >= i)
        done = before(x_slot, 1, box.stages)
        mbarrier.arrive(rings.x_empty.index(done), count=1, pred=state[2] > 0)
        state = (state[0], state[1], 0, 0)

        if has_bias:
            values = bias + group * out.group_out
            a0 = add_bias(a0, values, column, out, ROWS_FIRST, shape)
            if GROUPS > 1:
                a1 = add_bias(a1, values, column, out, ROWS_FIRST, shape)
            if GROUPS > 2:
                a2 = add_bias(a2, values, column, out, ROWS_FIRST, shape)
                a3 = add_bias(a3, values, column, out, ROWS_FIRST, shape)
        o_h = h0 * out.step_h + r_h
        start = n0.to(gl.int64) * out.y_n + o_h.to(gl.int64) * out.y_h
        start += o_d.to(gl.int64) * out.y_d
        start += (group * out.group_out).to(gl.int64) * out.y_c
        images = gl.minimum(out.batch - n0, tiles.tile_n)
        # Zero, which the compiler must not know: else it keeps all tiles' pixels in registers.
        first = state[0] >> 16
        place = Place(start, first, images, out.out_h - o_h, w0, r_w - out.back, column)
        put_all(y, (a0, a1, a2, a3), place, out, shape)
        at = advanced(at, tiles)


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
    tiles_d,
    step_out,  # the number of programs in digits of a tile's number
    step_group,
    step_phase_w,
    step_phase_h,
    step_w,
    step_h,
    step_d,
    step_n,
    tile_w,
    tile_h,
    tile_n,
    blocks,
    taps_h,
    taps_w,
    phases_d,
    padding_d,
    least_d,
    more_d,
    extra_d,
    period_d,
    apart_d,
    phases_h,
    shift_h,
    rest_h,
    least_h,
    more_h,
    extra_h,
    period_h,
    apart_h,
    phases_w,
    shift_w,
    rest_w,
    least_w,
    more_w,
    extra_w,
    period_w,
    apart_w,
    box_pairs,
    boxes,
    rows,
    images,
    group_out,
    in_d,
    out_h,
    out_w,
    y_n,
    y_c,
    y_d,
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
    LAG: gl.constexpr,
    STRAIGHT: gl.constexpr,
):
    SHAPE: gl.constexpr = shape_of(
        KIND, BLOCK_PIXELS, BLOCK_OUT, BLOCK_K, GROUP_H, GROUP_W, STAGES, ROWS, LAG, STRAIGHT
    )
    BITS: gl.constexpr = inputs.dtype.primitive_bitwidth
    FLAT: gl.constexpr = gl.NVMMASharedLayout(128, BITS, 2)
    SWIZZLE: gl.constexpr = min(128, BLOCK_OUT * BITS // 8) if STRAIGHT else 128
    WEIGHTS: gl.constexpr = gl.NVMMASharedLayout(SWIZZLE, BITS, 2)
    BLOCK: gl.constexpr = weight_block(SHAPE)
    BARRIER: gl.constexpr = mbarrier.MBarrierLayout()
    rings = Rings(
        gl.allocate_shared_memory(inputs.dtype, [PERIODS * PERIOD, 1, BLOCK_K], FLAT),
        gl.allocate_shared_memory(inputs.dtype, [STAGES * ROWS, BLOCK[0], BLOCK[1]], WEIGHTS),
        gl.allocate_shared_memory(gl.int64, [BOXES, 1], BARRIER),
        gl.allocate_shared_memory(gl.int64, [BOXES, 1], BARRIER),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER),
    )
    arrivals = 0
    for bit in gl.static_range(PAIR_BITS):
        arrivals += (box_pairs >> bit) & 1
    for i in gl.static_range(BOXES):
        for count in gl.static_range(1, ARRIVALS + 1):
            if arrivals == count:
                mbarrier.init(rings.x_full.index(i), count=count)
        mbarrier.init(rings.x_empty.index(i), count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(rings.w_full.index(i), count=1)
        mbarrier.init(rings.w_empty.index(i), count=1)
    fence_async_shared()
    taps = Taps(
        Side(phases_d, padding_d, 0, least_d, more_d, extra_d, period_d, apart_d),
        Side(phases_h, shift_h, rest_h, least_h, more_h, extra_h, period_h, apart_h),
        Side(phases_w, shift_w, rest_w, least_w, more_w, extra_w, period_w, apart_w),
        taps_h, taps_w,
    )  # fmt: skip
    counts = Tiles(
        tiles, tiles_out, groups, phases_w // GROUP_W, phases_h // GROUP_H,
        tiles_w, tiles_h, tiles_d, tile_w, tile_h, tile_n, blocks, in_d,
        step_out, step_group, step_phase_w, step_phase_h, step_w, step_h, step_d, step_n,
    )  # fmt: skip
    box = Box(box_pairs, (box_pairs * PAIR + PERIOD - 1) // PERIOD, tile_w, boxes)
    out = Output(
        images, group_out, out_h, out_w, y_n, y_c, y_d, y_h, y_w, stride_h, stride_w, fold, back,
        counts, rows, by_row, by_w, by_fold,
    )  # fmt: skip
    LOADING: gl.constexpr = 56 if ROWS == 2 else 24  # registers; accumulators need the others
    gl.warp_specialize(
        [
            (multiply_all, (rings, bias, y, has_bias, counts, taps, box, out, SHAPE)),
            (load_boxes, (inputs, rings, counts, taps, box, SHAPE)),
            (load_weights, (columns, rings, counts, taps, SHAPE)),
        ],
        [1, 1],
        [LOADING, LOADING],
    )
