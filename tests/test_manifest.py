"""What aot/ builds: complete, deterministic, and what the launcher believes it to be."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aot.compile import parse_archs
from aot.variants import Tile, all_variants
from convt import _C
from tests.planning import parameter_layout, variants

ROOT = Path(__file__).parent.parent
VARIANTS = variants()
SHARED_LIMIT = 99 * 1024  # what a block may use on sm_86, sm_89 and sm_120


def aot(code, **environment):
    """Runs Python with Triton's compiler instead of its interpreter."""
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
    )


def test_the_library_holds_exactly_the_listed_variants():
    assert sorted(VARIANTS) == [variant.name for variant in all_variants()]


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_has_an_image_for_every_architecture(name):
    for kind in ("cubin", "ptx"):
        archs = [image["arch"] for image in VARIANTS[name]["images"] if image["kind"] == kind]
        assert archs == _C.architectures(kind)
    for image in VARIANTS[name]["images"]:
        if image["arch"] in (86, 89, 120):
            assert image["shared_bytes"] <= SHARED_LIMIT


PTX_TYPES = {".u64": "pointer", ".u32": "i32"}


@pytest.mark.skipif(not _C.architectures("ptx"), reason="built without sm_89")
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_parameters_of_the_launcher_are_those_of_the_kernel(name):
    variant = VARIANTS[name]
    ptx = _C.image(name, 89, "ptx").decode()
    (entry,) = re.findall(r"\.entry (\w+)\((.*?)\)", ptx, re.S)
    assert entry[0] == variant["symbol"]
    sizes = [8 if kind == "64" else 4 for kind in re.findall(r"\.param \.\w(\d+)", entry[1])]
    ours = [4 if type_ == "i32" else 8 for _, type_ in variant["parameters"]]
    assert sizes == [*ours, 8, 8]  # and Triton's two scratch pointers


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_parameters_of_the_launcher_are_where_every_cubin_reads_them(name):
    parameters = VARIANTS[name]["parameters"]
    # Pointers first, for only those change from call to call; then two that Triton appends.
    types = [type_ for _, type_ in parameters]
    assert types == sorted(types, key=lambda type_: type_ != "pointer")
    expected, end = [], 0
    for size in [*(4 if type_ == "i32" else 8 for type_ in types), 8, 8]:
        offset = -(-end // size) * size  # a multiple of the size, as the launcher lays them out
        expected.append((offset, size))
        end = offset + size
    for arch in _C.architectures("cubin"):
        assert parameter_layout(_C.image(name, arch, "cubin")) == expected, arch


COMPILE_ONE = """
import sys
from pathlib import Path
from aot import manifest
from aot.compile import compile_all
from aot.variants import all_variants
out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path({folder!r})
variants = [v for v in all_variants() if v.tile.out == 16][:2]
manifest.write(out / 'manifest.json', '3.6.0', [89], compile_all(variants, [89], out, 1))
"""


def test_same_input_same_bytes_and_nothing_recompiled(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        done = aot(COMPILE_ONE.format(folder=str(folder)))
        assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in first.iterdir())
    assert files == sorted(path.name for path in second.iterdir())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    kernels = json.loads((first / "manifest.json").read_text())["kernels"]
    assert all(image["spilled_bytes"] == 0 for kernel in kernels for image in kernel["images"])

    times = {file: (first / file).stat().st_mtime_ns for file in files if file != "manifest.json"}
    assert aot(COMPILE_ONE.format(folder=str(first))).returncode == 0
    assert times == {file: (first / file).stat().st_mtime_ns for file in times}


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (Tile(256, 256, 64, warps=4, stages=2), "spills registers"),
        (Tile(128, 100, 32, warps=4, stages=2), "does not compile"),
        (Tile(128, 128, 128, warps=8, stages=4), "too much shared memory"),
    ],
)
def test_an_unfit_kernel_stops_the_build_with_its_name_and_the_reason(tmp_path, tile, message):
    plain = next(v for v in all_variants() if v.name.startswith("phase_f16_nhwc") and v.aligned)
    bad = replace(plain, tile=tile)
    code = (
        "from pathlib import Path\nfrom aot.compile import *\nfrom aot.variants import *\n"
        f"compile_image({bad!r}, 89, Path({str(tmp_path)!r}))"
    )
    done = aot(code)
    assert done.returncode != 0
    assert f"CompileError: {bad.name} for sm_89 " in done.stderr
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_architectures_are_chosen_by_name_and_checked():
    assert parse_archs("90;89") == [89, 90]
    assert parse_archs("80, 86 120") == [80, 86, 120]
    with pytest.raises(ValueError, match=r"CONVT_CUDA_ARCHS: expected some of 80, .*, got '75'"):
        parse_archs("75")
