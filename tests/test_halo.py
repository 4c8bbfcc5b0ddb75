"""The family `halo` in the interpreter: its kernels, grids and arguments as they run on sm_90."""

import math
import re

import pytest
import torch

from aot import interpret
from convt import _C
from tests.planning import Layer, gpu, variants
from tests.reference import DTYPES, assert_close, reference

if 90 not in _C.architectures("cubin"):
    pytest.skip("no sm_90 image in this build", allow_module_level=True)

GPU = gpu(90)
VARIANTS = {name: v for name, v in variants().items() if v["symbol"] == "halo"}
# Of a shape, which has a variant for each math, one: they differ in the type of numbers.
SHAPES = sorted({re.sub("_(f32_tf32|f16|bf16)_", "_{}_", name) for name in VARIANTS})
AROUND = 1024  # elements before and after an output that nobody may touch

LAYERS = [
    Layer(2, 72, 24, (5, 6), (4, 4), (2, 2), (1, 1), bias=True, why="k4s2, two blocks of channels"),
    Layer(3, 16, 40, (3, 9), (3, 3), (2, 2), (1, 1), (1, 1), groups=2, why="k3s2 op1, groups"),
    Layer(9, 8, 8, (3, 3), (5, 5), (2, 2), (2, 2), (0, 1), bias=True, why="images share a tile"),
    Layer(1, 16, 136, (7, 9), (3, 3), (1, 1), (1, 1), bias=True, why="stride 1, tiles of columns"),
    Layer(1, 8, 16, (6, 70), (3, 2), (1, 1), (0, 1), why="stride 1, two tiles a row"),
    Layer(2, 20, 12, (4, 5), (8, 7), (4, 4), (2, 1), (1, 2), bias=True, why="stride 4, cropped"),
    Layer(5, 16, 8, (1, 35), (1, 16), (1, 8), (0, 4), bias=True, why="one row: images are rows"),
    Layer(3, 8, 16, (1, 150), (1, 4), (1, 2), (0, 1), why="one row of stride 2"),
    Layer(1, 8, 8, (4, 5), (2, 3), (4, 6), (0, 0), (1, 2), bias=True, why="phases without taps"),
    Layer(1, 24, 8, (6, 5), (9, 9), (2, 2), (4, 4), (1, 1), why="many row shifts"),
    Layer(1, 8, 8, (5, 6), (5, 4), (3, 3), (1, 1), why="an odd stride"),
]  # fmt: skip


def problem(layer, variant):
    # Who asks for fp16's products gets TF32's, however few they are.
    return layer.problem(variant["dtype"], "fp16", variant["layout"])


def plan(layer, name):
    """The variant's plan of a layer; None where it does not suit."""
    try:
        return _C.plan_with(problem(layer, VARIANTS[name]), GPU, name)
    except _C.InvalidArgument:
        return None


def run(chosen, layer, variant):
    """What the plan's kernels leave, which touch nothing around it, and the fp64 reference."""
    torch.manual_seed(0)
    dtype = DTYPES[variant["dtype"]]
    layout = torch.channels_last if variant["layout"] == "nhwc" else torch.contiguous_format
    fan = layer.in_channels // layer.groups * math.prod(layer.kernel)
    x = torch.randn(layer.batch, layer.in_channels, *layer.size).to(dtype)
    weight = torch.randn(layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)
    weight = (weight / fan**0.5).to(dtype)
    bias = torch.randn(layer.out_channels).to(dtype) if layer.bias else None
    expected = reference(x, weight, bias, layer)
    memory = torch.full((expected.numel() + 2 * AROUND,), 7.0, dtype=dtype)
    strides = torch.empty(expected.shape, device="meta").contiguous(memory_format=layout).stride()
    y = memory[AROUND:-AROUND].as_strided(expected.shape, strides).fill_(float("nan"))
    interpret.run(chosen, x.contiguous(memory_format=layout), weight, bias, y)
    assert (memory[:AROUND] == 7).all()
    assert (memory[-AROUND:] == 7).all()
    return y, expected


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_answers_a_layer_that_suits_it(shape):
    # One each, or a run would take minutes: all maths and layers have their turn.
    turn = SHAPES.index(shape)
    names = [shape.format(math) for math in ("f32_tf32", "f16", "bf16")]
    names = [name for name in names if name in VARIANTS]
    name = names[turn % len(names)]
    suiting = [(layer, chosen) for layer in LAYERS if (chosen := plan(layer, name))]
    layer, chosen = suiting[turn % len(suiting)]
    y, expected = run(chosen, layer, VARIANTS[name])
    assert_close(y, expected, VARIANTS[name]["dtype"], "tf32")
