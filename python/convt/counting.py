"""What the op costs to run: for FlopCounterMode, and for what compiled graphs keep or run again."""

from __future__ import annotations

import functools
from typing import Any

import torch


def register_flops() -> None:
    """The op counts as torch's own convolution."""
    from torch.utils.flop_counter import (
        conv_backward_flop,
        conv_flop_count,
        register_flop_formula,
    )

    @register_flop_formula(torch.ops.convt.conv_transpose2d)
    def _forward(
        input_shape: list[int],
        weight_shape: list[int],
        *arguments: Any,
        out_shape: list[int],
        **keywords: Any,
    ) -> int:
        return conv_flop_count(input_shape, weight_shape, out_shape, transposed=True)

    @register_flop_formula(torch.ops.convt.conv_transpose2d_backward_fp32, get_raw=True)
    def _backward(grad: Any, input: Any, weight: Any, _: Any, mask: Any, *, out_val: Any) -> Any:
        no, transposed = None, True
        arguments = grad, input, weight, no, no, no, no, transposed, no, no, mask
        formula: Any = conv_backward_flop  # its decorator changes its arguments
        return formula(*arguments, out_val=out_val)


def register_as_compute_intensive() -> None:
    """Compiled graphs under `activation_memory_budget` weigh the op as they weigh a convolution.

    torch has no public way to say so, and asks anew at each compilation.
    """
    from torch._functorch import partitioners

    of_torch = partitioners.get_default_op_list

    @functools.wraps(of_torch)
    def with_ours() -> Any:
        op_types = of_torch()
        op_types.compute_intensive_ops.add(torch.ops.convt.conv_transpose2d)
        op_types.compute_intensive_ops.add(torch.ops.convt.conv_transpose2d_backward_fp32)
        return op_types

    partitioners.get_default_op_list = with_ours
