"""What the choice loses on measured layers that it knows nothing of. Needs no GPU.

    python -m benchmarks.regret LEFT_OUT.jsonl [--table TUNED.jsonl] [--folds 5]

The regret of a layer is the measured time of the chosen config over that of the best one, ATen
being one of them. --table: choose by these records, not by those compiled in. --folds: leave each
fifth of the table itself out in turn, instead of a file.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from benchmarks.zoo import geomean
from convt import _C, records, tables
from convt.records import Layer, Record
from convt.tuning.bench import families
from convt.tuning.search import ATEN


def by_layer(found: Iterable[Record]) -> dict[Layer, dict[str, float]]:
    """Microseconds by config, ATen included, of each layer."""
    times: dict[Layer, dict[str, float]] = defaultdict(dict)
    for record in found:
        times[record.layer] |= {record.config: record.us, ATEN: record.aten_us}
    return times


def fold_of(layer: Layer, folds: int) -> int:
    """The same for both layouts and all batches of a layer, which know too much of each other."""
    plain = str(layer._replace(layout="nchw", batch=1, bias=False))
    return hashlib.sha256(plain.encode()).digest()[0] % folds


def choose(layer: Layer, gpu: _C.Gpu, known: _C.Records) -> _C.Plan:
    return _C.plan(tables.problem_of(layer), gpu, known)


def slowest(measured: dict[str, float], config: str) -> float:
    """What a config counts that was not timed: as the slowest of its family that was, or of all."""
    family = families().get(config.split()[0])
    of_family = [us for name, us in measured.items() if families().get(name.split()[0]) == family]
    return max(of_family or measured.values())


def judge(
    times: dict[Layer, dict[str, float]], gpu: _C.Gpu, known: _C.Records
) -> list[tuple[float, float, Layer, _C.Plan]]:
    """(regret, ATen's time over the chosen one's, layer, plan) of each layer, the worst first."""
    found = []
    for layer, measured in times.items():
        plan = choose(layer, gpu, known)
        us = measured.get(plan.config, slowest(measured, plan.config))
        found.append((us / min(measured.values()), measured[ATEN] / us, layer, plan))
    return sorted(found, key=lambda item: -item[0])


def show(found: list[tuple[float, float, Layer, _C.Plan]], worst: int) -> None:
    for regret, speedup, layer, plan in found[:worst]:
        print(f"{regret:5.2f} {speedup:5.2f} {layer}: {plan.config} ({plan.reason[:90]})")
    for layout in ("nchw", "nhwc"):
        some = [item for item in found if item[2].layout == layout]
        if some:
            regrets, speedups = [i[0] for i in some], [i[1] for i in some]
            print(
                f"{layout}: {len(some)} layers, regret {geomean(regrets) - 1:.1%} "
                f"(geometric mean), {max(regrets) - 1:.0%} at worst; "
                f"{sum(s < 0.97 for s in speedups)} slower than 0.97 x ATen, "
                f"{min(speedups):.2f} at worst; speed-up {geomean(speedups):.2f}, "
                f"{geomean([s * r for r, s, *_ in some]):.2f} with the best"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("left_out", type=Path, nargs="?")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--folds", type=int)
    parser.add_argument("--worst", type=int, default=10, help="layers to print")
    arguments = parser.parse_args()
    table = records.read(arguments.table) if arguments.table else None
    header = (table or records.read(arguments.left_out)).header
    gpu = _C.Gpu.preset(header.device)
    if arguments.folds:
        if table is None:
            parser.error("--folds needs --table")
        found = []
        for fold in range(arguments.folds):
            inside, outside = [], []
            for record in table.records:
                is_out = fold_of(record.layer, arguments.folds) == fold
                (outside if is_out else inside).append(record)
            found += judge(by_layer(outside), gpu, _C.Records(gpu, [*map(tables.row, inside)]))
        show(sorted(found, key=lambda item: -item[0]), arguments.worst)
        return
    if arguments.left_out is None:
        parser.error("a file of left-out layers is missing, or --folds")
    rows = [*map(tables.row, table.records)] if table else None
    known = _C.records_for(gpu) if rows is None else _C.Records(gpu, rows)
    found = judge(by_layer(records.read(arguments.left_out).records), gpu, known)
    show(found, arguments.worst)


if __name__ == "__main__":
    main()
