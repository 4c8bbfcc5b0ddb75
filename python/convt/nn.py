"""Modules: `ConvTranspose2d`, a drop-in for torch's, and `ModelNew`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Module
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from convt import functional, ops
from convt.functional import IntOrPair, Precision

_IntOrPair = int | tuple[int, int]
_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]

_GEOMETRY = frozenset({"stride", "padding", "output_padding", "dilation", "groups"})


class _Packed(NamedTuple):
    """A weight in the kernels' memory order, and what it was made of."""

    source: nn.Parameter
    version: int
    address: int
    size: torch.Size
    stride: tuple[int, ...]
    memory: Tensor  # keeps the source's storage alive: nothing else can get its address
    weight: Tensor
    layout: int | None  # of the source: 0 contiguous, 1 channels_last, None any other

    def is_of(self, weight: Any) -> bool:
        """Whether it is this weight's as it is now. (`.data` may be assigned views of itself.)"""
        return (
            self.source is weight
            and self.version == weight._version
            and self.address == weight.data_ptr()
            and self.size == weight.shape
            and self.stride == weight.stride()
        )


# What a warm call looks at, in a flat tuple because none is quicker to take apart: the packed
# weight, its first three fields and its tensor, the bias, which of torch's switches tells the
# precision, and by precision the numbers that csrc/warm.cpp takes.
_Warm = tuple[_Packed, nn.Parameter, int, int, Tensor, Tensor | None, str, tuple[bytes, ...]]


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` on convt's kernels: same arguments, initialisation, state_dict.

    Args:
        precision: see `convt.conv_transpose2d`.

    Kernels read the weight in channels_last memory. A CUDA module keeps such a copy per version
    of its weight while no gradient is asked for (none if `.to(memory_format=channels_last)` made
    the weight so already). It is neither saved nor copied with the module. In-place updates,
    optimiser steps, load_state_dict, `.to()` and assignments are all seen. Two changes that torch
    shows to nobody are not: call `repack()` after mutating `module.weight.data`, unless train()
    or eval() follows, and after updating the weight between replays of a captured CUDA graph.
    """

    # On the class, so that older pickles and `module.__class__ = ConvTranspose2d` work.
    precision: Precision | None = None
    _geometry: ops.Geometry | None = None
    _packed: _Packed | None = None
    _warm: _Warm | None = None

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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As in torch: hooks and `forward`. In plain inference there is nothing but the kernel."""
        if (
            len(args) == 1
            and not kwargs
            and functional.is_plain_inference(args[0])
            and _is_only_forward(self)
        ):
            y = self._warm_call(args[0])
            if y is not None:
                return y
        return super().__call__(*args, **kwargs)

    def _warm_call(self, input: Tensor) -> Tensor | None:
        """What `forward` would answer, if it is known how and the weight is still the same."""
        state = self.__dict__  # Module.__getattr__ slows every other look-up
        warm = state.get("_warm")
        if warm is None:
            return None
        kept, weight, version, address, packed, bias, switch, numbers = warm
        parameters = state["_parameters"]
        if (
            kept is not state["_packed"]
            or weight is not parameters.get("weight")
            or bias is not parameters.get("bias", ...)
            or version != weight._version
        ):
            return None
        named = self.precision
        value = functional.switch(switch) if named is None else functional.precision_value(named)
        return ops.warm_conv_transpose2d(input, weight, address, packed, bias, numbers[value])

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """`[batch, in_channels, height, width]`, or unbatched; see `convt.conv_transpose2d`.

        Raises ValueError for an `output_size` that no output_padding reaches.
        """
        # Module.__getattr__ takes half a microsecond; only unusual modules need it.
        parameters = self._parameters
        weight: Any = parameters["weight"] if "weight" in parameters else self.weight  # noqa: SIM401
        bias: Any = parameters["bias"] if "bias" in parameters else self.bias  # noqa: SIM401
        if output_size is None:
            geometry = self._geometry or self._make_geometry(self.output_padding)
        else:
            geometry = self._make_geometry(self._output_padding_for(input, output_size))
        return functional.call(
            input, weight, bias, geometry, self.precision, self._packed_weight(weight, bias)
        )

    def repack(self) -> None:
        """Renews the packed weight, if there is one, where captured CUDA graphs read it."""
        packed = self._packed
        if packed is None:
            return
        if self._parameters.get("weight") is packed.source:
            self._pack(packed.source)
        else:
            self._packed = None

    def _packed_weight(self, weight: Any, bias: Tensor | None) -> Tensor | None:
        """The packed weight to hand to the op; with None the op packs for itself, each call."""
        if torch.compiler.is_compiling():
            # In the graph, where constant folding can take it out.
            return _channels_last(weight) if weight.is_cuda else None
        if (
            (torch.is_grad_enabled() and weight.requires_grad)  # it is about to change
            or torch._C._len_torch_dispatch_stack()
            or torch._C._get_tracing_state()
        ):
            return None
        packed = self._packed
        if packed is None or not packed.is_of(weight):
            if not _is_packable(weight):
                return None
            packed = self._pack(weight)
        warm = self._warm
        if warm is None or warm[0] is not packed or warm[5] is not bias:
            self.__dict__["_warm"] = self._make_warm(packed, bias)
        return packed.weight

    def _pack(self, weight: nn.Parameter) -> _Packed:
        old, version, address = self._packed, weight._version, weight.data_ptr()
        # Not inference tensors: those could not be renewed outside inference mode.
        with torch.inference_mode(False), torch.no_grad():
            if (
                old is not None
                and old.source is weight
                and old.size == weight.shape
                and old.address == address != old.weight.data_ptr()
            ):
                packed = old.weight.copy_(weight)  # in place: a captured graph may read it
            else:
                packed = _packed_copy(weight)
            memory = weight.detach()
        if weight.is_cuda:  # other streams may read it from now on
            torch.cuda.current_stream(weight.device).synchronize()
        size, stride = memory.shape, memory.stride()
        layout = _layout(memory)
        self._packed = _Packed(weight, version, address, size, stride, memory, packed, layout)
        return self._packed

    def train(self, mode: bool = True) -> ConvTranspose2d:
        """As in torch. Also a point where the weight is looked at anew."""
        self._expire()
        return super().train(mode)

    def extra_repr(self) -> str:
        text: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return text if self.precision is None else f"{text}, precision={self.precision!r}"

    def _make_geometry(self, output_padding: IntOrPair) -> ops.Geometry:
        geometry = functional.geometry_of(
            self.stride,
            self.padding,  # type: ignore[arg-type]
            output_padding,
            self.dilation,
            self.groups,
        )
        if output_padding is self.output_padding and not torch.compiler.is_compiling():
            self.__dict__["_geometry"] = geometry
        return geometry

    def _make_warm(self, packed: _Packed, bias: Tensor | None) -> _Warm | None:
        layout = packed.layout
        if layout is None or packed.weight.is_neg() or (bias is not None and bias.is_neg()):
            return None  # memory that is not what it says
        geometry = self._geometry or self._make_geometry(self.output_padding)
        numbers = tuple(
            struct.pack("=11q", *geometry, precision, layout)
            for precision in range(len(ops.PRECISIONS))
        )
        return packed, *packed[:3], packed.weight, bias, functional.switch_of(geometry), numbers

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

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _GEOMETRY:
            self.__dict__["_geometry"] = self.__dict__["_warm"] = None

    def _expire(self) -> None:
        packed = self._packed
        if packed is not None:
            source = packed.source
            kept = self._parameters.get("weight") is source and source.data_ptr() == packed.address
            self._packed = packed._replace(version=-1) if kept else None

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> ConvTranspose2d:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._expire()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.repack()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None, "_warm": None}


_forward = ConvTranspose2d.forward
# What Module.__call__ is unless a tracer has replaced it.
_call = getattr(Module, "_wrapped_call_impl", None)


def _is_only_forward(module: ConvTranspose2d) -> bool:
    """Whether a call runs our `forward`: no hook of any kind besides, and nothing in its place."""
    state = module.__dict__
    return not (
        state["_forward_pre_hooks"]
        or state["_forward_hooks"]
        or state["_backward_pre_hooks"]
        or state["_backward_hooks"]
        or _global_forward_pre_hooks
        or _global_forward_hooks
        or _global_backward_pre_hooks
        or _global_backward_hooks
        or "_compiled_call_impl" in state  # by Module.compile()
        or "forward" in state
        or type(module).forward is not _forward
        or Module.__call__ is not _call
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


def _channels_last(weight: Tensor) -> Tensor:
    return weight.detach().contiguous(memory_format=torch.channels_last)


def _packed_copy(weight: Tensor) -> Tensor:
    """`_channels_last`, by a kernel that loads in 0.2 ms where torch's takes 13 to 25."""
    if weight.is_contiguous(memory_format=torch.channels_last):
        return weight.detach()
    packed = torch.empty_like(weight, memory_format=torch.channels_last)
    ops.pack(weight, packed)
    return packed


def _layout(weight: Tensor) -> int | None:
    """See _Packed.layout. By strides, for torch's rules look at those of axes of size 1 too."""
    formats = (torch.contiguous_format, torch.channels_last)
    for value, memory_format in enumerate(formats):
        like = torch.empty_like(weight, device="meta", memory_format=memory_format)
        if weight.stride() == like.stride():
            return value
    return None


def _is_packable(weight: Tensor) -> bool:
    """Whether a packed copy may be kept: torch has to count this weight's versions."""
    return (
        type(weight) is nn.Parameter
        and weight.is_cuda
        and weight.dtype in ops.DTYPES
        and not weight.is_inference()
        and not torch._C._is_any_autocast_enabled()
        and not torch.cuda.is_current_stream_capturing()
    )
