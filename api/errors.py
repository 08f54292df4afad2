"""Errors as RFC 9457 problem documents: one table from the error tree to a status."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.scim import SCIM_JSON, BadRequest
from core import errors
from core.errors import CitadelError

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 2
MAX_DETAIL = 1000  # characters: it may name a field as the caller did

# The first class that the error is an instance of decides.
STATUS: tuple[tuple[type[CitadelError], int], ...] = (
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.Removed, 410),
    (errors.NotFound, 404),
    (errors.VersionConflict, 412),
    (errors.Conflict, 409),
    (errors.BodyTooLarge, 413),
    (errors.UnsupportedType, 415),
    (errors.Unparseable, 422),
    (errors.Invalid, 400),
    (errors.Overloaded, 429),
    (errors.Retryable, 503),
    (errors.CitadelError, 500),
)

# What SCIM calls a failure that does not say so itself.
SCIM_TYPE_OF = {"conflict": "uniqueness", "invalid_filter": "invalidFilter", "invalid": "invalidValue",
                "invalid_label": "invalidValue"}  # fmt: skip

EXAMPLE = {"type": "urn:citadel:not_found", "title": "Not Found", "status": 404, "code": "not_found",
           "detail": "there is no such document"}  # fmt: skip
RESPONSES: dict[int | str, dict[str, Any]] = {
    kind: {"description": description, "content": {PROBLEM_JSON: {"schema": {"type": "object"}, "example": EXAMPLE}}}
    for kind, description in (("4XX", "A problem that the caller can mend"), ("5XX", "Try again later"))
}


def status_of(error: CitadelError) -> int:
    """The HTTP status of an error."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def told(error: CitadelError) -> str:
    """What a caller may read: what is down or misconfigured behind the API is the operator's, in the log."""
    open_to_all = status_of(error) < 500 or isinstance(error, errors.NotYetIndexed)
    return str(error) if open_to_all else "try again shortly"


def problem(status: int, code: str, detail: str) -> JSONResponse:
    """A problem document. Nothing in it differs between two requests for the same kind of thing."""
    body = {"type": f"urn:citadel:{code}", "title": HTTPStatus(status).phrase, "status": status, "code": code,
            "detail": detail[:MAX_DETAIL]}  # fmt: skip
    return JSONResponse(body, status, _headers(status), PROBLEM_JSON)


def scim_problem(status: int, detail: str, scim_type: str | None = None) -> JSONResponse:
    """The same as SCIM has it (RFC 7644, 3.12)."""
    body = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "status": str(status),
            "detail": detail[:MAX_DETAIL]}  # fmt: skip
    body |= {"scimType": scim_type} if scim_type else {}
    return JSONResponse(body, status, _headers(status), SCIM_JSON)


def _headers(status: int) -> dict[str, str]:
    if status in (429, 503):
        return {"Retry-After": str(RETRY_AFTER_S)}
    return {"WWW-Authenticate": "Bearer"} if status == 401 else {}


def _in_scim(request: Request) -> bool:
    return request.url.path.startswith("/scim/")


def _answer(request: Request, status: int, code: str, detail: str) -> JSONResponse:
    if _in_scim(request):
        return scim_problem(status, detail, SCIM_TYPE_OF.get(code))
    return problem(status, code, detail)


def install(app: FastAPI) -> None:
    """Answer every failure of the app as a problem document."""
    app.add_exception_handler(CitadelError, _citadel)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


def _citadel(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CitadelError)
    if isinstance(error, BadRequest):
        return scim_problem(status_of(error), told(error), error.scim_type)
    return _answer(request, status_of(error), error.code, told(error))


def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    places = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:5]]
    if _in_scim(request) and any(e["loc"][0] == "path" for e in error.errors()):  # an id that is no UUID is nobody's
        return scim_problem(404, "there is no such resource")
    if _in_scim(request):  # SCIM knows no 422
        return scim_problem(400, "; ".join(places), "invalidSyntax")
    return problem(422, "invalid", "; ".join(places))


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    response = _answer(request, error.status_code, code, str(error.detail))
    response.headers.update(error.headers or {})  # such as Allow, of a 405
    return response


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, 500, "internal", "an unforeseen failure; the server's log names it")
