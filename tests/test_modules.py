"""The modules against torch's, and the packed weight against everything that can change it."""

import contextlib
import copy
import io
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules import module as module_hooks
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import convt
from convt import functional, ops
from tests.reference import assert_close

MODULES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "pairs": {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "dilation": (1, 2)},
    "ints, groups": {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 2},
    "no bias": {"stride": 2, "bias": False},
    "double": {"stride": 2, "dtype": torch.float64},
}


def pair_of_modules(name, kernel_size=3):
    torch.manual_seed(0)
    ours = convt.ConvTranspose2d(4, 6, kernel_size, **MODULES[name])
    torch.manual_seed(0)
    return ours, nn.ConvTranspose2d(4, 6, kernel_size, **MODULES[name])


def images(module, *size):
    return torch.randn(*(size or (2, 4, 5, 7)), dtype=module.weight.dtype)


@pytest.mark.parametrize("name", MODULES)
def test_drop_in(name):
    ours, theirs = pair_of_modules(name, (3, 2))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)  # same initialisation under one seed
    assert repr(ours) == repr(theirs)
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            for x in (images(ours), images(ours, 4, 5, 7), images(ours, 0, 4, 5, 7)):
                y, expected = ours(x), theirs(x)
                assert torch.equal(y, expected)
                assert y.stride() == expected.stride()
                assert y.requires_grad == expected.requires_grad


@pytest.mark.parametrize("size", [(9, 14), (10, 13), (2, 6, 10, 14), [9, 13], torch.Size([10, 14])])
def test_output_size(size):
    ours, theirs = pair_of_modules("no bias")
    ours.padding = theirs.padding = (1, 1)
    x = images(ours)
    y = ours(x, output_size=size)
    assert tuple(y.shape[2:]) == tuple(size[-2:])
    assert torch.equal(y, theirs(x, output_size=size))
    assert torch.equal(ours(x), theirs(x))
    unbatched = size[-2:]
    assert torch.equal(ours(x[0], unbatched), theirs(x[0], unbatched))


@pytest.mark.parametrize("size", [(20, 13), (8, 13), (9, 13, 1), (9,)])
def test_output_size_out_of_reach(size):
    ours, theirs = pair_of_modules("no bias")
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="output"):
            module(images(ours), output_size=size)


def test_state_dict_goes_both_ways():
    ours, theirs = pair_of_modules("pairs")
    x = images(ours)
    ours.reset_parameters()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(x), theirs(x))
    theirs.reset_parameters()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))


def test_changed_attributes_are_followed():
    ours, theirs = pair_of_modules("defaults")
    x = images(ours)
    ours(x)
    for name, value in (("stride", (3, 2)), ("padding", (1, 0)), ("output_padding", (1, 1))):
        setattr(ours, name, value)
        setattr(theirs, name, value)
        assert torch.equal(ours(x), theirs(x))


def test_torchs_module_can_become_ours():
    _, theirs = pair_of_modules("pairs")
    x = images(theirs)
    expected = theirs(x)
    theirs.__class__ = convt.ConvTranspose2d
    assert torch.equal(theirs(x), expected)
    assert copy.deepcopy(theirs).precision is None


def test_precision_is_shown_and_used(monkeypatch):
    module = convt.ConvTranspose2d(4, 6, 3, precision="fp16")
    assert repr(module).endswith(", precision='fp16')")
    used = []
    monkeypatch.setattr(functional, "call", lambda *args: used.append(args[4]))
    module(images(module))
    assert used == ["fp16"]


@pytest.mark.parametrize(
    "arguments",
    [(4, 6, 3), (4, 6, (3, 2), (2, 1), (1, 0), (1, 2), True), (32, 64, 3, 5, 1, 2)],
    ids=["defaults", "pairs", "headline"],
)
def test_model_new(arguments):
    in_channels, out_channels, kernel_size, *rest = arguments
    stride, padding, dilation, bias = rest + [1, 0, 1, False][len(rest) :]
    torch.manual_seed(0)
    model = convt.ModelNew(*arguments)
    torch.manual_seed(0)
    expected = nn.ConvTranspose2d(
        in_channels, out_channels, kernel_size, stride, padding, bias=bias, dilation=dilation
    )
    names = ["conv.weight", "conv.bias"] if bias else ["conv.weight"]
    assert list(model.state_dict()) == names
    assert torch.equal(model.conv.weight, expected.weight)
    x = torch.randn(2, in_channels, 4, 5)
    assert torch.equal(model(x), expected(x))


# The packed weight. Only CUDA modules keep one; here the predicate lets the CPU's do so too.


@pytest.fixture
def packs(monkeypatch):
    monkeypatch.setattr(
        convt.nn, "_is_packable", lambda w: type(w) is nn.Parameter and not w.is_inference()
    )


@pytest.fixture
def module(packs):
    return convt.ConvTranspose2d(4, 6, 3, 2)


@contextlib.contextmanager
def warm_calls():
    """The packed weights of calls past torch's dispatcher, of which the CPU has none itself."""
    seen = []

    def answer(input, weight, address, packed, bias, numbers):
        layout = (torch.contiguous_format, torch.channels_last)[struct.unpack("=11q", numbers)[-1]]
        if input.dim() != 4 or (weight.data_ptr(), weight.stride(), weight.shape) != (
            address,
            torch.empty_like(packed, memory_format=layout).stride(),
            packed.shape,
        ):
            return None
        seen.append(packed)
        return torch.ones(1)

    with mock.patch.object(ops, "warm_conv_transpose2d", answer):
        yield seen


def handed(module, mode=torch.inference_mode):
    """The packed weight that a call hands to the op; it has to be the weight, packed."""
    seen = []
    with (
        mode(),
        mock.patch.object(functional, "call", lambda *args: seen.append(args[5])),
        warm_calls() as warm,
    ):
        module(images(module))
    (packed,) = seen + warm
    if packed is not None:
        assert packed.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(packed, module.weight)
        assert packed.dtype == module.weight.dtype
    return packed


def step(module, optimizer):
    module(images(module)).sum().backward()
    optimizer(module.parameters(), lr=0.1).step()


def other_state(module):
    return {key: torch.randn_like(value) for key, value in module.state_dict().items()}


def under(mode, change):
    def changed(module):
        with mode():
            change(module)

    return changed


def replace(module):
    module.weight = nn.Parameter(torch.randn_like(module.weight))


def assign_data(module):
    module.weight.data = torch.randn_like(module.weight)


def transpose_data(module):
    module.weight.data = module.weight.data.transpose(2, 3)


def mutate_data(module):
    module.weight.data.mul_(2)


CHANGES = {
    "in place, no_grad": under(torch.no_grad, lambda m: m.weight.add_(1)),
    "in place, inference mode": under(torch.inference_mode, lambda m: m.weight.add_(1)),
    "one element": under(torch.no_grad, lambda m: m.weight[0, 0, 0, 0].fill_(7)),
    "through detach()": lambda m: m.weight.detach().zero_(),
    "through state_dict()": lambda m: m.state_dict()["weight"].zero_(),
    "reset_parameters": lambda m: m.reset_parameters(),
    "SGD": lambda m: step(m, torch.optim.SGD),
    "AdamW": lambda m: step(m, torch.optim.AdamW),
    "load_state_dict": lambda m: m.load_state_dict(other_state(m)),
    "load_state_dict, assigned": lambda m: m.load_state_dict(other_state(m), assign=True),
    "double()": lambda m: m.double(),
    "half() and back": lambda m: m.half().float(),
    "channels_last": lambda m: m.to(memory_format=torch.channels_last),
    "channels_last, then in place": lambda m: CHANGES["in place, no_grad"](
        m.to(memory_format=torch.channels_last)
    ),
    "share_memory": lambda m: m.share_memory(),
    "another Parameter": replace,
    ".data assigned": assign_data,
    ".data assigned a view of itself": transpose_data,
    ".data mutated, eval()": lambda m: (mutate_data(m), m.eval()),
    ".data mutated, repack()": lambda m: (mutate_data(m), m.repack()),
    "swapped": lambda m: torch.utils.swap_tensors(
        m.weight, nn.Parameter(torch.randn_like(m.weight))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_packed_weight_is_never_stale(module, change):
    for _ in range(2):
        assert handed(module) is not None
        CHANGES[change](module)
    assert handed(module) is not None
    assert handed(module, torch.no_grad) is not None


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("name", MODULES)
def test_warm_calls_answer_as_torch_does(packs, name, layout):
    ours, theirs = pair_of_modules(name)
    for module in (ours, theirs):
        if layout == "channels_last":
            module.to(memory_format=torch.channels_last)
        elif layout == "transposed":
            transpose_data(module)
    x = images(ours)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(ours(x), theirs(x))
            assert ours(x).stride() == theirs(x).stride()
            torch.testing.assert_close(ours(x[0]), theirs(x[0]))
        for module in (ours, theirs):
            module.stride, module.output_padding = (4, 4), (1, 0)
        torch.testing.assert_close(ours(x), theirs(x))


def test_a_sliced_weight_is_packed_anew(module):
    assert handed(module) is not None
    module.weight.data = module.weight.data[:2]  # pruned: the same address, fewer channels
    with torch.inference_mode():
        x = torch.randn(1, 2, 4, 5)
        expected = F.conv_transpose2d(x, module.weight, module.bias, 2)
        torch.testing.assert_close(module(x), expected)


class Nothing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Seen(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("mode", "warm"),
    [
        (torch.inference_mode, True),
        (torch.no_grad, True),
        (torch.enable_grad, False),
        (lambda: under_inference(cuda_autocast()), False),
        (lambda: under_inference(Nothing()), False),
        (lambda: under_inference(Seen()), False),
        (lambda: under_inference(forward_ad.dual_level()), False),
        (lambda: under_inference(torch.profiler.profile()), False),
    ],
    ids=[
        "inference",
        "no_grad",
        "grad",
        "autocast",
        "dispatch mode",
        "function mode",
        "forward AD",
        "profiler",
    ],
)
def test_only_plain_calls_are_warm(module, mode, warm):
    handed(module)
    x = images(module)
    with mode(), warm_calls() as calls:
        module(x)
    assert bool(calls) == warm


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m(input=x),
        lambda m, x: m(x, (12, 16)),
        lambda m, x: m(x, output_size=None),
        lambda m, x: m(nn.Parameter(x)),
    ],
    ids=["keyword", "output_size", "no output_size", "another type"],
)
def test_unusual_arguments_are_not_warm(module, call):
    handed(module)
    x = images(module)
    with torch.no_grad(), warm_calls() as calls:
        y = call(module, x)
    assert not calls
    assert y.shape[:2] == (2, 6)


HOOKS = {
    "forward_pre": lambda m, hook: m.register_forward_pre_hook(hook),
    "forward_pre with kwargs": lambda m, hook: m.register_forward_pre_hook(hook, with_kwargs=True),
    "forward": lambda m, hook: m.register_forward_hook(hook),
    "forward, always": lambda m, hook: m.register_forward_hook(hook, always_call=True),
    "any forward_pre": lambda _, hook: module_hooks.register_module_forward_pre_hook(hook),
    "any forward": lambda _, hook: module_hooks.register_module_forward_hook(hook),
    "backward": lambda m, hook: m.register_full_backward_hook(hook),
    "backward_pre": lambda m, hook: m.register_full_backward_pre_hook(hook),
    "any backward": lambda _, hook: module_hooks.register_module_full_backward_hook(hook),
    "any backward_pre": lambda _, hook: module_hooks.register_module_full_backward_pre_hook(hook),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_fire(module, kind):
    handed(module)
    x = images(module)
    hook = mock.Mock(return_value=None)
    handle = HOOKS[kind](module, hook)
    try:
        with torch.inference_mode(), warm_calls() as calls:
            module(x)
        assert not calls
        assert hook.called == ("forward" in kind)
        module(x.requires_grad_()).sum().backward()
        assert hook.called
    finally:
        handle.remove()
    with torch.inference_mode(), warm_calls() as calls:
        module(images(module))
    assert calls


class Twice(convt.ConvTranspose2d):
    def forward(self, input, output_size=None):
        return 2 * super().forward(input, output_size)


def replace_forward(module, patch):
    patch.setattr(module, "forward", lambda x: 2 * type(module).forward(module, x))


def replace_class(module, _):
    module.__class__ = Twice


def replace_forward_of_class(_, patch):
    forward = convt.ConvTranspose2d.forward
    patch.setattr(convt.ConvTranspose2d, "forward", lambda m, x: 2 * forward(m, x))


def replace_call(_, patch):
    call = nn.Module.__call__
    patch.setattr(nn.Module, "__call__", lambda m, x: 2 * call(m, x))


def compile_in_place(module, _):
    module._compiled_call_impl = lambda x: 2 * module._call_impl(x)  # as compile() does


@pytest.mark.parametrize(
    "replace",
    [replace_forward, replace_class, replace_forward_of_class, replace_call, compile_in_place],
)
def test_what_replaces_forward_is_called(module, replace, monkeypatch):
    handed(module)
    x = images(module)
    expected = 2 * module(x)
    replace(module, monkeypatch)
    for _ in range(2):
        with torch.inference_mode(), warm_calls() as calls:
            assert torch.equal(module(x), expected)
        assert not calls


class Around(nn.Module):
    """One call on its input, and one on a buffer, which a tracer may take for a constant."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.register_buffer("ones", torch.ones(1, 4, 2, 2))

    def forward(self, x):
        return self.layer(x) + self.layer(self.ones)


class LeafTracer(torch.fx.Tracer):
    def is_leaf_module(self, module, name):
        return isinstance(module, convt.ConvTranspose2d)


@pytest.mark.parametrize(
    "trace",
    [
        lambda m, x: torch.export.export(m, (x,)).module(),
        lambda m, x: torch.export.export(m, (x,), strict=True).module(),
        lambda m, x: make_fx(m)(x),
        lambda m, _: torch.compile(m, fullgraph=True, backend="eager"),
        lambda m, x: torch.jit.trace(m, x, check_trace=False),
        lambda m, _: torch.fx.GraphModule(m, LeafTracer().trace(m)),
    ],
    ids=["export", "strict export", "make_fx", "compile", "jit.trace", "FX"],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_traces_hold_every_call(module, trace):
    torch._dynamo.reset()
    model = Around(module).eval()
    x = images(module, 1, 4, 2, 2)
    with torch.no_grad():
        handed(module)
        with warm_calls() as calls:
            traced = trace(model, x)
        assert not calls
        torch.testing.assert_close(traced(x), model(x))
        model.ones.zero_()
        torch.testing.assert_close(traced(x), model(x))


@contextlib.contextmanager
def cuda_autocast():
    torch.set_autocast_enabled("cuda", True)  # which torch.autocast does only where there is one
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


@contextlib.contextmanager
def under_inference(mode):
    with torch.no_grad(), mode:
        yield


def test_packed_once_per_version(module):
    packed = handed(module)
    assert handed(module) is packed
    assert handed(module, torch.no_grad) is packed
    with torch.no_grad():
        module.weight.add_(1)
    assert handed(module) is packed  # renewed in place: a captured graph may read it
    module.eval()
    assert handed(module) is packed


def test_a_weight_in_channels_last_memory_is_not_copied(module):
    module.to(memory_format=torch.channels_last)
    assert handed(module).data_ptr() == module.weight.data_ptr()


def test_load_state_dict_renews_at_once(module):
    packed = handed(module)
    module.load_state_dict(other_state(module))
    assert torch.equal(packed, module.weight)


def test_no_packed_weight_while_training(module):
    assert handed(module, torch.enable_grad) is None
    module.weight.requires_grad_(False)
    assert handed(module, torch.enable_grad) is not None


def test_no_packed_weight_for_a_weight_without_versions(packs):
    with torch.inference_mode():
        module = convt.ConvTranspose2d(4, 6, 3)
        assert handed(module) is None


def test_no_packed_weight_for_the_cpu():
    assert handed(convt.ConvTranspose2d(4, 6, 3)) is None


class Watched(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **kwargs or {})


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_no_packed_weight_in_a_trace(module):
    assert handed(module) is not None
    with Watched():
        assert handed(module) is None
    with torch.no_grad():
        weight = torch.randn_like(module.weight)
        traced = torch.jit.trace(module, images(module))
        module.weight.copy_(weight)
        x = images(module)
        assert torch.equal(traced(x), module(x))


@pytest.mark.parametrize(
    "wrap",
    [parametrizations.weight_norm, parametrizations.spectral_norm],
    ids=["weight", "spectral"],
)
def test_parametrized_weight(packs, wrap):
    ours, theirs = pair_of_modules("no bias")
    handed(ours)
    torch.manual_seed(0)
    wrap(ours)
    torch.manual_seed(0)
    wrap(theirs)
    ours.eval()
    theirs.eval()
    assert handed(ours) is None
    x = images(ours)
    assert torch.equal(ours(x), theirs(x))


def test_functional_call_and_replicas_use_their_own_weight(module):
    handed(module)
    x = images(module)
    other = {key: value.detach() for key, value in other_state(module).items()}
    expected = convt.conv_transpose2d(x, other["weight"], other["bias"], 2)
    with torch.inference_mode():
        assert torch.equal(torch.func.functional_call(module, other, (x,)), expected)
    replica = module._replicate_for_data_parallel()
    for key, value in other.items():
        setattr(replica, key, value)
    with torch.no_grad():
        assert torch.equal(replica(x), expected)
        assert handed(replica) is None


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m)), saved],
    ids=["deepcopy", "copy", "pickle", "torch.save"],
)
def test_copies_and_files_carry_no_packed_weight(module, copied):
    packed = handed(module)
    other = copied(module)
    assert other._packed is None
    assert handed(other) is not packed
    assert handed(module) is packed
    x = images(module)
    assert torch.equal(other(x), module(x))


def test_threads_see_whole_packed_weights(module):
    x = images(module)
    module.requires_grad_(False)
    with torch.no_grad(), ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            module.weight.add_(1)
            packed = list(pool.map(lambda _: module._packed_weight(module.weight, None), range(32)))
            assert all(torch.equal(p, module.weight) for p in packed)
        assert torch.equal(module(x), convt.conv_transpose2d(x, module.weight, module.bias, 2))


def test_compiled_module_follows_its_weight(module):
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = images(module)
    with torch.no_grad():
        for _ in range(2):
            expected = convt.conv_transpose2d(x, module.weight, module.bias, 2)
            assert torch.equal(compiled(x), expected)
            module.weight.add_(1)


def in_double(module, x):
    with torch.no_grad():
        bias = None if module.bias is None else module.bias.double()
        return F.conv_transpose2d(
            x.double(), module.weight.double(), bias, module.stride, module.padding
        )


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("bias", [True, False])
def test_warm_calls_on_a_gpu(memory_format, dtype, bias):
    module = convt.ConvTranspose2d(8, 6, 3, 2, 1, bias=bias, device="cuda", precision="fp32")
    module.to({"f32": torch.float32, "f16": torch.float16}[dtype])
    inputs = [torch.randn(n, 8, 9, 7, device="cuda", dtype=module.weight.dtype) for n in (1, 3)]
    answers, answer = [], ops.warm_conv_transpose2d

    def watched(*args):
        answers.append(answer(*args))
        return answers[-1]

    with torch.inference_mode(), mock.patch.object(ops, "warm_conv_transpose2d", watched):
        module(inputs[0])
        for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
            stream.wait_stream(torch.cuda.current_stream())
            for x in inputs:
                x = x.contiguous(memory_format=memory_format)
                with torch.cuda.stream(stream):
                    y = module(x)
                    y.record_stream(stream)
                stream.synchronize()
                assert y is answers[-1]
                expected = in_double(module, x)
                assert_close(y, expected, dtype, "fp32")
                assert y.is_contiguous(memory_format=memory_format)
        assert torch.equal(module(torch._neg_view(x)), module(-x))
        assert answers[-2] is None


@pytest.mark.gpu
def test_captured_graph_reads_the_renewed_weight():
    module = convt.ConvTranspose2d(8, 8, 3, 2, device="cuda", precision="fp32")
    x = torch.randn(2, 8, 9, 9, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode():
        module(x)
        with torch.cuda.graph(graph):
            y = module(x)
    for change in ("load_state_dict", "in place, no_grad", ".data mutated, repack()"):
        CHANGES[change](module)
        module.repack()
        graph.replay()
        assert_close(y, in_double(module, x), "f32", "fp32")


@pytest.mark.gpu
def test_capture_of_an_unpacked_weight_packs_in_the_graph():
    module = convt.ConvTranspose2d(8, 8, 3, 2, device="cuda", precision="fp32")
    x = torch.randn(2, 8, 9, 9, device="cuda")
    convt.preload()
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        y = module(x)
    assert module._packed is None
    for _ in range(2):
        graph.replay()
        assert_close(y, in_double(module, x), "f32", "fp32")
        CHANGES["in place, no_grad"](module)


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_compiled_on_a_gpu(memory_format):
    torch._dynamo.reset()
    layers = [
        convt.ConvTranspose2d(8, 16, 4, 2, 1),
        nn.ReLU(),
        convt.ConvTranspose2d(16, 3, 4, 2, 1),
    ]
    model = nn.Sequential(*layers).cuda().to(memory_format=memory_format)
    x = torch.randn(2, 8, 9, 9, device="cuda").contiguous(memory_format=memory_format)
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        y, expected = compiled(x), model(x)
    assert y.stride() == expected.stride()
    torch.testing.assert_close(y, expected, atol=1e-3, rtol=1e-3)
