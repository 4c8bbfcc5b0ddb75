"""Which transposed convolutions a run makes: torch's and convt's, of modules and functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils._python_dispatch import TorchDispatchMode

from convt import functional, ops
from convt.geometry import unpack
from convt.records import Layer

_COMPOSITE = (
    torch.ops.aten.conv_transpose1d.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.conv_transpose3d.input,
)
_FUNCTION = "conv_transpose"  # the name of a call that no module makes


class Arguments(NamedTuple):
    """One call. Lists have one number per spatial axis."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    padding: list[int]
    output_padding: list[int]
    dilation: list[int]
    groups: int


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `found(arguments, name)` for each transposed convolution that runs meanwhile.

    Works below autocast, so that tensors have the dtype that is multiplied.
    """

    def __init__(self, found: Callable[[Arguments, str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found
        self.names = [_FUNCTION]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _COMPOSITE:  # in inference mode they come here whole
            with self:
                return func.decompose(*args, **(kwargs or {}))
        arguments = _arguments(func, args)
        if arguments is not None:
            self.found(arguments, self.names[-1])
        return func(*args, **(kwargs or {}))

    def watch(self, model: nn.Module, stack: ExitStack) -> None:
        """Calls of `model`'s layers get the layers' names, until `stack` is left."""
        for name, module in model.named_modules():
            if isinstance(module, _ConvTransposeNd):

                def enter(*_: Any, name: str = name or type(module).__name__) -> None:
                    self.names.append(name)

                def leave(*_: Any) -> None:
                    self.names.pop()

                before = module.register_forward_pre_hook(enter)
                after = module.register_forward_hook(leave, always_call=True)
                stack.callback(before.remove)
                stack.callback(after.remove)


def _arguments(func: Any, args: tuple[Any, ...]) -> Arguments | None:
    """The arguments of `func` if it is a transposed convolution."""
    if func is torch.ops.aten.convolution.default and args[6]:
        input, weight, bias, stride, padding, dilation, _, output_padding, groups = args
        axes = input.dim() - 2

        def each(values: list[int]) -> list[int]:
            return list(values) * (axes if len(values) == 1 else 1)

        return Arguments(
            input, weight, bias, each(stride), each(padding), each(output_padding),
            each(dilation), groups,
        )  # fmt: skip
    if func in (ops.conv_transpose2d, ops.conv_transpose3d):
        input, weight, geometry, _, *rest = args
        return Arguments(input, weight, rest[0] if rest else None, *unpack(geometry))
    return None


def calls_of(model: Callable[..., Any], inputs: tuple[Any, ...]) -> list[tuple[Layer, str, int]]:
    """(layer, name of its first call, number of calls) of one run, for each different layer.

    Calls of a dtype that kernels do not serve, and of empty tensors, are left out.
    """
    names: dict[Layer, str] = {}
    counts: Counter[Layer] = Counter()

    def found(arguments: Arguments, name: str) -> None:
        layer = layer_of(arguments)
        if layer is not None:
            names.setdefault(layer, name)
            counts[layer] += 1

    recorder = Recorder(found)
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            recorder.watch(model, stack)
        stack.enter_context(torch.no_grad())
        stack.enter_context(recorder)
        model(*inputs)
    return [(layer, name, counts[layer]) for layer, name in names.items()]


def layer_of(arguments: Arguments) -> Layer | None:
    """A call's layer, fp32 as torch multiplies it now; None if kernels do not serve its kind."""
    input, weight, bias, stride, padding, output_padding, dilation, groups = arguments
    math = math_of(input.dtype, stride, output_padding)
    if math is None or 0 in input.shape:
        return None
    batch, in_channels, *size = input.shape
    last = _is_channels_last(input) or _is_channels_last(weight)
    return Layer(
        math=math,
        layout="nhwc" if last else "nchw",
        batch=batch,
        in_channels=in_channels,
        out_channels=weight.shape[1] * groups,
        size=tuple(size),
        kernel=tuple(weight.shape[2:]),
        stride=tuple(stride),
        padding=tuple(padding),
        output_padding=tuple(output_padding),
        dilation=tuple(dilation),
        groups=groups,
        bias=bias is not None,
    )


def math_of(dtype: torch.dtype, stride: Sequence[int], output_padding: Sequence[int]) -> str | None:
    """How torch multiplies numbers of `dtype` now; None for a dtype without kernels."""
    if dtype == torch.float32:
        usual = all(o < s for o, s in zip(output_padding, stride, strict=True))
        return ("fp32", "tf32")[functional.switched("conv" if usual else "matmul")]
    return {torch.float16: "f16", torch.bfloat16: "bf16"}.get(dtype)


def _is_channels_last(tensor: Tensor) -> bool:
    from torch._prims_common import suggest_memory_format

    return suggest_memory_format(tensor) in (torch.channels_last, torch.channels_last_3d)
