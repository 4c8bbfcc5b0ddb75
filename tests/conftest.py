"""Before anything imports triton: its interpreter runs the kernels on the CPU."""

import os
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import convt

os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(1)  # the tensors are tiny: a second thread only waits


def compiled(name, folder, include):
    """A C file beside this one as a library."""
    library = folder / name
    compiler = sysconfig.get_config_var("CC").split()[0]
    source = (Path(__file__).parent / name.split(".")[0]).with_suffix(".c")
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return library


@pytest.fixture(scope="session")
def fake_cuda(tmp_path_factory):
    """The stand-in libcuda.so.1 of fake_cuda.c, compiled."""
    triton = Path(find_spec("triton").origin).parent
    folder = tmp_path_factory.mktemp("fake")
    return compiled("fake_cuda.so", folder, triton / "backends/nvidia/include")


@pytest.fixture(scope="session")
def fake_dlpack(tmp_path_factory):
    """fake_dlpack.c, compiled."""
    include = Path(torch.__file__).parent / "include"
    return compiled("fake_dlpack.so", tmp_path_factory.mktemp("fake"), include)


@pytest.fixture(scope="session")
def cpp_examples(tmp_path_factory):
    """The folder of the C++ examples, built with the installed package as a user would."""
    build = tmp_path_factory.mktemp("cpp")
    examples = Path(__file__).parent.parent / "examples"
    both = f"{convt.cmake_prefix_path};{torch.utils.cmake_prefix_path}"
    for name, prefix in (("core", convt.cmake_prefix_path), ("cpp", both)):
        for command in (
            ["cmake", "-S", examples / name, "-B", build, "-G", "Ninja", "--fresh",
             "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={prefix}",
             "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--as-needed"],  # as some distributions default to
            ["cmake", "--build", build],
        ):  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return build


def pytest_xdist_auto_num_workers(config):
    """With -n auto: a process for each core; one where a GPU is, whose tests measure times."""
    return 0 if torch.cuda.is_available() else os.cpu_count()


def pytest_collection_modifyitems(config, items):
    """GPU tests skip where there is no GPU, and fail where CONVT_REQUIRE_GPU=1 asks for one."""
    if torch.cuda.is_available() or os.environ.get("CONVT_REQUIRE_GPU") == "1":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
