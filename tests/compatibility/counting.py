"""Rows: counting operations, and what compiled and checkpointed nets keep."""

import functools

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from torch.utils.flop_counter import FlopCounterMode

from tests.compatibility.suite import Side, row

COUNTED = "counting"


def _flops(net, x, backward):
    with FlopCounterMode(display=False) as counter:
        y = net(x)
        if backward:
            y.sum().backward()
    return counter.get_flop_counts()["Global"], counter.get_total_flops()


for _device in ("cpu", "meta"):
    for _backward in (False, True):

        @row(COUNTED, f"FlopCounterMode, {_device}{', backward' if _backward else ''}")
        def flops(side: Side, device=_device, backward=_backward):
            net = side.net().to(device)
            x = side.images(device=device, requires_grad=backward)
            return _flops(net, x, backward)[1]


def _thop(net, x):
    import thop

    return thop.profile(net, (x,), verbose=False)


def _torchinfo(net, x):
    import torchinfo

    summary = torchinfo.summary(net, input_data=x, verbose=0)
    return summary.total_mult_adds, summary.total_params


def _fvcore(net, x):
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

    counts = [FlopCountAnalysis(net, x), ActivationCountAnalysis(net, x)]
    return [count.unsupported_ops_warnings(False).total() for count in counts]


def _ptflops(backend):
    def count(net, x):
        from ptflops import get_model_complexity_info

        return get_model_complexity_info(
            net, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False, backend=backend
        )

    return count


for _name, _count in {
    "thop, which counts all taps of strided layers": _thop,
    "torchinfo, which counts them too": _torchinfo,
    "fvcore": _fvcore,
    "ptflops, pytorch backend": _ptflops("pytorch"),
    "ptflops, aten backend": _ptflops("aten"),
}.items():

    @row(COUNTED, _name)
    def counted(side: Side, count=_count):
        return count(side.net().eval(), side.images(1))


@row(COUNTED, "a profiler's operators", axes=(2, 3))
def profiled(side: Side):
    layer, x = side.layer(), side.images()
    with torch.profiler.profile() as profile:
        layer(x)
    names = {event.key for event in profile.key_averages()}
    return f"aten::conv_transpose{side.axes}d" in names


@row(COUNTED, "selective checkpointing that saves the layer's answer")
def selective(side: Side):
    ops = {torch.ops.aten.convolution.default, torch.ops.convt.conv_transpose2d.default}
    ops.add(torch.ops.convt.conv_transpose3d.default)
    kept = []

    def policy(context, op, *args, **kwargs):
        kept.append(op in ops and not context.is_recompute)
        return CheckpointPolicy.MUST_SAVE if op in ops else CheckpointPolicy.PREFER_RECOMPUTE

    net, x = side.net(), side.images().requires_grad_()
    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    checkpoint(net, x, use_reentrant=False, context_fn=contexts).sum().backward()
    return [sum(kept), x.grad]


@row(COUNTED, "activation_memory_budget: what a compiled net keeps")
def budget(side: Side):
    torch._dynamo.reset()
    torch.manual_seed(0)
    net, x = nn.Sequential(side.net(), nn.GELU()), side.images().requires_grad_()
    kept = []
    with torch._functorch.config.patch(activation_memory_budget=0.5):
        call = torch.compile(net, backend="aot_eager_decomp_partition")
        with saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            y = call(x)
    y.sum().backward()
    torch._dynamo.reset()
    return [sum(kept), x.grad]
