"""What torch's FlopCounterMode counts for the op, the figure of torch's own convolution.

Selective checkpointing under `torch._functorch.config.activation_memory_budget` asks the same table
what an op costs to run again.
"""

from __future__ import annotations

from typing import Any

import torch


def register() -> None:
    from torch.utils.flop_counter import conv_flop_count, register_flop_formula

    @register_flop_formula(torch.ops.convt.conv_transpose2d)
    def _forward(
        input_shape: list[int],
        weight_shape: list[int],
        *arguments: Any,
        out_shape: list[int],
        **keywords: Any,
    ) -> int:
        return conv_flop_count(input_shape, weight_shape, out_shape, transposed=True)
