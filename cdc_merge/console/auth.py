"""Authentication and authorisation: bearer tokens with a role.

Reading needs no token from the loopback interface, if the Host header names this machine (a page of another site that
resolves its own name to 127.0.0.1 does not). Every other read needs a token, and every change needs one whose role may
change something. Health is open to all: probes carry no tokens, and health reveals nothing. Permission is decided from the head of
a request, before a byte of its body is read: who may do nothing cannot make the sidecar read or parse anything.

Tokens are stored as digests, so neither a dump of the process nor the timing of a comparison reveals them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from cdc_merge.console.problem_documents import ProblemRaised
from cdc_merge.errors import ConfigError

READ_ONLY: Final = "viewer"
OPEN_PATHS: Final = frozenset({"/-/healthy", "/-/ready"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# POST because its plan has a body; who may read may plan, and the route needs a role for anything more.
PLAN_PATH: Final = re.compile(r"/api/v1/records/[^/]+/.*/restore")
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="cdc-merge"'}


class Caller(NamedTuple):
    """The owner of a token, and the roles that the configuration gives to it."""

    name: str
    roles: frozenset[str]


@dataclass(slots=True)
class Access:
    """`callers` maps a token's SHA-256, in hex, to its owner. Every request uses the latest ones."""

    callers: Mapping[str, Caller] = field(default_factory=dict)

    def follow(self, access: Access) -> None:
        """Use the tokens of a reload; a token that is not among them is invalid from the next request on."""
        self.callers = access.callers

    def caller(self, authorization: str | None) -> Caller | None:
        """The owner of an Authorization header's token; None without a header. ProblemRaised (401) for an invalid token."""
        if not authorization:
            return None
        scheme, _, token = authorization.partition(" ")
        caller = self.callers.get(digest(token.strip())) if scheme.lower() == "bearer" else None
        if caller is None:
            hint = "Send Authorization: Bearer TOKEN."
            raise ProblemRaised(401, "The token is invalid.", hint=hint, headers=CHALLENGE)
        return caller

    def permit_change(self, authorization: str | None) -> Caller:
        """The caller of a change; ProblemRaised (403) without a token, or with one that may only read."""
        caller = self.caller(authorization)
        if caller is None:
            raise ProblemRaised(403, "A change needs a token with a role.", hint=self._token_hint())
        if not caller.roles - {READ_ONLY}:
            hint = "Add its owner to a role in access.roles."
            raise ProblemRaised(403, "The owner of this token has no role that changes anything.", hint=hint)
        return caller

    def permit_read(self, client: str | None, headers: Headers) -> None:
        """ProblemRaised (401) unless the request comes from this machine or has a valid token."""
        has_token = self.caller(headers.get("authorization")) is not None
        if not has_token and not (is_loopback(client) and names_this_machine(headers)):
            sentence = "Reading from another machine needs a token."
            raise ProblemRaised(401, sentence, hint=self._token_hint(), headers=CHALLENGE)

    def _token_hint(self) -> str:
        if self.callers:
            return "Send Authorization: Bearer TOKEN, with a token of access.tokens_file."
        return "Set access.tokens_file to a file with one token a line: TOKEN NAME."


def digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def access_from_text(text: str, roles: Mapping[str, Collection[str]]) -> Access:
    """Read a tokens file: one `TOKEN NAME` a line, `#` begins a comment. ConfigError lists bad lines by number only.

    `roles`: role → names of its members. Without configured roles, each name is its own role.
    """
    callers: dict[str, Caller] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        match line.partition("#")[0].split():
            case []:
                continue
            case [token, name]:
                callers[digest(token)] = Caller(name, _roles_of(name, roles))
            case words:
                problems.append(f"line {number}: expected TOKEN NAME, got {len(words)} words")
    if problems:
        hint = "Write one token and its owner's name on each line, separated by a space."
        raise ConfigError("The tokens file is invalid.", hint=hint, problems=tuple(problems))
    return Access(callers)


def _roles_of(name: str, roles: Mapping[str, Collection[str]]) -> frozenset[str]:
    return frozenset(role for role, names in roles.items() if name in names) if roles else frozenset({name})


def is_loopback(client: str | None) -> bool:
    try:
        address = ip_address(client or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def names_this_machine(headers: Headers) -> bool:
    """Whether the Host header is an address or localhost: names that another site cannot resolve to this machine."""
    host = headers.get("host", "").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Middleware that authorises every request by its head, also of unknown paths: a route that forgets it is not open."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._permit(scope)
            except ProblemRaised as problem:
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _permit(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        is_read = scope["method"] in SAFE_METHODS
        if is_read and path in OPEN_PATHS:
            return
        if is_read or (scope["method"] == "POST" and PLAN_PATH.fullmatch(path)):
            client = scope.get("client")
            self._access.permit_read(client[0] if client else None, headers)
        else:
            self._access.permit_change(headers.get("authorization"))
