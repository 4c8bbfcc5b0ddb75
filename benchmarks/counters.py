"""What the hardware counted during the headline layer: ours, cuDNN's and a rival's kernels.

    python -m benchmarks.counters [--out counters.json] [--seed FILE]

Needs `ncu` and the right to read counters. Kernels of one call are summed, percentages by time.
--seed: as for benchmarks.headline.
"""

from __future__ import annotations

import argparse
import csv
import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

import convt
from benchmarks.timing import environment

METRICS = {
    "gpu__time_duration.sum": "ms",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "DRAM %",
    "lts__t_sector_hit_rate.pct": "L2 hit %",
    "smsp__warp_issue_stalled_long_scoreboard_per_warp_active.pct": "memory stall %",
    "smsp__warp_issue_stalled_lg_throttle_per_warp_active.pct": "store queue %",
    "smsp__warp_issue_stalled_barrier_per_warp_active.pct": "barrier %",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy %",
    "launch__registers_per_thread": "registers",
}
DURATION, REGISTERS = "gpu__time_duration.sum", "launch__registers_per_thread"
GEOMETRY = {"stride": 5, "padding": 1, "dilation": 2}
MARK = "FillFunctor"  # torch's fill, between the calls


def calls(seed: Path | None) -> Iterator[tuple[str, Callable[[], Any]]]:
    for dtype in ("float32", "float16"):
        for layout in ("nchw", "nhwc"):
            memory_format = torch.channels_last if layout == "nhwc" else torch.contiguous_format
            like = {"device": "cuda", "dtype": getattr(torch, dtype)}
            x = torch.randn(16, 32, 64, 128, **like).contiguous(memory_format=memory_format)
            layer = convt.ConvTranspose2d(32, 64, 3, bias=False, **GEOMETRY, **like)
            layer = layer.to(memory_format=memory_format)
            yield f"convt {dtype} {layout}", lambda x=x, layer=layer: layer(x)
            yield (
                f"cuDNN {dtype} {layout}",
                lambda x=x, w=layer.weight: F.conv_transpose2d(x, w, **GEOMETRY),
            )
    if seed:
        x = torch.randn(16, 32, 64, 128, device="cuda")
        model = runpy.run_path(str(seed))["ModelNew"](32, 64, 3, bias=False, **GEOMETRY).cuda()
        yield "seed float32 nchw", lambda: model(x)


def run(seed: Path | None) -> None:
    """The program that ncu watches: every call once, after a mark."""
    torch.backends.cudnn.benchmark = True
    mark = torch.empty(1, device="cuda")
    for _, call in calls(seed):
        with torch.inference_mode():
            for _ in range(3):
                call()
            torch.cuda.synchronize()
            torch.cuda.profiler.start()
            mark.fill_(1)
            call()
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()


def watch(seed: Path | None) -> list[list[dict[str, float]]]:
    """Per call, its kernels' metrics."""
    command = [
        "ncu", "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none",
        "--profile-from-start", "off", "--metrics", ",".join(METRICS),
        sys.executable, "-m", "benchmarks.counters", "--run",
    ]  # fmt: skip
    command += ["--seed", str(seed)] if seed else []
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    if done.returncode != 0 or not lines:
        raise SystemExit(f"ncu failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found: list[list[dict[str, float]]] = []
    for row in list(csv.DictReader(lines))[1:]:  # the first row holds units
        if MARK in row["Kernel Name"]:
            found.append([])
        else:
            found[-1].append({m: float(row[m].replace(",", "")) for m in METRICS})
    return found


def summary(kernels: list[dict[str, float]]) -> dict[str, float]:
    total = sum(kernel[DURATION] for kernel in kernels)
    result = {m: sum(k[m] * k[DURATION] for k in kernels) / total for m in METRICS}
    registers = max(kernel[REGISTERS] for kernel in kernels)
    return result | {DURATION: total, REGISTERS: registers, "kernels": len(kernels)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write every number here, as JSON")
    parser.add_argument("--seed", type=Path, help="a Python file with a rival ModelNew")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("counters are read off a CUDA device; there is none here")
    if arguments.run:
        return run(arguments.seed)
    names = [name for name, _ in calls(arguments.seed)]
    results = dict(zip(names, map(summary, watch(arguments.seed)), strict=True))
    table = Table("headline layer", "kernels", *METRICS.values())
    for column in table.columns[1:]:
        column.justify = "right"
    for name, result in results.items():
        values = [result[DURATION] / 1e6, *(result[m] for m in METRICS if m != DURATION)]
        digits = [3, *[1] * (len(values) - 2), 0]
        table.add_row(
            name,
            str(result["kernels"]),
            *(f"{value:.{d}f}" for value, d in zip(values, digits, strict=True)),
        )
    Console(width=150).print(table)
    if arguments.out:
        arguments.out.write_text(
            json.dumps({"environment": environment(), "results": results}, indent=1) + "\n"
        )
    return None


if __name__ == "__main__":
    main()
