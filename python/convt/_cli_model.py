"""A user's model from the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from convt._cli_layer import UserError


def model_of(path: str) -> nn.Module:
    """The model that "package.module:function" or "file.py:function" makes; UserError if none."""
    module_name, _, function_name = path.rpartition(":")
    if not module_name or not function_name:
        raise UserError(f"expected MODULE:FUNCTION, got {path!r}")
    try:
        function = getattr(_module(module_name), function_name)
    except (ImportError, AttributeError, OSError) as error:
        raise UserError(f"cannot find {path}: {error}") from error
    model = function() if not isinstance(function, nn.Module) else function
    if not isinstance(model, nn.Module):
        raise UserError(f"expected {path} to return a torch.nn.Module, got {type(model).__name__}")
    return model


def sizes_of(text: str) -> tuple[int, ...]:
    """The sizes of an --input."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"expected --input to be sizes N,C,..., got {text!r}") from None


def _module(name: str) -> ModuleType:
    path = Path(name)
    # The module finds its own imports as it does under `python -m` and `python file.py`.
    sys.path.insert(0, str(path.parent.absolute() if path.suffix == ".py" else Path.cwd()))
    try:
        if path.suffix != ".py":
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.pop(0)
