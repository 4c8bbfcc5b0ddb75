"""Measured times: one file per GPU model, a header line and then one line per problem and config.

    {"format": 1, "device": "NVIDIA H200", "arch": 90, "date": "2026-11-27", ...}
    {"problem": "f16 nhwc 16x256x32x24 -> 128 k4x4 s2x2 p1x1", "config": "...", "us": 40.1, "aten_us": 52.8}

Uses the standard library only, so that the build can read these files before there is a package.
"""  # noqa: E501

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
MATHS = ("fp32", "tf32", "fp16", "f16", "bf16")
LAYOUTS = ("nchw", "nhwc")


class RecordError(ValueError):
    """A file that cannot be used: names the file, the line, what was expected and what came."""


class Layer(NamedTuple):
    """A transposed convolution by its numbers. Tuples have one number per spatial axis."""

    math: str
    layout: str
    batch: int
    in_channels: int
    out_channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    bias: bool = False

    @property
    def axes(self) -> tuple[tuple[int, ...], ...]:
        """(size, kernel, stride, padding, output_padding, dilation) of depth, height and width."""
        given = zip(
            self.size, self.kernel, self.stride, self.padding, self.output_padding, self.dilation,
            strict=True,
        )  # fmt: skip
        return ((1, 1, 1, 0, 0, 1),) * (3 - len(self.size)) + tuple(given)

    @property
    def input_size(self) -> tuple[int, ...]:
        return (self.batch, self.in_channels, *self.size)

    @property
    def weight_size(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel)

    @property
    def geometry(self) -> tuple[int, ...]:
        """Stride, padding, output_padding, dilation and groups, as the op takes them."""
        return (*self.stride, *self.padding, *self.output_padding, *self.dilation, self.groups)

    def __str__(self) -> str:
        """Like "tf32 nchw 16x32x64x128 -> 64 k3x3 s5x5 p1x1 d2x2 bias"; defaults are left out."""
        sizes = _by((self.batch, self.in_channels, *self.size))
        words = [
            self.math,
            self.layout,
            sizes,
            "->",
            str(self.out_channels),
            "k" + _by(self.kernel),
        ]
        words += [
            letter + _by(values)
            for letter, values, default in (
                ("s", self.stride, 1),
                ("p", self.padding, 0),
                ("o", self.output_padding, 0),
                ("d", self.dilation, 1),
            )
            if set(values) != {default}
        ]
        words += [f"g{self.groups}"] * (self.groups != 1) + ["bias"] * self.bias
        return " ".join(words)

    @classmethod
    def parse(cls, text: str) -> Layer:
        """The layer that prints as `text`; ValueError for any other text."""
        found = _LAYER.fullmatch(text)
        if found is None:
            raise ValueError(f"expected a problem like {_EXAMPLE!r}, got {text!r}")
        batch, in_channels, *size = _numbers(found["sizes"])
        axes = len(size)

        def values(name: str, default: int) -> tuple[int, ...]:
            return _numbers(found[name]) if found[name] else (default,) * axes

        layer = cls(
            found["math"],
            found["layout"],
            batch,
            in_channels,
            int(found["out"]),
            tuple(size),
            values("kernel", 1),
            values("stride", 1),
            values("padding", 0),
            values("output_padding", 0),
            values("dilation", 1),
            int(found["groups"] or 1),
            found["bias"] is not None,
        )
        if not 1 <= axes <= 3 or any(len(v) != axes for v in layer if isinstance(v, tuple)):
            raise ValueError(f"expected as many numbers for each of the axes, got {text!r}")
        return layer


class Record(NamedTuple):
    """The time of one config on one layer, and ATen's on the same layer in the same run."""

    layer: Layer
    config: str
    us: float
    aten_us: float


@dataclasses.dataclass(frozen=True)
class Header:
    """Where and when the records of a file were measured."""

    device: str  # the GPU's product name, as the driver tells it
    arch: int  # of the kernels: 90 for sm_90
    clocks: str
    driver: str
    torch: str
    cudnn: str
    date: str
    convt: str
    proxy: str = ""  # how another GPU stood in for `device`; "" where `device` itself ran


@dataclasses.dataclass(frozen=True)
class Table:
    """The records of a file: at most one per layer and config."""

    header: Header
    records: tuple[Record, ...] = ()

    def extended(self, records: Iterable[Record]) -> Table:
        """This table with `records`, which replace older ones of the same layer and config."""
        merged = {(r.layer, r.config): r for r in (*self.records, *records)}
        return dataclasses.replace(self, records=tuple(merged[key] for key in sorted(merged)))


def file_name(device: str) -> str:
    """The name of a GPU model's file: "nvidia_h200.jsonl"."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_") + ".jsonl"


def dumps(table: Table) -> str:
    """The text of a file. Equal tables have equal texts."""
    header = {"format": FORMAT, **dataclasses.asdict(table.header)}
    lines = [json.dumps(header)]
    lines += [
        json.dumps(
            {
                "problem": str(record.layer),
                "config": record.config,
                "us": round(record.us, 2),
                "aten_us": round(record.aten_us, 2),
            }
        )
        for record in table.extended(()).records
    ]
    return "\n".join(lines) + "\n"


def loads(text: str, name: str = "records") -> Table:
    """The table that `text` is of; RecordError, which calls the text `name`, if it is of none."""
    lines = text.splitlines()
    header = _header(_object(lines[0] if lines else "", f"{name}:1"), name)
    records = []
    for number, line in enumerate(lines[1:], 2):
        where = f"{name}:{number}"
        row = _object(line, where)
        try:
            record = Record(
                Layer.parse(row["problem"]), row["config"], float(row["us"]), float(row["aten_us"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{where}: {_explain(error)}") from error
        if not (record.us > 0 and record.aten_us > 0):
            raise RecordError(f"{where}: expected positive microseconds, got {line}")
        records.append(record)
    return Table(header).extended(records)


def read(path: Path, version: str | None = None) -> Table:
    """The table of a file.

    Args:
        version: refuse the file unless it was measured with a convt of the same major and minor
            version, since a kernel of the same name may be a different one.

    Raises:
        RecordError: not a file of records, or of another version. OSError: it cannot be read.
    """
    table = loads(path.read_text(), str(path))
    measured = table.header.convt
    if version is not None and measured.split(".")[:2] != version.split(".")[:2]:
        raise RecordError(
            f"{path}: expected records measured with convt {version}, got convt {measured}: "
            "run convt tune again"
        )
    return table


def write(path: Path, table: Table) -> None:
    """Replaces the file at once: a reader finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".new")
    half.write_text(dumps(table))
    half.replace(path)


_EXAMPLE = "f16 nhwc 16x256x32x24 -> 128 k4x4 s2x2 p1x1"
_LAYER = re.compile(
    rf"(?P<math>{'|'.join(MATHS)}) (?P<layout>{'|'.join(LAYOUTS)}) (?P<sizes>\d+(?:x\d+)+)"
    r" -> (?P<out>\d+) k(?P<kernel>[\dx]+)(?: s(?P<stride>[\dx]+))?(?: p(?P<padding>[\dx]+))?"
    r"(?: o(?P<output_padding>[\dx]+))?(?: d(?P<dilation>[\dx]+))?(?: g(?P<groups>\d+))?"
    r"(?P<bias> bias)?"
)


def _by(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected a JSON object, got {line[:60]!r}")
    return value


def _header(row: dict[str, Any], name: str) -> Header:
    if row.get("format") != FORMAT:
        by = f", written by convt {row['convt']}" if "convt" in row else ""
        raise RecordError(
            f"{name}: expected records of format {FORMAT}, got format {row.get('format')}{by}"
        )
    try:
        return Header(**{key: value for key, value in row.items() if key != "format"})
    except TypeError as error:
        raise RecordError(f"{name}:1: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"expected a value for {error}"
    return str(error).replace("Header.__init__()", "the header").replace("keyword argument", "key")
