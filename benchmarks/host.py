"""Host time of warm calls: what a user waits for where the kernels take no time. See cold.py too.

python -m benchmarks.host --out host.json

One tiny layer, and the transposed convolutions of three networks in a row: with torch's layers,
with convt's as they are (weights packed at each call) and frozen. Without a GPU, tiny layers on the
CPU alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import convt
from benchmarks.timing import environment, host_us

# (in, out, kernel, stride, padding) of each layer. Widths are a quarter of the published ones, and
# images tiny, so that the GPU never is what is waited for.
NETWORKS = {
    "U-Net": [(256, 128, 2, 2, 0), (128, 64, 2, 2, 0), (64, 32, 2, 2, 0), (32, 16, 2, 2, 0)],
    "DCGAN": [(25, 128, 4, 1, 0), *((128 >> i, 64 >> i, 4, 2, 1) for i in range(3)),
              (16, 3, 4, 2, 1)],
    "HiFi-GAN": [(128, 64, 16, 8, 4), (64, 32, 16, 8, 4), (32, 16, 4, 2, 1), (16, 8, 4, 2, 1)],
}  # fmt: skip
ONE_DIMENSIONAL = {"HiFi-GAN"}


def network(name: str, package: Any) -> torch.nn.Sequential:
    """A network's transposed convolutions, of torch.nn or convt."""
    kind = package.ConvTranspose1d if name in ONE_DIMENSIONAL else package.ConvTranspose2d
    layers = [kind(i, o, k, s, p, bias=False) for i, o, k, s, p in NETWORKS[name]]
    return torch.nn.Sequential(*layers).cuda().eval()


def networks() -> dict[str, dict[str, float]]:
    """Host microseconds of a forward pass, under inference_mode."""
    result = {}
    for name, layers in NETWORKS.items():
        x = torch.randn(1, layers[0][0], *([2] if name in ONE_DIMENSIONAL else [2, 2])).cuda()
        theirs, ours, frozen = (network(name, p) for p in (torch.nn, convt, convt))
        convt.freeze(frozen)
        with torch.inference_mode():
            result[name] = {
                "layers": len(layers),
                "torch": host_us(lambda m=theirs, x=x: m(x), 1000),
                "convt": host_us(lambda m=ours, x=x: m(x), 1000),
                "convt, frozen": host_us(lambda m=frozen, x=x: m(x), 1000),
            }
    return result


def warm_calls() -> dict[str, float]:
    """Host microseconds of a warm call on a tiny layer, under inference_mode."""
    x = torch.randn(1, 8, 4, 4, device="cuda")
    ours = convt.ConvTranspose2d(8, 8, 2, 2, device="cuda")
    frozen = convt.ConvTranspose2d(8, 8, 2, 2, device="cuda").freeze()
    theirs = torch.nn.ConvTranspose2d(8, 8, 2, 2, device="cuda")
    calls: dict[str, Callable[[], Any]] = {
        "convt.ConvTranspose2d, frozen": lambda: frozen(x),
        "convt.ConvTranspose2d": lambda: ours(x),
        "convt.conv_transpose2d": lambda: convt.conv_transpose2d(x, ours.weight, ours.bias, 2),
        "nn.ConvTranspose2d": lambda: theirs(x),
        "F.conv_transpose2d": lambda: F.conv_transpose2d(x, theirs.weight, theirs.bias, 2),
        "torch.empty_like": lambda: torch.empty_like(x),
    }
    with torch.inference_mode():
        return {name: host_us(call) for name, call in calls.items()}


def cpu_calls() -> dict[str, dict[str, float]]:
    """Host microseconds of tiny layers on one CPU thread, where ATen computes for both."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = {}
    for axes in (1, 2, 3):
        theirs, ours = (
            getattr(package, f"ConvTranspose{axes}d")(4, 4, 2, 2) for package in (torch.nn, convt)
        )
        x = torch.randn(1, 4, *[2] * axes)
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                result[f"{axes}-D, {'' if grad else 'no '}gradients"] = {
                    "torch": host_us(lambda m=theirs, x=x: m(x)),
                    "convt": host_us(lambda m=ours, x=x: m(x)),
                }
    torch.set_num_threads(threads)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"cpu_us": cpu_calls()}
    if torch.cuda.is_available():
        result |= {**environment(), "warm_call_us": warm_calls(), "network_us": networks()}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
