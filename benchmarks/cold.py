"""The first call of a fresh process, on the headline layer: who makes a user wait how long.

python -m benchmarks.cold --out cold.json [--seed FILE]

Every process has made its CUDA context, its input and its module, and waits for the GPU; then the
clock runs until the first output is there. The caching allocator is cold for everyone.
--seed: as for benchmarks.headline.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUTES = (
    "convt",
    "convt, preloaded",
    "convt, warm allocator",
    "convt, preloaded, warm allocator",
    "cuDNN",
    "cuDNN, benchmark",
    "Triton, JIT",
    "Triton, JIT, disk cache",
    "torch.compile",
)
SEED_ROUTES = ("seed", "seed, disk cache")


def _triton(module: Any, x: Any) -> Callable[[Any], Any]:
    """The same kernel through Triton's JIT, with the grid and arguments of the plan."""
    import torch

    import convt
    from aot.interpret import arguments_of, kernel_of
    from convt import _C

    geometry = (module.stride, module.padding, module.output_padding, 1, module.dilation)
    plan = convt.explain(x, module.weight, None, *geometry)
    variant = next(v for v in _C.variants() if v["name"] == plan.variant)
    kernel = kernel_of(variant)
    weight = module.weight.detach().permute(0, 2, 3, 1).contiguous()
    size = (plan.problem.batch, plan.problem.out_channels, *plan.problem.output_size)

    def call(x: Any) -> Any:
        y = torch.empty(size, device=x.device)
        arguments = arguments_of(plan, variant, x, weight, None, y)
        kernel[plan.grid](**arguments, num_warps=variant["warps"])
        return y

    return call


def measure(route: str, seed: Path | None) -> dict[str, float]:
    """Milliseconds of a first call and of a warm one. Once per process."""
    begin = time.perf_counter()
    import torch

    result = {"import torch": time.perf_counter() - begin}
    x = torch.randn(16, 32, 64, 128, device="cuda")
    torch.cuda.synchronize()
    begin = time.perf_counter()
    import convt

    result["import convt"] = time.perf_counter() - begin
    layer = convt.ConvTranspose2d if "convt" in route else torch.nn.ConvTranspose2d
    module = layer(32, 64, 3, 5, 1, dilation=2, bias=False).cuda()
    torch.backends.cudnn.benchmark = "benchmark" in route
    if route in SEED_ROUTES:
        model = runpy.run_path(str(seed))["ModelNew"]
        module = model(32, 64, 3, stride=5, padding=1, dilation=2, bias=False).cuda()
    call: Callable[[Any], Any] = module
    if route == "torch.compile":
        call = torch.compile(module)
    elif "Triton" in route:
        call = _triton(module, x)
    if "warm allocator" in route:
        torch.empty(16, 64, 318, 638, device="cuda")
    torch.cuda.synchronize()

    def timed(function: Callable[[], Any]) -> float:
        begin = time.perf_counter()
        function()
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    with torch.inference_mode():
        if "preloaded" in route:
            result["preload"] = timed(convt.preload)
        result["first call"] = timed(lambda: call(x))
        result["warm call"] = statistics.median(timed(lambda: call(x)) for _ in range(9))
    return {name: round(1e3 * seconds, 3) for name, seconds in result.items()}


def run(route: str, processes: int, seed: Path | None) -> dict[str, float]:
    """Medians over fresh processes."""
    results = []
    with tempfile.TemporaryDirectory() as cache:
        # The first process of a JIT fills the disk cache that only the later ones may find.
        kept = "disk cache" in route
        for position in range(processes + kept):
            folder = cache if kept else f"{cache}/{position}"
            environment = {"TRITON_CACHE_DIR": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
            command = [sys.executable, "-m", "benchmarks.cold", "--route", route]
            command += ["--seed", str(seed)] if seed else []
            done = subprocess.run(
                command, env={**os.environ, **environment}, capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(f"{route}: {done.stderr}")
            results.append(json.loads(done.stdout.splitlines()[-1]))
    results = results[kept:]
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def table(rows: dict[str, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("first call", "warm call", "preload", "import convt")
    shown = Table("milliseconds", *columns, title="First call of a fresh process")
    for route, row in rows.items():
        shown.add_row(route, *(f"{row[c]:.2f}" if c in row else "" for c in columns))
    Console(width=100).print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--seed", type=Path, help="a Python file with a rival ModelNew")
    parser.add_argument("--only", nargs="*", choices=ROUTES + SEED_ROUTES)
    parser.add_argument("--route", choices=ROUTES + SEED_ROUTES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.route:
        print(json.dumps(measure(arguments.route, arguments.seed)))
        return
    routes = arguments.only or ROUTES + (SEED_ROUTES if arguments.seed else ())
    rows = {route: run(route, arguments.processes, arguments.seed) for route in routes}
    if arguments.out:
        from benchmarks.timing import environment

        document = {**environment(), "processes": arguments.processes, "first_call_ms": rows}
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    table(rows)


if __name__ == "__main__":
    main()
