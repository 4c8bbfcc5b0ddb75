"""What `heads` is made of: how it keeps operands in shared memory, multiplies and stores."""

from dataclasses import dataclass
from typing import NamedTuple

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from aot.kernels.pieces import LARGEST, pieces_of_input, pieces_of_weight

MOST_TAPS = gl.constexpr(16)  # along a row
NOWHERE = gl.constexpr(-(1 << 30))  # an offset that is negative whatever is added


@dataclass(frozen=True)
class Shape:
    """What is compiled in."""

    pieces: int
    columns: tuple[int, ...]  # of each product
    pixels: int
    depth: int  # input channels of a product
    room: int  # lines of weights
    beyond: int  # elements that tiles reach over the end of shared memory
    warps: int
    last: bool


@gluon.constexpr_function
def shape_of(*values):
    """Of the precision, both products' columns, lines, channels, room, warps and layout."""
    precision, columns, more, pixels, depth, room, warps, last = values
    pieces = {"fp32": 3, "tf32": 2, "native": 1}[precision]
    products = (columns, more) if more else (columns,)
    return Shape(pieces, products, pixels, depth, room, 8 * sum(products), warps, last)


@gluon.constexpr_function
def planes(count, lines, depth):
    """[lines, channels] in shared memory: planes of 8 channels, in which a line is 16 bytes.

    So eight lines from any on are a row of banks, and begin where `ldmatrix` can read.
    """
    bits = [[0, 1], [0, 2], [0, 4]]
    bits += [[1 << i & count - 1, 0] for i in range(lines.bit_length() - 1)]
    bits += [[0, 1 << i] for i in range(3, depth.bit_length() - 1)]
    return gl.SharedLinearLayout(bits)


@gluon.constexpr_function
def copies(shape):
    """How [lines, channels] are read and kept: both by few wavefronts."""
    if not shape.last:  # neighbours have neighbouring lines, and 8 channels each
        return gl.BlockedLayout([1, 8], [32, 1], [1, shape.warps], [0, 1])
    # A thread has 16 bytes, a warp four lines of 128 bytes, its first threads half banks of those.
    within = 8 if shape.pieces == 1 else 4
    channels = [[0, 1 << i] for i in range(shape.depth.bit_length() - 1)]
    lines = [[1 << i, 0] for i in range(shape.pixels.bit_length() - 1)]
    own = within.bit_length() - 1
    bank = channels[own:3]
    rows = 5 - len(channels[own:])
    lanes = bank + lines[:rows] + channels[own + len(bank) :]
    of_warps = shape.warps.bit_length() - 1
    warps, registers = lines[rows : rows + of_warps], lines[rows + of_warps :]
    size = [shape.pixels, shape.depth]
    return gl.DistributedLinearLayout(channels[:own] + registers, lanes, warps, [], size)


@gluon.constexpr_function
def staging(shape):
    lanes = shape.depth // 8
    return gl.BlockedLayout([1, 8], [32 // lanes, lanes], [shape.warps, 1], [0, 1])


@gluon.constexpr_function
def product_of(shape):
    return gl.NVMMADistributedLayout([2, 0], [shape.warps, 1], [16, 8])


class Places(NamedTuple):
    """Positions of inputs: offsets, and which are inside an image."""

    at: gl.tensor
    inside: gl.tensor


class Tile(NamedTuple):
    """Output channels and phases of a program."""

    first_out: gl.tensor
    out: gl.tensor
    first_phase: gl.tensor
    phases: gl.tensor


class Weights(NamedTuple):
    """torch's, of the slice's first input channel."""

    pointer: gl.tensor
    step_in: gl.tensor
    step_out: gl.tensor
    step_h: gl.tensor
    step_w: gl.tensor
    group_out: gl.tensor
    kernel_h: gl.tensor
    kernel_w: gl.tensor
    stride_w: gl.tensor


class Turns(NamedTuple):
    """Lines of the weights in shared memory: of a tap, and what moves them."""

    lines: gl.tensor  # of a tap
    columns: gl.tensor  # of a slot
    ring: gl.tensor
    taps: gl.tensor
    blocks: gl.tensor
    into: gl.tensor  # input channels


class Row(NamedTuple):
    """A row of quotients: its first output row, that one's slot, and what is stored."""

    o_h: gl.tensor
    turn: gl.tensor
    stride_h: gl.tensor
    ring: gl.tensor
    stored: gl.tensor
    out_h: gl.tensor
    y_h: gl.tensor


@gluon.jit
def channel_and_phase(c, tile, shape: gl.constexpr):
    """Of columns of a slot: neighbours in memory side by side."""
    if shape.last:
        phase = c // tile.out
        channel = c - phase * tile.out
    else:
        channel = c // tile.phases
        phase = c - channel * tile.phases
    return tile.first_out + channel, tile.first_phase + phase


@gluon.jit
def stage_weights(memory, w, turns, tile, shape: gl.constexpr):
    """Copy a program's weights to shared memory; whether one is not finite."""
    LOAD: gl.constexpr = staging(shape)
    STAGED: gl.constexpr = 16 * shape.warps  # lines that are loaded at once
    LINES: gl.constexpr = planes(STAGED, shape.room, shape.depth)
    total = turns.blocks * turns.taps * turns.lines
    line = gl.arange(0, STAGED, layout=gl.SliceLayout(1, LOAD))
    k = gl.arange(0, shape.depth, layout=gl.SliceLayout(0, LOAD))
    unlike = gl.zeros_like(line[:, None] + k[None, :])
    for start in range(0, total, STAGED):
        step = (start + line) // turns.lines
        c = start + line - step * turns.lines
        block = step // turns.taps
        slot = c // turns.columns
        co, k_w = channel_and_phase(c - slot * turns.columns, tile, shape)
        k_w += (step - block * turns.taps) * w.stride_w
        slot -= gl.where(slot >= turns.ring, turns.ring, 0)
        there = (start + line < total) & (co < w.group_out)
        there &= (slot < w.kernel_h) & (k_w < w.kernel_w)
        ci = (block * shape.depth)[:, None] + k[None, :]
        source = co * w.step_out + slot * w.step_h + k_w * w.step_w
        source = w.pointer + (source[:, None] + ci * w.step_in)
        value = gl.load(source, mask=there[:, None] & (ci < turns.into), other=0.0)
        unlike = gl.where(gl.abs(value.to(gl.float32)) <= LARGEST, unlike, 1)
        pieces = pieces_of_weight(value, shape.pieces)
        for i in gl.static_range(len(pieces)):
            view = memory.index(i * shape.room * shape.depth + start * 8)
            view = view._reinterpret(memory.dtype, value.shape, LINES)
            view.store(pieces[i])
    return gl.max(gl.max(unlike, 1), 0) != 0


@gluon.jit
def places(first, images, steps, shape: gl.constexpr):
    """images: their number, their width, and positions of a row."""
    batch, in_w, positions_w = images
    x_n, x_w = steps
    p = first + gl.arange(0, shape.pixels, layout=gl.SliceLayout(1, copies(shape)))
    n = p // positions_w
    i_w = p - n * positions_w
    return Places(n * x_n + i_w * x_w, (p >= 0) & (i_w < in_w) & (n < batch))


@gluon.jit
def fetch(x, shift, places, left, x_c, shape: gl.constexpr):
    """[positions, channels] of a row; `left` channels are there."""
    k = gl.arange(0, shape.depth, layout=gl.SliceLayout(0, copies(shape)))
    source = x + ((places.at + shift)[:, None] + (k * x_c)[None, :])
    return gl.load(source, mask=places.inside[:, None] & (k < left)[None, :], other=0.0)


@gluon.constexpr_function
def ahead_of(shape, bits):
    """(positions, channels) of 128 bytes that lie side by side, and a layout of such."""
    if shape.last:
        return 1, shape.depth, gl.BlockedLayout([1, 1], [32, 1], [shape.warps, 1], [0, 1])
    return 1024 // bits, 1, gl.BlockedLayout([1, 1], [1, 32], [shape.warps, 1], [1, 0])


@gluon.jit
def lines_of(first, images, steps, bits: gl.constexpr, shape: gl.constexpr):
    """Offsets of a block's lines of 128 bytes in the first row."""
    STEPS: gl.constexpr = ahead_of(shape, bits)
    _, in_w, positions_w = images
    x_n, x_w, x_c = steps
    p = gl.arange(0, shape.pixels // STEPS[0], layout=gl.SliceLayout(1, STEPS[2]))
    k = gl.arange(0, shape.depth // STEPS[1], layout=gl.SliceLayout(0, STEPS[2]))
    p = gl.maximum(first + p * STEPS[0], 0)
    n = p // positions_w
    at = n * x_n + gl.minimum(p - n * positions_w, in_w - 1) * x_w
    return at[:, None] + (k * (STEPS[1] * x_c))[None, :]


@gluon.jit
def prefetch(x, at, last):
    """Lines to L2, as far as they are of x, whose last element is `last`."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;",
        "=r,l",
        [x + gl.minimum(at, last)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@gluon.jit
def keep(memory, value, shape: gl.constexpr):
    """A block of a row to shared memory."""
    LINES: gl.constexpr = planes(shape.pixels, shape.pixels, shape.depth)
    pieces = pieces_of_input(value, shape.pieces)
    for i in gl.static_range(len(pieces)):
        view = memory.index(i * shape.pixels * shape.depth)
        view._reinterpret(memory.dtype, value.shape, LINES).store(pieces[i])


@gluon.jit
def inputs_from(memory, line, shape: gl.constexpr):
    """The left operand's pieces, from a line on. What follows the last line is not stored."""
    LEFT: gl.constexpr = gl.DotOperandLayout(0, product_of(shape), 2)
    LINES: gl.constexpr = planes(shape.pixels, shape.pixels, shape.depth)
    PIECES: gl.constexpr = shape.pieces
    found = ()
    for i in gl.static_range(PIECES):
        view = memory.index(i * shape.pixels * shape.depth + line * 8)
        found += (view._reinterpret(memory.dtype, [shape.pixels, shape.depth], LINES).load(LEFT),)
    return found


@gluon.jit
def weights_from(memory, line, COUNT: gl.constexpr, shape: gl.constexpr):
    """The right operand's pieces, from a line on."""
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, product_of(shape), 2)
    LINES: gl.constexpr = planes(COUNT, shape.room, shape.depth)
    PIECES: gl.constexpr = shape.pieces
    found = ()
    for i in gl.static_range(PIECES):
        view = memory.index(i * shape.room * shape.depth + line * 8)
        view = view._reinterpret(memory.dtype, [COUNT, shape.depth], LINES)
        found += (view.permute([1, 0]).load(RIGHT),)
    return found


@gluon.jit
def product(a, b, acc):
    """acc + a @ b of pieces, the small products first."""
    if len(a) == 3:
        acc = mma_v2(a[2], b[0], acc)
        acc = mma_v2(a[0], b[2], acc)
        acc = mma_v2(a[1], b[1], acc)
    if len(a) > 1:
        acc = mma_v2(a[0], b[1], acc)
        acc = mma_v2(a[1], b[0], acc)
    return mma_v2(a[0], b[0], acc)


@gluon.jit
def add_tap(sums, a, weights, first, shape: gl.constexpr):
    """All sums, and the products of a tap whose weights begin at a line."""
    added = ()
    for i in gl.static_range(len(sums)):
        acc = sums[i]
        b = weights_from(weights, first + i * shape.columns[0], acc.shape[1], shape)
        if shape.pieces > 1:
            acc += product(a, b, gl.zeros_like(acc))
        else:
            acc = product(a, b, acc)
        added += (acc,)
    return added


@gluon.jit
def add_some(sums, a, weights, first, some, shape: gl.constexpr):
    """`some`: the rows that have the tap, and of each product the columns."""
    inside, columns = some
    added = ()
    for i in gl.static_range(len(sums)):
        acc = sums[i]
        b = weights_from(weights, first + i * shape.columns[0], acc.shape[1], shape)
        some_of = inside[:, None] & columns[i][None, :]
        added += (acc + gl.where(some_of, product(a, b, gl.zeros_like(acc)), 0.0),)
    return added


@gluon.jit
def store(target, acc, column, row):
    """Store the outputs that are complete; the sums of what follows them."""
    slot, at, bias = column
    t = slot - row.turn
    t += gl.where(t < 0, row.ring, 0)
    done = t < row.stride_h
    o_h = row.o_h + t
    stored = done & (o_h >= 0) & (o_h < row.out_h) & row.stored
    at += gl.where(stored, o_h * row.y_h, NOWHERE)[None, :]
    y, partial, slices = target
    if slices > 1:
        gl.store(partial + at, acc, mask=at >= 0)
    else:
        gl.store(y + at, acc.to(y.dtype.element_ty), mask=at >= 0)
    return gl.where(done[None, :], bias[None, :], acc)
