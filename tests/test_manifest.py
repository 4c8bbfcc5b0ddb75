"""What aot/ builds: complete, deterministic, and what the launcher believes it to be."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aot.compile import parse_archs
from aot.variants import all_variants
from convt import _C
from tests.planning import launcher_layout, parameter_layout, variants

ROOT = Path(__file__).parent.parent
VARIANTS = variants()
ARCHS = {variant.name: variant.archs for variant in all_variants()}
SHARED_LIMIT = 99 * 1024  # what a block may use on sm_86, sm_89 and sm_120


def aot(code, folder=ROOT, **environment):
    """Runs Python with Triton's compiler instead of its interpreter, on the aot/ of a folder."""
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
    )


def test_the_library_holds_exactly_the_listed_variants():
    assert sorted(VARIANTS) == [variant.name for variant in all_variants()]


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_has_an_image_for_every_architecture_that_it_names(name):
    for kind in ("cubin", "ptx"):
        archs = [image["arch"] for image in VARIANTS[name]["images"] if image["kind"] == kind]
        assert archs == [arch for arch in _C.architectures(kind) if arch in ARCHS[name]]
    for image in VARIANTS[name]["images"]:
        if image["arch"] in (86, 89, 120):
            assert image["shared_bytes"] <= SHARED_LIMIT


@pytest.mark.skipif(not _C.architectures("ptx"), reason="built without sm_89")
@pytest.mark.parametrize("name", sorted(name for name in VARIANTS if 89 in ARCHS[name]))
def test_parameters_of_the_launcher_are_those_of_the_kernel(name):
    variant = VARIANTS[name]
    ptx = _C.image(name, 89, "ptx").decode()
    (entry,) = re.findall(r"\.entry (\w+)\((.*?)\)", ptx, re.S)
    assert entry[0] == variant["symbol"]
    sizes = []
    for parameter in entry[1].split(","):
        count = re.search(r"\[(\d+)\]", parameter)
        sizes.append(
            int(re.findall(r"\.[bu](\d+)", parameter)[0]) // 8 * int(count[1] if count else 1)
        )
    assert sizes == [slot.size for slot in launcher_layout(variant)]


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_parameters_of_the_launcher_are_where_every_cubin_reads_them(name):
    expected = launcher_layout(VARIANTS[name])
    for image in VARIANTS[name]["images"]:
        if image["kind"] == "cubin":
            found = parameter_layout(_C.image(name, image["arch"], "cubin"))
            # Descriptors begin on multiples of 64 bytes of memory, which parameters do not.
            start = found[0].offset
            assert start == 0 or found[0].size == 128
            assert [s._replace(offset=s.offset - start) for s in found] == expected, image["arch"]


COMPILE_ONE = """
import sys
from pathlib import Path
from aot import manifest
from aot.compile import compile_all
from aot.variants import all_variants
out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path({folder!r})
some = [v for v in all_variants() if 89 in v.archs]
variants = [v for v in some if v.constants.get('BLOCK_OUT') == 16][:2]
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


KEYS = """
from aot.compile import all_variants, content_hash
for family in ("phase", "pixel_shuffle_shallow"):
    print(content_hash(next(v for v in all_variants() if v.family == family), 90))
"""


def keys(folder, **environment):
    """Of a `phase` and of a `pixel_shuffle_shallow`, made from the aot/ of a folder."""
    done = aot(KEYS, folder, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_key_changes_with_what_its_kernel_can_see_and_with_nothing_else(tmp_path):
    shutil.copytree(ROOT / "aot", tmp_path / "aot")
    phase, shallow = keys(tmp_path)
    assert [phase, shallow] == keys(ROOT)

    helper = tmp_path / "aot/kernels/target.py"  # a builtin, which only `shallow` calls
    text = helper.read_text()
    helper.write_text(f"# A comment above.\n{text}")
    assert keys(tmp_path) == [phase, shallow]
    helper.write_text(text.replace('"sm90"', '"sm89"'))
    after = keys(tmp_path)
    assert after[0] == phase
    assert after[1] != shallow
    helper.write_text(text)

    shared = tmp_path / "aot/kernels/precision.py"
    shared.write_text(f"{shared.read_text()}\nADDED = 1\n")
    after = keys(tmp_path)
    assert after[0] != phase
    assert after[1] != shallow


@pytest.mark.parametrize("name", ["DISABLE_PTXAS_OPT", "TRITON_DEFAULT_FP_FUSION"])
def test_a_key_changes_with_the_environment_that_changes_code(name):
    assert not set(keys(ROOT)) & set(keys(ROOT, **{name: "0" if "DEFAULT" in name else "1"}))


def test_every_build_fuses_multiplications_and_additions(tmp_path):
    for default in ("0", "1"):
        folder = tmp_path / default
        done = aot(COMPILE_ONE.format(folder=str(folder)), TRITON_DEFAULT_FP_FUSION=default)
        assert done.returncode == 0, done.stderr
    images = [{p.read_bytes() for p in (tmp_path / d).glob("*.cubin")} for d in ("0", "1")]
    assert images[0] == images[1]


@pytest.mark.parametrize("last_words", ["raise KeyboardInterrupt", "os.kill(os.getpid(), 9)"])
def test_who_dies_while_writing_leaves_the_old_file(tmp_path, last_words):
    file = tmp_path / "image"
    file.write_text("old")
    done = aot(f"""
import os
from pathlib import Path
from aot.cache import write_atomically
def die(self, target):
    {last_words}
Path.replace = die
write_atomically(Path({str(file)!r}), b"new")
""")
    assert done.returncode != 0
    assert file.read_text() == "old"
    if "raise" in last_words:
        assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("tile", "warps", "stages", "message"),
    [
        ((256, 256, 64), 4, 2, "spills registers"),
        ((128, 100, 32), 4, 2, "does not compile"),
        ((128, 128, 128), 8, 4, "too much shared memory"),
    ],
)
def test_an_unfit_kernel_stops_the_build_with_its_name_and_the_reason(
    tmp_path, tile, warps, stages, message
):
    plain = next(v for v in all_variants() if v.name.startswith("pixel_shuffle_nhwc_f16_64x64"))
    sizes = dict(zip(("BLOCK_PIXELS", "BLOCK_OUT", "BLOCK_IN"), tile, strict=True))
    bad = replace(plain, constants={**plain.constants, **sizes}, warps=warps, stages=stages)
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
