"""The choice: kernels and ATen compete in microseconds, and a config can be asked for by name."""

import json
import math
from pathlib import Path

import pytest

from convt import _C
from tests.planning import HEADLINE, Layer, gpu, variants

ARCH = _C.architectures("cubin")[0]
VARIANTS = variants()
GPUS = ["A100", "RTX 3090", "RTX 4090", "RTX 4060", "H100", "H200", "B200", "RTX 5090"]
NONE = _C.Records(_C.Gpu.preset("H200"), [])  # of which the model decides
DEEP = Layer(64, 2048, 256, (8, 6), (4, 4), (2, 2), (1, 1), why="SimpleBaseline's first: deep")
ZOO = json.loads((Path(__file__).parent.parent / "benchmarks/layers.json").read_text())


def zoo_problems():
    for row in ZOO:
        pairs = {k: tuple(row[k]) for k in ("kernel", "stride", "padding", "output_padding",
                                            "dilation")}  # fmt: skip
        layer = Layer(
            row["batch"], row["in_channels"], row["out_channels"], (row["in_h"], row["in_w"]),
            groups=row["groups"], bias=row["bias"], **pairs,
        )  # fmt: skip
        for layout in ("nchw", "nhwc"):
            yield layer.problem(row["dtype"], "tf32", layout)


def test_the_first_candidate_is_planned_and_its_plan_tells_the_first_three():
    problem = HEADLINE.problem(precision="tf32")
    found = _C.candidates(problem, gpu(ARCH))
    plan = _C.plan(problem, gpu(ARCH), NONE)
    assert [us for _, us in found] == sorted(us for _, us in found)
    assert plan.config == found[0][0]
    assert plan.microseconds == found[0][1]
    assert plan.best == found[:3]
    for config, us in found[:3]:
        assert f"{config} {us:.1f} us" in repr(plan)


def test_every_family_that_serves_a_problem_and_aten_are_candidates():
    problem = Layer(2, 32, 32, (16, 16), (2, 2), (2, 2)).problem(precision="tf32")
    names = [config for config, _ in _C.candidates(problem, gpu(ARCH))]
    families = {VARIANTS[name.split()[0]]["family"] for name in names if name != "aten"}
    assert {"phase", "pixel_shuffle", "pixel_shuffle_shallow", "single_tap_nchw"} <= families
    assert names.count("aten") == 1
    assert len(set(names)) == len(names)


def test_aten_answers_where_it_is_modelled_to_be_quicker():
    plan = _C.plan(DEEP.problem("f16"), _C.Gpu.preset("H200").with_image(ARCH), NONE)
    assert not plan.served
    assert (plan.config, plan.variant) == ("aten", None)
    assert plan.reason == "no kernel is modelled to be surely quicker"
    assert repr(plan).startswith("ATen: no kernel is modelled to be surely quicker")
    assert "aten " in repr(plan)
    assert "implicit_gemm_f16" in repr(plan)


def test_aten_which_may_use_tf32_never_answers_for_fp32_products():
    problem = DEEP.problem(precision="fp32")
    plan = _C.plan(problem, gpu(ARCH))
    assert plan.served
    assert "aten" not in [config for config, _ in _C.candidates(problem, gpu(ARCH))]


@pytest.mark.parametrize("name", GPUS)
def test_no_modelled_time_of_a_real_layer_is_below_the_floor(name):
    card = _C.Gpu.preset(name).with_image(ARCH)
    for problem in zoo_problems():
        memory_us = problem.min_bytes / card.bandwidth * 1e-3
        for config, us in _C.candidates(problem, card):
            assert us >= memory_us, (config, problem)
            assert math.isfinite(us)


def test_a_small_gpu_is_slower_than_a_large_one_of_its_architecture():
    problem = HEADLINE.problem("f16", layout="nhwc")
    times = [_C.plan(problem, _C.Gpu.preset(n).with_image(ARCH), NONE).microseconds
             for n in ("RTX 4090", "RTX 4060")]  # fmt: skip
    assert times[1] > 3 * times[0]


def test_a_config_is_planned_by_name():
    problem = HEADLINE.problem("f16", layout="nhwc")
    for config, us in _C.candidates(problem, gpu(ARCH)):
        plan = _C.plan_with(problem, gpu(ARCH), config)
        assert plan.config == config
        assert plan.microseconds == us
        assert plan.served == (config != "aten")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("phase_f16_nchw_64x64x32_w4", "has another memory layout"),
        ("phase_bf16_nhwc_64x64x32_w4", "multiplies in another way"),
        ("single_tap_nhwc_f16_64x64x32_w4_a16", "an output has several taps"),
        ("pack_f16_nhwc_16x64_w4", "it only copies weights"),
    ],
)
def test_a_config_that_does_not_serve_says_why(config, message):
    problem = DEEP.problem("f16", layout="nhwc")
    with pytest.raises(_C.InvalidArgument, match=f"{config} does not serve .*: .*{message}"):
        _C.plan_with(problem, gpu(ARCH), config)


@pytest.mark.parametrize("text", ["", "nothing", "aten tiles=1", "phase_f16_nhwc_64x64x32_w4 x=1"])
def test_a_config_that_there_is_not(text):
    with pytest.raises(ValueError, match="no such config"):
        _C.plan_with(HEADLINE.problem("f16"), gpu(ARCH), text)


def test_a_weight_that_lies_otherwise_is_packed_by_a_step_of_the_plan():
    problem = HEADLINE.problem("f16")
    assert not problem.weight_is_packed
    plain = _C.plan(problem, gpu(ARCH))
    packed = _C.plan(problem.with_packed_weight(), gpu(ARCH))
    assert VARIANTS[plain.steps[0]["variant"]]["family"] == "pack"
    assert plain.steps[0]["addresses"] == {"weight": ("weight", 0), "packed": ("workspace", 0)}
    assert plain.steps[1]["addresses"]["weight"] == ("workspace", 0)
    assert plain.workspace_bytes == 32 * 64 * 9 * 2
    assert (len(packed.steps), packed.workspace_bytes) == (1, 0)
    assert packed.steps[0]["arguments"] == plain.steps[1]["arguments"]
    assert plain.microseconds > packed.microseconds


def test_gpus_are_known_by_product_and_by_architecture():
    card = _C.Gpu.preset("NVIDIA GeForce RTX 4090")
    assert (card.name, card.arch, card.multiprocessors) == ("RTX 4090", 89, 128)
    assert card == _C.Gpu.preset("rtx 4090") == _C.Gpu.preset("sm_89") == _C.Gpu.preset("89")
    assert _C.Gpu.preset("RTX 4060").multiprocessors == 24
    newer = _C.Gpu.preset("sm_121")
    assert (newer.arch, newer.name) == (121, "")
    with pytest.raises(ValueError, match=r"unknown GPU: RTX 1 \(known: A100, .*RTX 4090"):
        _C.Gpu.preset("RTX 1")
