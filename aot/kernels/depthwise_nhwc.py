"""Transposed convolution of few channels a group; channels_last tensors; any geometry.

    y[n, o, c] = bias[c] + sum over the group's channels i and taps k of
                 x[n, (o + padding - k * dilation) / stride, i] * weight[i, c, k]

in fp32. There is one multiply-add or a few for each byte, so memory bounds it if little else is
done: threads lie along the channels, VECTOR of them each, and have PIXELS quotients of a row, of
COLUMNS neighbouring outputs each, in ROWS rows that share inputs. An input is loaded once for all
of them. With VECTOR = 1 threads lie along positions and channels at once, so that no channel count
leaves any idle.

torch's weight has a channel's taps together, and threads need a tap's channels together: a program
copies the taps of its rows to shared memory, where each is read once for all pixels. It does so
once for all its tiles, which lie below each other, if there is one channel a group.
Taps that no output has are jumped over, not multiplied by zero: infinity times zero is NaN.

us on an H200, beside cuDNN in the same run; the floor is bytes / 4.4 TB/s; errors as the
contiguous kernel's. The last layer's threads lie along positions and channels:

    layer                                   fp16: cuDNN  ours  floor   fp32: cuDNN  ours  floor
    8x256 64x64 k4s2p1                             973    45     19            964    61     38
    8x64 128x128 k5s2p2                            330    47     19            467    60     38
    32x64 32x32 k8s4p2                            1650    39     16           2105    50     32
    64x160 16x12 k4s2p1                                                        227    17      9
    2x32 32x64x64 k5s2p2, three axes              4944   158     34
    1x19 128x256 k16s8p4                          2964   119     18           3005   132     37
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from aot.kernels.taps import accumulated, divided, first_of, first_of_some


@gluon.jit
def _pixel(x, column, in_w, in_row, channels):
    """A column's pixels, [positions, channels], zeros outside the row."""
    mask = (in_row & (column >= 0) & (column < in_w))[:, None] & channels
    return gl.load(x, mask=mask, other=0.0).to(gl.float32)


@gluon.jit
def _weight(shared, LAYOUT: tl.constexpr, FLAT: tl.constexpr):
    """A tap's weights, as they lie along positions and channels."""
    if FLAT:
        w = shared.load(gl.SliceLayout(1, LAYOUT))[:, None]
    else:
        w = shared.load(gl.SliceLayout(0, LAYOUT))[None, :]
    return w.to(gl.float32)


@gluon.jit
def depthwise_nhwc(
    x,
    weight,
    bias,
    y,
    has_bias,
    group_in,
    group_out,
    in_channels,
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
    period_w,
    pace_w,
    first_out_w,
    first_in_w,
    places_w,
    tile_h,  # a program's rows and columns: quotients, and PIXELS of them
    tile_w,
    inverse_tile,  # 65536 / tile_w, rounded up
    tile_c,  # a program's channels
    inverse_c,  # 65536 / tile_c, rounded up, where VECTOR is 1
    rounds,  # tiles of a program, below each other
    programs,  # of an image; programs_h * programs_w for each place of rows
    programs_w,
    programs_h,
    kept_d,  # depth taps that are copied at once
    lasting,  # whether that is all that a program needs
    by_programs,  # divisors, see `divided`
    by_programs_w,
    by_programs_h,
    by_kernel_w,
    PIXELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TAPS: tl.constexpr,  # of an output along the row at most, if SLIDING; 0 for any number
    SLIDING: tl.constexpr,  # quotients and taps are one input apart
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,  # 1 if VECTOR is
    VECTOR: tl.constexpr,  # over 1: the groups have one channel
    ROOM: tl.constexpr,  # for taps
    WARPS: tl.constexpr,
):
    dtype: tl.constexpr = y.dtype.element_ty
    FLAT: tl.constexpr = VECTOR == 1
    ACROSS: tl.constexpr = CHANNELS // VECTOR
    LAYOUT: tl.constexpr = gl.BlockedLayout([1, VECTOR], [32 // ACROSS, ACROSS], [WARPS, 1], [1, 0])
    POSITION: tl.constexpr = gl.SliceLayout(1, LAYOUT)
    CHANNEL: tl.constexpr = gl.SliceLayout(0, LAYOUT)
    EACH: tl.constexpr = PIXELS * COLUMNS  # a row's outputs

    image = divided(gl.program_id(0), by_programs)
    program = gl.program_id(0) - image * programs
    row = divided(program, by_programs_w)
    across = program - row * programs_w
    place = divided(row, by_programs_h)
    row -= place * programs_h
    n = image
    if out_d > 1:
        n = image // out_d
    y_d = image - n * out_d

    thread = gl.arange(0, POSITIONS, layout=POSITION)
    first_channel = gl.program_id(1) * tile_c
    if FLAT:
        position = (thread * inverse_c) >> 16  # thread // tile_c
        own_c = first_channel + thread - position * tile_c
        channel = own_c[:, None]
        x_c = (own_c // group_out * group_in)[:, None]
    else:
        position = thread
        own_c = first_channel + gl.arange(0, CHANNELS, layout=CHANNEL)
        channel = own_c[None, :]
        x_c = channel
    in_y = channel < out_channels
    down = (position * inverse_tile) >> 16  # position // tile_w
    in_tile = down < tile_h
    quotient_h = row * rounds * tile_h + down
    quotient_w = (across * tile_w + position - down * tile_w) * PIXELS

    axis_d = kernel_d, stride_d, dilation_d, tap_period_d, tap_inverse_d
    axis_h = kernel_h, stride_h, dilation_h, tap_period_h, tap_inverse_h
    axis_w = kernel_w, stride_w, dilation_w, tap_period_w, tap_inverse_w
    first_d, x_d = first_of(y_d + padding_d, axis_d)
    base_h, first_h, x_h = first_of_some(place, axis_h, ROWS)
    x_h = gl.where(in_tile, quotient_h * pace_h + (first_in_h + x_h), -(1 << 30))
    y_h = gl.where(in_tile, quotient_h * period_h + (first_out_h + base_h), -(1 << 30))

    size = in_h * in_w
    x += n.to(gl.int64) * in_d * size * in_channels
    y += image.to(gl.int64) * (out_h * out_w) * out_channels
    b = gl.zeros([POSITIONS, CHANNELS], gl.float32, LAYOUT)
    if has_bias != 0:
        b += gl.load(bias + channel, mask=in_y, other=0.0).to(gl.float32)

    # Kernel rows in shared memory: ROWS for each row of input, of which `apart` are not yet there.
    apart = gl.minimum(tap_period_h, ROWS)
    kept_h = (gl.cdiv(kernel_h - first_h, tap_period_h) - 1) * apart + ROWS
    kept = kept_h * kernel_w
    WIDTH: tl.constexpr = POSITIONS if FLAT else CHANNELS
    SOME: tl.constexpr = 16  # taps that are copied at once
    COPIES: tl.constexpr = gl.BlockedLayout(
        [1, 16] if FLAT else [1, 1], [32, 1] if FLAT else [8, 4], [WARPS, 1], [1, 0]
    )
    ONE_TAP: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    SOME_TAPS: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    w_type: tl.constexpr = weight.dtype.element_ty
    shared = gl.allocate_shared_memory(w_type, [ROOM, WIDTH], ONE_TAP)
    copies = shared._reinterpret(w_type, [ROOM // SOME, SOME, WIDTH], SOME_TAPS)
    some = gl.arange(0, SOME, layout=gl.SliceLayout(0, COPIES))
    copied_c = gl.arange(0, WIDTH, layout=gl.SliceLayout(1, COPIES))
    if FLAT:
        copied_c -= ((copied_c * inverse_c) >> 16) * tile_c
    copied_c += first_channel
    group = copied_c
    if group_out > 1:
        group = copied_c // group_out
    weight += (group * group_in * weight_in + (copied_c - group * group_out) * weight_out)[:, None]
    copied_c = (copied_c < out_channels)[:, None]

    missing = lasting * 0 + 1
    for _round in range(rounds):
        for place_w in range(places_w):
            base_w, first_w, x_w = first_of_some(place_w, axis_w, COLUMNS)
            x_w += quotient_w * pace_w + first_in_w
            acc = (b,) * (ROWS * EACH)
            for i_c in range(group_in):
                k_d = first_d
                i_d = x_d
                taps_d = missing * 0
                while k_d < kernel_d:
                    if missing != 0:
                        missing -= lasting
                        for begin in range(0, kept_d * kept, SOME):
                            tap = begin + some
                            kept_row = divided(tap, by_kernel_w)
                            copied_w = tap - kept_row * kernel_w
                            depth = kept_row // kept_h
                            kept_row -= depth * kept_h
                            depth = k_d + depth * tap_period_d
                            round = (
                                kept_row
                                if ROWS == 1
                                else gl.where(apart == 1, kept_row, kept_row >> 1)
                            )
                            copied_h = first_h + round * tap_period_h + kept_row - round * apart
                            ok = (depth < kernel_d) & (copied_h >= 0) & (copied_h < kernel_h)
                            taps = weight + i_c * weight_in
                            taps += (depth * weight_d + copied_h * weight_h + copied_w * weight_w)[
                                None, :
                            ]
                            taps = gl.load(taps, mask=copied_c & ok[None, :], other=0.0)
                            copies.index(begin // SOME).permute([1, 0]).store(taps)
                        gl.thread_barrier()
                    if (i_d >= 0) & (i_d < in_d):
                        x_image = x + i_d.to(gl.int64) * size * in_channels
                        if FLAT:
                            x_image += i_c
                        own = taps_d * lasting
                        k_h = first_h
                        i_h = x_h
                        while k_h < kernel_h:
                            in_row = (i_h >= 0) & (i_h < in_h)
                            at = x_image + (((i_h * in_w + x_w) * in_channels)[:, None] + x_c)
                            if TAPS > 0:
                                pixels = ()
                                for i in gl.static_range(1 - TAPS, PIXELS):
                                    pixel = _pixel(
                                        at + i * in_channels, x_w + i, in_w, in_row, in_y
                                    )
                                    pixels = pixels + (pixel,)
                                for r in gl.static_range(ROWS):
                                    if (k_h + r >= 0) & (k_h + r < kernel_h):
                                        for tap in gl.static_range(TAPS):
                                            for column in gl.static_range(COLUMNS):
                                                k_w = first_w + tap * tap_period_w + column
                                                if k_w < kernel_w:
                                                    w = _weight(
                                                        shared.index(own + r * kernel_w + k_w),
                                                        LAYOUT,
                                                        FLAT,
                                                    )
                                                    acc = accumulated(
                                                        acc,
                                                        pixels[TAPS - 1 - tap :],
                                                        w,
                                                        r * EACH + column,
                                                        COLUMNS,
                                                        PIXELS,
                                                    )
                            else:
                                k_w = first_w
                                i_w = x_w
                                if SLIDING:
                                    pixels = ()
                                    for i in gl.static_range(1, PIXELS + 1):
                                        pixel = _pixel(
                                            at + i * in_channels, x_w + i, in_w, in_row, in_y
                                        )
                                        pixels = pixels + (pixel,)
                                while k_w < kernel_w:
                                    if SLIDING:
                                        pixel = _pixel(at, i_w, in_w, in_row, in_y)
                                        pixels = (pixel,) + pixels[: PIXELS - 1]
                                    else:
                                        pixels = ()
                                        for i in gl.static_range(PIXELS):
                                            pixel = _pixel(
                                                at + i * pace_w * in_channels,
                                                i_w + i * pace_w,
                                                in_w,
                                                in_row,
                                                in_y,
                                            )
                                            pixels = pixels + (pixel,)
                                    at -= tap_shift_w * in_channels
                                    i_w -= tap_shift_w
                                    for r in gl.static_range(ROWS):
                                        for column in gl.static_range(COLUMNS):
                                            has_row = (k_h + r >= 0) & (k_h + r < kernel_h)
                                            if (
                                                has_row
                                                & (k_w + column >= 0)
                                                & (k_w + column < kernel_w)
                                            ):
                                                w = _weight(
                                                    shared.index(own + r * kernel_w + k_w + column),
                                                    LAYOUT,
                                                    FLAT,
                                                )
                                                acc = accumulated(
                                                    acc,
                                                    pixels,
                                                    w,
                                                    r * EACH + column,
                                                    COLUMNS,
                                                    PIXELS,
                                                )
                                    k_w += tap_period_w
                            k_h += tap_period_h
                            i_h -= tap_shift_h
                            own += apart * kernel_w
                    taps_d += kept
                    k_d += tap_period_d
                    i_d -= tap_shift_d
            for r in gl.static_range(ROWS):
                own_h = y_h + r * dilation_h
                for i in gl.static_range(PIXELS):
                    for column in gl.static_range(COLUMNS):
                        own_w = (quotient_w + i) * period_w + (
                            first_out_w + base_w + column * dilation_w
                        )
                        stored = (own_h >= 0) & (own_h < out_h) & (own_w >= 0) & (own_w < out_w)
                        to = ((own_h * out_w + own_w) * out_channels)[:, None] + channel
                        out = acc[r * EACH + i * COLUMNS + column].to(dtype)
                        gl.store(y + to, out, mask=stored[:, None] & in_y, cache_modifier=".cs")
        x_h += tile_h * pace_h
        y_h += tile_h * period_h
