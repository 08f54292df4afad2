"""Who calls, and with what: the aliases that every route's signature is made of."""

from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.refusals import refusals_recorded
from api.service import Service
from api.tokens import is_token, verify
from core.errors import Forbidden, Invalid, InvalidLabel, Unauthenticated
from core.identity import ApiKey
from core.labels import check_label, name_label
from core.records import Principal
from store import access, keys
from store.audit import Actor
from store.pool import reading_alone, reading_tenant

ACT_FOR = "x-citadel-act-for"

_bearer = HTTPBearer(auto_error=False, description="An API key, made by `citadel keys create`, or an OIDC token.")


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated request: what it may do, and the principal whose sight it uses."""

    actor: str  # as the audit names it: service:<key>, or idp:<provider> of the token
    scopes: frozenset[str]
    principal: Principal
    request_id: UUID = field(default_factory=uuid4)

    @property
    def acting_for(self) -> str | None:
        """The user behind the actor, if any: named by a key, or by the token."""
        return self.principal.subject if self.principal.via else None

    @property
    def told(self) -> Actor:
        """Whom the audit's row of this request names."""
        return Actor(self.actor, self.acting_for, self.request_id)

    @property
    def delegated(self) -> bool:
        """Whether a key asks in a user's name; a token's user asks in its own."""
        return self.acting_for is not None and self.actor.startswith("service:")

    @property
    def limited(self) -> bool:
        """Whether work on documents is hidden from it that its scope hides: it neither writes nor reaches them all.

        Writing is not limited by a ceiling, so a key with one cannot write.
        """
        who = self.principal
        reaches_all = who.bypass and who.ceiling is None and who.max_classification is None
        return "ingest" not in self.scopes and not reaches_all


async def get_service(request: Request) -> Service:
    """The app's dependencies. Waits for nothing, and so takes no thread."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]


CredentialsDep = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
ActForDep = Annotated[str | None, Header(alias="X-Citadel-Act-For", description="The end user, in UTF-8: user:<name>.")]


def get_caller(request: Request, service: Service, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    """The caller. Raises Unauthenticated without a live key or token, Forbidden for an identity it may not take."""
    if credentials is None or len(request.headers.getlist("authorization")) != 1:
        raise Unauthenticated
    named = request.headers.getlist(ACT_FOR)
    if is_token(credentials.credentials):
        return _token_caller(service, request, credentials.credentials, named)
    return _key_caller(service, request, credentials.credentials, named)


def _key_caller(service: Service, request: Request, secret: str, act_for: list[str]) -> Caller:
    with reading_alone(service.store) as conn:
        key = keys.find_key(conn, secret)
    if key is None:
        raise Unauthenticated
    if not key.noted and service.uses.due(key.id):
        keys.note_use(service.store, key)
    actor = name_label("service:", key.name)
    with refusals_recorded(service, request, key.tenant_id, actor):
        return Caller(actor, key.scopes, _principal(key, act_for))


def _token_caller(service: Service, request: Request, token: str, act_for: list[str]) -> Caller:
    bearer = verify(service.store, service.jwks, token)
    caller = Caller(f"idp:{bearer.provider.name}", frozenset(bearer.provider.scopes), bearer.principal)
    tenant_id = bearer.principal.tenant_id
    with refusals_recorded(service, request, tenant_id, caller.actor, caller.acting_for):
        with reading_tenant(service.store, tenant_id) as conn:
            access.check_open(conn, bearer.principal)
        if act_for:
            raise Forbidden("a token speaks for its own user: leave out X-Citadel-Act-For")
    return caller


def _principal(key: ApiKey, act_for: list[str]) -> Principal:
    service = name_label("service:", key.name)
    if not act_for:
        if key.require_act_for:
            raise Forbidden("this key must name the end user in X-Citadel-Act-For")
        return Principal(key.tenant_id, service, key.ceiling, key.max_classification, bypass="operate" in key.scopes)
    if "act_for" not in key.scopes:
        raise Forbidden("this key lacks the scope `act_for`")
    if len(act_for) != 1:
        raise InvalidLabel("X-Citadel-Act-For names one end user, such as user:ana@acme.example")
    return Principal(key.tenant_id, _end_user(act_for[0]), key.ceiling, key.max_classification, via=service)


def _end_user(header: str) -> str:
    """The user that the header names. Its bytes are UTF-8, which the framework has read as Latin-1.

    Raises InvalidLabel.
    """
    try:
        user = header.encode("latin-1").decode()
    except UnicodeError as error:
        raise InvalidLabel("X-Citadel-Act-For is not UTF-8") from error
    if not user.startswith("user:"):
        raise InvalidLabel("X-Citadel-Act-For names one end user, such as user:ana@acme.example")
    return check_label(user)


@dataclass(frozen=True, slots=True)
class _Needs:
    """A dependency that lets a caller pass who has one of these scopes. One call, for each takes a thread."""

    scopes: frozenset[str]
    itself: bool = False  # for writes: made by the caller, not in a user's name
    whole: bool = False  # for what writes to all documents, which a ceiling does not limit

    def __call__(
        self, request: Request, service: ServiceDep, credentials: CredentialsDep, act_for: ActForDep = None
    ) -> Caller:
        caller = get_caller(request, service, credentials)
        with refusals_recorded(service, request, caller.principal.tenant_id, caller.actor, caller.acting_for):
            self._check(caller)
        return caller

    def _check(self, caller: Caller) -> None:
        if not self.scopes & caller.scopes:
            raise Forbidden(f"this key or token lacks the scope {' or '.join(sorted(self.scopes))}")
        if self.itself and caller.delegated:
            raise Forbidden("this call is made by the key itself: leave out X-Citadel-Act-For")
        if self.whole and caller.limited:
            raise Forbidden("a key or token that does not reach every document neither adds nor refreshes sources")


Reader = Annotated[Caller, Depends(_Needs(frozenset({"search"})))]
Writer = Annotated[Caller, Depends(_Needs(frozenset({"ingest"}), itself=True))]
Watcher = Annotated[Caller, Depends(_Needs(frozenset({"ingest", "operate"}), itself=True))]
Operator = Annotated[Caller, Depends(_Needs(frozenset({"operate"}), itself=True))]
FullOperator = Annotated[Caller, Depends(_Needs(frozenset({"operate"}), itself=True, whole=True))]
Provisioner = Annotated[Caller, Depends(_Needs(frozenset({"provision"}), itself=True))]


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
