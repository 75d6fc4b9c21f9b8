"""A reload reads the tokens again: a revoked token is invalid from the moment in which the reload is answered with 200."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load

CONFIG = """\
store: sqlite://{0}/state.db
http: {{listen: "127.0.0.1:0"}}
access: {{tokens_file: tokens, roles: {{admin: [ops, lead]}}}}
sources: {{crm: {{type: postgres, dsn: "host=127.0.0.1 port=9 dbname=none", slot: s}}}}
entities:
  customer:
    from: {{crm: {{table: public.customer, key: no, fields: {{phone: phone}}}}}}
    fields: {{phone: {{merge: mv}}}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "cdc-merge.yaml").write_text(CONFIG.format(tmp_path))
    (tmp_path / "tokens").write_text("s3cret ops\nleaked lead\n")
    return tmp_path


@pytest.fixture
def client(place: Path) -> Iterator[httpx.Client]:
    """A client of a sidecar whose source cannot be reached."""
    sidecar = Sidecar(load(place / "cdc-merge.yaml", {}), environment={})
    try:
        sidecar.start()
        with httpx.Client(base_url=f"http://{sidecar.address}", timeout=40) as client:
            yield client
    finally:
        sidecar.stop()


def post(client: httpx.Client, path: str, token: str) -> httpx.Response:
    return client.post(path, headers={"Authorization": f"Bearer {token}"})


def test_a_revoked_token_is_invalid_and_an_added_one_valid_after_the_reload(place: Path, client: httpx.Client) -> None:
    assert post(client, "/api/v1/sources/crm/resume", "leaked").status_code == 200
    (place / "tokens").write_text("s3cret ops\nfresh lead\n")
    assert post(client, "/-/reload", "s3cret").status_code == 200
    assert post(client, "/api/v1/sources/crm/resume", "leaked").status_code == 401
    assert client.get("/api/v1/rules", headers={"Authorization": "Bearer leaked"}).status_code == 401
    assert post(client, "/api/v1/sources/crm/resume", "fresh").status_code == 200


def test_the_last_token_can_be_revoked(place: Path, client: httpx.Client) -> None:
    (place / "tokens").write_text("")
    assert post(client, "/-/reload", "s3cret").status_code == 200
    assert post(client, "/-/reload", "s3cret").status_code == 401


@pytest.mark.parametrize("content", [b"hunter2", b"\xff\xfe ops", None])
def test_a_tokens_file_that_cannot_be_used_is_refused_and_the_tokens_before_stay(
    place: Path, client: httpx.Client, content: bytes | None
) -> None:
    if content is None:
        (place / "tokens").unlink()
    else:
        (place / "tokens").write_bytes(content)
    refused = post(client, "/-/reload", "s3cret")
    assert refused.status_code == 422
    assert "tokens file" in refused.json()["detail"]
    assert "hunter2" not in refused.text
    assert post(client, "/api/v1/sources/crm/resume", "leaked").status_code == 200


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ("[ops, lead]", "[ops]", "access"),
        ("tokens_file: tokens", "tokens_file: others", "access"),
        ("127.0.0.1:0", "0.0.0.0:0", "http.listen"),
        ("port=9", "port=10", "sources.crm.dsn"),
    ],
)
def test_what_a_reload_cannot_change_is_refused_by_name(
    place: Path, client: httpx.Client, before: str, after: str, path: str
) -> None:
    (place / "others").write_text("s3cret ops\n")
    file = place / "cdc-merge.yaml"
    file.write_text(file.read_text().replace(before, after))
    (place / "tokens").write_text("s3cret ops\n")
    refused = post(client, "/-/reload", "s3cret")
    assert refused.status_code == 422
    assert [path in error["detail"] for error in refused.json()["errors"]] == [True]
    assert post(client, "/api/v1/sources/crm/resume", "leaked").status_code == 200, "nothing of it is in force"
