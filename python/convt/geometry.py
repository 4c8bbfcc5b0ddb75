"""Stride, padding, output_padding, dilation and groups: what users write, as the op takes it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

# Of each axis: an int for all of them, or a sequence of one int or of one int an axis.
Sizes = int | Sequence[int]

# Nine ints: stride, padding, output_padding, dilation (each height, width) and groups.
Geometry = Sequence[int]

_EXPECTED = ("", "an int or a sequence of one", "an int or a pair of ints", "an int or three ints")


def geometry_of(
    stride: Sizes, padding: Sizes, output_padding: Sizes, dilation: Sizes, groups: int
) -> Geometry:
    """The op's geometry. Only types and lengths are checked."""
    groups = _integer(groups, "conv_transpose2d: expected groups to be an int", groups)
    if not _fits(groups):
        raise ValueError(_too_large("groups", groups, 2))
    return (
        *sizes(stride, "stride"),
        *sizes(padding, "padding"),
        *sizes(output_padding, "output_padding"),
        *sizes(dilation, "dilation"),
        groups,
    )


def switch_of(geometry: Geometry) -> str:
    """The name of torch's switch that tells the precision of this geometry's products."""
    stride_h, stride_w, _, _, output_padding_h, output_padding_w, _, _, _ = geometry
    # cuDNN does not take more output padding: ATen runs a matrix product.
    by_cudnn = output_padding_h < stride_h and output_padding_w < stride_w
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
