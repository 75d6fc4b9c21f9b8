"""Authentication and authorisation: bearer tokens with a role.

As soon as any `access:` is configured every read needs a token. Until then the loopback interface reads without one, if the
Host header names the loopback (a page of another site that resolves its own name to 127.0.0.1 does not) and no header
shows that the request was forwarded: behind a proxy on this machine every client comes from the loopback. Every change
needs a token whose role may change something. Health is open to all, since probes carry no tokens and health reveals
nothing; `/metrics` is with `http.metrics: open`. Permission is decided from the head of
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
# Headers that proxies add, and any that begins with `x-forwarded`.
FORWARDING: Final = frozenset(
    {"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip"}
)
# RFC 9110 §7.2 without user information: a name or an address in brackets, and a port.
HOST: Final = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[0-9a-z.-]+))(?::[0-9]{1,5})?", re.ASCII)
# POST because its plan has a body; who may read may plan, and the route needs a role for anything more.
PLAN_PATH: Final = re.compile(r"/api/v1/records/[^/]+/.*/restore")
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="cdc-merge"'}


class Caller(NamedTuple):
    """The owner of a token, and the roles that the configuration gives to it."""

    name: str
    roles: frozenset[str]


@dataclass(slots=True)
class Access:
    """`callers` maps a token's SHA-256, in hex, to its owner; every request uses the latest ones. `is_configured`: whether
    the configuration has any `access:`, also one without a token. `open_metrics`: `/metrics` needs no token."""

    callers: Mapping[str, Caller] = field(default_factory=dict)
    is_configured: bool = False
    open_metrics: bool = False

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
        """ProblemRaised (401) without a valid token, unless no access is configured and the request is local."""
        if self.is_configured:
            if self.caller(headers.get("authorization")) is None:
                raise ProblemRaised(401, "Reading needs a token.", hint=self._token_hint(), headers=CHALLENGE)
        elif not is_local(client, headers):
            sentence = "Reading from another machine needs a token."
            raise ProblemRaised(401, sentence, hint=self._token_hint(), headers=CHALLENGE)

    def is_open(self, path: str) -> bool:
        return path in OPEN_PATHS or (self.open_metrics and path == "/metrics")

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
    return Access(callers, is_configured=True)


def _roles_of(name: str, roles: Mapping[str, Collection[str]]) -> frozenset[str]:
    return frozenset(role for role, names in roles.items() if name in names) if roles else frozenset({name})


def is_local(client: str | None, headers: Headers) -> bool:
    """Whether a program on this machine sent the request itself, to a name that only this machine answers to."""
    return is_loopback(client) and names_loopback(headers.get("host", "")) and not is_forwarded(headers)


def is_loopback(client: str | None) -> bool:
    try:
        address = ip_address(client or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def names_loopback(host: str) -> bool:
    """Whether a Host header is a loopback address or localhost: names that another site cannot resolve to this machine."""
    match = HOST.fullmatch(host.lower())
    if match is None:
        return False
    address, name = match["address"], match["name"] or ""
    if address is not None:
        return ":" in address and is_loopback(address)
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def is_forwarded(headers: Headers) -> bool:
    return any(name in FORWARDING or name.startswith("x-forwarded") for name in headers)


def is_from_another_site(headers: Headers) -> bool:
    """Whether a browser sends the request for a page of another origin. Programs send no Origin."""
    origin = headers.get("origin")
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()


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
        if is_read and self._access.is_open(path):
            return
        if not is_read and is_from_another_site(headers):
            raise ProblemRaised(403, "A page of another site sent this request.", hint="Send it from our own pages.")
        if is_read or (scope["method"] == "POST" and PLAN_PATH.fullmatch(path)):
            client = scope.get("client")
            self._access.permit_read(client[0] if client else None, headers)
        else:
            self._access.permit_change(headers.get("authorization"))
