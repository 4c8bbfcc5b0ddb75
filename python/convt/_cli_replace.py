"""`convt replace`: what `convt.replace` would make of a model, as a table."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import torch
from torch import nn

from convt._cli_layer import UserError
from convt.replacing import replace
from convt.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODULE:FUNCTION", help="function without arguments; returns the model")
    add("--input", metavar="N,C,...", help="sizes of an input, for the plans of the sizes it meets")
    add("--fuse", action="store_true", help="fold eval-mode BatchNorms into the layers before them")


def report_of(arguments: argparse.Namespace) -> Report:
    """Makes the model, replaces its layers, and says what became of each."""
    model = _model(arguments.model)
    inputs = None
    if arguments.input is not None:
        like = next(model.parameters(), torch.empty(0))
        inputs = (torch.zeros(_sizes(arguments.input), dtype=like.dtype, device=like.device),)
    try:
        return replace(model, fuse=arguments.fuse, inputs=inputs)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the model does not run on --input {arguments.input}: {error}") from error


def _model(path: str) -> nn.Module:
    module_name, _, function_name = path.partition(":")
    if not module_name or not function_name:
        raise UserError(f"expected MODULE:FUNCTION, got {path!r}")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` would
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot find {path}: {error}") from error
    finally:
        sys.path.pop(0)
    model = function() if not isinstance(function, nn.Module) else function
    if not isinstance(model, nn.Module):
        raise UserError(f"expected {path} to return a torch.nn.Module, got {type(model).__name__}")
    return model


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"expected --input to be sizes N,C,..., got {text!r}") from None
