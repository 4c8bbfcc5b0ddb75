"""What `make demo` runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def demo():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "examples.headline"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would time the layer")
def test_without_a_gpu():
    output = demo()
    assert "modelled for RTX 4090" in output
    assert float(re.search(r"relative error (\S+) against fp64", output)[1]) <= 1e-6


@pytest.mark.gpu
def test_on_a_gpu():
    assert re.search(r"^convt +\d+\.\d+", demo(), re.MULTILINE)
