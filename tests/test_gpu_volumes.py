"""Three dimensions on a GPU: values against fp64, by the op and by every family."""

import pytest
import torch
import torch.nn.functional as F

import convt
from tests.planning import Layer, volume
from tests.reference import assert_close
from tests.test_gpu import arguments, check, tensors
from tests.test_volumes import LAYERS, VOLUMES

pytestmark = pytest.mark.gpu

LAYOUTS = pytest.mark.parametrize("layout", ["nchw", "nhwc"])
OVERLAPPING = [
    volume(2, (8, 16), (3, 4, 5), (3, 3, 3), (2, 2, 2), padding=(1, 1, 1),
           output_padding=(1, 1, 1), bias=True, why="k3s2"),
    volume(1, (16, 8), (3, 5, 4), (4, 4, 4), (2, 2, 2), padding=(1, 1, 1), why="k4s2"),
    volume(1, (8, 8), (4, 3, 5), (3, 5, 3), (1, 1, 1), bias=True, why="stride 1"),
    volume(1, (8, 8), (4, 3, 5), (3, 3, 3), (2, 1, 3), padding=(1, 0, 2), dilation=(2, 1, 2),
           groups=2, why="dilation, groups"),
]  # fmt: skip


@LAYOUTS
@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("f32", "fp32"), ("f32", "tf32"), ("f16", "fp32"), ("bf16", "fp32")],
)
@pytest.mark.parametrize("layer", [*VOLUMES, *OVERLAPPING], ids=lambda layer: layer.why)
def test_geometry(layer, dtype, precision, layout):
    check(layer, dtype, precision, layout)


@LAYOUTS
@pytest.mark.parametrize("row", LAYERS, ids=lambda row: row["id"])
def test_layers_of_networks(row, layout):
    layer = Layer(
        row["batch"], row["in_channels"], row["out_channels"],
        (row["in_d"], row["in_h"], row["in_w"]),
        *(tuple(row[k]) for k in ("kernel", "stride", "padding", "output_padding", "dilation")),
        row["groups"], row["bias"],
    )  # fmt: skip
    check(layer, row["dtype"], "tf32", layout)


@LAYOUTS
def test_more_than_2_to_31_outputs(layout):
    # 10 x 16 x 256^3 = 2.7e9 outputs; the last volume lies beyond 32-bit offsets.
    layer = volume(10, (8, 16), (128, 128, 128), (2, 2, 2), (2, 2, 2), bias=True)
    check(layer, "f16", "fp32", layout)


@LAYOUTS
def test_gradients_and_compiled_graphs(layout):
    x, weight, bias = tensors(VOLUMES[0], "f32", layout)
    layer = VOLUMES[0]
    leaves = [t.requires_grad_() for t in (x, weight, bias)]

    def ours(x, weight, bias):
        return convt.conv_transpose3d(x, weight, bias, *arguments(layer), precision="fp32")

    expected = F.conv_transpose3d(*(t.double() for t in leaves), *arguments(layer))
    grad = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, leaves, grad)
    for function in ours, torch.compile(ours, fullgraph=True):
        y = function(*leaves)
        assert_close(y, expected, "f32", "fp32")
        for got, value in zip(torch.autograd.grad(y, leaves, grad.float()), gradients, strict=True):
            assert_close(got, value.double(), "f32", "fp32")


def test_a_frozen_layer_answers_alike():
    module = convt.ConvTranspose3d(64, 32, 2, 2, device="cuda", dtype=torch.float16)
    x = torch.randn(2, 64, 8, 8, 8, device="cuda", dtype=torch.float16)
    with torch.inference_mode():
        y = module(x)
        assert torch.equal(module.freeze()(x), y)
        assert convt.explain(x, module.weight, module.bias, 2).problem.dims == 3
