"""How everything here is timed: medians, beside cuDNN, in one process."""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def graph_us(function: Callable[[], Any], budget_ms: float = 15.0) -> float:
    """Median GPU time of one call in a replayed CUDA graph: no launch gaps. Microseconds."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())  # which may still use the memory
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
        stream.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "se")
        start.record()
        function()
        end.record()
        end.synchronize()
        calls = max(1, min(200, int(budget_ms / 5 / max(start.elapsed_time(end), 1e-3))))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(calls):
                function()
        times = []
        for _ in range(5):
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(1e3 * start.elapsed_time(end) / calls)
    return statistics.median(times)


def host_us(function: Callable[[], Any], calls: int = 2000) -> float:
    """Median host time of one call, the GPU kept ahead of. Microseconds."""
    for _ in range(50):
        function()
    times = []
    for _ in range(9):
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
