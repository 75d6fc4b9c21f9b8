"""The store's directory: the default one is made for its owner alone, any other is never made."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_merge.cli.store_directory import directory_warnings, make_default_directory
from cdc_merge.config.settings import SqliteStoreSettings
from cdc_merge.config.settings_builder import default_store
from cdc_merge.errors import StoreUnavailable


def test_the_default_directory_is_made_in_a_fresh_home_for_its_owner_alone(tmp_path: Path) -> None:
    store = default_store({"HOME": str(tmp_path)})
    assert list(directory_warnings(store)) == []
    make_default_directory(store)
    make_default_directory(store)
    assert store.path.parent == tmp_path / ".local" / "state" / "cdc-merge"
    assert [directory.stat().st_mode & 0o777 for directory in (store.path.parent, tmp_path / ".local")] == [0o700] * 2


def test_a_directory_that_the_file_names_is_never_made_and_its_absence_is_a_warning(tmp_path: Path) -> None:
    store = SqliteStoreSettings(tmp_path / "volume" / "state.db")
    make_default_directory(store)
    assert not store.path.parent.exists()
    (warning,) = directory_warnings(store)
    assert "does not exist here" in warning
    store.path.parent.mkdir()
    assert list(directory_warnings(store)) == []


def test_a_default_directory_that_cannot_be_made_is_refused_with_the_way_on(tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("a file")
    with pytest.raises(StoreUnavailable, match="cannot be made") as refused:
        make_default_directory(default_store({"HOME": str(tmp_path)}))
    assert "sqlite:///" in refused.value.hint
