"""What a call costs beside torch's, where there is next to nothing to compute."""

import time

import pytest
import torch
from torch import nn

import convt

LIMIT = 1.5


def fastest(calls, rounds=40, repeats=100):
    """Seconds of each call in its fastest round. The calls take turns: load hits them alike."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            best[i] = min(best[i], time.perf_counter() - begin)
    return best


@pytest.mark.parametrize(
    "mode", ["forward, gradients", "forward, no_grad", "forward and backward", "function"]
)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_tiny_layers_on_one_thread(axes, mode):
    x = torch.randn(1, 4, *[2] * axes)
    layers = [getattr(m, f"ConvTranspose{axes}d")(4, 4, 2, 2) for m in (convt, nn)]
    functions = [getattr(m, f"conv_transpose{axes}d") for m in (convt, nn.functional)]

    def call(layer, function):
        def step():
            y = function(x, layer.weight, layer.bias, stride=2) if mode == "function" else layer(x)
            if mode == "forward and backward":
                y.sum().backward()

        return step

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.set_grad_enabled(mode != "forward, no_grad"):
            ours, theirs = fastest([*map(call, layers, functions)])
    finally:
        torch.set_num_threads(threads)
    assert ours <= LIMIT * theirs, f"{1e4 * ours:.1f} us, torch's layer {1e4 * theirs:.1f}"
