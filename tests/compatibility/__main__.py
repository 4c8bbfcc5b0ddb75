"""Runs every row and writes docs/compatibility.md, or says which rows are not as declared.

On a GPU (`--device cuda`) nothing is written: the document is of the CPU.
"""

import argparse
import sys
import time

import torch

from tests.compatibility import suite, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility", description=__doc__)
    parser.add_argument("--device", type=torch.device)
    parser.add_argument("--part", default="1/1", help="1/4: the first of four parts of the rows")
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    suite.DEVICE = arguments.device
    # Ours is fp32 where torch's is, and TF32 where torch's is, but for layers that cost no more.
    torch.backends.cudnn.allow_tf32 = False
    rows = table.ROWS[part - 1 :: parts]
    start, wrong = time.perf_counter(), {}
    for row in rows:
        print(f"{time.perf_counter() - start:6.1f} s  {row.id}", end="\r", file=sys.stderr)
        try:
            found = table.checked(row)
        except suite.Absent as absent:
            found = str(absent)
        if found is not None:
            wrong[row.id] = found
    for name, found in wrong.items():
        print(f"{name}\n    {found if len(found) < 600 else f'{found[:300]} ... {found[-300:]}'}")
    print(f"{len(rows)} rows, {len(wrong)} not as declared, {time.perf_counter() - start:.0f} s")
    if not wrong and rows == table.ROWS and arguments.device is None:
        table.DOCUMENT.write_text(table.document())
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
