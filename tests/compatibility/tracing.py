"""Rows: torch.fx, TorchScript, export, compilers, quantisation, modes."""

import io

import torch
from torch import fx, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.export import Dim, draft_export, export, load, save
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


EXPORT = "export"


def _dynamic(x):
    return (dict.fromkeys((0, *range(2, x.dim())), Dim.DYNAMIC),)


for _strict in (False, True):

    @row(EXPORT, f"torch.export, {'strict' if _strict else 'non-strict'}")
    def exported(side: Side, strict=_strict):
        net, x = side.net(), side.images()
        return export(net, (x,), strict=strict).module()(x)


@row(EXPORT, "dynamic batch and size")
def exported_dynamic(side: Side):
    net, x = side.net(), side.images()
    module = export(net, (x,), dynamic_shapes=_dynamic(x)).module()
    return [module(x), module(torch.cat([x, x]))]


class _To(nn.Module):
    """The layer, asked for the size of another tensor."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, like):
        return self.layer(x, output_size=like.shape[2:])


@row(EXPORT, "output_size of another tensor, both dynamic: the same guards")
def exported_output_size(side: Side):
    x = side.images()
    like = x.new_ones(2, 6, *[2 * n + 2 for n in x.shape[2:]])
    model = _To(side.layer(stride=2))
    program = export(model, (x, like), dynamic_shapes=(*_dynamic(x), *_dynamic(like)))
    smaller = like[(..., *[slice(-1)] * side.axes)]
    free = [str(node.meta["val"].shape[2]) for node in program.graph.find_nodes(op="placeholder")]
    return [program.module()(x, smaller), program.module()(x, like), len(set(free[-2:]))]


@row(EXPORT, "draft_export, bias=None")
def drafted(side: Side):
    x = side.images()
    return draft_export(side.layer(bias=False), (x,)).module()(x)


@row(EXPORT, "saved and loaded")
def exported_saved(side: Side):
    x, file = side.images(), io.BytesIO()
    save(export(side.net(), (x,)), file)
    file.seek(0)
    return load(file).module()(x)


@row(EXPORT, "run_decompositions gives core ATen")
def decomposed(side: Side):
    x = side.images()
    program = export(side.net(), (x,)).run_decompositions()
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    return [
        all(node.target.namespace == "aten" for node in nodes),
        sum(node.target is torch.ops.aten.convolution.default for node in nodes),
        program.module()(x),
    ]


@row(EXPORT, "exported for training, with gradients")
def exported_training(side: Side):
    net, x = side.net(), side.images()
    module = export(net, (x,)).module()
    y = module(x)
    y.sum().backward()
    return [y, [p.grad for p in module.parameters()]]


COMPILED = "torch.compile"


@row(COMPILED, "fullgraph, aot_eager, with gradients")
def compiled(side: Side):
    net, x = side.net(), side.images().requires_grad_()
    y = torch.compile(net, backend="aot_eager", fullgraph=True)(x)
    y.sum().backward()
    return [y, x.grad, [p.grad for p in net.parameters()]]


@row(COMPILED, "no gradients; the weight changed between calls")
def compiled_inference(side: Side):
    net, x = side.net(), side.images()
    call = torch.compile(net, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        first = call(x)
        net[0].weight.mul_(2)
        return [first, call(x)]


@row(COMPILED, "as few graphs for many sizes")
def compiled_dynamic(side: Side):
    counter = CompileCounterWithBackend("aot_eager")
    call = torch.compile(side.layer(stride=2), backend=counter, fullgraph=True)
    answers = []
    for batch, more in ((2, 0), (3, 1), (5, 2), (4, 4)):
        x = side.images(batch)
        answers.append(call(torch.nn.functional.pad(x, (0, more) * side.axes, value=1)))
    return [answers, counter.frame_count]


@row(COMPILED, "output_size under dynamic=True: as few graphs")
def compiled_output_size(side: Side):
    counter = CompileCounterWithBackend("eager")
    call = torch.compile(_To(side.layer(stride=2)), backend=counter, dynamic=True)
    x, answers = side.images(), []
    for more in (1, 2, 1):
        like = x.new_ones(2, 6, *[2 * n + more for n in x.shape[2:]])
        answers.append(call(x, like))
    return [answers, counter.frame_count]


@row(COMPILED, "module.compile(), then saved")
def compiled_in_place(side: Side):
    layer = side.layer()
    layer.compile(backend="eager")
    return [layer(side.images()), sorted(layer.state_dict())]


@row(COMPILED, "autocast inside")
def compiled_autocast(side: Side):
    net = side.net()

    def call(x):
        with torch.autocast(side.kind, torch.bfloat16):
            return net(x)

    return torch.compile(call, backend="aot_eager", fullgraph=True)(side.images())


@row(COMPILED, "functions inside a compiled function")
def compiled_function(side: Side):
    layer = side.layer(stride=2)

    def call(x):
        return side.function(x, layer.weight, layer.bias, stride=2, padding=1).relu()

    return torch.compile(call, backend="aot_eager", fullgraph=True)(side.images())


QUANTISED = "quantisation"


@row(QUANTISED, "quantize_dynamic leaves the layer float")
def quantised_dynamic(side: Side):
    net = quantization.quantize_dynamic(side.net(), {nn.Linear})
    return [isinstance(net[0], Side(side.axes, False).cls), net(side.images())]


@row(QUANTISED, "prepare: observers run in eager mode")
def quantised_prepare(side: Side):
    net = side.net().eval()
    net.qconfig = quantization.default_qconfig
    prepared = quantization.prepare(net)
    return prepared(side.images())


@row(
    QUANTISED,
    "convert, eager mode",
    axes=(1, 2),
    differs="torch's table of quantised layers is by exact class: ours stays float",
)
def quantised_convert(side: Side):
    net = side.net().eval()
    net.qconfig = quantization.default_qconfig
    prepared = quantization.prepare(nn.Sequential(quantization.QuantStub(), net))
    prepared(side.images())
    return type(quantization.convert(prepared)[1][0]).__module__.startswith("torch.ao")


@row(QUANTISED, "fuse_modules with a BatchNorm")
def fuse_modules(side: Side):
    net = nn.Sequential(side.layer(), side.norm(6)).eval()
    net[1].running_var.fill_(2)
    fused = quantization.fuse_modules(net, [["0", "1"]])
    return [type(fused[1]).__name__, fused(side.images())]


@row(QUANTISED, "prepare_fx, observers run")
def quantised_fx(side: Side):
    x = side.images()
    mapping = quantization.QConfigMapping().set_global(quantization.default_qconfig)
    prepared = quantize_fx.prepare_fx(side.net().eval(), mapping, (x,))
    return prepared(x)


@row(QUANTISED, "convert_fx, engine fbgemm: torch 2.13's default, x86, is wrong where Cin != Cout")
def converted_fx(side: Side):
    before = torch.backends.quantized.engine
    # torch 2.13's default is wrong: findings/torch_quantised_conv_transpose_onednn.sh.
    torch.backends.quantized.engine = "fbgemm"
    try:
        x = side.images()
        mapping = quantization.get_default_qconfig_mapping("fbgemm")
        prepared = quantize_fx.prepare_fx(side.net().eval(), mapping, (x,))
        prepared(x)
        return quantize_fx.convert_fx(prepared)(x)
    finally:
        torch.backends.quantized.engine = before


def _x86_quantizer():
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())


def _xnnpack_quantizer():
    from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack

    return xnnpack.XNNPACKQuantizer().set_global(xnnpack.get_symmetric_quantization_config())


for _name, _quantizer in {
    "PT2E for x86 leaves the layer float": _x86_quantizer,
    "PT2E for XNNPACK, where ours stays float": _xnnpack_quantizer,
}.items():

    @row(QUANTISED, f"{_name}: answers near the float model's")
    def quantised_pt2e(side: Side, quantizer=_quantizer):
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        net, x = nn.Sequential(side.net(), side.norm(4), nn.ReLU()).eval(), side.images()
        prepared = prepare_pt2e(export(net, (x,)).module(), quantizer())
        prepared(x)
        converted, expected = convert_pt2e(prepared), net(x)
        return bool((converted(x) - expected).norm() < 0.05 * expected.norm())


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
