"""Whole networks, and their transposed convolutions alone: torch beside convt.replace, in one run.

python -m benchmarks.networks --out networks.json [--match REGEX]
"""

from __future__ import annotations

import argparse
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

import convt
from benchmarks.decoders import NETWORKS, Network
from benchmarks.timing import environment, graph_us

SLOWER = 1.015  # times torch's: over this a network counts as slower


def inputs_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each transposed convolution of `model(x)` gets."""
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, arguments, name=name: found.update({name: arguments[0].clone()})
        )
        for name, module in model.named_modules()
        if isinstance(module, _ConvTransposeNd)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return found


def only(model: nn.Module, inputs: dict[str, Tensor]) -> Callable[[], list[Tensor]]:
    """Runs the transposed convolutions of a model and nothing else."""
    modules = [(model.get_submodule(name), x) for name, x in inputs.items()]
    return lambda: [module(x) for module, x in modules]


def measure(network: Network, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    theirs = network.make().eval().to(device, network.dtype)
    x = torch.randn(network.input, device=device, dtype=network.dtype)
    if network.channels_last:
        theirs = theirs.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    ours = copy.deepcopy(theirs)
    replaced = convt.replace(ours)
    with torch.inference_mode():
        inputs = inputs_of(theirs, x)
        expected, y = theirs(x), ours(x)
        error = ((y - expected).norm() / expected.norm()).item()
        # In turns, so that a change of clocks meets both.
        times: dict[str, list[float]] = {}
        for _ in range(3):
            for name, run in (
                ("torch_us", lambda: theirs(x)),
                ("convt_us", lambda: ours(x)),
                ("torch_deconv_us", only(theirs, inputs)),
                ("convt_deconv_us", only(ours, inputs)),
            ):
                times.setdefault(name, []).append(graph_us(run))
    return {
        "network": network.name,
        "source": network.source,
        "input": list(network.input),
        "dtype": str(network.dtype).removeprefix("torch."),
        "channels_last": network.channels_last,
        **{name: sorted(some)[1] for name, some in times.items()},
        "difference": error,  # between the two, which round differently
        "layers": len(inputs),
        "replaced": str(replaced),
    }


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "network", "input", "type", "torch us", "convt us", "speed-up", "of it deconv",
        "deconv speed-up", "difference",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row["network"],
            "x".join(map(str, row["input"])),
            row["dtype"] + " nhwc" * row["channels_last"],
            f"{row['torch_us']:.0f}",
            f"{row['convt_us']:.0f}",
            f"{row['torch_us'] / row['convt_us']:.3f}",
            f"{row['torch_deconv_us'] / row['torch_us']:.0%}",
            f"{row['torch_deconv_us'] / row['convt_deconv_us']:.2f}",
            f"{row['difference']:.0e}",
        )
    Console(width=150).print(table)
    slower = [r["network"] for r in rows if r["convt_us"] > SLOWER * r["torch_us"]]
    print(f"slower than torch by over 1.5 %: {len(slower)} of {len(rows)}", *slower, sep="\n  ")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--match", default="", help="only networks whose name this finds")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a CUDA device; there is none here")
    torch.backends.cudnn.benchmark = True
    rows = []
    for network in track([n for n in NETWORKS if re.search(arguments.match, n.name)], "timing"):
        rows.append(measure(network, "cuda"))
        torch.cuda.empty_cache()
        arguments.out.write_text(json.dumps({**environment(), "rows": rows}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
