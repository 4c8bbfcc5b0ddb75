"""torch.export and AOTInductor: a package of convt's layers, run from Python and from C++."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import convt  # loads what the package calls

EXPORT = Path(__file__).parent.parent / "examples/export.py"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What examples/export.py writes: decoder.pt2 and an example of its input and output."""
    folder = tmp_path_factory.mktemp("aoti")
    environment = os.environ.copy()
    environment.pop("TRITON_INTERPRET", None)  # conftest.py's; inductor compiles its own kernels
    command = [sys.executable, EXPORT, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return torch._inductor.aoti_load_package(str(folder / "decoder.pt2"))


@pytest.mark.parametrize("batch", [1, 4])
def test_package_runs_in_python(model, folder, batch):
    x, expected = torch.load(folder / "decoder.pt")
    torch.testing.assert_close(model(x[:batch]), expected[:batch])


def test_package_calls_the_op_library_and_no_dispatcher(folder):
    with zipfile.ZipFile(folder / "decoder.pt2") as package:
        (wrapper,) = (name for name in package.namelist() if name.endswith("wrapper.cpp"))
        code = package.read(wrapper).decode()
    called = re.findall(r"AOTI_TORCH_ERROR_CODE_CHECK\((\w+)", code)
    assert called.count(f"aoti_torch_{DEVICE}_conv_transpose2d") == 3
    assert "aoti_torch_proxy_executor_call_function" not in called


def test_package_names_bad_input(model, capfd):
    with pytest.raises(RuntimeError):
        model(torch.ones(1, 65, 16, 16, device=DEVICE))
    assert "conv_transpose2d: expected input to have" in capfd.readouterr().err


def test_without_the_library_the_error_names_it(folder):
    done = without_convt(f"torch._inductor.aoti_load_package({str(folder / 'decoder.pt2')!r})")
    assert "libconvt_torch.so: cannot open shared object file" in done.stderr


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("kind", ["TorchScript", "exported program"])
def test_a_model_loaded_without_convt_names_it(kind, tmp_path):
    """README tells what to do about each of these texts."""
    model, x, path = (
        convt.ConvTranspose2d(4, 6, 3).eval(),
        torch.ones(1, 4, 5, 5),
        tmp_path / "m.pt2",
    )
    if kind == "TorchScript":
        with torch.no_grad():
            torch.jit.trace(model, x).save(path)
        done = without_convt(f"torch.jit.load({str(path)!r})")
        assert "Unknown builtin op: convt::conv_transpose2d" in done.stderr
    else:
        torch.export.save(torch.export.export(model, (x,)), path)
        done = without_convt(f"torch.export.load({str(path)!r})")
        assert "failed to resolve torch.ops.convt.conv_transpose2d" in done.stderr


def without_convt(code):
    """Runs the code, which raises, in a process that cannot import convt."""
    code = f"import sys, torch; sys.modules['convt'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return done


def test_package_runs_in_cpp(folder, cpp_examples):
    command = [cpp_examples / "aoti", folder / "decoder.pt2", folder / "decoder.pt"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "relative difference" in done.stdout
