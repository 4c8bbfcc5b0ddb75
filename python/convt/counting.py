"""The operations of layers and of the op, for counters and for what compiled graphs recompute."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from typing import Any

import torch

from convt import ops
from convt.replacing import LAYERS, OURS

_FORWARD = [torch.ops.convt.conv_transpose2d, torch.ops.convt.conv_transpose3d]
_BACKWARD = torch.ops.convt.conv_transpose_backward_fp32


def register_flops() -> None:
    """The op counts as torch's own convolution."""
    from torch.utils.flop_counter import (
        conv_backward_flop,
        conv_flop_count,
        register_flop_formula,
    )

    @register_flop_formula(_FORWARD)
    def _forward(
        input_shape: list[int],
        weight_shape: list[int],
        *arguments: Any,
        out_shape: list[int],
        **keywords: Any,
    ) -> int:
        return conv_flop_count(input_shape, weight_shape, out_shape, transposed=True)

    @register_flop_formula(_BACKWARD, get_raw=True)
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
        op_types.compute_intensive_ops.update([*_FORWARD, _BACKWARD])
        return op_types

    partitioners.get_default_op_list = with_ours


# Counters of others that look a layer's exact class, or an op's name, up in a table of theirs.


def register_with_thop() -> None:
    _count_as_torchs(sys.modules["thop.profile"].register_hooks)  # thop.profile is a function, too


def register_with_ptflops() -> None:
    from ptflops.pytorch_ops import MODULES_MAPPING

    _count_as_torchs(MODULES_MAPPING)


def register_flops_with_fvcore() -> None:
    from fvcore.nn import flop_count
    from fvcore.nn.jit_handles import conv_flop_count, get_shape

    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        input, weight, *_ = inputs
        shapes = [get_shape(value) for value in (input, weight, outputs[0])]
        return Counter({"conv": conv_flop_count(*shapes, transposed=True)})

    flop_count._DEFAULT_SUPPORTED_OPS.update(dict.fromkeys(ops.NAMES, count))


def register_activations_with_fvcore() -> None:
    from fvcore.nn import activation_count
    from fvcore.nn.jit_handles import generic_activation_jit

    handle = generic_activation_jit("conv")
    activation_count._DEFAULT_SUPPORTED_OPS.update(dict.fromkeys(ops.NAMES, handle))


def _count_as_torchs(table: dict[Any, Any]) -> None:
    table.update({OURS[layer]: table[layer] for layer in LAYERS})
