"""One HTTP exchange: who asks, when it is tried again, and what its answer or its failure means."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any, TypeVar

import httpx

from citadel_client.errors import (
    ApiError,
    NotConnected,
    Problem,
    TooManyRequests,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    error_of,
)
from citadel_client.retry import NEVER, RetryPolicy

T = TypeVar("T")

ACT_FOR = "X-Citadel-Act-For"


@dataclass(frozen=True, slots=True)
class Wire:
    """A connection pool, and the user in whose name it asks (None: the key's own)."""

    http: httpx.Client
    retry: RetryPolicy
    act_for: str | None

    def ask(self, method: str, path: str, read: Callable[[Any], T], *, repeatable: bool = True, **request: Any) -> T:
        """What `read` makes of the answer's JSON. Raises CitadelError."""
        response = self.send(method, path, repeatable=repeatable, **request)
        return parsed(f"{method} {path}", read, response.content)

    def send(self, method: str, path: str, *, repeatable: bool = True, **request: Any) -> httpx.Response:
        """The whole answer, of a 2xx status. Raises CitadelError."""
        response = self.open(method, path, repeatable=repeatable, **request)
        with translated(), closing(response):
            response.read()
        return response

    def open(
        self, method: str, path: str, *, repeatable: bool, headers: Mapping[str, str] | None = None, **request: Any
    ) -> httpx.Response:
        """An answer of a 2xx status whose body is still to be read; the caller closes it. Raises CitadelError."""
        policy = self.retry if repeatable else NEVER
        given = {**(headers or {}), **({} if self.act_for is None else {ACT_FOR: self.act_for})}
        named = [(name.encode(), value.encode()) for name, value in given.items()]  # UTF-8; httpx's own is ASCII
        for attempt in count(1):
            try:
                return self._once(self.http.build_request(method, path, headers=named, **request))
            except (TooManyRequests, Unavailable, NotConnected) as error:
                asked = error.retry_after if isinstance(error, ApiError) else None
                wait = policy.wait(attempt, asked, random.random())
                if wait is None:
                    raise
            time.sleep(wait)
        raise AssertionError("unreachable: count() does not end")

    def _once(self, request: httpx.Request) -> httpx.Response:
        with translated():
            response = self.http.send(request, stream=True)
            if response.is_success:
                return response
            with closing(response):
                response.read()
        if response.is_redirect:
            raise UnexpectedAnswer(f"{request.url} redirects to another address: give the client that one")
        raise error_of(problem_of(response))


@contextmanager
def translated() -> Iterator[None]:
    """Transport errors as ours."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NotConnected(f"no connection to the server: {error}") from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise Unreachable(f"no whole answer from the server: {type(error).__name__} {error}".rstrip()) from error


def parsed(what: str, read: Callable[[Any], T], content: bytes) -> T:
    """What `read` makes of this JSON. Raises UnexpectedAnswer, which names what is missing."""
    try:
        return read(json.loads(content))
    except KeyError as error:
        raise UnexpectedAnswer(f"{what}: the answer has no {error}: is this a Citadel of a fitting version?") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(f"{what}: {error}: is this a Citadel of a fitting version?") from error


def problem_of(response: httpx.Response) -> Problem:
    """The problem object of an error answer, or its status line when a proxy answered in another form."""
    body = _problem_body(response)
    title = str(body.get("title") or response.reason_phrase or "the server answered with an error")
    code, detail = body.get("code"), body.get("detail")
    return Problem(
        status=response.status_code,
        title=title,
        detail=None if detail is None else str(detail),
        code=None if code is None else str(code),
        retry_after=retry_after_of(response.headers.get("Retry-After"), datetime.now(UTC)),
        members=body,
    )


def _problem_body(response: httpx.Response) -> dict[str, Any]:
    if "json" not in response.headers.get("Content-Type", ""):
        return {}
    try:
        body = response.json()
    except ValueError:  # an error that is told badly is still that error
        return {}
    return body if isinstance(body, dict) else {}


def retry_after_of(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from either form of Retry-After (RFC 9110, 10.2.3); None when absent or unreadable."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
