"""`convt replace`: what `convt.replace` would make of a model, as a table."""

from __future__ import annotations

import argparse

import torch

from convt._cli_layer import UserError
from convt._cli_model import model_of, sizes_of
from convt.replacing import replace
from convt.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "model",
        metavar="MODULE:FUNCTION",
        help="or FILE.py:FUNCTION; it returns the model",
    )
    add("--input", metavar="N,C,...", help="sizes of an input, for the plans of the sizes it meets")
    add("--fuse", action="store_true", help="fold eval-mode BatchNorms into the layers before them")


def report_of(arguments: argparse.Namespace) -> Report:
    """Makes the model, replaces its layers, and says what became of each."""
    model = model_of(arguments.model)
    inputs = None
    if arguments.input is not None:
        like = next(model.parameters(), torch.empty(0))
        inputs = (torch.zeros(sizes_of(arguments.input), dtype=like.dtype, device=like.device),)
    try:
        return replace(model, fuse=arguments.fuse, inputs=inputs)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the model does not run on --input {arguments.input}: {error}") from error
