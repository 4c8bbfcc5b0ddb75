"""What the compiled kernels of the headline layer show without a GPU: sm_89 resources and SASS.

    python -m benchmarks.static

Needs Triton, for its disassembler.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

import torch
from rich.console import Console
from rich.table import Table

import convt
from aot.compile import inspect_cubin
from convt import _C

ARCH = 89
MULTIPROCESSORS = 128  # of an RTX 4090


def instructions(cubin: bytes) -> Counter[str]:
    """How often each SASS instruction stands in a cubin."""
    text = inspect_cubin("nvdisasm", "-c", cubin)
    return Counter(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)", text))


def count(found: Counter[str], pattern: str) -> int:
    return sum(n for name, n in found.items() if re.match(pattern, name))


def rows() -> Iterator[tuple[str, ...]]:
    variants = {variant["name"]: variant for variant in _C.variants()}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            x = torch.empty(16, 32, 64, 128, dtype=dtype, device="meta")
            x = x.contiguous(memory_format=memory_format)
            weight = torch.empty(32, 64, 3, 3, dtype=dtype, device="meta")
            plan = convt.explain(x, weight, stride=5, padding=1, dilation=2, arch=ARCH)
            assert plan.variant is not None
            variant = variants[plan.variant]
            image = next(i for i in variant["images"] if (i["arch"], i["kind"]) == (ARCH, "cubin"))
            programs = plan.resident // MULTIPROCESSORS
            found = instructions(_C.image(plan.variant, ARCH, "cubin"))
            yield (
                plan.variant,
                str(image["registers"]),
                f"{image['shared_bytes'] / 1024:.0f}",
                f"{programs} ({programs * variant['warps']} warps)",
                f"{math.prod(plan.grid) / plan.resident:.1f}",
                str(sum(found.values())),
                str(count(found, "HMMA")),
                str(count(found, "FFMA|HFMA2")),
                ", ".join(f"{n} {name}" for name, n in sorted(found.items()) if "STG" in name),
            )


def main() -> None:
    table = Table(
        "variant", "registers", "shared KiB", "programs per SM", "waves on 128 SMs",
        "instructions", "HMMA", "FMA", "stores", title="sm_89 cubins of the headline layer",
    )  # fmt: skip
    for row in rows():
        table.add_row(*row)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
