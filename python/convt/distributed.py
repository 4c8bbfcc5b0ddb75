"""Transposed convolutions of DTensors, each device's part by an ordinary call.

torch's own rule for convolutions ignores how the weight is placed and calls partial sums
replicated, so nothing here rests on it. Per mesh axis, the first row that the operands fit:

    input           weight               bias        output       gradients of the three
    Shard(batch)    Replicate            Replicate   Shard(0)     Shard(0), Partial, Partial
    Replicate       Shard(out channels)  Shard(0)    Shard(1)     Partial, Shard(1), Shard(0)
    Shard(channels) Shard(in channels)   (after)     Partial      Shard(1), Shard(0)
    Replicate       Replicate            Replicate   Replicate    Replicate

Other placements are redistributed to the last row. With groups, channels are not sharded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor, Placement


class _Rule(NamedTuple):
    """Placements on one mesh axis: of the operands, the output, and the operands' gradients."""

    operands: tuple[Placement, Placement, Placement]
    output: Placement
    gradients: tuple[Placement, Placement, Placement]


def is_distributed(tensor: object) -> bool:
    """Whether it is a DTensor; without importing what only programs with DTensors need."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def conv_transpose(
    local: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
) -> Tensor:
    """The DTensor that `local` computes from its parts. `input` is batched.

    Raises RuntimeError, as torch, where DTensors and other tensors are mixed.
    """
    from torch.distributed.tensor import DTensor, Replicate

    for operand in (input, weight, bias):
        if operand is not None and not isinstance(operand, DTensor):
            raise RuntimeError(
                "conv_transpose: got mixed torch.Tensor and DTensor, need to convert all "
                "torch.Tensor to DTensor before calling distributed operators!"
            )
    x, w, b = cast("tuple[DTensor, DTensor, DTensor | None]", (input, weight, bias))
    mesh = x.device_mesh
    rules = [_rule(*pair, groups) for pair in zip(x.placements, w.placements, strict=True)]
    sums = any(rule.output.is_partial() for rule in rules)  # then the bias is added once, after

    def part(i: int, operand: DTensor) -> Tensor:
        placed = operand.redistribute(mesh, [rule.operands[i] for rule in rules])
        return placed.to_local(grad_placements=[rule.gradients[i] for rule in rules])

    y = local(part(0, x), part(1, w), None if b is None or sums else part(2, b))
    size = torch.Size((x.shape[0], w.shape[1] * groups, *y.shape[2:]))
    output: Tensor = DTensor.from_local(
        y,
        mesh,
        [rule.output for rule in rules],
        run_check=False,
        shape=size,
        stride=_strides(size, y),
    )
    if b is None or not sums:
        return output
    whole = b.redistribute(mesh, [Replicate()] * mesh.ndim)
    return output + whole.view(-1, *[1] * (y.dim() - 2))


def _rule(input: Placement, weight: Placement, groups: int) -> _Rule:
    from torch.distributed.tensor import Partial, Replicate, Shard

    whole, batch, partial = Replicate(), Shard(0), Partial()
    if input == batch:
        return _Rule((batch, whole, whole), batch, (batch, partial, partial))
    if groups == 1 and weight == Shard(1):
        return _Rule((whole, Shard(1), Shard(0)), Shard(1), (partial, Shard(1), Shard(0)))
    if groups == 1 and (input == Shard(1) or weight == Shard(0)):
        return _Rule((Shard(1), Shard(0), whole), partial, (Shard(1), Shard(0), whole))
    return _Rule((whole, whole, whole), whole, (whole, whole, whole))


def _strides(size: torch.Size, like: Tensor) -> tuple[Any, ...]:
    """Dense strides of the size, in the memory order of `like`."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    memory_format = torch.contiguous_format
    if like.dim() in formats and not like.is_contiguous():
        memory_format = formats[like.dim()]
    return torch.empty(size, device="meta", memory_format=memory_format).stride()
