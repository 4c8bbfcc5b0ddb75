"""Stride, padding, output_padding, dilation and groups: what users write, as the ops take it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

# Of each axis: an int for all of them, or a sequence of one int or of one int an axis.
Sizes = int | Sequence[int]

# Stride, padding, output_padding, dilation, each a number for each axis, and groups: nine ints in
# two dimensions, thirteen in three.
Geometry = Sequence[int]

_EXPECTED = ("", "an int or a sequence of one", "an int or a pair of ints", "an int or three ints")


def geometry_of(
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int,
    axes: int = 2,
) -> Geometry:
    """The geometry of an op for so many axes. Only types and lengths are checked."""
    groups = _integer(groups, f"conv_transpose{axes}d: expected groups to be an int", groups)
    if not _fits(groups):
        raise ValueError(_too_large("groups", groups, axes))
    return (
        *sizes(stride, "stride", axes),
        *sizes(padding, "padding", axes),
        *sizes(output_padding, "output_padding", axes),
        *sizes(dilation, "dilation", axes),
        groups,
    )


def axes_of(geometry: Geometry) -> int:
    """How many spatial axes it is for."""
    return len(geometry) // 4


def unpack(geometry: Geometry) -> tuple[list[int], list[int], list[int], list[int], int]:
    """Stride, padding, output_padding, dilation and groups."""
    n = axes_of(geometry)
    stride, padding, output_padding, dilation = (
        list(geometry[i : i + n]) for i in range(0, 4 * n, n)
    )
    return stride, padding, output_padding, dilation, geometry[-1]


def switch_of(geometry: Geometry) -> str:
    """The name of torch's switch that tells the precision of this geometry's products."""
    stride, _, output_padding, _, _ = unpack(geometry)
    # cuDNN does not take more output padding: ATen runs a matrix product.
    by_cudnn = all(op < s for op, s in zip(output_padding, stride, strict=True))
    return "conv" if by_cudnn else "matmul"


def sizes(value: Sizes, name: str, axes: int = 2) -> tuple[int, ...]:
    """One int an axis, from what a user wrote for the argument `name`.

    Raises TypeError, ValueError or RuntimeError, as torch does, where it is not that.
    """
    if type(value) is int and -(2**63) <= value < 2**63:
        return (value,) * axes
    expected = f"conv_transpose{axes}d: expected {name} to be {_EXPECTED[axes]}"
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, axes):
            raise RuntimeError(f"{expected}, got {value}")
        integers = tuple([_integer(one, expected, value) for one in value])
        if not all(_fits(one) for one in integers):
            raise TypeError(_too_large(name, value, axes))
        return integers * (axes // len(integers))
    only = _integer(value, expected, value)
    if not _fits(only):
        raise ValueError(_too_large(name, value, axes))
    return (only,) * axes


def _fits(value: int) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63  # SymInts always do


def _too_large(name: str, value: object, axes: int) -> str:
    return f"conv_transpose{axes}d: expected {name} to fit into 64 bits, got {value}"


def _integer(value: Any, expected: str, got: object) -> int:
    if type(value) is int or isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{expected}, got {got!r} of type {type(got).__name__}")
