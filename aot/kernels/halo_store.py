"""How `halo` stores its accumulators, in either layout."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from aot.kernels.halo_tiles import Place, line_layout


@gluon.jit
def channels_of(columns, start, out, shape: gl.constexpr):
    """Output channels of columns from `start` on, and their width phases."""
    if shape.kind == "fold":
        base = start // out.fold
        columns += start - base * out.fold
        channels = columns * out.by_fold >> 16
        return base + channels, columns - channels * out.fold
    else:
        return start + columns, columns * 0


@gluon.jit
def add_bias(a, bias, column, out, ROWS_FIRST: gl.constexpr, shape: gl.constexpr):
    P: gl.constexpr = 1 if ROWS_FIRST else 0
    columns = gl.arange(0, a.shape[1 - P], layout=gl.SliceLayout(P, a.type.layout))
    channel, _phase = channels_of(columns, column, out, shape)
    value = gl.load(bias + channel, mask=channel < out.group_out, other=0.0)
    return a + gl.expand_dims(value.to(gl.float32), P)


@gluon.jit
def put_all(y, accumulators, place, out, shape: gl.constexpr):
    """Store every accumulator, as many neighbours at once as the layer's sizes allow."""
    if shape.kind == "nhwc":
        WIDE: gl.constexpr = 128 // y.dtype.element_ty.primitive_bitwidth
        uneven = out.group_out % WIDE
        odd = out.group_out % 2
    elif shape.kind == "fold":
        WIDE: gl.constexpr = 2
        uneven = out.out_w % 2 + out.fold % 2 + out.back % 2
        odd = uneven
    else:
        WIDE: gl.constexpr = 2 * shape.group_w
        uneven = out.out_w % WIDE
        odd = out.out_w % 2
    if uneven == 0:
        put_phases(y, accumulators, place, out, shape, WIDE)
    elif odd == 0:
        put_phases(y, accumulators, place, out, shape, 2)
    else:
        put_phases(y, accumulators, place, out, shape, 1)


@gluon.jit
def put_phases(y, accumulators, place, out, shape: gl.constexpr, VECTOR: gl.constexpr):
    start, first, images, rows, w0, r_w, column = place
    # Zero again, so that the pixels of the row above are not kept.
    below = Place(start + out.y_h, w0 >> 30, images, rows - 1, w0, r_w, column)
    if shape.group_w == 1:
        put_phase(y, accumulators[0], place, out, shape, VECTOR)
        if shape.group_h == 2:
            put_phase(y, accumulators[1], below, out, shape, VECTOR)
    elif shape.kind == "rows":  # of stride 2: the phases of an output row lie side by side
        put_pair(y, accumulators[0], accumulators[1], place, out, shape, VECTOR)
        if shape.group_h == 2:
            put_pair(y, accumulators[2], accumulators[3], below, out, shape, VECTOR)
    else:
        put_phase(y, accumulators[0], place, out, shape, VECTOR)
        beside = Place(start, first, images, rows, w0, r_w + 1, column)
        put_phase(y, accumulators[1], beside, out, shape, VECTOR)
        if shape.group_h == 2:
            put_phase(y, accumulators[2], below, out, shape, VECTOR)
            beside = Place(start + out.y_h, first, images, rows - 1, w0, r_w + 1, column)
            put_phase(y, accumulators[3], beside, out, shape, VECTOR)


@gluon.jit
def halves(a):
    """Rows 16 i + j and 16 i + 8 + j, j < 8, which the same threads have."""
    ROWS: gl.constexpr = a.shape[0]
    COLUMNS: gl.constexpr = a.shape[1]
    b, c = a.reshape([ROWS // 16, 2, 8, COLUMNS]).permute([0, 2, 3, 1]).split()
    return b.reshape([ROWS // 2, COLUMNS]), c.reshape([ROWS // 2, COLUMNS])


@gluon.jit
def put_pair(y, a, b, place, out, shape: gl.constexpr, VECTOR: gl.constexpr):
    """Two width phases of stride 2; half of the channels at a time, for want of registers."""
    SIZE: gl.constexpr = [a.shape[0] // 2, 2 * a.shape[1]]
    a0, a1 = halves(a)
    b0, b1 = halves(b)
    put(y, gl.join(a0, b0).reshape(SIZE), place, out, shape, 2, VECTOR, 0)
    put(y, gl.join(a1, b1).reshape(SIZE), place, out, shape, 2, VECTOR, 8)


@gluon.jit
def put_phase(y, a, place, out, shape: gl.constexpr, VECTOR: gl.constexpr):
    """As they are, or in lines through shared memory; 64 columns at a time."""
    SHORT: gl.constexpr = y.dtype.element_ty.primitive_bitwidth == 16
    LINES: gl.constexpr = shape.kind == "lines" or (shape.kind == "nhwc" and SHORT)
    HALF: gl.constexpr = a.shape[1] // 2
    # Of 64 rows, a thread has columns of one half only.
    if a.shape[0] > 64 and HALF >= 64 and (LINES or shape.kind == "fold"):
        b, c = a.reshape([a.shape[0], 2, HALF]).permute([0, 2, 1]).split()
        put_phase(y, b, place, out, shape, VECTOR)
        start, first, images, rows, w0, r_w, column = place
        if shape.kind == "lines":
            place = Place(start, first + HALF, images, rows, w0, r_w, column)
        else:
            place = Place(start, first, images, rows, w0, r_w, column + HALF)
        put_phase(y, c, place, out, shape, VECTOR)
    elif LINES:
        v = a.to(y.dtype.element_ty)
        LAYOUT: gl.constexpr = line_layout(a.shape[1], v.dtype.primitive_bitwidth, shape.kind)
        put(y, gl.convert_layout(v, LAYOUT), place, out, shape, 1, VECTOR)
    elif shape.kind == "nhwc":  # four threads fill a sector
        put(y, a, place, out, shape, 1, min(VECTOR, 2))
    else:
        put(y, a, place, out, shape, 1, VECTOR)


@gluon.jit
def put(
    y,
    a,
    place,
    out,
    shape: gl.constexpr,
    PAIR: gl.constexpr,
    VECTOR: gl.constexpr,
    HALF: gl.constexpr = -1,
):
    """Store a[pixels, columns], or a[columns, pixels] of PAIR width phases each."""
    P: gl.constexpr = 1 if shape.kind == "rows" or shape.kind == "lines" else 0
    C: gl.constexpr = 1 - P
    LAYOUT: gl.constexpr = a.type.layout
    pixel = gl.arange(0, a.shape[P], layout=gl.SliceLayout(C, LAYOUT)) + place.first * PAIR
    columns = gl.arange(0, a.shape[C], layout=gl.SliceLayout(P, LAYOUT))
    if HALF >= 0:
        columns = columns // 8 * 16 + HALF + columns % 8
    channel, phase = channels_of(columns, place.column, out, shape)
    quotient = pixel // PAIR
    line = quotient * out.by_w >> 16
    image = line * out.by_row >> 16
    row = line - image * out.rows
    o_w = (place.w0 + quotient - line * out.tiles.tile_w) * out.step_w + place.r_w
    if PAIR == 2:
        o_w += pixel % 2
    inside = (row < out.tiles.tile_h) & (row * out.step_h < place.rows) & (image < place.images)
    where = image * out.y_n + row * out.step_h * out.y_h
    if shape.kind == "fold":
        o_w = gl.expand_dims(o_w, C) + gl.expand_dims(phase, P)
        where = gl.expand_dims(where, C) + o_w * out.y_w
        inside = gl.expand_dims(inside, C) & (o_w >= 0) & (o_w < out.out_w)
    else:
        where = gl.expand_dims(where + o_w * out.y_w, C)
        inside = gl.expand_dims(inside & (o_w < out.out_w), C)
    inside = inside & gl.expand_dims(channel < out.group_out, P)
    at = y + place.start + (where + gl.expand_dims(channel * out.y_c, P))
    if VECTOR > 1:
        BYTES: gl.constexpr = VECTOR * y.dtype.element_ty.primitive_bitwidth // 8
        at = gl.max_contiguous(gl.multiple_of(at, [1, BYTES]), [1, VECTOR])
        inside = gl.max_constancy(inside, [1, VECTOR])
    gl.store(at, a.to(y.dtype.element_ty), mask=inside)
