"""torch's own samples of conv_transpose2d in every dtype, and its gradients.

torch has no error inputs for it; tests/test_errors.py has.
"""

import pytest
import torch

import convt
from tests import opinfo
from tests.test_opinfo_1d_3d import outcome

OP = opinfo.OPS["nn.functional.conv_transpose2d"]
ALL_DTYPES = sorted(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16}
    | {torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64}
    | {torch.complex128},
    key=str,
)
EVERY_DTYPE = pytest.mark.parametrize("dtype", ALL_DTYPES, ids=lambda d: str(d)[6:])


def tensors_of(sample):
    return [t for t in (sample.input, *sample.args) if isinstance(t, torch.Tensor)]


def in_memory_orders(sample):
    """The sample, and the same in channels_last, transposed and negative memory."""
    yield sample
    for change in (
        lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
        lambda t: t.mT.contiguous().mT if t.dim() > 2 else t,
        lambda t: torch._neg_view(t.neg()) if t.dtype != torch.bool else t,
        lambda t: t.conj().resolve_conj().conj() if t.is_complex() else t,
    ):
        yield sample.transform(lambda t, c=change: c(t) if isinstance(t, torch.Tensor) else t)


@EVERY_DTYPE
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_samples(dtype):
    answered = refused = 0
    for made in OP.sample_inputs("cpu", dtype, requires_grad=False):
        for sample in in_memory_orders(made):
            expected, y = outcome(OP.op, sample), outcome(convt.conv_transpose2d, sample)
            if isinstance(expected, Exception):
                assert type(y) is type(expected), (y, expected)
                refused += 1
                continue
            answered += 1
            assert torch.equal(y.isnan(), expected.isnan())
            torch.testing.assert_close(y, expected, equal_nan=True)
            assert y.stride() == expected.stride()
            assert y.is_conj() == expected.is_conj()
    assert answered if dtype in OP.dtypes else answered + refused


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients(dtype):
    for sample in OP.sample_inputs("cpu", dtype, requires_grad=True):
        leaves = tensors_of(sample)

        def function(*leaves, sample=sample):
            given = {id(old): new for old, new in zip(tensors_of(sample), leaves, strict=False)}
            args = [given.get(id(value), value) for value in sample.args]
            return convt.conv_transpose2d(leaves[0], *args, **sample.kwargs)

        assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("value", [0, 1, 2], ids=["fp32", "tf32", "fp16"])
def test_gradients_of_the_op_and_of_eager_calls(value):
    """CPU calls are torch's own; these are the paths of CUDA and of compiled graphs."""
    from convt import functional
    from convt.geometry import geometry_of

    for sample in OP.sample_inputs("cpu", torch.float64, requires_grad=True):
        keywords = dict(zip(("weight", "bias", "stride"), sample.args, strict=False))
        keywords.update(sample.kwargs)
        weight, bias = keywords.pop("weight"), keywords.pop("bias", None)
        names = ("stride", "padding", "output_padding", "dilation", "groups")
        usual = {"padding": 0, "output_padding": 0}
        numbers = [keywords.get(name, usual.get(name, 1)) for name in names]
        geometry = geometry_of(*numbers)
        x = sample.input if sample.input.dim() == 4 else sample.input.detach()[None]
        x.requires_grad_()
        leaves = [t for t in (x, weight, bias) if t is not None]

        def op(x, weight, bias=None, geometry=geometry):
            return torch.ops.convt.conv_transpose2d(x, weight, geometry, value, bias)

        def eager(x, weight, bias=None, geometry=geometry):
            return functional._Differentiable.apply(x, weight, geometry, value, bias, None)

        for function in (op, eager):
            assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
            assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)
