"""Plans of every config, launched on a GPU past the op."""

from __future__ import annotations

import torch
from torch import Tensor

from convt import _C
from convt.ops import CHANNELS_LAST
from tests.planning import variants


def memory_format(layout: str, dims: int) -> torch.memory_format:
    return CHANNELS_LAST[dims - 2] if layout == "nhwc" else torch.contiguous_format


def launched(plan: _C.Plan, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The output of a served plan whose problem is of these tensors; NaN where nothing is written.

    The workspace holds NaNs before.
    """
    problem = plan.problem
    size = (problem.batch, problem.out_channels, *problem.output_size)
    order = memory_format(problem.layout, len(size))
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=order)
    y.fill_(float("nan"))
    workspace = torch.full((plan.workspace_bytes,), 0xFF, dtype=torch.uint8, device=x.device)
    addresses = tuple(0 if t is None else t.data_ptr() for t in (x, weight, bias, y, workspace))
    stream = torch.cuda.current_stream(x.device).cuda_stream
    _C.launch(plan, addresses, device=x.device.index, stream=stream)
    return y


def best_of_families(problem: _C.Problem, gpu: _C.Gpu) -> list[_C.Plan]:
    """The plan of each family's best config."""
    family_of = {variant["name"]: variant["family"] for variant in variants().values()}
    best: dict[str, str] = {}
    for config, _ in _C.candidates(problem, gpu):
        if config != "aten":
            best.setdefault(family_of[config.split()[0]], config)
    return [_C.plan_with(problem, gpu, config) for config in best.values()]
