"""Modules: `ConvTranspose2d`, a drop-in for torch's, and `ModelNew`; `freeze` for serving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from convt import _eager, functional, ops
from convt.functional import IntOrPair, Precision

_IntOrPair = int | tuple[int, int]
_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
_GEOMETRY = frozenset({"stride", "padding", "output_padding", "dilation", "groups"})
_Model = TypeVar("_Model", bound=nn.Module)


class _Frozen(NamedTuple):
    """A weight in the kernels' memory order, and what torch said of it, for eager.cpp."""

    source: nn.Parameter
    version: int | None  # of inference tensors, which have none
    facts: bytes | None
    memory: Tensor  # keeps the source's storage alive: nothing else can get its address
    packed: Tensor


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` on convt's kernels: same arguments, initialisation, state_dict.

    Args:
        precision: see `convt.conv_transpose2d`.

    Each call reads the weight as it is in that moment, however it was changed: a kernel that needs
    another memory order packs it anew, in the same stream. `freeze()` keeps the packed weight.
    """

    # On the class, so that older pickles and `module.__class__ = ConvTranspose2d` work.
    precision: Precision | None = None
    _geometry: tuple[ops.Geometry, str] | None = None
    _frozen: _Frozen | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _IntOrPair,
        stride: _IntOrPair = 1,
        padding: _IntOrPair = 0,
        output_padding: _IntOrPair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _IntOrPair = 1,
        padding_mode: _PaddingMode = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        precision: Precision | None = None,
    ) -> None:
        if precision is not None:
            functional.precision_value(precision)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self.precision = precision

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """`[batch, in_channels, height, width]`, or unbatched; see `convt.conv_transpose2d`.

        Raises ValueError for an `output_size` that no output_padding reaches.
        """
        state = self.__dict__  # Module.__getattr__ slows every other look-up
        parameters = state["_parameters"]
        weight: Any = parameters["weight"] if "weight" in parameters else self.weight  # noqa: SIM401
        bias: Any = parameters["bias"] if "bias" in parameters else self.bias  # noqa: SIM401
        geometry, precision = state.get("_geometry") or self._make_geometry(self.output_padding)
        if output_size is not None:
            geometry, precision = self._make_geometry(self._output_padding_for(input, output_size))
        named = state.get("precision")
        if named is not None:
            precision = functional.precision_value(named)
        return functional.call(input, weight, bias, geometry, precision, state.get("_frozen"))

    def freeze(self) -> ConvTranspose2d:
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
                "ConvTranspose2d.freeze: expected weight to be a Parameter of the layer, got "
                f"{type(getattr(self, 'weight', None)).__name__} that is computed (see "
                "torch.nn.utils.parametrize.remove_parametrizations)"
            )
        old = self._frozen
        # Not inference tensors: those could not be renewed outside inference mode.
        with torch.inference_mode(False), torch.no_grad():
            if old is not None and _is_copy_of_like(old.packed, weight):
                packed = old.packed.copy_(weight)  # in place: captured graphs may read it
            else:
                packed = _channels_last(weight)
            memory = weight.detach()
        if weight.is_cuda:  # other streams may read it from now on
            torch.cuda.current_stream(weight.device).synchronize()
        version = None if weight.is_inference() else weight._version
        self._frozen = _Frozen(weight, version, _eager.facts(weight), memory, packed)
        return self

    def unfreeze(self) -> ConvTranspose2d:
        """Drops the packed weight: calls read the weight itself again. Returns the layer."""
        self._frozen = None
        return self

    @property
    def frozen(self) -> bool:
        """Whether a packed weight is kept."""
        return self._frozen is not None

    def _refreeze(self) -> None:
        if self._frozen is not None:
            self.freeze()

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]  # type: ignore[no-untyped-call]
        if self.precision is not None:
            parts.append(f"precision={self.precision!r}")
        if self._frozen is not None:
            current = _eager.is_of(self._frozen, self._parameters.get("weight"))
            parts.append("frozen" if current else "frozen with another weight")
        return ", ".join(parts)

    def _make_geometry(self, output_padding: IntOrPair) -> tuple[ops.Geometry, str]:
        geometry = functional.geometry_of(
            self.stride,
            self.padding,  # type: ignore[arg-type]
            output_padding,
            self.dilation,
            self.groups,
        )
        both = geometry, functional.switch_of(geometry)
        if output_padding is self.output_padding and not torch.compiler.is_compiling():
            self.__dict__["_geometry"] = both
        return both

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _GEOMETRY:
            self.__dict__["_geometry"] = None

    def _output_padding_for(self, input: Tensor, output_size: Sequence[int]) -> list[int]:
        return self._output_padding(
            input,
            output_size,  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.kernel_size,  # type: ignore[arg-type]
            2,
            self.dilation,  # type: ignore[arg-type]
        )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> ConvTranspose2d:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._refreeze()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._refreeze()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_frozen"}


class ModelNew(nn.Module):
    """One transposed convolution; parameters `conv.weight` and `conv.bias`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _IntOrPair,
        stride: _IntOrPair = 1,
        padding: _IntOrPair = 0,
        dilation: _IntOrPair = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = ConvTranspose2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, height, width]` to `[batch, out_channels, ...]`."""
        result: Tensor = self.conv(x)
        return result


def freeze(model: _Model) -> _Model:
    """`ConvTranspose2d.freeze` of every such layer in a model; returns the model. For serving.

    Raises RuntimeError as `ConvTranspose2d.freeze`, whose text tells what a frozen layer sees.
    """
    for module in model.modules():
        if isinstance(module, ConvTranspose2d):
            module.freeze()
    return model


def _channels_last(weight: Tensor) -> Tensor:
    return weight.detach().contiguous(memory_format=torch.channels_last)


def _is_copy_of_like(packed: Tensor, weight: Tensor) -> bool:
    """Whether it is memory of its own for such a weight."""
    return packed.data_ptr() != weight.data_ptr() and (
        (packed.shape, packed.dtype, packed.device) == (weight.shape, weight.dtype, weight.device)
    )
