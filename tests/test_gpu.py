"""On a GPU: values against fp64 for every family, dtype and layout, and the ways torch calls us."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import convt
from tests.planning import Layer
from tests.reference import DTYPES, assert_close
from tests.test_kernels import LAYERS

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parent.parent
ZOO = json.loads((ROOT / "benchmarks/layers.json").read_text())
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
REFERENCE_CHANNELS = 64  # output channels of an ungrouped layer that are checked: fp64 is slow


def poison(numel, dtype):
    """Leaves NaNs where the allocator will put the next tensor of this size."""
    torch.full((numel,), float("nan"), device="cuda", dtype=dtype)


def tensors(layer, dtype, layout):
    torch_dtype = DTYPES[dtype]
    fan = max(1, layer.in_channels // layer.groups * layer.kernel[0] * layer.kernel[1]
              // (layer.stride[0] * layer.stride[1]))  # fmt: skip
    x = torch.randn(layer.batch, layer.in_channels, *layer.size, device="cuda", dtype=torch_dtype)
    weight = torch.randn(
        layer.in_channels, layer.out_channels // layer.groups, *layer.kernel, device="cuda"
    )
    weight = (weight / fan**0.5).to(torch_dtype)
    bias = torch.randn(layer.out_channels, device="cuda", dtype=torch_dtype) if layer.bias else None
    return x.contiguous(memory_format=FORMATS[layout]), weight, bias


def arguments(layer):
    return (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)


def check(layer, dtype="f32", precision="fp32", layout="nchw"):
    x, weight, bias = tensors(layer, dtype, layout)
    plan = convt.explain(x, weight, bias, *arguments(layer), precision=precision)
    assert plan.served, plan
    n, (h, w) = layer.batch, plan.problem.output_size
    poison(n * layer.out_channels * h * w, x.dtype)
    y = convt.conv_transpose2d(x, weight, bias, *arguments(layer), precision=precision)
    assert y.stride() == F.conv_transpose2d(x, weight, bias, *arguments(layer)).stride()
    some = slice(0, REFERENCE_CHANNELS if layer.groups == 1 else None)
    images = slice(0, 2), slice(max(n - 2, 0), n)  # the first and the last of the batch
    for image in images:
        expected = F.conv_transpose2d(
            x[image].double().contiguous(),
            weight[:, some].double().contiguous(),
            None if bias is None else bias[some].double(),
            *arguments(layer),
        )
        assert_close(y[image, some], expected, dtype, precision)
    assert not y.isnan().any(), "an output was not written"


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


@pytest.mark.parametrize("layout", FORMATS)
def test_more_than_2_to_31_outputs(layout):
    # 40 x 16 x 2048 x 2048 = 2.7e9 outputs; the last image lies beyond 32-bit offsets.
    check(Layer(40, 8, 16, (1024, 1024), (2, 2), (2, 2), bias=True), "f16", "fp32", layout)


@pytest.mark.parametrize(("kernel", "wide"), [(2, False), (3, True)], ids=["one tap", "taps"])
def test_more_than_2_to_31_outputs_in_one_image(kernel, wide):
    layer = Layer(1, 8, 64, (2900, 2900), (kernel, kernel), (2, 2))
    check(layer, "f16", "fp32", "nchw")
    plan = convt.explain(
        torch.empty(1, 8, 2900, 2900, device="meta", dtype=torch.half),
        torch.empty(8, 64, kernel, kernel, device="meta", dtype=torch.half),
        stride=2, arch="sm_89",
    )  # fmt: skip
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
x, w = torch.randn(2, 8, 9, 9, device="cuda"), torch.randn(8, 8, 3, 3, device="cuda")
w = w.contiguous(memory_format=torch.channels_last)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    y = convt.conv_transpose2d(x, w, stride=2)
y.fill_(float("nan"))
graph.replay()
torch.cuda.synchronize()
expected = torch.nn.functional.conv_transpose2d(x.double(), w.double(), stride=2)
assert ((y - expected).norm() / expected.norm()).item() < 1e-3
"""


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True,
    )  # fmt: skip


def test_the_first_call_of_a_process_may_be_captured():
    done = python(CAPTURE_FIRST_CALL)
    assert done.returncode == 0, done.stderr


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


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.device_count() < 2, reason="needs two CUDA devices"
)
def test_a_device_that_is_not_current():
    layer = Layer(2, 8, 8, (9, 9), stride=(2, 2))
    x, weight, _ = (t if t is None else t.to("cuda:1") for t in tensors(layer, "f32", "nchw"))
    y = convt.conv_transpose2d(x, weight, None, *arguments(layer))
    assert y.device == x.device
    assert torch.cuda.current_device() == 0
    expected = F.conv_transpose2d(x.double(), weight.double(), None, *arguments(layer))
    assert_close(y, expected, "f32", "tf32")


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


def test_module_with_a_packed_weight_follows_its_updates():
    layer = convt.ConvTranspose2d(8, 8, 3, 2, bias=False, device="cuda", precision="fp32")
    x = torch.randn(2, 8, 9, 9, device="cuda")
    with torch.no_grad():
        for change in (lambda: None, lambda: layer.weight.mul_(2), layer.reset_parameters):
            change()
            expected = F.conv_transpose2d(x.double(), layer.weight.double(), stride=2)
            assert_close(layer(x), expected, "f32", "fp32")


def test_double_goes_to_aten():
    x, weight = (
        torch.randn(1, 4, 5, 5, device="cuda").double(),
        torch.randn(4, 4, 3, 3).cuda().double(),
    )
    plan = convt.explain(x, weight)
    assert not plan.served
    assert "only fp32, fp16 and bf16" in plan.reason
    torch.testing.assert_close(convt.conv_transpose2d(x, weight), F.conv_transpose2d(x, weight))
