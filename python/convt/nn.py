"""Modules: `ConvTranspose2d`, a drop-in for torch's, and `ModelNew`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convt import functional, ops
from convt.freezing import Freezable
from convt.functional import IntOrPair, Precision

_IntOrPair = int | tuple[int, int]
_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
_GEOMETRY = frozenset({"stride", "padding", "output_padding", "dilation", "groups"})


class ConvTranspose2d(Freezable, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` on convt's kernels: same arguments, initialisation, state_dict.

    Args:
        precision: see `convt.conv_transpose2d`.

    Each call reads the weight as it is in that moment, however it was changed: a kernel that needs
    another memory order packs it anew, in the same stream. `freeze()` keeps the packed weight.
    """

    # On the class, so that older pickles and `module.__class__ = ConvTranspose2d` work.
    # In comments, because torch.jit.script reads annotations and knows none of these types.
    precision = None  # type: Precision | None
    _geometry = None  # type: tuple[ops.Geometry, str] | None

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

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`[batch, in_channels, height, width]`, or unbatched; see `convt.conv_transpose2d`.

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
                2,
                self.dilation,  # type: ignore[arg-type]
            )
            return F.conv_transpose2d(
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

    def _answer(self, input: Tensor, output_size: Sequence[int] | None) -> Tensor:
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

    def extra_repr(self) -> str:
        text: str = super().extra_repr()  # type: ignore[no-untyped-call]
        if self.precision is not None:
            text += f", precision={self.precision!r}"
        return self._noting_frozen(text)

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
