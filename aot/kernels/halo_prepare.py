"""Operands of `halo` with their channels innermost."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.constexpr_function
def across(vector, block):
    """Lanes side by side along rows of a square block."""
    lanes = min(32, block // vector)
    return gl.BlockedLayout([1, vector], [32 // lanes, lanes], [4, 1], [1, 0])


@gluon.jit
def rounded(value):
    """fp32 to nearest TF32, which never passes the largest number; NaNs stay NaNs."""
    if value.dtype.primitive_bitwidth == 32:
        bits = value.to(gl.int32, bitcast=True)
        magnitude = bits & 0x7FFFFFFF
        special = gl.where(magnitude > 0x7F800000, bits | 0x400000, bits)  # NaN, or infinity
        largest = bits & -0x80000000 | 0x7F7FE000
        near = gl.where(magnitude < 0x7F800000, largest, special)
        bits = gl.where(magnitude < 0x7F7FF000, (bits + 0x1000) & -0x2000, near)
        return bits.to(gl.float32, bitcast=True)
    else:
        return value


@gluon.jit
def offsets_of(line, sizes, strides):
    """Of kernel elements: in the weight, whether they are in it, and in the packed weight, rows.

    Lines lie side by side in torch's weight: taps are inside of output channels, or outside.
    """
    groups, group_out, kernel_h, kernel_w, taps_w, fold, taps_inside = sizes
    weight_out, weight_h, weight_w = strides
    columns = taps_w * fold
    inner = gl.where(taps_inside != 0, kernel_h * columns, group_out)
    high = line // inner
    low = line - high * inner
    out = gl.where(taps_inside != 0, high, low)
    tap = gl.where(taps_inside != 0, low, high)
    tap_h = tap // columns
    tap_w = tap - tap_h * columns
    lead = tap_w // fold
    inside = (out < group_out) & (tap_h < kernel_h)
    column = out * fold + tap_w - lead * fold
    to = (tap_h * taps_w + lead) * (groups * group_out * fold) + column
    source = out * weight_out + tap_h * weight_h + tap_w * weight_w
    return source, inside & (tap_w < kernel_w), to, inside


@gluon.jit
def pack(program, weight, packed, inputs, sizes, strides, BLOCK: gl.constexpr):
    """One tile of kernel elements times input channels, `fold` kernel columns side by side."""
    group_in, weight_in, row = inputs
    groups, group_out, kernel_h, _kernel_w, taps_w, fold, _taps_inside = sizes
    IN: gl.constexpr = across(1, BLOCK)
    OUT: gl.constexpr = across(128 // packed.dtype.element_ty.primitive_bitwidth, BLOCK)
    tiles = gl.cdiv(group_out * kernel_h * taps_w * fold, BLOCK)
    start = program % tiles * BLOCK
    group = program // tiles % groups
    first = program // tiles // groups * BLOCK

    line = start + gl.arange(0, BLOCK, layout=gl.SliceLayout(0, IN))
    channel = first + gl.arange(0, BLOCK, layout=gl.SliceLayout(1, IN))
    source, some, _to, _inside = offsets_of(line, sizes, strides)
    at = weight + group * group_in * weight_in + (channel * weight_in)[:, None] + source[None, :]
    value = gl.load(at, mask=(channel < group_in)[:, None] & some[None, :], other=0.0)
    value = gl.convert_layout(value.permute([1, 0]), OUT)

    line = start + gl.arange(0, BLOCK, layout=gl.SliceLayout(1, OUT))
    channel = first + gl.arange(0, BLOCK, layout=gl.SliceLayout(0, OUT))
    _source, _some, to, inside = offsets_of(line, sizes, strides)
    at = packed + group * group_out * fold * row + (to * row)[:, None] + channel[None, :]
    gl.store(at, rounded(value), mask=inside[:, None] & (channel < row)[None, :])


@gluon.jit
def turn(
    program,
    x,
    turned,
    channels,
    sizes,
    vectors,
    BLOCK: gl.constexpr,
    LAST: gl.constexpr,
):
    """One tile of pixels times channels; LAST: only padded, for its channels are innermost."""
    group_in, row = channels
    groups, pixels, x_n, x_c, x_w = sizes
    VECTOR: gl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
    OUT: gl.constexpr = across(VECTOR, BLOCK)
    tiles = gl.cdiv(pixels, BLOCK)
    start = program % tiles * BLOCK
    program = program // tiles
    blocks = gl.cdiv(row, BLOCK)
    first = program % blocks * BLOCK
    group = program // blocks % groups
    image = (program // blocks // groups).to(gl.int64)
    x += image * x_n + group * group_in * x_c
    pixel = start + gl.arange(0, BLOCK, layout=gl.SliceLayout(1, OUT))
    channel = first + gl.arange(0, BLOCK, layout=gl.SliceLayout(0, OUT))
    if LAST:
        some = (pixel < pixels)[:, None] & (channel < group_in)[None, :]
        value = gl.load(x + (pixel * x_w)[:, None] + channel[None, :], mask=some, other=0.0)
    elif vectors:  # every row of pixels begins on 16 bytes
        value = transposed(x, first, start, (group_in, pixels, x_c), BLOCK, VECTOR, OUT)
    else:
        value = transposed(x, first, start, (group_in, pixels, x_c), BLOCK, 1, OUT)
    at = turned + (image * pixels * groups + group) * row
    at += (pixel * (groups * row))[:, None] + channel[None, :]
    gl.store(at, rounded(value), mask=(pixel < pixels)[:, None] & (channel < row)[None, :])


@gluon.jit
def transposed(
    x, first, start, sizes, BLOCK: gl.constexpr, VECTOR: gl.constexpr, OUT: gl.constexpr
):
    """x[channels, pixels] as [pixels, channels]."""
    channels, pixels, x_c = sizes
    IN: gl.constexpr = across(VECTOR, BLOCK)
    pixel = start + gl.arange(0, BLOCK, layout=gl.SliceLayout(0, IN))
    channel = first + gl.arange(0, BLOCK, layout=gl.SliceLayout(1, IN))
    at = x + (channel * x_c)[:, None] + pixel[None, :]
    some = (channel < channels)[:, None] & (pixel < pixels)[None, :]
    if VECTOR > 1:
        at = gl.max_contiguous(gl.multiple_of(at, [1, 16]), [1, VECTOR])
        some = gl.max_constancy(some, [1, VECTOR])
    return gl.convert_layout(gl.load(at, mask=some, other=0.0).permute([1, 0]), OUT)


@gluon.jit
def halo_prepare(
    x,  # [images, groups * group_in, pixels]
    weight,  # [groups * group_in, group_out, kernel_h, kernel_w]
    turned,  # [images, pixels, groups, row]
    packed,  # [kernel_h * taps_w, groups, group_out * fold, row]
    turns,  # programs that turn; the others pack
    groups,
    group_in,
    group_out,
    pixels,
    x_n,
    x_c,
    x_w,
    kernel_h,
    kernel_w,
    weight_in,
    weight_out,
    weight_h,
    weight_w,
    taps_w,
    fold,
    taps_inside,
    row,
    vectors,  # whether rows of pixels begin on 16 bytes
    BLOCK: gl.constexpr,
    LAST: gl.constexpr,
):
    """Input and weight with their channels innermost: `row` of them, zeros beyond the last."""
    program = gl.program_id(0)
    image = (groups, pixels, x_n, x_c, x_w)
    taps = (groups, group_out, kernel_h, kernel_w, taps_w, fold, taps_inside)
    strides = (weight_out, weight_h, weight_w)
    if program < turns:
        turn(program, x, turned, (group_in, row), image, vectors, BLOCK, LAST)
    else:
        inputs = (group_in, weight_in, row)
        pack(program - turns, weight, packed, inputs, taps, strides, BLOCK)
