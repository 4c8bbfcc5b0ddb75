"""Gluon kernels in Triton's interpreter, which Triton 3.6 lacks: where all is done at once, layouts
of registers mean nothing, and shared memory is an array. Only what this package's kernels use.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton._C.libtriton import ir
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonJITFunction
from triton.experimental.gluon.language.nvidia import ampere, hopper
from triton.runtime import interpreter

from aot import interpret_hopper
from aot.kernels import target

tl.block_type.layout = None  # which kernels ask a tensor for

WGMMA = False  # whether kernels take the paths of a GPU with `wgmma`


def _integer(value: Any) -> int:
    return int(value.value if isinstance(value, tl.constexpr) else value)


class SharedMemory:
    """A view of shared memory: where each element of a tensor lies in one array."""

    def __init__(self, memory: np.ndarray, first: int, dtype: Any, shape: Any, layout: Any):
        self.memory, self.first, self.dtype, self.layout = memory, first, dtype, layout
        self.shape = [_integer(size) for size in shape]

    def positions(self) -> np.ndarray:
        """Of the elements. No kernel can tell how its shared memory is swizzled."""
        if not isinstance(self.layout, (gl.PaddedSharedLayout, gl.SharedLinearLayout)):
            return self.first + np.arange(np.prod(self.shape)).reshape(self.shape)
        position = np.zeros(self.shape, np.int64)
        index = np.indices(self.shape)
        for bit, basis in enumerate(self.layout.offset_bases):
            for dim in np.flatnonzero(basis):  # none: a bit that is 0 for all elements
                position |= (index[dim] // basis[dim] & 1) << bit
        padded = self.first + position
        for every, gap in getattr(self.layout, "interval_padding_pairs", ()):
            padded += position // every * gap
        return padded

    def index(self, i: Any) -> SharedMemory:
        i = int(i.handle.data.item()) if isinstance(i, tl.tensor) else int(i)
        assert 0 <= i < self.shape[0]
        first = self.first + i * int(np.prod(self.shape[1:]))
        return SharedMemory(self.memory, first, self.dtype, self.shape[1:], self.layout)

    def slice(self, start: int, length: int, dim: int) -> SharedMemory:
        part = (slice(None),) * dim + (slice(start, start + length),)
        return View(self, lambda positions: positions[part])

    def permute(self, order: list[int]) -> SharedMemory:
        return View(self, lambda positions: positions.transpose(order))

    def _reinterpret(self, dtype: Any, shape: Any, layout: Any) -> SharedMemory:
        assert dtype == self.dtype
        return SharedMemory(self.memory, self.first, dtype, shape, layout)

    def load(self, layout: Any) -> tl.tensor:
        data = self.memory[self.positions()]
        handle = interpreter.TensorHandle(data, self.dtype)
        return tl.tensor(handle, tl.block_type(self.dtype, list(data.shape)))

    def store(self, value: tl.tensor) -> None:
        positions = self.positions()
        assert value.dtype == self.dtype
        assert value.handle.data.shape == positions.shape
        self.memory[positions] = value.handle.data


class View(SharedMemory):
    """Some of a view's elements, or all in another order."""

    def __init__(self, whole: SharedMemory, select: Callable[[np.ndarray], np.ndarray]):
        super().__init__(whole.memory, whole.first, whole.dtype, whole.shape, whole.layout)
        self.whole, self.select = whole, select

    def positions(self) -> np.ndarray:
        return self.select(self.whole.positions())


class Language:
    """The module that kernels import as `gl`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(gl if name.endswith("Layout") else tl, name)

    @staticmethod
    def arange(start: int, end: int, layout: Any) -> tl.tensor:
        return tl.arange(start, end)

    @staticmethod
    def zeros(shape: Any, dtype: Any, layout: Any) -> tl.tensor:
        return tl.zeros(shape, dtype)

    @staticmethod
    def SliceLayout(dim: int, parent: Any) -> None:
        """Layouts of registers are not kept."""

    @staticmethod
    def warp_specialize(parts: Any, warps: list[int], registers: list[int]) -> None:
        interpret_hopper.warp_specialize(parts, warps, registers)

    @staticmethod
    def zeros_like(value: tl.tensor) -> tl.tensor:
        return tl.zeros(value.shape, value.dtype)

    @staticmethod
    def thread_barrier() -> None:
        pass

    @staticmethod
    def convert_layout(value: tl.tensor, layout: Any) -> tl.tensor:
        return value

    @staticmethod
    def allocate_shared_memory(dtype: Any, shape: Any, layout: Any) -> SharedMemory:
        # An element that is read before it is written is NaN.
        size = np.prod([_integer(extent) for extent in shape])
        memory = np.full(size * dtype.primitive_bitwidth // 8, 0xFF, np.uint8)
        return SharedMemory(memory.view(interpreter._get_np_dtype(dtype)), 0, dtype, shape, layout)


def mma_v2(a: tl.tensor, b: tl.tensor, acc: tl.tensor) -> tl.tensor:
    return tl.dot(a, b, acc)


def multiply_add(a: tl.tensor, b: tl.tensor, acc: tl.tensor) -> tl.tensor:
    operands = (a.handle, b.handle, acc.handle)
    handle = interpreter.interpreter_builder.create_dot(*operands, ir.INPUT_PRECISION.IEEE, 0)
    return tl.tensor(handle, acc.type)


def warpgroup_mma(
    a: tl.tensor | SharedMemory, b: SharedMemory, acc: tl.tensor, is_async: bool
) -> tl.tensor:
    return tl.dot(a.load(None) if isinstance(a, SharedMemory) else a, b.load(None), acc)


def warpgroup_mma_wait(num_outstanding: int, deps: list[tl.tensor]) -> Any:
    return tuple(deps) if len(deps) > 1 else deps[0]


class AsyncCopy:
    """The module that kernels import as `async_copy`."""

    @staticmethod
    def async_copy_global_to_shared(smem: SharedMemory, pointer: tl.tensor, mask: Any) -> None:
        smem.store(tl.load(pointer, mask=mask, other=0.0))

    @staticmethod
    def commit_group() -> None:
        pass

    @staticmethod
    def wait_group(num_outstanding: int) -> None:
        pass


REPLACED: tuple[tuple[Any, Any], ...] = (
    (gl, Language()),
    (ampere.mma_v2, mma_v2),
    (ampere.async_copy, AsyncCopy),
    (hopper.warpgroup_mma, warpgroup_mma),
    (hopper.warpgroup_mma_wait, warpgroup_mma_wait),
    (hopper.fence_async_shared, lambda: None),
    (hopper.mbarrier, interpret_hopper.BARRIERS),
    (hopper.tma, interpret_hopper.Tma),
    (target.has_wgmma, lambda: WGMMA),
    (target.multiply_add, multiply_add),
)


def _module(names: dict[str, Any], done: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """A module's names for the interpreter, and those of modules that its kernels come from."""
    if id(names) in done:
        return done[id(names)]
    own = done[id(names)] = {"tl": tl, **names}  # Triton looks for its language
    for name, value in names.items():
        replacements = [new for original, new in REPLACED if value is original]
        if replacements:
            own[name] = replacements[0]
        elif isinstance(value, GluonJITFunction) and value.fn.__globals__ is names:
            function = types.FunctionType(value.fn.__code__, own, value.fn.__name__)
            function.__defaults__ = value.fn.__defaults__
            own[name] = interpreter.InterpretedFunction(function)
        elif isinstance(value, GluonJITFunction):
            own[name] = _module(value.fn.__globals__, done)[value.fn.__name__]
    return own


@functools.cache
def interpreted(kernel: types.FunctionType) -> interpreter.InterpretedFunction:
    """A function that `gluon.jit` decorates, and those that it calls, for the interpreter."""
    entry = _module(kernel.__globals__, {})[kernel.__name__]
    # Triton knows constants by the annotation's text, `tl.constexpr` only.
    entry.rewrite().__annotations__ = dict.fromkeys(kernel.__annotations__, "constexpr")
    return entry
