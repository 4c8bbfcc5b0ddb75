"""The command line, `convt` or `python -m convt`: commands make an `Answer`, `main` prints it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from convt import _C, _cli_bench, _cli_doctor, _cli_machine, _cli_replace, _cli_tune
from convt._cli_layer import UserError, add_arguments, layer_of, plan_json, plan_of

OK, PROBLEM, USER_ERROR, ATEN = 0, 1, 2, 3
_EXIT = "exit codes: 0 ok, 1 doctor found a problem, 2 bad arguments, 3 plan: ATen serves it"


class Answer(NamedTuple):
    code: int
    text: str
    json: dict[str, Any]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)  # without the usage that argparse would print


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line (default: this process's) and returns its exit code."""
    try:
        parsed = _parser().parse_args(arguments)
        answer: Answer = parsed.run(parsed)
    except UserError as error:
        print("convt: error:", *str(error).removeprefix("convt: ").split(), file=sys.stderr)
        return USER_ERROR
    print(json.dumps(answer.json, indent=2) if parsed.json else answer.text)
    return answer.code


def _parser() -> argparse.ArgumentParser:
    about = "Transposed convolution on NVIDIA GPUs."
    parser = _Parser(prog="convt", description=about, epilog=_EXIT)
    commands = parser.add_subparsers(required=True, metavar="info|plan|doctor|bench|replace|tune")
    for name, run, about in (
        ("info", _info, "this build and machine: what would be used and why"),
        ("plan", _plan, "which kernel serves a layer and why; needs no GPU"),
        ("doctor", _doctor, "what is wrong with this machine and how to mend it"),
        ("bench", _bench, "time a layer on the GPU, beside cuDNN"),
        ("replace", _replace, "which layers of a model convt.replace takes over, and their plans"),
        ("tune", _tune, "measure a model's layers on the GPU, and use what is fastest"),
    ):
        command = commands.add_parser(name, help=about, description=about, epilog=_EXIT)
        if name in ("plan", "bench"):
            add_arguments(command)
        if name == "replace":
            _cli_replace.add_arguments(command)
        if name == "tune":
            _cli_tune.add_arguments(command)
        if name == "plan":
            command.add_argument("--arch", help="like sm_89 or 'RTX 4090'; default: the first GPU")
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.set_defaults(run=run)
    return parser


def _info(_: argparse.Namespace) -> Answer:
    found = _cli_machine.info()
    return Answer(OK, _cli_machine.info_text(found), found)


def _plan(arguments: argparse.Namespace) -> Answer:
    plan = plan_of(layer_of(arguments), arguments.arch)
    problem = plan.problem
    text = f"{plan}\nfloor: {problem.min_bytes:,} bytes, {problem.flops:,.0f} flops"
    if arguments.arch is None and _C.device_count() == 0:
        text += "\nThis machine has no GPU: name an architecture, like --arch sm_89."
    return Answer(OK if plan.served else ATEN, text, plan_json(plan))


def _doctor(_: argparse.Namespace) -> Answer:
    results = _cli_doctor.checks()
    problems = sum(check.status == "problem" for check in results)
    text = f"{_cli_doctor.text(results)}\n{problems or 'no'} problem{'s' * (problems != 1)}"
    found = {"problems": problems, "checks": [check._asdict() for check in results]}
    return Answer(PROBLEM if problems else OK, text, found)


def _bench(arguments: argparse.Namespace) -> Answer:
    result = _cli_bench.bench(layer_of(arguments))
    return Answer(OK, _cli_bench.text(result), result)


def _replace(arguments: argparse.Namespace) -> Answer:
    report = _cli_replace.report_of(arguments)
    return Answer(OK, str(report), {"layers": report.json()})


def _tune(arguments: argparse.Namespace) -> Answer:
    report = _cli_tune.run(arguments)
    return Answer(OK, str(report), report.json())
