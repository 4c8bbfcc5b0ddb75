"""Records and the planner: which files of measured times are in use, `load_tuned`."""

from __future__ import annotations

import os
import warnings
from importlib.metadata import version
from pathlib import Path

from convt import _C, records
from convt.records import Layer, Record, RecordError, Table

VARIABLE = "CONVT_TUNED"
_DTYPES = {"f16": "f16", "bf16": "bf16"}


def problem_of(layer: Layer) -> _C.Problem:
    """The planner's view of a layer, aligned, the weight in the layer's memory order."""
    dtype = _DTYPES.get(layer.math, "f32")
    sizes, weight = layer.input_size, layer.weight_size
    return _C.problem_of(
        (sizes, _strides(sizes, layer.layout), dtype, True),
        (weight, _strides(weight, layer.layout), dtype, True),
        ((layer.out_channels,), (1,), dtype, True) if layer.bias else None,
        layer.geometry,
        layer.math if dtype == "f32" else "fp32",
    )


def _strides(sizes: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Strides of a dense tensor, in elements."""
    last_first = list(range(len(sizes)))[::-1]
    if layout == "nhwc":
        last_first.remove(1)
        last_first.insert(0, 1)
    strides, step = [0] * len(sizes), 1
    for axis in last_first:
        strides[axis] = step
        step *= sizes[axis]
    return tuple(strides)


def row(record: Record) -> tuple[_C.Problem, str, float, float]:
    """A record as the planner takes it."""
    return problem_of(record.layer), record.config, record.us, record.aten_us


def load_tuned(path: str | Path) -> int:
    """Lets the measured times in `path` decide which config serves a layer, from now on.

    Args:
        path: a file that `convt tune` wrote, or a folder of such files.

    Returns:
        The number of records that were read. Those of other GPU models than this machine's are
        kept too, and serve those.

    Raises:
        records.RecordError: not a file of records, or one of another version of convt; no file of
            the folder is used then. OSError: nothing can be read there.
    """
    chosen = Path(path)
    paths = sorted(chosen.glob("*.jsonl")) if chosen.is_dir() else [chosen]
    if not paths:
        raise RecordError(f"{chosen}: expected a folder with .jsonl files, found none")
    tables = [records.read(each, version("convt")) for each in paths]
    for each, table in zip(paths, tables, strict=True):
        use(table, str(each.absolute()))
    return sum(len(table.records) for table in tables)


def use(table: Table, source: str) -> None:
    """`load_tuned` for a table that was read or measured; `source` is what `convt info` shows."""
    header = table.header
    _C.add_table(header.device, header.arch, header.proxy, source, [*map(row, table.records)])


def load_environment() -> None:
    """Loads what CONVT_TUNED names. A file that cannot be used is a warning, not an error."""
    path = os.environ.get(VARIABLE)
    if path:
        try:
            load_tuned(path)
        except (OSError, RecordError) as error:
            warnings.warn(f"{VARIABLE}={path} is not used: {error}", RuntimeWarning, stacklevel=3)
