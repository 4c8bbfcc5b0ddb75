"""The report of `convt.replace`: a row for each transposed convolution, printed as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convt import _C, functional

# Input sizes for plans where no example input tells the real ones, by the number of axes.
NOMINAL = {1: (4096,), 2: (64, 64), 3: (32, 32, 32)}
_NOMINAL_BATCH = 1


class Row(NamedTuple):
    """One layer: its name in the model, whether it is convt's now, a note, its plan here."""

    name: str  # "" is the model itself
    module: nn.Module
    replaced: bool
    note: str = ""
    plan: str = ""

    def noting(self, note: str) -> Row:
        return self._replace(note="; ".join(filter(None, (self.note, note))))

    @property
    def cells(self) -> tuple[str, str, str, str]:
        done = "replaced" if self.replaced else "kept"
        layer = f"{type(self.module).__name__}({self.module.extra_repr()})"
        return (
            self.name or "(the model)",
            layer,
            f"{done}: {self.note}" if self.note else done,
            (self.plan),
        )


class Report:
    """The outcome of `convt.replace`: `rows`, and a table when printed."""

    HEADER = ("name", "layer", "replaced", "plan for this GPU")

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Any:
        return iter(self.rows)

    def __str__(self) -> str:
        if not self.rows:
            return "no transposed convolution in this model"
        table = [self.HEADER, *(row.cells for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        lines.insert(1, "  ".join("-" * width for width in widths))
        replaced = sum(row.replaced for row in self.rows)
        return "\n".join([*lines, f"{replaced} of {len(self.rows)} are convt's"])

    __repr__ = __str__

    def json(self) -> list[dict[str, Any]]:
        return [dict(zip(self.HEADER, row.cells, strict=True)) for row in self.rows]


def record_sizes(
    model: nn.Module, layers: Iterable[nn.Module], inputs: tuple[Any, ...] | None
) -> dict[int, Tensor]:
    """{id of a layer: an input on the meta device, like the layer's first input in a run}."""
    seen: dict[int, Tensor] = {}
    if inputs is None:
        return seen

    def remember(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments and isinstance(arguments[0], Tensor):
            seen.setdefault(id(module), arguments[0].to("meta"))

    handles = [layer.register_forward_pre_hook(remember) for layer in layers]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def plan_text(row: Row, input: Tensor | None) -> str:
    """The plan for the first GPU of this machine, and the input's size that it is for."""
    layer: Any = row.module
    if not row.replaced:
        return ""
    weight = layer.weight
    if nn.parameter.is_lazy(weight):
        return "after its first call"
    if input is None:
        size = (_NOMINAL_BATCH, layer.in_channels, *NOMINAL[weight.dim() - 2])
        input = torch.empty(size, dtype=weight.dtype, device="meta")
    sizes = "x".join(map(str, input.shape))
    return f"{_plan(layer, input)} at {sizes}"


def _plan(layer: Any, input: Tensor) -> str:
    plan = functional.explain(
        input, layer.weight.detach().to("meta"),
        None if layer.bias is None else layer.bias.to("meta"),
        layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation,
        precision=layer.precision,
    )  # fmt: skip
    if _C.device_count() > 0:
        plan = _C.plan(plan.problem, _C.device_gpu(0))
    return plan.variant or f"ATen: {plan.reason}"
