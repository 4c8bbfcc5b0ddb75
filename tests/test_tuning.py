"""Tuning's logic with a fake timer; which layers of a run it finds, on the CPU."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import convt
from convt import records, tuning
from convt.records import Header, Layer, Record, Table
from convt.tuning.capture import calls_of
from convt.tuning.search import ATEN, Call, Candidate, Failure, tune_layer, tune_layers

LAYER = Layer("f16", "nhwc", 1, 8, 8, (4, 4), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1))
OTHER = LAYER._replace(batch=2)
CANDIDATES = [
    Candidate("a1", 10.0, "a"),
    Candidate("b1", 20.0, "b"),
    Candidate("a2", 30.0, "a"),
    Candidate("b2", 39.0, "b"),
    Candidate("b3", 41.0, "b"),
]


class FakeBench:
    """Times from a table, each of them taking a second of the fake clock."""

    def __init__(self, times, chosen=ATEN):
        self.times, self._chosen = times, chosen
        self.now = 0.0
        self.timed = []

    def clock(self):
        return self.now

    def candidates(self):
        return CANDIDATES

    def chosen(self):
        return self._chosen

    def time(self, config, limit):
        self.now += 1.0
        self.timed.append((config, limit))
        result = self.times[config]
        if isinstance(result, BaseException):
            raise result
        return result


def test_the_fastest_of_all_candidates_worth_trying_is_found():
    bench = FakeBench({ATEN: 50.0, "a1": 60.0, "b1": 40.0, "a2": 25.0, "b2": 70.0})
    result = tune_layer(Call(LAYER, "up", 3), bench, 100.0, bench.clock)
    assert {config for config, _ in bench.timed} == {ATEN, "a1", "b1", "a2", "b2"}  # 41 > 4 * 10
    assert (result.before, result.before_us) == (ATEN, 50.0)
    assert (result.after, result.after_us) == ("a2", 25.0)
    assert Record(LAYER, "a2", 25.0, 50.0) in result.records
    assert len(result.records) == 4


def test_aten_stays_where_nothing_is_faster():
    bench = FakeBench({ATEN: 5.0, "a1": 60.0, "b1": 40.0, "a2": 25.0, "b2": 70.0})
    result = tune_layer(Call(LAYER, "up"), bench, 100.0, bench.clock)
    assert (result.after, result.after_us) == (ATEN, 5.0)
    assert len(result.records) == 4  # which tell the choice of other layers that they lose


def test_the_config_in_use_is_timed_first_even_where_the_model_gives_it_up():
    bench = FakeBench({ATEN: 50.0, "b3": 30.0, "a1": 60.0}, chosen="b3")
    result = tune_layer(Call(LAYER, "up"), bench, 1.5, bench.clock)
    assert [config for config, _ in bench.timed] == [ATEN, "b3", "a1"]
    assert (result.before, result.before_us, result.after_us) == ("b3", 30.0, 30.0)


def test_a_family_that_is_slower_than_modelled_is_tried_later():
    # a1 takes 9 times what the model says, so a2 is expected to take 270 and b1, b2 come first.
    bench = FakeBench({ATEN: 50.0, "a1": 90.0, "b1": 22.0, "a2": 200.0, "b2": 41.0})
    tune_layer(Call(LAYER, "up"), bench, 100.0, bench.clock)
    assert [config for config, _ in bench.timed] == [ATEN, "a1", "b1", "b2", "a2"]


def test_a_rough_time_is_enough_above_twice_the_best():
    bench = FakeBench({ATEN: 50.0, "a1": 60.0, "b1": 20.0, "a2": 25.0, "b2": 70.0})
    tune_layer(Call(LAYER, "up"), bench, 100.0, bench.clock)
    limits = dict(bench.timed)
    assert limits[ATEN] == float("inf")
    assert limits["a1"] == 100.0
    assert limits["a2"] == 40.0


def test_one_candidate_is_timed_however_short_the_time_and_failures_do_not_count():
    bench = FakeBench({ATEN: 50.0, "a1": None, "b1": 40.0})
    result = tune_layer(Call(LAYER, "up"), bench, 0.0, bench.clock)
    assert [config for config, _ in bench.timed] == [ATEN, "a1", "b1"]
    assert [record.config for record in result.records] == ["b1"]


ALL = {ATEN: 50.0, "a1": 60.0, "b1": 20.0, "a2": 25.0, "b2": 70.0}


def test_layers_share_the_budget_and_what_one_leaves_goes_to_the_rest():
    bench = FakeBench(ALL)
    calls = [Call(LAYER, "1"), Call(OTHER, "2"), Call(LAYER, "3")]
    first, second, third = tune_layers(calls, lambda _: bench, 10.0, bench.clock)
    # 10 s for three: 3.3 s after ATen, in which the fourth begins; 5 for two: 2.5; 1 for the last.
    assert [len(r.records) for r in (first, second, third)] == [4, 3, 1]


def test_layers_that_come_when_the_budget_is_used_up_are_left_out():
    bench = FakeBench(ALL)
    calls = [Call(LAYER, str(i)) for i in range(9)]
    assert len(list(tune_layers(calls, lambda _: bench, 3.9, bench.clock))) == 2


def test_a_layer_that_fails_does_not_end_the_run():
    benches = {LAYER: FakeBench({ATEN: RuntimeError("out of\n memory")}), OTHER: FakeBench(ALL)}
    calls = [Call(LAYER, "1"), Call(OTHER, "2")]
    failure, result = tune_layers(calls, benches.get, 100.0)
    assert failure == Failure(calls[0], "out of memory")
    assert result.after == "b1"


HEADER = Header(
    device="NVIDIA H200", arch=90, clocks="", driver="", torch="", cudnn="", date="", convt="0.1"
)


def test_what_was_measured_is_kept_by_ctrl_c_and_extended_later(tmp_path):
    path = tmp_path / "mine.jsonl"
    calls = [Call(LAYER, "up1", 2), Call(OTHER, "up2")]
    benches = {LAYER: FakeBench(ALL), OTHER: FakeBench({ATEN: KeyboardInterrupt()})}
    report = tuning.measure(calls, benches.get, Table(HEADER), path, 100.0)
    assert report.left_out == ("everything after Ctrl-C",)
    assert {record.layer for record in records.read(path).records} == {LAYER}
    again = {LAYER: FakeBench({**ALL, "b1": 21.0}), OTHER: FakeBench(ALL)}
    tuning.measure(calls[1:], again.get, Table(HEADER), path, 100.0)
    assert {record.layer for record in records.read(path).records} == {LAYER, OTHER}
    tuning.measure(calls[:1], again.get, Table(HEADER), path, 100.0)
    assert Record(LAYER, "b1", 21.0, 50.0) in records.read(path).records


def test_a_file_of_another_version_is_refused_before_anything_is_timed(tmp_path):
    path = tmp_path / "mine.jsonl"
    tuning.measure([Call(LAYER, "up")], lambda _: FakeBench(ALL), Table(HEADER), path, 100.0)
    newer = Table(Header(**{**vars(HEADER), "convt": "0.2"}))
    bench = FakeBench(ALL)
    with pytest.raises(records.RecordError, match=r"mine.jsonl: expected .* convt 0.2, got"):
        tuning.measure([Call(LAYER, "up")], lambda _: bench, newer, path, 100.0)
    assert not bench.timed


def test_the_report_is_a_table_with_sums(tmp_path):
    bench = FakeBench(ALL, chosen="a1")
    calls = [Call(LAYER, "up1", 2)]
    path = tmp_path / "mine.jsonl"
    text = str(tuning.measure(calls, lambda _: bench, Table(HEADER), path, 100.0))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][:2] == ["layer", "calls"]
    assert lines[1] == ["up1:", *str(LAYER).split(), "2", "50.0", "60.0", "20.0", "b1"]
    assert "all of them in one run: ATen 100.0 us, before 120.0, after 40.0" in text
    assert text.endswith(f"CONVT_TUNED={path}")


def test_gpu_models_have_a_file_each_in_a_folder(tmp_path, monkeypatch):
    file = tmp_path / "nvidia_h200.jsonl"
    assert tuning.file_of(tmp_path, "NVIDIA H200") == file
    assert tuning.file_of(file, "NVIDIA L4") == file
    monkeypatch.setenv("CONVT_TUNED", str(tmp_path))
    assert tuning.file_of(None, "NVIDIA H200") == file
    monkeypatch.delenv("CONVT_TUNED")
    monkeypatch.chdir(tmp_path)
    assert tuning.file_of(None, "NVIDIA L4") == tmp_path / "convt-tuned" / "nvidia_l4.jsonl"


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 8, 3, 2, output_padding=1, bias=False)
        self.same = convt.ConvTranspose2d(8, 8, 1)
        self.line = nn.ConvTranspose1d(8, 4, 3, 2, dilation=3, groups=2)

    def forward(self, x):
        x = self.same(self.same(self.up(x)))
        x = self.line(x.flatten(2))
        weight = x.new_ones(4, 2, 2, 2, 2)
        y = nn.functional.conv_transpose3d(x.view(1, 4, 1, 1, -1), weight, stride=(1, 2, 3))
        return nn.functional.conv_transpose2d(y.flatten(3).double(), weight[:2, :, 0].double())


EXPECTED = {
    "up": (1, "tf32 nchw 1x4x5x5 -> 8 k3x3 s2x2 o1x1"),
    "same": (2, "tf32 nchw 1x8x12x12 -> 8 k1x1 bias"),
    "line": (1, "tf32 nchw 1x8x144 -> 4 k3 s2 d3 g2 bias"),
    "conv_transpose": (1, "tf32 nchw 1x4x1x1x293 -> 2 k2x2x2 s1x2x3"),
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_every_transposed_convolution_of_a_run_is_found(mode):
    with mode():
        found = calls_of(Decoder(), (torch.randn(1, 4, 5, 5),))
    assert {name: (calls, str(layer)) for layer, name, calls in found} == EXPECTED


def test_a_layer_is_found_as_it_is_multiplied():
    model = nn.ConvTranspose2d(4, 8, 3, bias=False)
    x = torch.randn(2, 4, 5, 6)

    def found(x):
        [(layer, name, _)] = calls_of(model, (x,))
        assert name == "ConvTranspose2d"
        return str(layer).removesuffix(" -> 8 k3x3")

    assert found(x) == "tf32 nchw 2x4x5x6"
    assert found(x.to(memory_format=torch.channels_last)) == "tf32 nhwc 2x4x5x6"
    assert found(x[0]) == "tf32 nchw 1x4x5x6"
    with torch.autocast("cpu", torch.bfloat16):
        assert found(x) == "bf16 nchw 2x4x5x6"
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert found(x) == "fp32 nchw 2x4x5x6"


def command(*arguments):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "CONVT_LIBCUDA": "libnone.so"}
    return subprocess.run(
        [sys.executable, "-m", "convt", "tune", *arguments],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_the_command_says_so_in_a_line():
    done = command("benchmarks/layers.json")
    assert done.returncode == 2
    assert done.stderr.startswith("convt: error: no GPU to tune on: ")
    assert done.stderr.count("\n") == 1
    with pytest.raises(RuntimeError, match=r"^tune: no GPU to measure on$"):
        convt.tune(Decoder(), torch.randn(1, 4, 5, 5))
