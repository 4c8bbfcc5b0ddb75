"""examples/modelnew_triton.py: the headline layer in one file, compiled just in time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aot.interpret import gpu_arithmetic
from aot.interpret_gluon import interpreted
from tests.planning import Layer
from tests.reference import assert_close, reference

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples/modelnew_triton.py"

LAYERS = [
    Layer(2, 32, 16, (3, 12), (3, 3), (5, 5), (1, 1), dilation=(2, 2), why="the headline, cropped"),
    Layer(1, 40, 5, (2, 7), (2, 2), (2, 2), bias=True, why="k2s2, odd channels, bias"),
    Layer(1, 8, 8, (3, 5), (3, 3), (7, 7), (8, 8), dilation=(5, 5), why="taps reach far back"),
    Layer(1, 6, 11, (2, 140), (2, 2), (3, 3), (1, 1), why="rows of two programs, odd planes"),
]


def model_of(layer, example):
    (k, _), (s, _), (p, _), (d, _) = layer.kernel, layer.stride, layer.padding, layer.dilation
    return example.ModelNew(layer.in_channels, layer.out_channels, k, s, p, d, layer.bias)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.why)
def test_model(layer, monkeypatch):
    from examples import modelnew_triton

    kernel = interpreted(modelnew_triton.single_tap_nchw.fn)
    monkeypatch.setattr(modelnew_triton, "single_tap_nchw", kernel)
    model = model_of(layer, modelnew_triton)
    x = torch.randn(layer.batch, layer.in_channels, *layer.size)
    with torch.no_grad(), gpu_arithmetic():
        y = model(x)
    weight, bias = model.conv.weight.detach(), model.conv.bias
    expected = reference(x, weight, None if bias is None else bias.detach(), layer)
    assert_close(y, expected, "f32", "fp32")


def test_what_it_does_not_serve_is_named():
    from examples import modelnew_triton

    with pytest.raises(NotImplementedError, match=r"kernel_size 3, stride 2, dilation 1"):
        modelnew_triton.ModelNew(4, 4, 3, 2)(torch.randn(1, 4, 5, 5))


GPU_EQUAL = """
import torch, convt
from examples import modelnew_triton
torch.manual_seed(0)
ours = convt.ModelNew(32, 64, 3, stride=5, padding=1, dilation=2).cuda()
example = modelnew_triton.ModelNew(32, 64, 3, stride=5, padding=1, dilation=2).cuda()
example.load_state_dict(ours.state_dict())
x = torch.randn(2, 32, 64, 128, device="cuda")
with torch.inference_mode():
    assert torch.equal(ours(x), example(x))
"""


@pytest.mark.gpu
def test_precompiled_and_just_in_time_agree_to_the_bit():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", GPU_EQUAL]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
