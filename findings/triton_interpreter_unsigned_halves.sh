#!/usr/bin/env bash
# triton 3.6.0: under TRITON_INTERPRET=1 an integer argument from 2^31 to 2^32 - 1 is calculated with as 32 bits. The JIT compiles it
# as int64, and the interpreter says so of its dtype, but holds it as numpy's uint32: n + n is 1705032704 for n = 3 * 10^9, not
# 6 * 10^9, without a warning. From 2^32 on it is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 triton==3.6.0 'numpy<2.4'
cat > "$folder/run.py" <<'PY'
import torch
import triton
import triton.language as tl
from triton.runtime.jit import mangle_type

print("triton", triton.__version__)
dtypes = []


@triton.jit
def double(out, n):
    dtypes.append(n.dtype)
    tl.store(out, n + n)


for n in (2**31, 3 * 10**9, 2**32 - 1, 2**32, 2**40):
    out = torch.zeros(1, dtype=torch.int64)
    double[(1,)](out, n)
    print(f"n = {n}: compiled as {mangle_type(n)}, interpreted as {dtypes[-1]}; n + n = {out.item()}, exact {2 * n}")
    assert mangle_type(n) == "i64"
    assert str(dtypes[-1]) == "int64"
    assert (out.item() != 2 * n) == (n < 2**32), "the behaviour has changed"
PY
TRITON_INTERPRET=1 "$folder/venv/bin/python" -W ignore "$folder/run.py"
