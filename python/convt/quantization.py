"""convt's layers in the table by which torch.ao.quantization.fuse_modules folds BatchNorms."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from convt.nn import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d


def register() -> None:
    from torch.ao.quantization import fuser_method_mappings

    table = fuser_method_mappings._DEFAULT_OP_LIST_TO_FUSER_METHOD
    table[ConvTranspose1d, nn.BatchNorm1d] = _fused
    table[ConvTranspose2d, nn.BatchNorm2d] = _fused
    table[ConvTranspose3d, nn.BatchNorm3d] = _fused


def _fused(is_qat: bool, layer: nn.Module, norm: nn.Module) -> Any:
    """A copy of the layer with the BatchNorm in it. torch's own refuses groups."""
    if layer.training or norm.training or is_qat:
        # For torch's words on what it does not do.
        from torch.ao.quantization.fuser_method_mappings import fuse_convtranspose_bn

        return fuse_convtranspose_bn(is_qat, layer, norm)  # type: ignore[no-untyped-call]
    from convt.fuse import fold

    fused = copy.deepcopy(layer)
    fold(fused, norm)
    return fused
