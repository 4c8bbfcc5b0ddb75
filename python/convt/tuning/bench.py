"""Times configs on this machine's GPU, beside ATen."""

from __future__ import annotations

import datetime
import functools
import math
import subprocess
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor

from convt import _C
from convt.records import Header, Layer
from convt.tables import problem_of
from convt.tuning.clock import graph_us
from convt.tuning.search import ATEN, Candidate

_DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}
_FUNCTIONS = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_BUDGET_MS = 6.0  # of GPU time for one config
_TOLERANCE = 0.02  # relative difference to ATen: both may multiply in bf16, of 8 bits


@functools.cache
def families() -> dict[str, str]:
    """The family of each variant."""
    return {variant["name"]: variant["family"] for variant in _C.variants()}


class GpuBench:
    """One layer with random data on the current device.

    Its weight is in the layer's memory order; a kernel that reads another one packs it each call,
    as modules do that are not frozen.
    """

    def __init__(self, layer: Layer, gpu: _C.Gpu | None = None) -> None:
        self.device = torch.cuda.current_device()
        self.gpu = _C.device_gpu(self.device) if gpu is None else gpu
        self.layer = layer
        self.problem = problem_of(layer)
        into = layer.in_channels // layer.groups
        weight = self._random(layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)
        self.x = self._random(layer.batch, layer.in_channels, *layer.size)
        self.weight = weight / math.sqrt(into * math.prod(layer.kernel))
        self.bias = self._random(layer.out_channels) if layer.bias else None
        self.expected: Tensor | None = None

    def candidates(self) -> Sequence[Candidate]:
        return [
            Candidate(config, us, families()[config.split()[0]])
            for config, us in _C.candidates(self.problem, self.gpu)
            if config != ATEN
        ]

    def chosen(self) -> str:
        return _C.plan(self.problem, self.gpu).config

    def time(self, config: str, limit: float) -> float | None:
        if config == ATEN:
            self.expected = self._aten()
            return graph_us(self._aten, _BUDGET_MS)
        try:
            launch, output = self._kernel(config)
            launch()
            self._check(config, output)
            return graph_us(launch, _BUDGET_MS, limit)
        except (_C.DriverError, ArithmeticError) as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
            return None

    @torch.inference_mode()
    def _aten(self) -> Tensor:
        layer = self.layer
        return _FUNCTIONS[len(layer.size) - 1](
            self.x, self.weight, self.bias, layer.stride, layer.padding, layer.output_padding,
            layer.groups, layer.dilation,
        )  # fmt: skip

    def _kernel(self, config: str) -> tuple[Callable[[], None], Tensor]:
        """A launch of `config`, and what it writes."""
        plan = _C.plan_with(self.problem, self.gpu, config)
        assert self.expected is not None  # ATen is timed first
        output = torch.full_like(self.expected, float("nan"))
        workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8, device="cuda")
        bias = 0 if self.bias is None else self.bias.data_ptr()
        addresses = (
            self.x.data_ptr(), self.weight.data_ptr(), bias, output.data_ptr(),
            workspace.data_ptr(),
        )  # fmt: skip

        def launch(_keep: object = workspace) -> None:
            _C.launch(plan, addresses, self.device, torch.cuda.current_stream().cuda_stream)

        return launch, output

    def _check(self, config: str, output: Tensor) -> None:
        assert self.expected is not None
        expected = self.expected[:1].double()
        difference = float((output[:1].double() - expected).norm() / expected.norm())
        if not difference <= _TOLERANCE:
            raise ArithmeticError(
                f"{config} differs from ATen by {difference:.1e} on {self.layer}: not used"
            )

    def _random(self, *sizes: int) -> Tensor:
        dtype = _DTYPES.get(self.layer.math, torch.float32)
        tensor = torch.randn(sizes, device="cuda", dtype=dtype)
        if self.layer.layout == "nhwc" and len(sizes) in _FORMATS:
            tensor = tensor.contiguous(memory_format=_FORMATS[len(sizes)])
        return tensor


def header() -> Header:
    """The current device, and what it is measured with."""
    fields = "driver_version,clocks.max.sm,clocks.max.mem"
    device = torch.cuda.current_device()
    uuid = torch.cuda.get_device_properties(device).uuid
    try:
        driver, sm, memory = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", f"--id=GPU-{uuid}"],
            capture_output=True, text=True, check=True,
        ).stdout.strip().split(", ")  # fmt: skip
    except (OSError, ValueError, subprocess.CalledProcessError):
        driver = sm = memory = "unknown"
    return Header(
        device=torch.cuda.get_device_name(device),
        arch=_C.device_gpu(device).image[0],
        clocks=f"up to {sm}, memory {memory}",
        driver=driver,
        torch=str(torch.__version__),
        cudnn=str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        date=datetime.date.today().isoformat(),
        convt=version("convt"),
    )
