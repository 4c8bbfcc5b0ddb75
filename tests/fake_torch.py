"""Eager calls without a GPU: the CPU's tensors, said to be on CUDA device 0."""

import ctypes

import torch

from convt import _eager, _torch, functional

NAME = b"dlpack_exchange_api"


def install(library: str) -> None:
    """Makes eager calls take the CPU's tensors for CUDA's. `library`: fake_dlpack.c, compiled."""
    lie = ctypes.CDLL(library).fake_exchange_api
    pointer, capsule = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
    lie.restype = pointer.restype = ctypes.c_void_p
    lie.argtypes = [ctypes.c_void_p]
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule.restype = ctypes.py_object
    capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    real = pointer(torch.Tensor.__dlpack_c_exchange_api__, NAME)
    torch.Tensor.__dlpack_c_exchange_api__ = capsule(lie(real), NAME, None)
    empty_strided = torch._C._dynamo.guards._empty_strided_cpu
    _eager.use_torch(
        torch, torch.nn.Parameter, empty_strided, _torch.fp32_precision, _torch.QUESTIONS
    )
    functional.is_torchs_alone = lambda input: False  # its tensors stand in for a GPU's
