"""`convt bench`: one layer on a GPU, beside cuDNN."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convt import _cli_machine as machine
from convt import functional, nn
from convt._cli_layer import (
    UserError,
    dtype_of,
    keywords,
    memory_format,
    plan_json,
    plan_of,
    precision_of,
)
from convt.records import Layer


def bench(layer: Layer) -> dict[str, Any]:
    """Times and errors of both, as JSON; UserError without a GPU that torch can use."""
    if not torch.cuda.is_available():
        why = machine.driver_error() or "torch cannot use it (see `convt doctor`)"
        raise UserError(f"no GPU to measure on: {why}")
    problem = plan_of(layer, None).problem  # a bad layer is told before anything is allocated
    if 0 in (problem.batch, problem.in_channels):
        raise UserError(f"nothing to measure: the input is empty, {list(layer.input_size)}")
    torch.backends.cudnn.benchmark = True
    if layer.math == "fp32":  # then of cuDNN too
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    try:
        return measure(layer, "cuda")
    except torch.OutOfMemoryError as error:
        raise UserError(str(error)) from error


@torch.inference_mode()
def measure(layer: Layer, device: str) -> dict[str, Any]:
    """Both on `device`, with random data and equal weights."""
    module = _module(layer, device)
    weight, bias = module.weight, module.bias
    x = torch.randn(layer.input_size, device=device, dtype=dtype_of(layer))
    geometry = keywords(layer)
    x = x.contiguous(memory_format=memory_format(layer.layout, x.dim()))
    torchs: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.dim() - 3]
    runs: dict[str, Callable[[], Tensor]] = {
        "convt": lambda: module(x),
        "cuDNN": lambda: torchs(x, weight, bias, **geometry),
    }
    plan = functional.explain(x, weight, bias, **geometry, precision=precision_of(layer))
    # The first image stands for all: fp64 takes long.
    doubles = (x[:1].double(), weight.double(), None if bias is None else bias.double())
    expected = torchs(*doubles, **geometry)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": str(torch.__version__),
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "plan": plan_json(plan),
    }
    for name, run in runs.items():
        error = relative_error(run()[:1], expected)
        ms = median_ms(run)
        gb_per_s = plan.problem.min_bytes / ms / 1e6
        result[name] = {"ms": ms, "gb_per_s": gb_per_s, "error": error}
    return result


@torch.inference_mode(False)
def _module(layer: Layer, device: str) -> Any:
    """The module, since it keeps its weight in the kernels' memory order."""
    dims = len(layer.weight_size)
    cls: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 3]
    module = cls(
        layer.in_channels,
        layer.out_channels,
        layer.kernel,
        **keywords(layer),
        bias=layer.bias,
        device=device,
        dtype=dtype_of(layer),
        precision=precision_of(layer),
    )
    return module.to(memory_format=memory_format(layer.layout, dims))


def median_ms(run: Callable[[], Tensor], repetitions: int = 50) -> float:
    """Median GPU time of a call, by events around each."""
    for _ in range(5):
        run()
    make: Any = torch.cuda.Event
    events = [[make(enable_timing=True) for _ in "se"] for _ in range(repetitions)]
    for start, end in events:
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return float(statistics.median(start.elapsed_time(end) for start, end in events))


def relative_error(output: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the fp64 reference."""
    return float((output.double() - expected).norm() / expected.norm())


def text(result: dict[str, Any]) -> str:
    plan = result["plan"]
    lines = [
        f"{result['device']}, torch {result['torch']}, cuDNN {result['cudnn']}",
        plan["variant"] or f"convt runs ATen: {plan['reason']}",
        f"{'':8} {'ms':>9} {'GB/s':>8} {'error':>9}",
    ]
    for name in ("convt", "cuDNN"):
        run = result[name]
        lines.append(f"{name:8} {run['ms']:9.4f} {run['gb_per_s']:8.0f} {run['error']:9.1e}")
    lines.append(f"{result['cuDNN']['ms'] / result['convt']['ms']:.2f} times as fast as cuDNN")
    return "\n".join(lines)
