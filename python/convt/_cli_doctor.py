"""`convt doctor`: what is wrong with this machine, and how to mend it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from convt import _cli_machine as machine
from convt import functional, ops

_TOLERANCE = 1e-6  # relative error of fp32-grade products


class Check(NamedTuple):
    """One line of the report."""

    name: str
    status: Literal["ok", "problem", "skipped"]
    text: str
    mend: str | None = None


def checks() -> list[Check]:
    """All of them, each after what it depends on."""
    error = machine.driver_error()
    devices = machine.devices()
    result = [check_torch(str(torch.__version__)), *check_driver(error, len(devices))]
    result += [check_torch_cuda(bool(devices)), *map(check_target, devices), check_jit(devices)]
    result.append(check_run("op library", "cpu"))
    return result + [check_device_run(device) for device in devices]


def check_torch(version: str) -> Check:
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) >= ops.OLDEST_TORCH:
        return Check("torch", "ok", version)
    oldest = ".".join(map(str, ops.OLDEST_TORCH))
    mend = f"pip install --upgrade 'torch>={oldest}'"
    return Check("torch", "problem", f"{version}, convt needs {oldest} or newer", mend)


def check_driver(error: str | None, devices: int) -> list[Check]:
    """Three checks of one error: the driver is there, new enough, and has a device."""
    skipped = (
        Check("driver version", "skipped", "needs the driver"),
        Check("GPU", "skipped", "needs the driver"),
    )
    if error is None:
        version = machine.cuda_version()
        return [
            Check("driver", "ok", "opens"),
            Check("driver version", "ok", f"CUDA {version}" if version else "new enough"),
            Check("GPU", "ok", f"{devices} found"),
        ]
    if "no CUDA driver" in error:
        mend = "on a machine with an NVIDIA GPU install its driver, 525 or newer; in a container, "
        mend += "start it with --gpus all. Without a GPU every layer runs through ATen"
        return [Check("driver", "problem", f"no GPU can be used: {error}", mend), *skipped]
    present = Check("driver", "ok", "opens")
    if "convt needs a driver" in error:
        mend = "install NVIDIA driver 525 or newer"
        return [present, Check("driver version", "problem", error, mend), skipped[1]]
    mend = "nvidia-smi has to list one; see CUDA_VISIBLE_DEVICES, and --gpus of a container"
    enough = Check("driver version", "ok", "new enough")
    return [present, enough, Check("GPU", "problem", f"no GPU: {error}", mend)]


def check_torch_cuda(devices: bool) -> Check:
    """Whether torch can use what the driver has."""
    if not devices:
        return Check("torch CUDA", "skipped", "no GPU")
    built = torch.version.cuda
    if built is None:
        mend = "install a CUDA build: https://pytorch.org/get-started/locally"
        return Check("torch CUDA", "problem", "this torch is built without CUDA", mend)
    if torch.cuda.is_available():
        return Check("torch CUDA", "ok", f"CUDA {built}")
    text = f"torch cannot use the driver: torch is for CUDA {built}, the driver for "
    mend = "update the driver, or install a torch built for its CUDA version"
    return Check("torch CUDA", "problem", f"{text}{machine.cuda_version() or 'an unknown'}", mend)


def check_target(device: machine.Device) -> Check:
    text = f"capability {device.capability}, runs {device.runs}: {device.reason}"
    status: Literal["ok", "problem"] = "problem" if device.target is None else "ok"
    return Check(f"device {device.index}", status, text, device.mend)


def check_jit(devices: list[machine.Device]) -> Check:
    """Never a problem: PTX is slower at its first use only."""
    if not devices:
        return Check("JIT", "skipped", "no GPU")
    compiled = [str(d.index) for d in devices if d.target is not None and d.target[1] == "ptx"]
    if not compiled:
        return Check("JIT", "ok", "not needed")
    text = f"the driver compiles at first use on device {', '.join(compiled)}; convt.preload() "
    return Check("JIT", "ok", text + "does so at once, a build for the architecture avoids it")


def check_device_run(device: machine.Device) -> Check:
    name = f"run on {device.index}"
    if device.target is None:  # ATen would answer, as accurately as torch is set to
        return Check(name, "skipped", "no kernel to run")
    if not torch.cuda.is_available():
        return Check(name, "skipped", "torch has no CUDA device")
    return check_run(name, f"cuda:{device.index}")


def check_run(name: str, device: str) -> Check:
    """A tiny problem through the op, against ATen in fp64."""
    try:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 4, 5, 6, generator=generator).to(device)
        weight = torch.randn(4, 3, 3, 3, generator=generator).to(device)
        y = functional.conv_transpose2d(x, weight, None, 2, 1, precision="fp32")
        expected = F.conv_transpose2d(x.double().cpu(), weight.double().cpu(), None, 2, 1)
        error = ((y.double().cpu() - expected).norm() / expected.norm()).item()
    except (RuntimeError, AttributeError) as failure:
        mend = "reinstall convt; if that does not help, report it with `convt info`"
        return Check(name, "problem", " ".join(str(failure).split()), mend)
    if error <= _TOLERANCE:
        return Check(name, "ok", f"relative error {error:.0e} against fp64")
    text = f"relative error {error:.1e} against fp64, expected at most {_TOLERANCE:.0e}"
    return Check(name, "problem", text, "report it with the output of `convt info`")


def text(results: list[Check]) -> str:
    lines = []
    for check in results:
        lines.append(f"{check.status:8} {check.name}: {check.text}")
        if check.mend:
            lines.append(f"{'':8} mend: {check.mend}")
    return "\n".join(lines)
