"""Before anything imports triton: its interpreter runs the kernels on the CPU."""

import os

import pytest
import torch

os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(1)  # the tensors are tiny: a second thread only waits


def pytest_collection_modifyitems(config, items):
    """GPU tests skip where there is no GPU, and fail where CONVT_REQUIRE_GPU=1 asks for one."""
    if torch.cuda.is_available() or os.environ.get("CONVT_REQUIRE_GPU") == "1":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
