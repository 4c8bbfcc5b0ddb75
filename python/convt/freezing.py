"""Layers that keep their weight in the kernels' memory order, for serving: `freeze`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from convt import _eager

_Model = TypeVar("_Model", bound=nn.Module)
_Layer = TypeVar("_Layer", bound="Freezable")


class Frozen(NamedTuple):
    """A weight in the kernels' memory order, and what torch said of it, for eager.cpp."""

    source: nn.Parameter
    version: int | None  # of inference tensors, which have none
    facts: bytes | None
    memory: Tensor  # keeps the source's storage alive: nothing else can get its address
    packed: Tensor


class Freezable(nn.Module):
    """The part of a transposed convolution that can be frozen."""

    # On the class, for modules that got it by `module.__class__ = ...`; in a comment, because
    # torch.jit.script reads annotations.
    _frozen = None  # type: Frozen | None
    __jit_unused_properties__ = ["frozen"]  # noqa: RUF012

    def freeze(self: _Layer) -> _Layer:
        """Packs the weight now, for all calls to come; returns the layer, whose repr says so.

        The packed weight takes as much memory as the weight, and is neither saved nor copied with
        the module; a weight in channels_last memory is used as it is. `load_state_dict`, `.to()`
        and its like pack anew. So does each call of a layer whose weight torch shows to have
        changed since (another Parameter, in-place operations, steps of optimisers that are not
        fused, another size, stride, dtype, device or address), until `freeze()` is called again.

        What torch does not show is not seen, and the old weight stays in use: optimisers with
        `fused=True`, in-place operations on `.data` (`p.data.copy_()`, `p.data += d`, a moving
        average of weights, `vector_to_parameters` and then writing to the vector), collectives on
        `.data`, in-place updates of inference tensors, and updates between replays of a CUDA graph
        that captured the frozen layer. Call `freeze()` after these, or do not freeze.

        Raises RuntimeError for a weight that is computed (`torch.nn.utils.parametrize`).
        """
        weight = self._parameters.get("weight")
        if not isinstance(weight, nn.Parameter):
            raise RuntimeError(
                f"{type(self).__name__}.freeze: expected weight to be a Parameter of the layer, "
                f"got {type(getattr(self, 'weight', None)).__name__} that is computed (see "
                "torch.nn.utils.parametrize.remove_parametrizations)"
            )
        old, image = self._frozen, as_image(weight)
        # Not inference tensors: those could not be renewed outside inference mode.
        with torch.inference_mode(False), torch.no_grad():
            if old is not None and _is_copy_of_like(old.packed, image):
                packed = old.packed.copy_(image)  # in place: captured graphs may read it
            else:
                packed = _channels_last(image)
            memory = weight.detach()
        if weight.is_cuda:  # other streams may read it from now on
            torch.cuda.current_stream(weight.device).synchronize()
        version = None if weight.is_inference() else weight._version
        self._frozen = Frozen(weight, version, _eager.facts(image), memory, packed)
        return self

    def unfreeze(self: _Layer) -> _Layer:
        """Drops the packed weight: calls read the weight itself again. Returns the layer."""
        self._frozen = None
        return self

    @property
    def frozen(self) -> bool:
        """Whether a packed weight is kept."""
        return self._frozen is not None

    def _is_current(self) -> bool:
        """Whether calls use the packed weight: torch shows no change of the weight since."""
        frozen, weight = self._frozen, self._parameters.get("weight")
        if frozen is None or weight is not frozen.source:
            return False
        return bool(_eager.is_of(frozen, as_image(frozen.source)))

    def _noting_frozen(self, text: str) -> str:
        """The text of a repr."""
        if self._frozen is None:
            return text
        return f"{text}, {'frozen' if self._is_current() else 'frozen with another weight'}"

    def _refreeze(self) -> None:
        if self._frozen is not None:
            self.freeze()

    def _apply(self: _Layer, fn: Callable[..., Any], recurse: bool = True) -> _Layer:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._refreeze()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._refreeze()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_frozen"}


def freeze(model: _Model) -> _Model:
    """`freeze()` of every layer of convt's in a model; returns the model. For serving.

    Raises RuntimeError as `ConvTranspose2d.freeze`, whose docstring tells what a frozen layer sees.
    """
    for module in model.modules():
        if isinstance(module, Freezable):
            module.freeze()
    return model


def as_image(weight: Tensor) -> Tensor:
    """A one-dimensional layer's weight as that of the two-dimensional op; others as they are."""
    return weight.unsqueeze(-2) if weight.dim() == 3 else weight


def _channels_last(weight: Tensor) -> Tensor:
    order = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d
    return weight.detach().contiguous(memory_format=order)


def _is_copy_of_like(packed: Tensor, weight: Tensor) -> bool:
    """Whether it is memory of its own for such a weight."""
    return packed.data_ptr() != weight.data_ptr() and (
        (packed.shape, packed.dtype, packed.device) == (weight.shape, weight.dtype, weight.device)
    )
