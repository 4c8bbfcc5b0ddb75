"""How everything here is timed: medians, beside cuDNN, in one process."""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from convt.tuning.clock import graph_us

__all__ = ["environment", "graph_us", "host_us"]


def host_us(function: Callable[[], Any], calls: int = 2000) -> float:
    """Median host time of one call, the GPU kept ahead of. Microseconds."""
    for _ in range(50):
        function()
    times = []
    for _ in range(9):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls // 9):
            function()
        times.append(1e6 * (time.perf_counter() - begin) / (calls // 9))
    return statistics.median(times)


def environment() -> dict[str, str]:
    """What a committed measurement has to say of its circumstances."""
    import convt

    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": str(torch.backends.cudnn.version()),
        "convt": convt.__version__,
        "date": datetime.date.today().isoformat(),
    }
