"""The manifest: what was compiled, from what, and how to launch it. Same input, same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from aot.cache import write_atomically
from aot.variants import Variant


def parameter(name: str, triton_type: str) -> dict[str, Any]:
    """A run-time parameter as the launcher knows it: pointer, i32, i64, or a TMA descriptor."""
    if triton_type.startswith("*"):
        return {"name": name, "type": "pointer"}
    if triton_type.startswith("tensordesc"):
        (shape,) = re.findall(r"\[([^]]*)\]", triton_type)[:1]
        return {"name": name, "type": "tensormap", "rank": shape.count(",") + 1}
    if triton_type not in ("i32", "i64"):
        raise ValueError(f"parameter {name}: no launcher passes a {triton_type}")
    return {"name": name, "type": triton_type}


def entry(variant: Variant, parameters: list[str], images: list[dict[str, Any]]) -> dict[str, Any]:
    """One kernel; `parameters` are all of the source's, in order."""
    constants = {name: variant.constants[name] for name in parameters if name in variant.constants}
    upper = {name: value for name, value in constants.items() if name.isupper()}
    traits = {name.lower(): int(v) for name, v in upper.items() if not isinstance(v, str)}
    return {
        "name": variant.name,
        "symbol": variant.symbol,
        "family": variant.family,
        "math": variant.math,
        "layout": variant.layout,
        "weight": variant.weight,
        "warps": variant.warps + variant.workers,
        "signature": [name for name in parameters if not name.isupper()],
        "constants": constants,
        "traits": {**traits, **{name: int(value) for name, value in variant.traits.items()}},
        "parameters": [
            parameter(name, variant.type_of(name)) for name in parameters if name not in constants
        ],
        "images": images,
    }


def write(path: Path, triton_version: str, archs: list[int], kernels: list[dict[str, Any]]) -> None:
    document = {"triton": triton_version, "archs": archs, "kernels": kernels}
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))
