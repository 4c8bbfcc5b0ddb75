"""`convt.replace` and `convt.restore` on every kind of layer that models have."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

import convt

TORCHS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
OURS = (convt.ConvTranspose1d, convt.ConvTranspose2d, convt.ConvTranspose3d)


class Initialised(nn.ConvTranspose2d):
    """A subclass that does not touch what is computed."""

    def reset_parameters(self):
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)


class Doubled(nn.ConvTranspose2d):
    def forward(self, input, output_size=None):
        return 2 * super().forward(input, output_size)


def layer(**arguments):
    return nn.ConvTranspose2d(4, 4, 3, 2, **arguments)


def with_instance_forward():
    module = layer()
    module.forward = lambda x: x
    return module


# What the layer is, and why it is left; None if it is replaced.
LAYERS = {
    "1-D": (lambda: nn.ConvTranspose1d(4, 4, 3), None),
    "2-D": (layer, None),
    "3-D": (lambda: nn.ConvTranspose3d(4, 4, 3), None),
    "float64": (lambda: layer(dtype=torch.float64), None),
    "channels_last": (lambda: layer().to(memory_format=torch.channels_last), None),
    "eval, frozen parameters": (lambda: layer().eval().requires_grad_(False), None),
    "weight_norm": (lambda: parametrizations.weight_norm(layer()), None),
    "spectral_norm": (lambda: parametrizations.spectral_norm(layer()).eval(), None),
    "orthogonal": (lambda: parametrizations.orthogonal(layer(), "weight"), None),
    "old spectral_norm": (lambda: spectral_norm(layer()).eval(), None),
    "lazy": (lambda: nn.LazyConvTranspose2d(4, 3), None),
    "subclass": (lambda: Initialised(4, 4, 3, 2), None),
    "meta": (lambda: layer(device="meta"), None),
    "ours": (lambda: convt.ConvTranspose2d(4, 4, 3), None),
    "subclass with a forward": (lambda: Doubled(4, 4, 3), "Doubled has a forward of its own"),
    "forward of the instance": (with_instance_forward, "its forward is set on the instance"),
    "parametrized subclass": (
        lambda: parametrizations.weight_norm(Initialised(4, 4, 3, 2)),
        "ParametrizedInitialised is a parametrized subclass",
    ),
}
EACH = pytest.mark.parametrize("kind", LAYERS)


def images(module):
    axes = 1 if isinstance(module, nn.ConvTranspose1d) else 2
    axes = 3 if isinstance(module, nn.ConvTranspose3d) else axes
    like = next(module.parameters())
    return torch.randn(2, 4, *(5, 6, 4)[:axes], dtype=like.dtype, device=like.device)


@EACH
@pytest.mark.parametrize("root", [True, False])
def test_each_kind_of_layer(kind, root):
    make, why = LAYERS[kind]
    module = make()
    untouched = copy.deepcopy(module)
    model = module if root else nn.ModuleDict({"up": module})
    parameters = dict(module.named_parameters())
    report = convt.replace(model)
    (row,) = report.rows
    assert row.name == ("" if root else "up")
    assert row.module is module
    assert row.replaced == (why is None)
    assert why is None or row.note == why
    assert isinstance(module, OURS) == (why is None)
    assert isinstance(module, type(untouched).__bases__[0])
    for name, parameter in module.named_parameters():
        assert parameter is parameters[name]  # with its device, dtype, gradient and memory order
    assert module.training == untouched.training
    assert type(module).__name__ == type(untouched).__name__
    assert repr(module) == repr(untouched)
    x = images(module)
    answers = []
    for m in (module, untouched):
        torch.manual_seed(0)  # lazy layers are initialised at their first call
        answers.append(m(x))
    torch.testing.assert_close(*answers)
    convt.restore(model)
    assert not isinstance(module, OURS)
    torch.testing.assert_close(module(x), answers[0])


@EACH
def test_a_restored_layer_has_the_class_that_it_had(kind):
    module = LAYERS[kind][0]()
    before = type(module)
    convt.replace(module)
    convt.restore(module)
    if kind == "ours":
        assert type(module) is nn.ConvTranspose2d
    elif "norm" not in kind and kind != "orthogonal":
        assert type(module) is before
    else:  # torch makes a class for each parametrized layer
        assert type(module).__bases__ == before.__bases__


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.same = self.up
        self.rest = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 2, 3))

    def forward(self, x):
        return self.rest(self.same(self.up(x)))


def test_a_shared_layer_is_replaced_once_and_both_names_are_told():
    model = Decoder()
    report = convt.replace(model)
    assert [row.name for row in report] == ["up", "rest.1"]
    assert report.rows[0].note == "also same"
    assert model.up is model.same


def test_state_dicts_hooks_and_optimisers_go_on():
    model, reference = Decoder(), Decoder()
    reference.load_state_dict(model.state_dict())
    calls = []
    model.up.register_forward_hook(lambda *_: calls.append(1))
    steps = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, reference)]
    convt.replace(model)
    for _ in range(2):
        x = torch.randn(2, 4, 5, 6)
        for m, step in zip((model, reference), steps, strict=True):
            step.zero_grad()
            m(x).square().mean().backward()
            step.step()
    assert len(calls) == 4
    torch.testing.assert_close(model.state_dict(), reference.state_dict())


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
def test_old_weight_norm():
    module = weight_norm(layer())
    x = images(module)
    expected = module(x)
    convt.replace(module)
    assert type(module) is convt.ConvTranspose2d
    torch.testing.assert_close(module(x), expected)
    with torch.no_grad():
        module.weight_g.mul_(2)  # the weight is computed from it at each call
        module.bias.zero_()
    assert not torch.allclose(module(x), expected)


def test_parametrizations_can_be_removed_afterwards():
    module = parametrizations.weight_norm(layer())
    convt.replace(module)
    x = images(module)
    expected = module(x)
    remove_parametrizations(module, "weight")
    assert type(module) is convt.ConvTranspose2d
    torch.testing.assert_close(module(x), expected)


def test_parametrizations_can_be_registered_afterwards_and_the_layer_restored():
    module = layer()
    convt.replace(module)
    parametrizations.weight_norm(module)
    x = images(module)
    expected = module(x)
    convt.restore(module)
    assert type(module).__bases__ == (nn.ConvTranspose2d,)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("kind", ["2-D", "subclass", "lazy"])
def test_replaced_models_are_copied_and_saved(kind):
    model = nn.Sequential(LAYERS[kind][0]())
    convt.replace(model)
    x = torch.randn(2, 4, 5, 6)
    model(x)
    expected = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    )
    for other in copies:
        assert isinstance(other[0], convt.ConvTranspose2d)
        assert torch.equal(other(x), expected)
        assert not isinstance(convt.restore(other)[0], convt.ConvTranspose2d)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch: do not use quantised layers
def test_what_is_no_layer_of_torch_any_more_is_named():
    scripted = torch.jit.script(layer())
    (row,) = convt.replace(nn.Sequential(scripted)).rows
    assert (row.replaced, row.note) == (False, "compiled by torch.jit.script")
    quantised = torch.ao.nn.quantized.dynamic.ConvTranspose2d(4, 4, 3)
    (row,) = convt.replace(nn.Sequential(quantised)).rows
    assert not row.replaced
    assert row.note == "torch.ao.nn.quantized.dynamic.modules.conv is not torch.nn"


def test_a_compiled_model_is_replaced():
    model = Decoder()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.randn(1, 4, 3, 3)
    expected = compiled(x)
    assert all(row.replaced for row in convt.replace(compiled))
    torch.testing.assert_close(compiled(x), expected)


def test_the_report_is_a_table_with_plans_for_the_sizes_of_a_run():
    model = nn.Sequential(Decoder(), Doubled(2, 2, 3))
    report = convt.replace(model, inputs=(torch.randn(3, 4, 5, 6),))
    lines = str(report).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["0.up", "0.rest.1", "1"]
    assert lines[2].endswith("at 3x4x5x6")
    assert lines[3].endswith("at 3x4x18x22")
    assert "kept: Doubled has a forward of its own" in lines[4]
    assert lines[5] == "2 of 3 are convt's"
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert str(convt.replace(nn.ReLU())) == "no transposed convolution in this model"


def test_frozen_where_a_packed_weight_is_kept():
    model = nn.Sequential(
        layer(), parametrizations.weight_norm(layer()), nn.ConvTranspose1d(4, 4, 3)
    ).requires_grad_(False)
    notes = [row.note for row in convt.replace(model, freeze=True)]
    assert notes[0] == notes[2] == "frozen"
    assert notes[1].startswith("not frozen: ")
    assert "expected weight to be a Parameter" in notes[1]
    assert model[0].frozen
    convt.restore(model)
    assert type(model[0]) is nn.ConvTranspose2d
    assert "_frozen" not in vars(model[0]) or model[0]._frozen is None


@pytest.mark.gpu
def test_plans_on_a_gpu_name_a_kernel():
    model = nn.Sequential(nn.ConvTranspose2d(64, 64, 2, 2)).cuda()
    (row,) = convt.replace(model, inputs=(torch.randn(8, 64, 32, 32, device="cuda"),))
    assert row.plan.endswith("at 8x64x32x32")
    assert "no CUDA device" not in row.plan
