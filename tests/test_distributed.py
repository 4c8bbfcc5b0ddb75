"""Distributed training in two processes, on the CPU and on two GPUs where there are two.

DTensor, DDP, FSDP2, tensor parallelism.
"""

import queue
import socket

import pytest
import torch

from tests import distributed_checks

WORLD = 2


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def failures(request):
    """By check, what went wrong in which process."""
    if request.param == "cuda" and torch.cuda.device_count() < WORLD:
        pytest.skip(f"fewer than {WORLD} GPUs")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(
            target=distributed_checks.main, args=(rank, WORLD, port, request.param, results)
        )
        for rank in range(WORLD)
    ]
    for process in processes:
        process.start()
    found = {name: [] for name in distributed_checks.CHECKS}
    answers = 0
    try:
        while answers < WORLD * len(found):
            rank, name, failure = results.get(timeout=120)
            answers += 1
            if failure:
                found[name].append(f"process {rank}: {failure}")
    except queue.Empty:
        for reports in found.values():
            reports.append(f"a process stopped after {answers} answers")
    finally:
        for process in processes:
            process.join(timeout=20)
            process.kill()
    return found


@pytest.mark.parametrize("check", distributed_checks.CHECKS)
def test_in_two_processes(failures, check):
    assert not failures[check], "\n".join(failures[check])
