"""Every layer of layers.json and layers_3d.json: convt beside cuDNN (benchmark mode, same layout,
same process).

python -m benchmarks.zoo --out zoo.json [--axes 2,3] [--layouts nchw,nhwc] [--match REGEX]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
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
from convt.ops import CHANNELS_LAST

FOLDER = Path(__file__).parent
LAYERS = {2: FOLDER / "layers.json", 3: FOLDER / "layers_3d.json"}  # by the number of axes
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
TORCHS = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
MODULES = {2: convt.ConvTranspose2d, 3: convt.ConvTranspose3d}
# How tables name a layout.
NAMES = {(2, "nchw"): "NCHW", (2, "nhwc"): "channels_last",
         (3, "nchw"): "NCDHW", (3, "nhwc"): "channels_last_3d"}  # fmt: skip
# Ceilings measured on the H200 (a copy, an 8192^3 matmul): bytes/s and flop/s.
BYTES_PER_S = 4.4e12
FLOPS = {"f32": 411e12, "f16": 657e12, "bf16": 657e12}


def measure(layer: dict[str, Any], layout: str) -> dict[str, Any]:
    dtype = DTYPES[layer["dtype"]]
    size = [layer[name] for name in ("in_d", "in_h", "in_w") if name in layer]
    axes = len(size)
    shape = (layer["batch"], layer["in_channels"], *size)
    torchs: Any = TORCHS[axes]
    form = CHANNELS_LAST[axes] if layout == "nhwc" else torch.contiguous_format
    geometry = {k: tuple(layer[k]) for k in ("stride", "padding", "output_padding", "dilation")}
    geometry["groups"] = layer["groups"]
    make: Any = MODULES[axes]
    module = make(
        layer["in_channels"], layer["out_channels"], tuple(layer["kernel"]), bias=layer["bias"],
        device="cuda", dtype=dtype, **geometry,
    ).to(memory_format=form)  # fmt: skip
    x = torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=form)

    def aten() -> torch.Tensor:
        y: torch.Tensor = torchs(x, module.weight, module.bias, **geometry)
        return y

    with torch.inference_mode():
        plan = convt.explain(x, module.weight, module.bias, **geometry)
        y, expected = module(x), aten()
        if y.stride() != expected.stride():
            raise AssertionError(f"{layer['id']}: strides {y.stride()}, ATen's {expected.stride()}")
        problem = plan.problem
        floor = max(problem.min_bytes / BYTES_PER_S, problem.flops / FLOPS[layer["dtype"]])
        reference = torchs(
            x[:1].double(), module.weight.double(),
            None if module.bias is None else module.bias.double(), **geometry,
        )  # fmt: skip
        return {
            "id": layer["id"],
            "dtype": layer["dtype"],
            "axes": axes,
            "layout": layout,
            "floor_us": 1e6 * floor,
            "aten_us": graph_us(aten),
            "convt_us": graph_us(lambda: module(x)),
            "aten_error": relative_error(expected[:1], reference),
            "convt_error": relative_error(y[:1], reference),
            "variant": plan.variant or f"ATen: {plan.reason}",
        }


def geomean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "layer", "layout", "floor us", "cuDNN us", "convt us", "speed-up", "error", "variant"
    )
    for row in rows:
        table.add_row(
            row["id"], NAMES[row.get("axes", 2), row["layout"]], f"{row['floor_us']:.1f}",
            f"{row['aten_us']:.1f}", f"{row['convt_us']:.1f}",
            f"{row['aten_us'] / row['convt_us']:.2f}", f"{row['convt_error']:.1e}", row["variant"],
        )  # fmt: skip
    Console(width=150).print(table)
    Console(width=150).print(summary(rows))


def is_left_out(layer_id: str) -> bool:
    """A fifth of the layers, which no record file that ships was tuned on."""
    return hashlib.sha256(layer_id.encode()).digest()[0] % 5 == 0


def summary(rows: list[dict[str, Any]]) -> Table:
    """Per layout, for layers that were tuned and those left out: how convt does beside ATen."""
    table = Table(
        "layout", "part", "layers", "slower than 0.97 x ATen", "worst", "geometric mean",
        "share of the floor", "ATen's",
    )  # fmt: skip
    for key in sorted({(row.get("axes", 2), row["layout"]) for row in rows}):
        for part, wanted in (("tuned", {False}), ("left out", {True}), ("all", {False, True})):
            some = [
                row
                for row in rows
                if (row.get("axes", 2), row["layout"]) == key and is_left_out(row["id"]) in wanted
            ]
            if not some:
                continue
            speedups = [row["aten_us"] / row["convt_us"] for row in some]
            floors = {
                name: geomean([row["floor_us"] / row[name] for row in some])
                for name in ("convt_us", "aten_us")
            }
            table.add_row(
                NAMES[key], part, str(len(some)), str(sum(s < 0.97 for s in speedups)),
                f"{min(speedups):.2f}", f"{geomean(speedups):.2f}",
                f"{floors['convt_us']:.1%}", f"{floors['aten_us']:.1%}",
            )  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--axes", default="2,3", help="which layers: of two axes, of three")
    parser.add_argument("--layouts", default="nchw,nhwc")
    parser.add_argument(
        "--match", default="", help="only layers whose id this regular expression finds"
    )
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    layers = [
        row
        for axes in map(int, arguments.axes.split(","))
        for row in json.loads(LAYERS[axes].read_text())
        if re.search(arguments.match, row["id"])
    ]
    todo = [(layer, layout) for layout in arguments.layouts.split(",") for layer in layers]
    rows = []
    for layer, layout in track(todo, "timing"):
        rows.append(measure(layer, layout))
        torch.cuda.empty_cache()
        arguments.out.write_text(json.dumps({**environment(), "rows": rows}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
