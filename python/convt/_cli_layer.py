"""One layer from the command line: its arguments, its tensors, its plan."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convt import _C, functional

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
_PROBLEM = (
    "batch", "in_channels", "out_channels", "input_size", "output_size", "kernel_size", "stride",
    "padding", "output_padding", "dilation", "groups", "bias", "dtype", "precision", "layout",
    "min_bytes", "flops",
)  # fmt: skip


class UserError(Exception):
    """What the user has to mend: one line, exit code 2."""


class Layer(NamedTuple):
    """A call of conv_transpose2d by its numbers; pairs are (height, width)."""

    input_size: tuple[int, ...]
    weight_size: tuple[int, ...]
    out_channels: int
    bias: bool
    geometry: dict[str, Any]  # the keywords of conv_transpose2d
    dtype: torch.dtype
    layout: str
    precision: functional.Precision | None

    def tensors(self, device: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, weight and bias without values, in the layer's memory format."""

        def empty(size: tuple[int, ...]) -> Tensor:
            memory_format = FORMATS[self.layout] if len(size) == 4 else torch.contiguous_format
            return torch.empty(size, dtype=self.dtype, device=device, memory_format=memory_format)

        bias = empty((self.out_channels,)) if self.bias else None
        return empty(self.input_size), empty(self.weight_size), bias


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", type=_sizes, metavar="N,C,H,W", help="sizes of the input")
    add("out_channels", type=int, metavar="Cout")
    add("short", type=_pair, nargs="*", metavar="K S P", help="short for --kernel K --stride S ...")
    for name in ("kernel", "stride", "padding", "output-padding", "dilation"):
        add(f"--{name}", type=_pair, metavar="INT|H,W")
    add("--groups", type=int, default=1)
    add("--bias", action="store_true")
    add("--dtype", choices=DTYPES, default="fp32")
    add("--layout", choices=FORMATS, default="nchw", help="memory order of input and weight")
    add("--precision", choices=("fp32", "tf32", "fp16"), help="of fp32 products; default: torch's")


def layer_of(arguments: argparse.Namespace) -> Layer:
    """The layer that the arguments of `add_arguments` tell; UserError if they cannot be one."""
    values = vars(arguments)
    given = {name: values[name] for name in ("kernel", "stride", "padding")}
    if len(arguments.short) > len(given):
        raise UserError(f"expected at most K S P after Cout, got {len(arguments.short)} numbers")
    for name, value in zip(given, arguments.short, strict=False):
        if given[name] is not None:
            raise UserError(f"{name} is given twice, by position and by --{name}")
        given[name] = value
    kernel = given.pop("kernel")
    if kernel is None:
        raise UserError("the kernel size is missing: N,C,H,W Cout K, or --kernel K")
    groups = arguments.groups
    if groups < 1 or arguments.out_channels < 1 or arguments.out_channels % groups:
        raise UserError(
            "expected Cout to be positive and a multiple of --groups, got "
            f"{arguments.out_channels} and {groups}"
        )
    return Layer(
        input_size=arguments.input,
        weight_size=(arguments.input[1], arguments.out_channels // groups, *kernel),
        out_channels=arguments.out_channels,
        bias=arguments.bias,
        geometry={
            "stride": given["stride"] or (1, 1),
            "padding": given["padding"] or (0, 0),
            "output_padding": arguments.output_padding or (0, 0),
            "dilation": arguments.dilation or (1, 1),
            "groups": groups,
        },
        dtype=DTYPES[arguments.dtype],
        layout=arguments.layout,
        precision=arguments.precision,
    )


def plan_of(layer: Layer, arch: str | None) -> _C.Plan:
    """The plan for `arch`, or for the first CUDA device if there is one."""
    try:
        plan = functional.explain(
            *layer.tensors("meta"), **layer.geometry, precision=layer.precision, arch=arch
        )
        if arch is None and _C.device_count() > 0:
            plan = _C.plan(plan.problem, _C.device_target(0))
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise UserError(str(error)) from error
    return plan


def plan_json(plan: _C.Plan) -> dict[str, Any]:
    target = {"arch": plan.target.arch, "kind": plan.target.kind} if plan.target.arch else None
    return {
        "served": plan.served,
        "variant": plan.variant,
        "reason": plan.reason,
        "target": target,
        "grid": plan.grid if plan.served else None,
        "problem": {name: getattr(plan.problem, name) for name in _PROBLEM},
    }


def _sizes(text: str) -> tuple[int, ...]:
    sizes = _integers(text)
    if len(sizes) != 4 or min(sizes) < 0:
        raise argparse.ArgumentTypeError(f"expected four sizes N,C,H,W, got {text!r}")
    return sizes


def _pair(text: str) -> tuple[int, int]:
    numbers = _integers(text)
    if len(numbers) not in (1, 2):
        raise argparse.ArgumentTypeError(f"expected an int or H,W, got {text!r}")
    return numbers[0], numbers[-1]


def _integers(text: str) -> tuple[int, ...]:
    """() if it is not integers with commas between."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        return ()
