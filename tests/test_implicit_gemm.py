"""The general product of tensor cores in Triton's interpreter: variants, knobs, three axes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convt import _C
from tests.planning import Layer, gpu, plan_of_family, volume
from tests.test_kernels import VARIANTS, check

ARCHS = [89, 86, 80, 120]
ARCH = next((arch for arch in ARCHS if arch in _C.architectures("cubin")), None)
pytestmark = pytest.mark.skipif(ARCH is None, reason="no architecture has this family")

MINE = [
    name
    for name, variant in VARIANTS.items()
    if variant["family"] == "implicit_gemm" and variant["symbol"] == "implicit_gemm"
]


def plan_with(layer, config, dtype="f32", precision="fp32", layout="nchw"):
    return _C.plan_with(layer.problem(dtype, precision, layout), gpu(ARCH), config)


@pytest.mark.parametrize("config", MINE)
def test_every_variant(config):
    """On several tiles of pixels, blocks of channels and slices of a row, each cut short."""
    _, _, dtype, *_ = config.split("_")
    products = "tf32" if "_tf32_" in config else "fp32"
    layout = "nhwc" if "_nhwc_" in config else "nchw"
    fold = VARIANTS[config]["constants"]["FOLD"]
    stride = fold if fold > 1 else 2
    layer = Layer(2, 72, 24, (3, 25), (3, stride + 1), (2, stride), (1, 1), (1, 0), bias=True)
    # Whoever asks for fp16's products may get TF32's, however few they are.
    asked = "fp16" if products == "tf32" else "fp32"
    chosen = plan_with(layer, config, dtype, asked, layout)
    check(layer, dtype, asked, layout, chosen=chosen)


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("slices", [1, 3])
def test_knobs_of_channels_last(fold, slices):
    layer = Layer(1, 64, 12, (5, 9), (4, 5), (2, 3), (1, 2), bias=True)
    plan = plan_of_family("implicit_gemm", layer.problem(layout="nhwc"), gpu(ARCH))
    config = f"{plan.variant} fold={fold} slices={slices}"
    chosen = plan_with(layer, config, layout="nhwc")
    assert chosen.arguments["fold"] == (3 if fold == 2 else 1)
    assert chosen.arguments["slices"] == slices
    assert len(chosen.steps) == (2 if slices == 1 else 3)
    check(layer, layout="nhwc", chosen=chosen)


def test_few_programs_share_sums():
    layer = Layer(1, 1024, 16, (4, 4), (4, 4), (2, 2), (1, 1), bias=True)
    chosen = plan_of_family("implicit_gemm", layer.problem(), gpu(ARCH))
    assert chosen.arguments["slices"] > 1
    check(layer, chosen=chosen)


def test_columns_are_not_folded_where_there_is_one_phase():
    layer = Layer(1, 16, 16, (4, 4), (3, 3))
    name = next(name for name in MINE if name.endswith("_f2") and "_fp32_" in name)
    with pytest.raises(_C.InvalidArgument, match="settings do not suit"):
        plan_with(layer, name)


VOLUMES = [
    volume(2, (8, 4), (2, 3, 4), (4, 4, 4), (2, 2, 2), padding=(1, 1, 1), bias=True),
    volume(1, (5, 7), (3, 2, 4), (3, 3, 3), (2, 2, 2), padding=(1, 1, 1), output_padding=(1, 1, 1)),
    volume(1, (6, 4), (2, 3, 5), (3, 2, 3), (3, 1, 4), dilation=(2, 3, 1), groups=2, bias=True),
    volume(1, (8, 8), (3, 3, 3), (3, 3, 3), (1, 1, 1), padding=(1, 0, 2)),
]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("layer", VOLUMES)
def test_three_axes(layer, layout):
    for dtype in ("f32", "f16"):
        plan = plan_of_family("implicit_gemm", layer.problem(dtype, "fp32", layout), gpu(ARCH))
        check(layer, dtype, "fp32", layout, chosen=plan)


axis = st.tuples(
    st.integers(1, 4),  # size
    st.integers(1, 4),  # kernel
    st.integers(1, 4),  # stride
    st.integers(0, 2),  # padding
    st.integers(1, 3),  # dilation
)


@settings(max_examples=20, deadline=None)
@given(d=axis, h=axis, w=axis, groups=st.integers(1, 2), layout=st.sampled_from(["nchw", "nhwc"]))
def test_any_geometry(d, h, w, groups, layout):
    size, kernel, stride, padding, dilation = zip(d, h, w, strict=True)
    out = [
        (size[i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + 1
        for i in range(3)
    ]
    if min(out) < 1:
        return
    layer = volume(
        2, (4 * groups, 3 * groups), size, kernel, stride,
        padding=padding, dilation=dilation, groups=groups, bias=True,
    )  # fmt: skip
    plan = plan_of_family("implicit_gemm", layer.problem("f32", "fp32", layout), gpu(ARCH))
    several_taps = any(kernel[i] > stride[i] // math.gcd(stride[i], dilation[i]) for i in range(3))
    assert (plan is not None) == several_taps
    if several_taps:
        check(layer, layout=layout, chosen=plan)


def test_input_that_does_not_lie_on_16_bytes_is_copied():
    layer = Layer(2, 16, 8, (3, 4), (3, 3), (2, 2), (1, 1))
    for aligned in (True, False):
        problem = layer.problem("f16", "fp32", "nhwc", aligned)
        chosen = plan_of_family("implicit_gemm", problem, gpu(ARCH))
        prepare, product = chosen.steps
        assert (prepare["arguments"]["turns"] > 0) == (not aligned)
        assert product["addresses"]["inputs"][0] == ("input" if aligned else "workspace")
        check(layer, "f16", "fp32", "nhwc", chosen=chosen)
