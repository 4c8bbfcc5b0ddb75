"""The ops in core ATen, for programs that are to run without convt.

`ExportedProgram.run_decompositions()` (and with it ExecuTorch, OpenVINO, torch.onnx.export) turns a
program into core ATen ops: ours become `aten.convolution`. Inductor traces with a table of
decompositions too; it keeps the op, which has a kernel there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from convt import ops
from convt.geometry import unpack


def register() -> None:
    """Says how ops are traced into graphs. Called when torch's module of tracing is imported."""
    from torch.fx.experimental import proxy_tensor

    def trace(mode: Any, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        table = getattr(mode, "decomposition_table", None)
        if table is None:  # torch < 2.13
            table = getattr(proxy_tensor, "CURRENT_DECOMPOSITION_TABLE", {})
        if not _is_core_aten(table):
            return mode.__torch_dispatch__(op, types, args, kwargs or {})
        with mode:
            return _DECOMPOSITIONS[op.name()](*args, **(kwargs or {}))

    for op in _DECOMPOSITIONS:
        torch.library.register_torch_dispatch(op, proxy_tensor.ProxyTorchDispatchMode, trace)


def _is_core_aten(table: Mapping[Any, Any]) -> bool:
    """Whether graphs traced with this table of decompositions are for a runtime without the op."""
    if torch.onnx.is_in_onnx_export():
        return True
    aten = torch.ops.aten  # three of the ops that every table of core ATen decomposes
    if not any(op in table for op in (aten.addcmul.default, aten.addr.default, aten.lerp.Scalar)):
        return False
    modules = (getattr(function, "__module__", "") for function in table.values())
    return not any(module.startswith("torch._inductor") for module in modules)


def _decomposed(
    input: Tensor,
    weight: Tensor,
    geometry: Sequence[Any],
    precision: int,
    bias: Tensor | None = None,
    packed: Tensor | None = None,
) -> Tensor:
    stride, padding, output_padding, dilation, groups = unpack(geometry)
    if torch.onnx.is_in_onnx_export() and any(
        op >= s for op, s in zip(output_padding, stride, strict=True)
    ):
        from convt.onnx import conv_transpose

        numbers = stride, padding, output_padding, dilation
        return conv_transpose(input, weight, bias, numbers, groups)
    transposed = True
    y: Tensor = torch.ops.aten.convolution.default(
        input, weight, bias, stride, padding, dilation, transposed, output_padding, groups
    )
    return y


def _decomposed_backward(
    grad: Tensor, input: Tensor, weight: Tensor, geometry: Sequence[Any], mask: Sequence[bool]
) -> tuple[Tensor, ...]:
    gradients = ops.aten_backward(grad, input, weight, geometry, mask)
    return tuple(grad.new_empty(0) if g is None else g for g in gradients)


_DECOMPOSITIONS: Mapping[str, Any] = {
    **dict.fromkeys(ops.NAMES, _decomposed),
    "convt::conv_transpose_backward_fp32": _decomposed_backward,
}
