"""`convt tune`: a model or a list of layers, measured on this machine's GPU."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convt import _cli_machine as machine
from convt import _cli_model
from convt._cli_layer import DTYPES, UserError, memory_format
from convt.records import Layer, RecordError
from convt.tuning import Report, tune, tune_calls
from convt.tuning.capture import math_of
from convt.tuning.search import Call

_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", metavar="FILE.py:FUNCTION", help="or MODULE:FUNCTION, or layers.json")
    add("--input", action="append", metavar="N,C,...", help="sizes of an input; once for each")
    add("--dtype", choices=DTYPES, default="fp32", help="of the model and its inputs")
    add("--channels-last", action="store_true", help="memory order of the model and its inputs")
    add("--budget", type=float, default=60.0, metavar="SECONDS")
    add("--out", metavar="PATH", help="a .jsonl file, or a folder for one file per GPU model")


def run(arguments: argparse.Namespace) -> Report:
    """UserError without a GPU, and for anything that the user has to mend."""
    if not torch.cuda.is_available():
        why = machine.driver_error() or "torch cannot use it (see `convt doctor`)"
        raise UserError(f"no GPU to tune on: {why}")
    torch.backends.cudnn.benchmark = True  # ATen at its best
    try:
        if arguments.what.endswith(".json"):
            layout = "nhwc" if arguments.channels_last else "nchw"
            calls = read_layers(Path(arguments.what), layout)
            return tune_calls(calls, arguments.budget, arguments.out)
        model, inputs = model_of(arguments)
        return tune(model, *inputs, budget=arguments.budget, path=arguments.out)
    except (RecordError, OSError, ImportError, RuntimeError) as error:
        raise UserError(str(error)) from error


def read_layers(path: Path, layout: str) -> list[Call]:
    """The layers of a file like benchmarks/layers.json."""
    try:
        rows = json.loads(path.read_text())
        return [Call(layer_of(row, layout), str(row["id"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: expected layers as in benchmarks/layers.json: {what}") from error


def layer_of(row: dict[str, Any], layout: str) -> Layer:
    """A layer of benchmarks/layers.json, fp32 as torch multiplies it now."""
    math = math_of(_DTYPES[row["dtype"]], row["stride"], row["output_padding"])
    assert math is not None
    return Layer(
        math,
        layout,
        row["batch"],
        row["in_channels"],
        row["out_channels"],
        tuple(row[name] for name in ("in_d", "in_h", "in_w") if name in row),
        tuple(row["kernel"]),
        tuple(row["stride"]),
        tuple(row["padding"]),
        tuple(row["output_padding"]),
        tuple(row["dilation"]),
        row["groups"],
        row["bias"],
    )


def model_of(arguments: argparse.Namespace) -> tuple[nn.Module, list[torch.Tensor]]:
    """The model on the GPU, and random inputs for it."""
    if not arguments.input:
        raise UserError("--input is missing: the sizes of an input, like --input 8,3,256,256")
    dtype = DTYPES[arguments.dtype]
    sizes = [_cli_model.sizes_of(text) for text in arguments.input]
    model = _cli_model.model_of(arguments.what).eval().to("cuda", dtype)
    inputs = [torch.randn(size, device="cuda", dtype=dtype) for size in sizes]
    if arguments.channels_last:
        for parameter in model.parameters():
            parameter.data = _channels_last(parameter.data)
        inputs = [_channels_last(x) for x in inputs]
    return model, inputs


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=memory_format("nhwc", tensor.dim()))
