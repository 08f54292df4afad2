"""Who calls, and with what: the aliases that every route's signature is made of."""

from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.refusals import refusals_recorded
from api.service import Service
from core.errors import Forbidden, Invalid, InvalidLabel, Unauthenticated
from core.labels import check_label
from core.records import ApiKey, Principal
from store import keys
from store.pool import reading_tenant

NOBODY = "a valid API key is required: Authorization: Bearer <key>"
ACT_FOR = "x-citadel-act-for"

_bearer = HTTPBearer(auto_error=False, description="An API key, made by `citadel keys create`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated request: the key, and the principal whose sight it uses."""

    key: ApiKey
    principal: Principal
    request_id: UUID = field(default_factory=uuid4)

    @property
    def actor(self) -> str:
        """The key as the audit names it."""
        return f"service:{self.key.name}"

    @property
    def acting_for(self) -> str | None:
        """The user it acts for, if any."""
        return self.principal.subject if self.principal.via else None


def get_service(request: Request) -> Service:
    """The app's dependencies."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]


def get_caller(
    request: Request,
    service: ServiceDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    act_for: Annotated[str | None, Header(alias="X-Citadel-Act-For", description="The end user: user:<name>.")] = None,
) -> Caller:
    """The caller. Raises Unauthenticated without a live key, Forbidden for an identity it may not take."""
    if credentials is None or len(request.headers.getlist("authorization")) != 1:
        raise Unauthenticated(NOBODY)
    with reading_tenant(service.store, None) as conn:
        key = keys.find_key(conn, credentials.credentials)
    if key is None:
        raise Unauthenticated(NOBODY)
    with refusals_recorded(service, request, key.tenant_id, f"service:{key.name}"):
        return Caller(key, _principal(key, [_utf8(name) for name in request.headers.getlist(ACT_FOR)]))


def _utf8(header: str) -> str:
    """The header's text. A server hands its bytes over as Latin-1, which would make another user of `user:jürgen`."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError as error:
        raise InvalidLabel("X-Citadel-Act-For is not UTF-8") from error


def _principal(key: ApiKey, act_for: list[str]) -> Principal:
    service = f"service:{key.name}"
    if not act_for:
        if key.require_act_for:
            raise Forbidden("this key must name the end user in X-Citadel-Act-For")
        return Principal(key.tenant_id, service, key.ceiling, key.max_classification, bypass="operate" in key.scopes)
    if "act_for" not in key.scopes:
        raise Forbidden("this key lacks the scope `act_for`")
    if len(act_for) != 1 or not act_for[0].startswith("user:"):
        raise InvalidLabel("X-Citadel-Act-For names one end user, such as user:ana@acme.example")
    return Principal(key.tenant_id, check_label(act_for[0]), key.ceiling, key.max_classification, via=service)


@dataclass(frozen=True, slots=True)
class _Needs:
    """A dependency that lets a caller pass whose key has one of these scopes."""

    scopes: frozenset[str]
    itself: bool = False  # for writes: made by the key, not in a user's name

    def __call__(self, request: Request, service: ServiceDep, caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
        with refusals_recorded(service, request, caller.principal.tenant_id, caller.actor, caller.acting_for):
            self._check(caller)
        return caller

    def _check(self, caller: Caller) -> None:
        if not self.scopes & caller.key.scopes:
            raise Forbidden(f"this key lacks the scope {' or '.join(sorted(self.scopes))}")
        if self.itself and caller.acting_for:
            raise Forbidden("this call is made by the key itself: leave out X-Citadel-Act-For")


Reader = Annotated[Caller, Depends(_Needs(frozenset({"search"})))]
Writer = Annotated[Caller, Depends(_Needs(frozenset({"ingest"}), itself=True))]
Watcher = Annotated[Caller, Depends(_Needs(frozenset({"ingest", "operate"}), itself=True))]
Operator = Annotated[Caller, Depends(_Needs(frozenset({"operate"}), itself=True))]


def get_expected_version(
    if_match: Annotated[str | None, Header(description='The version last seen: "3".')] = None,
) -> int | None:
    """The version in If-Match. Raises Invalid unless it is one quoted number."""
    if if_match is None or if_match == "*":
        return None
    digits = if_match.removeprefix("W/").strip('"')
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
        raise Invalid('If-Match takes a version such as "3"')
    return int(digits)


ExpectedVersion = Annotated[int | None, Depends(get_expected_version)]
