"""Runs every row and writes docs/compatibility.md, or says which rows are not as declared."""

import sys
import time

from tests.compatibility import table


def main() -> int:
    start, wrong = time.perf_counter(), {}
    for row in table.ROWS:
        print(f"{time.perf_counter() - start:6.1f} s  {row.id}", end="\r", file=sys.stderr)
        found = table.checked(row)
        if found is not None:
            wrong[row.id] = found
    for name, found in wrong.items():
        print(f"{name}\n    {found}"[:600])
    print(
        f"{len(table.ROWS)} rows, {len(wrong)} not as declared, {time.perf_counter() - start:.0f} s"
    )
    if not wrong:
        table.DOCUMENT.write_text(table.document())
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
