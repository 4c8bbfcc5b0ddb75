"""GPU time of a call, without launch gaps."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

_LAUNCH_GAPS_US = 100.0  # that a call of a few kernels has at most when it is launched by the host


def graph_us(
    function: Callable[[], Any], budget_ms: float = 15.0, limit: float = float("inf")
) -> float:
    """Median microseconds of one call in a CUDA graph that is replayed five times.

    Args:
        budget_ms: milliseconds of GPU time that the replays take together, about.
        limit: a call that surely takes more microseconds than this, launch gaps aside, is not put
            into a graph: its time then includes them.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())  # which may still use the memory
    with torch.cuda.stream(stream):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "se")  # type: ignore[no-untyped-call]

        def elapsed_us(run: Callable[[], Any]) -> float:
            start.record()
            run()
            end.record()
            end.synchronize()
            return 1e3 * float(start.elapsed_time(end))

        function()  # loads kernels, lets cuDNN choose
        once = min(elapsed_us(function) for _ in range(3))
        if once > limit + _LAUNCH_GAPS_US:
            return once
        calls = max(1, min(200, int(1e3 * budget_ms / 5 / max(once, 1.0))))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(calls):
                function()
        return statistics.median(elapsed_us(graph.replay) / calls for _ in range(5))
