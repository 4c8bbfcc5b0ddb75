"""What two processes check of distributed training. Run by test_distributed.py, in each of them.

Tensors are made on the default device: the CPU, or each process's own GPU.
"""

import itertools
import os
import traceback

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import (
    DTensor,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
    init_device_mesh,
)
from torch.nn.parallel import DistributedDataParallel

import convt

FUNCTIONS = {
    1: (convt.conv_transpose1d, nn.functional.conv_transpose1d),
    2: (convt.conv_transpose2d, nn.functional.conv_transpose2d),
    3: (convt.conv_transpose3d, nn.functional.conv_transpose3d),
}


def mesh():
    return init_device_mesh(torch.get_default_device().type, (dist.get_world_size(),))


def placements_give_torchs_values_and_gradients(axes, groups):
    """Each placement of input, weight and bias against the undistributed call."""
    ours, theirs = FUNCTIONS[axes]
    devices = mesh()
    size = (5, 6, 4)[:axes]
    channels = (Replicate(), Shard(0), Shard(1), Shard(2))
    for x_placed, w_placed, b_placed in itertools.product(
        channels, channels, (Replicate(), Shard(0), None)
    ):
        torch.manual_seed(0)
        whole = [torch.randn(n, dtype=torch.float64) for n in ((3, 4, *size), (4, 6, *[3] * axes))]
        placed = [x_placed, w_placed]
        if b_placed is not None:
            whole.append(torch.randn(6 * groups, dtype=torch.float64))
            placed.append(b_placed)
        parts = [
            distribute_tensor(t, devices, [p]).requires_grad_()
            for t, p in zip(whole, placed, strict=True)
        ]
        whole = [t.requires_grad_() for t in whole]
        y = ours(*parts, stride=2, padding=1, groups=groups)
        expected = theirs(*whole, stride=2, padding=1, groups=groups)
        assert isinstance(y, DTensor)
        assert y.shape == expected.shape
        torch.testing.assert_close(y.full_tensor(), expected)
        grad = torch.randn_like(expected)
        y.backward(distribute_tensor(grad, devices, [Replicate()]))
        expected.backward(grad)
        for part, t in zip(parts, whole, strict=True):
            assert part.grad.placements == part.placements, (x_placed, w_placed, b_placed)
            torch.testing.assert_close(part.grad.full_tensor(), t.grad)


def mixed_operands_are_refused_as_torch_refuses_them():
    x = distribute_tensor(torch.randn(2, 4, 5, 5), mesh(), [Shard(0)])
    weight = torch.randn(4, 6, 3, 3)
    for function in FUNCTIONS[2]:
        with pytest.raises(RuntimeError, match=r"got mixed torch.Tensor and DTensor"):
            function(x, weight)


class Net(nn.Module):
    def __init__(self, ours):
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.ConvTranspose2d(4, 8, 4, 2, 1)
        self.rest = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(8, 2, 3, groups=2))
        if ours:
            assert len(convt.replace(self)) == 2

    def forward(self, x):
        return self.rest(self.up(x))


def trained(model, xs, steps=2):
    """Losses of some steps; each process has its part of the batch."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for x in xs[:steps]:
        loss = model(x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return losses


def parts_of_batches():
    torch.manual_seed(1)
    batches = [torch.randn(4, 4, 6, 5) for _ in range(3)]
    return batches, [batch.chunk(dist.get_world_size())[dist.get_rank()] for batch in batches]


def check_training(wrap):
    """Wrapped, the layers train as torch's do, and as one process trains them on whole batches."""
    batches, parts = parts_of_batches()
    ours, theirs, alone = wrap(Net(True)), wrap(Net(False)), Net(True)
    torch.testing.assert_close(trained(ours, parts), trained(theirs, parts))
    trained(alone, batches)
    for (name, p), q in zip(ours.named_parameters(), alone.parameters(), strict=True):
        whole = p.full_tensor() if isinstance(p, DTensor) else p
        torch.testing.assert_close(whole, q, msg=lambda text, name=name: f"{name}: {text}")


def ddp_trains_as_torchs_layers():
    check_training(DistributedDataParallel)


def fsdp2_trains_as_torchs_layers():
    check_training(sharded)


def sharded(model):
    for layer in (model.up, model.rest[1]):
        fully_shard(layer, mesh=mesh())
    return fully_shard(model, mesh=mesh())


def layers_wrapped_by_fsdp2_can_be_replaced_afterwards():
    model, reference = sharded(Net(False)), sharded(Net(False))
    report = convt.replace(model)
    assert all(row.replaced for row in report), str(report)
    _, parts = parts_of_batches()
    torch.testing.assert_close(trained(model, parts), trained(reference, parts))


def a_tensor_parallel_decoder_trains_as_one_process():
    """The first layer's output channels are sharded, the second sums over its input channels."""

    def shard(name, module, devices):
        for key, dim in {"up": {"weight": 1, "bias": 0}, "down": {"weight": 0}}.get(
            name, {}
        ).items():
            whole = getattr(module, key)
            module.register_parameter(
                key, nn.Parameter(distribute_tensor(whole, devices, [Shard(dim)]))
            )

    def net():
        torch.manual_seed(0)
        return nn.Sequential()

    model, alone = net(), net()
    for m in (model, alone):
        m.add_module("up", convt.ConvTranspose2d(4, 8, 4, 2, 1))
        m.add_module("act", nn.ReLU())
        m.add_module("down", convt.ConvTranspose2d(8, 3, 3))
    alone.load_state_dict(model.state_dict())
    devices = mesh()
    distribute_module(
        model,
        devices,
        shard,
        input_fn=lambda _, inputs, devices: DTensor.from_local(inputs[0], devices, [Replicate()]),
        output_fn=lambda _, output, devices: output.redistribute(devices, [Replicate()]).to_local(),
    )
    assert model.up.weight.to_local().shape[1] == 4
    batches, _ = parts_of_batches()
    torch.testing.assert_close(trained(model, batches), trained(alone, batches))
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p.full_tensor(), q)


CHECKS = {
    **{
        f"placements, {axes}-D, groups {groups}": (
            placements_give_torchs_values_and_gradients,
            (axes, groups),
        )
        for axes, groups in ((1, 1), (2, 1), (2, 2), (3, 1))
    },
    **{
        check.__name__: (check, ())
        for check in (
            mixed_operands_are_refused_as_torch_refuses_them,
            ddp_trains_as_torchs_layers,
            fsdp2_trains_as_torchs_layers,
            layers_wrapped_by_fsdp2_can_be_replaced_afterwards,
            a_tensor_parallel_decoder_trains_as_one_process,
        )
    },
}


def main(rank, world, port, device, results):
    """Runs every check and reports each failure's traceback, "" for none."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world)
    )
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # ours and torch's are held to fp32's tolerance
    if device == "cuda":
        torch.cuda.set_device(rank)
    torch.set_default_device(torch.device(device, rank if device == "cuda" else None))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    for name, (check, arguments) in CHECKS.items():
        failure = ""
        try:
            check(*arguments)
        except Exception:
            failure = traceback.format_exc()
        results.put((rank, name, failure))
    dist.destroy_process_group()
