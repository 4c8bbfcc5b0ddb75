"""Eval-mode BatchNorms folded into the transposed convolutions before them, and out again.

With s = gamma / sqrt(variance + eps) for each output channel, the weight becomes weight * s and the
bias (bias - mean) * s + beta. The output channels of a transposed weight `[in, out / groups, ...]`
lie on its second axis, a block of them for each block of `in / groups` rows on its first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from convt.nn import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

_NORMS: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    ConvTranspose1d: (nn.BatchNorm1d, nn.SyncBatchNorm),
    ConvTranspose2d: (nn.BatchNorm2d, nn.SyncBatchNorm),
    ConvTranspose3d: (nn.BatchNorm3d, nn.SyncBatchNorm),
}


class Unfolded(NamedTuple):
    """The state of a layer and of its parent before a BatchNorm was folded in."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    norm: nn.Module
    identity: nn.Module  # stands where the BatchNorm stood


def fold_batch_norms(model: nn.Module) -> dict[int, str]:
    """Folds what can be folded, in place; by a layer's id, what was done or why not."""
    notes: dict[int, str] = {}
    registered = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    for layer, norm in _followed_by_norms(model):
        why = _unfoldable(layer, norm, registered)
        notes[id(layer)] = f"BatchNorm not folded: {why}" if why else "BatchNorm folded"
        if not why:
            identity = nn.Identity().train(norm.training)
            before: Any = layer
            layer.__dict__["_unfolded"] = Unfolded(before.weight, before.bias, norm, identity)
            fold(layer, norm)
            _put(model, norm, identity)
    return notes


def unfold_batch_norms(model: nn.Module) -> None:
    """Undoes `fold_batch_norms`; parameters come back on the device and in the dtype of now."""
    for layer in list(model.modules()):
        unfolded: Unfolded | None = layer.__dict__.pop("_unfolded", None)
        if unfolded is None:
            continue
        like: Any = layer.weight
        norm: Any = unfolded.norm
        alike = norm.running_var.dtype == unfolded.weight.dtype
        norm.to(like.device, like.dtype if alike else norm.running_var.dtype)
        for name in ("weight", "bias"):
            parameter = getattr(unfolded, name)
            if parameter is not None:
                parameter.data = parameter.data.to(like.device, like.dtype)
            setattr(layer, name, parameter)
        _put(model, unfolded.identity, norm)


def fold(layer: Any, norm: Any) -> None:
    """Gives the layer new parameters, with what the BatchNorm does in them."""
    weight, bias = layer.weight, layer.bias
    out_channels, groups = layer.out_channels, layer.groups
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var.double() + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        shift = -norm.running_mean.double()
        if bias is not None:
            shift = shift + bias.double()
        shift = shift * scale
        if norm.bias is not None:
            shift = shift + norm.bias.double()
        blocks = weight.unflatten(0, (groups, -1))  # [groups, in / groups, out / groups, ...]
        scale = scale.view(groups, 1, out_channels // groups, *[1] * (weight.dim() - 2))
        folded = (blocks.double() * scale).flatten(0, 1).to(weight.dtype)
        new = torch.empty_like(weight).copy_(folded)  # keeps the memory format
    layer.weight = nn.Parameter(new, requires_grad=weight.requires_grad)
    layer.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=weight.requires_grad)


def _unfoldable(layer: Any, norm: Any, registered: Counter[int]) -> str:
    """Why this BatchNorm cannot be folded into this layer; "" if it can."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return "it normalises by the batch"
    if "weight" not in layer._parameters:
        return "the weight is computed at each call"
    if nn.parameter.is_lazy(layer.weight):
        return "the layer has no weight before its first call"
    for module, what in ((layer, "the layer"), (norm, "it")):
        if registered[id(module)] != 1:
            return f"{what} is registered more than once"
        if any(getattr(module, hooks) for hooks in _HOOKS):
            return f"{what} has hooks"
    return ""


_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class _Tracer(fx.Tracer):
    """Layers of torch and of convt are leaves."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, tuple(_NORMS)) or super().is_leaf_module(module, name)


def _followed_by_norms(module: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Layers whose output goes into a BatchNorm and nowhere else, each with that BatchNorm.

    By a trace of the whole model, and where it cannot be traced of its largest parts that can.
    """
    if not any(isinstance(m, tuple(_NORMS)) for m in module.modules()):
        return
    try:
        graph = _Tracer().trace(module)
    except Exception:  # whatever the model's own code does with a stand-in for a tensor
        if type(module) is nn.Sequential:
            yield from ((a, b) for a, b in pairwise(module) if _are_pair(a, b))
        for child in module.children():
            yield from _followed_by_norms(child)
        return
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        before = node.args[0]
        if not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        names = str(before.target), str(node.target)
        pair = tuple(map(module.get_submodule, names))
        if _are_pair(*pair) and len(before.users) == 1 and all(calls[n] == 1 for n in names):
            yield pair[0], pair[1]


def _are_pair(layer: nn.Module, norm: nn.Module) -> bool:
    norms = next((norms for c, norms in _NORMS.items() if isinstance(layer, c)), ())
    return type(norm) in norms


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts `new` wherever `old` is registered."""
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
