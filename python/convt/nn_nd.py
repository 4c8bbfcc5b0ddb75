"""`ConvTranspose1d`, `ConvTranspose3d`, and the lazy modules of all three dimensions."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convt import functional
from convt.freezing import Freezable, Frozen, as_image
from convt.functional import Precision
from convt.functional_nd import conv_transpose1d, conv_transpose3d
from convt.nn import ConvTranspose2d

_IntOrSingle = int | tuple[int]
_IntOrTriple = int | tuple[int, int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class ConvTranspose1d(Freezable, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` on convt's kernels: same arguments, initialisation, state_dict.

    Args:
        precision: see `convt.conv_transpose2d`.
    """

    precision = None  # type: Precision | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _IntOrSingle,
        stride: _IntOrSingle = 1,
        padding: _IntOrSingle = 0,
        output_padding: _IntOrSingle = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _IntOrSingle = 1,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        precision: Precision | None = None,
    ) -> None:
        _check_precision(precision)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias,
            dilation, padding_mode, device, dtype,
        )  # fmt: skip
        self.precision = precision

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`[batch, in_channels, width]`, or unbatched; see `convt.conv_transpose1d`.

        Raises ValueError for an `output_size` that no output_padding reaches.
        """
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            # What torch.jit.script compiles; it reads no further.
            output_padding = self._output_padding(
                input,
                output_size,
                self.stride,  # type: ignore[arg-type]
                self.padding,  # type: ignore[arg-type]
                self.kernel_size,  # type: ignore[arg-type]
                1,
                self.dilation,  # type: ignore[arg-type]
            )
            return F.conv_transpose1d(
                input,
                self.weight,
                self.bias,
                self.stride,
                self.padding,  # type: ignore[arg-type]
                output_padding,
                self.groups,
                self.dilation,
            )
        else:
            return self._answer(input, output_size)

    def _answer(self, input: Tensor, output_size: list[int] | None) -> Tensor:
        geometry = _geometry(self, input, output_size)
        if self._frozen is not None and self._frozen.source is self.weight:
            y = _frozen_call(self, input, geometry, self._frozen)
            if y is not None:
                return y
        return conv_transpose1d(input, self.weight, self.bias, *geometry, precision=self.precision)

    def extra_repr(self) -> str:
        text = _repr(super().extra_repr(), self.precision)  # type: ignore[no-untyped-call]
        return self._noting_frozen(text)


class ConvTranspose3d(Freezable, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d`: same arguments, initialisation, state_dict.

    Args:
        precision: see `convt.conv_transpose2d`.
    """

    precision = None  # type: Precision | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _IntOrTriple,
        stride: _IntOrTriple = 1,
        padding: _IntOrTriple = 0,
        output_padding: _IntOrTriple = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _IntOrTriple = 1,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        precision: Precision | None = None,
    ) -> None:
        _check_precision(precision)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias,
            dilation, padding_mode, device, dtype,
        )  # fmt: skip
        self.precision = precision

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`[batch, in_channels, depth, height, width]`, or unbatched; see `conv_transpose3d`.

        Raises ValueError for an `output_size` that no output_padding reaches.
        """
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            # What torch.jit.script compiles; it reads no further.
            output_padding = self._output_padding(
                input,
                output_size,
                self.stride,  # type: ignore[arg-type]
                self.padding,  # type: ignore[arg-type]
                self.kernel_size,  # type: ignore[arg-type]
                3,
                self.dilation,  # type: ignore[arg-type]
            )
            return F.conv_transpose3d(
                input,
                self.weight,
                self.bias,
                self.stride,
                self.padding,  # type: ignore[arg-type]
                output_padding,
                self.groups,
                self.dilation,
            )
        else:
            return self._answer(input, output_size)

    def _answer(self, input: Tensor, output_size: list[int] | None) -> Tensor:
        return conv_transpose3d(
            input, self.weight, self.bias, *_geometry(self, input, output_size),
            precision=self.precision,
        )  # fmt: skip

    def extra_repr(self) -> str:
        text = _repr(super().extra_repr(), self.precision)  # type: ignore[no-untyped-call]
        return self._noting_frozen(text)


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


def _check_precision(precision: Precision | None) -> None:
    if precision is not None:
        functional.precision_value(precision)


def _repr(text: str, precision: Precision | None) -> str:
    return text if precision is None else f"{text}, precision={precision!r}"


def _frozen_call(
    layer: ConvTranspose1d, input: Tensor, numbers: tuple[Any, ...], frozen: Frozen
) -> Tensor | None:
    """The answer by a packed weight; None where that is of no use."""
    if torch.compiler.is_compiling() or input.dim() != 3 or not input.is_cuda:
        return None
    stride, padding, output_padding, groups, dilation = numbers
    geometry = functional.geometry_of(
        (1, *stride), (0, *padding), (0, *output_padding), (1, *dilation), groups
    )
    named = layer.precision
    switch = functional.switch_of(geometry)
    precision = switch if named is None else functional.precision_value(named)
    weight = as_image(layer.weight)
    y = functional.call(input.unsqueeze(-2), weight, layer.bias, geometry, precision, frozen)
    return y.squeeze(-2)


def _geometry(
    module: ConvTranspose1d | ConvTranspose3d, input: Tensor, output_size: list[int] | None
) -> tuple[Any, ...]:
    """What the functions take after the bias."""
    output_padding = module.output_padding
    if output_size is not None:
        output_padding = module._output_padding(  # type: ignore[assignment]
            input,
            output_size,
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.kernel_size,  # type: ignore[arg-type]
            len(module.kernel_size),
            module.dilation,  # type: ignore[arg-type]
        )
    return module.stride, module.padding, output_padding, module.groups, module.dilation
