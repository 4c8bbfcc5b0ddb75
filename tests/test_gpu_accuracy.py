"""On a GPU: errors beside torch's, for sums of up to 65,536 products, and extreme operands."""

import pytest
import torch
import torch.nn.functional as F

import convt
from tests.launching import best_of_families, launched, memory_format
from tests.reference import DTYPES

pytestmark = pytest.mark.gpu

# Kernel, stride, padding, and the kernel's taps that one output has.
GEOMETRIES = {"k2s2": (2, 2, 0, 1), "k4s2": (4, 2, 1, 4), "k2s3": (2, 3, 0, 1)}


def channels_scaled(*size, dim):
    """Of one operand: a factor of 2^-12 to 2^12 for each input channel."""
    factor = 2.0 ** torch.randint(-12, 13, (size[dim],), device="cuda")
    shape = [-1 if i == dim else 1 for i in range(4)]
    return torch.randn(*size, device="cuda") * factor.reshape(shape)


OPERANDS = {
    "positive": lambda *size, dim: torch.rand(*size, device="cuda"),
    "mixed": lambda *size, dim: torch.randn(*size, device="cuda"),
    "ill-scaled": channels_scaled,
}


def answers(x, weight, stride, padding, precision):
    """Of each family's best config, by its name."""
    plan = convt.explain(x, weight, None, stride, padding, precision=precision)
    plans = best_of_families(plan.problem, plan.gpu)
    assert plans
    return {each.config: launched(each, x, weight, None) for each in plans}


def errors(precision, dtype, layout, products, operands, geometry):
    """Relative errors in norm, by who answered; torch's as "torch"."""
    kernel, stride, padding, taps = GEOMETRIES[geometry]
    channels = products // taps
    x = OPERANDS[operands](1, channels, 16, 16, dim=1)
    weight = OPERANDS[operands](channels, 16, kernel, kernel, dim=0)
    x, weight = ((t / t.abs().max()).to(DTYPES[dtype]) for t in (x, weight))  # or fp16 overflows
    x, weight = (t.contiguous(memory_format=memory_format(layout, 4)) for t in (x, weight))
    expected = F.conv_transpose2d(x.double(), weight.double(), None, stride, padding)
    given = answers(x, weight, stride, padding, precision)
    given["op"] = convt.conv_transpose2d(x, weight, None, stride, padding, precision=precision)
    given["torch"] = F.conv_transpose2d(x, weight, None, stride, padding)
    return {who: ((y - expected).norm() / expected.norm()).item() for who, y in given.items()}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("products", [64, 512, 4096, 65536])
def test_fp32_is_as_accurate_as_torchs(products, operands, geometry, layout, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    found = errors("fp32", "f32", layout, products, operands, geometry)
    assert max(found.values()) <= max(1e-6, 4 * found["torch"]), found


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("products", [64, 512, 4096, 65536])
@pytest.mark.parametrize("dtype", DTYPES)
def test_short_operands_are_as_accurate_as_cudnns(
    dtype, products, operands, geometry, layout, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    found = errors("tf32", dtype, layout, products, operands, geometry)
    assert max(found.values()) <= max(1e-6, 1.2 * found["torch"]), found


# The first has infinity's upper bits.
SPECIALS = {"nan": 0x7F800001, "infinity": 0x7F800000, "largest": 0x7F7FFFFF}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("channels", [32, 96])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("special", SPECIALS)
def test_inputs_that_are_not_finite_or_large(special, geometry, channels, precision, layout):
    if (precision, special) == ("tf32", "largest"):
        pytest.skip("to the nearest TF32 it is infinity, in torch too where its kernels round")
    kernel, stride, padding, _ = GEOMETRIES[geometry]
    x = torch.zeros(1, channels, 16, 32, device="cuda")
    x.view(torch.int32)[0, 3, 5, 7] = SPECIALS[special]
    weight = torch.full((channels, 96, kernel, kernel), 0.25, device="cuda")
    x = x.contiguous(memory_format=memory_format(layout, 4))
    expected = F.conv_transpose2d(x.double(), weight.double(), None, stride, padding)
    for y in answers(x, weight, stride, padding, precision).values():
        torch.testing.assert_close(y.double(), expected, rtol=2**-10, atol=0, equal_nan=True)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("channels", [32, 96])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("special", ["nan", "largest"])
def test_weights_that_are_not_finite_or_large(special, geometry, channels, precision, layout):
    kernel, stride, padding, _ = GEOMETRIES[geometry]
    x = torch.full((1, channels, 16, 32), 0.25, device="cuda")
    weight = torch.zeros(channels, 96, kernel, kernel, device="cuda")
    weight.view(torch.int32)[3, 5] = SPECIALS[special]
    x = x.contiguous(memory_format=memory_format(layout, 4))
    expected = F.conv_transpose2d(x.double(), weight.double(), None, stride, padding)
    for y in answers(x, weight, stride, padding, precision).values():
        torch.testing.assert_close(y.double(), expected, rtol=2**-10, atol=0, equal_nan=True)
