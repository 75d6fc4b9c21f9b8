"""`as_of`: a time or a stamp of the calendar; everything else is refused before a store sees it."""

from __future__ import annotations

import pytest

from cdc_merge.queries.responses import as_of_from_text


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31T23:59:59Z", "2026-01-31T08:00:00+08:00", "5.0@crm"])
def test_a_time_of_the_calendar_and_a_stamp_are_read(text: str) -> None:
    assert as_of_from_text(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00+14:00",
        "99999999999999999999.0@crm",
        "-99999999999999999999.0@crm",
        "1.99999999999999999999@crm",
        "1.-1@crm",
        f"{'9' * 5000}.1@crm",
        "1e400@crm",
        "yesterday",
    ],
)
def test_what_is_out_of_range_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        as_of_from_text(text)
