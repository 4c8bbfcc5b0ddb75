"""What a row of the compatibility table is, and how one is run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convt

SIZES = (5, 6, 4)
DEVICE: torch.device | None = None  # of layers and images; None: torch's default


@dataclass(frozen=True)
class Side:
    """One of the two: torch's layers and functions of so many axes, or convt's."""

    axes: int
    ours: bool

    @property
    def kind(self) -> str:
        """The type of the device, as torch.autocast wants it."""
        return "cpu" if DEVICE is None else DEVICE.type

    def _named(self, prefix: str) -> Any:
        return getattr(convt if self.ours else nn, f"{prefix}{self.axes}d")

    @property
    def cls(self) -> type[nn.Module]:
        return self._named("ConvTranspose")

    @property
    def lazy(self) -> type[nn.Module]:
        return self._named("LazyConvTranspose")

    @property
    def function(self) -> Callable[..., Tensor]:
        return getattr(convt if self.ours else F, f"conv_transpose{self.axes}d")

    def layer(self, *arguments: Any, **keywords: Any) -> nn.Module:
        """4 to 6 channels, kernel 3, unless other positions are given; the same under each call."""
        torch.manual_seed(0)
        return self.cls(*(arguments or (4, 6, 3)), **_placed(keywords))

    def images(self, batch: int | None = 2, channels: int = 4, **keywords: Any) -> Tensor:
        torch.manual_seed(1)
        size = (channels, *SIZES[: self.axes])
        shape = size if batch is None else (batch, *size)
        return torch.randn(shape, **_placed(keywords))

    def norm(self, channels: int) -> nn.Module:
        return getattr(nn, f"BatchNorm{self.axes}d")(channels, **_placed({}))

    def net(self, **keywords: Any) -> nn.Sequential:
        """Two layers of this side with one of torch's between."""
        torch.manual_seed(0)
        return nn.Sequential(
            self.layer(4, 6, 3, 2, **keywords),
            nn.ReLU(),
            self.layer(6, 4, 3, padding=1, **keywords),
        )


def _placed(keywords: dict[str, Any]) -> dict[str, Any]:
    return keywords if DEVICE is None else {"device": DEVICE, **keywords}


class Row(NamedTuple):
    group: str
    situation: str
    axes: int
    check: Callable[[Side], Any]
    differs: str | None  # why ours is not the same; None where it is
    unsupported: bool  # ours raises

    @property
    def id(self) -> str:
        return f"{self.group}: {self.situation}, {self.axes}-D"

    @property
    def outcome(self) -> str:
        if self.differs is None:
            return "same"
        return f"{'not supported' if self.unsupported else 'differs'}: {self.differs}"


class Absent(Exception):
    """What a row needs, besides torch and convt, is not installed."""


ROWS: list[Row] = []


def row(
    group: str,
    situation: str | None = None,
    axes: tuple[int, ...] = (1, 2, 3),
    differs: str | None = None,
    unsupported: bool = False,
) -> Callable[[Callable[[Side], Any]], Callable[[Side], Any]]:
    """Adds a row for each number of axes; the check's name is the situation, if none is given."""

    def add(check: Callable[[Side], Any]) -> Callable[[Side], Any]:
        name = situation or check.__name__.replace("_", " ")
        ROWS.extend(Row(group, name, n, check, differs, unsupported) for n in axes)
        return check

    return add


def outcome(row: Row, ours: bool) -> Any:
    """What the check answers for a side, or the exception that it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return row.check(Side(row.axes, ours))
        except ModuleNotFoundError as error:
            raise Absent(f"no module {error.name}") from error
        except Exception as error:
            return error
        finally:
            torch._dynamo.reset() if "compile" in row.group else None


def difference(ours: Any, theirs: Any, where: str = "") -> str | None:
    """How the first two values that differ do; None if all are alike."""
    if isinstance(ours, Exception) or isinstance(theirs, Exception):
        alike = isinstance(theirs, Exception) and isinstance(ours, type(theirs))
        return None if alike else f"{where}: {ours!r}, torch's {theirs!r}"
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return _tensor_difference(ours, theirs, where)
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        pairs: Iterator[tuple[Any, Any, Any]] = ((k, ours[k], theirs[k]) for k in ours)
        return next(filter(None, (difference(a, b, f"{where}[{k}]") for k, a, b in pairs)), None)
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        if len(ours) != len(theirs):
            return f"{where}: {len(ours)} values, torch's {len(theirs)}"
        pairs = ((i, a, b) for i, (a, b) in enumerate(zip(ours, theirs, strict=True)))
        return next(filter(None, (difference(a, b, f"{where}[{i}]") for i, a, b in pairs)), None)
    return None if ours == theirs else f"{where}: {ours!r}, torch's {theirs!r}"


def _tensor_difference(ours: Tensor, theirs: Tensor, where: str) -> str | None:
    for what in ("shape", "dtype", "device", "requires_grad"):
        a, b = getattr(ours, what), getattr(theirs, what)
        if a != b:
            return f"{where}: {what} {a}, torch's {b}"
    if ours.stride() != theirs.stride():
        return f"{where}: strides {ours.stride()}, torch's {theirs.stride()}"
    if ours.is_meta:
        return None
    try:
        torch.testing.assert_close(ours, theirs)
    except AssertionError as error:
        return f"{where}: {error}"
    return None
