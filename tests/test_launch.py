"""The launch path against a stand-in libcuda that records calls and can fail any of them."""

import os
import re
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from convt import _C
from tests.planning import HEADLINE, Layer, gpu, parameter_layout, variants

ARCH = _C.architectures("cubin")[0]
VARIANTS = variants()
PLAN = _C.plan(HEADLINE.problem().with_packed_weight(), gpu(ARCH))
PARAMETERS = VARIANTS[PLAN.variant]["parameters"]
SCRATCH = 2  # hidden pointers that Triton appends to every kernel

# Runs in its own process: a process opens one driver.
PRELUDE = """
from convt import _C
from tests.planning import HEADLINE, Layer
plan = _C.plan(HEADLINE.problem().with_packed_weight(), _C.device_gpu(0))
"""
LAUNCH = PRELUDE + "_C.launch(plan, (1111, 2222, 3333, 4444, 0), device=0, stream=77)\n"


@pytest.fixture
def run(fake_cuda, tmp_path):
    """Runs Python against the stand-in: (exit code, its error output, the calls it made)."""

    def runner(code, **environment):
        log = tmp_path / "calls"
        log.write_text("")
        settings = {
            "CONVT_LIBCUDA": str(fake_cuda),
            "FAKE_CUDA_LOG": str(log),
            "FAKE_CUDA_ARCH": str(ARCH),
        }
        root = Path(__file__).parent.parent
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **settings, **environment},
            cwd=root,
            capture_output=True,
            text=True,
        )
        calls = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
        return done.returncode, done.stderr, [(c[0], c[1] if len(c) > 1 else "") for c in calls]

    return runner


def only(calls, name):
    return [text for call, text in calls if call == name]


def test_a_launch_passes_the_plan_to_the_driver(run):
    code, error, calls = run(LAUNCH)
    assert code == 0, error
    (launch,) = only(calls, "cuLaunchKernel")
    grid, block, shared, stream, device, words = (part.strip() for part in launch.split("|"))
    image = next(i for i in VARIANTS[PLAN.variant]["images"] if i["arch"] == ARCH)
    assert grid == " ".join(map(str, PLAN.grid))
    assert block == f"{32 * VARIANTS[PLAN.variant]['warps']} 1 1"
    assert shared == str(image["shared_bytes"])
    assert (stream, device) == ("77", "on 0")
    values = {"x": 1111, "weight": 2222, "bias": 3333, "y": 4444, **PLAN.arguments}
    cubin = _C.image(PLAN.variant, ARCH, "cubin")
    layout = parameter_layout(cubin)
    buffer = bytes.fromhex(words)
    assert len(buffer) == layout[-1].offset + layout[-1].size
    got = [int.from_bytes(buffer[p.offset :][: p.size], "little") for p in layout]
    assert got == [values[name] for name, *_ in PARAMETERS] + [0] * SCRATCH


STEPS = """
from convt import _C
from tests.planning import HEADLINE
plan = _C.plan(HEADLINE.problem(), _C.device_gpu(0))
_C.launch(plan, (1111, 2222, 3333, 4444, {workspace}), device=0, stream=77)
"""


def test_steps_are_launched_in_order_and_share_the_workspace(run):
    code, error, calls = run(STEPS.format(workspace=5555))
    assert code == 0, error
    packing, main = only(calls, "cuLaunchKernel")
    pointers = [
        struct.unpack("=4Q", bytes.fromhex(call.split()[-1])[:32]) for call in (packing, main)
    ]
    assert pointers[0][:2] == (2222, 5555)  # weight, packed
    assert pointers[1] == (1111, 5555, 3333, 4444)
    assert [call.split("|")[3].strip() for call in (packing, main)] == ["77", "77"]


def test_a_plan_that_needs_a_workspace_is_not_launched_without_one(run):
    code, error, calls = run(STEPS.format(workspace=0))
    assert code != 0
    assert "convt: the plan needs 73728 bytes of workspace, got a null pointer" in error
    assert not only(calls, "cuLaunchKernel")


def test_a_gpu_is_what_its_driver_tells(run):
    code, error, _ = run(
        "from convt import _C\n"
        "gpu = _C.device_gpu(0)\n"
        "assert gpu is not None and gpu == _C.device_gpu(1)\n"
        f"assert (gpu.name, gpu.arch, gpu.image) == ('Fake GPU', {ARCH}, ({ARCH}, 'cubin'))\n"
        "assert (gpu.multiprocessors, gpu.shared_kib, gpu.threads) == (24, 100, 1536)\n"
        "assert abs(gpu.bandwidth - 1008.096) < 1e-6 and gpu.clock == 2.52\n",
        FAKE_CUDA_MULTIPROCESSORS="24",
    )
    assert code == 0, error


def test_a_kernel_is_loaded_once_and_in_relaxed_capture_mode(run):
    _, _, calls = run(LAUNCH + "_C.launch(plan, (1, 2, 3, 4, 0), device=0, stream=0)\n")
    names = [name for name, _ in calls]
    assert names.count("cuLibraryLoadData") == 1
    assert names.count("cuLaunchKernel") == 2
    before, after = only(calls, "cuThreadExchangeStreamCaptureMode")
    assert (before, after) == ("2", "0")  # relaxed, then as it was
    assert only(calls, "cuLibraryLoadData") == ["ELF 0 0"]
    assert only(calls, "cuLibraryGetKernel") == [VARIANTS[PLAN.variant]["symbol"]]


def test_another_device_gets_its_own_context_and_the_same_library(run):
    code, error, calls = run(LAUNCH + "_C.launch(plan, (1, 2, 3, 4, 0), device=1, stream=0)\n")
    assert code == 0, error
    assert len(only(calls, "cuLibraryLoadData")) == 1
    assert only(calls, "cuKernelGetFunction") == ["on 0", "on 1"]
    # Once to load the kernel there and once to launch it.
    assert only(calls, "cuCtxPushCurrent") == ["1", "1"]
    assert only(calls, "cuCtxPopCurrent") == ["1", "1"]
    assert [text.split("|")[4].strip() for text in only(calls, "cuLaunchKernel")] == [
        "on 0",
        "on 1",
    ]


def test_shared_memory_over_48_kib_is_asked_for_on_each_device(run):
    big = [
        i["shared_bytes"]
        for v in VARIANTS.values()
        for i in v["images"]
        if i["arch"] == ARCH and i["kind"] == "cubin" and i["shared_bytes"] > 48 * 1024
    ]
    _, _, calls = run(PRELUDE + "print(_C.preload(1))")
    assert only(calls, "cuKernelSetAttribute") == [f"8 {size} on 1" for size in big]


def test_preload_loads_every_variant_that_has_an_image(run):
    code, error, calls = run(PRELUDE + "_C.preload(0)")
    assert code == 0, error
    images = [i for v in VARIANTS.values() for i in v["images"]]
    count = sum((i["arch"], i["kind"]) == (ARCH, "cubin") for i in images)
    assert len(only(calls, "cuLibraryLoadData")) == count
    assert not only(calls, "cuLaunchKernel")


@pytest.mark.parametrize(
    "call",
    [
        "cuInit", "cuDeviceGetAttribute", "cuThreadExchangeStreamCaptureMode", "cuLibraryLoadData",
        "cuLibraryGetKernel", "cuKernelGetFunction", "cuLaunchKernel",
    ],
)  # fmt: skip
def test_a_failed_call_names_itself_and_the_error(run, call):
    code, error, calls = run(LAUNCH, FAKE_CUDA_FAIL=call, FAKE_CUDA_ERROR="719")
    assert code != 0
    assert f"convt: {call} failed: CUDA_ERROR_FAKE (719, a fake error)" in error
    assert call == "cuLaunchKernel" or not only(calls, "cuLaunchKernel")


@pytest.mark.parametrize("call", ["cuDevicePrimaryCtxRetain", "cuCtxPushCurrent"])
def test_a_failed_context_switch_is_reported(run, call):
    code, error, _ = run(
        PRELUDE + "_C.launch(plan, (1, 2, 3, 4, 0), device=1, stream=0)", FAKE_CUDA_FAIL=call
    )
    assert code != 0
    assert f"convt: {call} failed" in error


def test_a_failed_launch_names_the_kernel_and_the_problem(run):
    _, error, _ = run(LAUNCH, FAKE_CUDA_FAIL="cuLaunchKernel", FAKE_CUDA_ERROR="1")
    assert PLAN.variant in error
    assert "[16, 32, 64, 128] -> [16, 64, 318, 638]" in error


def test_a_load_that_failed_is_tried_again(run):
    code, error, _ = run(
        PRELUDE
        + """
import os
for attempt in range(2):
    try:
        _C.launch(plan, (1, 2, 3, 4, 0), device=0)
    except _C.DriverError:
        assert attempt == 0
        del os.environ["FAKE_CUDA_FAIL"]
""",
        FAKE_CUDA_FAIL="cuLibraryLoadData",
    )
    assert code == 0, error


def test_no_driver_is_a_clear_error_only_where_one_is_needed(run):
    code, error, _ = run(
        "from convt import _C\nassert _C.device_count() == 0\n_C.device_gpu(0)",
        CONVT_LIBCUDA="/nowhere/libcuda.so.1",
    )
    assert code != 0
    assert re.search(r"convt: no CUDA driver: .*nowhere.* \(install the NVIDIA driver", error)


FORK = """
import os
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
_C.launch(plan, (1, 2, 3, 4, 0), device=0)
"""


def test_cuda_in_a_forked_process_is_a_clear_error_if_the_parent_used_it(run):
    code, error, calls = run("import sys" + LAUNCH + FORK)
    assert code != 0
    assert "convt: cannot use CUDA in a process forked from one that did" in error
    assert "use the 'spawn' start method" in error
    assert len(only(calls, "cuLaunchKernel")) == 1  # the parent's
    # Planning and importing are no use.
    unused = PRELUDE.replace("_C.device_gpu(0)", f"_C.Gpu.preset('{ARCH}')")
    code, error, calls = run("import sys" + unused + FORK)
    assert code == 0, error
    assert len(only(calls, "cuLaunchKernel")) == 1


def test_an_old_driver_is_named(run, tmp_path):
    library = tmp_path / "libcuda.so.1"
    compiler = sysconfig.get_config_var("CC").split()[0]
    source = tmp_path / "old.c"
    source.write_text("int cuInit(unsigned flags) { return (int)flags; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    code, error, _ = run(LAUNCH, CONVT_LIBCUDA=str(library))
    assert code != 0
    assert "convt needs a driver for CUDA 12.0 or newer" in error


@pytest.mark.skipif(89 not in _C.architectures("ptx"), reason="built without sm_89")
def test_a_newer_gpu_runs_ptx_unless_forbidden(run):
    code, error, calls = run(LAUNCH, FAKE_CUDA_ARCH="121")
    assert code == 0, error
    assert "ELF" not in only(calls, "cuLibraryLoadData")[0]
    code, error, calls = run(
        PRELUDE + "assert not plan.served and 'no CUDA device' in plan.reason",
        FAKE_CUDA_ARCH="121",
        CONVT_JIT="0",
    )
    assert code == 0, error


def test_convt_arch_forces_an_architecture_and_rejects_nonsense(run):
    code, error, _ = run(PRELUDE + f"assert plan.gpu.image[0] == {ARCH}", CONVT_ARCH=f"sm_{ARCH}")
    assert code == 0, error
    code, error, _ = run(PRELUDE, CONVT_ARCH="ada")
    assert code != 0
    assert "expected CONVT_ARCH to be like sm_89, got ada" in error


def test_launching_a_plan_without_a_kernel_is_refused():
    unserved = _C.plan(Layer(batch=0).problem(), gpu(ARCH))
    with pytest.raises(_C.DriverError, match="launch needs a plan with a kernel"):
        _C.launch(unserved, (0, 0, 0, 0, 0), device=0)


def test_device_index_is_checked():
    with pytest.raises(_C.DriverError, match=r"expected a device index in \[0, 64\), got 64"):
        _C.device_gpu(64)


# Calls past torch's dispatcher (csrc/python/eager.cpp), with the CPU's tensors taken for CUDA's.

EAGER = """
import ctypes, json, os, sys, threading, torch, convt
import torch.nn.functional as F
from torch.autograd import forward_ad
from convt import _eager, ops
from tests import fake_torch

fake_torch.install({library!r})
torch.set_grad_enabled(False)
x, bias = torch.randn(2, 8, 5, 6), torch.randn(4)
weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
last = torch.channels_last

def eager(x=x, weight=weight, bias=bias, frozen=None, stride=2, precision=0):
    geometry = (stride, stride, 1, 1, 0, 0, 1, 1, 1)
    return ops.eager_conv_transpose(x, weight, bias, frozen, geometry, precision)
"""


@pytest.fixture
def run_eager(run, fake_dlpack):
    """As run, after EAGER; the run has to succeed."""

    def runner(code, **environment):
        code, error, calls = run(EAGER.format(library=str(fake_dlpack)) + code, **environment)
        assert code == 0, error
        return error, calls

    return runner


def pointers(launch):
    """The first four addresses of a launch, its stream and its device."""
    *_, stream, device, words = (part.strip() for part in launch.split("|"))
    return [*struct.unpack("=4Q", bytes.fromhex(words)[:32])], stream, device


IN_CHANNELS_LAST = """
weight = weight.contiguous(memory_format=last)
for images in x, x.contiguous(memory_format=last), x:
    for b in bias, None:
        y, expected = eager(images, weight, b), F.conv_transpose2d(images, weight, b, 2, 1)
        assert (y.shape, y.stride(), y.dtype) == (expected.shape, expected.stride(), x.dtype)
        addresses = [t.data_ptr() if t is not None else 0 for t in (images, weight, b, y)]
        print(*addresses, file=sys.stderr)
"""


def test_an_eager_call_launches_on_its_tensors(run_eager):
    error, calls = run_eager("x = x.contiguous(memory_format=last)" + IN_CHANNELS_LAST)
    launches = only(calls, "cuLaunchKernel")
    assert len(launches) == len(error.splitlines()) == 6  # nothing is packed
    for addresses, launch in zip(error.splitlines(), launches, strict=True):
        expected = [int(address) for address in addresses.split()]
        assert pointers(launch) == (expected, "77", "on 0")


EVERY_CALL = """
layer = convt.ConvTranspose2d(8, 4, 3, 2, 1, precision="fp32")  # which ATen cannot promise
def calls():
    layer(x)
    layer.weight.data.mul_(2)
    convt.conv_transpose2d(x, layer.weight, layer.bias, 2, 1, precision="fp32")
calls(); calls()
print(layer.weight.data_ptr(), file=sys.stderr)
layer.freeze()
layer(x); layer(x)
print(layer._frozen.packed.data_ptr(), file=sys.stderr)
layer.weight.add_(1)
layer(x)
layer.freeze()
layer(x)
layer.unfreeze()
layer(x)
"""


def test_each_call_packs_the_weight_anew_unless_it_is_frozen(run_eager):
    error, calls = run_eager(EVERY_CALL)
    weight, frozen = map(int, error.split())
    # A call is a launch that packs, whose first pointer is the weight, and one that reads its
    # fourth; or one that reads the frozen weight.
    launches = [pointers(launch)[0] for launch in only(calls, "cuLaunchKernel")]
    kinds = []
    while launches:
        first, *launches = launches
        if first[0] == weight:
            packed, (second, *launches) = first[1], launches
            assert second[1] == packed != weight
            kinds.append("packs")
        else:
            assert first[1] == frozen
            kinds.append("frozen")
    assert kinds == 4 * ["packs"] + 2 * ["frozen"] + ["packs", "frozen", "packs"]


NOT_EAGER = """
class Watched(torch.utils._python_dispatch.TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **kwargs or {})

class Seen(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **kwargs or {})

class CudaAutocast:
    def __enter__(self): torch.set_autocast_enabled("cuda", True)
    def __exit__(self, *_): torch.set_autocast_enabled("cuda", False)

def under(mode):
    with mode:
        return eager()

assert eager() is not None
others = dict(
    no_tensor=eager(1),
    one_image=eager(x[0]),
    a_subclass=eager(x.as_subclass(type("Sub", (torch.Tensor,), {}))),
    sparse=eager(x.to_sparse()),
    another_dtype=eager(x.double()),
    strided=eager(torch.randn(2, 8, 5, 12)[..., ::2]),
    negative=eager(torch._neg_view(x)),
    negative_weight=eager(weight=torch._neg_view(weight)),
    negative_bias=eager(bias=torch._neg_view(bias)),
    no_memory=eager(torch._efficientzerotensor(x.shape)),
    strided_bias=eager(bias=torch.randn(8)[::2]),
    too_large=eager(stride=2**63),
    grad=under(torch.enable_grad()),
    dispatch_mode=under(Watched()),
    function_mode=under(Seen()),
    autocast=under(CudaAutocast()),
    forward_mode=under(forward_ad.dual_level()),
    profiler=under(torch.profiler.profile()),
    without_cudnn=under(torch.backends.cudnn.flags(enabled=False)),
)
assert not [name for name, y in others.items() if y is not None]
torch.func.vmap(lambda x: print(eager(x), file=sys.stderr) or x)(torch.stack([x, x]))
ctypes.CDLL(os.environ["CONVT_LIBCUDA"]).cuCtxPushCurrent_v2(ctypes.c_void_p(2))
assert eager() is None  # torch would make the output on the current device, 1
"""


def test_what_an_eager_call_leaves_to_others(run_eager):
    error, calls = run_eager(NOT_EAGER)
    assert error.splitlines()[-1] == "None"  # the profiler greets
    assert len(only(calls, "cuLaunchKernel")) == 2  # the weight's and the layer's


def test_an_image_without_a_batch_is_a_batch_of_one(run_eager):
    _, calls = run_eager("""
for images in x, x[0]:
    y = convt.conv_transpose2d(images, weight, bias, 2, 1, precision="fp32")
    assert y.shape == F.conv_transpose2d(images, weight, bias, 2, 1).shape
""")
    assert len(only(calls, "cuLaunchKernel")) == 4  # each packs the weight and answers


def test_an_eager_call_says_when_aten_answers(run_eager):
    run_eager("""
double = [t.double() for t in (x, weight, bias)]
assert eager(*double) is False
assert eager(x[:0]) is False
y = convt.conv_transpose2d(*double, 2)
assert torch.equal(y, F.conv_transpose2d(*double, 2))
""")


def test_bad_eager_calls_are_refused(run_eager):
    run_eager("""
for changes, words in (
    (dict(x=x[:, :4].contiguous()), "expected input to have 8 channels for weight"),
    (dict(bias=torch.randn(8)), "expected bias to be 1-dimensional with 4 elements, got size [8]"),
    (dict(stride=0), "expected stride to be positive, got (0, 0)"),
):
    try:
        eager(**changes)
    except RuntimeError as error:
        assert words in str(error), str(error)
    else:
        raise AssertionError(changes)
""")


def test_a_failed_launch_names_itself_and_the_error(run, fake_dlpack):
    code = EAGER.format(library=str(fake_dlpack)) + "eager()"
    code, error, _ = run(code, FAKE_CUDA_FAIL="cuLaunchKernel")
    assert code != 0
    assert "RuntimeError: convt: cuLaunchKernel failed: CUDA_ERROR_FAKE" in error


def test_running_out_of_memory_is_torchs_own_error(run_eager):
    error, calls = run_eager("""
image, w = torch.empty(1, 1, 2**12, 2**12), torch.empty(1, 2**20, 1, 1)
def words(f):
    try:
        f(image, w, None, 1)
    except Exception as error:
        return type(error), str(error).split("(")[0]
assert words(convt.conv_transpose2d) == words(F.conv_transpose2d), words(convt.conv_transpose2d)
assert "t allocate memory: you tried to allocate" in words(convt.conv_transpose2d)[1]
""")
    assert not error
    assert only(calls, "cuLaunchKernel") == []


NETWORK = """
layers = [row for row in json.load(open("benchmarks/layers.json")) if row["dtype"] == "f32"][:100]
signatures = []
for row in layers:  # memory that nobody touches costs nothing
    for batch in row["batch"], row["batch"] + 1:
        image = torch.empty(batch, row["in_channels"], row["in_h"], row["in_w"])
        group_out = row["out_channels"] // row["groups"]
        kernel = torch.empty(row["in_channels"], group_out, *row["kernel"])
        pairs = [row[k] for k in ("stride", "padding", "output_padding", "dilation")]
        geometry = (*(n for pair in pairs for n in pair), row["groups"])
        facts = image.shape, kernel.shape, geometry
        if facts not in [s[0] for s in signatures]:
            signatures.append((facts, (image, kernel, None, None, geometry, 1)))

@torch.no_grad()
def network():
    for _, arguments in signatures:
        ops.eager_conv_transpose(*arguments)

before = _eager.answers_planned()
for _ in range(2):
    threads = [threading.Thread(target=network) for _ in range(16)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(len(signatures), _eager.answers_planned() - before, file=sys.stderr)
"""


def test_a_network_of_200_layers_is_planned_once_for_16_threads(run_eager):
    error, _ = run_eager(NETWORK)
    layers, planned = map(int, error.split())
    assert layers > 180
    assert planned == layers
