"""Problems and plans from plain sizes, for tests that need no tensors."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from convt import _C


def contiguous_strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def channels_last_strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    n, c, *axes = sizes
    batch, *inside, channel = contiguous_strides((n, *axes, c))
    return (batch, channel, *inside)


@dataclass(frozen=True)
class Layer:
    """A transposed convolution by its numbers; tuples have one for each axis."""

    batch: int = 1
    in_channels: int = 1
    out_channels: int = 1
    size: tuple[int, ...] = (4, 5)
    kernel: tuple[int, ...] = (3, 3)
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    output_padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = False
    why: str = field(default="", compare=False)

    @property
    def geometry(self) -> tuple[int, ...]:
        """As the op takes it."""
        return (*self.stride, *self.padding, *self.output_padding, *self.dilation, self.groups)

    def problem(
        self,
        dtype: str = "f32",
        precision: str = "fp32",
        layout: str = "nchw",
        aligned: bool = True,
    ) -> _C.Problem:
        sizes = (self.batch, self.in_channels, *self.size)
        weight = (self.in_channels, self.out_channels // self.groups, *self.kernel)
        strides = channels_last_strides if layout == "nhwc" else contiguous_strides
        bias = ((self.out_channels,), (1,), dtype, True) if self.bias else None
        return _C.problem_of(
            (sizes, strides(sizes), dtype, aligned),
            (weight, contiguous_strides(weight), dtype, True),
            bias,
            self.geometry,
            precision,
        )


def volume(
    batch: int,
    channels: tuple[int, int],
    size: tuple[int, int, int],
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    **others: Any,
) -> Layer:
    """A layer of three axes; channels are (in, out)."""
    defaults = {"padding": (0, 0, 0), "output_padding": (0, 0, 0), "dilation": (1, 1, 1)}
    return Layer(batch, *channels, size, kernel, stride, **{**defaults, **others})


def gpu(arch: int, kind: Literal["cubin", "ptx"] = "cubin") -> _C.Gpu:
    """The usual GPU of an architecture, with that image; of an architecture of 0, none."""
    return _C.Gpu.preset(str(arch)).with_image(arch, kind) if arch else _C.Gpu.none()


def plan_of_family(family: str, problem: _C.Problem, card: _C.Gpu) -> _C.Plan | None:
    """The plan of a family's best config; None where it does not serve the problem."""
    of = {variant["name"]: variant["family"] for variant in _C.variants()}
    for config, _ in _C.candidates(problem, card):
        if of.get(config.split()[0]) == family:
            return _C.plan_with(problem, card, config)
    return None


def plan_of_kernel(problem: _C.Problem, card: _C.Gpu) -> _C.Plan:
    """The plan of the best config but ATen; ATen's where no kernel serves the problem."""
    for config, _ in _C.candidates(problem, card):
        if config != "aten":
            return _C.plan_with(problem, card, config)
    return _C.plan(problem, card)


HEADLINE = Layer(
    16, 32, 64, (64, 128), (3, 3), (5, 5), (1, 1), dilation=(2, 2), why="KernelBench level 1 #81"
)


def variants() -> dict[str, dict[str, Any]]:
    return {variant["name"]: variant for variant in _C.variants()}


class Slot(NamedTuple):
    """Where a kernel reads one parameter, in bytes."""

    offset: int
    size: int


def parameter_layout(cubin: bytes) -> list[Slot]:
    """Of a cubin's only kernel, from the EIATTR_KPARAM_INFO records of its .nv.info section."""
    from elftools.elf.elffile import ELFFile

    sections = ELFFile(io.BytesIO(cubin)).iter_sections()
    (info,) = [s.data() for s in sections if s.name.startswith(".nv.info.")]
    records = re.findall(rb"\x04\x17\x0c\x00....(..)(..)..(..)", info, re.S)
    word = [[int.from_bytes(part, "little") for part in record] for record in records]
    by_ordinal = {ordinal: Slot(offset, size >> 2) for ordinal, offset, size in word}
    return [by_ordinal[ordinal] for ordinal in sorted(by_ordinal)]


def launcher_layout(variant: dict[str, Any]) -> list[Slot]:
    """Where the launcher writes a variant's parameters: each on a multiple of its size."""
    sizes = []
    for _, type_, rank in variant["parameters"]:
        # A TMA descriptor is followed by its tensor's sizes and strides.
        sizes += [128 if type_ == "tensormap" else 4 if type_ == "i32" else 8]
        sizes += [4] * rank + [8] * rank
    slots, end = [], 0
    for size in [*sizes, 8, 8]:  # and Triton's two scratch pointers
        alignment = min(size, 64)
        slots.append(Slot(-(-end // alignment) * alignment, size))
        end = slots[-1].offset + size
    return slots
