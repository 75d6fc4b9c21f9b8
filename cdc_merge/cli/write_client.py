"""Commands to the API of a running sidecar, with the user's token."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Final

from cdc_merge.cli.read_client import LARGEST_BYTES, TOKEN_VARIABLE, api_address
from cdc_merge.config import Settings
from cdc_merge.errors import CdcMergeError
from cdc_merge.queries.documents import Fields

# A sidecar answers after the batch in progress, which may be large.
COMMAND_LIMIT_S: Final = 90.0

_EXIT_CODES: Final = {401: 77, 403: 77, 404: 1, 409: 1, 422: 2, 503: 69}


class CommandRefused(CdcMergeError):
    """The sidecar refused the command and changed nothing; without an answer in time (exit code 75) the outcome is
    unknown."""

    def __init__(self, sentence: str, *, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(sentence, hint=hint)
        self.exit_code = exit_code


def post_command(settings: Settings, path: str, body: Mapping[str, object]) -> Fields | None:
    """The answer of the sidecar at the configured address; None when no sidecar listens there. CommandRefused."""
    address = api_address(settings)
    if address is None:
        return None
    headers = {"Content-Type": "application/json"}
    token = os.environ.get(TOKEN_VARIABLE)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"http://{address}{path}", data=json.dumps(body).encode(), headers=headers, method="POST"
    )
    # No proxy: the sidecar is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=COMMAND_LIMIT_S) as response:
            document = json.loads(response.read(LARGEST_BYTES))
    except urllib.error.HTTPError as error:
        raise _refusal(error) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return None
        raise CommandRefused(
            "The sidecar cannot be reached.", hint="Check with `cdc-merge source list`.", exit_code=69
        ) from None
    except (OSError, ValueError):
        raise CommandRefused(
            "The sidecar did not answer in time: whether the command took effect is unknown.",
            hint="Check with `cdc-merge source list`; the command can be repeated safely.",
            exit_code=75,
        ) from None
    return document if isinstance(document, dict) else {}


def _refusal(error: urllib.error.HTTPError) -> CommandRefused:
    try:
        problem = json.loads(error.read(LARGEST_BYTES))
    except (OSError, ValueError):
        problem = {}
    details = problem if isinstance(problem, dict) else {}
    sentence = str(details.get("detail") or f"The sidecar answered with HTTP status {error.code}.")
    hint = str(details.get("hint") or "")
    if error.code in (401, 403):
        hint = f"{hint} Put your token into {TOKEN_VARIABLE}.".strip()
    return CommandRefused(sentence, hint=hint, exit_code=_EXIT_CODES.get(error.code, 1))
