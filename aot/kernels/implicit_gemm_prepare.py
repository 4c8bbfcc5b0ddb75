"""Operands of `implicit_gemm`: channels innermost, rounded or split for tensor cores."""

import triton
import triton.language as tl

from aot.kernels.tf32 import nearest_tf32, tf32_parts


@triton.jit
def _lead(tap, stride, padding, dilation, period):
    """(phase, place among its taps) of a kernel tap of one axis."""
    phase = (tap * dilation - padding) % stride
    phase = tl.where(phase < 0, phase + stride, phase)
    return phase, tap // period


@triton.jit
def _turn(program, x, turned, channels, sizes, ROUND: tl.constexpr):
    """One tile of pixels times channels."""
    BLOCK: tl.constexpr = 64
    group_in, row = channels
    groups, pixels, x_n, x_c, x_w = sizes
    tiles = tl.cdiv(pixels, BLOCK)
    pixel = program % tiles * BLOCK + tl.arange(0, BLOCK)[:, None]
    program = program // tiles
    tiles = tl.cdiv(row, BLOCK)
    channel = program % tiles * BLOCK + tl.arange(0, BLOCK)[None, :]
    program = program // tiles
    group = program % groups
    image = (program // groups).to(tl.int64)
    source = x + image * x_n + (group * group_in).to(tl.int64) * x_c
    some = (pixel < pixels) & (channel < group_in)
    value = tl.load(source + (pixel * x_w + channel * x_c), mask=some, other=0.0)
    if ROUND:
        value = nearest_tf32(value)
    target = turned + (image * pixels * groups + group) * row + pixel * (groups * row) + channel
    tl.store(target, value, mask=(pixel < pixels) & (channel < row))


@triton.jit
def _pack(program, weight, packed, axes, sizes, tiles, SPLIT: tl.constexpr, LAST: tl.constexpr,
          DEPTH: tl.constexpr):  # fmt: skip
    """The taps of one kernel row, of one tile of columns times input channels."""
    WIDE: tl.constexpr = 32
    axis_d, axis_h, axis_w = axes
    kernel_d, stride_d, padding_d, dilation_d, tap_period_d, weight_d = axis_d
    kernel_h, stride_h, padding_h, dilation_h, tap_period_h, weight_h = axis_h
    kernel_w, stride_w, padding_w, dilation_w, tap_period_w, weight_w = axis_w
    group_in, group_out, weight_in, weight_out, fold, fold_columns, taps_h, taps_w = sizes
    row, phase_size, tap_size, block_out, columns, depth = tiles
    across = tl.cdiv(columns, WIDE)
    column = program % across * WIDE + tl.arange(0, WIDE)[:, None]
    program = program // across
    blocks = tl.cdiv(row, depth)
    block = program % blocks
    program = program // blocks
    tap_h = program % kernel_h
    program = program // kernel_h
    tap_d = program % kernel_d
    group = program // kernel_d
    lane = tl.arange(0, DEPTH)[None, :]
    channel = block * depth + lane
    if LAST:
        place = column // group_out
        out = column - place * group_out
        inside = place < fold
    else:
        out = column // fold_columns
        place = column - out * fold_columns
        inside = (out < group_out) & (place < fold)
    inside = inside & (channel < group_in)
    phase_d, t_d = _lead(tap_d, stride_d, padding_d, dilation_d, tap_period_d)
    phase_h, t_h = _lead(tap_h, stride_h, padding_h, dilation_h, tap_period_h)
    source = weight + (group * group_in).to(tl.int64) * weight_in
    source += tap_d * weight_d + tap_h * weight_h
    source = source + (channel.to(tl.int64) * weight_in + out * weight_out)
    PLANES: tl.constexpr = 2 if SPLIT else 1
    tile = column // block_out
    to = packed + block.to(tl.int64) * columns * (depth * PLANES)
    to = to + ((tile * (PLANES * block_out) + column - tile * block_out) * depth + lane)
    stored = (column < columns) & (lane < depth)
    # Folded, kernel columns come `fold` at a time.
    is_folded = fold > 1
    phases_w = tl.where(is_folded, 1, stride_w)
    step = tl.where(is_folded, stride_w, 1)
    for index in range(tl.cdiv(kernel_w, step)):
        phase_w, t_w = _lead(index, stride_w, padding_w, dilation_w, tap_period_w)
        phase_w = tl.where(is_folded, 0, phase_w)
        t_w = tl.where(is_folded, index, t_w)
        tap_w = index * step + place
        value = tl.load(source + tap_w * weight_w, mask=inside & (tap_w < kernel_w), other=0.0)
        phase = ((group * stride_d + phase_d) * stride_h + phase_h) * phases_w + phase_w
        at = phase.to(tl.int64) * phase_size
        at += ((t_d * taps_h + t_h) * taps_w + t_w).to(tl.int64) * tap_size
        if SPLIT:
            high, rest = tf32_parts(value)
            tl.store(to + at, high, mask=stored)
            tl.store(to + (at + block_out * depth), rest, mask=stored)
        else:
            if value.dtype == tl.float32:
                value = nearest_tf32(value)
            tl.store(to + at, value, mask=stored)


@triton.jit
def implicit_gemm_prepare(
    x,  # [batch, groups * group_in, pixels]
    weight,
    turned,  # [batch, pixels, groups, row]
    packed,  # [groups, phases, taps, blocks, columns, depth], of fp32 in parts high and low
    turns,  # programs that turn; the others pack
    groups,
    group_in,
    group_out,
    pixels,
    x_n,
    x_c,
    x_w,
    kernel_d,
    kernel_h,
    kernel_w,
    stride_d,
    stride_h,
    stride_w,
    padding_d,
    padding_h,
    padding_w,
    dilation_d,
    dilation_h,
    dilation_w,
    tap_period_d,
    tap_period_h,
    tap_period_w,
    weight_in,
    weight_out,
    weight_d,
    weight_h,
    weight_w,
    row,
    fold,  # width phases that are columns,
    fold_columns,  # columns of a channel
    taps_h,
    taps_w,
    phase_size,
    tap_size,
    block_out,
    columns,
    depth,
    SPLIT: tl.constexpr,  # whether weights are split
    LAST: tl.constexpr,  # whether the input's channels are innermost
    ROUND: tl.constexpr,  # whether the input is rounded
    DEPTH: tl.constexpr,  # at least `depth`
):
    program = tl.program_id(0)
    if program < turns:
        image = (groups, pixels, x_n, x_c, x_w)
        _turn(program, x, turned, (group_in, row), image, ROUND)
    else:
        axis_d = (kernel_d, stride_d, padding_d, dilation_d, tap_period_d, weight_d)
        axis_h = (kernel_h, stride_h, padding_h, dilation_h, tap_period_h, weight_h)
        axis_w = (kernel_w, stride_w, padding_w, dilation_w, tap_period_w, weight_w)
        axes = (axis_d, axis_h, axis_w)
        sizes = (
            group_in, group_out, weight_in, weight_out, fold, fold_columns, taps_h, taps_w,
        )  # fmt: skip
        tiles = (row, phase_size, tap_size, block_out, columns, depth)
        _pack(program - turns, weight, packed, axes, sizes, tiles, SPLIT, LAST, DEPTH)
