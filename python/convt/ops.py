"""The registered op `torch.ops.convt.conv_transpose2d` and what torch needs to trace it.

The op itself is C++ (csrc/torch_op.cpp). Here are its gradient and its fake kernel, which tells
sizes and strides without data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convt import _C, _warm

OLDEST_TORCH = (2, 10)  # whose stable ABI the op library is built for
if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
    oldest = ".".join(map(str, OLDEST_TORCH))
    raise ImportError(
        f"convt: expected torch >= {oldest}, got {torch.__version__} "
        f"(pip install --upgrade 'torch>={oldest}')"
    )

_LIBRARY = Path(__file__).parent / "lib" / "libconvt_torch.so"
torch.ops.load_library(str(_LIBRARY))  # type: ignore[no-untyped-call]

conv_transpose2d: Callable[..., Tensor] = torch.ops.convt.conv_transpose2d.default
# What it calls, a quarter of a microsecond sooner; tracers know only the former.
eager_conv_transpose2d: Callable[..., Tensor] = torch.ops.convt.conv_transpose2d.default._op
# Past torch's dispatcher; None where a call needs more than its kernel. See csrc/warm.cpp.
warm_conv_transpose2d: Callable[..., Tensor | None] = _warm.conv_transpose2d
pack: Callable[[Tensor, Tensor], None] = torch.ops.convt._pack.default

# Warm calls make their output as inductor's code does, in half the time of torch.empty_strided.
_empty_strided = getattr(torch._C._dynamo.guards, "_empty_strided_cuda", None)
if _empty_strided is not None:
    _warm.use_tensors(torch.Tensor, _empty_strided)

# Nine ints: stride, padding, output_padding, dilation (each height, width) and groups.
Geometry = Sequence[int]

# By value of convt::Precision.
PRECISIONS = ("fp32", "tf32", "fp16")
# Of kernels.
DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


def _describe(tensor: Tensor, aligned: bool) -> tuple[tuple[int, ...], tuple[int, ...], str, bool]:
    return tuple(tensor.shape), tensor.stride(), DTYPES.get(tensor.dtype, "other"), aligned


def _check_like_input(argument: str, tensor: Tensor, input: Tensor) -> None:
    for what, got, expected in (
        ("have the dtype", tensor.dtype, input.dtype),
        ("be on the device", tensor.device, input.device),
    ):
        if got != expected:
            raise RuntimeError(
                f"conv_transpose2d: expected {argument} to {what} of input ({expected}), got {got}"
            )


def problem(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    precision: int,
    *,
    aligned: bool = True,
) -> _C.Problem:
    """The core's view of a call, by the same checks as the op's; RuntimeError for bad input.

    Reads sizes, strides, dtypes and devices, never data. `aligned`: whether the input's data
    starts on a 16-byte boundary.
    """
    _check_like_input("weight", weight, input)
    if bias is not None:
        _check_like_input("bias", bias, input)
    sh, sw, ph, pw, oph, opw, dh, dw, groups = geometry
    return _C.problem_of(
        _describe(input, aligned),
        _describe(weight, True),
        None if bias is None else _describe(bias, True),
        (sh, sw),
        (ph, pw),
        (oph, opw),
        (dh, dw),
        groups,
        PRECISIONS[precision],
    )


def _is_symbolic(*tensors: Tensor | None) -> bool:
    numbers = (n for t in tensors if t is not None for n in (*t.shape, *t.stride()))
    return any(isinstance(n, torch.SymInt) for n in numbers)


@torch.library.register_fake("convt::conv_transpose2d")  # type: ignore[untyped-decorator]
def _fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    precision: int,
    packed: Tensor | None = None,
) -> Tensor:
    # Imported by torch itself where it traces; half a second that `import convt` must not take.
    from torch._prims_common import suggest_memory_format
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    if not _is_symbolic(input, weight, bias):
        problem(input, weight, bias, geometry, precision)
    sh, sw, ph, pw, oph, opw, dh, dw, groups = geometry
    batch, _, in_h, in_w = input.shape
    _, group_out, kernel_h, kernel_w = weight.shape
    size = (
        batch,
        group_out * groups,
        (in_h - 1) * sh - 2 * ph + dh * (kernel_h - 1) + oph + 1,
        (in_w - 1) * sw - 2 * pw + dw * (kernel_w - 1) + opw + 1,
    )
    # As in ATen: cuDNN has no channels_last for other dtypes, and empty outputs are contiguous.
    contiguous = (input.dtype not in DTYPES and input.device.type != "cpu") or (
        statically_known_true(batch == 0)
    )
    channels_last = not contiguous and torch.channels_last in (
        suggest_memory_format(input),
        suggest_memory_format(weight),
    )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=memory_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, bias, (sh, sw, ph, pw, oph, opw, dh, dw, groups), _, _ = inputs
    ctx.save_for_backward(input, weight)
    ctx.bias_sizes = None if bias is None else list(bias.shape)
    transposed = True
    ctx.geometry = ([sh, sw], [ph, pw], [dh, dw], transposed, [oph, opw], groups)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    mask = list(ctx.needs_input_grad[:3])
    gradients = torch.ops.aten.convolution_backward.default(
        grad, input, weight, ctx.bias_sizes, *ctx.geometry, mask
    )
    return (*gradients, None, None, None)


torch.library.register_autograd("convt::conv_transpose2d", _backward, setup_context=_setup_context)
