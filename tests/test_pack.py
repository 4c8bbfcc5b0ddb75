"""The packed weight: the kernel that copies it, and its plan."""

import pytest
import torch

from aot.interpret import run
from convt import _C
from tests.planning import gpu, variants

ARCH = _C.architectures("cubin")[0]
VARIANTS = variants()

WEIGHTS = {
    "one tile": torch.randn(3, 5, 3, 3),
    "many tiles": torch.randn(2, 130, 5, 7),
    "one tap": torch.randn(4, 70, 1, 1),
    "depthwise": torch.randn(6, 1, 4, 4),
    "transposed": torch.randn(5, 4, 2, 3).transpose(0, 1).transpose(2, 3),
    "a slice": torch.randn(4, 9, 3, 5)[:, 1:-1, ::2, 1:],
    "channels_last": torch.randn(3, 6, 3, 3).contiguous(memory_format=torch.channels_last),
}


def plan_of(weight, dtype="f32", arch=ARCH):
    desc = (tuple(weight.shape), weight.stride(), dtype, True)
    return _C.plan_pack(desc, gpu(arch))


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize(("dtype", "torch_dtype"), [("f32", torch.float32), ("f16", torch.half)])
def test_kernel_packs(weight, dtype, torch_dtype):
    storage = weight.clone(memory_format=torch.preserve_format).to(torch_dtype)
    chosen = plan_of(storage, dtype)
    rows, out, kernel_h, kernel_w = storage.shape
    y = torch.full((rows, kernel_h, kernel_w, out), float("nan"), dtype=torch_dtype)
    run(chosen, None, storage, None, y)
    assert torch.equal(y, storage.permute(0, 2, 3, 1))


def test_kernel_reads_strides_of_64_bits():
    plan = plan_of(torch.empty(1, 2, 2**15, 2**15, device="meta"))
    assert plan.served
    assert plan.arguments["weight_in"] == 2**31
    types = {name: type_ for name, type_, _ in VARIANTS[plan.variant]["parameters"]}
    strides = [f"weight_{name}" for name in ("in", "out", "d", "h", "w")]
    assert {types[name] for name in strides} == {"i64"}


@pytest.mark.parametrize(
    ("weight", "dtype", "arch", "reason"),
    [
        (torch.empty(3, 3), "f32", ARCH, "of 3 to 5 dimensions"),
        (torch.empty(3, 3, 3, 3), "other", ARCH, "only fp32, fp16 and bf16"),
        (torch.empty(3, 3, 3, 3), "f32", 0, "have a kernel that packs them"),
        (torch.empty(0, 3, 3, 3), "f32", ARCH, "its size does not fit one grid"),
        (torch.empty(2**24, 1, 2**9, 2**9, device="meta"), "f32", ARCH, "does not fit one grid"),
    ],
)  # fmt: skip
def test_what_no_kernel_packs(weight, dtype, arch, reason):
    plan = plan_of(weight, dtype, arch)
    assert not plan.served
    assert reason in plan.reason


def test_no_layer_is_planned_on_it():
    # By its numbers a pack variant would fit an fp16 layer in channels_last.
    for dtype in ("f32", "f16", "bf16"):
        desc = ((1, 8, 4, 4), (128, 1, 32, 8), dtype, True)
        weight = ((8, 8, 3, 3), (72, 9, 3, 1), dtype, True)
        geometry = (1, 1, 0, 0, 0, 0, 1, 1, 1)
        problem = _C.problem_of(desc, weight, None, geometry, "fp16")
        assert not [name for name, _ in _C.candidates(problem, gpu(ARCH)) if "pack" in name]
