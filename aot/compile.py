"""Compile every variant for every architecture: cubins, the fallback PTX and one manifest.

    python -m aot.compile --archs "89;90" --out build/aot

Needs neither a GPU nor a CUDA toolkit. Images are kept under the hash of all that they are made
from, so a second run recompiles only what changed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import triton
from tqdm import tqdm
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

from aot import cache, manifest
from aot.variants import ARCHS, Variant, all_variants

PTX_ARCH = 89  # kept as text too: the driver compiles it for GPUs newer than the wheel
SHARED_LIMIT = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB a block may use
# The oldest PTX each architecture has, so that older drivers take it (8.0: CUDA 12.0).
PTX_VERSION = {100: 86, 120: 87}


Entry = dict[str, Any]


class CompileError(Exception):
    """A kernel that must not ship; the text names it and says why."""


def kernel(variant: Variant) -> triton.JITFunction:
    return getattr(importlib.import_module(f"aot.kernels.{variant.family}"), variant.symbol)


def source(variant: Variant) -> ASTSource:
    fn = kernel(variant)
    constants = dict(variant.constants)
    runtime = [name for name in fn.arg_names if name not in constants]
    signature = {
        name: variant.type_of(name) if name in runtime else "constexpr" for name in fn.arg_names
    }
    attrs = {
        (fn.arg_names.index(name),): [["tt.divisibility", variant.divisibility(name)]]
        for name in runtime
        if variant.divisibility(name) > 1
    }
    language = GluonASTSource if fn.is_gluon() else ASTSource
    return language(fn, signature, constants, attrs)


def options(variant: Variant, arch: int, registers: int | None = None) -> dict[str, object]:
    return {
        "enable_fp_fusion": True,  # newer Tritons do not by default
        "num_warps": variant.warps,
        "num_stages": variant.stages,
        "maxnreg": registers,
        "ptx_version": PTX_VERSION.get(arch, 80),
    }


def content_hash(variant: Variant, arch: int) -> str:
    """The cache's key of an image."""
    limits = {**options(variant, arch), "maxnreg": variant.registers or None}
    return cache.key(source(variant), GPUTarget("cuda", arch, 32), limits)


def inspect_cubin(tool: str, option: str, cubin: bytes) -> str:
    """The output of one of the disassemblers in Triton's wheel for a cubin."""
    path = Path(triton.__file__).parent / "backends/nvidia/bin" / tool
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run(
            [path, option, file.name], check=True, capture_output=True, text=True
        ).stdout


def _resources(cubin: bytes) -> dict[str, int]:
    """Registers per thread and spilled bytes, as the disassembler reads them off the cubin."""
    text = inspect_cubin("cuobjdump", "--dump-resource-usage", cubin)
    usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return {"registers": usage["REG"], "spilled_bytes": usage["STACK"] + usage["LOCAL"]}


def compile_image(variant: Variant, arch: int, folder: Path) -> Entry:
    """Compile one image into folder and return its manifest entry; CompileError if it is unfit."""
    stem = content_hash(variant, arch)
    entry_file = folder / f"{stem}.json"
    if entry_file.exists():
        return dict(json.loads(entry_file.read_text()))

    # Triton's own cache would hide what this build is made from.
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"TRITON_CACHE_DIR": scratch, "TRITON_DISABLE_LINE_INFO": "1"}
        for limit in (*variant.registers, None):
            try:
                compiled = triton.compile(
                    source(variant),
                    target=GPUTarget("cuda", arch, 32),
                    options=options(variant, arch, limit),
                )
            except Exception as error:
                raise CompileError(
                    f"{variant.name} for sm_{arch} does not compile: {error}"
                ) from error
            cubin = compiled.asm["cubin"]
            usage = _resources(cubin)
            if not usage["spilled_bytes"]:
                break
    metadata = compiled.metadata
    warps = metadata.num_warps - variant.warps - variant.workers
    excess = max(0, metadata.shared - SHARED_LIMIT[arch] * 1024)
    unfit = {
        "spills registers: {} bytes of stack": usage["spilled_bytes"],
        "asks for {} bytes of global scratch": metadata.global_scratch_size,
        "asks for {} bytes of profile scratch": metadata.profile_scratch_size,
        "uses {} bytes too much shared memory": excess,
        "takes {} warps that its variant does not name": warps,
    }
    reasons = [text.format(amount) for text, amount in unfit.items() if amount]
    if reasons:
        raise CompileError(f"{variant.name} for sm_{arch} {' and '.join(reasons)}")

    images = {"cubin": cubin}
    if arch == PTX_ARCH:
        images["ptx"] = compiled.asm["ptx"].encode() + b"\0"  # the driver reads a C string
    for kind, data in images.items():
        cache.write_atomically(folder / f"{stem}.{kind}", data)
    entry = {
        "arch": arch,
        "source_hash": stem,
        "shared_bytes": metadata.shared,
        "registers": usage["registers"],
        "spilled_bytes": usage["spilled_bytes"],
        "files": {kind: f"{stem}.{kind}" for kind in sorted(images)},
        "sha256": {kind: hashlib.sha256(images[kind]).hexdigest() for kind in sorted(images)},
    }
    # The entry is written last: where there is one, its images are whole.
    cache.write_atomically(entry_file, json.dumps(entry).encode())
    return entry


def compile_all(variants: list[Variant], archs: list[int], folder: Path, jobs: int) -> list[Entry]:
    """The manifest entries of `variants`, in their order. Stops at the first unfit kernel."""
    folder.mkdir(parents=True, exist_ok=True)
    # A forked child would inherit LLVM's threads; a spawned one starts clean.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        pending = {
            pool.submit(compile_image, variant, arch, folder): (variant, arch)
            for variant in variants
            for arch in archs
            if arch in variant.archs
        }
        images = {}
        with tqdm(total=len(pending), desc="compiling kernels", unit="image", mininterval=1) as bar:
            for future in as_completed(pending):
                try:
                    images[pending[future]] = future.result()
                except CompileError:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                bar.update()
    return [
        manifest.entry(
            variant,
            kernel(variant).arg_names,
            [images[variant, arch] for arch in archs if arch in variant.archs],
        )
        for variant in variants
    ]


def parse_archs(text: str) -> list[int]:
    """Architectures in a list such as "89;90" or "89, 90"; ValueError names a wrong one."""
    archs = sorted({int(word) for word in re.findall(r"\d+", text)})
    wrong = [arch for arch in archs if arch not in ARCHS]
    if wrong or not archs:
        supported = ", ".join(map(str, ARCHS))
        raise ValueError(f"CONVT_CUDA_ARCHS: expected some of {supported}, got {text!r}")
    return archs


def main() -> int:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--archs", default=os.environ.get("CONVT_CUDA_ARCHS", "89"), help="e.g. 89;90"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for images and manifest.json"
    )
    parser.add_argument("--jobs", type=int, default=cores, help=f"processes (default {cores})")
    arguments = parser.parse_args()
    try:
        archs = parse_archs(arguments.archs)
        kernels = compile_all(all_variants(), archs, arguments.out, arguments.jobs)
    except (CompileError, ValueError) as error:
        print(f"aot.compile: {error}", file=sys.stderr)
        return 1
    manifest.write(arguments.out / "manifest.json", triton.__version__, archs, kernels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
