"""Rows: making, changing, copying and saving layers."""

import copy
import inspect
import io
import pickle

import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, skip_init, spectral_norm, weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from tests.compatibility.suite import Side, row

GROUP = "making and changing layers"


@row(GROUP, "positional and keyword arguments have torch's names and order")
def signature(side: Side):
    names = list(inspect.signature(side.cls).parameters)
    return [name for name in names if name != "precision"]


@row(GROUP, "functions have torch's names and order")
def function_signature(side: Side):
    x, layer = side.images(), side.layer(stride=2)
    weight, bias = layer.weight, layer.bias
    return [
        side.function(x, weight, bias, 2, 1, 1, 1, 1),
        side.function(
            input=x, weight=weight, bias=bias, stride=2, padding=1, output_padding=1, groups=1,
            dilation=2,
        ),
    ]  # fmt: skip


@row(GROUP)
def repr_and_attributes(side: Side):
    layer = side.layer(stride=2, bias=False, output_padding=1)
    names = "in_channels out_channels kernel_size stride padding dilation transposed"
    names += " output_padding groups padding_mode"
    return [repr(layer), [getattr(layer, name) for name in names.split()]]


@row(GROUP, "isinstance of torch's class, and the class's name")
def isinstance_of_torchs(side: Side):
    layer = side.layer()
    return [isinstance(layer, Side(side.axes, False).cls), type(layer).__name__]


@row(GROUP)
def initialisation_under_a_seed(side: Side):
    return side.layer(groups=2).state_dict()


@row(GROUP, "device=, dtype=")
def device_and_dtype(side: Side):
    return [side.layer(dtype=torch.float64).weight, side.layer(device="meta").weight]


@row(GROUP)
def default_dtype_and_device(side: Side):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            return side.layer().weight
    finally:
        torch.set_default_dtype(torch.float32)


@row(GROUP, "meta, to_empty, load_state_dict")
def materialised(side: Side):
    layer = side.layer(device="meta").to_empty(device="cpu")
    layer.load_state_dict(side.layer().state_dict())
    return layer(side.images())


@row(GROUP, "torch.nn.utils.skip_init")
def skipped_init(side: Side):
    layer = skip_init(side.cls, 4, 6, 3)
    layer.load_state_dict(side.layer().state_dict())
    return layer(side.images())


for _case, _keywords in {
    "groups that do not divide the channels": {"groups": 3},
    "groups 0": {"groups": 0},
    "an unknown padding_mode": {"padding_mode": "mirror"},
    "padding_mode reflect": {"padding_mode": "reflect"},
    "a dtype of integers": {"dtype": torch.int64},
}.items():

    @row(GROUP, f"refused: {_case}")
    def refused(side: Side, keywords=_keywords):
        return side.layer(**keywords)


@row(GROUP, "refused: no kernel size")
def refused_arguments(side: Side):
    return side.cls(4, 6)


@row(GROUP)
def lazy_layers(side: Side):
    torch.manual_seed(0)
    layer = side.lazy(6, 3, stride=2)
    before = repr(layer)
    torch.manual_seed(0)
    return [before, layer(side.images()), repr(layer), list(layer.state_dict())]


@row(GROUP)
def lazy_layers_load_a_state_dict(side: Side):
    layer = side.lazy(6, 3)
    layer.load_state_dict(side.layer().state_dict())
    return layer(side.images())


for _name, _change in {
    "double()": lambda m: m.double(),
    "half()": lambda m: m.half(),
    "bfloat16()": lambda m: m.bfloat16(),
    "to(float64), and back": lambda m: m.to(torch.float64).float(),
    "requires_grad_(False)": lambda m: m.requires_grad_(False),
    "train(False)": lambda m: m.train(False),
    "share_memory()": lambda m: m.share_memory(),
    "reset_parameters()": lambda m: (torch.manual_seed(3), m.reset_parameters(), m)[-1],
    "apply()": lambda m: m.apply(
        lambda child: nn.init.constant_(child.weight, 0.5) if hasattr(child, "weight") else None
    ),
    "weight assigned": lambda m: (
        setattr(m, "weight", nn.Parameter(torch.full_like(m.weight, 0.1))),
        m,
    )[-1],
    "weight.data assigned": lambda m: (
        setattr(m.weight, "data", torch.full_like(m.weight, 0.1)),
        m,
    )[-1],
    "weight.data changed in place": lambda m: (m.weight.data.mul_(2), m)[-1],
    "stride and padding assigned": lambda m: (
        setattr(m, "stride", (2,) * (m.weight.dim() - 2)),
        setattr(m, "padding", (1,) * (m.weight.dim() - 2)),
        m,
    )[-1],
    "bias removed": lambda m: (setattr(m, "bias", None), m)[-1],
}.items():

    @row(GROUP, _name)
    def changed(side: Side, change=_change):
        layer = side.layer()
        with torch.no_grad():
            layer(side.images())
        layer = change(layer)
        x = side.images().to(layer.weight.dtype)
        with torch.no_grad():
            return [layer.training, layer.weight.requires_grad, layer(x), layer(x)]


@row(GROUP, "to(memory_format=)", axes=(2, 3))
def memory_format(side: Side):
    layer = side.layer().to(
        memory_format=torch.channels_last if side.axes == 2 else torch.channels_last_3d
    )
    return [layer.weight, layer(side.images())]


SAVING = "copying and saving"


def _via_file(value, **options):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, **options)


@row(SAVING, "copy.deepcopy")
def deepcopied(side: Side):
    layer = copy.deepcopy(side.layer(stride=2))
    return layer(side.images())


@row(SAVING, "pickle")
def pickled(side: Side):
    return pickle.loads(pickle.dumps(side.layer(stride=2)))(side.images())


@row(SAVING, "torch.save of a model")
def saved(side: Side):
    return _via_file(side.net(), weights_only=False)(side.images())


@row(SAVING, "state_dict, weights_only=True")
def saved_state(side: Side):
    net = side.net()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    net.load_state_dict(_via_file(side.net().state_dict(), weights_only=True))
    return net(side.images())


@row(SAVING, "torch's checkpoint into ours, and ours into torch's")
def crossed(side: Side):
    other = Side(side.axes, not side.ours).net()
    net = side.net()
    return [str(net.load_state_dict(other.state_dict())), net(side.images())]


@row(SAVING, "load_state_dict(assign=True)")
def assigned(side: Side):
    layer = side.layer()
    layer.load_state_dict(side.layer(dtype=torch.float64).state_dict(), assign=True)
    return layer(side.images(dtype=torch.float64))


@row(SAVING, "load_state_dict refuses what does not fit")
def refused_state(side: Side):
    return side.layer().load_state_dict(side.layer(4, 6, 2).state_dict())


@row(SAVING, "state_dict hooks and prefixes")
def state_hooks(side: Side):
    layer = side.layer()
    layer.register_state_dict_post_hook(
        lambda module, state, prefix, _: state.update({f"{prefix}more": torch.ones(1)})
    )
    return sorted(nn.ModuleDict({"up": layer}).state_dict())


WRAPPED = "what wraps a weight"


def _parametrized(wrap):
    def check(side: Side):
        layer = wrap(side.layer(stride=2)).eval()
        x = side.images()
        return [layer(x), sorted(layer.state_dict()), type(layer).__name__]

    return check


for _name, _wrap in {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": lambda m: parametrizations.orthogonal(m, "weight"),
    "weight_norm before torch 2.0": weight_norm,
    "spectral_norm before torch 2.0": spectral_norm,
    "prune.l1_unstructured": lambda m: prune.l1_unstructured(m, "weight", 0.5),
    "prune.ln_structured": lambda m: prune.ln_structured(m, "weight", 0.5, 2, 0),
}.items():
    row(WRAPPED, _name)(_parametrized(_wrap))


@row(WRAPPED)
def parametrizations_removed(side: Side):
    layer = parametrizations.weight_norm(side.layer())
    remove_parametrizations(layer, "weight")
    return [type(layer).__name__, layer(side.images())]


@row(WRAPPED)
def pruning_made_permanent(side: Side):
    layer = prune.l1_unstructured(side.layer(), "weight", 0.5)
    layer(side.images())
    prune.remove(layer, "weight")
    return layer(side.images())


@row(WRAPPED, "gradients through weight_norm")
def weight_norm_gradients(side: Side):
    layer = parametrizations.weight_norm(side.layer())
    layer(side.images()).square().sum().backward()
    return {name: p.grad for name, p in layer.named_parameters()}
