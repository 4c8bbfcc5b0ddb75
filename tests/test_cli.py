"""The command line: what it prints, its JSON, its exit codes."""

import json
import os
import subprocess
import sys
from collections import Counter
from unittest import mock

import pytest
import torch

from convt import _C, _cli_bench, _cli_doctor, _cli_layer, _cli_machine
from convt.cli import main
from tests.planning import HEADLINE, gpu
from tests.test_launch import ARCH

ON_ARCH = ["--arch", f"sm_{ARCH}"]
LAYER = ["plan", "16,32,64,128", "64"]
NO_GPU = pytest.mark.skipif(_C.device_count() > 0, reason="has a CUDA device")


@pytest.fixture
def convt(capsys):
    """Runs a command line in this process: (exit code, output, error output)."""

    def runner(*arguments):
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return runner


@pytest.fixture
def with_driver(fake_cuda, tmp_path):
    """Runs `python -m convt` against the stand-in libcuda: (exit code, the JSON it printed)."""

    def runner(*arguments, **environment):
        settings = {
            "CONVT_LIBCUDA": str(fake_cuda),
            "FAKE_CUDA_LOG": str(tmp_path / "calls"),
            "FAKE_CUDA_ARCH": str(ARCH),
            "FAKE_CUDA_DEVICES": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "convt", *arguments, "--json"],
            env={**os.environ, **settings, **environment},
            capture_output=True,
            text=True,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return runner


def problems(report):
    return {c["name"]: c for c in report["checks"] if c["status"] == "problem"}


# plan


@pytest.mark.parametrize(
    "layer", [["3", "5", "1"], ["--kernel", "3", "--stride", "5,5", "--padding", "1"]]
)
def test_plan_in_short_and_in_long_is_that_of_the_core(convt, layer):
    options = [*ON_ARCH, "--dilation", "2", "--precision", "tf32"]
    code, out, _ = convt(*LAYER, *layer, *options)
    problem = HEADLINE.problem(precision="tf32")
    plan = _C.plan(problem, gpu(ARCH))
    assert code == 0
    assert out == f"{plan}\nfloor: {problem.min_bytes:,} bytes, {problem.flops:,.0f} flops\n"


def test_plan_passes_every_option_on(convt):
    code, out, _ = convt(
        "plan", "2,8,5,6", "12", "--kernel", "3,4", "--stride", "2,3", "--padding", "0,1",
        "--output-padding", "1,0", "--dilation", "1,2", "--groups", "4", "--bias",
        "--dtype", "bf16", "--layout", "nhwc", "--precision", "fp32", *ON_ARCH, "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == (0 if found["served"] else 3)
    assert found["target"] == {"arch": ARCH, "kind": "cubin"}
    expected = {
        "batch": 2, "in_channels": 8, "out_channels": 12, "input_size": [5, 6],
        "output_size": [12, 20], "kernel_size": [3, 4], "stride": [2, 3], "padding": [0, 1],
        "output_padding": [1, 0], "dilation": [1, 2], "groups": 4, "bias": True, "dtype": "bf16",
        "layout": "nhwc",
    }  # fmt: skip
    assert expected.items() <= found["problem"].items()
    assert found["problem"]["min_bytes"] > 0


def test_plan_exits_3_where_aten_serves(convt):
    code, out, _ = convt("plan", "0,3,4,5", "8", "3", *ON_ARCH, "--json")
    assert code == 3
    assert json.loads(out)["reason"] == "the output is empty"
    code, out, _ = convt("plan", "1,3,4,5", "8", "3", "--arch", "sm_75")
    assert code == 3
    assert out.startswith("ATen: ")


@NO_GPU
def test_plan_without_a_gpu_asks_for_an_architecture(convt):
    code, out, _ = convt(*LAYER, "3")
    assert code == 3
    assert "name an architecture, like --arch sm_89" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: info|plan|doctor|bench"),
        (["fly"], "invalid choice: 'fly'"),
        (["plan", "1,2", "8", "3"], "expected sizes N,C,H,W (or N,C,W or N,C,D,H,W), got '1,2'"),
        (["plan", "1,2,-3,4", "8", "3"], "or N,C,D,H,W), got '1,2,-3,4'"),
        (["plan", "1,2,3,4", "8"], "the kernel size is missing"),
        (["plan", "1,2,3,4", "x", "3"], "expected an int, got 'x'"),
        (["plan", "1,2,3,4", "0", "3"], "expected Cout to be positive"),
        (["plan", "1,2,3,4", "8", "3", "1,2,3"], "expected --stride to be one int or 2, got 3"),
        (["plan", "1,2,3", "8", "3", "1,2,3,4"], "expected an int, or one for each axis"),
        (["plan", "1,2,3,4", "8", "3", "1", "0", "7"], "unrecognized arguments: 7"),
        (["plan", "1,2,3,4", "8", "3", "--kernel", "3"], "kernel is given twice"),
        (["plan", "1,2,3,4", "8", "3", "--groups", "3"], "multiple of --groups, got 8 and 3"),
        (
            ["plan", "1,3,3,4", "8", "3", "--groups", "2"],
            "input channels to be divisible by groups=2",
        ),
        (["plan", "1,2,3,4", "8", "3", "0"], "expected stride to be positive, got (0, 0)"),
        (["plan", "1,2,3,4", "8", "3", "1", "9"], "expected a positive output size"),
        (["plan", "1,2,3,4", "8", "-3"], "negative dimension"),
        (["plan", f"1,2,3,{2**70}", "8", "3"], "expected sizes"),
        (["plan", "9999999,9999999,9999999,9", "8", "3"], "overflow"),
        (["plan", "1,2,3,4", "8", "3", "--arch", "ada"], "expected arch to be like 'sm_89' or 89"),
        (["plan", "1,2,3,4", "8", "3", "--dtype", "fp64"], "invalid choice: 'fp64'"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exits_2(convt, arguments, message):
    code, out, err = convt(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("convt: error: ")
    assert err.count("\n") == 1
    assert message in err


# info


def test_info_tells_what_is_built_in_and_what_is_set(convt, monkeypatch):
    monkeypatch.setenv("CONVT_JIT", "1")
    monkeypatch.delenv("CONVT_ARCH", raising=False)
    code, out, _ = convt("info", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["cubin"] == _C.architectures("cubin")
    assert found["ptx"] == _C.architectures("ptx")
    assert found["variants"] == Counter(variant["family"] for variant in _C.variants())
    assert found["torch"] == torch.__version__
    assert found["environment"]["CONVT_JIT"] == "1"
    assert "CONVT_ARCH" not in found["environment"]
    assert len(found["devices"]) == _C.device_count()
    code, out, _ = convt("info")
    assert code == 0
    assert f"sm_{ARCH}" in out
    assert "CONVT_JIT=1" in out


def test_info_tells_what_each_device_runs(with_driver):
    code, found = with_driver("info", FAKE_CUDA_DEVICES="2")
    assert code == 0
    assert found["driver_error"] is None
    assert [d["index"] for d in found["devices"]] == [0, 1]
    device = found["devices"][0]
    assert device["capability"] == f"{ARCH // 10}.{ARCH % 10}"
    assert (device["runs"], device["reason"]) == (
        f"sm_{ARCH} cubin",
        "compiled for this architecture",
    )


def test_a_device_that_torch_does_not_count_has_no_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", mock.Mock(side_effect=AssertionError))
    assert _cli_machine._name(1) is None


def test_plan_without_arch_is_for_the_first_device(with_driver):
    code, found = with_driver("plan", "1,2,3,4", "8", "3")
    assert code == (0 if found["served"] else 3)
    assert found["target"] == {"arch": ARCH, "kind": "cubin"}


# doctor


@NO_GPU
def test_doctor_names_a_missing_gpu(convt):
    code, out, _ = convt("doctor")
    assert code == 1
    assert "problem  driver: no GPU can be used" in out
    assert "mend: on a machine with an NVIDIA GPU install its driver" in out
    assert "ok       op library: relative error" in out
    assert out.endswith("\n1 problem\n")


def test_doctor_exits_0_if_nothing_is_wrong(convt, monkeypatch):
    monkeypatch.setattr(_cli_doctor, "checks", lambda: [_cli_doctor.Check("torch", "ok", "9")])
    assert convt("doctor")[:2] == (0, "ok       torch: 9\nno problems\n")


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch is built with CUDA")
def test_doctor_names_a_torch_without_cuda(with_driver):
    code, report = with_driver("doctor")
    assert code == 1
    assert list(problems(report)) == ["torch CUDA"]
    assert "built without CUDA" in problems(report)["torch CUDA"]["text"]
    lines = {c["name"]: c["status"] for c in report["checks"]}
    assert list(lines) == [
        "torch", "driver", "driver version", "GPU", "torch CUDA", "device 0", "JIT", "op library",
        "run on 0",
    ]  # fmt: skip
    assert lines["device 0"] == "ok"


@pytest.mark.skipif(89 not in _C.architectures("ptx"), reason="built without sm_89")
def test_doctor_tells_of_ptx_and_of_what_forbids_it(with_driver):
    _, report = with_driver("doctor", FAKE_CUDA_ARCH="121")
    jit = next(c for c in report["checks"] if c["name"] == "JIT")
    assert jit["status"] == "ok"
    assert "compiles at first use on device 0" in jit["text"]
    _, report = with_driver("doctor", FAKE_CUDA_ARCH="121", CONVT_JIT="0")
    device = problems(report)["device 0"]
    assert "CONVT_JIT=0 forbids every image that sm_121 runs" in device["text"]
    assert device["mend"] == "unset CONVT_JIT"


@pytest.mark.parametrize(
    ("environment", "check", "text"),
    [
        ({"FAKE_CUDA_DEVICES": "0"}, "GPU", "no GPU: the CUDA driver has no device"),
        ({"FAKE_CUDA_FAIL": "cuInit"}, "GPU", "no GPU: convt: cuInit failed: CUDA_ERROR_FAKE"),
        ({"FAKE_CUDA_ARCH": "75"}, "device 0", "none runs on sm_75"),
        ({"FAKE_CUDA_FAIL": "cuDeviceGetAttribute"}, "device 0", "cuDeviceGetAttribute failed"),
        ({"CONVT_ARCH": "ada"}, "device 0", "expected CONVT_ARCH to be like sm_89, got ada"),
    ],
    ids=["none", "init", "old", "broken", "nonsense"],
)
def test_doctor_names_what_is_wrong_with_a_device(with_driver, environment, check, text):
    code, report = with_driver("doctor", **environment)
    assert code == 1
    assert text in problems(report)[check]["text"]
    assert problems(report)[check]["mend"]


def test_doctor_names_old_drivers_and_old_torches():
    old = "convt: the CUDA driver has no cuLibraryLoadData: convt needs a driver for CUDA 12.0"
    driver, version, gpu = _cli_doctor.check_driver(old, 0)
    assert (driver.status, version.status, gpu.status) == ("ok", "problem", "skipped")
    assert version.mend == "install NVIDIA driver 525 or newer"
    assert _cli_doctor.check_torch("2.10.0a0+git").status == "ok"
    assert _cli_doctor.check_torch("3.0").status == "ok"
    check = _cli_doctor.check_torch("2.9.1+cu128")
    assert check.status == "problem"
    assert check.text == "2.9.1+cu128, convt needs 2.10 or newer"


def test_doctor_sees_wrong_results_and_failing_runs(monkeypatch):
    run = _cli_doctor.functional.conv_transpose2d
    monkeypatch.setattr(
        _cli_doctor.functional, "conv_transpose2d", lambda *a, **k: run(*a, **k) + 1e-3
    )
    assert "relative error" in _cli_doctor.check_run("run", "cpu").text
    assert _cli_doctor.check_run("run", "cpu").status == "problem"

    def fail(*_, **__):
        raise RuntimeError("CUDA error:\n an illegal memory access")

    monkeypatch.setattr(_cli_doctor.functional, "conv_transpose2d", fail)
    check = _cli_doctor.check_run("run", "cpu")
    assert (check.status, check.text) == ("problem", "CUDA error: an illegal memory access")


# bench


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_bench_without_a_gpu_is_an_error(convt):
    code, out, err = convt("bench", "1,2,3,4", "8", "3")
    assert (code, out) == (2, "")
    assert err.startswith("convt: error: no GPU to measure on: ")


def test_bench_beside_aten(convt, monkeypatch):
    """All of it but the clock, on the CPU."""
    measure = _cli_bench.measure
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(_cli_machine, "devices", list)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: None)
    monkeypatch.setattr(_cli_bench, "median_ms", lambda run: run().numel() * 1e-3)
    monkeypatch.setattr(_cli_bench, "measure", lambda layer, _: measure(layer, "cpu"))
    layer = ("bench", "2,4,5,6", "8", "3", "2", "--groups", "2", "--bias", "--layout", "nhwc")
    code, out, _ = convt(*layer, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["plan"]["problem"]["layout"] == "nhwc"
    for name in ("convt", "cuDNN"):
        run = found[name]
        assert run["ms"] == pytest.approx(2 * 8 * 11 * 13 * 1e-3)
        assert run["gb_per_s"] == pytest.approx(
            found["plan"]["problem"]["min_bytes"] / run["ms"] / 1e6
        )
        assert 0 < run["error"] < 1e-6
    code, out, _ = convt(*layer)
    assert code == 0
    assert "1.00 times as fast as cuDNN" in out
    code, _, err = convt("bench", "0,4,5,6", "8", "3")
    assert code == 2
    assert "the input is empty, [0, 4, 5, 6]" in err


@pytest.mark.gpu
def test_bench_and_doctor_on_a_gpu(convt, monkeypatch):
    cudnn = torch.backends.cudnn  # bench sets both, for its own process
    monkeypatch.setattr(cudnn, "benchmark", cudnn.benchmark)
    precision = cudnn.conv.fp32_precision  # an attribute that monkeypatch cannot put back
    try:
        code, out, err = convt(
            "bench", "2,16,20,24", "32", "3", "2", "--precision", "fp32", "--json"
        )
    finally:
        cudnn.conv.fp32_precision = precision
    assert code == 0, err
    found = json.loads(out)
    assert found["plan"]["served"]
    assert found["convt"]["error"] < 1e-6
    assert found["convt"]["ms"] > 0
    code, out, _ = convt("doctor")
    assert code == 0, out


# the program itself


def test_importing_convt_imports_no_command_line():
    code = "import sys, convt; assert not [m for m in sys.modules if 'convt' in m and 'cli' in m]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dtypes_are_those_of_kernels():
    assert set(_cli_layer.DTYPES.values()) == set(_cli_layer.functional.ops.DTYPES)
