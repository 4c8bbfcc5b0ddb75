"""Kernels of thin layers in Triton's interpreter: each variant on every geometry that it serves."""

import math
from dataclasses import replace

import pytest
import torch

from aot.interpret import run
from convt import _C
from tests.planning import Layer, gpu
from tests.reference import DTYPES, assert_close, reference

ARCH = 89 if 89 in _C.architectures("cubin") else _C.architectures("cubin")[0]
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
AROUND = 64  # elements before and after an output that nobody may touch

# Input of one element: a kernel that is all of the output, and all that can crop or pad it.
POINT = [
    Layer(3, 16, 8, (1, 1), (4, 4), (1, 1), bias=True, why="whole kernel"),
    Layer(33, 40, 3, (1, 1), (2, 4), (2, 3), why="many images, channels not a block"),
    Layer(1, 37, 5, (1, 1), (4, 4), (2, 2), (1, 1), bias=True, why="cropped, odd channels"),
    Layer(2, 16, 8, (1, 1), (3, 2), (2, 2), (0, 0), (1, 1), bias=True, why="output padding"),
    Layer(2, 16, 12, (1, 1), (3, 4), (3, 1), (1, 2), dilation=(2, 3), groups=2, bias=True,
          why="dilation leaves outputs without a tap, groups"),
]  # fmt: skip

HEADS = [
    Layer(2, 5, 3, (4, 6), (4, 4), (2, 2), (1, 1), bias=True, why="an image head, odd channels"),
    Layer(1, 72, 1, (5, 3), (9, 9), (2, 2), (4, 4), (1, 1), bias=True, why="three blocks, k9"),
    Layer(3, 16, 2, (3, 5), (3, 3), (2, 2), (1, 1), (1, 1), why="phases of one tap and two"),
    Layer(1, 8, 5, (4, 5), (5, 4), (3, 2), (2, 0), bias=True, why="six phases, two tiles of out"),
    Layer(2, 24, 16, (3, 5), (3, 3), (1, 1), (1, 1), bias=True, why="stride 1"),
    Layer(2, 12, 8, (3, 5), (1, 5), (1, 2), (0, 2), groups=2, why="groups, stride in width only"),
    Layer(1, 8, 4, (7, 5), (2, 2), (2, 2), (3, 3), bias=True, why="padding over the kernel"),
    Layer(1, 2, 1, (3, 40), (3, 16), (1, 8), (1, 4), bias=True, why="one channel, a long kernel"),
]  # fmt: skip


def served(family, layer, dtype, layout):
    """Configs of a family for a layer."""
    problem = layer.problem(dtype, "fp32", layout)
    found = [config for config, _ in _C.candidates(problem, gpu(ARCH))]
    return [config for config in found if config.startswith(f"{family}_")]


def check(layer, dtype, layout, config, special=0.0, of_weight=0.0):
    """special: what the first input is, unless 0; of_weight: what the first weights are."""
    x = torch.randn(layer.batch, layer.in_channels, *layer.size).to(DTYPES[dtype])
    if special:
        x.view(-1)[0] = special
    weight = torch.randn(layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)
    weight = weight.to(DTYPES[dtype])
    if of_weight:
        weight[0, 0, 0] = of_weight
    bias = torch.randn(layer.out_channels).to(DTYPES[dtype]) if layer.bias else None
    expected = reference(x, weight, bias, layer)
    plan = _C.plan_with(layer.problem(dtype, "fp32", layout), gpu(ARCH), config)
    out = "f32" if dtype == "bf16" else dtype  # the interpreter truncates to bf16
    strides = torch.empty(expected.shape).contiguous(memory_format=FORMATS[layout]).stride()
    memory = torch.full((expected.numel() + 2 * AROUND,), 7.0, dtype=DTYPES[out])
    y = memory[AROUND:-AROUND].as_strided(expected.shape, strides).fill_(math.nan)
    run(plan, x.contiguous(memory_format=FORMATS[layout]), weight, bias, y)
    assert (memory[:AROUND] == 7).all()
    assert (memory[-AROUND:] == 7).all()
    finite = expected.isfinite()
    assert torch.equal(finite, y.isfinite())
    assert_close(y.where(finite, 0), expected.where(finite, 0), out, "fp32")


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(
    ("family", "layer"),
    [("point", layer) for layer in POINT] + [("heads", layer) for layer in HEADS],
    ids=lambda value: value if isinstance(value, str) else value.why,
)
def test_every_variant_on_every_geometry(family, layer, layout):
    configs = served(family, layer, "f32", layout)
    assert configs
    for config in configs if layer in (*POINT, HEADS[0]) else configs[:2]:
        check(layer, "f32", layout, config)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize(("family", "layer"), [("point", POINT[0]), ("heads", HEADS[0])])
def test_16_bit(family, layer, dtype):
    layer = replace(layer, in_channels=16)
    for layout in FORMATS:
        for config in served(family, layer, dtype, layout):
            check(layer, dtype, layout, config)


@pytest.mark.parametrize(("family", "layer"), [("point", POINT[2]), ("heads", HEADS[1])])
def test_slices_of_input_channels(family, layer):
    for layout in FORMATS:
        for config in served(family, layer, "f32", layout)[:2]:
            check(layer, "f32", layout, f"{config.split()[0]} slices=3")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("family", "layer"), [("point", POINT[4]), ("heads", HEADS[2])])
def test_an_infinite_input_reaches_the_outputs_of_its_taps_alone(family, layer):
    for config in served(family, layer, "f32", "nchw")[:2]:
        check(layer, "f32", "nchw", config, special=math.inf)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("layer", HEADS[:3], ids=lambda layer: layer.why)
def test_an_infinite_weight_reaches_the_outputs_of_taps_alone(layer, layout):
    """Not those of a tap that lies outside the input."""
    config = served("heads", layer, "f32", layout)[0]
    check(layer, "f32", layout, config, of_weight=math.inf)


@pytest.mark.parametrize("layout", FORMATS)
def test_heads_of_many_rows_and_positions(layout):
    """More than a program has of each."""
    layer = Layer(2, 8, 3, (9, 90), (4, 4), (2, 2), (1, 1), bias=True)
    config = served("heads", layer, "f32", layout)[0]
    check(layer, "f32", layout, f"{config.split()[0]} rows=4")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dilation": (2, 1)}, "it is dilated"),
        ({"stride": (5, 2)}, "it has output rows without a tap"),
        ({"kernel": (65, 4)}, "its kernel has more than 64 rows"),
        ({"kernel": (4, 34)}, "an output has more than 16 taps along its row"),
    ],
)
def test_heads_say_what_they_do_not_serve(change, why):
    config = served("heads", HEADS[0], "f32", "nchw")[0]
    other = replace(HEADS[0], **change)
    with pytest.raises(_C.InvalidArgument, match=why):
        _C.plan_with(other.problem("f32", "fp32", "nchw"), gpu(ARCH), config)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (POINT[0], "its input is larger than 1 on an axis"),
        (HEADS[0], "it has more than 16 output channels a group"),
    ],
    ids=["point", "heads"],
)
def test_what_is_not_served_says_why(layer, why):
    family = "point" if layer is POINT[0] else "heads"
    config = served(family, layer, "f32", "nchw")[0]
    other = replace(layer, size=(1, 2)) if family == "point" else replace(layer, out_channels=17)
    with pytest.raises(_C.InvalidArgument, match=why):
        _C.plan_with(other.problem("f32", "fp32", "nchw"), gpu(ARCH), config)
