"""What is installed: these files alone, libraries that need nothing but torch, C++ that builds."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import convt

PACKAGE = Path(convt.__file__).parent
EXTENSIONS = [next(PACKAGE.glob(f"{name}.*.so")).name for name in ("_C", "_eager")]
LIBRARIES = ["lib/libconvt_core.so", "lib/libconvt_torch.so", *EXTENSIONS]
OLDEST_LINUX = "manylinux_2_28"  # torch's own

EXPECTED = {
    "_C.pyi",
    "__init__.py",
    "__main__.py",
    "_cli_bench.py",
    "_cli_doctor.py",
    "_cli_layer.py",
    "_cli_machine.py",
    "_cli_model.py",
    "_cli_replace.py",
    "_cli_tune.py",
    "_eager.pyi",
    "_late.py",
    "_torch.py",
    "aoti.py",
    "cli.py",
    "counting.py",
    "decomposition.py",
    "distributed.py",
    "freezing.py",
    "functional.py",
    "functional_nd.py",
    "fuse.py",
    "geometry.py",
    "include/convt/axis.hpp",
    "include/convt/config.hpp",
    "include/convt/export.hpp",
    "include/convt/gpu.hpp",
    "include/convt/launch.hpp",
    "include/convt/plan.hpp",
    "include/convt/problem.hpp",
    "include/convt/records.hpp",
    "include/convt/registry.hpp",
    "include/convt/require_torch_op.hpp",
    "include/convt/step.hpp",
    "include/convt/torch.hpp",
    "lib/libconvt_core.so",
    "lib/libconvt_torch.so",
    "nn.py",
    "onnx.py",
    "ops.py",
    "py.typed",
    "quantization.py",
    "records.py",
    "replacing.py",
    "report.py",
    "share/cmake/convt/convtConfig.cmake",
    "share/cmake/convt/convtConfigVersion.cmake",
    "share/cmake/convt/convtTargets-release.cmake",
    "share/cmake/convt/convtTargets.cmake",
    "tables.py",
    "tuning/__init__.py",
    "tuning/bench.py",
    "tuning/capture.py",
    "tuning/clock.py",
    "tuning/search.py",
}


def test_the_wheel_holds_exactly_these_files():
    files = [Path(str(file)) for file in metadata.files("convt") or []]
    inside = {str(file.relative_to("convt")) for file in files if file.parts[0] == "convt"}
    compiled = {name for name in inside if "__pycache__" in name}
    assert inside - compiled == EXPECTED | set(EXTENSIONS)


def dynamic(library, *keys):
    text = subprocess.run(
        ["readelf", "-d", "-W", PACKAGE / library], check=True, capture_output=True, text=True
    ).stdout
    return [m[2] for m in re.finditer(r"\((\w+)\).*\[(.*)\]", text) if m[1] in keys]


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_load_where_torch_does(library):
    # Here, as GPU machines run only the GPU suite and need not have it.
    from auditwheel.architecture import Architecture
    from auditwheel.elfutils import elf_find_versioned_symbols
    from auditwheel.libc import Libc
    from auditwheel.policy import WheelPolicies
    from elftools.elf.elffile import ELFFile

    versions: dict[str, set[str]] = {}
    with (PACKAGE / library).open("rb") as file:
        for name, version in elf_find_versioned_symbols(ELFFile(file)):
            versions.setdefault(name, set()).add(version)
    policies = WheelPolicies(libc=Libc.GLIBC, arch=Architecture.detect())
    oldest = policies.get_policy_by_name(f"{OLDEST_LINUX}_{policies.architecture.value}")
    found = policies.versioned_symbols_policy(versions)
    assert found.priority >= oldest.priority, f"only for {found.name}: {versions}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_need_no_cuda_and_look_for_neighbours_only(library):
    system = {"libstdc++.so.6", "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"}
    system |= {"libm.so.6", "libdl.so.2"}
    ours = {"libconvt_core.so", "libtorch_cpu.so"}
    assert set(dynamic(library, "NEEDED")) <= system | ours
    # Not inside: a second one's symbols crash other libraries of the process.
    assert "libstdc++.so.6" in dynamic(library, "NEEDED")
    assert set(dynamic(library, "RPATH", "RUNPATH")) <= {"$ORIGIN", "$ORIGIN/lib"}


def test_an_old_torch_is_named():
    code = "import torch; torch.__version__ = '2.9.1+cpu'; import convt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    error = "ImportError: convt: expected torch >= 2.10, got 2.9.1+cpu (pip install --upgrade "
    assert error in done.stderr


def test_the_op_library_uses_the_stable_abi_only():
    text = subprocess.run(
        ["nm", "-D", "--undefined-only", PACKAGE / "lib/libconvt_torch.so"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    kinds = [line.split()[-2:] for line in text.splitlines()]
    names = [name.split("@")[0] for _, name in kinds]
    # Weak ones ("w") may be missing: the library asks before it calls.
    torchs = [name for kind, name in kinds if kind == "U" and re.match(r"(aoti_)?torch_", name)]
    include = Path(torch.__file__).parent / "include/torch/csrc"
    headers = [*include.glob("stable/c/*.h"), *include.glob("inductor/aoti_torch/c/*.h")]
    declared = set(re.findall(r"\b(?:aoti_)?torch_\w+", " ".join(h.read_text() for h in headers)))
    assert torchs
    assert set(torchs) <= declared
    mangled = [name for name in names if re.search(r"2at|3c10|5torch", name)]
    assert not mangled, "C++ symbols of torch are not stable"


def run(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_cpp_decoder_agrees_with_aten(cpp_examples):
    assert "all right" in run(cpp_examples / "decoder")


def test_cpp_core_plans_and_runs_without_torch(cpp_examples):
    output = run(cpp_examples / "core_only")
    assert "conv_transpose2d f32 (fp32 products) nchw [2, 32, 9, 12]" in output
    end = ": right" if torch.cuda.is_available() else "no CUDA device: planned only"
    assert output.strip().endswith(end)
    assert not [name for name in dynamic(cpp_examples / "core_only", "NEEDED") if "torch" in name]


def test_linking_convt_torch_keeps_the_registration(cpp_examples):
    program = cpp_examples / "aoti"  # refers to nothing in convt
    assert "libconvt_torch.so" in dynamic(program, "NEEDED")
