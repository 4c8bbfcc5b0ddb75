"""Many threads, two streams each, shared modules, every result checked.

python -m benchmarks.stress --seconds 60
"""

from __future__ import annotations

import argparse
import threading
import time
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F

import convt

# Half a unit in the last place of TF32, fp16 and bf16; as in tests/reference.py.
TOLERANCE = {torch.float32: 2**-11, torch.float16: 2**-11, torch.bfloat16: 2**-8}


def _layers() -> list[tuple[torch.nn.Module, torch.Tensor, torch.Tensor]]:
    """(module, input, fp64 result): two dtypes, both layouts, a bias, several kernels."""
    layers = []
    for position, (channels, kernel, stride, dtype) in enumerate(
        [(32, 3, 5, torch.float32), (8, 2, 2, torch.float32), (64, 4, 2, torch.float16),
         (16, 3, 1, torch.bfloat16), (6, 3, 2, torch.float32), (24, 5, 3, torch.float16)]
    ):  # fmt: skip
        module = convt.ConvTranspose2d(
            channels, 2 * channels, kernel, stride, bias=position % 2 == 0, device="cuda",
            dtype=dtype,
        )  # fmt: skip
        x = torch.randn(2, channels, 9 + position, 13, device="cuda", dtype=dtype)
        if position % 3 == 1:
            x = x.contiguous(memory_format=torch.channels_last)
        bias = None if module.bias is None else module.bias.double()
        expected = F.conv_transpose2d(x.double(), module.weight.double(), bias, stride)
        layers.append((module, x, expected))
    return layers


def stress(seconds: float, threads: int = 16) -> int:
    """How many calls were made; the first wrong one is raised."""
    with torch.inference_mode():
        layers = _layers()
        torch.cuda.synchronize()
        calls, errors = count(), []
        start, end = threading.Barrier(threads), time.monotonic() + seconds

        def work(seed: int) -> None:
            try:
                with torch.inference_mode():
                    _work(seed)
            except BaseException as error:
                errors.append(error)

        def _work(seed: int) -> None:
            streams = [torch.cuda.Stream() for _ in range(2)]
            start.wait()  # the first calls of all modules fall together
            for turn in count(seed):
                if errors or time.monotonic() > end:
                    return
                results: list[tuple[Any, ...]] = []
                for stream in streams:
                    with torch.cuda.stream(stream):
                        for offset in range(3):
                            module, x, expected = layers[(turn + offset) % len(layers)]
                            results.append((module(x), x, expected))
                            next(calls)
                        for y, x, expected in results[-3:]:
                            error = (y.double() - expected).norm() / expected.norm()
                            if not error.item() < TOLERANCE[x.dtype]:
                                raise AssertionError(f"thread {seed}, turn {turn}: {error}")

        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if errors:
        raise errors[0]
    return next(calls)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=16)
    arguments = parser.parse_args()
    calls = stress(arguments.seconds, arguments.threads)
    print(f"{calls} calls from {arguments.threads} threads on two streams each, all right")


if __name__ == "__main__":
    main()
