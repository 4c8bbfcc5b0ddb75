"""Draw the zoo's layers by speed-up over ATen, sorted, a colour a family: docs/zoo_h200.png.

pip install matplotlib
python -m benchmarks.picture benchmarks/results/zoo_recorded_h200.json docs/zoo_h200.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def family(variant: str) -> str:
    """The family in a variant's name; "ATen" where torch's own convolution answered."""
    return "ATen" if variant.startswith("ATen") else variant.split("_f")[0].split("_bf")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", type=Path, help="what benchmarks.recorded or benchmarks.zoo has written"
    )
    parser.add_argument("picture", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    document = json.loads(arguments.results.read_text())
    rows = [row for row in document["rows"] if row.get("convt_us")]
    names = sorted(
        {family(row["variant"]) for row in rows}, key=lambda name: (name == "ATen", name)
    )
    colours = dict(zip(names, plt.get_cmap("tab20").colors, strict=False)) | {"ATen": "lightgrey"}
    figure, axes = plt.subplots(2, 1, figsize=(11, 6.5), sharey=True, layout="constrained")
    for axis, layout, title in zip(axes, ("nchw", "nhwc"), ("NCHW", "channels_last"), strict=True):
        bars = sorted(
            (row["aten_us"] / row["convt_us"], family(row["variant"]))
            for row in rows
            if row["layout"] == layout
        )
        axis.bar(range(len(bars)), [b for b, _ in bars], 1, color=[colours[f] for _, f in bars])
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_yscale("log", base=2)
        axis.set_yticks([0.5, 1, 2, 4, 8, 16, 32], ["0.5", "1", "2", "4", "8", "16", "32"])
        axis.set_xlim(-0.5, len(bars) - 0.5)
        axis.set_xticks([])
        axis.set_ylabel(f"{title}: cuDNN's time / ours")
    about = f"{document['device']}, torch {document['torch']}, {document['date']}"
    axes[1].set_xlabel(f"{len(bars)} layers of public networks, sorted; {about}")
    marks = [plt.Rectangle((0, 0), 1, 1, color=colours[name]) for name in names]
    figure.legend(marks, names, loc="outside upper center", ncols=5, frameon=False)
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
