"""Products in ordinary multiply-adds: whole rows in threads, the right operand for all of them."""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from aot.kernels.target import multiply_add


@gluon.constexpr_function
def rows(columns, warps):
    """[rows, columns]: a thread has whole rows, its neighbours the next ones."""
    return gl.BlockedLayout([1, columns], [32, 1], [warps, 1], [1, 0])


@gluon.jit
def add_products(a, shared, at, acc, ROWS: tl.constexpr):
    """acc + a @ b, where b^T [columns, summed] lies at an element of flat shared memory."""
    LINES: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    a = gl.convert_layout(a, gl.DotOperandLayout(0, ROWS, 0))
    lines = shared.index(at)._reinterpret(gl.float32, [acc.shape[1], a.shape[1]], LINES)
    return multiply_add(a, lines.permute([1, 0]).load(gl.DotOperandLayout(1, ROWS, 0)), acc)
