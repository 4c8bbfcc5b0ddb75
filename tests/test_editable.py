"""`pip install -e .`: Python from the sources, libraries from where the installer puts them."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILT = sorted(
    ROOT.glob(f"build/cp{sys.version_info.major}{sys.version_info.minor}-*/CMakeCache.txt")
)
USE = """
import site, sys
site.addsitedir(sys.argv[1])
import convt, torch
from convt import _C
x, weight = torch.randn(1, 2, 3, 4), torch.randn(2, 3, 2, 2)
y = torch.ops.convt.conv_transpose2d(x, weight, [1, 1, 0, 0, 0, 0, 1, 1, 1], 0)
assert torch.equal(y, torch.nn.functional.conv_transpose2d(x, weight))
print(convt.__file__, _C.__file__, convt.cmake_prefix_path, sep="\\n")
"""


@pytest.mark.skipif(
    not BUILT or not find_spec("scikit_build_core"), reason="no build folder to install from"
)
def test_an_editable_install_imports_and_finds_its_libraries(tmp_path):
    archs = re.search(r"^CONVT_CUDA_ARCHS:STRING=(.*)$", BUILT[0].read_text(), re.MULTILINE)
    outer = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}  # conftest.py's
    environment = {
        **outer,
        "CONVT_CUDA_ARCHS": archs[1].replace(";", ","),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    flags = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--prefix", str(tmp_path)]
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, *flags, "-e", str(ROOT)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (site,) = tmp_path.glob("lib/python*/site-packages")
    done = subprocess.run(
        [sys.executable, "-c", USE, site], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    source, extension, prefix = map(Path, done.stdout.split())
    assert source == ROOT / "python/convt/__init__.py"
    assert extension.parent == prefix == site / "convt"
    assert (prefix / "share/cmake/convt/convtConfig.cmake").exists()
