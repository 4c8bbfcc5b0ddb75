"""What Triton's interpreter lacks of Hopper: TMA, barriers in shared memory and specialised warps.

Each group of warps is a thread of Python; a barrier that is never reached raises TimeoutError.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
PATIENCE = 60.0  # seconds that a thread waits for another


@dataclass
class Barrier:
    """A `mbarrier`: a phase ends when all arrivals and all announced bytes have come."""

    count: int
    missing: int
    bytes: int = 0
    phase: int = 0


class Barriers:
    """Those of the program that runs, by where they lie in shared memory."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.barriers: dict[tuple[int, int], Barrier] = {}

    def MBarrierLayout(self) -> None:
        """Layouts of registers and barriers are not kept."""

    def init(self, barrier: Any, count: Any) -> None:
        self.barriers[id(barrier.memory), barrier.first] = Barrier(_int(count), _int(count))

    def update(self, barrier: Any, arrivals: int, announced: int) -> None:
        with self.changed:
            state = self.barriers[id(barrier.memory), barrier.first]
            state.missing -= arrivals
            state.bytes += announced
            assert state.missing >= 0, "more arrivals than a barrier expects"
            if state.missing == 0 and state.bytes == 0:
                state.missing = state.count
                state.phase ^= 1
                self.changed.notify_all()

    def expect(self, barrier: Any, bytes: Any, pred: Any = True) -> None:
        if _int(pred):
            self.update(barrier, 1, _int(bytes))

    def arrive(self, barrier: Any, count: Any = 1, pred: Any = True) -> None:
        if _int(pred):
            self.update(barrier, _int(count), 0)

    def wait(self, barrier: Any, phase: Any) -> None:
        state = self.barriers[id(barrier.memory), barrier.first]
        with self.changed:
            if not self.changed.wait_for(lambda: state.phase != _int(phase), PATIENCE):
                raise TimeoutError("a barrier is never reached")


BARRIERS = Barriers()


def _int(value: Any) -> int:
    if isinstance(value, tl.tensor):
        return int(value.handle.data.item())
    return int(value.value if isinstance(value, tl.constexpr) else value)


class Block:
    """The part of a descriptor's type that kernels ask for."""

    def __init__(self, shape: list[int], itemsize: int):
        self.shape = shape
        self.nbytes = int(np.prod(shape)) * itemsize


class Map:
    """A TMA descriptor: boxes of a tensor, zeros outside of it."""

    def __init__(self, base: Any, spec: dict[str, Any], block: list[int]):
        self.base, self.sizes, self.strides = base, spec["sizes"], spec["strides"]
        # A block wider than the swizzle takes several copies.
        self.box = [*spec["box"][:-1], max(spec["box"][-1], block[-1])]
        self.rounds = spec["element"] == "tf32"
        self.dtype, self.layout = DTYPES[base.dtype], None
        self.block_type = Block(block, base.element_size())

    def read(self, start: list[Any]) -> np.ndarray:
        offset, inside = np.zeros(self.box, np.int64), np.ones(self.box, bool)
        for dim, first in enumerate(start):
            at = np.arange(self.box[dim]) + _int(first)
            at = at.reshape([-1 if d == dim else 1 for d in range(len(self.box))])
            offset = offset + at * self.strides[dim]
            inside = inside & (at >= 0) & (at < self.sizes[dim])
        pointers = (self.base.data_ptr() + offset * self.base.element_size()).astype(np.uint64)
        data = interpreter._interpreter.load(
            pointers, inside, np.zeros(self.box, interpreter._get_np_dtype(self.dtype)),
            interpreter._get_np_dtype(self.dtype),
        )  # fmt: skip
        if self.rounds:  # to nearest; the bits behind are kept out of products
            data = ((data.view(np.uint32) + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)
        return np.asarray(data)


class Tma:
    """What kernels call `tma`."""

    @staticmethod
    def async_copy_global_to_shared(
        descriptor: Map, start: list[Any], barrier: Any, to: Any, pred: Any = True
    ) -> None:
        if _int(pred):
            data = descriptor.read(start)
            to.memory[to.first : to.first + data.size] = data.reshape(-1)
            BARRIERS.update(barrier, 0, -data.nbytes)


def warp_specialize(
    parts: list[tuple[Callable[..., Any], Any]], warps: list[int], registers: list[int]
) -> None:
    """Every part in a thread of its own."""
    errors: list[BaseException] = []

    def run(function: Callable[..., Any], arguments: Any) -> None:
        try:
            function(*arguments)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=part, daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
