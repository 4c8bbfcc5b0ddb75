"""All private names of torch that convt uses; one that is missing costs speed only.

A missing question is answered with yes: then calls go through torch's dispatcher, which asks it
itself, or to torch's own convolution.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

PRIVATE_NAMES: list[str] = []


def private(path: str, fallback: Any) -> Any:
    """The object at a path in torch, or what does instead."""
    PRIVATE_NAMES.append(path)
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return fallback if found is None else found


def _yes() -> bool:
    return True


# Bound to names here: each look-up through a module would cost a call 0.02 us.
_Question = Callable[[], bool]
are_transforms_active: _Question = private("_C._are_functorch_transforms_active", _yes)
is_any_autocast_enabled: _Question = private("_C._is_any_autocast_enabled", _yes)
_len_dispatch_stack: _Question = private("_C._len_torch_dispatch_stack", _yes)
_len_function_stack: _Question = private("_C._len_torch_function_stack", _yes)
_get_tracing_state: _Question = private("_C._get_tracing_state", _yes)
_is_profiler_enabled: _Question = private("_C._autograd._profiler_enabled", _yes)
# Other compilers are modes on the dispatch stack.
is_compiling = torch.compiler.is_dynamo_compiling


def is_forward_mode() -> bool:
    """Whether forward-mode AD may be on."""
    return getattr(forward_ad, "_current_level", 0) >= 0


# Whether something traces, intercepts or watches ops.
_WATCHERS = (_len_dispatch_stack, _len_function_stack, _get_tracing_state, _is_profiler_enabled)


def is_watched() -> bool:
    return is_compiling() or any(question() for question in _WATCHERS)


def _no_mode(_: object) -> None:
    return None


_mode: Callable[[Any], object] = private("_C._get_dispatch_mode", _no_mode)
# The modes of torch.export, make_fx and compilers behind dynamo.
_TRACERS = [
    key
    for name in ("PROXY", "FUNCTIONAL")
    if (key := private(f"_C._TorchDispatchModeKey.{name}", None)) is not None
]


def is_traced() -> bool:
    """Whether calls become nodes of a graph, which may run elsewhere than on this device."""
    return (
        is_compiling()
        or bool(_get_tracing_state())
        or (_len_dispatch_stack() > 0 and any(_mode(key) is not None for key in _TRACERS))
    )


def is_scripting_for_onnx() -> bool:
    """Whether torch.jit.trace runs for torch.onnx's exporter of TorchScript."""
    return bool(_get_tracing_state()) and torch.onnx.is_in_onnx_export()


# `(sizes, strides, dtype)` to memory on the current CUDA device: as inductor's code does, in half
# the time of torch.empty_strided.
empty_strided_cuda: Callable[..., torch.Tensor] = private(
    "_C._dynamo.guards._empty_strided_cuda",
    lambda sizes, strides, dtype: torch.empty_strided(sizes, strides, dtype=dtype, device="cuda"),
)


def _fp32_precision(_: str, kind: str) -> str:
    switches: dict[str, Any] = {
        "conv": torch.backends.cudnn,
        "matmul": torch.backends.cuda.matmul,
    }
    return "tf32" if switches[kind].allow_tf32 else "ieee"


_get_cudnn_enabled: _Question = private(
    "_C._get_cudnn_enabled", lambda: bool(torch.backends.cudnn.enabled)
)
fp32_precision: Callable[[str, str], str] = private(
    "_C._get_fp32_precision_getter", _fp32_precision
)


def allows_tf32(kind: str) -> bool:
    """Whether torch would multiply fp32 as TF32 on CUDA now, in a "conv" or a "matmul"."""
    # torch.export disables cuDNN while it traces, which says nothing of where the graph will run.
    if not (_get_cudnn_enabled() or torch.compiler.is_exporting()):
        kind = "matmul"
    return fp32_precision("cuda", kind) == "tf32"


def _is_cudnn_off() -> bool:
    return not _get_cudnn_enabled()


# Any yes, and a call needs more than its kernels.
QUESTIONS = (
    torch.is_grad_enabled,
    *_WATCHERS,
    are_transforms_active,
    is_forward_mode,
    torch.is_autocast_enabled,  # for CUDA, which is all that matters here
    _is_cudnn_off,
)


# torch.compiler.assume_constant_result, which would import half of torch (1.1 s) to say so.
allows_tf32._dynamo_marked_constant = True  # type: ignore[attr-defined]


# Within it torch's switches may be set after torch.backends.disable_global_flags() too. Not in
# PRIVATE_NAMES: torch's own switches need it.
_settable: Any = getattr(torch.backends, "__allow_nonbracketed_mutation", contextlib.nullcontext)


class _Fp32Scope:
    """While a thread is inside, torch's convolutions on CUDA do not multiply fp32 as TF32.

    Torch's switches are the process's, so other threads' convolutions do not either: they are
    slower for that while, never less accurate. The first to enter switches, the last to leave
    switches back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        with self._lock, _settable():
            if self._inside == 0 and allows_tf32("conv"):
                try:
                    self._switch_off()
                except BaseException:
                    self._switch_back()
                    raise
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock, _settable():
            self._inside -= 1
            if self._inside == 0:
                self._switch_back()

    def _switch_off(self) -> None:
        # From the most general on: a switch that inherits tells its parent's value, and could
        # not be put back. Those that still say TF32 below a parent that does not are set.
        backends: Any = torch.backends
        cudnn = backends.cudnn
        name: str = "fp32_precision"
        on: Any = "tf32"
        off: Any = "ieee"
        switches = [backends, cudnn, cudnn.conv, cudnn.rnn]
        if not hasattr(backends, name):  # the older of torch's two ways
            name, on, off, switches = "allow_tf32", True, False, [cudnn]
        for switch in switches:
            before = getattr(switch, name)
            if switch is backends or before == on:
                setattr(switch, name, off)
                self._before.append((switch, name, before))

    def _switch_back(self) -> None:
        while self._before:
            setattr(*self._before.pop())


fp32_products = _Fp32Scope()


def suggest_memory_format(tensor: torch.Tensor) -> torch.memory_format:
    """Which of torch's memory formats a tensor lies in, by its strides, symbolic ones too."""
    try:  # half a second that only those pay who trace, for whom torch has imported it
        from torch._prims_common import suggest_memory_format as suggest
    except ImportError:
        last = torch.channels_last
        is_last = tensor.is_contiguous(memory_format=last) and not tensor.is_contiguous()
        return last if is_last else torch.contiguous_format
    return suggest(tensor)
