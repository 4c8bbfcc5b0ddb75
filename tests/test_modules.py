"""The modules against torch's, and the weight they use against everything that can change it."""

import contextlib
import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations

import convt
from convt import functional

MODULES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "pairs": {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "dilation": (1, 2)},
    "ints, groups": {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 2},
    "no bias": {"stride": 2, "bias": False},
    "double": {"stride": 2, "dtype": torch.float64},
}


def pair_of_modules(name, kernel_size=3):
    torch.manual_seed(0)
    ours = convt.ConvTranspose2d(4, 6, kernel_size, **MODULES[name])
    torch.manual_seed(0)
    return ours, nn.ConvTranspose2d(4, 6, kernel_size, **MODULES[name])


def images(module, *size):
    return torch.randn(*(size or (2, 4, 5, 7)), dtype=module.weight.dtype)


@pytest.mark.parametrize("name", MODULES)
def test_drop_in(name):
    ours, theirs = pair_of_modules(name, (3, 2))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)  # same initialisation under one seed
    assert repr(ours) == repr(theirs)
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            for x in (images(ours), images(ours, 4, 5, 7), images(ours, 0, 4, 5, 7)):
                y, expected = ours(x), theirs(x)
                assert torch.equal(y, expected)
                assert y.stride() == expected.stride()
                assert y.requires_grad == expected.requires_grad


@pytest.mark.parametrize("size", [(9, 14), (10, 13), (2, 6, 10, 14), [9, 13], torch.Size([10, 14])])
def test_output_size(size):
    ours, theirs = pair_of_modules("no bias")
    ours.padding = theirs.padding = (1, 1)
    x = images(ours)
    y = ours(x, output_size=size)
    assert tuple(y.shape[2:]) == tuple(size[-2:])
    assert torch.equal(y, theirs(x, output_size=size))
    assert torch.equal(ours(x), theirs(x))
    unbatched = size[-2:]
    assert torch.equal(ours(x[0], unbatched), theirs(x[0], unbatched))


@pytest.mark.parametrize("size", [(20, 13), (8, 13), (9, 13, 1), (9,)])
def test_output_size_out_of_reach(size):
    ours, theirs = pair_of_modules("no bias")
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="output"):
            module(images(ours), output_size=size)


def test_state_dict_goes_both_ways():
    ours, theirs = pair_of_modules("pairs")
    x = images(ours)
    ours.reset_parameters()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(x), theirs(x))
    theirs.reset_parameters()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))


def test_changed_attributes_are_followed():
    ours, theirs = pair_of_modules("defaults")
    x = images(ours)
    ours(x)
    for name, value in (("stride", (3, 2)), ("padding", (1, 0)), ("output_padding", (1, 1))):
        setattr(ours, name, value)
        setattr(theirs, name, value)
        assert torch.equal(ours(x), theirs(x))


def test_torchs_module_can_become_ours():
    _, theirs = pair_of_modules("pairs")
    x = images(theirs)
    expected = theirs(x)
    theirs.__class__ = convt.ConvTranspose2d
    assert torch.equal(theirs(x), expected)
    assert copy.deepcopy(theirs).precision is None


def test_precision_is_shown_and_used(monkeypatch):
    module = convt.ConvTranspose2d(4, 6, 3, precision="fp16")
    assert repr(module).endswith(", precision='fp16')")
    used = []
    monkeypatch.setattr(functional, "call", lambda *args: used.append(args[4]))
    module(images(module))
    module.precision = None
    module(images(module))
    assert used == [2, "conv"]


@pytest.mark.parametrize(
    "arguments",
    [(4, 6, 3), (4, 6, (3, 2), (2, 1), (1, 0), (1, 2), True), (32, 64, 3, 5, 1, 2)],
    ids=["defaults", "pairs", "headline"],
)
def test_model_new(arguments):
    in_channels, out_channels, kernel_size, *rest = arguments
    stride, padding, dilation, bias = rest + [1, 0, 1, False][len(rest) :]
    torch.manual_seed(0)
    model = convt.ModelNew(*arguments)
    torch.manual_seed(0)
    expected = nn.ConvTranspose2d(
        in_channels, out_channels, kernel_size, stride, padding, bias=bias, dilation=dilation
    )
    names = ["conv.weight", "conv.bias"] if bias else ["conv.weight"]
    assert list(model.state_dict()) == names
    assert torch.equal(model.conv.weight, expected.weight)
    x = torch.randn(2, in_channels, 4, 5)
    assert torch.equal(model(x), expected(x))


# The weight: every call reads it as it is, and a frozen layer knows what it is of.


@pytest.fixture
def module():
    torch.manual_seed(0)
    return convt.ConvTranspose2d(4, 6, 3, 2)


def is_current(layer):
    """Whether a call of a frozen layer would use what it keeps."""
    return layer._is_current()


def step(module, optimizer, **options):
    module(images(module)).sum().backward()
    optimizer(module.parameters(), lr=0.1, **options).step()


def other_state(module):
    return {key: torch.randn_like(value) for key, value in module.state_dict().items()}


def under(mode, change):
    def changed(module):
        with mode():
            change(module)

    return changed


def replace(module):
    module.weight = nn.Parameter(torch.randn_like(module.weight))


def assign_data(module):
    module.weight.data = torch.randn_like(module.weight)


def transpose_data(module):
    module.weight.data = module.weight.data.transpose(2, 3)


def update_vector(module):
    if not hasattr(module, "vector"):
        module.vector = nn.utils.parameters_to_vector(module.parameters()).detach()
        nn.utils.vector_to_parameters(module.vector, module.parameters())
    module.vector.mul_(2)


def average(module):
    other = convt.ConvTranspose2d(4, 6, 3, 2)
    for mean, new in zip(module.parameters(), other.parameters(), strict=True):
        mean.data.mul_(0.9).add_(new.data, alpha=0.1)


def all_reduce(module):
    with one_process():
        module.weight.data.mul_(2)
        torch.distributed.all_reduce(module.weight.data)


@contextlib.contextmanager
def one_process():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def in_compiled_step(module):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1, fused=True)
    module(images(module)).sum().backward()
    torch.compile(optimizer.step, backend="eager")()


# Torch shows these, and a frozen layer sees them.
SHOWN = {
    "in place, no_grad": under(torch.no_grad, lambda m: m.weight.add_(1)),
    "in place, inference mode": under(torch.inference_mode, lambda m: m.weight.add_(1)),
    "one element": under(torch.no_grad, lambda m: m.weight[0, 0, 0, 0].fill_(7)),
    "through detach()": lambda m: m.weight.detach().zero_(),
    "through state_dict()": lambda m: m.state_dict()["weight"].zero_(),
    "reset_parameters": lambda m: m.reset_parameters(),
    "SGD": lambda m: step(m, torch.optim.SGD),
    "AdamW": lambda m: step(m, torch.optim.AdamW),
    "another Parameter": replace,
    ".data assigned": assign_data,
    ".data assigned a view of itself": transpose_data,
    "swapped": lambda m: torch.utils.swap_tensors(
        m.weight, nn.Parameter(torch.randn_like(m.weight))
    ),
}
# These go through the module, which packs anew.
REPACKED = {
    "load_state_dict": lambda m: m.load_state_dict(other_state(m)),
    "load_state_dict, assigned": lambda m: m.load_state_dict(other_state(m), assign=True),
    "double()": lambda m: m.double(),
    "half() and back": lambda m: m.half().float(),
    "channels_last": lambda m: m.to(memory_format=torch.channels_last),
    "share_memory": lambda m: m.share_memory(),
}
# Torch shows these to nobody: no version changes.
HIDDEN = {
    **{
        f"{optimizer.__name__}(fused=True)": lambda m, o=optimizer: step(m, o, fused=True)
        for optimizer in (
            torch.optim.Adam,
            torch.optim.AdamW,
            torch.optim.SGD,
            torch.optim.Adagrad,
        )
    },
    "Adam(fused=True), compiled": in_compiled_step,
    ".data.copy_()": lambda m: m.weight.data.copy_(torch.randn_like(m.weight)),
    ".data.add_()": lambda m: m.weight.data.add_(1),
    ".data.clamp_()": lambda m: m.weight.data.clamp_(max=m.weight.max() / 2),
    ".data.normal_()": lambda m: m.weight.data.normal_(),
    ".data +=": lambda m: exec("m.weight.data += 1", {"m": m}),
    "vector_to_parameters, then the vector": update_vector,
    "a moving average of weights": average,
    "all_reduce": all_reduce,
}
CHANGES = {**SHOWN, **REPACKED, **HIDDEN}


@pytest.mark.parametrize("change", CHANGES)
def test_calls_see_every_change_of_the_weight(module, change):
    x = images(module)
    with torch.no_grad():
        before = module(x)
    CHANGES[change](module)
    x = x.to(module.weight.dtype)
    expected = F.conv_transpose2d(x, module.weight, module.bias, 2)
    assert change in REPACKED or not torch.allclose(before, expected)
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            assert torch.equal(module(x), expected)


@pytest.mark.parametrize("change", SHOWN)
def test_a_frozen_layer_sees_what_torch_shows(module, change):
    assert module.freeze() is module
    for _ in range(2):
        assert is_current(module)
        assert torch.equal(module._frozen.packed, module.weight)
        SHOWN[change](module)
        assert not is_current(module)
        assert "frozen with another weight" in repr(module)
        module.freeze()
    assert module._frozen.packed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("change", REPACKED)
def test_a_frozen_layer_packs_anew(module, change):
    module.freeze()
    for _ in range(2):
        REPACKED[change](module)
        assert is_current(module)
        assert torch.equal(module._frozen.packed, module.weight)
        assert module._frozen.packed.dtype == module.weight.dtype


@pytest.mark.parametrize("change", HIDDEN)
def test_a_frozen_layer_is_frozen_anew_after_what_torch_hides(module, change):
    """The list in the docstring of freeze(), which torch may make shorter one day."""
    HIDDEN[change](module)
    module.freeze()
    packed = module._frozen.packed
    before = packed.clone()
    HIDDEN[change](module)
    assert is_current(module)
    assert not torch.equal(packed, module.weight)
    assert torch.equal(packed, before)
    module.freeze()
    assert torch.equal(module._frozen.packed, module.weight)
    assert module._frozen.packed is packed  # where captured graphs read it


def test_unfreeze(module):
    assert repr(module.freeze()).endswith(", frozen)")
    assert module.unfreeze() is module
    assert module._frozen is None
    assert "frozen" not in repr(module)


def test_freeze_of_a_model():
    layers = [convt.ConvTranspose2d(4, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 4, 3)]
    model = nn.Sequential(*layers, nn.ModuleList([convt.ConvTranspose2d(4, 2, 3)]))
    assert convt.freeze(model) is model
    assert is_current(model[0])
    assert is_current(model[3][0])


@pytest.mark.parametrize("axes", [1, 3])
def test_freezing_in_one_and_three_dimensions(axes):
    kind = {1: convt.ConvTranspose1d, 3: convt.ConvTranspose3d}[axes]
    layer = convt.freeze(nn.Sequential(kind(4, 6, 3, 2)))[0]
    x = torch.randn(2, 4, *[5] * axes)
    assert layer.frozen
    assert is_current(layer)
    assert repr(layer).endswith(", frozen)")
    packed = layer._frozen.packed
    assert packed.movedim(1, -1).is_contiguous()
    assert torch.equal(packed.flatten(), convt.freezing.as_image(layer.weight).flatten())
    y = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.mul_(2)
    assert not is_current(layer)
    torch.testing.assert_close(layer(x), 2 * y)
    layer.half().float()
    assert is_current(layer)
    assert not copy.deepcopy(layer).frozen


def test_freezing_a_weight_in_channels_last_memory_copies_nothing(module):
    module.to(memory_format=torch.channels_last).freeze()
    assert module._frozen.packed.data_ptr() == module.weight.data_ptr()


def test_freezing_under_inference_mode():
    with torch.inference_mode():
        module = convt.ConvTranspose2d(4, 6, 3).freeze()
        assert is_current(module)
    module.load_state_dict(other_state(module), assign=True)
    assert is_current(module)
    assert torch.equal(module._frozen.packed, module.weight)


@pytest.mark.parametrize("on", ["cpu", "meta"])
def test_freezing_takes_a_module_on_any_device(on):
    module = convt.ConvTranspose2d(4, 6, 3, device=on).freeze()
    assert "frozen" in repr(module)
    assert module._frozen.packed.device.type == on
    assert module.to_empty(device="cpu")._frozen.packed.device.type == "cpu"


@pytest.mark.parametrize(
    "wrap",
    [parametrizations.weight_norm, parametrizations.spectral_norm],
    ids=["weight", "spectral"],
)
def test_parametrized_weight(wrap):
    ours, theirs = pair_of_modules("no bias")
    ours.freeze()
    for module in (ours, theirs):
        torch.manual_seed(0)
        wrap(module)
        module.eval()
    x = images(ours)
    assert torch.equal(ours(x), theirs(x))
    assert not is_current(ours)
    with pytest.raises(
        RuntimeError, match="expected weight to be a Parameter of the layer, got Te"
    ):
        convt.freeze(ours)


def test_functional_call_and_replicas_use_their_own_weight(module):
    module.freeze()
    x = images(module)
    other = {key: value.detach() for key, value in other_state(module).items()}
    expected = convt.conv_transpose2d(x, other["weight"], other["bias"], 2)
    with torch.inference_mode():
        assert torch.equal(torch.func.functional_call(module, other, (x,)), expected)
    replica = module._replicate_for_data_parallel()
    for key, value in other.items():
        setattr(replica, key, value)
    with torch.no_grad():
        assert torch.equal(replica(x), expected)
    assert not is_current(replica)


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m)), saved],
    ids=["deepcopy", "copy", "pickle", "torch.save"],
)
def test_copies_and_files_are_not_frozen(module, copied):
    never = copied(module)
    module.freeze()
    other = copied(module)
    assert other._frozen is None
    assert other.__dict__.keys() == never.__dict__.keys()
    assert other.state_dict().keys() == module.state_dict().keys() == {"weight", "bias"}
    assert is_current(module)
    x = images(module)
    assert torch.equal(other(x), module(x))


class Around(nn.Module):
    """One call on its input, and one on a buffer, which a tracer may take for a constant."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.register_buffer("ones", torch.ones(1, 4, 2, 2))

    def forward(self, x):
        return self.layer(x) + self.layer(self.ones)


class LeafTracer(torch.fx.Tracer):
    def is_leaf_module(self, module, name):
        return isinstance(module, convt.ConvTranspose2d)


@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
@pytest.mark.parametrize(
    "trace",
    [
        lambda m, x: torch.export.export(m, (x,)).module(),
        lambda m, x: torch.export.export(m, (x,), strict=True).module(),
        lambda m, x: make_fx(m)(x),
        lambda m, _: torch.compile(m, fullgraph=True, backend="eager"),
        lambda m, x: torch.jit.trace(m, x, check_trace=False),
        lambda m, _: torch.fx.GraphModule(m, LeafTracer().trace(m)),
    ],
    ids=["export", "strict export", "make_fx", "compile", "jit.trace", "FX"],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_traces_hold_every_call(module, trace, frozen):
    torch._dynamo.reset()
    if frozen:
        module.freeze()
    model = Around(module).eval()
    x = images(module, 1, 4, 2, 2)
    with torch.no_grad():
        traced = trace(model, x)
        torch.testing.assert_close(traced(x), model(x))
        model.ones.zero_()
        torch.testing.assert_close(traced(x), model(x))


@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_compiled_module_follows_its_weight(module, frozen):
    torch._dynamo.reset()
    if frozen:
        module.freeze()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = images(module)
    with torch.no_grad():
        for _ in range(2):
            expected = convt.conv_transpose2d(x, module.weight, module.bias, 2)
            assert torch.equal(compiled(x), expected)
            module.weight.add_(1)


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_compiled_on_a_gpu(memory_format):
    torch._dynamo.reset()
    layers = [
        convt.ConvTranspose2d(8, 16, 4, 2, 1),
        nn.ReLU(),
        convt.ConvTranspose2d(16, 3, 4, 2, 1),
    ]
    model = nn.Sequential(*layers).cuda().to(memory_format=memory_format)
    x = torch.randn(2, 8, 9, 9, device="cuda").contiguous(memory_format=memory_format)
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        y, expected = compiled(x), model(x)
    assert y.stride() == expected.stride()
    torch.testing.assert_close(y, expected, atol=1e-3, rtol=1e-3)
