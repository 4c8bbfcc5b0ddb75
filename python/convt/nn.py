"""Modules: torch's transposed convolutions on convt's kernels, their lazy forms, and `ModelNew`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from convt import functional
from convt.freezing import Freezable, Frozen, as_image
from convt.functional import Precision
from convt.functional_nd import conv_transpose1d
from convt.geometry import Geometry, Sizes, geometry_of, switch_of

_IntOrSingle = int | tuple[int]
_IntOrPair = int | tuple[int, int]
_IntOrTriple = int | tuple[int, int, int]
_Size = TypeVar("_Size", _IntOrSingle, _IntOrPair, _IntOrTriple)
_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
_GEOMETRY = frozenset({"stride", "padding", "output_padding", "dilation", "groups"})


def _renamed(forward: Any) -> Any:
    """Torch's forward as `_torchs_forward`: torch.jit.script names a method by its function."""
    copy = FunctionType(forward.__code__, forward.__globals__, "_torchs_forward")
    copy.__annotations__ = forward.__annotations__
    copy.__defaults__ = forward.__defaults__
    return copy


class _ConvTranspose(Freezable, Generic[_Size]):
    """The part that convt's layers of all dimensions have besides torch's.

    Each class below also derives from torch's own, which follows this one in the order of methods.
    """

    # On the class, so that older pickles and `module.__class__ = ConvTranspose2d` work.
    # In comments, because torch.jit.script reads annotations and knows none of these types.
    precision = None  # type: Precision | None
    _geometry = None  # type: tuple[Geometry, str] | None

    if TYPE_CHECKING:  # of torch's layers
        stride: Any
        padding: Any
        kernel_size: Any
        dilation: Any
        output_padding: Any
        groups: int
        _output_padding: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size = 0,
        output_padding: _Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _Size = 1,
        padding_mode: _PaddingMode = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        precision: Precision | None = None,
    ) -> None:
        _check_precision(precision)
        torchs: Any = super()
        torchs.__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias,
            dilation, padding_mode, device, dtype,
        )  # fmt: skip
        self.precision = precision

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The output of the function of the same name, for this layer's arguments.

        Raises ValueError for an `output_size` that no output_padding reaches.
        """
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._torchs_forward(input, output_size)  # torch.jit.script reads no further
        else:
            return self._answer(input, output_size)

    def _torchs_forward(self, input: Tensor, output_size: list[int] | None) -> Tensor:
        raise NotImplementedError

    def _answer(self, input: Tensor, output_size: list[int] | None) -> Tensor:
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
        frozen = state.get("_frozen")
        if frozen is not None and frozen.source is not weight:
            frozen = None
        return functional.call(input, weight, bias, geometry, precision, frozen)

    def _make_geometry(self, output_padding: Sizes) -> tuple[Geometry, str]:
        geometry = geometry_of(
            self.stride,
            self.padding,
            output_padding,
            self.dilation,
            self.groups,
            len(self.kernel_size),
        )
        both = geometry, switch_of(geometry)
        if output_padding is self.output_padding and not torch.compiler.is_compiling():
            self.__dict__["_geometry"] = both
        return both

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _GEOMETRY:
            self.__dict__["_geometry"] = None

    def extra_repr(self) -> str:
        text: str = super().extra_repr()
        if self.precision is not None:
            text += f", precision={self.precision!r}"
        return self._noting_frozen(text)

    def _output_padding_for(self, input: Tensor, output_size: Sequence[int]) -> list[int]:
        axes = len(self.kernel_size)
        return self._output_padding(  # type: ignore[no-any-return]
            input, output_size, self.stride, self.padding, self.kernel_size, axes, self.dilation
        )


class ConvTranspose2d(_ConvTranspose[_IntOrPair], nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` on convt's kernels: same arguments, initialisation, state_dict.

    Args:
        precision: see `convt.conv_transpose2d`.

    Each call reads the weight as it is in that moment, however it was changed: a kernel that needs
    another memory order packs it anew, in the same stream. `freeze()` keeps the packed weight.
    """

    _torchs_forward = _renamed(nn.ConvTranspose2d.forward)


class ConvTranspose1d(_ConvTranspose[_IntOrSingle], nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` on convt's kernels: same arguments, initialisation, state_dict.

    Args:
        precision: see `convt.conv_transpose2d`.
    """

    _torchs_forward = _renamed(nn.ConvTranspose1d.forward)

    def _answer(self, input: Tensor, output_size: list[int] | None) -> Tensor:
        geometry = _geometry(self, input, output_size)
        if self._frozen is not None and self._frozen.source is self.weight:
            y = _frozen_call(self, input, geometry, self._frozen)
            if y is not None:
                return y
        return conv_transpose1d(input, self.weight, self.bias, *geometry, precision=self.precision)


class ConvTranspose3d(_ConvTranspose[_IntOrTriple], nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` on convt's kernels: same arguments, initialisation, state_dict.

    Args:
        precision: see `convt.conv_transpose2d`.
    """

    _torchs_forward = _renamed(nn.ConvTranspose3d.forward)


class _Lazy:
    """Takes a precision besides the arguments of torch's lazy module, and says so."""

    def __init__(self, *args: Any, precision: Precision | None = None, **kwargs: Any) -> None:
        _check_precision(precision)
        super().__init__(*args, **kwargs)
        self.precision = precision

    def __init_subclass__(cls) -> None:
        own = inspect.signature(_Lazy).parameters["precision"]
        torchs = inspect.signature(cls.__mro__[2]).parameters.values()
        cls.__signature__ = inspect.Signature([*torchs, own])  # type: ignore[attr-defined]


class LazyConvTranspose1d(_Lazy, nn.LazyConvTranspose1d, ConvTranspose1d):  # type: ignore[misc]
    """`torch.nn.LazyConvTranspose1d`; becomes a `convt.ConvTranspose1d` at its first call."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_Lazy, nn.LazyConvTranspose2d, ConvTranspose2d):  # type: ignore[misc]
    """`torch.nn.LazyConvTranspose2d`; becomes a `convt.ConvTranspose2d` at its first call."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_Lazy, nn.LazyConvTranspose3d, ConvTranspose3d):  # type: ignore[misc]
    """`torch.nn.LazyConvTranspose3d`; becomes a `convt.ConvTranspose3d` at its first call."""

    cls_to_become = ConvTranspose3d


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


def _check_precision(precision: Precision | None) -> None:
    if precision is not None:
        functional.precision_value(precision)


def _frozen_call(
    layer: ConvTranspose1d, input: Tensor, numbers: tuple[Any, ...], frozen: Frozen
) -> Tensor | None:
    """The answer by a packed weight; None where that is of no use."""
    if torch.compiler.is_compiling() or input.dim() != 3 or not input.is_cuda:
        return None
    stride, padding, output_padding, groups, dilation = numbers
    geometry = geometry_of(
        (1, *stride), (0, *padding), (0, *output_padding), (1, *dilation), groups
    )
    named = layer.precision
    switch = switch_of(geometry)
    precision = switch if named is None else functional.precision_value(named)
    weight = as_image(layer.weight)
    y = functional.call(input.unsqueeze(-2), weight, layer.bias, geometry, precision, frozen)
    return y.squeeze(-2)


def _geometry(
    module: ConvTranspose1d, input: Tensor, output_size: list[int] | None
) -> tuple[Any, ...]:
    """The arguments of `conv_transpose1d` and `conv_transpose3d` after the bias."""
    output_padding: Sequence[int] = module.output_padding
    if output_size is not None:
        output_padding = module._output_padding_for(input, output_size)
    return module.stride, module.padding, output_padding, module.groups, module.dilation
