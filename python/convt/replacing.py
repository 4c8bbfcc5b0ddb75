"""`replace` and `restore`: a model's transposed convolutions become convt's, and torch's again.

A layer stays the object that it is and gets another class. Parameters, hooks, parametrizations,
training mode, device, dtype and memory format are therefore untouched, and so is whatever holds the
layer: optimisers, containers, names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from convt.nn import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    LazyConvTranspose1d,
    LazyConvTranspose2d,
    LazyConvTranspose3d,
)
from convt.report import Report, Row, plan_text, record_sizes

_Class = type[nn.Module]
OURS: Mapping[_Class, _Class] = {
    nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.ConvTranspose3d: ConvTranspose3d,
    nn.LazyConvTranspose1d: LazyConvTranspose1d,
    nn.LazyConvTranspose2d: LazyConvTranspose2d,
    nn.LazyConvTranspose3d: LazyConvTranspose3d,
}
_THEIRS: Mapping[_Class, _Class] = {ours: theirs for theirs, ours in OURS.items()}
LAYERS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class _Mixed(NamedTuple):
    """Marks a class made by `_mixed`, and says what of."""

    theirs: _Class


def replace(
    model: nn.Module,
    *,
    freeze: bool = False,
    fuse: bool = False,
    inputs: tuple[Any, ...] | None = None,
) -> Report:
    """Makes every transposed convolution of `model`, the model itself included, convt's.

    Args:
        model: changed in place. `restore` undoes it.
        freeze: also freezes the new layers (see `convt.freeze`), for serving.
        fuse: also folds each BatchNorm in eval mode that directly follows a transposed convolution
            into that layer's weight and bias; the BatchNorm becomes an Identity. The unfolded
            parameters are kept for `restore`.
        inputs: example inputs. The model runs once on them without gradients, so that the report's
            plans are those of the sizes it meets; otherwise they are those of a nominal size.

    Returns:
        What became of each layer. It prints itself as a table. Layers are left, with the reason,
        where torch's forward is not what they run: subclasses with a forward of their own, a
        forward set on the instance, TorchScript, quantised layers.
    """
    shared: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        shared.setdefault(id(module), []).append(name)
    rows = []
    for name, module in model.named_modules():
        outcome = _replace(module)
        if outcome is not None:
            replaced, why = outcome
            others = shared[id(module)][1:]
            also = f"also {', '.join(others)}" if others else ""
            rows.append(Row(name, module, replaced, "; ".join(filter(None, (why, also)))))
    if fuse:
        from convt.fuse import fold_batch_norms

        folded = fold_batch_norms(model)
        rows = [row.noting(folded.get(id(row.module), "")) for row in rows]
    if freeze:
        rows = [row.noting(_freeze(row.module)) if row.replaced else row for row in rows]
    sizes = record_sizes(model, [row.module for row in rows], inputs)
    return Report([row._replace(plan=plan_text(row, sizes.get(id(row.module)))) for row in rows])


def restore(model: nn.Module) -> nn.Module:
    """Undoes `replace` in place: layers become torch's again, folded BatchNorms come back.

    Returns the model. Layers that were built as convt's become torch's, too.
    """
    from convt.fuse import unfold_batch_norms

    unfold_batch_norms(model)
    for module in model.modules():
        target = _other_class(module, _THEIRS)
        if target is not None:
            if getattr(module, "frozen", False):
                module.unfreeze()  # type: ignore[operator]
            module.__class__ = target
    return model


def _freeze(layer: Any) -> str:
    """Freezes the layer and returns the report's note on it."""
    try:
        layer.freeze()
    except RuntimeError as error:
        return f"not frozen: {error}"
    return "frozen"


def _replace(module: nn.Module) -> tuple[bool, str] | None:
    """Whether the layer is convt's now, and why if that needs a word; None for other modules."""
    if isinstance(module, torch.jit.ScriptModule):
        is_layer = getattr(module, "original_name", "") in {c.__name__ for c in LAYERS}
        return (False, "compiled by torch.jit.script") if is_layer else None
    if not isinstance(module, LAYERS):
        is_layer = type(module).__name__.startswith("ConvTranspose") and hasattr(module, "stride")
        return (False, f"{type(module).__module__} is not torch.nn") if is_layer else None
    if isinstance(module, tuple(_THEIRS)):
        return True, "was convt's already"
    if "forward" in module.__dict__:
        return False, "its forward is set on the instance"
    target = _other_class(module, OURS)
    if target is None and parametrize.is_parametrized(module):
        return False, f"{type(module).__qualname__} is a parametrized subclass"
    if target is None:
        return False, f"{type(module).__qualname__} has a forward of its own"
    module.__class__ = target  # type: ignore[assignment]
    return True, ""


def _other_class(module: nn.Module, classes: Mapping[_Class, _Class]) -> _Class | None:
    """The class that the module becomes, by the given table; None where there is none."""
    cls = type(module)
    if cls in classes:
        return classes[cls]
    mixed = cls.__dict__.get("_convt_mixed")
    if mixed is not None:
        return mixed.theirs if classes is _THEIRS else None
    if parametrize.is_parametrized(module):
        # torch made this class for this module alone, with a property per parametrized tensor.
        # Its base is what remove_parametrizations gives the module back.
        base = cls.__bases__[0]
        target = classes.get(base)
        if target is not None:
            own = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__")}
            return type(f"Parametrized{target.__name__}", (target,), own)
    elif classes is OURS:
        for layer in LAYERS:
            if isinstance(module, layer) and cls.forward is layer.forward:
                return _mixed(cls, OURS[layer])
    return None


def _mixed(theirs: _Class, ours: _Class) -> _Class:
    """A subclass of torch's layer, with our forward below its methods."""

    def reduce(self: nn.Module, protocol: int) -> tuple[Any, ...]:
        return _rebuilt, (theirs,), self.__dict__

    namespace = {
        "_convt_mixed": _Mixed(theirs),
        "__reduce_ex__": reduce,  # pickle finds classes by name, and this one has none
        "__module__": theirs.__module__,
        "__qualname__": theirs.__qualname__,
    }
    return type(theirs.__name__, (theirs, ours), namespace)


def _rebuilt(theirs: _Class) -> nn.Module:
    ours = next(ours for base, ours in OURS.items() if issubclass(theirs, base))
    mixed = _mixed(theirs, ours)
    return mixed.__new__(mixed)
