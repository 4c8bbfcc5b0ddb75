"""The driver and the devices of this machine, and the image that each device runs."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

import convt
from convt import _C

ENVIRONMENT = ("CONVT_ARCH", "CONVT_JIT", "CONVT_LIBCUDA", "CONVT_TUNED")
_OLDEST_ARCH = 80  # of those a build can be made for


@dataclass(frozen=True)
class Device:
    """A CUDA device and what would run on it."""

    index: int
    name: str | None  # None if torch cannot tell
    arch: int | None  # None if the driver cannot tell
    target: tuple[int, str] | None  # of its image; None: ATen runs everything
    reason: str
    mend: str | None  # how to get a target, if there is none

    @property
    def capability(self) -> str:
        return "unknown" if self.arch is None else capability(self.arch)

    @property
    def tables(self) -> list[dict[str, Any]]:
        """The measured times that decide what it runs."""
        return [] if self.target is None else _C.tables_for(_C.device_gpu(self.index))

    @property
    def runs(self) -> str:
        if self.target is None:
            return "ATen"
        arch, kind = self.target
        return f"sm_{arch} {'cubin' if kind == 'cubin' else 'PTX'}"


def driver_error() -> str | None:
    """Why there is no CUDA device, in the words of the driver or of its loader."""
    if _C.device_count() > 0:
        return None
    try:
        _C.device_arch(0)
    except _C.DriverError as error:
        text = str(error)
        if "cuDeviceGet failed" not in text:
            return text
    return "the CUDA driver has no device"


def cuda_version() -> str | None:
    """The newest CUDA that the driver supports, like "12.8"."""
    try:
        libcuda = ctypes.CDLL(os.environ.get("CONVT_LIBCUDA", "libcuda.so.1"))
        version = ctypes.c_int()
        if libcuda.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def devices() -> list[Device]:
    return [_device(index) for index in range(_C.device_count())]


def _device(index: int) -> Device:
    name = _name(index)
    try:
        arch = _C.device_arch(index)
    except _C.DriverError as error:
        mend = f"does nvidia-smi show device {index} in working order?"
        return Device(index, name, None, None, str(error), mend)
    try:
        target = _C.device_gpu(index).image
    except _C.DriverError as error:  # CONVT_ARCH is nonsense
        mend = "set CONVT_ARCH to an architecture like sm_89, or unset it"
        return Device(index, name, arch, None, str(error), mend)
    if target[0]:
        return Device(index, name, arch, target, _why(arch, target), None)
    return Device(index, name, arch, None, *_why_not(arch))


def _name(index: int) -> str | None:
    try:
        return torch.cuda.get_device_name(index) if torch.cuda.is_available() else None
    except (RuntimeError, AssertionError):  # torch fails there, or counts fewer devices
        return None


def _why(arch: int, target: tuple[int, str]) -> str:
    built, kind = target
    forced = ", as CONVT_ARCH demands" if os.environ.get("CONVT_ARCH") else ""
    if kind == "ptx":
        return f"the driver compiles it for sm_{arch} at first use and keeps the result{forced}"
    if built == arch:
        return f"compiled for this architecture{forced}"
    return f"sm_{built} code runs on sm_{arch}{forced}"


def _why_not(arch: int) -> tuple[str, str]:
    """Why a device has no target, and how to mend it."""
    if _C.select_target(arch)[0]:  # without the environment there is one
        names = [name for name in ("CONVT_ARCH", "CONVT_JIT") if os.environ.get(name)]
        settings = " ".join(f"{name}={os.environ[name]}" for name in names)
        return f"{settings} forbids every image that sm_{arch} runs", f"unset {' '.join(names)}"
    built = ", ".join(f"sm_{built}" for built in _C.architectures("cubin"))
    reason = f"this build is for {built}, of which none runs on sm_{arch}"
    if arch < _OLDEST_ARCH:
        return reason, f"none: convt needs compute capability {capability(_OLDEST_ARCH)} or newer"
    return reason, f"build from source: CONVT_CUDA_ARCHS={arch} pip install ."


def capability(arch: int) -> str:
    return f"{arch // 10}.{arch % 10}"


def info() -> dict[str, Any]:
    """The output of `convt info`, as JSON."""
    return {
        "version": convt.__version__,
        "torch": str(torch.__version__),
        "torch_cuda": torch.version.cuda,
        "cubin": _C.architectures("cubin"),
        "ptx": _C.architectures("ptx"),
        "variants": dict(Counter(variant["family"] for variant in _C.variants())),
        "driver_cuda": cuda_version(),
        "driver_error": driver_error(),
        "devices": [
            {
                "index": device.index,
                "name": device.name,
                "capability": device.capability,
                "runs": device.runs,
                "reason": device.reason,
                "tables": []
                if device.target is None
                else _C.tables_for(_C.device_gpu(device.index)),
            }
            for device in devices()
        ],
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def _table_text(table: dict[str, Any]) -> str:
    """A table of measured times that decides what a device runs."""
    proxy = f" by proxy ({table['proxy']})" if table["proxy"] else ""
    source = table["source"] or "compiled in"
    return f"{table['records']:,} times on {table['device']}{proxy}, {source}"


def info_text(found: dict[str, Any]) -> str:
    def architectures(kind: str) -> str:
        return " ".join(f"sm_{arch}" for arch in found[kind]) or "none"

    error = found["driver_error"]
    lines = [
        f"convt         {found['version']}",
        f"cubins        {architectures('cubin')}",
        f"PTX           {architectures('ptx')}",
        "variants      " + ", ".join(f"{n} {family}" for family, n in found["variants"].items()),
        f"torch         {found['torch']}, CUDA {found['torch_cuda'] or 'none'}",
        f"driver        {error or 'CUDA ' + (found['driver_cuda'] or 'of unknown version')}",
    ]
    for d in found["devices"]:
        name = d["name"] or "unknown to torch"
        lines.append(
            f"device {d['index']:<6} {name}, capability {d['capability']}: {d['runs']} "
            f"({d['reason']})"
        )
        lines += [f"  measured    {_table_text(table)}" for table in d["tables"]]
        if not d["tables"]:
            lines.append("  measured    nothing: see `convt tune`")
    lines += [f"environment   {name}={value}" for name, value in found["environment"].items()]
    return "\n".join(lines)
