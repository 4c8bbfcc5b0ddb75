"""Rows: optimisers, averaging, mixed precision, wrappers for several devices."""

import collections
import contextlib
import socket

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
from torch.nn.parallel import DistributedDataParallel, replicate
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

import convt
from tests.compatibility.suite import Side, row

GROUP = "training"

OPTIMISERS = {
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "Adam, fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "SGD, fused": lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
    "Adagrad, fused": lambda p: torch.optim.Adagrad(p, lr=0.1, fused=True),
    "RMSprop, foreach": lambda p: torch.optim.RMSprop(p, lr=0.1, foreach=True),
}


def _trained(net, optimiser, x, steps=3):
    """Losses, and the answer without gradients after each step."""
    seen = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            seen.append([loss.detach(), net(x)])
    return seen


for _name, _make in OPTIMISERS.items():

    @row(GROUP, f"{_name}: answers after each step")
    def optimised(side: Side, make=_make):
        net = side.net()
        return _trained(net, make(net.parameters()), side.images())


@row(GROUP, "LBFGS")
def lbfgs(side: Side):
    net, x = side.net(), side.images()
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=3)

    def closure():
        optimiser.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    return net(x)


@row(GROUP, "an average of weights: AveragedModel, then update_bn")
def averaged(side: Side):
    net, x = side.net(), side.images()
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    answers = []
    for _ in range(3):
        _trained(net, optimiser, x, 1)
        average.update_parameters(net)
        with torch.no_grad():
            answers.append(average(x))
    return answers


@row(GROUP, "an average of weights written to .data")
def averaged_data(side: Side):
    net, average, x = side.net(), side.net(), side.images()
    answers = []
    for _ in range(3):
        _trained(net, torch.optim.Adam(net.parameters(), lr=0.1, fused=True), x, 1)
        for p, q in zip(average.parameters(), net.parameters(), strict=True):
            p.data.mul_(0.5).add_(q.data, alpha=0.5)
        with torch.no_grad():
            answers.append(average(x))
    return answers


@row(GROUP, "parameters_to_vector, vector_to_parameters")
def as_vector(side: Side):
    net, x = side.net(), side.images()
    vector = parameters_to_vector(net.parameters()).detach().clone()
    vector_to_parameters(vector, net.parameters())
    answers = []
    for _ in range(2):
        with torch.no_grad():
            answers.append(net(x))
        vector.mul_(0.5)
    return answers


@row(GROUP)
def clipped_gradients(side: Side):
    net = side.net()
    net(side.images()).sum().backward()
    return [clip_grad_norm_(net.parameters(), 0.1), [p.grad for p in net.parameters()]]


@row(GROUP, "a GAN: the layer's weight is only read while another one trains")
def gan(side: Side):
    torch.manual_seed(0)
    generator, x = side.net(), side.images()
    critic = nn.Sequential(nn.Flatten(), nn.LazyLinear(1))
    critic(generator(x))
    optimisers = [torch.optim.Adam(m.parameters(), fused=True) for m in (critic, generator)]
    answers = []
    for _ in range(2):
        for optimiser, sign in zip(optimisers, (1, -1), strict=True):
            optimiser.zero_grad()
            (sign * critic(generator(x)).mean()).backward()
            optimiser.step()
        with torch.no_grad():
            answers.append(generator(x))
    return answers


@row(GROUP, "BatchNorm behind the layer, train and eval")
def batch_norm(side: Side):
    net = nn.Sequential(side.layer(), side.norm(6))
    x = side.images()
    return [net(x), net.eval()(x), net[1].running_mean]


MIXED = "mixed precision"

for _dtype in (torch.bfloat16, torch.float16):
    for _grad in (True, False):

        @row(MIXED, f"autocast, {str(_dtype)[6:]}{'' if _grad else ', no gradients'}")
        def autocast(side: Side, dtype=_dtype, grad=_grad):
            net, x = side.net(), side.images()
            with torch.autocast(side.kind, dtype), torch.set_grad_enabled(grad):
                y = net(x)
            if not grad:
                return y
            y.float().square().mean().backward()
            return [y.dtype, [p.grad.dtype for p in net.parameters()], y]


@row(MIXED)
def autocast_leaves_float64(side: Side):
    with torch.autocast(side.kind, torch.bfloat16):
        return side.layer(dtype=torch.float64)(side.images(dtype=torch.float64))


@row(MIXED)
def autocast_switched_off_inside(side: Side):
    with torch.autocast(side.kind, torch.bfloat16), torch.autocast(side.kind, enabled=False):
        return side.layer()(side.images())


@row(MIXED, "autocast casts each weight once per region")
def casts(side: Side):
    class Count(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.casts = collections.Counter()

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            if op is torch.ops.aten._to_copy.default:
                self.casts[tuple(args[0].shape)] += 1
            return op(*args, **(kwargs or {}))

    layer, x = side.layer(), side.images()
    counts = []
    with torch.autocast(side.kind, torch.bfloat16), Count() as count:
        for _ in range(3):
            layer(x)
        counts.append(count.casts[tuple(layer.weight.shape)])
    with torch.autocast(side.kind, torch.bfloat16), torch.no_grad(), Count() as count:
        for _ in range(3):
            layer(x)
        counts.append(count.casts[tuple(layer.weight.shape)] >= 1)
    return counts


@row(MIXED, "GradScaler")
def scaled(side: Side):
    net, scaler = side.net(), torch.amp.GradScaler(side.kind, init_scale=8.0)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler.scale(net(side.images()).square().mean()).backward()
    scaler.step(optimiser)
    scaler.update()
    return net(side.images())


SEVERAL = "several devices (here one process, gloo; two in tests/test_distributed.py)"


@contextlib.contextmanager
def _process_group(side):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backend = "gloo" if side.kind == "cpu" else "nccl"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        yield init_device_mesh(side.kind, (1,))
    finally:
        dist.destroy_process_group()


@row(SEVERAL, "DistributedDataParallel")
def ddp(side: Side):
    with _process_group(side):
        net = DistributedDataParallel(side.net())
        seen = _trained(net, torch.optim.SGD(net.parameters(), lr=0.1), side.images())
        # While the process group lives: torch 2.13 ends a group that only a dead model holds with
        # the interpreter locked, and waits for ever for the group's threads, which want the lock.
        del net
        return seen


@row(SEVERAL, "fully_shard (FSDP2)")
def fsdp2(side: Side):
    with _process_group(side) as mesh:
        net = fully_shard(side.net(), mesh=mesh)
        return _trained(net, torch.optim.SGD(net.parameters(), lr=0.1), side.images())


@row(SEVERAL, "DTensors")
def dtensors(side: Side):
    with _process_group(side) as mesh:
        layer = side.layer()
        x = distribute_tensor(side.images(), mesh, [Shard(0)])
        weight = distribute_tensor(layer.weight.detach(), mesh, [Replicate()]).requires_grad_()
        y = side.function(x, weight, stride=2)
        y.sum().backward()
        return [y.full_tensor(), weight.grad.full_tensor()]


@row(SEVERAL, "replicas of DataParallel")
def replicas(side: Side):
    layer, x = side.layer(), side.images()
    copy = layer._replicate_for_data_parallel()
    for name, value in layer.named_parameters():
        setattr(copy, name, value * 2)
    assert replicate is not None
    with torch.no_grad():
        return copy(x)


REPLACED = "convt.replace and convt.restore"


@row(REPLACED, "a model of torch's, before and after")
def replaced(side: Side):
    net = Side(side.axes, False).net()
    if side.ours:
        assert len(convt.replace(net)) == 2
    return net(side.images())


@row(REPLACED, "an optimiser made before goes on")
def replaced_while_training(side: Side):
    net, x = Side(side.axes, False).net(), side.images()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    _trained(net, optimiser, x, 1)
    if side.ours:
        convt.replace(net)
    first = _trained(net, optimiser, x, 1)
    if side.ours:
        convt.restore(net)
    return [first, _trained(net, optimiser, x, 1)]


@row(REPLACED, "fuse=True beside the unfused model, groups included")
def fused(side: Side):
    torch.manual_seed(0)
    plain = Side(side.axes, False)
    net = nn.Sequential(plain.layer(groups=2), plain.norm(6)).eval()
    nn.init.uniform_(net[1].running_var, 0.5, 2)
    if side.ours:
        convt.replace(net, fuse=True)
        assert type(net[1]) is nn.Identity
    with torch.no_grad():
        return net(side.images())
