"""What the choice makes of the zoo's layers by the times that `benchmarks.tune` measured. Needs no GPU.

    python -m benchmarks.recorded TUNED.jsonl LEFT_OUT.jsonl --out FILE

A layer counts ATen's time over the time of the config that is chosen for it, both of one run of
`benchmarks.tune`; of the left-out layers no record decides. Writes rows as `benchmarks.zoo` does.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.regret import by_layer, slowest
from benchmarks.zoo import LAYERS, geomean, is_left_out
from convt import _C, records, tables
from convt._cli_tune import layer_of
from convt.tuning.search import ATEN


def kind(row: dict[str, Any], axes: int) -> str:
    """The first that fits, from the most special on."""
    kernel, stride, groups = row["kernel"], row["stride"], row["groups"]
    size = [row[name] for name in ("in_d", "in_h", "in_w") if name in row]
    kinds = {
        "3-D": axes == 3,
        "1x1 input": set(size) == {1},
        "depthwise": 1 < groups == row["in_channels"],
        "up to 15 output channels": row["out_channels"] <= 15,
        "groups that are not depthwise": groups > 1,
        "k == s": kernel == stride and not any(row["padding"]),
        "1-D": size[0] == 1,
        "stride 1": set(stride) == {1},
        "k4s2": kernel == [4, 4] and stride == [2, 2],
        "k3s2, k5s2": kernel in ([3, 3], [5, 5]) and stride == [2, 2],
    }
    return next((name for name, fits in kinds.items() if fits), "others")


def measured_rows(found: list[records.Record], gpu: _C.Gpu) -> list[dict[str, Any]]:
    times = by_layer(found)
    rows = []
    for axes, path in LAYERS.items():
        for row in json.loads(path.read_text()):
            for layout in ("nchw", "nhwc"):
                measured = times.get(layer := layer_of(row, layout))
                if measured is None:
                    continue
                config = _C.plan(tables.problem_of(layer), gpu).config
                us = measured.get(config, slowest(measured, config))
                variant = "ATen" if config == ATEN else config
                rows.append({
                    "id": row["id"], "axes": axes, "layout": layout, "kind": kind(row, axes),
                    "aten_us": measured[ATEN], "convt_us": us, "variant": variant,
                })  # fmt: skip
    return rows


def summary(rows: list[dict[str, Any]]) -> Table:
    table = Table("kind", "layout", "layers", "geometric mean", "worst", "slower than 0.97 x ATen")
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        names = [row["kind"]]
        if row["axes"] == 2:
            names += ["all of two axes"] + ["left out of tuning"] * is_left_out(row["id"])
        for name in names:
            groups[name, row["layout"]].append(row["aten_us"] / row["convt_us"])
    for (name, layout), speeds in sorted(groups.items()):
        slow = sum(speed < 0.97 for speed in speeds)
        mean = f"{geomean(speeds):.2f}"
        table.add_row(name, layout, str(len(speeds)), mean, f"{min(speeds):.2f}", str(slow))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tuned", type=Path)
    parser.add_argument("left_out", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    files = [records.read(path) for path in (arguments.tuned, arguments.left_out)]
    header = files[0].header
    gpu = _C.Gpu.preset(header.device)
    rows = measured_rows([record for file in files for record in file.records], gpu)
    Console(width=100).print(summary(rows))
    about = {name: getattr(header, name) for name in ("device", "torch", "cudnn", "convt", "date")}
    text = json.dumps({**about, "proxy": header.proxy, "rows": rows}, indent=1)
    arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
