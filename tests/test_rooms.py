"""Which room may use which; CONTRIBUTING.md tells why."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Folders of csrc/, with those that each may include besides itself and include/convt/.
INCLUDES = {
    "include": set(),
    "core": set(),
    "families": {"core"},
    "dispatch": {"core", "families"},
    "run": {"core"},
    "torch": {"run"},
    "python": {"core", "dispatch", "run"},
}

# Packages and what no module of theirs may import; but for those that say they are for tests.
FOREIGN = {
    "aot": {"torch", "convt", "tests", "benchmarks", "examples"},
    "python/convt": {"triton", "aot", "tests", "benchmarks", "examples"},
    "benchmarks": {"tests", "examples"},
    "examples": {"tests", "benchmarks"},
}
FOR_TESTS = {"aot/interpret.py", "aot/interpret_gluon.py", "aot/interpret_hopper.py"}


def modules(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("room", INCLUDES)
def test_includes_go_downstream(room):
    for path in (ROOT / "csrc" / room).rglob("*.?pp"):
        included = re.findall(r'#include "(\w+)/', path.read_text())
        assert set(included) <= {"convt", room, *INCLUDES[room]}, name_of(path)


def test_every_folder_of_csrc_is_a_room():
    assert {path.name for path in (ROOT / "csrc").iterdir() if path.is_dir()} == set(INCLUDES)


@pytest.mark.parametrize("package", FOREIGN)
def test_imports_go_downstream(package):
    for path in modules(package):
        if name_of(path) in FOR_TESTS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.split(".")[0] for name in names}
            assert not roots & FOREIGN[package], f"{name_of(path)}:{node.lineno}"


def test_contributing_names_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tops = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
    tops = [path for path in tops if path.name not in ("build", "dist", "csrc", "python", "shared")]
    rooms = [f"csrc/{room}/" for room in INCLUDES] + [f"{path.name}/" for path in tops]
    assert [room for room in rooms if f"`{room}" not in text] == []
