"""The manifest: what was compiled, from what, and how to launch it. Same input, same bytes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aot.cache import write_atomically
from aot.variants import POINTERS, Variant


def entry(variant: Variant, parameters: list[str], images: list[dict[str, Any]]) -> dict[str, Any]:
    """One kernel; `parameters` are all of the source's, in order."""
    constants = variant.constants(parameters)
    return {
        "name": variant.name,
        "symbol": variant.family,
        **asdict(variant),
        "constants": constants,
        "parameters": [
            {"name": name, "type": "pointer" if name in POINTERS else variant.type_of(name)}
            for name in parameters
            if name not in constants
        ],
        "images": images,
    }


def write(path: Path, triton_version: str, archs: list[int], kernels: list[dict[str, Any]]) -> None:
    document = {"triton": triton_version, "archs": archs, "kernels": kernels}
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))
