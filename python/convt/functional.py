"""`conv_transpose2d`, and what can be asked about it: `explain`, `preload`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, is_autocast_enabled, is_grad_enabled
from torch._C import (  # by name: looked up through modules, each costs a warm call 0.02 us more
    _are_functorch_transforms_active,
    _get_cudnn_enabled,
    _get_fp32_precision_getter,
    _get_tracing_state,
    _is_any_autocast_enabled,
    _len_torch_dispatch_stack,
    _len_torch_function_stack,
)
from torch._C._autograd import _profiler_enabled
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from convt import _C, ops

Precision = Literal["tf32", "fp32", "fp16"]
IntOrPair = int | Sequence[int]


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    precision: Precision | None = None,
) -> Tensor:
    """`torch.nn.functional.conv_transpose2d`, answered by kernels compiled ahead of time.

    Args:
        input: `[batch, in_channels, height, width]`, or without the batch dimension.
        weight: `[in_channels, out_channels / groups, kernel_height, kernel_width]`, of input's
            dtype and on its device.
        bias: `[out_channels]`, likewise.
        stride, padding, output_padding, dilation: an int for both axes, or (height, width).
        groups: number of blocks of channels that do not see each other.
        precision: how fp32 operands are multiplied on CUDA; sums are always fp32. "fp32": as
            accurately as fp32 itself. "tf32": operands rounded to TF32, but as "fp32" where that
            costs no time or cuDNN does so too (layers bound by memory, depthwise ones, up to three
            output channels). "fp16": operands rounded to fp16. None: as torch's own convolution
            would at this moment, that is by `torch.backends.cudnn.conv.fp32_precision`
            (`torch.backends.cudnn.allow_tf32`); a compiled graph keeps what it was traced with.
            Without effect on other dtypes and on what ATen answers.

    Returns:
        `[batch, out_channels, out_height, out_width]`, out = (in - 1) * stride - 2 * padding
        + dilation * (kernel - 1) + output_padding + 1, in channels_last memory if input or weight
        is. Differentiable. CPU tensors, and CUDA problems that no kernel serves, go to ATen:
        `explain` tells.

    Raises:
        TypeError, RuntimeError: where torch raises them, naming argument, expected and got.
        ValueError: an unknown precision.
    """
    _check_tensors(weight, bias)
    geometry = geometry_of(stride, padding, output_padding, dilation, groups)
    return call(input, weight, bias, geometry, precision, None)


def explain(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    arch: str | int | None = None,
    precision: Precision | None = None,
) -> _C.Plan:
    """The plan of `conv_transpose2d` with these arguments: which kernel, why, grid, or why ATen.

    Nothing is run and no data is read, so tensors may be on any device, "meta" included.

    Args:
        arch: plan for this GPU ("RTX 4090"), or for the usual one of an architecture ("sm_89" or
            89), and not for input's device. Takes no notice of CONVT_ARCH and CONVT_JIT.

    Returns:
        A value that prints itself; `served`, `config`, `reason`, `steps`, `microseconds`, `best`,
        `problem`, `gpu`.

    Raises:
        As conv_transpose2d. ValueError: arch is no GPU that is known.
    """
    _check_input(input)
    _check_tensors(weight, bias)
    geometry = geometry_of(stride, padding, output_padding, dilation, groups)
    input, weight, bias = _autocast(input, weight, bias)
    if input.dim() != 4:
        input = _batch_of_one(input)
    aligned = input.is_meta or input.data_ptr() % 16 == 0
    value = torch_precision(geometry) if precision is None else precision_value(precision)
    problem = ops.problem(input, weight, bias, geometry, value, aligned=aligned)
    return _C.plan(problem, _gpu(arch, input.device))


def preload(device: torch.device | str | int | None = None) -> int:
    """Loads every kernel that `device` (default: the current one) may use; returns how many.

    Without it each kernel loads at its first call, in about 0.2 ms. Safe during graph capture.
    """
    chosen = torch.device("cuda" if device is None else device)
    if chosen.type != "cuda":
        raise ValueError(f"preload: expected a CUDA device, got {device}")
    return _C.preload(torch.cuda.current_device() if chosen.index is None else chosen.index)


def call(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: ops.Geometry,
    precision: Precision | None,
    packed: Tensor | None,
) -> Tensor:
    """Runs the op under torch's switches. `packed`: the weight in channels_last memory, if kept."""
    if not isinstance(input, Tensor):
        _check_input(input)
    if _are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return _aten(input, weight, bias, geometry)
    if _is_any_autocast_enabled():
        input, weight, bias = _autocast(input, weight, bias)
        packed = None
    value = torch_precision(geometry) if precision is None else precision_value(precision)
    if input.dim() != 4:
        batch = _batch_of_one(input)
        return ops.conv_transpose2d(batch, weight, bias, geometry, value, packed).squeeze(0)
    if torch.compiler.is_compiling():
        return ops.conv_transpose2d(input, weight, bias, geometry, value, packed)
    if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return ops.eager_conv_transpose2d(input, weight, bias, geometry, value, packed)
    # Under no_grad the autograd kernel, which is Python, would cost 7 us and do nothing.
    with torch._C._AutoDispatchBelowAutograd():
        return ops.eager_conv_transpose2d(input, weight, bias, geometry, value, packed)


def is_plain_inference(input: Tensor) -> bool:
    """Whether nothing traces, casts, differentiates, intercepts or watches ops."""
    return (
        not is_dynamo_compiling()  # other compilers are modes on the dispatch stack
        and type(input) is Tensor
        and not is_grad_enabled()
        and forward_ad._current_level < 0
        and not _are_functorch_transforms_active()
        and not is_autocast_enabled()  # for CUDA; only its modules have warm calls
        and not _len_torch_dispatch_stack()
        and not _len_torch_function_stack()
        and not _get_tracing_state()
        and not _profiler_enabled()
    )


def _aten(input: Tensor, weight: Tensor, bias: Tensor | None, geometry: ops.Geometry) -> Tensor:
    """For torch.func and forward-mode AD, whose rules torch has for its own op only."""
    sh, sw, ph, pw, oph, opw, dh, dw, groups = geometry
    return F.conv_transpose2d(input, weight, bias, (sh, sw), (ph, pw), (oph, opw), groups, (dh, dw))


def geometry_of(
    stride: IntOrPair,
    padding: IntOrPair,
    output_padding: IntOrPair,
    dilation: IntOrPair,
    groups: int,
) -> ops.Geometry:
    """The op's geometry from ints and pairs. Only types and lengths are checked."""
    if type(groups) is not int:
        groups = _integer(groups, "groups", "an int", groups)
    return (
        *_pair(stride, "stride"),
        *_pair(padding, "padding"),
        *_pair(output_padding, "output_padding"),
        *_pair(dilation, "dilation"),
        groups,
    )


def precision_value(precision: str) -> int:
    """What the op takes for a precision's name."""
    if precision not in ops.PRECISIONS:
        raise ValueError(
            "conv_transpose2d: expected precision to be 'tf32', 'fp32', 'fp16' or None, got "
            f"{precision!r}"
        )
    return ops.PRECISIONS.index(precision)


def torch_precision(geometry: ops.Geometry) -> int:
    """What torch would multiply fp32 with at this moment, so as never to be less accurate."""
    return switch(switch_of(geometry))


def switch_of(geometry: ops.Geometry) -> str:
    """Which of torch's switches tells the precision of this geometry's products."""
    stride_h, stride_w, _, _, output_padding_h, output_padding_w, _, _, _ = geometry
    if output_padding_h < stride_h and output_padding_w < stride_w:
        return "conv"
    return "matmul"  # cuDNN does not take it: ATen runs a matrix product


def switch(kind: str) -> int:
    """The precision that torch's switch for "conv" or "matmul" stands at."""
    # torch.export disables cuDNN while it traces, which says nothing of where the graph will run.
    if not (_get_cudnn_enabled() or torch.compiler.is_exporting()):
        kind = "matmul"
    return 1 if _get_fp32_precision_getter("cuda", kind) == "tf32" else 0


# torch.compiler.assume_constant_result, which would import half of torch (1.1 s) to say so.
switch._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _pair(value: IntOrPair, name: str) -> tuple[int, int]:
    """(height, width) of an int, or of a sequence of one or two."""
    if type(value) is int:
        return value, value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:
        return value
    expected = "an int or a pair of ints"
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, 2):
            raise RuntimeError(f"conv_transpose2d: expected {name} to be {expected}, got {value}")
        return (
            _integer(value[0], name, expected, value),
            _integer(value[-1], name, expected, value),
        )
    only = _integer(value, name, expected, value)
    return only, only


def _integer(value: Any, name: str, expected: str, got: object) -> int:
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(
        f"conv_transpose2d: expected {name} to be {expected}, got {got!r} of type "
        f"{type(got).__name__}"
    )


def _check_input(input: object) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(
            f"conv_transpose2d: expected input to be a Tensor, got {type(input).__name__}"
        )


def _batch_of_one(input: Tensor) -> Tensor:
    if input.dim() != 3:
        raise RuntimeError(
            "conv_transpose2d: expected input to have 4 dimensions [N, C, H, W], or 3 if it is "
            f"unbatched, got {list(input.shape)}"
        )
    return input.unsqueeze(0)


def _check_tensors(weight: object, bias: object) -> None:
    if not isinstance(weight, Tensor):
        raise TypeError(
            f"conv_transpose2d: expected weight to be a Tensor, got {type(weight).__name__}"
        )
    if bias is not None and not isinstance(bias, Tensor):
        raise TypeError(
            f"conv_transpose2d: expected bias to be a Tensor or None, got {type(bias).__name__}"
        )


def _autocast(
    input: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As torch's autocast treats its convolutions: floating point of all widths but 64 bits."""
    kind = input.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return input, weight, bias
    dtype = torch.get_autocast_dtype(kind)

    def cast(tensor: Tensor) -> Tensor:
        eligible = tensor.is_floating_point() and tensor.dtype != torch.float64
        return tensor.to(dtype) if eligible and tensor.device.type == kind else tensor

    return cast(input), cast(weight), None if bias is None else cast(bias)


def _gpu(arch: str | int | None, device: torch.device) -> _C.Gpu:
    if arch is None:
        return _C.device_gpu(device.index) if device.type == "cuda" else _C.Gpu.none()
    try:
        if isinstance(arch, bool):
            raise ValueError
        return _C.Gpu.preset(str(arch))
    except ValueError:
        raise ValueError(
            f"explain: expected arch to be like 'sm_89' or 89, or one of {_C.Gpu.presets()}, "
            f"got {arch!r}"
        ) from None
