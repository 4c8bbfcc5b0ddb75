"""Run a plan in Triton's interpreter, on the CPU: the very kernel, grid and arguments of a launch.

TRITON_INTERPRET=1 must be set before triton is imported anywhere in the process.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from triton.runtime import interpreter

from aot.interpret_gluon import interpreted
from aot.interpret_hopper import Map
from aot.variants import all_variants
from convt import _C

TORCH_TYPES = {
    "*fp32": torch.float32, "*fp16": torch.float16, "*bf16": torch.bfloat16,
    "*i8": torch.int8, "*i32": torch.int32, "*i64": torch.int64,
}  # fmt: skip

_create_plain_dot = interpreter.InterpreterBuilder.create_dot


def _operand(value: interpreter.TensorHandle, tf32: bool) -> np.ndarray:
    """An operand as a tensor core reads it: all 16 bits, or the 19 of TF32 of 32-bit numbers."""
    data: np.ndarray = value.data
    if value.dtype == interpreter.tl.bfloat16:
        data = (data.astype(np.uint32) << 16).view(np.float32)
    elif tf32:
        data = (data.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    return data


def _truncated(sums: np.ndarray) -> np.ndarray:
    """Rounded to fp32, towards zero."""
    nearest = sums.astype(np.float32)
    beyond = np.isfinite(nearest) & (np.abs(nearest) > np.abs(sums))
    return np.where(beyond, np.nextafter(nearest, np.float32(0)), nearest)


def _create_dot(self: Any, a: Any, b: Any, acc: Any, precision: Any, *rest: Any) -> Any:
    """acc + a @ b as a tensor core adds it up: exactly for 32 bytes of depth, then truncated.

    Triton 3.6's own neither truncates TF32's operands nor sums, and multiplies bf16's bit patterns.
    """
    tf32 = a.dtype == interpreter.tl.float32 and precision.name == "TF32"
    if not tf32 and a.dtype.primitive_bitwidth != 16:
        return _create_plain_dot(self, a, b, acc, precision, *rest)
    left, right = (_operand(value, tf32).astype(np.float64) for value in (a, b))
    sums = acc.data
    step = 256 // a.dtype.primitive_bitwidth
    for k in range(0, left.shape[-1], step):
        sums = _truncated(sums + left[..., k : k + step] @ right[..., k : k + step, :])
    return interpreter.TensorHandle(sums, acc.dtype.scalar)


def _create_clampf(self: Any, value: Any, low: Any, high: Any, propagate_nan: Any) -> Any:
    """NaN becomes a bound where it is not asked for; Triton 3.6's own always keeps it."""
    clamped = np.clip(value.data, low.data, high.data)
    if propagate_nan.name != "ALL":
        clamped = np.where(np.isnan(value.data), low.data, clamped)
    return interpreter.TensorHandle(clamped, value.dtype.scalar)


def gpu_arithmetic() -> Any:
    """A context in which the interpreter multiplies matrices and clamps as a GPU does."""
    return mock.patch.multiple(
        interpreter.InterpreterBuilder, create_dot=_create_dot, create_clampf=_create_clampf
    )


@contextmanager
def prefetches(x: Any) -> Iterator[set[int]]:
    """A context in which inline assembly, which the interpreter lacks, is prefetches of x.

    They change nothing, but no address may lie outside. Collects the lines of 128 bytes asked for.
    """
    lines: set[int] = set()

    def prefetch(asm: str, constraints: str, args: list[Any], **options: Any) -> None:
        assert asm.startswith("prefetch.global")
        (pointers,) = args
        offsets = pointers.handle.data.astype(np.int64) - x.data_ptr()
        assert offsets.min() >= 0
        assert offsets.max() < x.nbytes
        lines.update((offsets // 128).ravel().tolist())

    with mock.patch.object(interpreter.tl, "inline_asm_elementwise", prefetch):
        yield lines


def kernel_of(variant: dict[str, Any]) -> Any:
    """The Triton function that a variant is compiled from; a Gluon one as one of Triton's."""
    fn = getattr(importlib.import_module(f"aot.kernels.{variant['family']}"), variant["symbol"])
    return fn if isinstance(fn, interpreter.InterpretedFunction) else interpreted(fn.fn)


def arguments_of(
    plan: Any, variant: dict[str, Any], x: Any, weight: Any, bias: Any, y: Any
) -> dict[str, Any]:
    """Every argument of a plan's main kernel, compile-time ones included; weight as it reads it."""
    # Where there is no bias, its address is never read, because has_bias is 0.
    tensors = {"x": x, "weight": weight, "bias": x if bias is None else bias, "y": y}
    taken = {name: tensors[name] for name, *_ in variant["parameters"] if name in tensors}
    return {**taken, **plan.arguments, **variant["constants"]}


def launch(plan: Any, variant: dict[str, Any], x: Any, weight: Any, bias: Any, y: Any) -> set[int]:
    """Run a plan's main kernel alone; return the prefetched lines of x, of 128 bytes.

    plan: a `convt._C.Plan`; variant: its entry of `convt._C.variants()`. The tensors lie as the
    kernel reads them: x and y dense in the plan's layout, weight in its order, bias maybe None.
    """
    with gpu_arithmetic(), prefetches(x) as lines:
        kernel_of(variant)[plan.grid](**arguments_of(plan, variant, x, weight, bias, y))
    return lines


@dataclass(frozen=True)
class Memory:
    """The tensors that a plan's steps see, by role."""

    tensors: dict[str, Any]

    def pointer(self, place: tuple[str, int], triton_type: str) -> Any:
        """The memory at (role, bytes behind its start), as elements of a pointer type."""
        role, offset = place
        tensor = self.tensors["input" if self.tensors.get(role) is None else role]
        if role != "workspace":
            assert offset == 0
            return tensor
        dtype = TORCH_TYPES[triton_type]
        end = offset + (tensor.nbytes - offset) // dtype.itemsize * dtype.itemsize
        return tensor[offset:end].view(dtype)

    def descriptor(self, spec: dict[str, Any], triton_type: str) -> Map:
        """The descriptor for a parameter of a type such as "tensordesc<fp16[8,64],...>"."""
        elements, shape = re.findall(r"<(\w+)\[([^]]*)\]", triton_type)[0]
        block = [int(size) for size in shape.split(",")]
        return Map(self.pointer(spec["buffer"], f"*{elements}"), spec, block)


def run(plan: Any, x: Any, weight: Any, bias: Any, y: Any) -> None:
    """Fill y as the GPU would, by every step of a plan.

    x and weight lie as plan.problem says, y is dense in its layout, bias may be None. Memory that a
    step does not initialise holds 0xA5 bytes.
    """
    described = {variant.name: variant for variant in all_variants()}
    compiled = {variant["name"]: variant for variant in _C.variants()}
    workspace = torch.full((plan.workspace_bytes,), 0xA5 - 256, dtype=torch.int8)
    memory = Memory({"input": x, "weight": weight, "bias": bias, "output": y,
                     "workspace": workspace})  # fmt: skip
    for step in plan.steps:
        types, variant = described[step["variant"]].type_of, compiled[step["variant"]]
        pointers = {n: memory.pointer(place, types(n)) for n, place in step["addresses"].items()}
        maps = {n: memory.descriptor(spec, types(n)) for n, spec in step["maps"].items()}
        arguments = {**pointers, **maps, **step["arguments"], **variant["constants"]}
        read = next(t for t in (x, weight) if t is not None)
        with gpu_arithmetic(), prefetches(read):
            kernel_of(variant)[step["grid"]](**arguments)
