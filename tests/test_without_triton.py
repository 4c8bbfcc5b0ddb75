"""An environment that has torch and convt but no triton: nothing is missing at run time."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CODE = """
import importlib.util
assert importlib.util.find_spec("triton") is None
import torch, convt
x = torch.randn(2, 4, 5, 6)
layer = convt.ConvTranspose2d(4, 3, 3, stride=2)
expected = torch.nn.functional.conv_transpose2d(x, layer.weight, layer.bias, 2)
torch.testing.assert_close(layer(x), expected)
arch = convt._C.architectures("cubin")[0]
assert convt.explain(x, layer.weight, layer.bias, 2, arch=arch, precision="fp32").served
print("ran without triton")
"""


@pytest.fixture
def interpreter(tmp_path):
    """A fresh virtual environment with everything that this one has, but triton."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    folder = "import sysconfig; print(sysconfig.get_path('purelib'))"
    target = subprocess.run([python, "-c", folder], check=True, capture_output=True, text=True)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("triton"):
            (Path(target.stdout.strip()) / entry.name).symlink_to(entry)
    return python


def test_runs_without_triton(interpreter, tmp_path):
    done = subprocess.run([interpreter, "-c", CODE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ran without triton" in done.stdout


def test_importing_convt_imports_no_triton():
    code = (
        "import sys, torch; before = set(sys.modules); import convt; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
        "assert 'triton' not in new and 'aot' not in new, new"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
