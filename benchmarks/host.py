"""Costs outside the kernel: host time of a warm call, and the first call of a fresh process.

python -m benchmarks.host --out host.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import convt
from benchmarks.timing import environment, host_us

FIRST_CALL = """
import sys, time, torch
which = sys.argv[1]
x = torch.randn(16, 32, 64, 128, device="cuda")
if which == "convt":
    import convt
    layer = convt.ConvTranspose2d
else:
    layer = torch.nn.ConvTranspose2d
    torch.backends.cudnn.benchmark = which == "cudnn benchmark"
module = layer(32, 64, 3, 5, 1, dilation=2, bias=False).cuda()
torch.cuda.synchronize()
with torch.inference_mode():
    begin = time.perf_counter()
    module(x)
    torch.cuda.synchronize()
    print(1e3 * (time.perf_counter() - begin))
"""


def first_call_ms(which: str, processes: int = 3) -> float:
    """Median over fresh processes, after the CUDA context exists."""
    times = [
        float(
            subprocess.run(
                [sys.executable, "-c", FIRST_CALL, which], check=True, capture_output=True
            ).stdout
        )
        for _ in range(processes)
    ]
    return statistics.median(times)


def warm_calls() -> dict[str, float]:
    """Host microseconds of a warm call on a tiny layer, under inference_mode."""
    x = torch.randn(1, 8, 4, 4, device="cuda")
    ours = convt.ConvTranspose2d(8, 8, 2, 2, device="cuda")
    theirs = torch.nn.ConvTranspose2d(8, 8, 2, 2, device="cuda")
    calls = {
        "convt.ConvTranspose2d": lambda: ours(x),
        "convt.conv_transpose2d": lambda: convt.conv_transpose2d(x, ours.weight, ours.bias, 2),
        "nn.ConvTranspose2d": lambda: theirs(x),
        "F.conv_transpose2d": lambda: F.conv_transpose2d(x, theirs.weight, theirs.bias, 2),
        "torch.empty_like": lambda: torch.empty_like(x),
    }
    with torch.inference_mode():
        return {name: host_us(call) for name, call in calls.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    result = {
        **environment(),
        "warm_call_us": warm_calls(),
        "first_call_ms": {w: first_call_ms(w) for w in ("convt", "cudnn", "cudnn benchmark")},
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
