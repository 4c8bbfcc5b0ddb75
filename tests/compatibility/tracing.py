"""Rows: torch.fx, TorchScript, modes."""

import io

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.compatibility.suite import Side, row

FX = "torch.fx"


@row(FX, "symbolic_trace of a model")
def symbolic_trace(side: Side):
    net, x = side.net(), side.images()
    return fx.symbolic_trace(net)(x)


@row(FX, "ShapeProp, Interpreter")
def shape_prop(side: Side):
    traced, x = fx.symbolic_trace(side.net()), side.images()
    ShapeProp(traced).propagate(x)
    sizes = [tuple(node.meta["tensor_meta"].shape) for node in traced.graph.nodes]
    return [sizes[0], sizes[-1], fx.Interpreter(traced).run(x)]


@row(FX, "a pass that finds the layer as a function")
def found_by_a_pass(side: Side):
    torchs = getattr(nn.functional, f"conv_transpose{side.axes}d")

    class Call(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = side.layer().weight

        def forward(self, x):
            return side.function(x, self.weight, stride=2)

    traced = fx.symbolic_trace(Call())
    return [sum(node.target is torchs for node in traced.graph.nodes), traced(side.images())]


@row(FX, "saved and traced again")
def traced_again(side: Side):
    traced = fx.symbolic_trace(side.net())
    return fx.symbolic_trace(traced)(side.images())


@row(FX, "a feature extractor: the output of an inner node")
def features(side: Side):
    traced = fx.symbolic_trace(side.net())
    relu = next(node for node in traced.graph.nodes if node.target == "1")
    for node in list(traced.graph.nodes):
        if node.op == "output":
            node.args = (relu,)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced(side.images())


for _mode in ("real", "fake", "symbolic"):

    @row(FX, f"make_fx, {_mode}")
    def proxied(side: Side, mode=_mode):
        net, x = side.net().requires_grad_(False), side.images()
        return make_fx(net, tracing_mode=mode)(x)(x)


@row(FX, "fuse_conv_bn_eval(transpose=True)")
def fuse_conv_bn(side: Side):
    layer, norm = side.layer().eval(), side.norm(6).eval()
    norm.running_var.fill_(2)
    return fuse_conv_bn_eval(layer, norm, transpose=True)(side.images())


SCRIPT = "TorchScript"


@row(SCRIPT, "torch.jit.trace, its check on, gradients enabled")
def jit_trace(side: Side):
    net, x = side.net(), side.images()
    traced = torch.jit.trace(net, x)
    y = traced(x)
    y.sum().backward()
    return [y, [p.grad for p in net.parameters()]]


@row(SCRIPT, "torch.jit.trace without gradients, saved and loaded")
def jit_trace_saved(side: Side):
    with torch.no_grad():
        traced = torch.jit.trace(side.net(), side.images())
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        return torch.jit.load(file)(side.images(3))


@row(SCRIPT, "torch.jit.script")
def jit_script(side: Side):
    return torch.jit.script(side.net())(side.images())


@row(SCRIPT, "torch.jit.script with output_size, saved and loaded")
def jit_script_saved(side: Side):
    layer = torch.jit.script(side.layer(stride=2))
    file = io.BytesIO()
    torch.jit.save(layer, file)
    file.seek(0)
    x = side.images()
    size = [2 * n + 2 for n in x.shape[2:]]
    return torch.jit.load(file)(x, size)


@row(SCRIPT, "torch.jit.freeze, optimize_for_inference")
def jit_frozen(side: Side):
    scripted = torch.jit.script(side.net().eval())
    return torch.jit.optimize_for_inference(torch.jit.freeze(scripted))(side.images())


@row(SCRIPT, "a scripted model leaves the eager one as it was")
def jit_script_leaves_the_model(side: Side):
    net = side.net()
    torch.jit.script(net)
    return [type(net[0]) is side.cls, net(side.images())]


MODES = "modes of torch"


@row(MODES, "FakeTensorMode")
def fake(side: Side):
    with FakeTensorMode():
        y = side.layer(stride=2)(side.images())
    return [tuple(y.shape), y.stride(), y.dtype]


@row(MODES, "meta tensors")
def meta(side: Side):
    return side.layer(stride=2, device="meta")(side.images(device="meta"))


@row(MODES, "meta tensors under autocast")
def meta_autocast(side: Side):
    with torch.autocast(side.kind, torch.bfloat16):
        return side.layer(stride=2, device="meta")(side.images(device="meta"))


@row(MODES)
def deterministic_algorithms(side: Side):
    torch.use_deterministic_algorithms(True)
    try:
        layer = side.layer()
        layer(side.images()).sum().backward()
        return layer.weight.grad
    finally:
        torch.use_deterministic_algorithms(False)


@row(MODES, "a dispatch mode sees one op")
def dispatch_mode(side: Side):
    class Count(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            self.seen += "conv" in str(op)
            return op(*args, **(kwargs or {}))

    with Count() as count:
        y = side.layer()(side.images())
    return [y, count.seen]


@row(MODES, "a function mode sees torch's function")
def function_mode(side: Side):
    seen = []

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if "conv_transpose" in getattr(func, "__name__", ""):
                seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Seen():
        y = side.layer()(side.images())
    return [y, seen]


@row(MODES, "a subclass of Tensor comes back as one")
def tensor_subclass(side: Side):
    class Mine(torch.Tensor):
        pass

    y = side.layer()(side.images().as_subclass(Mine))
    return [type(y).__name__, y.as_subclass(torch.Tensor)]


@row(MODES, "threads")
def threads(side: Side):
    from concurrent.futures import ThreadPoolExecutor

    layer, x = side.layer(), side.images()
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: layer(x), range(16)))
    return [answers[0], all(torch.equal(y, answers[0]) for y in answers)]
