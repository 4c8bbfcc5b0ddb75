"""Transposed convolution with at most one tap per output and axis; contiguous tensors.

That is kernel <= stride / gcd(stride, dilation): upsampling by k == s, and sparser. Every output is
one product of input channels or nothing but bias, and writing it is most of the work. A program
takes a piece of one input row and writes all output rows that it reaches, for one tile of channels
after another. The products of a kernel column belong `STRIDE` output columns apart: they go to
shared memory in a layout that leaves those gaps, are joined there by the other kernel columns' and
by bias, and leave as whole 32-byte sectors, or halves where planes of few channels begin alike in
one. Gluon, because Triton cannot store to shared memory with a stride.

One block of channels is all of a sum, and bias is added to it as fp32 adds. NaN, infinity and the
largest numbers do what aot/kernels/precision.py says.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from aot.kernels.neighbours import as_rows, of_input
from aot.kernels.precision import split_input, split_weight


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
def _product(a, weights, tap: tl.constexpr, plain, RIGHT: tl.constexpr, PRECISION: tl.constexpr):
    """plain + a @ weights of a tap, as `split_product`, in two chains of the tensor core."""
    if PRECISION == "fp32":
        middle = weights[3 * tap + 1].load(RIGHT)
        small = mma_v2(a[1], middle, gl.zeros_like(plain))
        acc = mma_v2(a[0], middle, gl.zeros_like(plain))
        low = weights[3 * tap + 2].load(RIGHT)
        small = mma_v2(a[0], low, small)
        high = weights[3 * tap].load(RIGHT)
        small = mma_v2(a[2], high, small)
        acc = mma_v2(a[1], high, acc)
        acc = (mma_v2(a[0], high, acc) + small) + plain  # a large bias would be truncated six times
    else:
        acc = mma_v2(a[0], weights[tap].load(RIGHT), plain)
    return acc


@gluon.jit
def single_tap_nchw(
    x,
    weight,  # [groups * group_in, kernel_d, kernel_h, kernel_w, group_out]
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
    out_d,
    out_h,
    out_w,
    kernel_d,  # also the stride of that axis
    kernel_h,
    kernel_w,
    stride_h,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    x_c,
    y_c,
    span_h,
    first_h,  # of span_h input rows, some outside the image, whose outputs are all of the output
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

    # Neighbouring programs write neighbouring columns, then rows, then slices, then channels. (A
    # division takes long where nothing hides it.)
    i_h = gl.program_id(0)
    tile = 0
    if tiles_w > 1:
        tile = i_h % tiles_w
        i_h = i_h // tiles_w
    o_d = 0
    i_d = 0
    tap_d = 0
    if out_d > 1:
        o_d = i_h // span_h
        i_h = i_h - o_d * span_h
        i_d = o_d // kernel_d
        tap_d = o_d - i_d * kernel_d
    i_h += first_h
    first_tile = gl.program_id(1) * tiles
    last_tile = gl.minimum(first_tile + tiles, out_tiles)
    image_group = gl.program_id(2)
    group = 0
    if groups > 1:
        group = image_group % groups
    step = 1 << log2_step
    first_pixel = first_w + tile * tile_w
    first_column = first_pixel * STRIDE - padding_w

    # The input: [channels, pixels] on its way to shared memory, or [pixels, channels].
    x += image_group.to(gl.int64) * (group_in * x_c) + (i_d * in_h + i_h) * in_w + first_pixel
    pixels = gl.where((i_h >= 0) & (i_h < in_h), in_w - first_pixel, 0)  # in the image
    if COPIED > 0:
        p = gl.arange(0, BLOCK_PIXELS, layout=gl.SliceLayout(0, COPIES))
        k = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(1, COPIES))
        in_x = (k < group_in)[:, None] & (p < pixels)[None, :]
        source = (x + k * x_c)[:, None] + p[None, :]
        copies = gl.allocate_shared_memory(x.dtype.element_ty, [BLOCK_IN, BLOCK_PIXELS], BY_CHANNEL)
        async_copy.async_copy_global_to_shared(copies, source, mask=in_x)
        async_copy.commit_group()
    else:
        p = _pixel(gl.arange(0, BLOCK_PIXELS, layout=gl.SliceLayout(1, LEFT)), PAIRS)
        k = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(0, LEFT))
        in_x = (p < pixels)[:, None] & (k < group_in)[None, :]
        source = (x + k * x_c)[None, :] + p[:, None]
        a = gl.load(source, mask=in_x, other=0.0, eviction_policy="evict_last")
    q = _pixel(gl.arange(0, BLOCK_PIXELS, layout=gl.SliceLayout(1, MMA)), PAIRS)
    has_product = (q < pixels)[:, None]

    # The weights of a kernel row, [channels in, channels out] a tap: loaded while the ones before
    # are multiplied.
    w_row = kernel_w * group_out
    w_channel = kernel_d * kernel_h * w_row
    weight += (group * group_in).to(gl.int64) * w_channel + tap_d * kernel_h * w_row
    w_in = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(1, WEIGHTS))[:, None]
    w_out = gl.arange(0, BLOCK_OUT, layout=gl.SliceLayout(0, WEIGHTS))[None, :] * step
    w_tile = w_in * w_channel + w_out
    first_out = _first_channel(first_tile, log2_step, BLOCK_OUT)
    in_weight = (w_in < group_in) & (w_out < group_out - first_out)
    first_row = weight + _tap_h(0, i_h, kernel_h) * w_row + first_out
    next_weights = _kernel_row(first_row, w_tile, kernel_w, group_out, in_weight, TAPS)

    # A row of outputs, [channels, columns]: its whole sectors, and one at either end.
    y_step = gl.multiple_of(step * y_c, SECTOR)
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
        origin = (image_group.to(gl.int64) * group_out + first_out) * y_c + o_d * (out_h * out_w)
        lead = (origin & (SECTOR - 1)).to(gl.int32)  # `y` starts a sector so far before this slice
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
