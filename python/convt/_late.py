"""Entries for others' tables of ops and layers, made when the module with the table is imported.

torch, and libraries around it, count, shard and trace by tables in modules that take up to 1.6
seconds to import and that most programs never need. `import convt` must not import them, and their
users must not have to know of convt: so a finder on `sys.meta_path` waits for them.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# The module with the table: the module of convt and its function that makes the entries.
ENTRIES = {
    "fvcore.nn.activation_count": ("convt.counting", "register_activations_with_fvcore"),
    "fvcore.nn.flop_count": ("convt.counting", "register_flops_with_fvcore"),
    "ptflops.pytorch_ops": ("convt.counting", "register_with_ptflops"),
    "thop.profile": ("convt.counting", "register_with_thop"),
    "torch.ao.quantization.fuser_method_mappings": ("convt.quantization", "register"),
    "torch.fx.experimental.proxy_tensor": ("convt.decomposition", "register"),
    "torch.utils.flop_counter": ("convt.counting", "register_flops"),
    "torch._functorch.partitioners": ("convt.counting", "register_as_compute_intensive"),
}


class _Finder(MetaPathFinder):
    """Finds a module as Python would, and has `register` called once it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in ENTRIES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register(name)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Makes the entries for what is imported already, and waits for the rest."""
    for name in ENTRIES:
        if name in sys.modules:
            _register(name)
    sys.meta_path.insert(0, _Finder())


def _register(name: str) -> None:
    try:
        module, function = ENTRIES[name]
        getattr(importlib.import_module(module), function)()
    except Exception as error:  # another version: its import must not fail for convt's sake
        warnings.warn(f"convt: {name} is not told about convt: {error!r}", stacklevel=2)
