"""The headline layer as one file: kernels compiled just in time, and `class ModelNew`.

The kernels are the package's as they were before its products were summed block by block and its
numbers kept finite. They are in Gluon, which comes with Triton. For layers with at most one tap per
output and at most 64 input channels.
"""

from math import gcd

import torch
import torch.nn as nn
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2


@triton.jit
def _top_half(value):
    """The upper 16 bits of an fp32 as bf16, and the exact rest."""
    bits = value.to(tl.uint32, bitcast=True)
    top = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return top, value - (bits & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def _finite(value):
    """The nearest finite number."""
    largest: tl.constexpr = 3.4028234663852886e38
    return tl.clamp(value, -largest, largest)


@triton.jit
def split_input(value, PRECISION: tl.constexpr):
    """Left operand of `split_product`: bf16 pieces, for fp32 three whose sum is `value` exactly.

    What is not finite is all in the first.
    """
    high = value
    middle = value
    low = value
    if PRECISION == "fp16":
        high = value.to(tl.float16)
    elif PRECISION != "native":
        high, rest = _top_half(value)
        if PRECISION == "fp32":
            _, rest = _top_half(_finite(value))
            middle, rest = _top_half(rest)
            low, _ = _top_half(rest)
        else:  # no clamp: that moves registers in the loop of `pixel_shuffle`, 14 % of its time
            middle = tl.where(rest == rest, rest, 0.0).to(tl.bfloat16)
    return high, middle, low


@triton.jit
def split_weight(value, PRECISION: tl.constexpr):
    """Right operand of `split_product`, made so that no sum of products needs repair.

    The left first piece may be infinite, and meets every piece of this: none is 0 where `value` is
    not, nor of the other sign. It alone meets the last piece: there goes what is not finite.
    """
    high = value
    middle = value
    low = value
    if PRECISION == "fp16":
        high = value.to(tl.float16)
    elif PRECISION != "native":
        tiny: tl.constexpr = 2.0**-32
        finite = _finite(value)
        high, rest = _top_half(finite)
        if PRECISION == "fp32":
            middle, rest = _top_half(rest + finite * tiny)
            low, _ = _top_half(rest + value * tiny)
        else:
            middle = (rest + value * tiny).to(tl.bfloat16)
    return high, middle, low


@gluon.constexpr_function
def along(dim, first, end):
    """Bases of a layout of two dimensions: powers of two along one of them."""
    steps = [1 << bit for bit in range(31) if first <= 1 << bit < end]
    return [[0, step] if dim else [step, 0] for step in steps]


@gluon.constexpr_function
def of_input(into, pixels, each, warps):
    """[channels, pixels] as the product's left operand, `each` neighbouring pixels in a thread."""
    near, warp = along(1, 1, each), along(1, 8 * each, 8 * each * warps)
    rounds = along(1, 8 * each * warps, pixels)
    register = [*near, [1, 0], *rounds, *along(0, 8, into)]
    lane = [*along(0, 2, 8), *along(1, each, 8 * each)]
    return gl.DistributedLinearLayout(register, lane, warp, [], [into, pixels])


@gluon.jit
def as_rows(a, EACH: tl.constexpr, WARPS: tl.constexpr):
    """[pixels, channels] in the product's order of rows; a thread has EACH neighbours."""
    NEAR: tl.constexpr = min(EACH, 2)
    FAR: tl.constexpr = EACH // NEAR
    ROUNDS: tl.constexpr = a.shape[0] // (16 * WARPS * FAR)
    rows = a.reshape([ROUNDS, 2 // NEAR, WARPS, 8, FAR, NEAR, a.shape[1]])
    return rows.permute([0, 4, 2, 1, 5, 3, 6]).reshape(a.shape)


@gluon.constexpr_function
def spread(pixels, channels, stride, gap, pair):
    """[pixels, slots, channels]: pixels `stride` apart, channels their row and `gap` apart.

    Paddings are powers of two; with several slots they make any stride. Only the first is used.
    """
    slots = 1 if stride - 1 & stride - 2 == 0 else min(4, 1 << stride.bit_length() - 1)
    rest = stride - slots
    gaps = [[1, rest]] if slots == 1 else [[1, rest >> 2], [2, rest >> 1 & 1], [slots, rest & 1]]
    # Pairs of channels are further apart: with odd strides and 32 bits the tensor core's threads
    # meet no bank twice.
    rows = [[slots * pixels, gap], [2 * slots * pixels, pair]]
    return gl.PaddedSharedLayout.with_identity_for(
        [pair for pair in gaps if pair[1] > 0] + rows, [pixels, slots, channels], [1, 0, 2]
    )


@gluon.constexpr_function
def gathered(shape, pitch, pair):
    """[channels, ..., columns] of the same memory, a row every `pitch`."""
    width = shape[-1] * (shape[1] if len(shape) > 2 else 1)
    rows = [[width, pitch - width], [2 * width, pair]]
    order = list(range(len(shape)))[::-1]
    return gl.PaddedSharedLayout.with_identity_for(rows, shape, order)


@gluon.jit
def _pixel(row, PAIRS: tl.constexpr):
    """Of a row of the product. PAIRS: in the order of `as_rows` of two neighbours."""
    if PAIRS:
        row = (row & -16) + 2 * (row & 7) + (row >> 3 & 1)
    return row


@gluon.jit
def _as_pixels(value):
    """[rows, channels] in the order of pixels, back from `as_rows` of two neighbours."""
    rows = value.reshape([value.shape[0] // 16, 2, 8, value.shape[1]])
    return rows.permute([0, 2, 1, 3]).reshape(value.shape)


@gluon.jit
def _product(a, weights, tap: tl.constexpr, acc, RIGHT: tl.constexpr, PRECISION: tl.constexpr):
    """acc + a @ weights of a tap, as `split_product`, in two chains of the tensor core."""
    if PRECISION == "fp32":
        middle = weights[3 * tap + 1].load(RIGHT)
        small = mma_v2(a[1], middle, gl.zeros_like(acc))
        acc = mma_v2(a[0], middle, acc)
        low = weights[3 * tap + 2].load(RIGHT)
        small = mma_v2(a[0], low, small)
        high = weights[3 * tap].load(RIGHT)
        small = mma_v2(a[2], high, small)
        acc = mma_v2(a[1], high, acc)
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
    empty_h,  # a bit per residue of output rows: none has a tap; the first again after the last
    empty_w,  # and columns
    joined_h,  # 2 bits a tap: the rows above and below its own have taps too
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
    first_h,  # of the input rows, some outside the image, whose outputs are all of the output
    first_w,  # and of the columns; at least 0
    halo_w,  # input columns left of an output's own that its tap may reach
    tile_w,  # input columns of a program whose outputs are complete
    tiles_w,
    log2_step,  # channels of a tile are 2^this apart: their planes begin alike in a sector
    out_tiles,  # of the channels of a group
    tiles,  # of them, of a program
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    STRIDE: tl.constexpr,  # across
    TAPS: tl.constexpr,  # kernel columns, or more
    GAP: tl.constexpr,  # between the rows of the shared image
    COLUMNS: tl.constexpr,  # of it, stored at once; GAP and COLUMNS make its pitch
    COPIED: tl.constexpr,  # pixels of the input in four bytes; 0 to load them one by one
    SECTOR: tl.constexpr,  # outputs that are stored whole: 32 bytes, or 16
    WARPS: tl.constexpr,
):
    dtype: tl.constexpr = y.dtype.element_ty
    VECTOR: tl.constexpr = 128 // dtype.primitive_bitwidth
    PAIR_GAP: tl.constexpr = VECTOR if STRIDE == 8 else 2 * VECTOR  # fewest bank conflicts
    PITCH: tl.constexpr = BLOCK_PIXELS * STRIDE + GAP
    PIECES: tl.constexpr = 3 if PRECISION == "fp32" else 1
    EDGE: tl.constexpr = 64  # more columns than taps reach over their pixel's own and a sector
    TOGETHER: tl.constexpr = 1 if PRECISION == "fp32" else 3  # products that registers hold
    PAIRS: tl.constexpr = dtype.primitive_bitwidth == 16 and STRIDE % 2 == 1  # meet no bank twice
    piece: tl.constexpr = gl.bfloat16 if PRECISION == "fp32" else x.dtype.element_ty

    MMA: tl.constexpr = gl.NVMMADistributedLayout([2, 0], [WARPS, 1], [16, 8])
    LEFT: tl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    RIGHT: tl.constexpr = gl.DotOperandLayout(1, MMA, 2)
    ACROSS: tl.constexpr = min(32, COLUMNS // VECTOR)
    LINES: tl.constexpr = gl.BlockedLayout([1, VECTOR], [32 // ACROSS, ACROSS], [WARPS, 1], [1, 0])
    ENDS: tl.constexpr = gl.BlockedLayout(
        [1, 1, 1], [32 // SECTOR, 1, SECTOR], [WARPS, 1, 1], [2, 1, 0]
    )
    WEIGHTS: tl.constexpr = gl.BlockedLayout(
        [1, 1], [32 // BLOCK_OUT, BLOCK_OUT], [WARPS, 1], [1, 0]
    )
    COPIES: tl.constexpr = gl.BlockedLayout([1, max(COPIED, 1)], [1, 32], [WARPS, 1], [1, 0])
    BY_CHANNEL: tl.constexpr = gl.SwizzledSharedLayout(VECTOR, 1, 8, [1, 0])
    FLAT: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    ROWS: tl.constexpr = gl.SwizzledSharedLayout(8, 1, 1, [1, 0])
    SPREAD: tl.constexpr = spread(BLOCK_PIXELS, BLOCK_OUT, STRIDE, GAP, PAIR_GAP)
    LONG: tl.constexpr = gathered([BLOCK_OUT, COLUMNS], PITCH, PAIR_GAP)
    SHORT: tl.constexpr = gathered([BLOCK_OUT, COLUMNS // SECTOR, SECTOR], PITCH, PAIR_GAP)

    # Neighbouring programs write neighbouring columns, then rows, then channels. (A division takes
    # long where nothing hides it.)
    i_h = gl.program_id(0)
    tile = 0
    if tiles_w > 1:
        tile = i_h % tiles_w
        i_h = i_h // tiles_w
    i_h += first_h
    first_tile = gl.program_id(1) * tiles
    last_tile = gl.minimum(first_tile + tiles, out_tiles)
    image_group = gl.program_id(2)
    group = 0
    if groups > 1:
        group = image_group % groups
    step = 1 << log2_step
    plane = out_h * out_w
    first_pixel = first_w + tile * tile_w
    first_column = first_pixel * STRIDE - padding_w

    # The input: [channels, pixels] on its way to shared memory, or [pixels, channels].
    plane_in = in_h * in_w
    x += image_group.to(gl.int64) * (group_in * plane_in) + i_h * in_w + first_pixel
    pixels = gl.where((i_h >= 0) & (i_h < in_h), in_w - first_pixel, 0)  # in the image
    if COPIED > 0:
        p = gl.arange(0, BLOCK_PIXELS, layout=gl.SliceLayout(0, COPIES))
        k = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(1, COPIES))
        in_x = (k < group_in)[:, None] & (p < pixels)[None, :]
        source = (x + k * plane_in)[:, None] + p[None, :]
        copies = gl.allocate_shared_memory(x.dtype.element_ty, [BLOCK_IN, BLOCK_PIXELS], BY_CHANNEL)
        async_copy.async_copy_global_to_shared(copies, source, mask=in_x)
        async_copy.commit_group()
    else:
        p = _pixel(gl.arange(0, BLOCK_PIXELS, layout=gl.SliceLayout(1, LEFT)), PAIRS)
        k = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(0, LEFT))
        in_x = (p < pixels)[:, None] & (k < group_in)[None, :]
        source = (x + k * plane_in)[None, :] + p[:, None]
        a = gl.load(source, mask=in_x, other=0.0, eviction_policy="evict_last")
    q = _pixel(gl.arange(0, BLOCK_PIXELS, layout=gl.SliceLayout(1, MMA)), PAIRS)
    has_product = (q < pixels)[:, None]

    # The weights of a kernel row, [channels in, channels out] a tap: loaded while the ones before
    # are multiplied.
    w_row = kernel_w * group_out
    weight += (group * group_in).to(gl.int64) * (kernel_h * w_row)
    w_in = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(1, WEIGHTS))[:, None]
    w_out = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(0, WEIGHTS))[None, :] * step
    w_tile = w_in * (kernel_h * w_row) + w_out
    first_out = _first_channel(first_tile, log2_step, BLOCK_OUT)
    in_weight = (w_in < group_in) & (w_out < group_out - first_out)
    first_row = weight + _tap_h(0, i_h, kernel_h) * w_row + first_out
    next_weights = _kernel_row(first_row, w_tile, kernel_w, group_out, in_weight, TAPS)

    # A row of outputs, [channels, columns]: its whole sectors, and one at either end.
    y_step = gl.multiple_of(step * plane, SECTOR)
    out = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(0, MMA)) * step
    channel = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(1, LINES))
    column = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, LINES))
    end_channel = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(1, gl.SliceLayout(2, ENDS)))
    end_column = gl.arange(0, SECTOR, layout=gl.SliceLayout(0, gl.SliceLayout(1, ENDS)))
    y_lines = y_step * channel
    y_ends = (y_step * end_channel)[:, None, None] + end_column[None, None, :]
    LINES_A_ROW: tl.constexpr = (BLOCK_PIXELS * STRIDE + EDGE - 1) // COLUMNS + 1

    # A position counts outputs from where `y_tile` is. What a program stores of a row begins and
    # ends on a sector where it can: all but between two rows with taps, and at the ends of a plane.
    # Rows with taps have the sectors they share with rows that have none. Of a program's columns,
    # what begins and ends on a sector, and has all its products:
    complete = first_column + halo_w * STRIDE + SECTOR - 1
    complete_end = gl.where(tile < tiles_w - 1, complete + tile_w * STRIDE, 1 << 30)
    complete = gl.where(tile > 0, complete, -1 << 30)

    edges = gl.where(halo_w > 0, gl.cdiv(halo_w * STRIDE, SECTOR) + 1, 0)  # sectors

    if COPIED > 0:
        async_copy.wait_group(0)
        if PAIRS:
            a = copies.load(of_input(BLOCK_IN, BLOCK_PIXELS, 2, WARPS)).permute([1, 0])
            a = gl.convert_layout(as_rows(a, 2, WARPS), LEFT)
        else:
            a = copies.permute([1, 0]).load(LEFT)
    a = split_input(a, PRECISION)

    # Rows with taps are put together in shared memory, where the input was.
    ELEMENTS: tl.constexpr = BLOCK_OUT * PITCH + BLOCK_OUT // 2 * PAIR_GAP + COLUMNS
    image = gl.allocate_shared_memory(dtype, [ELEMENTS, 1], FLAT)
    weights = ()
    for _ in gl.static_range(TAPS * PIECES):
        weights += (gl.allocate_shared_memory(piece, [BLOCK_IN, BLOCK_OUT], ROWS),)

    for out_tile in range(first_tile, last_tile):
        first_out = _first_channel(out_tile, log2_step, BLOCK_OUT)
        outs = group_out - first_out
        origin = (image_group.to(gl.int64) * group_out + first_out) * plane
        lead = (origin & (SECTOR - 1)).to(gl.int32)  # `y` starts a sector so far before this plane
        y_tile = y + gl.multiple_of(origin - lead, SECTOR)

        # A row with nothing but bias: of products, of lines and of ends.
        offset = group * group_out + first_out
        has_plain = (out < outs) & (has_bias != 0)
        plain = gl.load(bias + offset + out, mask=has_plain, other=0.0).to(gl.float32)
        plain = plain[None, :] + gl.zeros([BLOCK_PIXELS, BLOCK_OUT], gl.float32, MMA)
        stored = channel * step < outs
        empty = gl.load(bias + offset + channel * step, mask=stored & (has_bias != 0), other=0.0)
        empty = empty[:, None] + gl.zeros([BLOCK_OUT, COLUMNS], dtype, LINES)
        sector = gl.where(stored[:, None], column[None, :] // SECTOR, 65536)
        end_stored = end_channel * step < outs
        has_end = end_stored & (has_bias != 0)
        end_empty = gl.load(bias + offset + end_channel * step, mask=has_end, other=0.0)
        end_empty = end_empty[:, None, None] + gl.zeros([BLOCK_OUT, 1, SECTOR], dtype, ENDS)
        end_stored = end_stored[:, None, None]

        # Rows without taps first: loads are on their way.
        for residue in range(stride_h):
            o_h = i_h * stride_h - padding_h + residue
            if (empty_h >> residue) & 1 & (o_h >= 0) & (o_h < out_h):
                row = lead + o_h * out_w
                row_end = row + out_w
                below = (empty_h >> (residue + 1)) & 1
                start = gl.where(o_h == 0, row, (row + SECTOR - 1) & -SECTOR)
                end = (row_end + gl.where(below != 0, SECTOR - 1, 0)) & -SECTOR
                end = gl.where(o_h == out_h - 1, row_end, end)
                start, end = _of_program(start, end, row, complete, complete_end, SECTOR)
                first = (start + SECTOR - 1) // SECTOR
                last = end // SECTOR
                target = y_tile + gl.multiple_of(first * SECTOR, SECTOR) + y_lines
                target = target[:, None] + column[None, :]
                for i in gl.static_range(LINES_A_ROW):
                    mask = sector < last - first - i * (COLUMNS // SECTOR)
                    gl.store(target + i * COLUMNS, empty, mask=mask, cache_modifier=".cs")
                for side in gl.static_range(2):
                    number, is_stored = _end_sector(side, first, last, start, end, SECTOR)
                    if is_stored:
                        in_end = end_stored & _within(number, end_column, SECTOR, start, end)
                        place = y_tile + number * SECTOR + y_ends
                        gl.store(place, end_empty, mask=in_end, cache_modifier=".cs")

        for turn in range(kernel_h):
            tap_h = _tap_h(turn, i_h, kernel_h)
            for tap in gl.static_range(TAPS):
                w = split_weight(next_weights[tap], PRECISION)
                for i in gl.static_range(PIECES):
                    weights[tap * PIECES + i].store(w[i])
            is_last = turn + 1 == kernel_h
            next_tap_h = _tap_h(gl.where(is_last, 0, turn + 1), i_h, kernel_h)
            next_tile = out_tile + gl.where(is_last, 1, 0)
            next_out = _first_channel(next_tile, log2_step, BLOCK_OUT)
            in_weight = (w_in < group_in) & (w_out < group_out - next_out) & (next_tile < last_tile)
            next_row = weight + next_tap_h * w_row + next_out
            next_weights = _kernel_row(next_row, w_tile, kernel_w, group_out, in_weight, TAPS)
            o_h = i_h * stride_h - padding_h + tap_h * dilation_h
            if (o_h >= 0) & (o_h < out_h):
                row = lead + o_h * out_w
                row_end = row + out_w
                above = (joined_h >> (2 * tap_h)) & 1
                below = (joined_h >> (2 * tap_h + 1)) & 1
                start = gl.where((above != 0) | (o_h == 0), row, row & -SECTOR)
                end = (row_end + SECTOR - 1) & -SECTOR
                end = gl.where((below != 0) | (o_h == out_h - 1), row_end, end)
                start, end = _of_program(start, end, row, complete, complete_end, SECTOR)

                # The image begins on a sector too, before `y` perhaps.
                base = gl.multiple_of((row + first_column) & -SECTOR, SECTOR)
                shift = row + first_column - base
                row -= base
                row_end -= base
                start -= base
                end -= base
                first = (gl.maximum(row, start) + SECTOR - 1) // SECTOR  # whole sectors of this row
                last = gl.minimum(row_end, end) // SECTOR
                target = y_tile + gl.multiple_of(base + first * SECTOR, SECTOR) + y_lines
                target = target[:, None] + column[None, :]

                # Bias where only taps of pixels outside the image would reach, left and right.
                for i in range(edges):
                    _sector(image, i, SECTOR, SHORT).slice(0, 1, 1).store(end_empty)
                for i in range(edges):
                    number = BLOCK_PIXELS * STRIDE // SECTOR + i
                    _sector(image, number, SECTOR, SHORT).slice(0, 1, 1).store(end_empty)
                for slot in gl.static_range(STRIDE):
                    if (empty_w >> slot) & 1:
                        _spread_out(image, shift + slot, plain, SPREAD, PAIRS)
                for first_tap in gl.static_range(0, TAPS, TOGETHER):
                    products = ()
                    for tap in gl.static_range(first_tap, min(first_tap + TOGETHER, TAPS)):
                        products += (_product(a, weights, tap, plain, RIGHT, PRECISION),)
                    for tap in gl.static_range(first_tap, min(first_tap + TOGETHER, TAPS)):
                        if tap < kernel_w:
                            value = gl.where(has_product, products[tap - first_tap], plain)
                            _spread_out(image, shift + tap * dilation_w, value, SPREAD, PAIRS)
                for i in gl.static_range(LINES_A_ROW):
                    mask = sector < last - first - i * (COLUMNS // SECTOR)
                    line = _sector(image, first + i * (COLUMNS // SECTOR), SECTOR, LONG).load(LINES)
                    gl.store(target + i * COLUMNS, line, mask=mask, cache_modifier=".cs")
                for side in gl.static_range(2):
                    number, is_stored = _end_sector(side, first, last, start, end, SECTOR)
                    if is_stored:
                        in_end = end_stored & _within(number, end_column, SECTOR, start, end)
                        in_row = _within(number, end_column, SECTOR, row, row_end)
                        value = _sector(image, number, SECTOR, SHORT).slice(0, 1, 1).load(ENDS)
                        value = gl.where(in_row, value, end_empty)
                        place = y_tile + (base + number * SECTOR) + y_ends
                        gl.store(place, value, mask=in_end, cache_modifier=".cs")


@gluon.jit
def _first_channel(tile, log2_step, BLOCK_OUT: tl.constexpr):
    """Of a group's tile of channels."""
    step = 1 << log2_step
    return (tile >> log2_step) * (BLOCK_OUT * step) + (tile & (step - 1))


@gluon.jit
def _tap_h(turn, i_h, kernel_h):
    """The kernel row whose turn it is.

    Every other input row's program goes through them upwards: so two write the sectors between
    their rows at the same time, before memory gets half of them.
    """
    return gl.where((i_h & 1) != 0, kernel_h - 1 - turn, turn)


@gluon.jit
def _of_program(start, end, row, complete, complete_end, SECTOR: tl.constexpr):
    """Of a row's outputs from `start` to `end`, those that a program's columns make complete."""
    start = gl.minimum(gl.maximum(start, (complete + row) & -SECTOR), end)
    return start, gl.minimum(end, (complete_end + row) & -SECTOR)


@gluon.jit
def _end_sector(side: tl.constexpr, first, last, start, end, SECTOR: tl.constexpr):
    """The sector before a row's whole ones or after them, and whether some of it is stored."""
    number = first - 1 if side == 0 else last
    is_stored = start < first * SECTOR if side == 0 else last * SECTOR < end
    return number, is_stored


@gluon.jit
def _kernel_row(weight, tile, kernel_w, group_out, mask, TAPS: tl.constexpr):
    """The weights of each kernel column; 0 where there is none."""
    row = ()
    for tap in gl.static_range(TAPS):
        w = weight + tap * group_out + tile
        in_row = mask & (tap < kernel_w)
        row += (gl.load(w, mask=in_row, other=0.0),)
    return row


@gluon.jit
def _spread_out(image, position, value, SPREAD: tl.constexpr, PAIRS: tl.constexpr):
    """Store [pixels, channels] to the shared image, the first pixel's at `position`."""
    view = image.index(position)._reinterpret(image.dtype, SPREAD.shape, SPREAD)
    value = value.to(image.dtype)
    if PAIRS:
        value = _as_pixels(value)
    view.slice(0, 1, 1).store(value.reshape([value.shape[0], 1, value.shape[1]]))


@gluon.jit
def _sector(image, number, SECTOR: tl.constexpr, LAYOUT: tl.constexpr):
    """A view of the shared image from a sector on."""
    FLAT: tl.constexpr = image.layout
    sectors = image._reinterpret(image.dtype, [image.shape[0] // SECTOR, SECTOR], FLAT)
    return sectors.index(number)._reinterpret(image.dtype, LAYOUT.shape, LAYOUT)


@gluon.jit
def _within(number, column, SECTOR: tl.constexpr, start, end):
    """Which columns of a sector lie between two positions."""
    position = number * SECTOR + column
    return ((position >= start) & (position < end))[None, None, :]


def single_taps(out, kernel, stride, padding, dilation):
    """(residues without a tap, taps beside others, first input, inputs, halo) of one axis, as
    csrc/arguments.hpp."""
    step = gcd(stride, dilation)
    if kernel * step > stride or stride > 16:
        raise NotImplementedError(
            "conv_transpose2d: expected kernel_size * gcd(stride, dilation) <= stride <= 16, got "
            f"kernel_size {kernel}, stride {stride}, dilation {dilation}"
        )
    tap_of_residue = {tap * dilation % stride: tap for tap in range(kernel)}
    reaches = [tap_of_residue.get(r, 0) * dilation or r for r in range(stride)]
    empty = sum((r % stride not in tap_of_residue) << r for r in range(stride + 1))
    joined = sum(
        (((r - 1) % stride in tap_of_residue) + 2 * ((r + 1) % stride in tap_of_residue)) << 2 * tap
        for r, tap in tap_of_residue.items()
    )
    first = min(-((reach - padding) // stride) for reach in reaches)
    last = max((out - 1 + padding - reach) // stride for reach in reaches)
    halo = max(tap * dilation // stride for tap in range(kernel))
    return empty, joined, first, last - first + 1, halo


# By stride: between the rows of the shared image, and how much of one is stored at once; see
# aot/variants.py.
WIDE_IMAGES = {2: (128, 128), 3: (128, 256), 4: (128, 128), 5: (128, 256),
               6: (256, 512), 7: (256, 128), 8: (256, 256)}  # fmt: skip
NARROW_IMAGES = {2: (128, 128), 3: (64, 128), 4: (128, 128), 5: (64, 128),
                 6: (128, 256), 7: (64, 256), 8: (256, 256)}  # fmt: skip


def triton_conv_transpose2d(x, weight, bias, stride, padding, dilation):
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    batch, in_channels, in_h, in_w = x.shape
    _, out_channels, kernel_h, kernel_w = weight.shape
    out_h = (in_h - 1) * sh - 2 * ph + dh * (kernel_h - 1) + 1
    out_w = (in_w - 1) * sw - 2 * pw + dw * (kernel_w - 1) + 1
    empty_h, joined_h, first_h, span_h, _ = single_taps(out_h, kernel_h, sh, ph, dh)
    empty_w, _, first_w, span_w, halo_w = single_taps(out_w, kernel_w, sw, pw, dw)
    # As csrc/single_tap.cpp plans it. Columns outside the image need no pixels, but for what lies
    # beyond a tap's reach.
    end_w = max(min(first_w + span_w, in_w), triton.cdiv(out_w + pw, sw) - halo_w)
    first_w = max(first_w, 0)
    span_w = max(end_w - first_w, 1)

    fp32 = x.dtype == torch.float32
    wide = in_channels <= 32
    pixels, block_in = (128, 32) if wide else (64, 64)
    x = x.contiguous()
    # Four bytes are the least that can be copied asynchronously. Of 16-bit pixels the compiler has
    # to know that two are side by side; it knows of multiples of 16. Others share a kernel with
    # planes so odd that few begin alike in a sector: it stores halves of one.
    whole = span_w <= pixels
    side_by_side = whole and in_w % 16 == first_w % 16 == x.data_ptr() % 16 == 0
    copied = 1 if fp32 else 2 if side_by_side and out_h * out_w % 2 == 0 else 0
    sector = 16 if copied == 2 else 8
    # Planes of channels `step` apart begin alike in a sector.
    step = sector // gcd(sector, out_h * out_w)
    channels = 8 * step
    if (
        not 2 <= sw <= 8
        or in_channels > 64
        or halo_w * sw > 48
        or out_w < sector
        or (channels + 1) * out_h * out_w >= 2**31
        or 65 * in_h * in_w >= 2**31
    ):
        raise NotImplementedError(
            "conv_transpose2d: expected 2 <= stride <= 8, at most 64 input channels, taps that "
            f"reach at most 48 columns, and {sector} columns or more, in planes of 32-bit offsets; "
            f"got kernel_size {kernel_w}, stride {sw}, dilation {dw}, {in_channels} channels, "
            f"input {in_h}x{in_w}, output {out_h}x{out_w}"
        )
    before = (out_channels - 1) // channels
    out_tiles = before * step + min(step, out_channels - before * channels)

    gap, columns = WIDE_IMAGES[sw] if wide else NARROW_IMAGES[sw]
    # Unless one program has all input columns, it shares sectors with the next, and needs the
    # pixels under them.
    tile_w = pixels if whole else pixels - halo_w - triton.cdiv(sector - 1, sw)
    tiles_w = triton.cdiv(span_w, tile_w)

    weight = weight.permute(0, 2, 3, 1).contiguous()
    y = torch.empty(batch, out_channels, out_h, out_w, device=x.device, dtype=x.dtype)

    # Channel tiles of a program: as many as earn its prologue and leave programs enough; one more
    # where then all run at once.
    def programs(tiles):
        return tiles_w * span_h * triton.cdiv(out_tiles, tiles) * batch

    sms = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 0
    resident = (4 if fp32 else 5) * sms
    tiles = (3 if copied == 2 else 4) * kernel_h * kernel_w // (sh * sw)
    tiles = max(1, min(tiles, out_tiles))
    while tiles > 1 and programs(tiles) < 4 * sms:
        tiles -= 1
    if programs(tiles) > resident >= programs(tiles + 1):
        tiles += 1

    single_tap_nchw[tiles_w * span_h, triton.cdiv(out_tiles, tiles), batch](
        x,
        weight,
        x if bias is None else bias,
        y,
        empty_h,
        empty_w,
        joined_h,
        int(bias is not None),
        1,
        in_channels,
        out_channels,
        in_h,
        in_w,
        out_h,
        out_w,
        kernel_h,
        kernel_w,
        sh,
        ph,
        pw,
        dh,
        dw,
        first_h,
        first_w,
        halo_w,
        tile_w,
        tiles_w,
        step.bit_length() - 1,
        out_tiles,
        tiles,
        PRECISION="fp32" if fp32 else "native",
        BLOCK_PIXELS=pixels,
        BLOCK_OUT=8,
        BLOCK_IN=block_in,
        STRIDE=sw,
        TAPS=3 if kernel_w <= 3 < sw else sw,
        GAP=gap,
        COLUMNS=columns,
        COPIED=copied,
        SECTOR=sector,
        WARPS=4,
        num_warps=4,
        num_stages=1,
        maxnreg=128 if fp32 else 96,  # as many as `resident` says
    )
    return y


class ModelNew(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=bias,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return triton_conv_transpose2d(
            x,
            self.conv.weight,
            self.conv.bias,
            self.conv.stride,
            self.conv.padding,
            self.conv.dilation,
        )
