"""Host time of a warm call: what a user waits for where the kernel takes no time. See cold.py too.

python -m benchmarks.host --out host.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

import convt
from benchmarks.timing import environment, host_us


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
    result = {**environment(), "warm_call_us": warm_calls()}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
