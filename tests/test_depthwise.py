"""Kernels for few channels a group, in Triton's interpreter: every config that serves a layer."""

import math
from types import SimpleNamespace

import pytest
import torch

from aot.interpret import launch, run
from convt import _C
from tests.planning import Layer, gpu, variants
from tests.reference import DTYPES, assert_close, reference

ARCH = 89 if 89 in _C.architectures("cubin") else _C.architectures("cubin")[0]
VARIANTS = variants()
AROUND = 1024  # elements before and after an output that nobody may touch
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def layer(why, size, kernel, stride, padding, *rest, **others):
    """One to three axes. Others: batch, groups, `into` and `out`: the channels of a group."""
    axes, groups = len(size), others.pop("groups", 3)
    output_padding, dilation = (*rest, *((0,) * axes, (1,) * axes)[len(rest) :])
    channels = groups * others.pop("into", 1), groups * others.pop("out", 1)
    batch = others.pop("batch", 2)
    return Layer(batch, *channels, size, kernel, stride, padding, output_padding, dilation, groups,
                 bias=True, why=why, **others)  # fmt: skip


def tensors(layer, dtype="f32", layout="nchw"):
    """x, weight and bias."""
    x = torch.randn(layer.batch, layer.in_channels, *layer.size).to(DTYPES[dtype])
    weight = torch.randn(layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)
    bias = torch.randn(layer.out_channels).to(DTYPES[dtype])
    if layout == "nhwc":
        x = x.contiguous(memory_format=CHANNELS_LAST[len(layer.size)])
    return x, weight.to(DTYPES[dtype]), bias


def problem_of(layer, x, weight, bias, dtype="f32"):
    """By the tensors' own strides."""
    described = [(tuple(t.shape), t.stride(), dtype, True) for t in (x, weight, bias)]
    return _C.problem_of(*described, layer.geometry, "fp32")


LAYERS = [
    layer("k4s2", (4, 7), (4, 4), (2, 2), (1, 1)),
    layer("k4s2, 16-byte rows, vectors", (3, 8), (4, 4), (2, 2), (1, 1), groups=4),
    layer("k3s2, output padding", (4, 5), (3, 3), (2, 2), (1, 1), (1, 1)),
    layer("k5s2, odd rows", (4, 9), (5, 5), (2, 2), (2, 2)),
    layer("k3s1, several tiles", (3, 70), (3, 3), (1, 1), (1, 1), groups=2, batch=1),
    layer("k8s4", (2, 5), (8, 8), (4, 4), (2, 2), groups=4, batch=1),
    layer("k16s8", (2, 3), (16, 16), (8, 8), (4, 4), groups=1, batch=1),
    layer("k2s2, padding crops inputs", (4, 5), (2, 2), (2, 2), (3, 2)),
    layer("k7s1, padding over the kernel", (9, 9), (3, 3), (1, 1), (4, 5), batch=1),
    layer("stride 3 and 5", (3, 4), (4, 3), (3, 5), (1, 2), (1, 3)),
    layer("dilated rows", (9, 6), (3, 3), (1, 1), (7, 1), (0, 0), (5, 1), batch=1),
    layer("gcd(stride, dilation) of 2", (4, 3), (2, 3), (6, 4), (1, 2), (2, 1), (4, 2)),
    layer("dilation over stride, odd", (4, 5), (3, 2), (2, 3), (2, 1), (0, 2), (3, 5), batch=1),
    layer("no tap at all", (2, 3), (1, 1), (3, 4), (0, 0), (1, 2)),
    layer("1-D, twelve taps", (20,), (12,), (2,), (0,), groups=4),
    layer("three axes", (2, 3, 4), (5, 5, 5), (2, 2, 2), (2, 2, 2), (1, 1, 1), batch=1),
    layer("three axes, all unlike", (3, 2, 3), (3, 2, 4), (3, 1, 2), (1, 0, 1), (0, 0, 1),
          (2, 1, 1)),
    layer("channel multiplier", (3, 5), (4, 4), (2, 2), (1, 1), out=3),
    layer("several inputs", (3, 5), (4, 4), (2, 2), (1, 1), into=2, out=2, groups=2),
    layer("many channels", (2, 3), (3, 3), (2, 2), (1, 1), groups=130, batch=1),
]  # fmt: skip


def depthwise(problem):
    """The configs of the two families that serve a problem."""
    configs = [config for config, _ in _C.candidates(problem, gpu(ARCH))]
    return [config for config in configs if config.startswith("depthwise_")]


def output(expected, layout, dtype, held):
    """An output that holds `held`, and the memory around it, which holds 7."""
    dims = expected.dim() - 2
    form = CHANNELS_LAST[dims] if layout == "nhwc" else torch.contiguous_format
    strides = torch.empty(expected.shape, device="meta").contiguous(memory_format=form).stride()
    memory = torch.full((expected.numel() + 2 * AROUND,), 7.0, dtype=dtype)
    return memory[AROUND:-AROUND].as_strided(expected.shape, strides).fill_(held), memory


def answers(layer, x, weight, bias, dtype="f32", layout="nchw"):
    """(config, what its plan leaves in memory) of every config that serves the layer."""
    problem = problem_of(layer, x, weight, bias, dtype)
    expected = reference(x, weight, bias, layer)
    configs = depthwise(problem)
    assert configs
    # The interpreter truncates to bf16 where a GPU rounds: its sums are read in fp32.
    kept = torch.float32 if dtype == "bf16" else DTYPES[dtype]
    for config in configs:
        y, memory = output(expected, layout, kept, float("nan"))
        run(_C.plan_with(problem, gpu(ARCH), config), x, weight, bias, y)
        assert (memory[:AROUND] == 7).all()
        assert (memory[-AROUND:] == 7).all()
        yield config, y, expected


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.why)
def test_values(layer, layout):
    if layout == "nhwc" and len(layer.size) == 1:
        pytest.skip("torch has no channels_last of one axis")
    for _config, y, expected in answers(layer, *tensors(layer, layout=layout), layout=layout):
        assert_close(y, expected, "f32", "fp32")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_16_bit_values(dtype, layout):
    layer = LAYERS[1]
    for _config, y, expected in answers(layer, *tensors(layer, dtype, layout), dtype, layout):
        assert_close(y, expected, "f32" if dtype == "bf16" else dtype, "fp32")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_what_is_not_finite_reaches_its_outputs_and_no_others(kernel, layout):
    case = layer("", (4, 8), (kernel, kernel), (2, 2), (1, 1), groups=4, batch=1)
    x, weight, bias = tensors(case, layout=layout)
    for i, special in enumerate([float("inf"), float("-inf"), float("nan")]):
        x[0, i, i, 2 * i] = special
    for _config, y, expected in answers(case, x, weight, bias, layout=layout):
        finite = expected.isfinite()
        assert finite.any()
        assert not finite.all()
        torch.testing.assert_close(y[~finite].double(), expected[~finite], equal_nan=True)
        assert_close(y[finite], expected[finite], "f32", "fp32")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_weights_are_read_by_their_strides(layout):
    case = layer("", (3, 4), (4, 3), (2, 2), (1, 1), groups=2, out=3)
    x, weight, bias = tensors(case, layout=layout)
    weight = weight.mT.contiguous().mT
    assert weight.stride(3) > 1
    for _config, y, expected in answers(case, x, weight, bias, layout=layout):
        assert_close(y, expected, "f32", "fp32")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("size", [(33, 6), (3, 33, 5)], ids=["two axes", "three axes"])
def test_programs_of_a_large_batch_have_several_tiles(size, layout):
    # Planned as one of many images, launched for one.
    three = (3,) * len(size)
    case = layer("", size, three, (2,) * len(size), (1,) * len(size), groups=4, batch=1)
    x, weight, bias = tensors(case, layout=layout)
    expected = reference(x, weight, bias, case)
    form = CHANNELS_LAST[len(size)] if layout == "nhwc" else torch.contiguous_format
    shape = (40000, *x.shape[1:])
    many = problem_of(case, torch.empty(shape, device="meta", memory_format=form), weight, bias)
    one = math.prod(expected.shape[:2]) if layout == "nchw" else 1
    for config in depthwise(many):
        planned = _C.plan_with(many, gpu(ARCH), config)
        arguments = planned.arguments
        assert arguments["rounds"] > 1
        depth = 1 if layout == "nchw" or len(size) == 2 else expected.shape[2]
        grid = (arguments["programs"] * one * depth, *planned.grid[1:])
        chosen = SimpleNamespace(arguments=arguments, grid=grid)
        y, memory = output(expected, layout, torch.float32, float("nan"))
        launch(chosen, VARIANTS[planned.variant], x, weight, bias, y)
        assert (memory[:AROUND] == 7).all()
        assert (memory[-AROUND:] == 7).all()
        assert_close(y, expected, "f32", "fp32")


@pytest.mark.parametrize(
    ("stride", "channels", "reason"),
    [
        ((1, 1), {"into": 8, "out": 4}, "many channels a group"),
        ((40000, 1), {}, "stride is over"),
    ],
)
def test_what_they_do_not_serve(stride, channels, reason):
    case = layer("", (1, 4), (3, 3), stride, (0, 0), batch=1, groups=1, **channels)
    problem = problem_of(case, *(torch.empty(t.shape, device="meta") for t in tensors(case)))
    assert not depthwise(problem)
    with pytest.raises(_C.InvalidArgument, match=reason):
        _C.plan_with(problem, gpu(ARCH), "depthwise_nchw_f32_fp32_any")
