"""`ConvTranspose1d`, `ConvTranspose3d` and the lazy modules beside torch's."""

import copy
import inspect
import pickle
import re
from typing import Any

import pytest
import torch
from torch import nn

import convt

CLASSES = {
    1: (convt.ConvTranspose1d, nn.ConvTranspose1d),
    2: (convt.ConvTranspose2d, nn.ConvTranspose2d),
    3: (convt.ConvTranspose3d, nn.ConvTranspose3d),
}
LAZY = {
    1: (convt.LazyConvTranspose1d, nn.LazyConvTranspose1d),
    2: (convt.LazyConvTranspose2d, nn.LazyConvTranspose2d),
    3: (convt.LazyConvTranspose3d, nn.LazyConvTranspose3d),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "stride, padding, output_padding": {"stride": 2, "padding": 1, "output_padding": 1},
    "output_padding over stride": {"output_padding": 2, "dilation": 3},
    "groups, no bias": {"stride": 3, "groups": 2, "bias": False, "dilation": 2},
    "float64": {"stride": 2, "dtype": torch.float64},
}
EACH = pytest.mark.parametrize("name", SETTINGS)
AXES = pytest.mark.parametrize("axes", [1, 3])


def pair_of(classes, name, axes, *channels):
    pair = []
    for cls in classes[axes]:
        torch.manual_seed(0)
        pair.append(cls(*channels, 3, **SETTINGS[name]))
    return pair


def images(axes, dtype=torch.float32):
    return torch.randn(2, 4, *(5, 6, 4)[:axes], dtype=dtype)


def test_signatures_are_torchs_with_a_precision():
    for ours, theirs in (*CLASSES.values(), *LAZY.values()):
        expected = list(inspect.signature(theirs).parameters)
        parameters = inspect.signature(ours).parameters
        assert list(parameters) == [*expected, "precision"]
        assert parameters["precision"].kind is inspect.Parameter.KEYWORD_ONLY
    for function in ("conv_transpose1d", "conv_transpose3d"):
        parameters = inspect.signature(getattr(convt, function)).parameters
        names = "input weight bias stride padding output_padding groups dilation precision"
        assert list(parameters) == names.split()


@AXES
@EACH
def test_drop_in(name, axes):
    ours, theirs = pair_of(CLASSES, name, axes, 4, 6)
    assert repr(ours) == repr(theirs)
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            batch = images(axes, ours.weight.dtype)
            for x in (batch, batch[0], batch[:0]):
                y, expected = ours(x), theirs(x)
                torch.testing.assert_close(y, expected)
                assert y.stride() == expected.stride()
                assert y.requires_grad == expected.requires_grad


@AXES
@EACH
def test_gradients_are_torchs(name, axes):
    ours, theirs = pair_of(CLASSES, name, axes, 4, 6)
    x = images(axes, ours.weight.dtype).requires_grad_()
    grads = []
    for module in (ours, theirs):
        y = module(x)
        torch.manual_seed(1)
        grads.append(torch.autograd.grad(y, [x, *module.parameters()], torch.randn_like(y)))
    torch.testing.assert_close(*grads)


@AXES
def test_output_size(axes):
    ours, theirs = pair_of(CLASSES, "groups, no bias", axes, 4, 6)
    x = images(axes)
    smallest = theirs(x).shape[2:]
    for extra in (0, 2):
        size = [n + extra for n in smallest]
        torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=size))
        torch.testing.assert_close(ours(x[0], size), theirs(x[0], size))
    for size in ([n + 3 for n in smallest], [n - 1 for n in smallest], [1] * (axes + 3)):
        for module in (ours, theirs):
            with pytest.raises(ValueError, match="output"):
                module(x, output_size=size)


@AXES
def test_precision_is_shown_and_checked(axes):
    cls = CLASSES[axes][0]
    assert repr(cls(4, 6, 3, precision="fp32")).endswith(", precision='fp32')")
    with pytest.raises(ValueError, match=r"expected precision to be .* got 'bf16'"):
        cls(4, 6, 3, precision="bf16")


WRONG_SIZES = [
    ("two", (1, 2), RuntimeError, "an int or a sequence of one, got (1, 2)"),
    ("no int", 1.5, TypeError, "an int or a sequence of one, got 1.5 of type float"),
    ("no ints", [1.5], TypeError, "an int or a sequence of one, got [1.5] of type list"),
]


@pytest.mark.parametrize(("value", "kind", "text"), [p[1:] for p in WRONG_SIZES],
                         ids=[p[0] for p in WRONG_SIZES])  # fmt: skip
def test_errors_name_the_function_that_was_called(value, kind, text):
    x, weight = torch.ones(2, 3, 7, device="meta"), torch.ones(3, 4, 2, device="meta")
    with pytest.raises(kind, match=re.escape(f"conv_transpose1d: expected dilation to be {text}")):
        convt.conv_transpose1d(x, weight, dilation=value)


@AXES
def test_torchs_module_can_become_ours_and_be_saved(axes):
    _, theirs = pair_of(CLASSES, "defaults", axes, 4, 6)
    x, cls = images(axes), CLASSES[axes][0]
    expected = theirs(x)
    theirs.__class__ = cls
    for module in (theirs, copy.deepcopy(theirs), pickle.loads(pickle.dumps(theirs))):
        assert type(module) is cls
        torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
@EACH
def test_lazy_modules_become_ours_at_their_first_call(name, axes):
    ours, theirs = pair_of(LAZY, name, axes, 6)
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, LAZY[axes][1])
    x = images(axes, SETTINGS[name].get("dtype", torch.float32))
    answers = []
    for module in (ours, theirs):
        torch.manual_seed(0)
        answers.append(module(x))
    torch.testing.assert_close(*answers)
    assert type(ours) is CLASSES[axes][0]
    assert ours.in_channels == 4
    torch.testing.assert_close(ours(x), theirs(x))


def test_one_dimension_does_not_copy_its_operands():
    """The op is called on views of the input and the weight."""
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append((op, args))
            return op(*args, **(kwargs or {}))

    x = images(1).as_subclass(type("Image", (torch.Tensor,), {}))  # plain CPU tensors are ATen's
    module = convt.ConvTranspose1d(4, 6, 3, 2)
    with torch.no_grad(), Watch():
        module(x)
    (call,) = [args for op, args in seen if op is torch.ops.convt.conv_transpose2d.default]
    assert call[0].data_ptr() == x.data_ptr()
    assert call[1].data_ptr() == module.weight.data_ptr()
    assert not any("copy" in str(op) or "clone" in str(op) for op, _ in seen)
