"""`convt.tune`: times a model's own transposed convolutions on this machine's GPU."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from convt import records
from convt.records import Layer, Table
from convt.tuning.capture import calls_of
from convt.tuning.search import Bench, Call, Failure, Result, tune_layers

Outcome = Result | Failure


class Report(NamedTuple):
    """The result of tuning. Prints as a table, which needs rich."""

    results: tuple[Result, ...]
    left_out: tuple[str, ...]  # layers that were not timed, and why
    path: Path  # the file that has the records now

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table as Grid

        grid = Grid("layer", "calls", "ATen us", "before us", "after us", "config", box=None)
        for call, aten_us, _, before_us, after, after_us, _ in self.results:
            times = (f"{us:.1f}" for us in (aten_us, before_us, after_us))
            grid.add_row(f"{call.name}: {call.layer}", str(call.calls), *times, after)
        console = Console(file=io.StringIO(), width=200, highlight=False)
        with console.capture() as capture:
            console.print(grid)
        aten, before, after = (
            sum(result.call.calls * getattr(result, name) for result in self.results)
            for name in ("aten_us", "before_us", "after_us")
        )
        lines = [line.rstrip() for line in capture.get().splitlines()]
        lines += [f"left out: {line}" for line in self.left_out]
        lines.append(
            f"all of them in one run: ATen {aten:.1f} us, before {before:.1f}, after {after:.1f}"
        )
        return "\n".join(lines) + f"\nLater processes use this with CONVT_TUNED={self.path}"

    def json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "left_out": list(self.left_out),
            "layers": [
                {
                    "name": result.call.name,
                    "layer": str(result.call.layer),
                    "calls": result.call.calls,
                    "aten_us": result.aten_us,
                    "before": {"config": result.before, "us": result.before_us},
                    "after": {"config": result.after, "us": result.after_us},
                }
                for result in self.results
            ],
        }


def tune(
    model: Callable[..., Any],
    *inputs: Any,
    budget: float = 60.0,
    path: str | Path | None = None,
) -> Report:
    """Times the compiled configs and ATen on each transposed convolution of `model(*inputs)`.

    From then on the fastest serves these layers, and layers like them, in this process. Later
    processes load the file: `convt.load_tuned(path)`, or CONVT_TUNED=path. Ctrl-C ends it early
    and keeps what was measured.

    Args:
        model: a module or a function. It is called once, without gradients.
        inputs: what it is called with; its layers have to run on a CUDA device.
        budget: seconds to measure for.
        path: a file, or a folder for one file per GPU model. What a file has already stays,
            unless it is measured anew. Default: CONVT_TUNED, else the folder convt-tuned.

    Returns:
        A report that prints as a table: per layer ATen's time, before, after, and the config.

    Raises:
        RuntimeError: no GPU, or no transposed convolution of a dtype that kernels serve.
        records.RecordError: the file is of another version. ImportError: rich is missing.
    """
    return tune_calls([Call(*found) for found in calls_of(model, inputs)], budget, path)


def tune_calls(calls: Sequence[Call], budget: float, path: str | Path | None) -> Report:
    """`tune` for layers that are known by their numbers."""
    _check_rich()
    if not torch.cuda.is_available():
        raise RuntimeError("tune: no GPU to measure on")
    if not calls:
        raise RuntimeError("tune: no transposed convolution of fp32, fp16 or bf16 ran")
    from convt import tables
    from convt.tuning.bench import GpuBench, header

    top = header()
    report = measure(calls, GpuBench, Table(top), file_of(path, top.device), budget)
    if report.results:
        tables.load_tuned(report.path)
    return report


def measure(
    calls: Sequence[Call],
    bench_of: Callable[[Layer], Bench],
    table: Table,
    path: Path,
    budget: float,
) -> Report:
    """Extends the file at `path` after every layer, and `table`, whose header it gets."""
    if path.exists():
        table = table.extended(records.read(path, table.header.convt).records)
    results: list[Result] = []
    left_out: list[str] = []
    found = tune_layers(calls, bench_of, budget)
    try:
        for outcome in _track(found, len(calls)):
            if isinstance(outcome, Failure):
                left_out.append(f"{outcome.call.name}: {outcome.call.layer}: {outcome.why}")
                continue
            results.append(outcome)
            table = table.extended(outcome.records)
            records.write(path, table)
    except KeyboardInterrupt:
        left_out.append("everything after Ctrl-C")
    else:
        missing = len(calls) - len(results) - len(left_out)
        if missing:
            left_out.append(f"{missing} layers, for which the budget of {budget:g} s was too small")
    return Report(tuple(results), tuple(left_out), path)


def file_of(path: str | Path | None, device: str) -> Path:
    """Where a GPU model's records go: `path`, or the model's own file if that is a folder."""
    chosen = Path(path or os.environ.get("CONVT_TUNED") or "convt-tuned").absolute()
    return chosen if chosen.suffix == ".jsonl" else chosen / records.file_name(device)


def _check_rich() -> None:
    if importlib.util.find_spec("rich") is None:
        raise ImportError("tune: expected rich to be installed: pip install 'convt[tune]'")


def _track(outcomes: Iterable[Outcome], total: int) -> Iterable[Outcome]:
    """The same, with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import track as rich_track

    return rich_track(outcomes, "tuning", total, console=Console(stderr=True))
