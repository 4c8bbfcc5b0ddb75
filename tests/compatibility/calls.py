"""Rows: calls of layers and functions, their gradients, and torch's function transforms."""

import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from tests.compatibility.suite import SIZES, Side, row

GEOMETRIES = {
    "defaults": {},
    "stride 2": {"stride": 2},
    "stride 2, padding 1, output_padding 1": {"stride": 2, "padding": 1, "output_padding": 1},
    "dilation 2": {"dilation": 2, "padding": 1},
    "stride over kernel": {"stride": 5},
    "output_padding over stride": {"dilation": 3, "output_padding": 2},
    "groups 2": {"stride": 2, "groups": 2},
    "no bias": {"stride": 2, "bias": False},
    "everything": {"stride": 3, "padding": 2, "output_padding": 1, "dilation": 2, "groups": 2},
}
GROUP, GRADIENTS = "calls", "gradients"

for _name, _keywords in GEOMETRIES.items():

    @row(GROUP, f"values, {_name}")
    def values(side: Side, keywords=_keywords):
        with torch.no_grad():
            return side.layer(**keywords)(side.images())

    @row(GRADIENTS, _name)
    def gradients(side: Side, keywords=_keywords):
        layer, x = side.layer(**keywords), side.images().requires_grad_()
        y = layer(x)
        y.square().mean().backward()
        return [y, x.grad, [p.grad for p in layer.parameters()]]


@row(GROUP, "depthwise")
def depthwise(side: Side):
    return side.layer(4, 4, 3, stride=2, groups=4)(side.images())


@row(GROUP, "kernel 1")
def kernel_one(side: Side):
    return side.layer(4, 6, 1)(side.images())


def _off_by_one_number(x):
    return torch.cat([x.flatten()[:1], x.flatten()])[1:].view_as(x)


for _name, _input in {
    "unbatched": lambda side: side.images(None),
    "an empty batch": lambda side: side.images(0),
    "a transposed input": lambda side: (
        side.images().transpose(-1, -2)
        if side.axes > 1
        else side.images().transpose(0, 2).contiguous().transpose(0, 2)
    ),
    "an expanded input": lambda side: side.images(1).expand(3, *[-1] * (side.axes + 1)),
    "every other channel": lambda side: side.images(channels=8)[:, ::2],
    "an input off 16 bytes": lambda side: _off_by_one_number(side.images()),
    "a negative view": lambda side: torch._neg_view(side.images()),
}.items():

    @row(GROUP, _name)
    def inputs(side: Side, make=_input):
        return side.layer(stride=2)(make(side))


@row(GROUP, "channels_last input", axes=(2, 3))
def channels_last(side: Side):
    fmt = torch.channels_last if side.axes == 2 else torch.channels_last_3d
    return side.layer(stride=2)(side.images().contiguous(memory_format=fmt))


for _dtype in (torch.float64, torch.bfloat16, torch.complex64):

    @row(GROUP, str(_dtype).removeprefix("torch."))
    def dtypes(side: Side, dtype=_dtype):
        return side.layer(dtype=dtype)(side.images(dtype=dtype))


@row(GROUP, "no_grad, inference_mode, inference tensors")
def modes(side: Side):
    layer, x = side.layer(), side.images()
    with torch.inference_mode():
        inference = layer(x)
        again = layer(x + 0)
    with torch.no_grad():
        return [layer(x), inference.is_inference(), again.clone()]


for _name, _size in {
    "a list": list,
    "a torch.Size": torch.Size,
    "with batch and channels": lambda size: (2, 6, *size),
    "out of reach": lambda size: [n + 9 for n in size],
    "too short": lambda size: [n - 1 for n in size],
    "of too many axes": lambda size: [1, 1, 1, *size],
}.items():

    @row(GROUP, f"output_size, {_name}")
    def output_size(side: Side, make=_size):
        layer, x = side.layer(stride=2), side.images()
        size = [2 * n + 2 for n in SIZES[: side.axes]]
        return layer(x, output_size=make(size))


ONE = torch.ones(())
for _name, _call in {
    "no tensor": lambda side: side.layer()([1.0]),
    "an array of numpy": lambda side: side.layer()(side.images().numpy()),
    "other channels": lambda side: side.layer()(side.images(channels=3)),
    "too few axes": lambda side: side.layer()(torch.ones(4)),
    "too many axes": lambda side: side.layer()(side.images()[None]),
    "another dtype": lambda side: side.layer()(side.images(dtype=torch.float64)),
    "integers": lambda side: side.layer()(side.images().int()),
    "a nested tensor": lambda side: side.layer()(torch.nested.nested_tensor([*side.images()])),
    "a sparse tensor": lambda side: side.layer()(side.images().to_sparse()),
    "an empty output": lambda side: side.layer(padding=9)(side.images()),
    "stride 0": lambda side: side.function(side.images(), side.layer().weight, stride=0),
    "negative padding": lambda side: side.function(side.images(), side.layer().weight, padding=-1),
    "float stride": lambda side: side.function(side.images(), side.layer().weight, stride=1.5),
    "stride as text": lambda side: side.function(side.images(), side.layer().weight, stride="2"),
    "a stride for another number of axes": lambda side: side.function(
        side.images(), side.layer().weight, stride=(1,) * (side.axes + 1)
    ),
    "output_padding too large": lambda side: side.function(
        side.images(), side.layer().weight, output_padding=7
    ),
    "groups that do not divide": lambda side: side.function(
        side.images(), side.layer().weight, groups=3
    ),
    "a weight of other axes": lambda side: side.function(side.images(), side.layer().weight[0]),
    "a bias of another size": lambda side: side.function(
        side.images(), side.layer().weight, torch.ones(5)
    ),
    "a bias of another dtype": lambda side: side.function(
        side.images(), side.layer().weight, torch.ones(6, dtype=torch.float64)
    ),
    "an unknown argument": lambda side: side.function(
        side.images(), side.layer().weight, kernel_size=3
    ),
    "stride 2**63": lambda side: side.function(side.images(), side.layer().weight, stride=2**63),
}.items():
    row("refused calls, same type of exception", _name)(_call)

REFUSED_ON_META = "torch tells a size; ours refuses operands of two devices, as it does on GPUs"


@row(GROUP, "meta input, CPU weight", (1, 2, 3), REFUSED_ON_META, unsupported=True)
def on_two_devices(side: Side):
    return side.layer()(side.images(device="meta"))


@row(GRADIENTS, "gradcheck and gradgradcheck")
def checked(side: Side):
    inputs = [
        side.images(1, dtype=torch.float64)[..., :3].requires_grad_(),
        *side.layer(dtype=torch.float64, groups=2).parameters(),
    ]

    def call(x, weight, bias):
        return side.function(x, weight, bias, stride=2, groups=2)

    return [
        gradcheck(call, inputs, fast_mode=True),
        gradgradcheck(call, inputs, fast_mode=True),
    ]


@row(GRADIENTS, "a gradient penalty: create_graph=True")
def penalty(side: Side):
    layer, x = side.layer(), side.images().requires_grad_()
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    first.square().sum().backward()
    return [x.grad, layer.weight.grad]


@row(GRADIENTS)
def frozen_weight(side: Side):
    layer, x = side.layer().requires_grad_(False), side.images().requires_grad_()
    layer(x).sum().backward()
    return [x.grad, layer.weight.grad is None]


@row(GRADIENTS)
def only_the_bias(side: Side):
    layer = side.layer()
    layer.weight.requires_grad_(False)
    layer(side.images()).sum().backward()
    return layer.bias.grad


@row(GRADIENTS)
def accumulated(side: Side):
    layer = side.layer()
    for _ in range(2):
        layer(side.images()).sum().backward()
    return [p.grad for p in layer.parameters()]


@row(GRADIENTS, "a graph used twice: retain_graph, and the error without")
def retained(side: Side):
    layer = side.layer()
    y = layer(side.images()).sum()
    y.backward(retain_graph=True)
    y.backward()
    y.backward()


@row(GRADIENTS, "the error where the weight was changed before backward")
def changed_before_backward(side: Side):
    layer = side.layer()
    y = layer(side.images().requires_grad_())
    with torch.no_grad():
        layer.weight.add_(1)
    y.sum().backward()


@row(GRADIENTS)
def anomaly_mode(side: Side):
    with torch.autograd.set_detect_anomaly(True):
        layer = side.layer()
        layer(side.images()).sum().backward()
        return layer.weight.grad


@row(GRADIENTS)
def tensor_hooks(side: Side):
    layer, x = side.layer(), side.images().requires_grad_()
    seen = []
    y = layer(x)
    y.register_hook(lambda g: seen.append(g) or g * 2)
    layer.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    y.sum().backward()
    return [seen, x.grad]


@row(GRADIENTS, "saved_tensors_hooks, save_on_cpu")
def saved(side: Side):
    layer, x = side.layer(), side.images().requires_grad_()
    count = []
    with saved_tensors_hooks(lambda t: count.append(tuple(t.shape)) or t, lambda t: t):
        y = layer(x)
    with save_on_cpu():
        z = layer(x)
    (y.sum() + z.sum()).backward()
    return [sorted(count), x.grad]


for _reentrant in (True, False):

    @row(GRADIENTS, f"checkpoint, use_reentrant={_reentrant}")
    def checkpointed(side: Side, reentrant=_reentrant):
        net, x = side.net(), side.images().requires_grad_()
        checkpoint(net, x, use_reentrant=reentrant).sum().backward()
        return [x.grad, [p.grad for p in net.parameters()]]


FUNC = "torch.func and forward mode"


def _loss(side, layer):
    def loss(parameters, x):
        return functional_call(layer, parameters, (x,)).square().sum()

    return loss


def _parameters(layer):
    return {name: p.detach() for name, p in layer.named_parameters()}


@row(FUNC, "functional_call, grad")
def func_grad(side: Side):
    layer = side.layer()
    return grad(_loss(side, layer))(_parameters(layer), side.images())


@row(FUNC, "gradients per sample: vmap of grad")
def per_sample(side: Side):
    layer = side.layer()
    call = vmap(grad(_loss(side, layer)), in_dims=(None, 0))
    return call(_parameters(layer), side.images(3)[:, None])


@row(FUNC, "an ensemble: vmap over stacked layers")
def ensemble(side: Side):
    layers = [side.layer(), side.layer(stride=1)]
    parameters, _ = stack_module_state(layers)

    def call(parameters, x):
        return functional_call(layers[0], parameters, (x,))

    return vmap(call, in_dims=(0, None))(parameters, side.images())


@row(FUNC, "jvp")
def func_jvp(side: Side):
    layer, x = side.layer(stride=2), side.images()
    return jvp(layer, (x,), (x * 2,))


@row(FUNC, "jacrev")
def func_jacrev(side: Side):
    layer = side.layer(4, 1, 1)
    return jacrev(layer)(side.images(1)[..., :2])


@row(FUNC, "hessian")
def func_hessian(side: Side):
    layer = side.layer(4, 1, 1)
    return hessian(lambda x: layer(x).pow(3).sum())(side.images(1)[..., :1])


@row(FUNC, "forward-mode AD")
def dual_numbers(side: Side):
    layer, x = side.layer(), side.images()
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(layer(forward_ad.make_dual(x, x * 3))).tangent


HOOKS = "hooks"


@row(HOOKS)
def forward_and_pre_hooks(side: Side):
    layer, x = side.layer(), side.images()
    layer.register_forward_pre_hook(lambda module, arguments: (arguments[0] + 1,))
    layer.register_forward_hook(lambda module, arguments, y: y * 2)
    return [layer(x), layer(x)]


@row(HOOKS)
def hooks_with_keywords(side: Side):
    layer, seen = side.layer(stride=2), []
    layer.register_forward_pre_hook(
        lambda module, arguments, keywords: seen.append(sorted(keywords)), with_kwargs=True
    )
    size = [2 * n + 1 for n in SIZES[: side.axes]]
    return [layer(side.images(), output_size=size), seen]


@row(HOOKS)
def full_backward_hooks(side: Side):
    layer, x, seen = side.layer(), side.images().requires_grad_(), []
    layer.register_full_backward_pre_hook(lambda module, grad: (grad[0] * 2,))
    layer.register_full_backward_hook(lambda module, given, grad: seen.append([given, grad]))
    layer(x).sum().backward()
    return [seen, x.grad]


@row(HOOKS)
def hooks_of_all_modules(side: Side):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, arguments, y: seen.append(type(module).__name__)
    )
    try:
        side.net()(side.images())
    finally:
        handle.remove()
    return seen


@row(HOOKS)
def a_forward_set_on_the_instance(side: Side):
    layer = side.layer()
    layer.forward = lambda x: x * 2
    return layer(side.images())


@row(HOOKS)
def a_subclass_that_calls_super(side: Side):
    class Doubled(side.cls):
        def forward(self, input, output_size=None):
            return 2 * super().forward(input, output_size)

    torch.manual_seed(0)
    return Doubled(4, 6, 3)(side.images())
