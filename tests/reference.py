"""The plain fp64 reference, and how near to it an answer has to be."""

from __future__ import annotations

import torch
import torch.nn.functional as F

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

# Relative error in norm, by (dtype, precision of fp32 products). Rounding to nearest errs by half a
# unit in the last place at most: 2^-11 for TF32 and fp16, 2^-8 for bf16. Operands of random sign
# stay under it; truncated ones do not (TF32: 7.7e-4). For fp32-grade products, sums decide.
TOLERANCES = {
    ("f32", "fp32"): 1e-6,
    ("f32", "tf32"): 2**-11,
    ("f32", "fp16"): 2**-11,
    ("f16", None): 2**-11,
    ("bf16", None): 2**-8,
}


def reference(x, weight, bias, layer):
    """torch's transposed convolution in fp64."""
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.dim() - 3]
    return function(
        x.double(),
        weight.double(),
        None if bias is None else bias.double(),
        layer.stride,
        layer.padding,
        layer.output_padding,
        layer.groups,
        layer.dilation,
    )


def assert_close(y, expected, dtype, precision):
    """That y, of `dtype`, is the fp64 `expected` within the tolerance; NaN never is."""
    assert y.shape == expected.shape
    assert y.dtype == DTYPES[dtype]
    norm = expected.norm()
    error = (y.double() - expected).norm() / norm if norm > 0 else y.double().norm()
    tolerance = TOLERANCES[dtype, precision if dtype == "f32" else None]
    assert error <= tolerance, f"relative error {error:.2e} over {tolerance:.0e}"
