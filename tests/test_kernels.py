"""Every kernel family in Triton's interpreter, with the grid and arguments of the C++ plan."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime.interpreter import InterpreterError

from aot import interpret_gluon
from aot.interpret import launch
from aot.interpret import run as run_steps
from aot.variants import all_variants
from convt import _C
from convt.ops import CHANNELS_LAST
from tests.planning import Layer, gpu, plan_of_family, variants
from tests.reference import DTYPES, assert_close, reference

ARCH = 89 if 89 in _C.architectures("cubin") else _C.architectures("cubin")[0]
VARIANTS = variants()
WEIGHT_ORDER = {variant.name: variant.weight for variant in all_variants()}
FAMILIES = sorted({variant["family"] for variant in VARIANTS.values()})
AROUND = 1024  # elements before and after an output that nobody may touch

LAYERS = [
    Layer(2, 5, 7, (4, 6), (3, 3), (2, 2), (1, 1), (1, 1), bias=True, why="odd channels"),
    Layer(1, 32, 16, (3, 5), (3, 3), (5, 5), (1, 1), dilation=(2, 2), why="phases without taps"),
    Layer(1, 8, 8, (3, 5), (4, 3), (4, 6), (1, 2), dilation=(2, 3), groups=2, bias=True,
          why="gcd(stride, dilation) of 2 and 3"),
    Layer(1, 8, 8, (3, 5), (4, 3), (4, 6), (1, 2), (1, 3), (6, 4), why="dilation over stride"),
    Layer(1, 48, 40, (2, 3), (4, 4), (2, 2), (1, 1), bias=True, why="several steps and tiles"),
    Layer(3, 4, 4, (1, 1), (4, 4), (1, 1), why="1x1 input: several images in one program"),
    Layer(1, 3, 2, (1, 70), (1, 16), (1, 8), (0, 4), bias=True, why="a vocoder's layer, height 1"),
    Layer(2, 6, 6, (5, 4), (3, 5), (2, 1), (0, 2), (1, 0), groups=6, why="depthwise"),
    Layer(1, 16, 16, (12, 12), (2, 2), (1, 1), (3, 3), why="padding over the kernel crops inputs"),
    Layer(1, 2, 2, (3, 3), (1, 1), (3, 3), (0, 0), (2, 2), bias=True, why="kernel < stride"),
    Layer(2, 32, 32, (3, 70), (2, 2), (2, 2), bias=True, why="k2s2, several tiles of pixels"),
    Layer(1, 72, 40, (2, 9), (4, 4), (4, 4), why="k4s4, several steps and tiles of channels"),
    Layer(1, 16, 24, (2, 20), (8, 8), (8, 8), bias=True, why="k8s8"),
    Layer(2, 12, 6, (7, 3), (3, 2), (3, 2), groups=2, bias=True, why="k == s, unaligned, groups"),
    Layer(1, 20, 70, (5, 5), (1, 1), (1, 1), bias=True, why="k1s1"),
    Layer(2, 32, 32, (3, 70), (2, 2), (2, 2), (0, 1), bias=True, why="k2s2, columns cropped"),
    Layer(1, 64, 24, (2, 9), (4, 4), (4, 4), (0, 2), why="k4s4, columns cropped, 64 channels"),
    Layer(1, 16, 8, (2, 20), (8, 8), (8, 8), (3, 1), bias=True, why="k8s8, rows, columns cropped"),
    Layer(2, 7, 5, (3, 11), (3, 3), (3, 3), (2, 1), (1, 2), bias=True, why="k3s3, odd channels"),
    Layer(1, 16, 16, (4, 9), (3, 3), (7, 8), (1, 2), (3, 5), (3, 3), why="rows, columns untapped"),
    Layer(1, 8, 16, (5, 30), (2, 3), (3, 4), (4, 3), (0, 1), (5, 7), why="taps reach far back"),
    Layer(1, 16, 32, (3, 40), (2, 2), (2, 2), (1, 1), groups=2, bias=True, why="k2s2, groups"),
    Layer(1, 16, 16, (1, 33), (1, 16), (1, 16), why="k16s16, 1-D: more taps than a tile has"),
    Layer(9, 8, 8, (1, 40), (3, 3), (5, 5), (1, 1), dilation=(2, 2), why="rows below the stride"),
    Layer(4, 8, 72, (9, 7), (2, 3), (3, 4), (4, 5), (1, 0), (2, 3), groups=2, bias=True,
          why="programs with tiles of two images, two tiles of channels"),
    Layer(3, 16, 8, (9, 11), (1, 2), (2, 2), (5, 4), bias=True, why="inputs that own no output"),
    Layer(1, 4, 18, (2, 140), (2, 3), (3, 5), (1, 1), bias=True, why="two tiles a row, odd planes"),
    Layer(1, 4, 8, (2, 150), (2, 2), (2, 3), (1, 2), (0, 0), (3, 5), why="tiles that share inputs"),
    Layer(1, 4, 8, (1, 180), (2, 2), (2, 2), (0, 0), (0, 1), why="a last tile under a sector"),
    Layer(1, 4, 8, (2, 64), (2, 3), (2, 4), (0, 0), (1, 0), (1, 3), bias=True,
          why="taps reach past a tile that is all of a row"),
    Layer(1, 34, 8, (1, 64), (2, 2), (2, 2), (0, 0), (0, 2), (1, 3), why="outputs past that too"),
    Layer(1, 4, 8, (2, 200), (1, 3), (2, 8), (0, 2), (0, 9), (1, 17), bias=True,
          why="taps reach over four columns, from tile to tile"),
    Layer(1, 33, 8, (2, 70), (1, 5), (2, 7), (0, 3), bias=True, why="33 channels, a narrow tile"),
    Layer(1, 3, 3, (1, 20), (1, 4), (1, 6), bias=True, why="no rows below or above"),
    Layer(2, 8, 8, (3, 5), (2, 3), (4, 3), bias=True, why="rows without a tap, no columns"),
    Layer(2, 8, 8, (3, 5), (3, 2), (3, 4), (2, 1), bias=True, why="columns without one, no rows"),
    Layer(2, 8, 8, (1, 1), (2, 3), (5, 7), (0, 1), dilation=(2, 1), why="outputs below the stride"),
    Layer(1, 16, 144, (2, 3), (2, 2), (3, 3), groups=2, bias=True,
          why="72 channels a group, two tiles in channels_last"),
]  # fmt: skip


def plan(layer, dtype="f32", precision="fp32", layout="nchw", *, family):
    """The plan of a family's best config."""
    return plan_of_family(family, layer.problem(dtype, precision, layout), gpu(ARCH))


def plan_of(family, layer, products="fp32", dtype="f32", layout="nchw"):
    """Of a family's best config that makes just such products; ValueError if there is none."""
    # Whoever asks for fp16's products may get TF32's, however few they are.
    problem = layer.problem(dtype, "fp16" if products == "tf32" else "fp32", layout)
    for config, _ in _C.candidates(problem, gpu(ARCH)):
        if config == "aten":
            continue
        variant = VARIANTS[config.split()[0]]
        if (variant["family"], variant["constants"].get("PRECISION")) == (family, products):
            return _C.plan_with(problem, gpu(ARCH), config)
    raise ValueError(f"{family} does not serve {problem} with {products} products")


def run(chosen, layout, tensors, shape, dtype, held):
    """What the kernel leaves in memory that held `held`; it touches nothing around that."""
    x, weight, bias = tensors
    last = CHANNELS_LAST[len(shape) - 2]
    memory_format = last if layout == "nhwc" else torch.contiguous_format
    strides = torch.empty(shape, device="meta").contiguous(memory_format=memory_format).stride()
    memory = torch.full((math.prod(shape) + 2 * AROUND,), 7.0, dtype=dtype)
    y = memory[AROUND:-AROUND].as_strided(shape, strides).fill_(held)
    x = x.contiguous(memory_format=memory_format)
    if WEIGHT_ORDER[chosen.variant] == "torch":
        run_steps(chosen, x, weight, bias, y)
    else:
        packed = weight.movedim(1, -1).contiguous()
        lines = launch(chosen, VARIANTS[chosen.variant], x, packed, bias, y)
        assert lines == set(range(chosen.arguments.get("input_lines", 0)))
    assert (memory[:AROUND] == 7).all()
    assert (memory[-AROUND:] == 7).all()
    return y


def check(layer, dtype="f32", precision="fp32", layout="nchw", chosen=None):
    """`chosen`, or the best config of each family that serves the layer, against fp64."""
    problem = layer.problem(dtype, precision, layout)
    plans = [plan_of_family(family, problem, gpu(ARCH)) for family in FAMILIES]
    plans = [chosen] if chosen else [found for found in plans if found]
    assert plans, problem
    torch_dtype = DTYPES[dtype]
    x = torch.randn(layer.batch, layer.in_channels, *layer.size).to(torch_dtype)
    weight = torch.randn(layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)
    weight = weight.to(torch_dtype)
    bias = torch.randn(layer.out_channels).to(torch_dtype) if layer.bias else None
    expected = reference(x, weight, bias, layer)
    # The interpreter truncates to bf16 where a GPU rounds: its sums are read in fp32.
    out = "f32" if dtype == "bf16" else dtype
    for each in plans:
        y = run(each, layout, (x, weight, bias), expected.shape, DTYPES[out], float("nan"))
        assert_close(y, expected, out, precision)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.why)
def test_geometry(layer, layout):
    check(layer, layout=layout)


LARGE = [
    Layer(1, 32, 24, (1, 128), (3, 3), (5, 5), (1, 1), dilation=(2, 2), why="the headline"),
    Layer(1, 16, 24, (1, 128), (3, 3), (4, 4), dilation=(3, 3), bias=True, why="taps reach past"),
    Layer(1, 16, 20, (1, 130), (2, 3), (2, 3), bias=True, why="odd planes, two tiles a row"),
]


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("layer", LARGE, ids=lambda layer: layer.why)
def test_nchw_programs_of_a_large_batch(layer, dtype):
    # One image gets narrow tiles; it is launched as one of many.
    many = plan(replace(layer, batch=4000), dtype, family="single_tap_nchw")
    assert VARIANTS[many.variant]["constants"]["BLOCK_PIXELS"] == 128
    chosen = SimpleNamespace(
        variant=many.variant, arguments=many.arguments, grid=(*many.grid[:2], layer.batch)
    )
    check(layer, dtype, chosen=chosen)


def in_order(layer, dtype, tiles, slab):
    """A channels_last plan whose programs have so many tiles, and slabs so many of them."""
    planned = plan(layer, dtype, layout="nhwc", family="single_tap_nhwc")
    positions = math.ceil(layer.batch * planned.arguments["tiles_h"] / tiles)
    numel = layer.batch * layer.in_channels * math.prod(layer.size)
    lines = math.ceil(numel * DTYPES[dtype].itemsize / 128)
    slabs = {"slab": slab, "slab_lines": math.ceil(lines * slab / positions), "input_lines": lines}
    return SimpleNamespace(
        variant=planned.variant,
        arguments={**planned.arguments, "tiles": tiles, **slabs},
        grid=(*planned.grid[:2], positions),
    )


# 17 rows are no multiple of a tile's, and 11 columns no power of two.
IN_ORDER = [
    Layer(5, 32, 8, (17, 11), (1, 2), (3, 3), (1, 2), bias=True,
          why="two taps share seven residues, few threads many lines"),
    Layer(5, 32, 8, (17, 11), (3, 2), (3, 2), why="all residues have taps, all taps inputs"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tiles", "slab", "why"),
    [
        (1, 6, "the last slab is not whole"),
        (2, 1, "every position begins a slab"),
        (5, 2, "programs of two images, or three"),
        (7, 1, "no more slabs than are fetched first"),
    ],
)
@pytest.mark.parametrize(
    ("dtype", "into"),
    [("f32", 32), ("f16", 32), ("f16", 72)],
    ids=["f32", "f16", "f16 in several steps"],
)
@pytest.mark.parametrize("layer", IN_ORDER, ids=lambda layer: layer.why)
def test_channels_last_programs_walk_over_tiles_and_slabs(layer, dtype, into, tiles, slab, why):
    layer = replace(layer, in_channels=into)
    check(layer, dtype, layout="nhwc", chosen=in_order(layer, dtype, tiles, slab))


def test_prefetches_stay_in_the_input():
    chosen = in_order(IN_ORDER[0], "f32", 1, 1)
    chosen.arguments |= {"slab": 1, "slab_lines": 0, "input_lines": 0}  # too large for any
    check(IN_ORDER[0], layout="nhwc", chosen=chosen)
    chosen = in_order(IN_ORDER[0], "f32", 1, 1)
    chosen.arguments["input_lines"] += 1
    with pytest.raises(InterpreterError, match="AssertionError"):
        check(IN_ORDER[0], layout="nhwc", chosen=chosen)


PRODUCTS = [("f32", "tf32"), ("f16", "native"), ("bf16", "native")]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("dtype", "products"), PRODUCTS)
def test_dtypes_and_products(dtype, products, layout):
    layer = Layer(2, 20, 17, (4, 6), (3, 3), (2, 2), (1, 1), (1, 1), bias=True)
    chosen = plan_of("phase", layer, products, dtype, layout)
    check(layer, dtype, "tf32" if products == "tf32" else "fp32", layout, chosen)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("dtype", "precision"), [("f32", "tf32"), ("f16", "fp32"), ("bf16", "fp32")]
)
def test_dtype_and_precision_of_a_single_tap(dtype, precision, layout):
    layer = Layer(2, 40, 24, (4, 6), (3, 3), (5, 4), (1, 1), (1, 1), bias=True)
    assert plan(layer, dtype, precision, layout, family=f"single_tap_{layout}")
    # TF32 is asked for, fp32 comes: that costs nothing here.
    check(layer, dtype, "fp32" if dtype == "f32" else precision, layout)


@pytest.mark.parametrize(("dtype", "products"), [("f32", "fp32"), *PRODUCTS])
@pytest.mark.parametrize("width", [8, 7], ids=["aligned", "odd"])
def test_dtypes_and_products_of_a_pixel_shuffle(dtype, products, width):
    layer = Layer(2, 72, 24, (4, width), (2, 2), (2, 2), bias=True)
    chosen = plan_of("pixel_shuffle", layer, products, dtype)
    assert VARIANTS[chosen.variant]["traits"]["aligned"] == (width == 8)
    check(layer, dtype, "tf32" if products == "tf32" else "fp32", chosen=chosen)


@pytest.mark.parametrize(("dtype", "products"), [("f32", "fp32"), *PRODUCTS])
@pytest.mark.parametrize("groups", [1, 2])
def test_dtypes_and_products_of_a_pixel_shuffle_in_channels_last(dtype, products, groups):
    layer = Layer(2, 80 * groups, 24 * groups, (4, 7), (2, 3), (2, 3), groups=groups, bias=True)
    chosen = plan_of("pixel_shuffle_nhwc", layer, products, dtype, "nhwc")
    check(layer, dtype, "tf32" if products == "tf32" else "fp32", "nhwc", chosen)


@pytest.mark.parametrize("stride", [4, 5])  # pixels in order, and neighbours in a thread
@pytest.mark.parametrize(
    ("width", "cropped", "copied"),
    [(20, 0, 2), (150, 0, 2), (21, 0, 0), (20, 1, 0)],
    ids=["pairs", "tiles of pairs", "rows begin anywhere", "programs begin with the second"],
)
def test_16_bit_input_is_copied_in_pairs(width, cropped, copied, stride):
    padding = (0, 1 + cropped * stride)
    layer = Layer(2, 20, 12, (2, width), (2, 3), (3, stride), padding, bias=True)
    constants = VARIANTS[plan(layer, "f16", family="single_tap_nchw").variant]["constants"]
    assert (constants["STRIDE"], constants["COPIED"]) == (stride, copied)
    check(layer, "f16")


@pytest.mark.parametrize(("channels", "sector"), [(24, 8), (128, 16)], ids=["halves", "whole"])
def test_16_bit_planes_of_odd_size(channels, sector):
    layer = Layer(1, 4, channels, (2, 6), (3, 3), (4, 4), bias=True)
    many = plan(replace(layer, batch=4000), "f16", family="single_tap_nchw")
    assert VARIANTS[many.variant]["constants"]["SECTOR"] == sector
    chosen = SimpleNamespace(
        variant=many.variant, arguments=many.arguments, grid=(*many.grid[:2], layer.batch)
    )
    check(layer, "f16", chosen=chosen)


SHALLOW = [
    Layer(3, 32, 36, (6, 20), (2, 2), (2, 2), bias=True, why="k2s2, two tiles of channels"),
    Layer(2, 5, 40, (6, 28), (3, 4), (3, 4), why="k4s4, nine tiles in three parts"),
    Layer(2, 24, 20, (6, 24), (2, 8), (2, 8), groups=2, bias=True, why="k8s8, groups"),
]


@pytest.mark.parametrize("wgmma", [False, True])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("layer", SHALLOW, ids=lambda layer: layer.why)
def test_a_shallow_pixel_shuffle(layer, dtype, wgmma, monkeypatch):
    monkeypatch.setattr(interpret_gluon, "WGMMA", wgmma)
    # Planned for many images, launched as two programs that take all pieces of a few.
    many = plan(replace(layer, batch=4000), dtype, family="pixel_shuffle_shallow")
    assert VARIANTS[many.variant]["traits"]["aligned"]
    items = many.arguments["items"] * layer.batch // 4000
    assert items > 2
    chosen = SimpleNamespace(
        variant=many.variant,
        arguments={**many.arguments, "items": items},
        grid=(2, *many.grid[1:]),
    )
    check(layer, dtype, chosen=chosen)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_channels_over_a_step(layout):
    check(Layer(1, 144, 16, (2, 6), (2, 2), (2, 2), bias=True), "f16", "fp32", layout)


def answer(family, layer, tensors, dtype="f32", products="fp32"):
    """What `family` answers to x, weight and maybe bias, in memory that held something finite."""
    layout = "nhwc" if family.endswith("nhwc") else "nchw"
    products = products if dtype == "f32" else "native"
    chosen = plan_of(family, layer, products, dtype, layout)
    shape = layer.batch, layer.out_channels, *chosen.problem.output_size
    x, weight, bias = (*tensors, None)[:3]
    return run(chosen, layout, (x, weight, bias), shape, x.dtype, 7.0)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(
    ("family", "channels", "kernel", "stride"),
    [
        ("phase", 16, 2, 1),
        ("implicit_gemm", 16, 2, 1),
        ("pixel_shuffle", 48, 2, 2),
        ("pixel_shuffle_nhwc", 48, 2, 2),
        ("pixel_shuffle_shallow", 16, 2, 2),
        ("single_tap_nchw", 16, 1, 2),
        ("single_tap_nhwc", 16, 1, 1),
    ],
)
def test_nan_and_infinity_reach_the_output(family, channels, kernel, stride):
    added = max(stride - kernel, 0)
    layer = Layer(1, channels, 16, (2, 4), (1, kernel), (1, stride), output_padding=(0, added))
    x = torch.zeros(1, channels, 2, 4)
    x[0, 0, 0, 0] = float("nan")
    x[0, 0, 1, 1] = float("inf")
    y = answer(family, layer, (x, torch.ones(channels, 16, 1, kernel)))
    assert y[0, :, 0, 0].isnan().all()
    assert y[0, :, 1, stride].isposinf().all()
    assert (y[0, :, 1, 0] == 0).all()


NAN_LIKE_INFINITY = 0x7F800001  # its upper bits are infinity's
EVERY_FAMILY = [
    ("phase", "fp32", Layer(1, 32, 8, (2, 4), (3, 3), (2, 2), (1, 1))),
    ("phase", "tf32", Layer(1, 32, 8, (2, 4), (3, 3), (2, 2), (1, 1))),
    ("implicit_gemm", "fp32", Layer(1, 32, 8, (2, 4), (3, 3), (2, 2), (1, 1))),
    ("implicit_gemm", "tf32", Layer(1, 32, 8, (2, 4), (3, 3), (2, 2), (1, 1))),
    ("pixel_shuffle", "fp32", Layer(1, 48, 8, (2, 4), (2, 2), (2, 2))),
    ("pixel_shuffle", "tf32", Layer(1, 48, 8, (2, 4), (2, 2), (2, 2))),
    ("pixel_shuffle_shallow", "fp32", Layer(1, 16, 8, (2, 4), (2, 2), (2, 2))),
    ("single_tap_nchw", "fp32", Layer(1, 16, 8, (2, 4), (2, 2), (3, 3))),
    ("single_tap_nhwc", "fp32", Layer(1, 16, 8, (2, 4), (2, 2), (3, 3))),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("operand", ["input", "weight"])
@pytest.mark.parametrize(("family", "products", "layer"), EVERY_FAMILY)
def test_a_nan_whatever_its_payload_reaches_its_outputs(family, products, layer, operand):
    x = torch.ones(1, layer.in_channels, *layer.size)
    weight = torch.ones(layer.in_channels, layer.out_channels, *layer.kernel)
    special = x[:, 3, 1, 2] if operand == "input" else weight[3, 5, 1]
    special.view(torch.int32).fill_(NAN_LIKE_INFINITY)
    expected = reference(x, weight, None, layer)
    assert expected.isnan().any()
    assert expected.isfinite().any()
    y = answer(family, layer, (x, weight), products=products)
    torch.testing.assert_close(y.double(), expected, equal_nan=True)


@pytest.mark.parametrize("operand", ["input", "weight"])
@pytest.mark.parametrize(("family", "products", "layer"), EVERY_FAMILY)
def test_the_largest_number_stays_finite(family, products, layer, operand):
    x = torch.zeros(1, layer.in_channels, *layer.size)
    weight = torch.zeros(layer.in_channels, layer.out_channels, *layer.kernel)
    large, other = (x[0, 3, 1, 2], weight) if operand == "input" else (weight[3, 5, 1, 1], x)
    large.fill_(torch.finfo(torch.float32).max)
    other.fill_(0.25)
    y = answer(family, layer, (x, weight), products=products)
    assert_close(y, reference(x, weight, None, layer), "f32", products)


@pytest.mark.parametrize("family", ["phase", "implicit_gemm", "pixel_shuffle"])
def test_sums_of_many_products_are_rounded_as_fp32s(family):
    """Tensor cores truncate whatever they add to: all of one sign, the error would grow."""
    several = family != "pixel_shuffle"
    geometry = ((4, 4), (2, 2), (1, 1)) if several else ((2, 2), (2, 2))
    layer = Layer(1, 128 if several else 512, 8, (1, 8), *geometry)
    x = torch.rand(1, layer.in_channels, *layer.size)
    weight = torch.rand(layer.in_channels, layer.out_channels, *layer.kernel)
    y = answer(family, layer, (x, weight))
    assert_close(y, reference(x, weight, None, layer), "f32", "fp32")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_outputs_without_a_tap_are_bias_whatever_the_input(dtype, layout):
    layer = Layer(1, 16, 16, (2, 6), (2, 2), (3, 3), bias=True)
    x = torch.full((1, 16, 2, 6), float("inf"), dtype=DTYPES[dtype])
    ones = torch.ones(16, 16, 2, 2).to(x), torch.ones(16).to(x)
    y = answer(f"single_tap_{layout}", layer, (x, *ones), dtype=dtype)
    untapped = torch.zeros(5, 17, dtype=torch.bool)
    untapped[2::3], untapped[:, 2::3] = True, True
    assert (y[..., untapped] == 1).all()
    assert y[..., ~untapped].isposinf().all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("family", "dtype", "products", "layer"),
    [
        ("phase", "f32", "fp32", Layer(2, 8, 16, (3, 9), (3, 3), (2, 2), (1, 1), (1, 1))),
        ("phase", "f32", "tf32", Layer(2, 8, 16, (3, 9), (3, 3), (2, 2), (1, 1), (1, 1))),
        ("phase", "f16", "native", Layer(2, 8, 16, (3, 9), (3, 3), (2, 2), (1, 1), (1, 1))),
        ("implicit_gemm", "f32", "fp32", Layer(2, 8, 16, (3, 9), (3, 3), (2, 2), (1, 1), (1, 1))),
        ("implicit_gemm", "f32", "tf32", Layer(2, 8, 16, (3, 9), (3, 3), (2, 2), (1, 1), (1, 1))),
        ("implicit_gemm", "f16", "native", Layer(2, 8, 16, (3, 9), (3, 3), (2, 2), (1, 1), (1, 1))),
        ("pixel_shuffle", "f32", "fp32", Layer(1, 48, 16, (4, 9), (2, 2), (2, 2))),
        ("pixel_shuffle", "f32", "tf32", Layer(1, 48, 16, (4, 9), (2, 2), (2, 2))),
        ("pixel_shuffle", "f16", "native", Layer(1, 48, 16, (4, 9), (2, 2), (2, 2))),
        ("pixel_shuffle_shallow", "f32", "fp32", Layer(2, 8, 16, (4, 8), (2, 2), (2, 2))),
        ("single_tap_nchw", "f32", "fp32", Layer(2, 8, 16, (3, 9), (2, 2), (3, 2), (1, 0))),
        ("single_tap_nchw", "f16", "native", Layer(2, 8, 16, (3, 9), (2, 2), (3, 2), (1, 0))),
        ("single_tap_nhwc", "f32", "fp32", Layer(2, 8, 16, (3, 9), (2, 2), (3, 2), (1, 0))),
        ("single_tap_nhwc", "f16", "native", Layer(2, 8, 16, (3, 9), (2, 2), (3, 2), (1, 0))),
    ],
)
def test_infinite_and_nan_operands(family, dtype, products, layer):
    """What is not finite is where fp64 has it; so is 0 * inf."""
    x = torch.randn(layer.batch, layer.in_channels, *layer.size).to(DTYPES[dtype])
    weight = torch.randn(layer.in_channels, layer.out_channels, *layer.kernel)
    weight = weight.bfloat16().to(DTYPES[dtype])  # their rests are 0
    inf, nan = float("inf"), float("nan")
    for i, special in enumerate([inf, -inf, nan, 0.0]):
        x[0, i, i % 3, i] = special
        weight[i, 3 * i] = special
        weight[7 - i, 15 - i, i % 2, i // 2] = special
    expected = reference(x, weight, None, layer)
    y = answer(family, layer, (x, weight), dtype=dtype, products=products)
    finite = expected.isfinite()
    assert not finite.all()
    assert finite.any()
    torch.testing.assert_close(y[~finite].double(), expected[~finite], equal_nan=True)
    assert_close(y[finite], expected[finite], dtype, products)


@pytest.mark.parametrize(
    ("family", "stride"),
    [
        ("pixel_shuffle_shallow", 2),
        ("single_tap_nchw", 3),
        ("single_tap_nhwc", 3),
        ("phase", 1),
        ("implicit_gemm", 1),
    ],
)
def test_fp32_is_as_accurate_as_each_output_asks(family, stride):
    """However small or large its neighbours: in norm, errors of small outputs would hide."""
    layer = Layer(1, 32, 16, (2, 40), (2, 2), (stride, stride), why="all magnitudes")
    x, weight = torch.randn(1, 32, 2, 40), torch.randn(32, 16, 2, 2)
    # A factor for each pixel and each output channel; phase adds several pixels up.
    if stride > 1:
        x *= 2.0 ** torch.linspace(-60, 60, 80).round().reshape(2, 40)
    weight *= 2.0 ** torch.linspace(-50, 50, 16).round()[:, None, None]
    y = answer(family, layer, (x, weight))
    expected = reference(x, weight, None, layer)
    size = reference(x.abs(), weight.abs(), None, layer)
    assert ((y - expected).abs() <= 1e-6 * size).all()


axis = st.tuples(
    st.integers(1, 5),  # size
    st.integers(1, 4),  # kernel
    st.integers(1, 5),  # stride
    st.integers(0, 2),  # padding
    st.integers(1, 4),  # dilation
)


@settings(max_examples=25, deadline=None)
@given(h=axis, w=axis, groups=st.integers(1, 2), layout=st.sampled_from(["nchw", "nhwc"]))
def test_any_geometry(h, w, groups, layout):
    size, kernel, stride, padding, dilation = zip(h, w, strict=True)
    layer = Layer(
        2, 4 * groups, 3 * groups, size, kernel, stride, padding, (0, 0), dilation, groups, True
    )
    out = [
        (size[i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + 1
        for i in (0, 1)
    ]
    if min(out) < 1:
        return
    check(layer, layout=layout)
