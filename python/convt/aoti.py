"""`aoti_compile_and_package`: torch's AOTInductor with direct calls of convt's library."""

from __future__ import annotations

import os
from typing import Any

import torch

from convt import ops

# csrc/torch/torch_op.cpp; inductor derives the name of a shim from the op and the type of device.
_SHIMS = {
    op: [
        f"""AOTITorchError aoti_torch_{device}_{name}(
        AtenTensorHandle input, AtenTensorHandle weight, const int64_t* geometry,
        int64_t geometry_size, int64_t precision, const AtenTensorHandle* bias,
        const AtenTensorHandle* packed, AtenTensorHandle* result)"""
        for device in ("cpu", "cuda")
    ]
    for name, op in (
        ("conv_transpose2d", ops.conv_transpose2d),
        ("conv_transpose3d", ops.conv_transpose3d),
    )
}


def aoti_compile_and_package(
    exported_program: torch.export.ExportedProgram,
    *,
    inductor_configs: dict[str, Any] | None = None,
    **options: Any,
) -> str:
    """`torch._inductor.aoti_compile_and_package`, with the same arguments and result.

    The package calls the op through a C function of libconvt_torch.so and not through torch's
    dispatcher. A process that loads it needs that library first: `import convt` in Python,
    `target_link_libraries(... convt::torch)` in C++.
    """
    from unittest import mock  # 20 ms that `import convt` must not take

    direct = {
        "aot_inductor.custom_ops_to_c_shims": _SHIMS,
        # libstdc++ by its file: a package that a compiler links it into crashes when it is loaded.
        "aot_inductor.custom_op_libs": ["convt_torch", ":libstdc++.so.6"],
    }
    # Inductor has no option for where a library is; the compilers it uses read this.
    path = os.pathsep.join(filter(None, [str(ops.LIBRARY_FOLDER), os.environ.get("LIBRARY_PATH")]))
    with mock.patch.dict(os.environ, LIBRARY_PATH=path):
        package: str = torch._inductor.aoti_compile_and_package(
            exported_program, inductor_configs={**direct, **(inductor_configs or {})}, **options
        )
    return package
