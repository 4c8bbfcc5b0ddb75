"""A torch without the private names that convt uses: everything works, slower."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from convt import _torch

WITHOUT = """
import sys, torch

def drop(path):
    *folders, name = path.split(".")
    owner = torch
    for folder in folders:
        owner = getattr(owner, folder)
    delattr(owner, name)

import torch.nn.functional as F, torch.autograd.forward_ad
x, weight = torch.randn(2, 4, 5, 6), torch.randn(4, 3, 3, 2, requires_grad=True)
for path in sys.argv[1:]:
    drop(path)
import convt
from convt import _torch
for path in sys.argv[1:]:
    assert _torch.private(path, None) is None

expected = F.conv_transpose2d(x, weight, stride=2)
torch.testing.assert_close(convt.conv_transpose2d(x, weight, stride=2), expected)
with torch.no_grad():
    assert torch.equal(convt.conv_transpose2d(x, weight, stride=2), expected)
    layer = convt.freeze(convt.ConvTranspose2d(4, 3, (3, 2), 2, bias=False))
    layer.weight.copy_(weight)
    assert torch.equal(layer.forward(x), expected)  # torch's __call__ needs one of the names
    assert convt.explain(x, weight, stride=2, arch="sm_89").problem.precision in ("tf32", "fp32")
(gradient,) = torch.autograd.grad(convt.conv_transpose2d(x, weight, stride=2).sum(), weight)
torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), weight)[0])
with torch.autocast("cpu", torch.bfloat16):
    assert convt.conv_transpose2d(x, weight).dtype == torch.bfloat16
jvp = torch.func.jvp(lambda x: convt.conv_transpose2d(x, weight), (x,), (x,))[1]
torch.testing.assert_close(jvp, F.conv_transpose2d(x, weight))
with _torch.fp32_products:
    assert not _torch.allows_tf32("conv")
"""


def without(*names):
    command = [sys.executable, "-c", WITHOUT, *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", _torch.PRIVATE_NAMES)
def test_without_one(name):
    without(name)


def test_without_any():
    without(*_torch.PRIVATE_NAMES)


def test_no_other_module_names_anything_private_of_torchs():
    private = re.compile(
        r"\btorch\.(?!__version__|_inductor)(?:\w+\.)*_\w[\w.]*"
        r"|from torch[\w.]* import [^\n]*\b_\w+|from torch[\w.]*\._\w[^\n]*"
    )
    # Those that wait for torch's module and warn without it, and its documented AOTInductor.
    tables = {"_late.py", "counting.py", "decomposition.py", "distributed.py"}
    for path in Path(_torch.__file__).parent.glob("*.py"):
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text())
        assert path.name in {"_torch.py", *tables} or not private.findall(code), path
