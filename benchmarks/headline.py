"""The headline layer and its relatives, against the write floor and cuDNN in the same run.

    python -m benchmarks.headline [--out headline.json] [--seed FILE]

--seed: a Python file whose `ModelNew(32, 64, 3, stride=5, padding=1, dilation=2)` is timed as well.
CONVT_ARCH=sm_89 times the kernels of the RTX 4090, compiled by the driver for the GPU at hand.
"""

from __future__ import annotations

import argparse
import json
import runpy
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table

import convt
from benchmarks.timing import environment, graph_us
from convt._cli_bench import relative_error


@dataclass(frozen=True)
class Case:
    """A layer of 32 -> 64 channels, and how it is run."""

    dtype: str = "float32"
    layout: str = "nchw"
    bias: bool = False
    batch: int = 16
    size: tuple[int, int] = (64, 128)
    kernel: int = 3
    stride: int = 5
    padding: int = 1
    dilation: int = 2

    def __str__(self) -> str:
        h, w = self.size
        k, s, p, d = self.kernel, self.stride, self.padding, self.dilation
        words = [self.dtype, self.layout, f"{self.batch}x32x{h}x{w} k{k}s{s}p{p}d{d}"]
        return " ".join([*words, "bias"] if self.bias else words)


# Batch and input size: small batches; odd, single-column, single-row and wide images.
SIZES = ((1, (64, 128)), (4, (64, 128)), (16, (63, 127)), (16, (128, 1)), (64, (1, 1000)),
         (16, (65, 160)))  # fmt: skip
# (kernel, stride, dilation)
GEOMETRIES = ((2, 2, 1), (2, 2, 3), (3, 3, 1), (3, 3, 2), (4, 4, 1), (3, 4, 1), (3, 4, 3),
              (5, 6, 1), (3, 7, 2), (8, 8, 1))  # fmt: skip


def cases() -> Iterator[Case]:
    for layout in ("nchw", "nhwc"):
        for dtype in ("float32", "float16", "bfloat16"):
            yield Case(dtype, layout)
        yield Case("float32", layout, bias=True)
        for dtype in ("float32", "float16"):
            for batch, size in SIZES:
                yield Case(dtype, layout, batch=batch, size=size)
            for k, s, d in GEOMETRIES:
                yield Case(dtype, layout, kernel=k, stride=s, padding=0, dilation=d)


def measure(case: Case, seed: type | None) -> dict[str, Any]:
    dtype = getattr(torch, case.dtype)
    memory_format = torch.channels_last if case.layout == "nhwc" else torch.contiguous_format
    geometry = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
    layer = convt.ConvTranspose2d(32, 64, case.kernel, bias=case.bias, **geometry)
    layer = layer.to("cuda", dtype, memory_format=memory_format)
    x = torch.randn(case.batch, 32, *case.size, device="cuda", dtype=dtype)
    x = x.contiguous(memory_format=memory_format)
    weight, bias = layer.weight, layer.bias

    def check(y: torch.Tensor) -> float:
        images = sorted({0, case.batch - 1})
        double = None if bias is None else bias.double()
        expected = F.conv_transpose2d(x[images].double(), weight.double(), double, **geometry)
        return relative_error(y[images], expected)

    y = layer(x)
    shape, size = tuple(y.shape), y.numel() * y.element_size()
    words = torch.empty(size // 4, dtype=torch.int32, device="cuda")  # 16-bit fills are slower
    fill_us = graph_us(lambda: words.fill_(1))
    peer_us = graph_us(lambda: F.conv_transpose2d(x, weight, bias, **geometry))
    peer_error = check(F.conv_transpose2d(x, weight, bias, **geometry))
    ours_us = graph_us(lambda: layer(x))
    torch.full_like(y, float("nan"))  # what the next allocation of this size finds
    y = layer(x)
    result = {
        "case": str(case),
        **asdict(case),
        "output": shape,
        "output_bytes": size,
        "floor_us": fill_us,
        "convt_us": ours_us,
        "convt_error": check(y),
        "cudnn_us": peer_us,
        "cudnn_error": peer_error,
        "variant": convt.explain(x, weight, bias, **geometry).variant,
    }
    if seed is not None and case == Case():
        model = seed(32, 64, 3, bias=False, **geometry).cuda()
        result["seed_us"] = graph_us(lambda: model(x))
    return result


def table(results: list[dict[str, Any]]) -> Table:
    columns = ("layer", "MB written", "floor ms", "convt ms", "of floor", "cuDNN ms", "error")
    table = Table(*columns, title=f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for column in table.columns[1:]:
        column.justify = "right"
    for r in results:
        table.add_row(
            r["case"],
            f"{r['output_bytes'] / 1e6:.0f}",
            f"{r['floor_us'] / 1e3:.3f}",
            f"{r['convt_us'] / 1e3:.3f}",
            f"{r['floor_us'] / r['convt_us']:.0%}",
            f"{r['cudnn_us'] / 1e3:.3f}",
            f"{r['convt_error']:.1e}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write every number here, as JSON")
    parser.add_argument("--seed", type=Path, help="a Python file with a rival ModelNew")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("the headline benchmark needs a CUDA device; there is none here")
    torch.backends.cudnn.benchmark = True
    seed = runpy.run_path(str(arguments.seed))["ModelNew"] if arguments.seed else None
    with torch.inference_mode():
        results = [measure(case, seed) for case in track(list(cases()), "timing")]
    Console(width=120).print(table(results))
    for result in results:
        if "seed_us" in result:
            print(f"seed kernel, headline layer: {result['seed_us'] / 1e3:.2f} ms")
    if arguments.out:
        arguments.out.write_text(
            json.dumps({"environment": environment(), "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
