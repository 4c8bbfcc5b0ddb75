"""Three dimensions: values of every family in Triton's interpreter, plans, and the op."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import convt
from convt import _C, cli, ops
from convt.tuning.capture import calls_of
from tests.planning import Layer, gpu, plan_of_family, volume
from tests.reference import assert_close, reference
from tests.test_kernels import ARCH, FAMILIES, check

LAYERS = json.loads((Path(__file__).parent.parent / "benchmarks/layers_3d.json").read_text())
BLOCKS = {"pixel_shuffle", "pixel_shuffle_nhwc", "pixel_shuffle_shallow", "single_tap_nchw",
          "single_tap_nhwc"}  # fmt: skip

VOLUMES = [
    volume(2, (16, 24), (2, 3, 9), (2, 2, 2), (2, 2, 2), bias=True, why="k2s2"),
    volume(1, (48, 16), (3, 2, 4), (2, 2, 2), (2, 2, 2), why="k2s2, several steps"),
    volume(2, (16, 8), (3, 4, 6), (1, 2, 2), (1, 2, 2), bias=True, why="slices stay as they are"),
    volume(1, (24, 8), (2, 3, 4), (2, 4, 4), (2, 4, 4), bias=True, why="k2x4x4"),
    volume(1, (8, 8), (2, 3, 5), (3, 1, 2), (3, 1, 2), why="the height stays"),
    volume(2, (24, 16), (2, 3, 4), (2, 3, 2), (2, 3, 2), groups=2, bias=True, why="groups"),
    volume(1, (4, 12), (2, 2, 70), (2, 3, 5), (2, 3, 5), bias=True, why="tiles of rows"),
    volume(2, (16, 8), (2, 3, 5), (2, 2, 3), (2, 3, 4), padding=(0, 1, 2), bias=True,
           why="rows and columns without a tap"),
    volume(2, (8, 8), (3, 9, 6), (2, 2, 2), (2, 2, 2), padding=(0, 1, 1), why="cropped rows"),
    volume(3, (16, 8), (2, 1, 1), (2, 2, 2), (2, 2, 2), bias=True, why="several images a program"),
    volume(2, (8, 4), (1, 1, 1), (3, 4, 2), (1, 1, 1), bias=True, why="inputs of one element"),
    volume(1, (6, 6), (2, 3, 4), (3, 3, 3), (2, 2, 2), padding=(1, 1, 1), groups=6, bias=True,
           why="depthwise"),
]  # fmt: skip


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("layer", VOLUMES, ids=lambda layer: layer.why)
def test_values(layer, layout):
    check(layer, layout=layout)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("layer", [VOLUMES[0], VOLUMES[3]], ids=lambda layer: layer.why)
def test_16_bit_values(layer, dtype, layout):
    check(layer, dtype, layout=layout)


@pytest.mark.slow  # the interpreter takes a minute a layer
@settings(deadline=None, max_examples=4)
@given(st.data())
def test_any_blocks(data):
    """kernel == stride along the depth; whatever has one tap along the other axes."""

    def axis(least, blocks):
        stride = data.draw(st.integers(1, 5))
        kernel = stride if blocks else data.draw(st.integers(1, stride))
        padding = 0 if blocks else data.draw(st.integers(0, 2))
        return data.draw(st.integers(least, least + 3)), kernel, stride, padding

    size, kernel, stride, padding = zip(axis(1, True), axis(3, False), axis(12, False), strict=True)
    groups = data.draw(st.integers(1, 2))
    layer = volume(
        data.draw(st.integers(1, 2)),
        (4 * groups * data.draw(st.integers(1, 3)), 4 * groups * data.draw(st.integers(1, 3))),
        size, kernel, stride, padding=padding, groups=groups, bias=data.draw(st.booleans()),
    )  # fmt: skip
    layout = data.draw(st.sampled_from(["nchw", "nhwc"]))
    assert served(layer, layout=layout) & BLOCKS
    check(layer, layout=layout)


def served(layer, dtype="f32", layout="nchw"):
    """The families that serve a layer."""
    problem = layer.problem(dtype, "fp32", layout)
    return {family for family in FAMILIES if plan_of_family(family, problem, gpu(ARCH))}


def test_families_for_blocks_serve_volumes():
    deep = volume(1, (64, 32), (8, 8, 8), (2, 2, 2), (2, 2, 2))
    assert {"pixel_shuffle", "single_tap_nchw"} <= served(deep)
    assert {"pixel_shuffle_nhwc", "single_tap_nhwc"} <= served(deep, layout="nhwc")
    shallow = volume(2, (32, 32), (64, 64, 64), (2, 2, 2), (2, 2, 2))
    assert "pixel_shuffle_shallow" in served(shallow, "f16")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"padding": (1, 0, 0)}, "slices of the output are not blocks of one input slice each"),
        ({"stride": (3, 2, 2)}, "slices of the output are not blocks of one input slice each"),
        ({"kernel": (2, 3, 2)}, "an output has several taps"),
    ],
)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_what_one_tap_families_do_not_serve(layout, change, reason):
    numbers = {"kernel": (2, 2, 2), "stride": (2, 2, 2), **change}
    problem = volume(1, (8, 8), (2, 4, 32), **numbers).problem(layout=layout)
    name = next(
        v["name"]
        for v in _C.variants()
        if (v["family"], v["math"]) == (f"single_tap_{layout}", "fp32")
    )
    with pytest.raises(_C.InvalidArgument, match=reason):
        _C.plan_with(problem, gpu(ARCH), name)


def flat(layer):
    """The image that a volume of depth one is."""
    numbers = ("size", "kernel", "stride", "padding", "output_padding", "dilation")
    pairs = (getattr(layer, name)[1:] for name in numbers)
    return Layer(
        layer.batch, layer.in_channels, layer.out_channels, *pairs, layer.groups, layer.bias
    )


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    "layer",
    [
        volume(2, (32, 16), (1, 6, 8), (1, 2, 2), (1, 2, 2), bias=True, why="k2s2"),
        volume(1, (16, 8), (1, 5, 9), (1, 3, 3), (1, 5, 5), padding=(0, 1, 1), why="k3s5"),
        volume(2, (16, 16), (1, 6, 8), (1, 4, 4), (1, 2, 2), padding=(0, 1, 1), why="k4s2"),
    ],
    ids=lambda layer: layer.why,
)
def test_a_depth_of_one_is_an_image(layer, layout):
    thick, thin = (each.problem("f32", "fp32", layout) for each in (layer, flat(layer)))
    card = gpu(ARCH)
    assert _C.candidates(thick, card) == _C.candidates(thin, card)
    for config, _ in _C.candidates(thin, card):
        if config != "aten":
            plans = [_C.plan_with(problem, card, config) for problem in (thick, thin)]
            assert plans[0].arguments == plans[1].arguments
            assert plans[0].grid == plans[1].grid


@pytest.mark.parametrize("row", LAYERS, ids=lambda row: row["id"])
def test_explain_says_who_answers(row):
    numbers = {name: row[name] for name in ("stride", "padding", "output_padding", "dilation")}
    size = (row["batch"], row["in_channels"], row["in_d"], row["in_h"], row["in_w"])
    weight = (row["in_channels"], row["out_channels"] // row["groups"], *row["kernel"])
    for form in torch.contiguous_format, torch.channels_last_3d:
        x, w = (torch.empty(s, device="meta", memory_format=form) for s in (size, weight))
        plan = convt.explain(x, w, None, **numbers, groups=row["groups"], arch="sm_89")
        assert plan.served or plan.reason
        assert plan.problem.layout == ("nchw" if form == torch.contiguous_format else "nhwc")
        assert f"conv_transpose3d f32 (tf32 products) {plan.problem.layout}" in str(plan)


def tensors(layer):
    x = torch.randn(layer.batch, layer.in_channels, *layer.size)
    weight = torch.randn(layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)
    return x, weight, torch.randn(layer.out_channels) if layer.bias else None


def geometry(layer):
    return [*layer.stride, *layer.padding, *layer.output_padding, *layer.dilation, layer.groups]


def memory_orders(tensor):
    yield tensor
    yield tensor.contiguous(memory_format=torch.channels_last_3d)
    yield tensor.transpose(2, 4).contiguous().transpose(2, 4)
    yield torch.cat([tensor, tensor], 1).contiguous(memory_format=torch.channels_last_3d)[:, ::2]


@pytest.mark.parametrize("layer", VOLUMES, ids=lambda layer: layer.why)
def test_the_op_has_torchs_values_and_cudnns_strides(layer):
    x, weight, bias = tensors(layer)
    for image in memory_orders(x):
        arguments = (image, weight, geometry(layer), 0, bias)
        y = torch.ops.convt.conv_transpose3d(*arguments)
        assert_close(y, reference(image, weight, bias, layer), "f32", "fp32")
        suggested = torch._prims_common.suggest_memory_format(image)
        assert y.stride() == torch.empty(y.shape, memory_format=suggested).stride()
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
            fake = torch.ops.convt.conv_transpose3d(*fakes)
        assert (fake.shape, fake.stride(), fake.dtype) == (y.shape, y.stride(), y.dtype)


@pytest.mark.parametrize("layer", [VOLUMES[0], VOLUMES[7]], ids=lambda layer: layer.why)
def test_opcheck(layer):
    x, weight, bias = (t if t is None else t.requires_grad_() for t in tensors(layer))
    torch.library.opcheck(
        torch.ops.convt.conv_transpose3d.default, (x, weight, geometry(layer), 0, bias)
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"geometry": [1] * 9}, "conv_transpose3d: expected geometry to have 13 elements"),
        ({"input": torch.ones(1, 4, 5, 5)},
         "conv_transpose3d: expected input to have 5 dimensions [N, C, D, H, W], got [1, 4, 5, 5]"),
        ({"weight": torch.ones(4, 3, 2, 2)},
         "conv_transpose3d: expected weight to have 5 dimensions [in_channels, out_channels / "
         "groups, kD, kH, kW], got [4, 3, 2, 2]"),
        ({"packed": torch.ones(4, 3, 2, 2)},
         "conv_transpose3d: expected packed to have the size of weight"),
        ({"precision": 3}, "conv_transpose3d: expected precision to be 0 (fp32)"),
        ({"bias": torch.ones(3).double()},
         "conv_transpose3d: expected bias to have the dtype of input (Float), got Double"),
    ],
)  # fmt: skip
def test_errors_of_the_op(changes, text):
    good = {"input": torch.ones(1, 4, 5, 5, 5), "weight": torch.ones(4, 3, 2, 2, 2),
            "geometry": [1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1], "precision": 0}  # fmt: skip
    with pytest.raises(RuntimeError) as error:
        torch.ops.convt.conv_transpose3d(**good | changes)
    assert text in str(error.value)


def test_compiled_graphs_have_the_op():
    layer = convt.ConvTranspose3d(4, 6, 2, 2)
    seen = []

    def backend(graph, _):
        seen.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    x = torch.randn(1, 4, 3, 4, 5)
    torch._dynamo.reset()
    with torch.no_grad():
        y = torch.compile(layer, backend=backend, fullgraph=True)(x)
    assert ops.conv_transpose3d in seen
    torch.testing.assert_close(y, layer(x))


def test_the_plan_command_takes_volumes(capsys):
    code = cli.main(["plan", "2,64,64,64,64", "32", "2", "2", "--dtype", "fp16", "--arch", "sm_89"])
    assert code == 0
    assert "[2, 64, 64, 64, 64] -> [2, 32, 128, 128, 128]" in capsys.readouterr().out
    assert cli.main(["plan", "1,2,3,4,5", "8", "3,3"]) == 2
    assert "expected --kernel to be one int or 3, got 2" in capsys.readouterr().err


def test_replace_reports_plans_of_volumes():
    model = nn.Sequential(nn.ConvTranspose3d(64, 32, 2, 2))
    (row,) = convt.replace(model, inputs=(torch.randn(1, 64, 4, 4, 4),)).rows
    assert row.plan.endswith("at 1x64x4x4x4")
    assert "three dimensions" not in row.plan


def test_tuning_sees_volumes():
    model = nn.Sequential(convt.ConvTranspose3d(4, 6, 2, 2), nn.ConvTranspose3d(6, 2, 3, 2, 1))
    layers = [layer for layer, _, _ in calls_of(model, (torch.randn(1, 4, 3, 4, 5),))]
    assert [str(layer).split(" ", 2)[2] for layer in layers] == [
        "1x4x3x4x5 -> 6 k2x2x2 s2x2x2 bias",
        "1x6x6x8x10 -> 2 k3x3x3 s2x2x2 p1x1x1 bias",
    ]
    for layer in layers:
        assert convt.records.Layer.parse(str(layer)) == layer
