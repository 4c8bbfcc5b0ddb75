"""Where the tiles of `halo` are, which products they have, and what its parts share."""

from dataclasses import dataclass
from typing import NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

PERIOD = gl.constexpr(8)  # pixels of a swizzle period; box rows are whole periods
BOXES = gl.constexpr(8)  # in flight, at most
BYTE_BITS = gl.constexpr(8)  # a box has under 2^8 periods,
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
    straight: int  # whether weights come with their columns innermost (16-bit ones)


class Taps(NamedTuple):
    kernel_h: gl.tensor
    kernel_w: gl.tensor
    stride_h: gl.tensor
    stride_w: gl.tensor
    padding_h: gl.tensor
    padding_w: gl.tensor


class Tiles(NamedTuple):
    """How many tiles there are, along what, and the quotients and images of one."""

    total: gl.tensor
    columns: gl.tensor
    groups: gl.tensor
    wide: gl.tensor
    high: gl.tensor
    tile_w: gl.tensor
    tile_h: gl.tensor
    tile_n: gl.tensor
    blocks: gl.tensor  # of input channels


class Box(NamedTuple):
    periods: gl.tensor
    row_periods: gl.tensor
    stages: gl.tensor  # of the ring of boxes


class Rings(NamedTuple):
    x: gl.shared_memory_descriptor
    w: gl.shared_memory_descriptor
    x_full: gl.shared_memory_descriptor
    x_empty: gl.shared_memory_descriptor
    w_full: gl.shared_memory_descriptor
    w_empty: gl.shared_memory_descriptor


class Output(NamedTuple):
    batch: gl.tensor
    group_out: gl.tensor
    out_h: gl.tensor
    out_w: gl.tensor
    y_n: gl.tensor
    y_c: gl.tensor
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
def shifts_of(residue, kernel, stride):
    """[begin, end) of the shifts of outputs whose number plus padding is `residue` + q * stride."""
    end = residue // stride + 1
    count = gl.maximum((kernel - residue % stride + stride - 1) // stride, 0)
    return end - count, end


@gluon.jit
def spans_of(residue, kernel, stride, GROUP: gl.constexpr):
    """Lowest shift of GROUP residues, number of shifts, each residue's (begin, end) above it."""
    begin, end = shifts_of(residue, kernel, stride)
    if GROUP == 1:
        return begin, end - begin, (0, end - begin)
    else:
        begin1, end1 = shifts_of(residue + 1, kernel, stride)
        low = gl.minimum(begin, begin1)
        spans = (begin - low, end - low, begin1 - low, end1 - low)
        return low, gl.maximum(end, end1) - low, spans


@gluon.jit
def place_of(tile, tiles, taps, shape: gl.constexpr):
    """Column, group, phases, image and quotients of a tile; neighbours share input."""
    column = tile % tiles.columns * shape.columns
    tile = tile // tiles.columns
    group = tile % tiles.groups
    tile = tile // tiles.groups
    phases_w = taps.stride_w // shape.group_w
    r_w = tile % phases_w * shape.group_w
    tile = tile // phases_w
    phases_h = taps.stride_h // shape.group_h
    r_h = tile % phases_h * shape.group_h
    tile = tile // phases_h
    w0 = tile % tiles.wide * tiles.tile_w
    tile = tile // tiles.wide
    h0 = tile % tiles.high * tiles.tile_h
    return column, group, r_h, r_w, tile // tiles.high * tiles.tile_n, h0, w0


@gluon.jit
def spans(r_h, r_w, taps, shape: gl.constexpr):
    top, height, rows = spans_of(r_h + taps.padding_h, taps.kernel_h, taps.stride_h, shape.group_h)
    left, width, columns = spans_of(
        r_w + taps.padding_w, taps.kernel_w, taps.stride_w, shape.group_w
    )
    return top, left, gl.where(height > 0, width, 0), rows, columns


@gluon.jit
def rows_of(u, rows, columns, G: gl.constexpr, shape: gl.constexpr):
    """[begin, end) of the row shifts that phase G of a tile has products with at column shift u."""
    i: gl.constexpr = G // shape.group_w * 2
    j: gl.constexpr = G % shape.group_w * 2
    live = (u >= columns[j]) & (u < columns[j + 1])
    return rows[i], gl.where(live, rows[i + 1], 0)


@gluon.jit
def following(slot, parity, stages):
    last = slot + 1 == stages
    return gl.where(last, 0, slot + 1), parity ^ gl.where(last, 1, 0)
