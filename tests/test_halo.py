"""The family `halo` in the interpreter: its kernels, grids and arguments as they run on sm_90."""

import math
import re

import pytest
import torch

from aot import interpret
from aot.compile import inspect_cubin
from convt import _C
from convt.records import Layer
from convt.tables import problem_of
from tests.planning import gpu, variants
from tests.reference import DTYPES, assert_close, reference

if 90 not in _C.architectures("cubin"):
    pytest.skip("no sm_90 image in this build", allow_module_level=True)

GPU = gpu(90)
VARIANTS = {name: v for name, v in variants().items() if v["symbol"] == "halo"}
# Of a shape, which has a variant for each math, one: they differ in the type of numbers.
SHAPES = sorted({re.sub("_(f32_tf32|f16|bf16)_", "_{}_", name) for name in VARIANTS})
AROUND = 1024  # elements before and after an output that nobody may touch

LAYERS = {
    "k4s2, two blocks of channels": "2x72x5x6 -> 24 k4x4 s2x2 p1x1 bias",
    "k3s2 op1, groups": "3x16x3x9 -> 40 k3x3 s2x2 p1x1 o1x1 g2",
    "images share a tile": "9x8x3x3 -> 8 k5x5 s2x2 p2x2 o0x1 bias",
    "stride 1, tiles of columns": "1x16x7x9 -> 136 k3x3 p1x1 bias",
    "stride 1, two tiles a row": "1x8x6x70 -> 16 k3x2 p0x1",
    "stride 4, cropped": "2x20x4x5 -> 12 k8x7 s4x4 p2x1 o1x2 bias",
    "one row: images are rows": "5x16x1x35 -> 8 k1x16 s1x8 p0x4 bias",
    "one row of stride 2": "3x8x1x150 -> 16 k1x4 s1x2 p0x1",
    "phases without taps": "1x8x4x5 -> 8 k2x3 s4x6 o1x2 bias",
    "many row shifts": "1x24x6x5 -> 8 k9x9 s2x2 p4x4 o1x1",
    "an odd stride": "1x8x5x6 -> 8 k5x4 s3x3 p1x1",
    "dilated": "2x16x9x5 -> 8 k3x2 p1x0 d1x3 bias",
    "dilated, two row shifts at a time": "1x8x5x40 -> 8 k5x5 p4x4 d2x4",
    "all taps in one phase": "1x8x7x6 -> 16 k3x3 s2x2 p1x1 d2x2 bias",
    "one axis dilated, the other strided": "1x8x7x6 -> 16 k3x5 s2x3 p1x2 d2x1",
    "three axes": "2x8x3x4x5 -> 16 k4x4x4 s2x2x2 p1x1x1 bias",
    "three axes of stride 1": "1x16x4x5x6 -> 8 k3x3x3 p1x1x1",
    "depth of another stride, more outputs": "1x8x2x3x5 -> 8 k2x1x3 s3x1x2 p0x0x1 o1x0x0 bias",
    "three axes, dilated": "1x16x4x4x4 -> 8 k3x3x3 p2x2x2 d2x2x2",
}  # fmt: skip


def layer_of(text, variant):
    # Who asks for fp16's products gets TF32's, however few they are.
    math = "fp16" if variant["dtype"] == "f32" else variant["dtype"]
    return Layer.parse(f"{math} {variant['layout']} {text}")


def plan(layer, name):
    """The variant's plan of a layer; None where it does not suit."""
    try:
        return _C.plan_with(problem_of(layer), GPU, name)
    except _C.InvalidArgument:
        return None


def run(chosen, layer, variant):
    """What the plan's kernels leave, which touch nothing around it, and the fp64 reference."""
    torch.manual_seed(0)
    dtype = DTYPES[variant["dtype"]]
    layout = torch.contiguous_format
    if variant["layout"] == "nhwc":
        layout = torch.channels_last_3d if len(layer.size) == 3 else torch.channels_last
    fan = layer.in_channels // layer.groups * math.prod(layer.kernel)
    x = torch.randn(layer.batch, layer.in_channels, *layer.size).to(dtype)
    weight = torch.randn(layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)
    weight = (weight / fan**0.5).to(dtype).contiguous(memory_format=layout)
    bias = torch.randn(layer.out_channels).to(dtype) if layer.bias else None
    expected = reference(x, weight, bias, layer)
    memory = torch.full((expected.numel() + 2 * AROUND,), 7.0, dtype=dtype)
    strides = torch.empty(expected.shape, device="meta").contiguous(memory_format=layout).stride()
    y = memory[AROUND:-AROUND].as_strided(expected.shape, strides).fill_(float("nan"))
    interpret.run(chosen, x.contiguous(memory_format=layout), weight, bias, y)
    assert (memory[:AROUND] == 7).all()
    assert (memory[-AROUND:] == 7).all()
    return y, expected


def check(name, text):
    layer = layer_of(text, VARIANTS[name])
    y, expected = run(plan(layer, name), layer, VARIANTS[name])
    assert_close(y, expected, VARIANTS[name]["dtype"], "tf32")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_answers_a_layer_that_suits_it(shape):
    # One each, or a run would take minutes: all maths and layers have their turn.
    turn = SHAPES.index(shape)
    names = [shape.format(math) for math in ("f32_tf32", "f16", "bf16")]
    names = [name for name in names if name in VARIANTS]
    name = names[turn % len(names)]
    suiting = [text for text in LAYERS.values() if plan(layer_of(text, VARIANTS[name]), name)]
    check(name, suiting[turn % len(suiting)])


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("why", LAYERS)
def test_every_layer_is_answered_by_its_best_shape(why, layout):
    layer = Layer.parse(f"f16 {layout} {LAYERS[why]}")
    candidates = [config for config, _ in _C.candidates(problem_of(layer), GPU)]
    name = next((config for config in candidates if config in VARIANTS), None)
    if name is None:
        pytest.skip("no shape serves it")
    check(name, LAYERS[why])


@pytest.mark.parametrize("name", VARIANTS)
def test_products_run_while_the_next_are_prepared(name):
    """The assembler makes each wait for the one before where it does not see through the code."""
    sass = inspect_cubin("cuobjdump", "-sass", _C.image(name, 90, "cubin"))
    assert sass.count("WARPGROUP.DEPBAR.LE gsb0, 0x0") == 1  # at the end of a tile
