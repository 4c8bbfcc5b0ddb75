"""A ConvTranspose node of ONNX that every runtime runs, where output_padding is a stride or more.

onnxruntime 1.32 loads such a node and refuses to run it. With no output_padding, an output is
`stride * (in - 1) + dilation * (kernel - 1) + 1 - begin - end` long, so output_padding rows come
from a shorter end pad, as far as there is one. No input reaches the rows that are still missing:
they are appended as zeros, before the bias is added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Axes = Sequence[Any]  # one number for each spatial axis


def call(
    function: Callable[..., Tensor],
    tensors: tuple[Tensor, Tensor, Tensor | None],
    geometry: tuple[Any, Any, Any, Any],
    groups: int,
) -> Tensor:
    """torch's function, which becomes one node, or `conv_transpose` where that node would not run.

    Args:
        function: `torch.nn.functional.conv_transpose1d` or one of its kind.
        geometry: stride, padding, output_padding, dilation; ints or one number for each axis.
    """
    input, weight, bias = tensors
    axes = weight.dim() - 2
    stride, padding, output_padding, dilation = (
        (n,) * axes if isinstance(n, int) else tuple(n) for n in geometry
    )
    if all(op < s for op, s in zip(output_padding, stride, strict=True)):
        return function(input, weight, bias, stride, padding, output_padding, groups, dilation)
    batch = input if input.dim() == weight.dim() else input.unsqueeze(0)
    y = conv_transpose(batch, weight, bias, (stride, padding, output_padding, dilation), groups)
    return y if input.dim() == weight.dim() else y.squeeze(0)


def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: tuple[Axes, Axes, Axes, Axes],
    groups: int,
) -> Tensor:
    """The transposed convolution of a batch as nodes of ONNX, inside torch.onnx.export.

    Args:
        geometry: stride, padding, output_padding, dilation.
    """
    stride, padding, output_padding, dilation = geometry
    taken = [min(p, op) for p, op in zip(padding, output_padding, strict=True)]
    missing = [op - t for op, t in zip(output_padding, taken, strict=True)]
    end = [p - t for p, t in zip(padding, taken, strict=True)]
    sizes = [
        (n - 1) * s + d * (k - 1) + 1 - p - e
        for n, s, d, k, p, e in zip(
            input.shape[2:], stride, dilation, weight.shape[2:], padding, end, strict=True
        )
    ]
    in_node = bias if not any(missing) else None
    y = torch.onnx.ops.symbolic(
        "ConvTranspose",
        (input, weight, in_node) if in_node is not None else (input, weight),
        {
            "dilations": list(dilation),
            "group": groups,
            "kernel_shape": [int(k) for k in weight.shape[2:]],
            "pads": [*padding, *end],
            "strides": list(stride),
        },
        dtype=input.dtype,
        shape=[input.shape[0], weight.shape[1] * groups, *sizes],
    )
    if not any(missing):
        return y
    y = F.pad(y, [n for rows in reversed(missing) for n in (0, rows)])
    return y if bias is None else y + bias.view(-1, *[1] * len(sizes))
