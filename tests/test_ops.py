"""conv_transpose2d where ATen answers it: values, strides, gradients, tracing, torch's switches."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import convt
from convt import _torch, ops
from tests.planning import Layer
from tests.reference import assert_close, reference

LAYERS = [
    Layer(2, 4, 6, (5, 3), (3, 2), bias=True, why="stride 1"),
    Layer(2, 4, 6, (4, 5), (4, 4), (2, 2), (1, 1), why="no bias, even kernel"),
    Layer(1, 4, 6, (4, 5), (3, 3), (2, 3), (1, 0), (1, 2), bias=True, why="output_padding"),
    Layer(
        2, 6, 4, (3, 5), (3, 3), (5, 5), (1, 1), (0, 0), (2, 2), groups=2, why="dilation, groups"
    ),
    Layer(2, 6, 6, (5, 4), (3, 5), (2, 1), (0, 2), (1, 0), groups=6, bias=True, why="depthwise"),
    Layer(1, 4, 4, (3, 5), (4, 3), (1, 2), (0, 0), (2, 3), (3, 4), why="dilation over stride"),
    Layer(2, 1, 1, (5, 3), (3, 3), (2, 2), bias=True, why="one channel: ambiguous strides"),
    Layer(1, 4, 6, (1, 1), (4, 4), bias=True, why="1x1 input"),
    Layer(0, 4, 6, (5, 3), (3, 2), bias=True, why="empty batch"),
]
EACH_LAYER = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.why)
op = torch.ops.convt.conv_transpose2d.default


def tensors(layer, dtype=torch.float32, device="cpu", requires_grad=False):
    def tensor(*size):
        return torch.randn(size, dtype=dtype, device=device, requires_grad=requires_grad)

    x = tensor(layer.batch, layer.in_channels, *layer.size)
    weight = tensor(layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)
    return x, weight, tensor(layer.out_channels) if layer.bias else None


def arguments(layer):
    return (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)


def geometry(layer):
    return [*layer.stride, *layer.padding, *layer.output_padding, *layer.dilation, layer.groups]


def memory_orders(tensor):
    """The tensor in memory orders that torch's layout rule tells apart, or mistakes."""
    n, c, h, w = tensor.shape
    yield tensor
    yield tensor.contiguous(memory_format=torch.channels_last)
    yield tensor.transpose(2, 3).contiguous().transpose(2, 3)
    yield torch.stack([tensor, tensor], -1)[..., 0]
    yield torch.cat([tensor, tensor], 1).contiguous(memory_format=torch.channels_last)[:, ::2]
    yield tensor.mean((0, 2, 3), keepdim=True).expand(n, c, h, w)


@pytest.fixture(autouse=True)
def from_scratch():
    torch._dynamo.reset()


def test_import_is_light():
    code = (
        "import convt, sys; print(*sorted({'triton', 'sympy', 'torch._dynamo'} & {*sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert loaded.stdout.split() == []


@EACH_LAYER
def test_values(layer):
    x, weight, bias = tensors(layer)
    y = convt.conv_transpose2d(x, weight, bias, *arguments(layer))
    assert_close(y, reference(x, weight, bias, layer), "f32", "fp32")
    assert torch.equal(y, F.conv_transpose2d(x, weight, bias, *arguments(layer)))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_geometry(data):
    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups = data.draw(st.integers(1, 3))
    layer = Layer(
        data.draw(st.integers(0, 3)),
        groups * data.draw(st.integers(1, 4)),
        groups * data.draw(st.integers(1, 4)),
        *(pair(1, 6), pair(1, 5), pair(1, 4), pair(0, 3), pair(0, 3), pair(1, 4)),
        groups,
        data.draw(st.booleans()),
    )
    x, weight, bias = tensors(layer)
    try:
        layer.problem()
    except RuntimeError:
        try:  # torch answers empty batches whatever their output_padding, and has empty outputs
            expected = F.conv_transpose2d(x, weight, bias, *arguments(layer))
        except RuntimeError:
            with pytest.raises(RuntimeError):
                convt.conv_transpose2d(x, weight, bias, *arguments(layer))
        else:
            assert torch.equal(convt.conv_transpose2d(x, weight, bias, *arguments(layer)), expected)
        assume(False)
    y = convt.conv_transpose2d(x, weight, bias, *arguments(layer))
    assert y.shape[2:] == layer.problem().output_size
    assert_close(y, reference(x, weight, bias, layer), "f32", "fp32")


@pytest.mark.parametrize("value", [2, [2], (2,), (2, 2), [2, 2], torch.Size([2, 2])], ids=repr)
def test_ints_and_sequences(value):
    x, weight, bias = tensors(LAYERS[0])
    y = convt.conv_transpose2d(x, weight, bias, value, padding=value, dilation=value)
    assert torch.equal(y, F.conv_transpose2d(x, weight, bias, value, padding=value, dilation=value))


def test_unbatched_input():
    x, weight, bias = tensors(LAYERS[0])
    y = convt.conv_transpose2d(x[0], weight, bias)
    assert torch.equal(y, F.conv_transpose2d(x[0], weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@EACH_LAYER
def test_strides_are_torchs_and_the_fake_kernel_knows_them(layer, dtype):
    x, weight, bias = tensors(layer, dtype)
    for x_order in memory_orders(x):
        for weight_order in memory_orders(weight):
            y = convt.conv_transpose2d(x_order, weight_order, bias, *arguments(layer))
            expected = F.conv_transpose2d(x_order, weight_order, bias, *arguments(layer))
            assert y.stride() == expected.stride()
            fake = FakeTensorMode(shape_env=ShapeEnv())
            for static in (True, False):
                inputs = [
                    None if t is None else fake.from_tensor(t, static_shapes=static)
                    for t in (x_order, weight_order, bias)
                ]
                traced = convt.conv_transpose2d(*inputs, *arguments(layer))
                assert tuple(map(int, traced.shape)) == y.shape
                assert tuple(map(int, traced.stride())) == y.stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@EACH_LAYER
def test_meta_tensors_follow_the_rule_of_cuda(layer, dtype):
    x, weight, bias = tensors(layer, dtype, "meta")
    channels_last = x.contiguous(memory_format=torch.channels_last)
    y = convt.conv_transpose2d(channels_last, weight, bias, *arguments(layer))
    layout = convt.explain(channels_last, weight, bias, *arguments(layer)).problem.layout
    # cuDNN has no float64 in channels_last.
    kept = layout == "nhwc" and dtype != torch.float64
    expected = torch.channels_last if kept else torch.contiguous_format
    assert y.device.type == "meta"
    assert y.stride() == torch.empty(y.shape, memory_format=expected).stride()


@EACH_LAYER
def test_gradients_are_torchs(layer):
    ours = tensors(layer, requires_grad=True)
    theirs = [t if t is None else t.detach().clone().requires_grad_() for t in ours]
    y = convt.conv_transpose2d(*ours, *arguments(layer))
    expected = F.conv_transpose2d(*theirs, *arguments(layer))
    grad = torch.randn_like(y)
    y.backward(grad)
    expected.backward(grad)
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            torch.testing.assert_close(a.grad, b.grad)


@EACH_LAYER
def test_first_and_second_derivatives(layer):
    inputs = tensors(layer, torch.float64, requires_grad=True)

    def function(*inputs):
        return convt.conv_transpose2d(*inputs, *arguments(layer))

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    if layer.batch:
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@EACH_LAYER
def test_opcheck(layer):
    x, weight, bias = tensors(layer, requires_grad=True)
    torch.library.opcheck(op, (x, weight, geometry(layer), 0, bias))
    channels_last = x.detach().contiguous(memory_format=torch.channels_last)
    arguments = (channels_last, weight, geometry(layer), 1, bias, weight.detach())
    torch.library.opcheck(op, arguments)


@EACH_LAYER
def test_compile(layer):
    x, weight, bias = tensors(layer, requires_grad=True)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def function(x, weight, bias):
        return convt.conv_transpose2d(x, weight, bias, *arguments(layer))

    expected = F.conv_transpose2d(x, weight, bias, *arguments(layer))
    y = function(x, weight, bias)
    assert torch.equal(y, expected)
    torch.testing.assert_close(
        torch.autograd.grad(y.sum(), x), torch.autograd.grad(expected.sum(), x)
    )
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(function(x, weight, bias), expected)


def test_compile_once_for_every_size():
    _, weight, bias = tensors(LAYERS[1])
    counter = CompileCounterWithBackend("aot_eager")
    function = torch.compile(convt.conv_transpose2d, fullgraph=True, backend=counter, dynamic=True)
    for n, h, w in [(2, 5, 7), (3, 6, 9), (7, 9, 8)]:
        x = torch.randn(n, 4, h, w)
        assert torch.equal(function(x, weight, bias, 2), F.conv_transpose2d(x, weight, bias, 2))
    assert counter.frame_count == 1


@pytest.mark.parametrize("strict", [True, False])
def test_export_and_save(strict):
    module = convt.ConvTranspose2d(4, 6, 3, 2, 1)
    x = torch.randn(2, 4, 5, 7)
    n, h = torch.export.Dim("n", min=2), torch.export.Dim("h", min=3)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: n, 2: h},), strict=strict)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    assert op in [node.target for node in calls]
    assert calls[-1].args[3] == 1  # torch's default for convolutions is TF32, exported or not
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for x in (torch.randn(2, 4, 5, 7), torch.randn(3, 4, 8, 7)):
        assert torch.equal(torch.export.load(file).module()(x), module(x))
        file.seek(0)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_autocast_is_torchs(dtype, grad):
    x, weight, bias = tensors(LAYERS[0], dtype)
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
        y = convt.conv_transpose2d(x, weight, bias)
        expected = F.conv_transpose2d(x, weight, bias)
    assert y.dtype == expected.dtype
    assert torch.equal(y, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own use of it
@pytest.mark.parametrize("grad", [True, False])
def test_transforms_and_forward_mode_are_torchs(grad):
    x, weight, bias = tensors(LAYERS[0])
    tangent = torch.randn_like(x)

    def run(f):
        def loss(x):
            return f(x, weight, bias, 2).square().sum()

        yield torch.func.vmap(lambda x: f(x, weight, bias, 2))(torch.stack([x, x]))
        yield torch.func.grad(loss)(x)
        yield torch.func.jvp(loss, (x,), (tangent,))[1]
        with forward_ad.dual_level():
            yield forward_ad.unpack_dual(loss(forward_ad.make_dual(x, tangent))).tangent

    with torch.set_grad_enabled(grad):
        ours, theirs = list(run(convt.conv_transpose2d)), list(run(F.conv_transpose2d))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


SWITCHES = {  # statements -> precision of torch's convolution, and of its matrix product
    "": ("tf32", "fp32"),
    "cudnn.allow_tf32 = False": ("fp32", "fp32"),
    "cudnn.conv.fp32_precision = 'ieee'": ("fp32", "fp32"),
    "cudnn.conv.fp32_precision = 'none'; backends.fp32_precision = 'tf32'": ("tf32", "tf32"),
    "cudnn.enabled = False": ("fp32", "fp32"),
    "cudnn.enabled = False; cuda.matmul.allow_tf32 = True": ("tf32", "tf32"),
    "cuda.matmul.fp32_precision = 'tf32'; cudnn.allow_tf32 = False": ("fp32", "tf32"),
}


@pytest.mark.parametrize("statements", SWITCHES)
def test_fp32_is_multiplied_as_torch_would(statements):
    # In a process of its own: torch has no way back to its defaults.
    code = f"""
import torch, convt
from torch import backends
from torch.backends import cuda, cudnn
{statements}
x, w = torch.empty(1, 4, 5, 5, device="meta"), torch.empty(4, 4, 3, 3, device="meta")
print(convt.explain(x, w).problem.precision)
# cuDNN does not take output padding of a stride or more; ATen's matrix product does it.
print(convt.explain(x, w, dilation=2, output_padding=1).problem.precision)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert tuple(run.stdout.split()) == SWITCHES[statements]


SETTINGS = [
    "pass",
    "backends.fp32_precision = 'tf32'",
    "cudnn.fp32_precision = 'tf32'",
    "cudnn.conv.fp32_precision = 'tf32'",
    "cudnn.conv.fp32_precision = 'none'; backends.fp32_precision = 'tf32'",
    "cudnn.allow_tf32 = False",
    "cudnn.rnn.fp32_precision = 'ieee'",
    "backends.disable_global_flags()",
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_scope_of_fp32_products_leaves_no_trace(setting):
    # In processes of their own, with and without: what a switch inherits shows only later.
    code = """
import sys, torch
from convt import _torch
from torch import backends
from torch.backends import cudnn
{setting}
seen = []
if sys.argv[1] == "with":
    for error in (None, ValueError()):
        try:
            with _torch.fp32_products:
                with _torch.fp32_products:
                    assert not _torch.allows_tf32("conv")
                assert not _torch.allows_tf32("conv")
                if error: raise error
        except ValueError: pass
def see():
    seen.append([s.fp32_precision for s in (backends, cudnn, cudnn.conv, cudnn.rnn)])
    try: seen.append(cudnn.allow_tf32)
    except RuntimeError: seen.append("mixed")
see()
if backends.flags_frozen():
    print(seen)
    sys.exit()
for value in ("ieee", "tf32", "none"):
    backends.fp32_precision = value; see()
cudnn.fp32_precision = "ieee"; see()
print(seen)
"""
    code = code.format(setting=setting)
    outputs = [
        subprocess.run([sys.executable, "-c", code, how], capture_output=True, check=True).stdout
        for how in ("with", "without")
    ]
    assert outputs[0] == outputs[1]


def test_threads_share_the_scope_of_fp32_products():
    def work(_):
        for _ in range(200):
            with _torch.fp32_products:
                assert not _torch.allows_tf32("conv")
        return True

    before = _torch.allows_tf32("conv")
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert _torch.allows_tf32("conv") == before


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_multiplied_as_the_answer_was(compiled, precision, monkeypatch):
    seen = []
    backward = ops.aten_backward

    def watched(*args):
        seen.append(_torch.allows_tf32("conv"))
        return backward(*args)

    monkeypatch.setattr(ops, "aten_backward", watched)
    x, weight, bias = tensors(LAYERS[0], requires_grad=True)
    value = ops.PRECISIONS.index(precision)

    def function(x, weight, bias):
        return op(x, weight, geometry(LAYERS[0]), value, bias)

    y = (torch.compile(function, backend="aot_eager") if compiled else function)(x, weight, bias)
    seen.clear()  # of tracing
    y.sum().backward()
    if precision == "fp32":
        assert seen == [False]
        assert _torch.allows_tf32("conv")
    else:
        assert seen == ([] if compiled else [True])  # in the graph it is torch's op
    got = [tensor.grad for tensor in (x, weight, bias)]
    expected = F.conv_transpose2d(x, weight, bias, *arguments(LAYERS[0])).sum()
    torch.testing.assert_close(got, list(torch.autograd.grad(expected, (x, weight, bias))))


def test_explain_without_a_gpu():
    x, weight, bias = tensors(LAYERS[0])
    on_cpu = convt.explain(x, weight, bias)
    assert not on_cpu.served
    assert str(on_cpu).startswith("ATen: no CUDA device")
    plans = [convt.explain(x, weight, bias, arch=arch, precision="fp32") for arch in ("sm_89", 89)]
    plans.append(convt.explain(x[0], weight, bias, arch="89", precision="fp32"))
    assert all(plan.served and plan.gpu.arch == 89 for plan in plans)
    assert plans[0].problem == plans[1].problem
    assert plans[2].problem.batch == 1
    by_name = convt.explain(x, weight, bias, arch="RTX 4060", precision="fp32")
    assert (by_name.gpu.name, by_name.gpu.multiprocessors) == ("RTX 4060", 24)
    assert "modelled for RTX 4060 (sm_89, 24 multiprocessors, 272 GB/s" in str(by_name)


def test_explain_follows_the_ops_rules():
    x, weight, _ = tensors(LAYERS[1])
    channels_last = weight.contiguous(memory_format=torch.channels_last)
    assert convt.explain(x, weight).problem.layout == "nchw"
    assert convt.explain(x, channels_last).problem.layout == "nhwc"
    with torch.autocast("cpu", torch.bfloat16):
        assert convt.explain(x, weight).problem.dtype == "bf16"
    assert convt.explain(x, weight).problem.aligned
    shifted = torch.randn(x.numel() + 1)[1:].view(x.shape)
    assert not convt.explain(shifted, weight).problem.aligned
