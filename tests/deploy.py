"""One wheel under several versions of torch: `make deploy-test`.

For each version a fresh virtual environment gets torch, the wheel and the tools of the tests, and
runs every test in it: the package's contents and ABI, the C++ examples, AOTInductor. Prints a table
and keeps it as JSON; exits with 1 unless everything passed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
# Columns of the table, by a part of a test's full name; the last that fits.
GROUPS = {"Python": "", "wheel": "test_package", "C++": "test_cpp", "AOTInductor": "test_aoti",
          "AOTInductor in C++": "test_package_runs_in_cpp"}  # fmt: skip


@dataclass
class Result:
    torch: str  # as asked for; as found, once it is installed
    installed: bool = False
    minutes: float = 0
    tests: dict[str, Counter[str]] = field(default_factory=lambda: {g: Counter() for g in GROUPS})

    @property
    def passed(self) -> bool:
        """A group of which no test ran did not pass."""
        return all(count["passed"] and not count["failed"] for count in self.tests.values())


def run(*command: object, **options: object) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True, **options)


def tools() -> list[str]:
    """requirements-dev.txt without torch."""
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    requirements = [line.split("#")[0].strip() for line in lines]
    return [line for line in requirements if line and not line.startswith("torch")]


def install(environment: Path, torch: str, wheel: Path) -> str:
    """torch and the wheel as a user installs them, then the tools; torch's version."""
    python = environment / "bin/python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(sys.executable, "-m", "venv", "--clear", environment)
    run(*pip, "torch" if torch == "newest" else f"torch=={torch}")
    run(*pip, wheel)
    run(*pip, *tools())
    version = [python, "-W", "ignore", "-c", "import torch; print(torch.__version__)"]
    return subprocess.run(version, check=True, capture_output=True, text=True).stdout.strip()


def test(environment: Path) -> dict[str, Counter[str]]:
    """Runs every test in the environment."""
    report = environment / "report.xml"
    path = os.pathsep.join([str(environment / "bin"), os.environ["PATH"]])
    pytest = [environment / "bin/python", "-m", "pytest", "-q", f"--junitxml={report}"]
    pytest += ["-n", "auto", "--dist", "worksteal"]
    with suppress(subprocess.CalledProcessError):  # the report tells
        run(*pytest, env={**os.environ, "PATH": path})
    return outcomes(report)


def outcomes(report: Path) -> dict[str, Counter[str]]:
    """By group, from pytest's JUnit XML."""
    counts = {group: Counter[str]() for group in GROUPS}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        group = [group for group, part in GROUPS.items() if part in name][-1]
        tags = {child.tag for child in case}
        failed = tags & {"failure", "error"}
        counts[group]["failed" if failed else "skipped" if "skipped" in tags else "passed"] += 1
    return counts


def deploy(torch: str, wheel: Path, folder: Path) -> Result:
    begin = time.monotonic()
    result = Result(torch)
    environment = folder / f"torch-{torch}"
    try:
        result.torch = install(environment, torch, wheel)
        result.installed = True
        result.tests = test(environment)
    except (subprocess.CalledProcessError, OSError) as error:
        print(error)
    result.minutes = round((time.monotonic() - begin) / 60, 1)
    return result


def table(results: list[Result], wheel: Path) -> Table:
    shown = Table("torch", "installs", *GROUPS, "minutes", title=wheel.name)
    for result in results:
        cells = [
            f"[red]{count['failed']} failed, {count['passed']} passed"
            if count["failed"] or not count["passed"]
            else f"[green]{count['passed']} passed"
            for count in result.tests.values()
        ]
        installs = "[green]yes" if result.installed else "[red]no"
        shown.add_row(result.torch, installs, *cells, str(result.minutes))
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", nargs="+", required=True, help="versions, or newest")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/deploy")
    options = parser.parse_args()

    wheel, folder = options.wheel.resolve(), options.folder.resolve()
    results = [deploy(torch, wheel, folder) for torch in options.torch]
    passed = all(result.passed for result in results)
    report = {"wheel": wheel.name, "passed": passed, "results": [vars(r) for r in results]}
    (folder / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    Console(width=120).print(table(results, wheel))
    total = sum((count for result in results for count in result.tests.values()), Counter[str]())
    counts = [f"{total[what]} {what}" for what in ("failed", "passed", "skipped") if total[what]]
    seconds = 60 * sum(result.minutes for result in results)
    print(f"{', '.join(counts) or 'no tests ran'} in {seconds:.2f}s")  # as pytest ends
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
