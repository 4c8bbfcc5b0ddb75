"""Before anything imports triton: its interpreter runs the kernels on the CPU."""

import os
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(1)  # the tensors are tiny: a second thread only waits


@pytest.fixture(scope="session")
def fake_cuda(tmp_path_factory):
    """The stand-in libcuda.so.1 of fake_cuda.c, compiled."""
    library = tmp_path_factory.mktemp("fake") / "libcuda.so.1"
    triton = Path(find_spec("triton").origin).parent
    include = triton / "backends/nvidia/include"
    compiler = sysconfig.get_config_var("CC").split()[0]
    source = Path(__file__).parent / "fake_cuda.c"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return library


def pytest_collection_modifyitems(config, items):
    """GPU tests skip where there is no GPU, and fail where CONVT_REQUIRE_GPU=1 asks for one."""
    if torch.cuda.is_available() or os.environ.get("CONVT_REQUIRE_GPU") == "1":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
