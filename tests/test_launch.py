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


def test_preload_loads_every_variant(run):
    code, error, calls = run(PRELUDE + "assert _C.preload(0) == len(_C.variants())")
    assert code == 0, error
    assert len(only(calls, "cuLibraryLoadData")) == len(VARIANTS)
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


# Calls past torch's dispatcher (csrc/warm.cpp), with the CPU's tensors taken for CUDA's.

WARM = """
import ctypes, os, struct, sys, torch, convt
import torch.nn.functional as F
from convt import ops
from tests import fake_torch

fake_torch.install({library!r})
x, bias = torch.randn(2, 8, 5, 6), torch.randn(4)
weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
packed = weight.detach().contiguous(memory_format=torch.channels_last)

def warm(x=x, weight=weight, packed=packed, bias=bias, layout=0, address=None, stride=2):
    numbers = struct.pack("=11q", stride, stride, 1, 1, 0, 0, 1, 1, 1, 0, layout)
    address = weight.data_ptr() if address is None else address
    return ops.warm_conv_transpose2d(x, weight, address, packed, bias, numbers)
"""

LAUNCHES = """
for images in x, x.contiguous(memory_format=torch.channels_last), x:
    for b in bias, None:
        y, expected = warm(images, bias=b), F.conv_transpose2d(images, weight, b, 2, 1)
        assert (y.shape, y.stride(), y.dtype) == (expected.shape, expected.stride(), x.dtype)
        addresses = [t.data_ptr() if t is not None else 0 for t in (images, packed, b, y)]
        print(*addresses, file=sys.stderr)
"""


def test_a_warm_call_launches_on_its_tensors(run, fake_dlpack):
    code, error, calls = run(WARM.format(library=str(fake_dlpack)) + LAUNCHES)
    assert code == 0, error
    launches = only(calls, "cuLaunchKernel")
    assert len(launches) == len(error.splitlines()) == 6
    for addresses, launch in zip(error.splitlines(), launches, strict=True):
        *_, stream, device, words = (part.strip() for part in launch.split("|"))
        assert (stream, device) == ("77", "on 0")
        pointers = struct.unpack("=4Q", bytes.fromhex(words)[:32])
        assert list(pointers) == [int(address) for address in addresses.split()]


NOT_WARM = """
double = lambda t: t.double() if isinstance(t, torch.Tensor) else t
assert warm() is not None
others = dict(
    no_tensor=warm(1),
    a_subclass=warm(torch.nn.Parameter(x)),
    three_dimensions=warm(x[0]),
    sparse=warm(x.to_sparse()),
    another_dtype=warm(x.double()),
    a_dtype_without_kernels=warm(*map(double, (x, weight, packed, bias))),
    wrong_channels=warm(x[:, :4].contiguous()),
    strided=warm(torch.randn(2, 8, 5, 12)[..., ::2]),
    empty=warm(x[:0]),
    negative=warm(torch._neg_view(x)),
    no_memory=warm(torch._efficientzerotensor(x.shape)),
    another_address=warm(address=weight.data_ptr() + 4),
    another_order=warm(layout=1),
    transposed=warm(weight=weight.detach().transpose(2, 3)),
    packed_of_another_size=warm(packed=packed[:4]),
    not_packed=warm(packed=weight.detach()),
    unaligned=warm(packed=torch.randn(999).as_strided(packed.shape, packed.stride(), 1)),
    strided_bias=warm(bias=torch.randn(8)[::2]),
    long_bias=warm(bias=torch.randn(8)),
    bad_stride=warm(stride=0),
)
assert not [name for name, y in others.items() if y is not None]
ctypes.CDLL(os.environ["CONVT_LIBCUDA"]).cuCtxPushCurrent_v2(ctypes.c_void_p(2))
assert warm() is None  # torch would make the output on the current device, 1
"""


def test_what_a_warm_call_leaves_to_the_op(run, fake_dlpack):
    code, error, calls = run(WARM.format(library=str(fake_dlpack)) + NOT_WARM)
    assert code == 0, error
    assert len(only(calls, "cuLaunchKernel")) == 1


def test_a_failed_warm_call_names_itself_and_the_error(run, fake_dlpack):
    code, error, _ = run(
        WARM.format(library=str(fake_dlpack)) + "warm()", FAKE_CUDA_FAIL="cuLaunchKernel"
    )
    assert code != 0
    assert "RuntimeError: convt: cuLaunchKernel failed: CUDA_ERROR_FAKE" in error


MODULE = """
module = convt.ConvTranspose2d(8, 4, 3, 2, 1)
with torch.inference_mode():
    module(x)
    y = module(x)  # warm
    assert y.is_inference() and y.shape == (2, 4, 9, 11)
    module(x[0])
    hook = module.register_forward_hook(lambda *_: None)
    module(x)
    hook.remove()
    module(x)  # warm
module(x).sum().backward()
with torch.no_grad():
    assert not module(x).requires_grad  # warm
    for change in (lambda: module.weight.add_(1), lambda: module.bias.data.add_(1)):
        change()
        module(x)
    module.bias = None
    module(x)
    module(x)  # warm
"""


def test_a_module_makes_warm_calls(run, fake_dlpack):
    code, error, calls = run(WARM.format(library=str(fake_dlpack)) + MODULE)
    assert code == 0, error
    assert len(only(calls, "cuLaunchKernel")) == 5  # changing data behind bias is no change of bias
