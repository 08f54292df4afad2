"""The error tree. What a caller may do about a failure is decided by its class.

CitadelError
├── ApiError                  the server answered with an error (RFC 9457 problem+json)
│   ├── Unauthenticated       401  the key is missing, unknown or revoked
│   ├── Forbidden             403  the key lacks the scope that this call needs
│   ├── NotFound              404  absent, or not for this caller: never told apart
│   ├── Conflict              409, 412  the document moved on since it was read, or the name is taken
│   ├── Invalid               any other 4xx: the request breaks a rule; the message says which
│   ├── TooManyRequests       429  slow down; `retry_after` says for how long
│   ├── Unavailable           503  the same call may succeed later; `retry_after` may say when
│   └── ServerError           any other 5xx
├── Unreachable               no whole answer came (time-out, broken connection); what was sent may have been done
│   └── NotConnected          no connection could be made: nothing was sent
├── UnexpectedAnswer          an answer that is not the contract's: is this a Citadel of a fitting version?
├── JobFailed                 a job that was waited for ended `failed`, `quarantined` or `cancelled`
└── WaitTimeout               a job that was waited for did not end in time; it goes on
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from citadel_client.records import Job


class CitadelError(Exception):
    """Every failure of a call; catch this one to catch them all."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What the server said of an error."""

    status: int  # HTTP status
    title: str
    detail: str | None = None
    code: str | None = None  # stable name of the error, e.g. invalid_filter
    retry_after: float | None = None  # seconds
    members: Mapping[str, Any] = field(default_factory=dict)  # the problem object as it came


class ApiError(CitadelError):
    """The server answered with an error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        named = f"{self.problem.status} {self.problem.code or ''}".rstrip()
        return f"{self.problem.detail or self.problem.title} ({named})"

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str | None:
        """The stable name of the error, when the server gave one."""
        return self.problem.code

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait, when it said so."""
        return self.problem.retry_after


class Unauthenticated(ApiError):
    """The key is missing, unknown or revoked."""


class Forbidden(ApiError):
    """The key lacks the scope that this call needs."""


class NotFound(ApiError):
    """Absent, or not for this caller: never told apart."""


class Conflict(ApiError):
    """The document moved on since it was read, or the name is taken."""


class Invalid(ApiError):
    """The request breaks a rule that its author can mend; the message says which."""


class TooManyRequests(ApiError):
    """Slow down."""


class Unavailable(ApiError):
    """The same call may succeed later."""


class ServerError(ApiError):
    """The server failed, and says no more."""


class Unreachable(CitadelError):
    """No whole answer came; what was sent may have been done."""


class NotConnected(Unreachable):
    """No connection could be made: nothing was sent."""


class UnexpectedAnswer(CitadelError):
    """An answer that is not the contract's."""


class JobFailed(CitadelError):
    """A job ended without its document being indexed; `job` says why."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.job = job

    def __str__(self) -> str:
        return f"job {self.job.id} ended {self.job.state}: {self.job.error or 'no reason given'}"


class WaitTimeout(CitadelError, TimeoutError):
    """The job is still under way; `job` is what was seen last."""

    def __init__(self, job: Job, waited_s: float) -> None:
        super().__init__(job, waited_s)
        self.job = job
        self.waited_s = waited_s

    def __str__(self) -> str:
        return f"job {self.job.id} is still {self.job.state} after {self.waited_s:g} s; it goes on, wait for it again"


BY_STATUS: Mapping[int, type[ApiError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    429: TooManyRequests,
    503: Unavailable,
}


def error_of(problem: Problem) -> ApiError:
    """The error whose class the status names."""
    otherwise = Invalid if problem.status < 500 else ServerError
    return BY_STATUS.get(problem.status, otherwise)(problem)
