"""`convt.replace(fuse=True)`: BatchNorms folded into the transposed convolutions before them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import convt

CASES = {
    "plain": (nn.ConvTranspose2d, nn.BatchNorm2d, {}),
    "no bias": (nn.ConvTranspose2d, nn.BatchNorm2d, {"bias": False}),
    "groups": (nn.ConvTranspose2d, nn.BatchNorm2d, {"groups": 2, "stride": 2}),
    "depthwise": (nn.ConvTranspose2d, nn.BatchNorm2d, {"groups": 4, "bias": False}),
    "geometry": (
        nn.ConvTranspose2d,
        nn.BatchNorm2d,
        {"stride": 3, "padding": 1, "output_padding": 2, "dilation": 2},
    ),
    "1-D": (nn.ConvTranspose1d, nn.BatchNorm1d, {"groups": 2}),
    "3-D": (nn.ConvTranspose3d, nn.BatchNorm3d, {"groups": 2, "stride": 2}),
}


def used(norm):
    """The BatchNorm as it is after some training, in eval mode."""
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.2, 3)
        if norm.affine:
            norm.weight.normal_()
            norm.bias.normal_()
    return norm.eval()


def block(name="plain", out_channels=8, **norm):
    torch.manual_seed(0)
    layer, batch_norm, arguments = CASES[name]
    return nn.Sequential(
        layer(4, out_channels, 3, **arguments), used(batch_norm(out_channels, **norm)), nn.ReLU()
    ).eval()


def images(model):
    return torch.randn(2, 4, *(6, 5, 4)[: model[0].weight.dim() - 2])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("out_channels", [4, 8])  # as many as input channels, and more
@pytest.mark.parametrize("name", CASES)
def test_folded_and_unfolded(name, out_channels, affine):
    model = block(name, out_channels, affine=affine)
    before, x = copy.deepcopy(model), images(model)
    with torch.no_grad():
        expected = before(x)
        report = convt.replace(model, fuse=True)
        assert report.rows[0].note == "BatchNorm folded"
        assert type(model[1]) is nn.Identity
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
        convt.restore(model)
        assert type(model[1]) is type(before[1])
        assert torch.equal(model(x), expected)
    for key, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_torchs_own_folding_refuses_groups():
    """Why this is convt's own: once torch folds grouped layers, there is less need of it."""
    model = block("groups")
    with pytest.raises((RuntimeError, ValueError, AssertionError)):
        fuse_conv_bn_eval(model[0], model[1], transpose=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_memory_format_and_requires_grad_are_kept(dtype, memory_format):
    model = block("groups").to(dtype).to(memory_format=memory_format)
    model[0].weight.requires_grad_(False)
    convt.replace(model, fuse=True)
    assert model[0].weight.dtype == model[0].bias.dtype == dtype
    assert model[0].weight.is_contiguous(memory_format=memory_format)
    assert not model[0].weight.requires_grad


def test_parameters_that_come_back_follow_the_model():
    model = block()
    convt.replace(model, fuse=True)
    model.double()
    convt.restore(model)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(images(model).double()).dtype == torch.float64


class Net(nn.Module):
    """Calls its layers in an order that registration does not tell."""

    def __init__(self, uses):
        super().__init__()
        self.norm = used(nn.BatchNorm2d(4))
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.uses = uses
        self.eval()

    def forward(self, x):
        return self.uses(self, x)


def only_then_norm(net, x):
    return net.norm(net.up(x)).relu()


def data_dependent(net, x):
    if x.sum() > 0:
        return net.norm(net.up(x))
    return net.norm(net.up(-x))


NOT_FOLDED = {
    "used twice": (lambda net, x: net.norm(y := net.up(x)) + y, None),
    "called twice": (lambda net, x: net.norm(net.up(net.up(x))), None),
    "norm called twice": (lambda net, x: net.norm(net.norm(net.up(x))), None),
    "something between": (lambda net, x: net.norm(net.up(x).relu()), None),
    "not traceable": (data_dependent, None),
    "training": (only_then_norm, "BatchNorm not folded: it normalises by the batch"),
    "no running statistics": (only_then_norm, "BatchNorm not folded: it normalises by the batch"),
    "hook on the layer": (only_then_norm, "BatchNorm not folded: the layer has hooks"),
    "hook on the norm": (only_then_norm, "BatchNorm not folded: it has hooks"),
    "weight_norm": (only_then_norm, "BatchNorm not folded: the weight is computed at each call"),
    "shared": (only_then_norm, "BatchNorm not folded: it is registered more than once"),
}


def prepared(kind):
    net = Net(NOT_FOLDED[kind][0])
    if kind == "training":
        net.norm.train()
    elif kind == "no running statistics":
        net.norm = nn.BatchNorm2d(4, track_running_stats=False).eval()
    elif kind == "hook on the layer":
        net.up.register_forward_hook(lambda module, arguments, y: y + 1)
    elif kind == "hook on the norm":
        net.norm.register_forward_pre_hook(lambda module, arguments: (arguments[0] + 1,))
    elif kind == "weight_norm":
        nn.utils.parametrizations.weight_norm(net.up)
    elif kind == "shared":
        net.again = net.norm
    return net


@pytest.mark.parametrize("kind", NOT_FOLDED)
def test_what_must_not_be_folded_is_not(kind):
    net = prepared(kind)
    x = torch.randn(2, 4, 5, 6)
    expected = copy.deepcopy(net)(x)
    norm = net.norm
    (row,) = convt.replace(net, fuse=True)
    assert row.note == (NOT_FOLDED[kind][1] or "")
    assert net.norm is norm
    torch.testing.assert_close(net(x), expected)


def test_folded_in_a_traced_model_and_in_the_traceable_part_of_another():
    for net, folded in (
        (Net(only_then_norm), "up"),
        (nn.ModuleDict({"inner": block(), "outer": Net(data_dependent)}), "inner.0"),
    ):
        notes = {row.name: row.note for row in convt.replace(net, fuse=True)}
        assert notes[folded] == "BatchNorm folded"
        assert [note for name, note in notes.items() if name != folded] in ([], [""])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductors_freezing_leaves_our_layers_right():
    """torch 2.13 folds a BatchNorm into a transposed weight along the input channels there."""
    model = block(out_channels=4).eval()  # as many input channels as output channels
    x = images(model)
    with torch.no_grad():
        expected = model(x)
        convt.replace(model)
        with torch._inductor.config.patch(freezing=True):
            compiled = torch.compile(model)
            torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-5)
