"""`conv_transpose1d`: torch's function in one dimension."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from convt import _torch, functional
from convt.functional import Precision
from convt.geometry import Sizes, sizes


def conv_transpose1d(
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
    """`torch.nn.functional.conv_transpose1d`: the two-dimensional op on images of height 1.

    Args:
        input: `[batch, in_channels, width]`, or without the batch dimension.
        weight: `[in_channels, out_channels / groups, kernel_width]`.
        bias, groups, precision: see `convt.conv_transpose2d`.
        stride, padding, output_padding, dilation: an int, or a sequence of one.

    Returns:
        `[batch, out_channels, out_width]`. Input and weight are viewed as images, never copied.

    Raises:
        As `convt.conv_transpose2d`.
    """
    if precision is not None:
        functional.precision_value(precision)
    if (
        not isinstance(input, Tensor)
        or input.is_complex()
        or input.is_nested
        or functional.is_torchs_alone(input)
    ):
        return F.conv_transpose1d(
            input, weight, bias, stride, padding, output_padding, groups, dilation
        )
    _check_dimensions(input, weight)
    if _is_for_onnx():
        from convt import onnx

        pairs = stride, padding, output_padding, dilation
        return onnx.call(F.conv_transpose1d, (input, weight, bias), pairs, groups)
    if _torch.is_any_autocast_enabled():  # which keeps no cast of a view
        input, weight, bias = functional.autocast(input, weight, bias)
    y = functional.conv_transpose2d(
        input.unsqueeze(-2),
        weight.unsqueeze(-2),
        bias,
        (1, *sizes(stride, "stride", 1)),
        (0, *sizes(padding, "padding", 1)),
        (0, *sizes(output_padding, "output_padding", 1)),
        groups,
        (1, *sizes(dilation, "dilation", 1)),
        precision=precision,
    )
    return y.squeeze(-2)


def _is_for_onnx() -> bool:
    return torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()


def _check_dimensions(input: Tensor, weight: Tensor) -> None:
    if input.dim() not in (2, 3):
        raise RuntimeError(
            "conv_transpose1d: expected input to have 3 dimensions [N, C, W], or 2 if it is "
            f"unbatched, got {list(input.shape)}"
        )
    if not isinstance(weight, Tensor):
        raise TypeError(
            f"conv_transpose1d: expected weight to be a Tensor, got {type(weight).__name__}"
        )
    if weight.dim() != 3:
        raise RuntimeError(
            "conv_transpose1d: expected weight to have 3 dimensions [in_channels, out_channels / "
            f"groups, kernel_width], got {list(weight.shape)}"
        )
