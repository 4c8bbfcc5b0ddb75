"""Rows: export, compilers, quantisation."""

import io

import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.export import Dim, draft_export, export, load, save

from tests.compatibility.suite import Side, row

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


@row(EXPORT, "torch.onnx.export(dynamo=True): one node, and onnxruntime's answers, dynamic sizes")
def exported_onnx(side: Side):
    import onnxruntime

    layer, x = side.layer(stride=2, padding=1, output_padding=1, groups=2).eval(), side.images()
    onnx_program = torch.onnx.export(
        layer, (x,), dynamo=True, verbose=False, dynamic_shapes=_dynamic(x)
    )
    nodes = [node.op_type for node in onnx_program.model.graph]
    session = onnxruntime.InferenceSession(onnx_program.model_proto.SerializeToString())
    name = session.get_inputs()[0].name
    answers = [session.run(None, {name: x.cpu().numpy()})[0] for x in (x, torch.cat([x, x]))]
    return [nodes.count("ConvTranspose"), [torch.from_numpy(y) for y in answers]]


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
