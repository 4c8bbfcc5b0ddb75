"""FLOPs, activation memory and selective checkpointing: the op counts as torch's convolution."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from torch.utils.flop_counter import FlopCounterMode

import convt

GEOMETRIES = {
    "defaults": {},
    "stride, padding": {"stride": 2, "padding": 1, "output_padding": 1},
    "groups, dilation": {"groups": 2, "dilation": 2, "bias": False},
    "fp32": {"precision": "fp32", "stride": 2},
}
CLASSES = {
    1: (convt.ConvTranspose1d, nn.ConvTranspose1d),
    2: (convt.ConvTranspose2d, nn.ConvTranspose2d),
    3: (convt.ConvTranspose3d, nn.ConvTranspose3d),
}


def flops(module, x, backward):
    with FlopCounterMode(display=False) as counter:
        y = module(x)
        if backward:
            y.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("axes", CLASSES)
def test_flops_are_torchs(axes, name, backward, device):
    arguments = GEOMETRIES[name]
    ours = CLASSES[axes][0](4, 6, 3, **arguments, device=device)
    arguments = {k: v for k, v in arguments.items() if k != "precision"}
    theirs = CLASSES[axes][1](4, 6, 3, **arguments, device=device)
    x = torch.randn(2, 4, *(5, 6, 4)[:axes], device=device, requires_grad=backward)
    expected = flops(theirs, x, backward)
    assert expected > 0
    assert flops(ours, x, backward) == expected


def test_flops_are_told_whatever_is_imported_first():
    code = """
import {first}, {second}
import torch, convt
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    convt.ConvTranspose2d(4, 6, 3)(torch.ones(1, 4, 5, 6))
print(counter.get_total_flops())
"""
    modules = ["torch.utils.flop_counter", "convt"]
    for first, second in (modules, reversed(modules)):
        command = [sys.executable, "-c", code.format(first=first, second=second)]
        run = subprocess.run(command, capture_output=True, check=True, text=True)
        assert int(run.stdout) == 2 * 5 * 6 * 4 * 6 * 3 * 3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = convt.ConvTranspose2d(4, 4, 3, 2)
        self.rest = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())

    def forward(self, x):
        return self.rest(self.up(x))


def test_selective_checkpointing_can_save_the_op():
    """Saved, it does not run again in backward; recomputed, it does."""
    ran = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            # The CPU's calls are ATen's; kernels' calls are the other.
            is_transposed = op is torch.ops.aten.convolution.default and args[6]
            ran.append(is_transposed or op is torch.ops.convt.conv_transpose2d.default)
            return op(*args, **(kwargs or {}))

    net, x = Net(), torch.randn(1, 4, 5, 6, requires_grad=True)
    ops = (torch.ops.aten.convolution.default, torch.ops.convt.conv_transpose2d.default)
    expected = torch.autograd.grad(net(x).sum(), x)
    for policy, times in (
        (CheckpointPolicy.MUST_SAVE, 1),
        (CheckpointPolicy.MUST_RECOMPUTE, 2),
    ):

        def choose(context, func, *args, policy=policy, **kwargs):
            return policy if func in ops else CheckpointPolicy.PREFER_RECOMPUTE

        def contexts(choose=choose):
            return create_selective_checkpoint_contexts(choose)

        ran.clear()
        with Watch():
            y = checkpoint(net, x, use_reentrant=False, context_fn=contexts)
            assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected[0])
        assert sum(ran) == times


def saved_activations(layer, budget):
    """How many elements a compiled network keeps for its backward under an activation budget."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = nn.Sequential(layer(4, 4, 3, padding=1), nn.GELU(), layer(4, 4, 3, padding=1), nn.GELU())
    x = torch.randn(1, 4, 16, 16, requires_grad=True)
    total = 0

    def count(tensor):
        nonlocal total
        total += tensor.numel()
        return tensor

    with torch._functorch.config.patch(activation_memory_budget=budget):
        compiled = torch.compile(net, backend="aot_eager_decomp_partition")
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            y = compiled(x)
    grads = torch.autograd.grad(y.sum(), list(net.parameters()))
    torch._dynamo.reset()
    return total, grads


@pytest.mark.parametrize("budget", [0.3, 0.5, 1.0])
def test_activation_memory_budget_keeps_what_it_keeps_for_torchs_layer(budget):
    (ours, our_grads), (theirs, their_grads) = (
        saved_activations(layer, budget) for layer in (convt.ConvTranspose2d, nn.ConvTranspose2d)
    )
    assert ours == theirs
    torch.testing.assert_close(our_grads, their_grads)
