"""All rows, and docs/compatibility.md, which is made of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

# Each adds its rows.
from tests.compatibility import calls, counting, exporting, layers, tracing, training  # noqa: F401
from tests.compatibility.suite import ROWS, Row, difference, outcome

DOCUMENT = Path(__file__).parents[2] / "docs/compatibility.md"
HEAD = """# What works as with torch's layers

Each row is a situation that CI runs twice, with torch's layer and with ours, on the CPU
(`tests/compatibility/`). "same": the answers agree in values, dtypes, strides and gradients, or
both raise exceptions of the same type. The columns are ConvTranspose1d, 2d and 3d. On the CPU
ATen computes for both: what is compared is everything around a kernel.

With kernels (`python -m tests.compatibility --device cuda`; an H200 and torch 2.11, 2026-11-28,
before three dimensions had kernels) the rows are the same but for these. A profiler and a
function mode see `convt::conv_transpose2d`. Hooks of saved tensors see a 1-D layer's as images of
height 1. torch 2.11 raises for the row of DTensors, and ours answers. Two answers (RMSprop in
1-D, a gradient penalty in 3-D) differ by what fp32 rounding becomes after optimiser steps or two
derivatives. The rows that need other libraries were not run, and those of nested tensors not
again since they were mended.

This file is made by `python -m tests.compatibility`.
"""


def checked(row: Row) -> str | None:
    """How the row is not as it declares; None if it is."""
    theirs, ours = outcome(row, ours=False), outcome(row, ours=True)
    found = difference(ours, theirs)
    if row.differs is None:
        return found
    if found is None:
        return "declared to differ, and does not"
    raises = isinstance(ours, Exception)
    return None if raises == row.unsupported else f"declared otherwise: {found}"


def document() -> str:
    counts = Counter(row.outcome.split(":")[0] for row in ROWS)
    said = ", ".join(f"{n} {what}" for what, n in counts.most_common())
    lines = [HEAD, f"{len(ROWS)} rows: {said}."]
    groups: dict[str, dict[str, dict[int, Row]]] = {}
    for row in ROWS:
        groups.setdefault(row.group, {}).setdefault(row.situation, {})[row.axes] = row
    for group, situations in groups.items():
        lines += [f"\n## {group[0].upper()}{group[1:]}\n", "| situation | 1-D | 2-D | 3-D |"]
        lines.append("|---|---|---|---|")
        for situation, rows in situations.items():
            cells = [rows[n].outcome if n in rows else "" for n in (1, 2, 3)]
            lines.append(f"| {situation} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
