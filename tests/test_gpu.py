"""On a GPU: values against fp64 for every family, dtype and layout, and the ways torch calls us."""

import json
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import convt
from benchmarks.stress import stress
from convt import _C
from tests.launching import best_of_families, launched, memory_format
from tests.planning import Layer, plan_of_family, plan_of_kernel
from tests.reference import DTYPES, assert_close
from tests.test_kernels import LAYERS, SHALLOW

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parent.parent
ZOO = json.loads((ROOT / "benchmarks/layers.json").read_text())
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
# By the number of axes: convt's and torch's.
FUNCTIONS = {
    2: (convt.conv_transpose2d, F.conv_transpose2d),
    3: (convt.conv_transpose3d, F.conv_transpose3d),
}
REFERENCE_CHANNELS = 64  # output channels of an ungrouped layer that are checked: fp64 is slow


def poison(numel, dtype):
    """Leaves NaNs where the allocator will put the next tensor of this size."""
    torch.full((numel,), float("nan"), device="cuda", dtype=dtype)


def tensors(layer, dtype, layout):
    torch_dtype = DTYPES[dtype]
    taps = math.prod(layer.kernel) / math.prod(layer.stride)
    fan = max(1, layer.in_channels // layer.groups * taps)
    x = torch.randn(layer.batch, layer.in_channels, *layer.size, device="cuda", dtype=torch_dtype)
    weight = torch.randn(
        layer.in_channels, layer.out_channels // layer.groups, *layer.kernel, device="cuda"
    )
    weight = (weight / fan**0.5).to(torch_dtype)
    bias = torch.randn(layer.out_channels, device="cuda", dtype=torch_dtype) if layer.bias else None
    return x.contiguous(memory_format=memory_format(layout, x.dim())), weight, bias


def arguments(layer):
    return (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)


def check(layer, dtype="f32", precision="fp32", layout="nchw"):
    """The op's answer, whoever gives it, and that of each family's best config, if there is one."""
    ours, torchs = FUNCTIONS[len(layer.size)]
    x, weight, bias = tensors(layer, dtype, layout)
    plan = convt.explain(x, weight, bias, *arguments(layer), precision=precision)
    plans = best_of_families(plan.problem, plan.gpu)
    assert plans or not plan.served, plan
    poison(layer.batch * layer.out_channels * math.prod(plan.problem.output_size), x.dtype)
    y = ours(x, weight, bias, *arguments(layer), precision=precision)
    cudnn_takes_it = all(a < s for a, s in zip(layer.output_padding, layer.stride, strict=True))
    if cudnn_takes_it or not plan.served:
        assert y.stride() == torchs(x, weight, bias, *arguments(layer)).stride()
    else:  # ATen's results are contiguous whatever the input is, a kernel's in the input's order
        assert y.is_contiguous(memory_format=memory_format(layout, y.dim()))
    some = slice(0, REFERENCE_CHANNELS if layer.groups == 1 else None)
    images = slice(0, 2), slice(max(layer.batch - 2, 0), layer.batch)  # first and last ones
    expected = [
        torchs(
            x[image].double().contiguous(),
            weight[:, some].double().contiguous(),
            None if bias is None else bias[some].double(),
            *arguments(layer),
        )
        for image in images
    ]
    for answer in chain([y], (launched(each, x, weight, bias) for each in plans)):
        for image, values in zip(images, expected, strict=True):
            assert_close(answer[image, some], values, dtype, precision)
        assert not answer.isnan().any(), "an output was not written"


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("f32", "fp32"), ("f32", "tf32"), ("f32", "fp16"), ("f16", "fp32"), ("bf16", "fp32")],
)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.why)
def test_geometry(layer, dtype, precision, layout):
    check(layer, dtype, precision, layout)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("row", ZOO, ids=lambda row: row["id"])
def test_zoo(row, layout):
    layer = Layer(
        row["batch"], row["in_channels"], row["out_channels"], (row["in_h"], row["in_w"]),
        *(tuple(row[k]) for k in ("kernel", "stride", "padding", "output_padding", "dilation")),
        row["groups"], row["bias"],
    )  # fmt: skip
    check(layer, row["dtype"], "tf32", layout)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", SHALLOW, ids=lambda layer: layer.why)
def test_programs_that_stay_for_several_tiles_of_pixels(layer, dtype):
    layer = replace(layer, batch=1500)
    explained = convt.explain(*tensors(layer, dtype, "nchw"), *arguments(layer), precision="fp32")
    plan = plan_of_family("pixel_shuffle_shallow", explained.problem, explained.gpu)
    assert plan.arguments["items"] > 2 * plan.grid[0]
    check(layer, dtype)


@pytest.mark.parametrize("layout", FORMATS)
def test_more_than_2_to_31_outputs(layout):
    # 40 x 16 x 2048 x 2048 = 2.7e9 outputs; the last image lies beyond 32-bit offsets.
    check(Layer(40, 8, 16, (1024, 1024), (2, 2), (2, 2), bias=True), "f16", "fp32", layout)


@pytest.mark.parametrize(("kernel", "wide"), [(2, False), (3, True)], ids=["one tap", "taps"])
def test_more_than_2_to_31_outputs_in_one_image(kernel, wide):
    layer = Layer(1, 8, 64, (2900, 2900), (kernel, kernel), (2, 2))
    check(layer, "f16", "fp32", "nchw")
    plan = plan_of_kernel(layer.problem("f16"), _C.Gpu.preset("sm_89"))
    # The programs of one-tap layers start from a channel's plane: 32 bits are enough for those.
    assert ("_i64" in plan.variant) == wide


def headline():
    layer = Layer(2, 32, 64, (64, 128), (3, 3), (5, 5), (1, 1), dilation=(2, 2))
    x, weight, _ = tensors(layer, "f32", "nchw")
    expected = F.conv_transpose2d(x.double(), weight.double(), None, *arguments(layer))
    return (lambda: convt.conv_transpose2d(x, weight, None, *arguments(layer))), expected


def test_side_stream():
    run, expected = headline()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = run()
    stream.synchronize()
    assert_close(y, expected, "f32", "tf32")


def test_graph_capture_and_replay():
    run, expected = headline()
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run()
    y.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    assert_close(y, expected, "f32", "tf32")


CAPTURE_FIRST_CALL = """
import torch, convt
x = torch.randn(2, 32, 32, 64, device="cuda")
module = convt.ConvTranspose2d(32, 64, 3, 5, 1, dilation=2, bias=False, device="cuda").{setup}
w = module.weight.detach()
graph = torch.cuda.CUDAGraph()
with torch.no_grad(), torch.cuda.graph(graph):
    y = {call}
y.fill_(float("nan"))
graph.replay()
torch.cuda.synchronize()
expected = torch.nn.functional.conv_transpose2d(x.double(), w.double(), None, 5, 1, dilation=2)
assert ((y - expected).norm() / expected.norm()).item() < 1e-3
assert convt.explain(x, w, None, 5, 1, dilation=2).steps, "ATen answered"
"""


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "call", ["module(x)", "convt.conv_transpose2d(x, w, None, 5, 1, dilation=2)"]
)
@pytest.mark.parametrize(
    "setup",
    ["eval()", "to(memory_format=torch.channels_last)"],
    ids=["the weight packed in the graph", "weight in channels_last"],
)
def test_the_first_call_of_a_process_may_be_captured(call, setup):
    done = python(CAPTURE_FIRST_CALL.format(call=call, setup=setup))
    assert done.returncode == 0, done.stderr


FORK = """
import os, sys, torch, convt
x = torch.randn(2, 32, 32, 64, device="cuda")
module = convt.ConvTranspose2d(32, 64, 3, 5, 1, dilation=2, bias=False, device="cuda")
assert convt.explain(x, module.weight, None, 5, 1, dilation=2).steps, "a layer that ATen answers"
with torch.no_grad():
    w = module.weight
    calls = [lambda: module(x), lambda: convt.conv_transpose2d(x, w, None, 5, 1, dilation=2)]
    for call in calls:
        call()
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    for call in calls:
        try:
            call()
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(0)
"""


def test_a_forked_process_is_told_so():
    done = python(FORK)
    assert done.returncode == 0, done.stderr
    error = "convt: cannot use CUDA in a process forked from one that did"
    assert done.stdout.count(error) == 2, done.stdout + done.stderr


FIRST_CALL_AFTER_PRELOAD = """
import time, torch, convt
x = torch.randn(16, 32, 64, 128, device="cuda")
module = convt.ConvTranspose2d(32, 64, 3, 5, 1, dilation=2, bias=False, device="cuda")
torch.empty(16, 64, 318, 638, device="cuda")  # whoever answers needs this memory
assert convt.preload() == convt.preload() > 0

def call():
    torch.cuda.synchronize()
    begin = time.perf_counter()
    module(x)
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begin)

with torch.inference_mode():
    first = call()
    print(first - min(call() for _ in range(5)))
"""


def test_after_preload_the_first_call_takes_no_millisecond_more():
    extra = []
    for _ in range(3):  # of which the machine may disturb some
        done = python(FIRST_CALL_AFTER_PRELOAD)
        assert done.returncode == 0, done.stderr
        extra.append(float(done.stdout))
    assert min(extra) < 1, extra


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(32, 64, 3, 3),
        torch.randn(5, 130, 5, 7),
        torch.randn(300, 1, 4, 4),
        torch.randn(16, 9, 3, 5)[:, 1:-1, ::2, 1:],
    ],
    ids=["32x64x3x3", "odd", "depthwise", "a slice"],
)
def test_pack(weight, dtype):
    weight = weight.to("cuda", dtype)
    poison(weight.numel(), dtype)
    desc = (tuple(weight.shape), weight.stride(), {v: k for k, v in DTYPES.items()}[dtype], True)
    packed = torch.empty_like(weight, memory_format=torch.channels_last)
    stream = torch.cuda.current_stream().cuda_stream
    plan = _C.plan_pack(desc, _C.device_gpu(0))
    addresses = (0, weight.data_ptr(), 0, packed.data_ptr(), 0)
    _C.launch(plan, addresses, device=0, stream=stream)
    assert torch.equal(packed, weight)


@pytest.mark.skipif("CONVT_ARCH" in os.environ, reason="this run is already forced")
def test_sm_89_ptx_through_the_driver():
    """The whole geometry suite again, on kernels compiled for the RTX 4090."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "geometry or nan"],
        cwd=ROOT, env={**os.environ, "CONVT_ARCH": "sm_89"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_many_threads():
    run, expected = headline()
    errors = []

    def work():
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(20):
                    y = run()
            stream.synchronize()
            assert_close(y, expected, "f32", "tf32")
        except BaseException as error:  # reported in the main thread
            errors.append(error)

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_stress():
    """`python -m benchmarks.stress --seconds 60` is the long one."""
    assert stress(seconds=5) > 1000


two_devices = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.device_count() < 2, reason="needs two CUDA devices"
)


@two_devices
def test_a_device_that_is_not_current():
    layer = Layer(2, 8, 8, (9, 9), stride=(2, 2))
    x, weight, _ = (t if t is None else t.to("cuda:1") for t in tensors(layer, "f32", "nchw"))
    y = convt.conv_transpose2d(x, weight, None, *arguments(layer))
    assert y.device == x.device
    assert torch.cuda.current_device() == 0
    expected = F.conv_transpose2d(x.double(), weight.double(), None, *arguments(layer))
    assert_close(y, expected, "f32", "tf32")


@two_devices
def test_one_thread_on_two_devices():
    modules = [
        convt.ConvTranspose2d(8, 8, 3, 2, device=f"cuda:{i}", precision="fp32") for i in (0, 1)
    ]
    inputs = [torch.randn(2, 8, 9, 9, device=f"cuda:{i}") for i in (0, 1)]
    assert convt.preload(1) == convt.preload(0)
    with torch.inference_mode():
        for _ in range(3):
            for module, x in zip(modules, inputs, strict=True):
                expected = F.conv_transpose2d(
                    x.double(), module.weight.double(), module.bias.double(), 2
                )
                y = module(x)
                assert y.device == x.device
                assert_close(y, expected, "f32", "fp32")
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :, 1:, 1:],
        lambda x: x.transpose(2, 3),
        lambda x: x[:1].expand(3, -1, -1, -1),
        lambda x: x.flatten()[1 : 1 + 2 * 8 * 4 * 4].view(2, 8, 4, 4),
    ],
    ids=["slice", "transpose", "expand", "unaligned"],
)
def test_strided_inputs(view):
    x = view(torch.randn(2, 8, 9, 9, device="cuda"))
    weight = torch.randn(8, 8, 3, 3, device="cuda")
    y = convt.conv_transpose2d(x, weight, stride=2, precision="fp32")
    assert_close(y, F.conv_transpose2d(x.double(), weight.double(), stride=2), "f32", "fp32")


def test_calls_that_differ_in_one_fact_only():
    """The op remembers how it answered its latest calls; nothing that decides may be left out."""
    x = torch.randn(2, 8, 8, 8, device="cuda")
    weight = torch.randn(8, 8, 3, 3, device="cuda")
    bias = torch.randn(8, device="cuda")
    last = torch.channels_last
    usual = {"input": x, "weight": weight, "bias": bias, "stride": 2, "precision": "fp32"}
    changes = [
        {},
        {"input": x.contiguous(memory_format=last)},
        {"input": x.transpose(2, 3)},
        {"input": torch.randn(1 + x.numel(), device="cuda")[1:].view_as(x)},
        {"input": x[:1]},
        {"weight": weight.contiguous(memory_format=last)},
        {"weight": weight.transpose(0, 1)},
        {"weight": torch.randn(1 + weight.numel(), device="cuda")[1:].view_as(weight)},
        {"bias": None},
        {"bias": torch.randn(16, device="cuda")[::2]},
        {"stride": (2, 3)},
        {"padding": 1},
        {"output_padding": 1},
        {"dilation": 2},
        {"groups": 2, "bias": None},
        {"precision": "tf32"},
    ]
    for _ in range(2):
        for change in changes:
            call = {**usual, **change}
            precision = call.pop("precision")
            exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in call.items()}
            y = convt.conv_transpose2d(**call, precision=precision)
            assert_close(y, F.conv_transpose2d(**exact), "f32", precision)
            assert y.stride() == F.conv_transpose2d(**call).stride(), change


def test_a_bias_that_is_a_slice():
    x, weight = torch.randn(1, 8, 5, 5, device="cuda"), torch.randn(8, 8, 3, 3, device="cuda")
    x = x.contiguous(memory_format=torch.channels_last)
    bias = torch.randn(17, device="cuda")[1::2]
    y = convt.conv_transpose2d(x, weight, bias, precision="fp32")
    assert_close(y, F.conv_transpose2d(x.double(), weight.double(), bias.double()), "f32", "fp32")


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("layout", FORMATS)
def test_nan_and_infinity(layout, precision):
    x = torch.zeros(1, 16, 3, 3, device="cuda").contiguous(memory_format=FORMATS[layout])
    x[0, 0, 0, 0], x[0, 0, 1, 1] = float("nan"), float("inf")
    weight = torch.ones(16, 16, 1, 1, device="cuda")
    y = convt.conv_transpose2d(x, weight, precision=precision)
    assert y[0, :, 0, 0].isnan().all()
    assert y[0, :, 1, 1].isposinf().all()
    assert (y[0, :, 2, 2] == 0).all()


@pytest.mark.parametrize(("allow", "precision"), [(True, "tf32"), (False, "fp32")])
def test_precision_follows_torch(allow, precision, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allow)
    x, weight = torch.randn(2, 64, 9, 9, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")
    assert convt.explain(x, weight, stride=2).problem.precision == precision
    expected = F.conv_transpose2d(x.double(), weight.double(), stride=2)
    assert_close(convt.conv_transpose2d(x, weight, stride=2), expected, "f32", precision)


def step(layer, x, optimizer):
    layer(x).square().sum().backward()
    optimizer(layer.parameters(), lr=0.1, fused=True).step()


def update_vector(layer, _):
    vector = torch.nn.utils.parameters_to_vector(layer.parameters()).detach()
    torch.nn.utils.vector_to_parameters(vector, layer.parameters())
    vector.mul_(2)


UPDATES = {
    "nothing": lambda layer, x: None,
    "in place": lambda layer, x: layer.weight.detach().mul_(2),
    "reset_parameters": lambda layer, x: layer.reset_parameters(),
    "Adam": lambda layer, x: step(layer, x, torch.optim.Adam),
    "AdamW": lambda layer, x: step(layer, x, torch.optim.AdamW),
    "SGD": lambda layer, x: step(layer, x, torch.optim.SGD),
    ".data.copy_()": lambda layer, x: layer.weight.data.copy_(torch.randn_like(layer.weight)),
    ".data.clamp_()": lambda layer, x: layer.weight.data.clamp_(-0.01, 0.01),
    ".data.normal_()": lambda layer, x: layer.weight.data.normal_(),
    "vector_to_parameters": update_vector,
    "a moving average": lambda layer, x: layer.weight.data.lerp_(layer.weight.data.flip(0), 0.1),
}


def in_double(layer, x):
    with torch.no_grad():
        return F.conv_transpose2d(x.double(), layer.weight.double(), None, 2)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("update", UPDATES)
def test_calls_see_every_update_of_the_weight(update, memory_format):
    layer = convt.ConvTranspose2d(8, 8, 3, 2, bias=False, device="cuda", precision="fp32")
    if update != "vector_to_parameters":  # which torch has for contiguous ones alone
        layer.to(memory_format=memory_format)
    x = torch.randn(2, 8, 9, 9, device="cuda")
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            layer(x)
        UPDATES[update](layer, x)
        with mode():
            assert_close(layer(x).detach(), in_double(layer, x), "f32", "fp32")
    layer.freeze()
    with torch.no_grad():
        assert_close(layer(x), in_double(layer, x), "f32", "fp32")


def test_a_frozen_layer_in_one_dimension():
    layer = convt.ConvTranspose1d(32, 16, 16, 8, 4, device="cuda", precision="fp32").freeze()
    x = torch.randn(2, 32, 50, device="cuda")
    with torch.no_grad():
        for change in (lambda: None, lambda: layer.weight.mul_(2), layer.freeze):
            change()
            weight, bias = layer.weight.double(), layer.bias.double()
            expected = F.conv_transpose1d(x.double(), weight, bias, 8, 4)
            assert_close(layer(x), expected, "f32", "fp32")
            assert_close(layer(x[0]), expected[0], "f32", "fp32")


def test_updates_between_replays_of_a_captured_graph_are_seen():
    layer = convt.ConvTranspose2d(8, 8, 3, 2, bias=False, device="cuda", precision="fp32")
    x = torch.randn(2, 8, 9, 9, device="cuda")
    with torch.inference_mode():
        layer(x)
        for frozen in (False, True):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = layer(x)
            for update in ("Adam", ".data.copy_()", "in place"):
                with torch.inference_mode(False), torch.enable_grad():
                    UPDATES[update](layer, x.clone())
                if frozen:
                    layer.freeze()  # into the memory that the graph reads
                graph.replay()
                assert_close(y, in_double(layer, x), "f32", "fp32")
            layer.freeze()


def test_a_frozen_layer_on_several_streams():
    layer = convt.ConvTranspose2d(64, 64, 3, 2, bias=False, device="cuda", precision="fp32")
    x = torch.randn(2, 64, 9, 9, device="cuda")
    streams = [torch.cuda.Stream() for _ in range(4)]
    torch.cuda.synchronize()
    for _ in range(10):
        layer.weight.data.mul_(1.1)
        layer.freeze()
        expected = in_double(layer, x)
        torch.cuda.synchronize()
        answers = []
        with torch.no_grad():
            for stream in streams:
                with torch.cuda.stream(stream):
                    answers.append(layer(x))
        torch.cuda.synchronize()
        for y in answers:
            assert_close(y, expected, "f32", "fp32")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_forward_call_waits_for_nothing(channels_last):
    layer = convt.ConvTranspose2d(8, 8, 3, 2, device="cuda")
    if channels_last:
        layer.to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 9, 9, device="cuda")
    with torch.no_grad():
        for change in (lambda: None, lambda: layer.weight.add_(1), layer.freeze, layer.unfreeze):
            layer(x)
            change()
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                layer(x)
            finally:
                torch.cuda.set_sync_debug_mode("default")


OUT_OF_MEMORY = """
import torch, convt
x = torch.empty(1, 4, 2**12, 2**12, device="cuda", requires_grad={grad})
layer = convt.ConvTranspose2d(4, 2**13, 4, 4, device="cuda")
torch_layer = torch.nn.ConvTranspose2d(4, 2**13, 4, 4, device="cuda")
words = []
for call in (layer, torch_layer):
    with torch.set_grad_enabled({grad}):
        try:
            call(x)
        except torch.OutOfMemoryError as error:
            words.append(str(error).split(" GPU ")[0])
print(words)
assert words[0].startswith("CUDA out of memory. Tried to allocate 8192.00 GiB."), words
"""


@pytest.mark.parametrize("grad", [False, True])
def test_running_out_of_memory_is_torchs_own_error(grad):
    done = python(OUT_OF_MEMORY.format(grad=grad))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 2e-6), (None, 1e-3)])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_as_precise_as_asked_for(precision, limit, compiled, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch._dynamo.reset()
    layer = convt.ConvTranspose2d(256, 128, 4, 2, 1, device="cuda", precision=precision)
    x = torch.randn(4, 256, 16, 16, device="cuda", requires_grad=True)
    call = torch.compile(layer, backend="aot_eager") if compiled else layer
    y = call(x)
    grad = torch.randn_like(y)
    y.backward(grad)
    exact = [t.detach().double().requires_grad_() for t in (x, layer.weight, layer.bias)]
    F.conv_transpose2d(*exact, 2, 1).backward(grad.double())
    for got, wanted in zip((x, layer.weight, layer.bias), exact, strict=True):
        assert (got.grad - wanted.grad).norm() <= limit * wanted.grad.norm()
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int32, torch.bool])
def test_other_dtypes_are_answered_as_torch_does(dtype):
    x, weight = torch.ones(1, 4, 5, 5).to("cuda", dtype), torch.ones(4, 4, 3, 3).to("cuda", dtype)

    def answer(function):
        try:
            return function(x, weight)
        except Exception as error:
            return type(error), str(error)

    ours, theirs = answer(convt.conv_transpose2d), answer(F.conv_transpose2d)
    if isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs)
    else:
        assert ours == theirs


@pytest.mark.parametrize("which", ["input", "weight", "bias"])
def test_negative_views(which):
    call = {
        "input": torch.randn(1, 8, 5, 5, device="cuda"),
        "weight": torch.randn(8, 8, 3, 3, device="cuda"),
        "bias": torch.randn(8, device="cuda"),
    }
    call[which] = torch._neg_view(call[which])
    expected = F.conv_transpose2d(**{name: tensor.double() for name, tensor in call.items()})
    assert_close(convt.conv_transpose2d(**call, precision="fp32"), expected, "f32", "fp32")


def test_double_goes_to_aten():
    x, weight = (
        torch.randn(1, 4, 5, 5, device="cuda").double(),
        torch.randn(4, 4, 3, 3).cuda().double(),
    )
    plan = convt.explain(x, weight)
    assert not plan.served
    assert "only fp32, fp16 and bf16" in plan.reason
    torch.testing.assert_close(convt.conv_transpose2d(x, weight), F.conv_transpose2d(x, weight))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("grad", [False, True])
def test_autocast_casts_a_weight_once_a_region_as_torch_does(grad, axes):
    class Casts(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.shapes = []

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            if op is torch.ops.aten._to_copy.default:
                self.shapes.append(tuple(args[0].shape))
            return op(*args, **(kwargs or {}))

    ours, theirs = (
        getattr(package, f"ConvTranspose{axes}d")(8, 16, 4, 2, 1, device="cuda")
        for package in (convt, torch.nn)
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, *[9] * axes, device="cuda")
    for layer in (ours, theirs):
        with torch.autocast("cuda", torch.float16), torch.set_grad_enabled(grad), Casts() as casts:
            for _ in range(3):
                layer(x)
        assert casts.shapes.count(tuple(layer.weight.shape)) == 1
    with torch.autocast("cuda", torch.float16), torch.set_grad_enabled(grad):
        y, expected = ours(x) + ours(x), theirs(x) + theirs(x)
    torch.testing.assert_close(y, expected, atol=4e-3, rtol=2e-3)
    if grad:
        for answer in (y, expected):
            answer.float().square().sum().backward()
        error = (ours.weight.grad - theirs.weight.grad).norm() / theirs.weight.grad.norm()
        assert error < 2e-3
