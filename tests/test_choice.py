"""The choice by measured records: exact, nearest, model; how long it takes."""

import random
import time

import pytest

from convt import _C, tables
from convt.records import Layer, Record

GPU = _C.Gpu.preset("RTX 4090")
LAYER = Layer.parse("f16 nhwc 8x256x32x32 -> 128 k4x4 s2x2 p1x1")


def configs(layer, gpu=GPU):
    """Kernel configs that serve a layer, the modelled best first."""
    found = _C.candidates(tables.problem_of(layer), gpu)
    return [config for config, _ in found if config != "aten"]


FIRST, SECOND, *_ = configs(LAYER)


def index(*found):
    return _C.Records(GPU, [tables.row(record) for record in found])


def plan(layer, known, **problem):
    return _C.plan(tables.problem_of(layer), GPU, known)


@pytest.mark.parametrize(
    ("times", "aten_us", "chosen"),
    [
        ({FIRST: 50.0, SECOND: 30.0}, 40.0, SECOND),
        ({FIRST: 50.0, SECOND: 60.0}, 40.0, "aten"),
        ({FIRST: 39.0}, 40.0, FIRST),
        ({"no_such_config": 1.0, FIRST: 39.0}, 40.0, FIRST),
        ({"no_such_config": 1.0}, 40.0, "aten"),
    ],
)
def test_an_exact_record_decides(times, aten_us, chosen):
    known = index(*(Record(LAYER, config, us, aten_us) for config, us in times.items()))
    found = plan(LAYER, known)
    assert found.config == chosen
    assert found.microseconds == pytest.approx(times.get(chosen, aten_us))
    assert "measured: " in found.reason
    assert f"aten {aten_us} us" in found.reason


def test_bias_does_not_make_another_problem():
    known = index(Record(LAYER._replace(bias=True), SECOND, 30.0, 40.0))
    assert plan(LAYER, known).config == SECOND


def test_packing_of_the_weight_counts():
    contiguous = LAYER._replace(layout="nchw")
    config = next(c for c in configs(contiguous) if c.startswith("phase"))
    known = index(Record(contiguous, config, 40.1, 40.0))
    problem = tables.problem_of(contiguous)
    assert not problem.weight_is_packed
    assert _C.plan(problem, GPU, known).config == "aten"
    assert _C.plan(problem.with_packed_weight(), GPU, known).config == config


def test_the_nearest_record_decides_where_there_is_no_exact_one():
    near = LAYER._replace(batch=16)
    far = LAYER._replace(in_channels=64, out_channels=64)
    known = index(
        Record(far, FIRST, 10.0, 40.0), Record(far, SECOND, 90.0, 40.0),
        Record(near, FIRST, 90.0, 40.0), Record(near, SECOND, 10.0, 40.0),
    )  # fmt: skip
    found = plan(LAYER, known)
    assert found.config == SECOND
    assert "the nearest that was measured" in found.reason
    assert "[16, 256, 32, 32]" in found.reason


def test_aten_where_it_is_quicker_on_the_nearest_problem():
    near = LAYER._replace(batch=16)
    problem = tables.problem_of(near)
    aten_us = dict(_C.candidates(problem, GPU))["aten"]
    times = {factor: factor * aten_us for factor in (0.5, 2.0)}
    chosen = {
        factor: plan(
            LAYER, index(*(Record(near, config, us, aten_us) for config in configs(near)))
        ).config
        for factor, us in times.items()
    }
    assert chosen[0.5] != "aten"
    assert chosen[2.0] == "aten"


@pytest.mark.parametrize(
    "other",
    [
        LAYER._replace(layout="nchw"),
        LAYER._replace(math="tf32"),
        LAYER._replace(kernel=(2, 2), padding=(0, 0)),
        LAYER._replace(stride=(1, 1)),
        LAYER._replace(groups=2),
        LAYER._replace(in_channels=2048, out_channels=2048),
    ],
    ids=["layout", "math", "one tap", "stride 1", "groups", "far"],
)
def test_records_of_another_kind_say_nothing(other):
    config = configs(other)[0]
    known = index(Record(other, config, 1.0, 1000.0))
    found = plan(LAYER, known)
    assert found.config == plan(LAYER, index()).config
    assert "measured" not in found.reason


def test_without_records_the_model_decides():
    found = plan(LAYER, index())
    assert found.config == found.best[0][0]
    assert "modelled" in str(found)


def random_layers(count):
    """Layers of networks, more or less, all different."""
    source = random.Random(0)
    channels = (3, 16, 32, 64, 96, 128, 256, 512)
    shapes = ((4, 2, 1), (2, 2, 0), (3, 1, 1), (5, 2, 2), (4, 4, 0), (3, 2, 1))
    found = set()
    while len(found) < count:
        kernel, stride, padding = source.choice(shapes)
        side = source.randint(4, 200)
        found.add(
            Layer(
                source.choice(("tf32", "f16", "bf16")), source.choice(("nchw", "nhwc")),
                source.choice((1, 2, 4, 8, 16)), source.choice(channels), source.choice(channels),
                (side, side), (kernel, kernel), (stride, stride), (padding, padding), (0, 0),
                (1, 1),
            )
        )  # fmt: skip
    return sorted(found)


def test_a_plan_takes_ten_microseconds_more_at_most_with_5000_records():
    layers = random_layers(2600)
    config = {
        (layer.math, layer.layout, layer.kernel): configs(layer)[0]
        for layer in reversed(layers)
        if configs(layer)
    }
    known = index(
        *(
            Record(layer, config[layer.math, layer.layout, layer.kernel], 10.0 + i % 7, 14.0)
            for i, layer in enumerate(layers[::2])
            for layer in (layer, layer._replace(batch=layer.batch * 3))
            for layer in (layer, layer._replace(size=(layer.size[0], layer.size[0] + 1)))
            if (layer.math, layer.layout, layer.kernel) in config
        )
    )
    assert len(known) >= 5000
    unseen = [tables.problem_of(layer) for layer in layers[1::2]][:200]
    assert sum("nearest" in _C.plan(problem, GPU, known).reason for problem in unseen) > 100

    def seconds(records_):
        begin = time.process_time()
        for problem in unseen:
            _C.plan(problem, GPU, records_)
        return (time.process_time() - begin) / len(unseen)

    empty = index()
    extra = min(seconds(known) - seconds(empty) for _ in range(20))
    assert extra <= 10e-6
