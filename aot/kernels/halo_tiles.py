"""Where the tiles of `halo` are, which products they have, and what its parts share."""

from dataclasses import dataclass
from typing import NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

PERIOD = gl.constexpr(8)  # pixels of a swizzle period; boxes begin at whole periods
PAIR = gl.constexpr(2)  # pixels; box rows are whole pairs
BOXES = gl.constexpr(8)  # in flight, at most
PAIR_BITS = gl.constexpr(10)  # a box has under 2^10 pairs,
ARRIVALS = gl.constexpr(4)  # a number with so many bits set at most


@dataclass(frozen=True)
class Shape:
    """What is compiled in."""

    kind: str  # nhwc; of nchw: rows, lines (through shared memory; stride 1), fold
    pixels: int
    columns: int
    depth: int  # input channels of a product
    group_h: int
    group_w: int
    stages: int  # of the ring of weights
    rows: int  # shifts whose weights come together: 1 or 2
    lag: int  # steps that run while later ones are prepared
    straight: int  # whether weights come with their columns innermost (16-bit ones)


class Side(NamedTuple):
    """The taps of an axis: padding = shift * stride + rest (of depth, shift = padding).

    A phase of residue r (of phase plus padding) has taps + (r < more) * extra taps, `period` apart;
    from one to the next the input shifts by `step`.
    """

    stride: gl.tensor
    shift: gl.tensor
    rest: gl.tensor
    taps: gl.tensor
    more: gl.tensor
    extra: gl.tensor
    period: gl.tensor
    step: gl.tensor


class Taps(NamedTuple):
    d: Side
    h: Side
    w: Side
    kernel_h: gl.tensor
    kernel_w: gl.tensor


class Tiles(NamedTuple):
    """How many tiles there are, along what, and the quotients and images of one."""

    total: gl.tensor
    columns: gl.tensor
    groups: gl.tensor
    phases_w: gl.tensor
    phases_h: gl.tensor
    wide: gl.tensor
    high: gl.tensor
    deep: gl.tensor
    tile_w: gl.tensor
    tile_h: gl.tensor
    tile_n: gl.tensor
    blocks: gl.tensor  # of input channels
    in_d: gl.tensor
    # The number of programs in the digits of a tile's number.
    step_out: gl.tensor
    step_group: gl.tensor
    step_phase_w: gl.tensor
    step_phase_h: gl.tensor
    step_w: gl.tensor
    step_h: gl.tensor
    step_d: gl.tensor
    step_n: gl.tensor


class Box(NamedTuple):
    pairs: gl.tensor
    periods: gl.tensor  # that it takes
    row: gl.tensor  # pixels
    stages: gl.tensor  # of the ring of boxes


class Rings(NamedTuple):
    x: gl.shared_memory_descriptor
    w: gl.shared_memory_descriptor
    x_full: gl.shared_memory_descriptor
    x_empty: gl.shared_memory_descriptor
    w_full: gl.shared_memory_descriptor
    w_empty: gl.shared_memory_descriptor


class Span(NamedTuple):
    """What a tile's phases come to: its lowest shifts and number of column shifts; by phase, the
    (begin, end) of its shifts above the lowest, and its taps at their begin."""

    top: gl.tensor
    left: gl.tensor
    width: gl.tensor
    rows: tuple
    columns: tuple
    taps_h: tuple
    taps_w: tuple


class Output(NamedTuple):
    batch: gl.tensor
    group_out: gl.tensor
    out_h: gl.tensor
    out_w: gl.tensor
    y_n: gl.tensor
    y_c: gl.tensor
    y_d: gl.tensor
    y_h: gl.tensor
    y_w: gl.tensor
    step_h: gl.tensor  # between the outputs of neighbouring quotients
    step_w: gl.tensor
    fold: gl.tensor
    back: gl.tensor  # what output columns begin before 0
    tiles: Tiles
    # Of boxes; a number under 2^16 / d divides by d by a product with 2^16 / d + 1 and a shift.
    rows: gl.tensor
    by_row: gl.tensor
    by_w: gl.tensor
    by_fold: gl.tensor


class Place(NamedTuple):
    """Where a tile's outputs are."""

    start: gl.tensor  # elements before the first row
    first: gl.tensor  # pixel
    images: gl.tensor  # and rows that are left
    rows: gl.tensor
    w0: gl.tensor
    r_w: gl.tensor
    column: gl.tensor


@gluon.constexpr_function
def shape_of(*values):
    return Shape(*values)


@gluon.constexpr_function
def weight_block(shape):
    return [shape.depth, shape.columns] if shape.straight else [shape.columns, shape.depth]


@gluon.constexpr_function
def mma_layout(rows, columns, depth):
    warps = [8, 1] if rows >= 128 else [4, 2]
    return gl.NVMMADistributedLayout([3, 0], warps, [16, min(256, columns // warps[1]), depth // 4])


@gluon.constexpr_function
def line_layout(columns, bits, kind):
    """Of what is stored through shared memory: warps take neighbours of a row."""
    if kind == "lines":
        return gl.BlockedLayout([1, 2], [1, 32], [8, 1], [1, 0])
    vector = min(128 // bits, columns)
    lanes = min(32, columns // vector)
    return gl.BlockedLayout([1, vector], [32 // lanes, lanes], [8, 1], [1, 0])


@gluon.jit
def shifts_of(phase, side):
    """[begin, end) of the shifts of a phase, how many there are, and its tap at `begin`."""
    residue = phase + side.rest
    wrapped = (residue >= side.stride).to(gl.int32)
    residue -= wrapped * side.stride
    end = side.shift + wrapped + 1
    count = side.taps + (residue < side.more).to(gl.int32) * side.extra
    return end - 1 - (count - 1) * side.step, end, count, residue + (count - 1) * side.period


@gluon.jit
def spans_of(phase, side, GROUP: gl.constexpr):
    """Lowest shift of GROUP phases, how many they have, each one's (begin, end) above it, taps.

    Two phases are together only where `step` is 1.
    """
    begin, end, count, tap = shifts_of(phase, side)
    if GROUP == 1:
        return begin, count, (0, end - begin), (tap,)
    else:
        begin1, end1, _count, tap1 = shifts_of(phase + 1, side)
        low = gl.minimum(begin, begin1)
        spans = (begin - low, end - low, begin1 - low, end1 - low)
        return low, gl.maximum(end, end1) - low, spans, (tap, tap1)


@gluon.jit
def digits_of(number, tiles):
    """A number of tiles as columns, groups, phases of w, h, tiles wide, high, depths, images."""
    column = number % tiles.columns
    number = number // tiles.columns
    group = number % tiles.groups
    number = number // tiles.groups
    p_w = number % tiles.phases_w
    number = number // tiles.phases_w
    p_h = number % tiles.phases_h
    number = number // tiles.phases_h
    wide = number % tiles.wide
    number = number // tiles.wide
    high = number % tiles.high
    number = number // tiles.high
    return column, group, p_w, p_h, wide, high, number % tiles.deep, number // tiles.deep


@gluon.jit
def carried(digit, by, carry, size):
    digit += by + carry
    over = (digit >= size).to(gl.int32)
    return digit - over * size, over


@gluon.jit
def advanced(at, tiles):
    """A program's next tile: a division for each would cost hundreds of clocks."""
    column, carry = carried(at[0], tiles.step_out, 0, tiles.columns)
    group, carry = carried(at[1], tiles.step_group, carry, tiles.groups)
    p_w, carry = carried(at[2], tiles.step_phase_w, carry, tiles.phases_w)
    p_h, carry = carried(at[3], tiles.step_phase_h, carry, tiles.phases_h)
    wide, carry = carried(at[4], tiles.step_w, carry, tiles.wide)
    high, carry = carried(at[5], tiles.step_h, carry, tiles.high)
    deep, carry = carried(at[6], tiles.step_d, carry, tiles.deep)
    return column, group, p_w, p_h, wide, high, deep, at[7] + tiles.step_n + carry


@gluon.jit
def place_of(at, tiles, shape: gl.constexpr):
    """Column, group, phases and quotients of w and h, output's depth, image.

    Neighbours share input.
    """
    column, group, p_w, p_h, wide, high, o_d, image = at
    return (
        column * shape.columns, group, p_w * shape.group_w, p_h * shape.group_h,
        wide * tiles.tile_w, high * tiles.tile_h, o_d, image * tiles.tile_n,
    )  # fmt: skip


@gluon.jit
def depths_of(o_d, side):
    """[begin, end) of the input's depths of an output's, and the tap at `begin`."""
    end = o_d + side.shift  # with all of the padding
    residue = 0
    if side.stride > 1:
        residue = end % side.stride
        end = end // side.stride
    count = side.taps + (residue < side.more).to(gl.int32) * side.extra
    return end - (count - 1) * side.step, end + 1, residue + (count - 1) * side.period


@gluon.jit
def blocks_of(depth, tiles):
    """Blocks of channels of an input's depth: none outside."""
    return gl.where((depth >= 0) & (depth < tiles.in_d), tiles.blocks, 0)


@gluon.jit
def span_of(r_h, r_w, taps, shape: gl.constexpr):
    top, height, rows, taps_h = spans_of(r_h, taps.h, shape.group_h)
    left, width, columns, taps_w = spans_of(r_w, taps.w, shape.group_w)
    return Span(top, left, gl.where(height > 0, width, 0), rows, columns, taps_h, taps_w)


@gluon.jit
def rows_of(i, span, G: gl.constexpr, shape: gl.constexpr):
    """[begin, end) of the row shifts that phase G of a tile has products with at column shift i."""
    h: gl.constexpr = G // shape.group_w
    w: gl.constexpr = G % shape.group_w
    if shape.group_w == 1:
        return span.rows[2 * h], span.rows[2 * h + 1]
    else:
        live = (i >= span.columns[2 * w]) & (i < span.columns[2 * w + 1])
        return span.rows[2 * h], gl.where(live, span.rows[2 * h + 1], 0)


@gluon.jit
def tap_of(i, tap_d, span, taps, G: gl.constexpr, shape: gl.constexpr):
    """Tap of phase G at its first row shift and column shift i."""
    h: gl.constexpr = G // shape.group_w
    w: gl.constexpr = G % shape.group_w
    tap_w = span.taps_w[w] - (i - span.columns[2 * w]) * taps.w.period
    return (tap_d * taps.kernel_h + span.taps_h[h]) * taps.kernel_w + tap_w


@gluon.jit
def following(slot, parity, stages):
    last = slot + 1 == stages
    return gl.where(last, 0, slot + 1), parity ^ gl.where(last, 1, 0)


@gluon.jit
def before(slot, steps, stages):
    return gl.where(slot >= steps, slot - steps, slot - steps + stages)
