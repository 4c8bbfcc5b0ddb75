"""The op in core ATen, for programs that are to run without convt.

`ExportedProgram.run_decompositions()` (and with it ExecuTorch, OpenVINO, torch.onnx.export) turns a
program into core ATen ops: the op becomes `aten.convolution`. Inductor traces with a table of
decompositions too; it keeps the op, which has a kernel there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


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
            return _decomposed(*args, **(kwargs or {}))

    torch.library.register_torch_dispatch(
        "convt::conv_transpose2d", proxy_tensor.ProxyTorchDispatchMode, trace
    )


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
    bias: Tensor | None,
    geometry: Sequence[Any],
    precision: int,
    packed: Tensor | None = None,
) -> Tensor:
    sh, sw, ph, pw, oph, opw, dh, dw, groups = geometry
    if torch.onnx.is_in_onnx_export() and (oph >= sh or opw >= sw):
        from convt.onnx import conv_transpose

        pairs = (sh, sw), (ph, pw), (oph, opw), (dh, dw)
        return conv_transpose(input, weight, bias, pairs, groups)
    y: Tensor = torch.ops.aten.convolution.default(
        input, weight, bias, [sh, sw], [ph, pw], [dh, dw], True, [oph, opw], groups
    )
    return y
