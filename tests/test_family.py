"""A family is three files: a toy one is added to a copy of the tree, which is else as it was."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

KERNEL = """
import triton
import triton.language as tl


@triton.jit
def toy(x, weight, partial, y, in_h, x_n, rows, BLOCK: tl.constexpr):
    tl.store(partial + rows, tl.load(x + x_n) * tl.load(weight + in_h))
    tl.store(y + tl.arange(0, BLOCK), 0.0)
"""

DESCRIPTION = """
from aot.variants import Variant


def variants():
    for block in (32, 64):
        yield Variant(
            "toy", "f16", "nchw", f"{block}", warps=1, weight="torch", archs=(89,),
            constants={"BLOCK": block}, traits={"deep": block > 32},
            types={"partial": "*fp32", "x_n": "i64"}, divisors={"x": 16},
        )
"""

RULES = """
#include "families/toy.hpp"

namespace convt::toy {
namespace {

const char* unsupported(const Problem& problem) noexcept { return has_depth(problem); }

double microseconds(const Config& config, const Problem& problem, const Gpu& gpu) {
  return traits(*config.variant).deep ? kNever : kLaunchUs + gpu.floor_us(problem);
}

Program program(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const Arguments arguments(problem, {.partial = {Role::workspace, 0}, .rows = t.block});
  return {.steps = {step(*config.variant, gpu, {.x = 1}, arguments)}, .workspace_bytes = 4};
}

}  // namespace

const Family kFamily{.reason = "a toy",
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::toy
"""

# The generated files of a manifest without images.
GENERATE = """
from pathlib import Path
from aot import embed, manifest
from aot.compile import kernel
from aot.variants import all_variants
kernels = [manifest.entry(v, kernel(v).arg_names, []) for v in all_variants()]
for name, text in embed.headers({"kernels": kernels}).items():
    path = Path("generated") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
Path("generated/registry_data.cpp").write_text(embed.embed({"kernels": kernels}, Path())[0])
"""


@pytest.fixture
def tree(tmp_path):
    for folder in ("aot", "csrc"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "aot/kernels/toy.py").write_text(KERNEL)
    (tmp_path / "aot/families/toy.py").write_text(DESCRIPTION)
    (tmp_path / "csrc/families/toy.cpp").write_text(RULES)
    return tmp_path


def compiled(tree):
    """What the compiler says of the toy's rules, with freshly generated types."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", GENERATE], cwd=tree, env=environment, check=True)
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    includes = ["-Icsrc", "-Icsrc/include", "-Igenerated"]
    command = ["c++", *flags, *includes, "csrc/families/toy.cpp"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True).stderr


def test_three_files_are_a_family(tree):
    assert compiled(tree) == ""
    table = (tree / "generated/registry_data.cpp").read_text()
    assert '{"toy", &toy::kFamily}' in table
    assert table.count('"toy_f16_nchw_') == 2
    assert '{"partial", ParamType::pointer, 0}' in table
    assert '{"x_n", ParamType::i64, 0}' in table
    assert '{"deep", 1}' in table


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("aot/kernels/toy.py", "rows", "lines"),
        ("aot/kernels/toy.py", "in_h, x_n", "in_h, more, x_n"),
        ("aot/kernels/toy.py", "BLOCK", "SIZE"),
        ("csrc/families/toy.cpp", ", .rows = t.block", ""),
    ],
    ids=["a parameter is renamed", "a parameter is added", "a constant is renamed", "left out"],
)
def test_rules_that_do_not_fit_the_kernel_do_not_compile(tree, file, old, new):
    path = tree / file
    path.write_text(path.read_text().replace(old, new))
    if old == "BLOCK":
        description = tree / "aot/families/toy.py"
        description.write_text(description.read_text().replace(old, new))
    assert re.search(r"csrc/families/toy.cpp:\d+:\d+: error: ", compiled(tree))
