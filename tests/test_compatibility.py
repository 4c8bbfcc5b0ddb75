"""Every row of docs/compatibility.md is as it says, and the file is that of the rows."""

import pytest

from tests.compatibility import suite, table


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: row.id)
def test_row(row):
    try:
        assert table.checked(row) is None
    except suite.Absent as absent:
        pytest.skip(str(absent))


def test_there_are_rows_enough_and_the_document_is_of_them():
    assert len(table.ROWS) >= 300
    assert table.DOCUMENT.read_text() == table.document(), "run python -m tests.compatibility"
