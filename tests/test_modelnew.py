"""examples/modelnew_triton.py: one file of plain Triton, compiled just in time, for any layer."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.planning import Layer
from tests.reference import assert_close, reference

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples/modelnew_triton.py"

LAYERS = [
    Layer(2, 32, 16, (3, 12), (3, 3), (5, 5), (1, 1), dilation=(2, 2), why="the headline, cropped"),
    Layer(1, 40, 5, (2, 7), (2, 2), (2, 2), bias=True, why="k2s2, odd channels, bias"),
    Layer(1, 8, 9, (3, 5), (3, 3), (7, 7), (8, 8), dilation=(5, 5), why="taps reach far back"),
    Layer(1, 6, 11, (2, 140), (2, 2), (3, 3), (1, 1), why="rows of two programs, odd planes"),
    Layer(2, 3, 3, (3, 3), (3, 3), (6, 6), (1, 1), dilation=(4, 4), why="several taps an output"),
    Layer(1, 70, 20, (4, 5), (3, 3), (2, 2), (1, 1), bias=True, why="the other kernel, k3s2"),
    Layer(1, 4, 5, (5, 5), (4, 4), (1, 1), (2, 2), dilation=(3, 3), why="stride 1, dilated"),
    Layer(1, 5, 4, (3, 3), (2, 2), (4, 4), dilation=(6, 6), why="one tap of a common factor"),
    Layer(1, 3, 4, (4, 4), (2, 2), (3, 3), dilation=(200, 200), why="taps further than a tile"),
    Layer(1, 100, 3, (3, 4), (1, 1), (3, 3), why="one tap, more channels than a tile"),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.why)
def test_model(layer):
    from examples import modelnew_triton

    (k, _), (s, _), (p, _), (d, _) = layer.kernel, layer.stride, layer.padding, layer.dilation
    channels = layer.in_channels, layer.out_channels
    model = modelnew_triton.ModelNew(*channels, k, s, p, d, layer.bias).requires_grad_(False)
    x = torch.randn(layer.batch, layer.in_channels, *layer.size)
    expected = reference(x, model.conv.weight, model.conv.bias, layer)
    assert_close(model(x), expected, "f32", "fp32")


def test_it_is_one_short_file_of_plain_triton():
    text = EXAMPLE.read_text()
    assert text.count("\n") <= 200
    imports = [node for node in ast.parse(text).body if isinstance(node, ast.Import)]
    assert [name.name for node in imports for name in node.names] == [
        "torch", "torch.nn", "triton", "triton.language",
    ]  # fmt: skip


# Both kernels with the headline's constants, for an RTX 4090; the last line is (symbol, spills?).
COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from examples import modelnew_triton as m

def ptx(kernel, **constants):
    names = kernel.arg_names
    types = {n: "*fp32" if n in ("x", "w", "bias", "y") else "i32" for n in names}
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, types, {(names.index(n),): v for n, v in constants.items()})
    return compile(source, target=GPUTarget("cuda", 89, 32)).asm["ptx"]

blocks = {"HAS_BIAS": True, "BLOCK_C": 8, "BLOCK_K": 32, "BLOCK_Q": 128}
one = ptx(m.single_tap_kernel, KW=3, SW=5, GCD_H=1, GCD_W=1, SLOTS=4, BLOCK_O=1024, **blocks)
any = ptx(m.phase_kernel, **blocks | {"BLOCK_C": 64, "BLOCK_K": 16})
assert "tf32" in one and "tf32" in any
"""


def run(program):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_kernels_compile():
    """The interpreter takes what the compiler does not, variables that change their type."""
    run(COMPILE)


# Of the headline layer: error, then milliseconds of the example, the package and cuDNN.
ON_GPU = """
import torch, convt
from convt._cli_bench import median_ms, relative_error
from examples import modelnew_triton
torch.backends.cudnn.benchmark = True
geometry = {"stride": 5, "padding": 1, "dilation": 2}
example = modelnew_triton.ModelNew(32, 64, 3, **geometry).cuda()
package = convt.ModelNew(32, 64, 3, **geometry).cuda()
package.load_state_dict(example.state_dict())
x, weight = torch.randn(16, 32, 64, 128, device="cuda"), example.conv.weight
conv = torch.nn.functional.conv_transpose2d
with torch.inference_mode():
    print(relative_error(example(x)[:1], conv(x[:1].double(), weight.double(), **geometry)))
    for run in (lambda: example(x), lambda: package(x), lambda: conv(x, weight, **geometry)):
        print(median_ms(run))
"""


@pytest.mark.gpu
def test_the_headline_layer_beside_the_package_and_cudnn():
    error, example, package, cudnn = map(float, run(ON_GPU).split())
    assert error <= 1e-6
    assert package <= example <= cudnn
