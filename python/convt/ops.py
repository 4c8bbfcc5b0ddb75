"""The registered ops `torch.ops.convt.conv_transpose2d` and `conv_transpose3d`, eager calls past
them, and their gradients.

The ops themselves are C++ (csrc/torch/), and so are eager calls (csrc/python/eager.cpp). Here are
the gradients, and the fake kernels, which tell sizes and strides without data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convt import _C, _eager, _torch
from convt.geometry import Geometry, axes_of, unpack

OLDEST_TORCH = (2, 10)  # whose stable ABI the op library is built for
if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
    oldest = ".".join(map(str, OLDEST_TORCH))
    raise ImportError(
        f"convt: expected torch >= {oldest}, got {torch.__version__} "
        f"(pip install --upgrade 'torch>={oldest}')"
    )

# Beside the extension, which is not beside this file in an editable install.
LIBRARY_FOLDER = Path(_C.__file__).parent / "lib"
torch.ops.load_library(  # type: ignore[no-untyped-call]
    str(LIBRARY_FOLDER / "libconvt_torch.so")
)

conv_transpose2d: Callable[..., Tensor] = torch.ops.convt.conv_transpose2d.default
conv_transpose3d: Callable[..., Tensor] = torch.ops.convt.conv_transpose3d.default
NAMES = ("convt::conv_transpose2d", "convt::conv_transpose3d")

# `(input, weight, bias, frozen, geometry, precision)` to a tensor if nothing but kernels is needed,
# to False if the call is right and ATen answers it, to None in all other cases. `frozen` is None or
# convt.freezing.Frozen; `precision` one of PRECISIONS by index, or the name of torch's switch.
eager_conv_transpose: Callable[..., Any] = _eager.conv_transpose
# Without, the op answers all that kernels serve.
HAS_EAGER = _eager.use_torch(
    torch,
    torch.nn.Parameter,
    _torch.empty_strided_cuda,
    _torch.fp32_precision,
    _torch.QUESTIONS,
)

# In the order of convt::Precision's values.
PRECISIONS = ("fp32", "tf32", "fp16")
# By the number of axes.
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
# The dtypes that kernels have.
DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


def conv_transpose(
    input: Tensor,
    weight: Tensor,
    geometry: Geometry,
    precision: int,
    bias: Tensor | None,
    packed: Tensor | None,
) -> Tensor:
    """The op for that geometry."""
    op = conv_transpose3d if axes_of(geometry) == 3 else conv_transpose2d
    return op(input, weight, geometry, precision, bias, packed)


def _describe(tensor: Tensor, aligned: bool) -> tuple[tuple[int, ...], tuple[int, ...], str, bool]:
    return tuple(tensor.shape), tensor.stride(), DTYPES.get(tensor.dtype, "other"), aligned


def _check_like_input(axes: int, argument: str, tensor: Tensor, input: Tensor) -> None:
    for what, got, expected in (
        ("have the dtype", tensor.dtype, input.dtype),
        ("be on the device", tensor.device, input.device),
    ):
        if got != expected:
            raise RuntimeError(
                f"conv_transpose{axes}d: expected {argument} to {what} of input ({expected}), "
                f"got {got}"
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
    _check_like_input(axes_of(geometry), "weight", weight, input)
    if bias is not None:
        _check_like_input(axes_of(geometry), "bias", bias, input)
    return _C.problem_of(
        _describe(input, aligned),
        _describe(weight, True),
        None if bias is None else _describe(bias, True),
        geometry,
        PRECISIONS[precision],
    )


def _is_symbolic(geometry: Geometry, *tensors: Tensor | None) -> bool:
    numbers = (n for t in tensors if t is not None for n in (*t.shape, *t.stride()))
    return any(isinstance(n, torch.SymInt) for n in (*geometry, *numbers))


def _fake(
    input: Tensor,
    weight: Tensor,
    geometry: Geometry,
    precision: int,
    bias: Tensor | None = None,
    packed: Tensor | None = None,
) -> Tensor:
    # Imported by torch itself where it traces; half a second that `import convt` must not take.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    if input.is_meta:  # as torch's own, which tells a size whatever the dtypes
        weight = weight.to(input.dtype)
        bias = None if bias is None else bias.to(input.dtype)
    if not _is_symbolic(geometry, input, weight, bias):
        problem(input, weight, bias, geometry, precision)
    batch, _, *in_sizes = input.shape
    _, group_out, *kernel = weight.shape
    *numbers, groups = unpack(geometry)
    out_sizes = [
        (n - 1) * s - 2 * p + d * (k - 1) + op + 1
        for n, k, s, p, op, d in zip(in_sizes, kernel, *numbers, strict=True)
    ]
    # As in ATen: cuDNN has no channels_last for other dtypes, and empty outputs are contiguous.
    contiguous = (input.dtype not in DTYPES and input.device.type != "cpu") or (
        statically_known_true(batch == 0)
    )
    last = CHANNELS_LAST[len(in_sizes)]
    is_last = not contiguous and last in map(_torch.suggest_memory_format, (input, weight))
    return torch.empty(
        (batch, group_out * groups, *out_sizes),
        dtype=input.dtype,
        device=input.device,
        memory_format=last if is_last else torch.contiguous_format,
    )


for _name in NAMES:
    torch.library.register_fake(_name, _fake)


# Gradients are ATen's.

_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def aten_backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    geometry: Geometry,
    mask: Sequence[bool],
) -> _Gradients:
    stride, padding, output_padding, dilation, groups = unpack(geometry)
    bias_sizes = [weight.shape[1] * groups] if mask[2] else None
    transposed = True
    gradients: _Gradients = torch.ops.aten.convolution_backward.default(
        grad, input, weight, bias_sizes,
        stride, padding, dilation, transposed, output_padding, groups, list(mask),
    )  # fmt: skip
    return gradients


# With fp32 products whatever torch's switches say: an op, so that compiled graphs keep the promise.
_LIBRARY: Any = torch.library.Library("convt", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(
    "conv_transpose_backward_fp32(Tensor grad, Tensor input, Tensor weight, SymInt[] geometry, "
    "bool[] mask) -> (Tensor, Tensor, Tensor)"
)


def _backward_fake(
    grad: Tensor, input: Tensor, weight: Tensor, geometry: Geometry, mask: Sequence[bool]
) -> tuple[Tensor, ...]:
    gradients = aten_backward(grad, input, weight, geometry, mask)
    return tuple(grad.new_empty(0) if g is None else g for g in gradients)


def _backward_fp32(*args: Any) -> tuple[Tensor, ...]:
    with _torch.fp32_products:
        return _backward_fake(*args)


for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("conv_transpose_backward_fp32", _backward_fp32, _device)
torch.library.register_fake("convt::conv_transpose_backward_fp32", _backward_fake, lib=_LIBRARY)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    *mask, _, _ = ctx.needs_input_grad[:4]
    mask.append(any(ctx.needs_input_grad[4:5]))  # torch leaves out a bias of None
    gradients: Sequence[Tensor | None]
    if not ctx.fp32:
        gradients = aten_backward(grad, input, weight, ctx.geometry, mask)
    elif torch.is_grad_enabled():  # to be differentiated again, for which ATen's has the formula
        with _torch.fp32_products:
            gradients = aten_backward(grad, input, weight, ctx.geometry, mask)
    else:
        gradients = torch.ops.convt.conv_transpose_backward_fp32(
            grad, input, weight, ctx.geometry, mask
        )
        gradients = [g if wanted else None for g, wanted in zip(gradients, mask, strict=True)]
    grad_input, grad_weight, grad_bias = gradients
    return grad_input, grad_weight, None, None, grad_bias, None


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, ctx.geometry, precision, *_ = inputs
    ctx.save_for_backward(input, weight)
    ctx.fp32 = input.dtype == torch.float32 and PRECISIONS[precision] == "fp32"


for _name in NAMES:
    torch.library.register_autograd(_name, backward, setup_context=setup_context)
