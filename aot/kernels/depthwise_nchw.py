"""Transposed convolution of few channels a group; contiguous tensors; any geometry.

    y[n, c, o] = bias[c] + sum over the group's channels i and taps k of
                 x[n, i, (o + padding - k * dilation) / stride] * weight[i, c, k]

in fp32. There is one multiply-add or a few for each byte, so memory bounds it if little else is
done: a thread has neighbouring outputs of a row, STRIDE phases of PIXELS quotients, and ROWS rows
that share inputs. It loads each input once for all of them, and weights, which are the program's,
once for all its pixels; what it stores is 16 neighbouring bytes where rows begin on 16-byte
boundaries (ALIGNED); else threads of a warp exchange outputs until neighbours have neighbours.
Rows of input are loaded two at a time, so that one's way does not wait for the other's.
Taps that no output has are jumped over, not multiplied by zero: infinity times zero is NaN.

us on an H200, beside cuDNN in the same run; the floor is bytes / 4.4 TB/s; errors are 3.6e-8 to
6.2e-8 in fp32, 2.1e-4 in fp16. Of a tile or two a program, 64 threads' work a warp:

    layer                                   fp16: cuDNN  ours  floor   fp32: cuDNN  ours  floor
    8x256 64x64 k4s2p1                             740    34     19            885    58     38
    8x64 128x128 k5s2p2, odd rows                  851    54     19           1261    74     38
    32x64 32x32 k8s4p2                             901    54     16            641    71     32
    1x19 128x256 k16s8p4                          3290    41     18           1400    58     37
    8x128 112x112 k3s1p1                            70    35     12            207    43     23
    2x32 32x64x64 k5s2p2, three axes              3145   167     34

With the kernel's width a constant it took 35 and 47 for the first, 33 and 45 for the third.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from aot.kernels.taps import accumulated, divided, first_of, first_of_some


@gluon.constexpr_function
def _log2(n):
    return n.bit_length() - 1


@gluon.constexpr_function
def _bases(first, end, dim):
    return [[0, 1 << i] if dim else [1 << i, 0] for i in range(_log2(first), _log2(end))]


@gluon.constexpr_function
def _in_rows(threads, outputs, warps):
    """[threads, outputs] of which a warp has what its threads have, neighbours in neighbours."""
    each = min(outputs, 32)
    lane = _bases(1, each, 1) + _bases(1, 32 // each, 0)
    register = _bases(32 // each, 32, 0) + _bases(32 * warps, threads, 0)
    warp = _bases(32, 32 * warps, 0)
    return gl.DistributedLinearLayout(register, lane, warp, [], [threads, outputs])


@gluon.jit
def _joined(values, COUNT: tl.constexpr):
    """[threads, COUNT] of COUNT tensors of threads; COUNT is a power of two."""
    for level in gl.static_range(_log2(COUNT)):
        halves = ()
        for i in gl.static_range(COUNT >> (level + 1)):
            halves = halves + (gl.join(values[i], values[i + (COUNT >> (level + 1))]),)
        values = halves
    return values[0].reshape([values[0].shape[0], COUNT])


@gluon.jit
def _pixel(x, column, in_w, in_row):
    """A column's pixels, zeros outside the row."""
    return gl.load(x, mask=in_row & (column >= 0) & (column < in_w), other=0.0).to(gl.float32)


@gluon.jit
def _pixels(x, column, in_w, in_row, FIRST: tl.constexpr, END: tl.constexpr):
    """Those of some neighbouring columns."""
    pixels = ()
    for i in gl.static_range(FIRST, END):
        pixels = pixels + (_pixel(x + i, column + i, in_w, in_row),)
    return pixels


@gluon.jit
def _row(
    acc,
    pixels,
    weights,
    R: tl.constexpr,
    TAPS: tl.constexpr,
    SHIFT: tl.constexpr,
    PIXELS: tl.constexpr,
    PHASES: tl.constexpr,
):
    """acc with what a row of input adds to row R of output."""
    w_h, weight_w, kernel_w = weights
    for tap in gl.static_range(TAPS):
        for phase in gl.static_range(PHASES):
            k_w = (phase + SHIFT) % PHASES + tap * PHASES
            if tap < TAPS - 1 or k_w < kernel_w:
                w = gl.load(w_h + k_w * weight_w).to(gl.float32)
                acc = accumulated(
                    acc,
                    pixels[TAPS - 1 - tap + (phase + SHIFT) // PHASES :],
                    w,
                    R * PIXELS * PHASES + phase,
                    PHASES,
                    PIXELS,
                )
    return acc


@gluon.jit
def depthwise_nchw(
    x,
    weight,
    bias,
    y,
    has_bias,
    group_in,
    group_out,
    groups,
    out_channels,
    in_d,
    in_h,
    in_w,
    out_d,
    out_h,
    out_w,
    kernel_d,
    kernel_h,
    kernel_w,
    stride_d,
    stride_h,
    stride_w,
    padding_d,
    padding_w,
    dilation_d,
    dilation_h,
    dilation_w,
    tap_period_d,
    tap_period_h,
    tap_period_w,
    tap_inverse_d,
    tap_inverse_h,
    tap_inverse_w,
    tap_shift_d,
    tap_shift_h,
    tap_shift_w,
    weight_in,
    weight_out,
    weight_d,
    weight_h,
    weight_w,
    period_h,  # rows from a quotient to the next, of outputs and of inputs
    pace_h,
    first_out_h,  # of quotient 0 and place 0
    first_in_h,
    first_tap_w,  # of a quotient's first output; negative where it is none of it
    first_in_w,
    steps_w,  # inputs that a quotient's outputs take
    tile_h,  # a tile's rows and columns: quotients, and PIXELS of them
    tile_w,
    inverse_tile,  # 65536 / tile_w, rounded up
    rounds,  # tiles of a program, below each other
    programs,  # of a plane; programs_h * programs_w for each place
    programs_w,
    programs_h,
    by_programs,  # divisors, see `divided`
    by_programs_w,
    by_programs_h,
    by_channels,
    STRIDE: tl.constexpr,  # 0: any, a thread's outputs are one column, of a phase of its own
    PIXELS: tl.constexpr,
    ROWS: tl.constexpr,
    TAPS: tl.constexpr,  # a phase's at most, along the row; 0 for any number
    SHIFT: tl.constexpr,  # padding_w modulo STRIDE, where TAPS is not 0
    THREADS: tl.constexpr,
    WARPS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    dtype: tl.constexpr = y.dtype.element_ty
    LANES: tl.constexpr = gl.BlockedLayout([1], [32], [WARPS], [0])
    PHASES: tl.constexpr = max(1, STRIDE)
    COLUMNS: tl.constexpr = PIXELS * PHASES
    AHEAD: tl.constexpr = 1 if SHIFT > 0 else 0  # inputs that only later phases take
    plane = divided(gl.program_id(0), by_programs)
    program = gl.program_id(0) - plane * programs
    down = divided(program, by_programs_w)
    across = program - down * programs_w
    place = divided(down, by_programs_h)
    down -= place * programs_h
    n = divided(plane, by_channels)
    channel = plane - n * out_channels
    group = channel
    if group_out > 1:
        group = channel // group_out
    y_d = gl.program_id(1)

    thread = gl.arange(0, THREADS, layout=LANES)
    row = (thread * inverse_tile) >> 16  # thread // tile_w
    in_tile = row < tile_h
    quotient_h = down * rounds * tile_h + row
    quotient_w = (across * tile_w + thread - row * tile_w) * PIXELS

    axis_d = kernel_d, stride_d, dilation_d, tap_period_d, tap_inverse_d
    axis_h = kernel_h, stride_h, dilation_h, tap_period_h, tap_inverse_h
    first_d, x_d = first_of(y_d + padding_d, axis_d)
    base_h, first_h, x_h = first_of_some(place, axis_h, ROWS)
    x_h = gl.where(in_tile, quotient_h * pace_h + (first_in_h + x_h), -(1 << 30))
    if STRIDE == 0:
        axis_w = kernel_w, stride_w, dilation_w, tap_period_w, tap_inverse_w
        first_w, x_w = first_of(quotient_w + padding_w, axis_w)
    else:
        first_w = first_tap_w
        x_w = quotient_w + first_in_w

    image = in_h * in_w
    x += ((n * groups + group) * group_in).to(gl.int64) * in_d * image
    y += (plane.to(gl.int64) * out_d + y_d) * (out_h * out_w)
    weight += (group * group_in).to(gl.int64) * weight_in + (
        channel - group * group_out
    ) * weight_out
    b = gl.zeros([THREADS], gl.float32, LANES)
    if has_bias != 0:
        b += gl.load(bias + channel).to(gl.float32)

    OWN: tl.constexpr = gl.BlockedLayout([1, COLUMNS], [32, 1], [WARPS, 1], [1, 0])
    STORED: tl.constexpr = OWN if ALIGNED else _in_rows(THREADS, COLUMNS, WARPS)
    y_h = gl.where(in_tile, quotient_h * period_h + (first_out_h + base_h), -(1 << 30))
    y_h = gl.convert_layout(y_h, gl.SliceLayout(1, STORED))[:, None]
    y_w = gl.convert_layout(quotient_w * PHASES, gl.SliceLayout(1, STORED))[:, None]
    column = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, STORED))[None, :]
    if ALIGNED:
        y_w = gl.multiple_of(y_w, [1, COLUMNS])
        in_y = (y_w < out_w) & (column >= 0)
    else:
        in_y = y_w + column < out_w

    for _round in range(rounds):
        acc = (b,) * (ROWS * COLUMNS)
        x_group = x
        w_group = weight
        for _ in range(group_in):
            k_d = first_d
            i_d = x_d
            while k_d < kernel_d:
                if (i_d >= 0) & (i_d < in_d):
                    w_d = w_group + k_d * weight_d
                    x_image = x_group + i_d.to(gl.int64) * image
                    k_h = first_h
                    i_h = x_h
                    while k_h < kernel_h:
                        at = x_image + (i_h * in_w + x_w)
                        in_row = (i_h >= 0) & (i_h < in_h)
                        if TAPS > 0:
                            first = _pixels(at, x_w, in_w, in_row, 1 - TAPS, PIXELS + AHEAD)
                            i_h -= tap_shift_h
                            at -= tap_shift_h * in_w
                            in_row = (i_h >= 0) & (i_h < in_h) & (k_h + tap_period_h < kernel_h)
                            second = _pixels(at, x_w, in_w, in_row, 1 - TAPS, PIXELS + AHEAD)
                            both = first, second
                            for i in gl.static_range(2):
                                for r in gl.static_range(ROWS):
                                    if (k_h + r >= 0) & (k_h + r < kernel_h):
                                        w_h = w_d + (k_h + r) * weight_h, weight_w, kernel_w
                                        acc = _row(
                                            acc, both[i], w_h, r, TAPS, SHIFT, PIXELS, STRIDE
                                        )
                                if i == 0:
                                    k_h += tap_period_h
                        elif STRIDE > 0:
                            pixels = _pixels(at, x_w, in_w, in_row, 0, PIXELS)
                            for step in range(steps_w):
                                at -= 1
                                added = _pixel(at, x_w - 1 - step, in_w, in_row)
                                for phase in gl.static_range(PHASES):
                                    k_w = first_w + step * PHASES + phase
                                    for r in gl.static_range(ROWS):
                                        if (
                                            (k_w >= 0)
                                            & (k_w < kernel_w)
                                            & (k_h + r >= 0)
                                            & (k_h + r < kernel_h)
                                        ):
                                            w = gl.load(
                                                w_d + (k_h + r) * weight_h + k_w * weight_w
                                            ).to(gl.float32)
                                            acc = accumulated(
                                                acc, pixels, w, r * COLUMNS + phase, PHASES, PIXELS
                                            )
                                pixels = (added,) + pixels[: PIXELS - 1]
                        else:
                            k_w = first_w
                            i_w = x_w
                            for _step in range(steps_w):
                                pixel = _pixel(at, i_w, in_w, in_row & (k_w < kernel_w))
                                for r in gl.static_range(ROWS):
                                    if (k_h + r >= 0) & (k_h + r < kernel_h):
                                        w = w_d + (k_h + r) * weight_h + k_w * weight_w
                                        w = gl.load(w, mask=k_w < kernel_w, other=0.0).to(
                                            gl.float32
                                        )
                                        acc = accumulated(acc, (pixel,), w, r, 1, 1)
                                k_w += tap_period_w
                                at -= tap_shift_w
                                i_w -= tap_shift_w
                        k_h += tap_period_h
                        i_h -= tap_shift_h
                k_d += tap_period_d
                i_d -= tap_shift_d
            x_group += in_d.to(gl.int64) * image
            w_group += weight_in

        for r in gl.static_range(ROWS):
            out = _joined(acc[r * COLUMNS : (r + 1) * COLUMNS], COLUMNS).to(dtype)
            own_h = y_h + r * dilation_h
            stored = in_y & (own_h >= 0) & (own_h < out_h)
            to = y + (own_h * out_w + y_w + column)
            gl.store(to, gl.convert_layout(out, STORED), mask=stored, cache_modifier=".cs")
        x_h += tile_h * pace_h
        y_h += tile_h * period_h
