"""The key of a kernel image, made from all its code, and files that are written whole."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
from pathlib import Path

import triton
from triton._C.libtriton import get_cache_invalidating_env_vars
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

ROOT = Path(__file__).parent.parent
PACKAGE = __package__


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _imports(tree: ast.Module, module: str) -> set[str]:
    """Modules, and names that may be modules, that a module imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            origin = importlib.util.resolve_name(relative, module.rpartition(".")[0])
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return names


def _parse(file: Path) -> ast.Module:
    """The code of a file, without comments and docstrings: those change no kernel."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            del node.body[0]
    return tree


@functools.cache
def visible_code(module: str) -> dict[str, str]:
    """The code of a module and of every module of this package that it imports, by name.

    Triton's own key follows functions and some globals only, not what a builtin helper does.
    """
    pending, code = {module}, {}
    while pending:
        name = pending.pop()
        file = _file(name)
        if name in code or file is None or name.partition(".")[0] != PACKAGE:
            continue
        tree = _parse(file)
        code[name] = ast.dump(tree)
        pending |= _imports(tree, name)
    return dict(sorted(code.items()))


def key(source: ASTSource, target: GPUTarget, options: dict[str, object]) -> str:
    """A hash of all that an image is made from.

    That is Triton and its assembler, the code a kernel can see, its types, constants and
    attributes, every option, and the environment variables that Triton says change code.
    """
    backend = make_backend(target)
    environment = get_cache_invalidating_env_vars()
    environment.pop("TRITON_DISABLE_LINE_INFO", None)  # every build sets it
    parts = (
        triton.__version__,
        backend.hash(),
        backend.parse_options({**options, **source.parse_options()}).hash(),
        sorted(environment.items()),
        visible_code(source.fn.__module__),
        source.fn.__name__,
        source.signature,
        source.constants,
        source.attrs,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Make `data` the content of `path`. A process that dies meanwhile leaves the old content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
