"""One layer from the command line: its arguments, its tensors, its plan."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convt import _C, functional

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
_SHORT = ("kernel", "stride", "padding")  # may be given by position
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

    def meta_tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, weight and bias without data."""

        def meta(size: tuple[int, ...], layout: str = "nchw") -> Tensor:
            return torch.empty(size, dtype=self.dtype, device="meta", memory_format=FORMATS[layout])

        bias = meta((self.out_channels,)) if self.bias else None
        return meta(self.input_size, self.layout), meta(self.weight_size, self.layout), bias


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", type=_sizes, metavar="N,C,H,W", help="sizes of the input")
    add("out_channels", type=_integer, metavar="Cout")
    for name in _SHORT:
        add(f"short_{name}", type=_pair, nargs="?", metavar=name[0].upper(), help=f"as --{name}")
    for name in (*_SHORT, "output-padding", "dilation"):
        add(f"--{name}", type=_pair, metavar="INT|H,W")
    add("--groups", type=_integer, default=1)
    add("--bias", action="store_true")
    add("--dtype", choices=DTYPES, default="fp32")
    add("--layout", choices=FORMATS, default="nchw", help="memory order of input and weight")
    add("--precision", choices=("fp32", "tf32", "fp16"), help="of fp32 products; default: torch's")


def layer_of(arguments: argparse.Namespace) -> Layer:
    """The layer that the arguments of `add_arguments` tell; UserError if they cannot be one."""
    values = vars(arguments)
    for name in _SHORT:
        if values[f"short_{name}"] is not None and values[name] is not None:
            raise UserError(f"{name} is given twice, by position and by --{name}")
    given = {name: values[f"short_{name}"] or values[name] for name in _SHORT}
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
            *layer.meta_tensors(), **layer.geometry, precision=layer.precision, arch=arch
        )
        if arch is None and _C.device_count() > 0:
            plan = _C.plan(plan.problem, _C.device_gpu(0))
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise UserError(str(error)) from error
    return plan


def plan_json(plan: _C.Plan) -> dict[str, Any]:
    arch, kind = plan.gpu.image
    return {
        "served": plan.served,
        "variant": plan.variant,
        "reason": plan.reason,
        "config": plan.config,
        "gpu": plan.gpu.name or None,
        "target": {"arch": arch, "kind": kind} if arch else None,
        "microseconds": plan.microseconds,
        "best": plan.best,
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
    """() if it is not integers of 32 bits with commas between."""
    try:
        integers = tuple(int(part) for part in text.split(","))
    except ValueError:
        return ()
    return integers if max(map(abs, integers)) < 2**31 else ()


def _integer(text: str) -> int:
    integers = _integers(text)
    if len(integers) != 1:
        raise argparse.ArgumentTypeError(f"expected an int, got {text!r}")
    return integers[0]
