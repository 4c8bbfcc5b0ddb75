"""Before anything imports triton: its interpreter runs the kernels on the CPU."""

import os

import pytest

os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(config, items):
    """GPU tests skip where there is no GPU, and fail where CONVT_REQUIRE_GPU=1 asks for one."""
    import torch

    if torch.cuda.is_available() or os.environ.get("CONVT_REQUIRE_GPU") == "1":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
