"""One layer from the command line: its arguments, its tensors, its plan."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from convt import _C, functional
from convt.records import Layer
from convt.tuning.capture import math_of

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LAYOUTS = ("nchw", "nhwc")
_SHORT = ("kernel", "stride", "padding")  # may be given by position
_PROBLEM = (
    "batch", "in_channels", "out_channels", "input_size", "output_size", "kernel_size", "stride",
    "padding", "output_padding", "dilation", "groups", "bias", "dtype", "precision", "layout",
    "min_bytes", "flops",
)  # fmt: skip


class UserError(Exception):
    """What the user has to mend: one line, exit code 2."""


def memory_format(layout: str, dims: int) -> torch.memory_format:
    """torch's name for a layout of tensors of so many dimensions, which has one for 4 and 5."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}
    return last.get(dims, torch.contiguous_format) if layout == "nhwc" else torch.contiguous_format


def keywords(layer: Layer) -> dict[str, Any]:
    """The keywords of torch's functions and layers that a layer's numbers are."""
    names = ("stride", "padding", "output_padding", "dilation", "groups")
    return {name: getattr(layer, name) for name in names}


def dtype_of(layer: Layer) -> torch.dtype:
    return {"f16": torch.float16, "bf16": torch.bfloat16}.get(layer.math, torch.float32)


def precision_of(layer: Layer) -> Any:
    """What `precision=` of convt's functions asks for the layer's products."""
    return layer.math if dtype_of(layer) == torch.float32 else None


def meta_tensors(layer: Layer) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, weight and bias without data."""

    def meta(size: tuple[int, ...], layout: str) -> Tensor:
        order = memory_format(layout, len(size))
        return torch.empty(size, dtype=dtype_of(layer), device="meta", memory_format=order)

    bias = meta((layer.out_channels,), "nchw") if layer.bias else None
    return meta(layer.input_size, layer.layout), meta(layer.weight_size, layer.layout), bias


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", type=_sizes, metavar="N,C,H,W", help="sizes of the input, or N,C,W, or N,C,D,H,W")
    add("out_channels", type=_integer, metavar="Cout")
    for name in _SHORT:
        add(f"short_{name}", type=_each, nargs="?", metavar=name[0].upper(), help=f"as --{name}")
    for name in (*_SHORT, "output-padding", "dilation"):
        add(f"--{name}", type=_each, metavar="INT|H,W", help="one for all axes, or one for each")
    add("--groups", type=_integer, default=1)
    add("--bias", action="store_true")
    add("--dtype", choices=DTYPES, default="fp32")
    add("--layout", choices=LAYOUTS, default="nchw", help="memory order of input and weight")
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
    axes = len(arguments.input) - 2
    given["output_padding"], given["dilation"] = arguments.output_padding, arguments.dilation
    kernel = _of_axes("kernel", kernel, axes)
    numbers = {
        name: _of_axes(name, given[name] or (default,), axes)
        for name, default in (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    }
    groups = arguments.groups
    if groups < 1 or arguments.out_channels < 1 or arguments.out_channels % groups:
        raise UserError(
            "expected Cout to be positive and a multiple of --groups, got "
            f"{arguments.out_channels} and {groups}"
        )
    dtype = DTYPES[arguments.dtype]
    math = math_of(dtype, numbers["stride"], numbers["output_padding"])
    assert math is not None
    batch, in_channels, *size = arguments.input
    return Layer(
        math=arguments.precision or math if dtype == torch.float32 else math,
        layout=arguments.layout,
        batch=batch,
        in_channels=in_channels,
        out_channels=arguments.out_channels,
        size=tuple(size),
        kernel=kernel,
        **numbers,
        groups=groups,
        bias=arguments.bias,
    )


def plan_of(layer: Layer, arch: str | None) -> _C.Plan:
    """The plan for `arch`, or for the first CUDA device if there is one."""
    try:
        plan = functional.explain(
            *meta_tensors(layer), **keywords(layer), precision=precision_of(layer), arch=arch
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
    if not 3 <= len(sizes) <= 5 or min(sizes) < 0:
        raise argparse.ArgumentTypeError(
            f"expected sizes N,C,H,W (or N,C,W or N,C,D,H,W), got {text!r}"
        )
    return sizes


def _each(text: str) -> tuple[int, ...]:
    numbers = _integers(text)
    if not 1 <= len(numbers) <= 3:
        raise argparse.ArgumentTypeError(f"expected an int, or one for each axis, got {text!r}")
    return numbers


def _of_axes(name: str, numbers: tuple[int, ...], axes: int) -> tuple[int, ...]:
    if len(numbers) not in (1, axes):
        option = name.replace("_", "-")
        raise UserError(f"expected --{option} to be one int or {axes}, got {len(numbers)}")
    return numbers * (axes // len(numbers))


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
