"""Which room may use which, and how many arguments a function may take: see CONTRIBUTING.md."""

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
    "torch": {"core", "run"},
    "python": {"core", "dispatch", "run"},
}

# Packages and what no module of theirs may import; but for those that say they are for tests.
FOREIGN = {
    "aot": {"torch", "convt", "tests", "benchmarks", "examples"},
    "python/convt": {"triton", "aot", "tests", "benchmarks", "examples"},
    "benchmarks": {"tests", "examples"},
    "examples": {"tests", "benchmarks"},
}
ARGUMENTS = 6

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


# Their arguments are torch's, or KernelBench's: (file, function).
PRESCRIBED = {
    ("python/convt/functional.py", "conv_transpose2d"),
    ("python/convt/functional.py", "explain"),
    ("python/convt/functional_nd.py", "conv_transpose1d"),
    ("python/convt/functional.py", "conv_transpose3d"),
    ("python/convt/nn.py", "__init__"),
    ("examples/modelnew_triton.py", "__init__"),
    ("csrc/torch/torch_op.cpp", "aoti"),  # as AOTInductor's generated code calls it
}


def is_kernel(function):
    return any("jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def python_functions():
    """(file, name, number of arguments besides self) of all but kernels."""
    for path in modules("aot", "python", "tests", "benchmarks", "examples"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not is_kernel(node):
                arguments = node.args.posonlyargs + node.args.args
                bound = bool(arguments) and arguments[0].arg in ("self", "cls")
                yield name_of(path), node.name, len(arguments + node.args.kwonlyargs) - bound


def without_nesting(text, opening, closing):
    """A list of C++ parameters without what stands in brackets."""
    inner = re.compile(rf"{opening}[^{opening}{closing}]*{closing}")
    while inner.search(text):
        text = inner.sub("", text)
    return text


def cpp_functions():
    """(file, name, number of parameters) of what is declared or defined, lambdas too."""
    head = re.compile(r"(\b\w+|\])\s*\(([^(){};]*)\)[\w\s:<>&*-]*[{;]")
    for path in sorted((ROOT / "csrc").rglob("*.?pp")):
        text = re.sub(r"//.*|#define(?:.*\\\n)*.*", "", path.read_text())
        for name, parameters in head.findall(text):
            if name.isupper():
                continue  # a macro
            plain = without_nesting(without_nesting(parameters, "<", ">"), r"\[", r"\]")
            yield name_of(path), name, plain.count(",") + 1


@pytest.mark.parametrize("functions", [python_functions, cpp_functions], ids=["python", "c++"])
def test_no_function_takes_more_than_six_arguments(functions):
    found = list(functions())
    assert max(number for *_, number in found) >= ARGUMENTS  # it sees them
    over = {(file, name) for file, name, number in found if number > ARGUMENTS}
    assert over - PRESCRIBED == set()
