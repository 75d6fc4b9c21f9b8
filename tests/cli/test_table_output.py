"""Tables as plain text: within the width, nothing cut; and colours, which NO_COLOR switches off."""

from __future__ import annotations

import click
import pytest
from rich.cells import cell_len

from cdc_merge.cli import main
from cdc_merge.cli.table_output import plain_lines


def test_columns_beyond_the_width_follow_below_their_row_and_no_word_is_cut() -> None:
    id_ = "x" * 60
    lines = plain_lines(("ID", "KIND", "NOTE"), [(id_, "更新", "词 " * 60), ("c2", "y", "short")], 80)
    assert max(map(cell_len, lines)) <= 80
    assert lines[1] == f"{id_}  更新"
    assert lines[2].startswith("    note: 词 词")
    assert lines[-2:] == [f"c2{' ' * 60}y", "    note: short"]
    assert plain_lines(("A", "B"), [("1", "2")]) == ["A  B", "1  2"]


def test_a_first_column_that_is_too_wide_stays_whole() -> None:
    assert plain_lines(("ID", "KIND"), [("x" * 200, "y")])[1] == "x" * 200


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("", True)])
def test_no_color_switches_colours_off(value: str, *, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool | None] = []

    @click.command()
    @click.pass_context
    def probe(context: click.Context) -> None:
        seen.append(context.find_root().color)

    monkeypatch.setenv("NO_COLOR", value)
    monkeypatch.setattr(main, "imported", lambda name: probe)
    assert main.run(["doctor"]) == 0
    assert (seen == [None]) is coloured
