"""Products whose threads have neighbouring pixels of the input, so of the output."""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl


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
