"""`conv_transpose2d`, and what can be asked about it: `explain`, `preload`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from convt import _C, _torch, distributed, ops
from convt.geometry import Geometry, Sizes, axes_of, geometry_of, switch_of, unpack

Precision = Literal["tf32", "fp32", "fp16"]


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
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
            costs no time or cuDNN does so too (layers bound by memory, of few output channels, of
            small groups or small). "fp16": at least as accurate as operands rounded to fp16 make
            them. None: as torch's own convolution would at this moment, that is by
            `torch.backends.cudnn.conv.fp32_precision`
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
    if precision is None and is_torchs_alone(input):
        numbers = stride, padding, output_padding, groups, dilation
        y = _at_once(F.conv_transpose2d, input, weight, bias, numbers)
        if y is not None:
            return y
    _check_tensors(weight, bias, 2)
    geometry = geometry_of(stride, padding, output_padding, dilation, groups)
    wanted = switch_of(geometry) if precision is None else precision_value(precision)
    return call(input, weight, bias, geometry, wanted, None)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    precision: Precision | None = None,
) -> Tensor:
    """`torch.nn.functional.conv_transpose3d`, answered by kernels compiled ahead of time.

    Args:
        input: `[batch, in_channels, depth, height, width]`, or without the batch dimension.
        weight: `[in_channels, out_channels / groups, kernel_depth, kernel_height, kernel_width]`.
        bias, groups, precision: see `conv_transpose2d`.
        stride, padding, output_padding, dilation: an int, or (depth, height, width).

    Returns:
        `[batch, out_channels, out_depth, out_height, out_width]`, in channels_last_3d memory if
        input or weight is. Differentiable.

    Raises:
        As `conv_transpose2d`.
    """
    if precision is None and is_torchs_alone(input):
        numbers = stride, padding, output_padding, groups, dilation
        y = _at_once(F.conv_transpose3d, input, weight, bias, numbers)
        if y is not None:
            return y
    _check_tensors(weight, bias, 3)
    geometry = geometry_of(stride, padding, output_padding, dilation, groups, 3)
    wanted = switch_of(geometry) if precision is None else precision_value(precision, 3)
    return call(input, weight, bias, geometry, wanted, None)


def explain(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    arch: str | int | None = None,
    precision: Precision | None = None,
) -> _C.Plan:
    """The plan of a call with these arguments: which kernel, why, grid, or why ATen.

    The weight's dimensions tell whether of `conv_transpose1d`, `conv_transpose2d` or
    `conv_transpose3d`. Nothing is run and no data is read, so tensors may be on any device, "meta"
    included.

    Args:
        arch: plan for this GPU ("RTX 4090"), or for the usual one of an architecture ("sm_89" or
            89), and not for input's device. Takes no notice of CONVT_ARCH and CONVT_JIT.

    Returns:
        A value that prints itself; `served`, `config`, `reason`, `steps`, `microseconds`, `best`,
        `problem`, `gpu`.

    Raises:
        As those. ValueError: arch is no GPU that is known.
    """
    axes = _axes_of_tensors(input, weight)
    _check_input(input, axes)
    _check_tensors(weight, bias, axes)
    geometry = geometry_of(stride, padding, output_padding, dilation, groups, axes)
    input, weight, bias = autocast(input, weight, bias)
    if input.dim() != axes + 2:
        input = _batch_of_one(input, axes)
    aligned = input.is_meta or input.data_ptr() % 16 == 0
    named = switch_of(geometry) if precision is None else precision_value(precision, axes)
    value = switched(named)
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
    geometry: Geometry,
    precision: int | str,
    frozen: tuple[Any, ...] | None,
) -> Tensor:
    """Answers a call. `precision`: a value, or the name of torch's switch. `frozen`: see nn."""
    if _torch.is_compiling():
        return _unusual(input, weight, bias, geometry, precision, None)
    if is_torchs_alone(input) and weight.is_cpu and (bias is None or bias.is_cpu):
        return _on_cpu(input, weight, bias, geometry)
    y = ops.eager_conv_transpose(input, weight, bias, frozen, geometry, precision)
    if y is None:
        return _unusual(input, weight, bias, geometry, precision, frozen)
    return _aten(input, weight, bias, geometry, precision) if y is False else y


def is_torchs_alone(input: Tensor) -> bool:
    """Whether nothing but ATen ever answers: an ordinary tensor of the CPU, in no graph."""
    return type(input) is Tensor and input.is_cpu and not _torch.is_traced()


def _at_once(
    torchs: Callable[..., Tensor],
    input: Tensor,
    weight: object,
    bias: object,
    numbers: tuple[Sizes, ...],
) -> Tensor | None:
    """ATen's answer before anything is parsed; None if something is wrong."""
    if not isinstance(weight, Tensor) or not weight.is_cpu:
        return None
    if bias is not None and not (isinstance(bias, Tensor) and bias.is_cpu):
        return None
    try:
        return torchs(input, weight, bias, *numbers)
    except Exception:  # the long way says what is wrong
        return None


def _on_cpu(input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    try:
        return _aten(input, weight, bias, geometry)
    except NotImplementedError:  # a dtype or layout that torch does not have
        raise
    except RuntimeError:
        axes = axes_of(geometry)
        if input.dim() != axes + 2:
            input = _batch_of_one(input, axes)
        if input.is_floating_point():
            ops.problem(input, weight, bias, geometry, 0)  # says better what is wrong
        raise


def _unusual(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    precision: int | str,
    frozen: tuple[Any, ...] | None,
) -> Tensor:
    """A call that needs more than its kernels: under a mode of torch's, off CUDA, or wrong."""
    if _is_stand_in(input):
        return _aten(input, weight, bias, geometry)
    axes = axes_of(geometry)
    _check_input(input, axes)
    if distributed.is_distributed(input):
        return _distributed(input, weight, bias, geometry, precision)
    if _torch.are_transforms_active() or _torch.is_forward_mode():
        return _aten(input, weight, bias, geometry)  # torch has rules for its own op only
    if input.dim() != axes + 2:
        batch = _batch_of_one(input, axes)
        return call(batch, weight, bias, geometry, precision, frozen).squeeze(0)
    done: Any = nullcontext()
    if _torch.is_any_autocast_enabled() and not input.is_meta:  # torch has none for meta
        if input.device.type == "cpu" and not _torch.is_traced():
            return _aten(input, weight, bias, geometry)  # casts each weight once per region
        input, weight, bias = autocast(input, weight, bias)
        done = torch.autocast(input.device.type, enabled=False)
    tensors = [tensor for tensor in (input, weight, bias) if tensor is not None]
    if not input.is_floating_point() or input.is_nested:
        return _aten(input, weight, bias, geometry)  # torch's words, or its answer
    if (
        (_torch.is_watched() and (input.device.type != "cpu" or _torch.is_traced()))
        or input.is_meta
        or (input.is_cuda and not ops.HAS_EAGER)
        or any(type(tensor) not in (Tensor, Parameter) for tensor in tensors)
    ):
        return _through_op(input, weight, bias, geometry, precision)
    problem = ops.problem(input, weight, bias, geometry, switched(precision))
    if not input.is_cuda or input.dtype not in ops.DTYPES:
        return _aten(input, weight, bias, geometry, precision)
    last = problem.layout == "nhwc"
    input = input.resolve_neg().contiguous(
        memory_format=ops.CHANNELS_LAST[axes] if last else torch.contiguous_format
    )
    weight = weight.resolve_neg()
    bias = None if bias is None else bias.resolve_neg().contiguous()
    with torch.cuda.device(input.device), done:
        apply: Any = _Differentiable.apply
        y: Tensor = apply(input, weight, geometry, precision, bias, frozen)
        return y


class _Differentiable(torch.autograd.Function):
    """An eager call with gradients, without the 7 us that the op's take."""

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor,
        geometry: Geometry,
        precision: int | str,
        bias: Tensor | None,
        frozen: tuple[Any, ...] | None,
    ) -> Tensor:
        y = ops.eager_conv_transpose(input, weight, bias, frozen, geometry, precision)
        if y is None:  # an unaligned weight that no kernel packs, and other rarities
            return _through_op(input, weight, bias, geometry, precision)
        return _aten(input, weight, bias, geometry, precision) if y is False else y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, geometry, precision, bias, _ = inputs
        ops.setup_context(ctx, (input, weight, geometry, switched(precision), bias, None), output)

    backward = staticmethod(ops.backward)


def _distributed(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    precision: int | str,
) -> Tensor:
    """A call on DTensors: each process's part is a call of its own."""

    def local(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return call(input, weight, bias, geometry, precision, None)

    axes = axes_of(geometry)
    if input.dim() != axes + 2:
        batch = _batch_of_one(input, axes)
        return _distributed(batch, weight, bias, geometry, precision).squeeze(0)
    return distributed.conv_transpose(local, input, weight, bias, geometry[-1])


def _through_op(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    precision: int | str,
) -> Tensor:
    packed = None
    if _torch.is_scripting_for_onnx():
        return _aten(input, weight, bias, geometry)
    if _torch.is_compiling() and weight.is_cuda:
        # In the graph, where constant folding can take it out.
        last = ops.CHANNELS_LAST[axes_of(geometry)]
        packed = weight.detach().contiguous(memory_format=last)
    return ops.conv_transpose(input, weight, geometry, switched(precision), bias, packed)


def _aten(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    precision: int | str = "",
) -> Tensor:
    """Torch's own; fp32 is multiplied as fp32 if that is asked for."""
    if precision == 0 and input.is_cuda and input.dtype == torch.float32:
        with _torch.fp32_products:
            return _aten(input, weight, bias, geometry)
    stride, padding, output_padding, dilation, groups = unpack(geometry)
    torchs = F.conv_transpose3d if len(stride) == 3 else F.conv_transpose2d
    return torchs(input, weight, bias, stride, padding, output_padding, groups, dilation)


def precision_value(precision: str, axes: int = 2) -> int:
    """What the op takes for a precision's name."""
    if precision not in ops.PRECISIONS:
        raise ValueError(
            f"conv_transpose{axes}d: expected precision to be 'tf32', 'fp32', 'fp16' or None, got "
            f"{precision!r}"
        )
    return ops.PRECISIONS.index(precision)


def switched(precision: int | str) -> int:
    """What torch would multiply fp32 with at this moment, so as never to be less accurate."""
    return precision if isinstance(precision, int) else int(_torch.allows_tf32(precision))


def _is_stand_in(value: object) -> bool:
    """Whether it is no tensor but takes torch's functions, as Proxies of torch.fx do."""
    return not isinstance(value, Tensor) and hasattr(type(value), "__torch_function__")


def _axes_of_tensors(input: object, weight: object) -> int:
    """How many spatial axes the tensors have; 2 where they do not agree, for the errors' sake."""
    if isinstance(input, Tensor) and isinstance(weight, Tensor):
        axes = weight.dim() - 2
        if 1 <= axes <= 3 and input.dim() in (axes + 1, axes + 2):
            return axes
    return 2


def _check_input(input: object, axes: int) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(
            f"conv_transpose{axes}d: expected input to be a Tensor, got {type(input).__name__}"
        )


def _batch_of_one(input: Tensor, axes: int) -> Tensor:
    if input.dim() != axes + 1:
        names = ("[N, C, W]", "[N, C, H, W]", "[N, C, D, H, W]")[axes - 1]
        raise RuntimeError(
            f"conv_transpose{axes}d: expected input to have {axes + 2} dimensions {names}, or "
            f"{axes + 1} if it is unbatched, got {list(input.shape)}"
        )
    return input.unsqueeze(0)


def _check_tensors(weight: object, bias: object, axes: int) -> None:
    if not isinstance(weight, Tensor) and not _is_stand_in(weight):
        raise TypeError(
            f"conv_transpose{axes}d: expected weight to be a Tensor, got {type(weight).__name__}"
        )
    if bias is not None and not isinstance(bias, Tensor) and not _is_stand_in(bias):
        raise TypeError(
            f"conv_transpose{axes}d: expected bias to be a Tensor or None, got "
            f"{type(bias).__name__}"
        )


def autocast(
    input: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As torch's autocast treats its convolutions: floating point of all widths but 64 bits."""
    kind = input.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return input, weight, bias
    dtype = torch.get_autocast_dtype(kind)

    def cast(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float64 or not tensor.is_floating_point():
            return tensor
        if tensor.device.type != kind:
            return tensor
        if kind == "cuda" and tensor.is_leaf and tensor.requires_grad and not _torch.is_traced():
            # autocast keeps one cast of each parameter for a region, and has no function that
            # gives it out. Of the operators that it casts for, this one gives its operand back.
            view: Tensor = torch.ops.aten.einsum.default("...->...", [tensor])
            return view
        return tensor.to(dtype)

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
