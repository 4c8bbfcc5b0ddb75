"""torch's own samples for conv_transpose1d and conv_transpose3d: values, gradients, exceptions."""

import pytest
import torch

import convt
from tests import opinfo

FUNCTIONS = {
    "nn.functional.conv_transpose1d": convt.conv_transpose1d,
    "nn.functional.conv_transpose3d": convt.conv_transpose3d,
}
OPS = {name: opinfo.OPS[name] for name in FUNCTIONS}
CASES = [
    pytest.param(name, dtype, id=f"{name[-2:]}-{str(dtype).removeprefix('torch.')}")
    for name, info in OPS.items()
    for dtype in sorted(info.dtypes, key=str)
]


def outcome(function, sample):
    """The answer, or the exception in its place."""
    try:
        return function(sample.input, *sample.args, **sample.kwargs)
    except Exception as error:
        return error


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_samples(name, dtype):
    info, answered = OPS[name], 0
    differentiable = dtype.is_floating_point or dtype.is_complex
    for sample in info.sample_inputs("cpu", dtype, requires_grad=differentiable):
        expected, y = outcome(info.op, sample), outcome(FUNCTIONS[name], sample)
        if isinstance(expected, Exception):
            assert type(y) is type(expected), (y, expected)
            continue
        answered += 1
        torch.testing.assert_close(y, expected)
        assert y.stride() == expected.stride()
        assert y.requires_grad == expected.requires_grad
        if differentiable:
            tensors = (sample.input, *sample.args)
            leaves = [t for t in tensors if isinstance(t, torch.Tensor) and t.requires_grad]
            grad = torch.randn_like(expected)
            ours, theirs = (torch.autograd.grad(out, leaves, grad) for out in (y, expected))
            torch.testing.assert_close(ours, theirs)
    assert answered


X, W, B = torch.randn(2, 4, 5), torch.randn(4, 6, 3), torch.randn(6)
BAD_CALLS = {
    "no input": ((None, W), {}),
    "a list for weight": ((X, [1.0]), {}),
    "weight of other channels": ((X, W[:2]), {}),
    "input of four dimensions": ((X[None], W), {}),
    "weight of four dimensions": ((X, W[None]), {}),
    "bias of another size": ((X, W, B[:3]), {}),
    "another dtype": ((X, W.double()), {}),
    "stride 0": ((X, W), {"stride": 0}),
    "stride of two": ((X, W), {"stride": (1, 1)}),
    "float stride": ((X, W), {"stride": 1.5}),
    "negative padding": ((X, W), {"padding": -1}),
    "output_padding too large": ((X, W), {"output_padding": 3}),
    "dilation 0": ((X, W), {"dilation": 0}),
    "groups 3": ((X, W), {"groups": 3}),
    "groups as text": ((X, W), {"groups": "1"}),
    "empty output": ((X[..., :1], W), {"padding": 2}),
}


def in_three_dimensions(value):
    """The one-dimensional call, with two axes more."""
    if isinstance(value, torch.Tensor) and value.dim() > 1:
        return value[..., None, None]
    return value


@pytest.mark.parametrize("case", BAD_CALLS)
@pytest.mark.parametrize("name", OPS)
def test_bad_calls_raise_as_torch_does(name, case):
    arguments, keywords = BAD_CALLS[case]
    if name.endswith("3d"):
        arguments = tuple(map(in_three_dimensions, arguments))
        keywords = {k: (*v, 1, 1) if isinstance(v, tuple) else v for k, v in keywords.items()}
    with pytest.raises(Exception, match=r".") as theirs:
        OPS[name].op(*arguments, **keywords)
    with pytest.raises(theirs.type) as ours:
        FUNCTIONS[name](*arguments, **keywords)
    if name.endswith("1d"):  # torch's own words, up to what it lists of the arguments
        assert str(ours.value).split("(")[0] == str(theirs.value).split("(")[0]
    else:
        assert str(ours.value).startswith("conv_transpose3d: ")


def test_an_unknown_precision_is_refused_in_every_dimension():
    for axes, function in ((1, convt.conv_transpose1d), (3, convt.conv_transpose3d)):
        x, weight = torch.randn(1, 4, *[5] * axes), torch.randn(4, 6, *[3] * axes)
        with pytest.raises(ValueError, match=r"expected precision to be .* got 'int8'"):
            function(x, weight, precision="int8")
