"""The stages of one search: each is timed, runs against the search's deadline, and may fail on its own."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from core.errors import DeadlineExceeded, Permanent, Retryable
from core.records import Candidate, Stage

Result = TypeVar("Result")


BESIDE = ("embed", "dense", "lexical", "rerank")


class StageThreads:
    """Threads for each stage that runs beside others: what hangs in one takes none from the rest."""

    def __init__(self, size: int) -> None:
        self._pools = {name: ThreadPoolExecutor(size, f"search-{name}") for name in BESIDE}

    def submit(self, stage: str, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run the call on one of the stage's threads."""
        return self._pools[stage].submit(call, *arguments)

    def shutdown(self, *, wait: bool = True, cancel_futures: bool = False) -> None:
        """End the threads, at once or when their calls are done."""
        for pool in self._pools.values():
            pool.shutdown(wait, cancel_futures=cancel_futures)


log = logging.getLogger("citadel.search")

ORDER = ("authorize", "look", "dense", "lexical", "fuse", "read", "rerank", "assemble")  # of `activity`
LEG_SHARE = 0.5  # of the search's time, for the legs: the rest is for reading, reranking and assembling


@dataclass(frozen=True, slots=True)
class Proposed:
    """What a leg came to, and what is told of how."""

    candidates: list[Candidate]
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leg:
    """A leg under way."""

    name: str
    started: float
    deadline: float  # on time.monotonic's clock
    future: Future[tuple[Proposed, float]]  # with when it ended: the other leg is waited for first


class Stages:
    """Collects `activity` and `degraded` of one search."""

    def __init__(self, deadline_s: float, threads: StageThreads) -> None:
        started = time.monotonic()
        self._deadline, self._legs_until = started + deadline_s, started + LEG_SHARE * deadline_s
        self._threads = threads
        self._activity: dict[str, Stage] = {}
        self._degraded: list[str] = []

    @contextmanager
    def timed(self, name: str) -> Iterator[dict[str, Any]]:
        """Time the body as a stage; what it puts into the dictionary is told with it."""
        detail: dict[str, Any] = {}
        started = time.monotonic()
        yield detail
        self._tell(Stage(name, _ms_since(started), detail))

    def start(self, name: str, leg: Callable[..., Proposed], *arguments: Any) -> Leg:
        """Run a leg beside others; it is given the seconds that it has as its last argument."""
        started = time.monotonic()
        left_s = max(0.001, self._legs_until - started)
        return Leg(name, started, started + left_s, self._threads.submit(name, _ended, leg, *arguments, left_s))

    def finish(self, leg: Leg | Literal[False]) -> list[Candidate]:
        """The leg's candidates; none, and `degraded`, when it is late or broken."""
        if not leg:
            return []
        try:
            found, ended = leg.future.result(timeout=max(0.001, leg.deadline - time.monotonic()))
        except Permanent:  # the request's own fault, or the installation's: no answer is right
            raise
        except Exception as error:  # noqa: BLE001  late or broken: the answer goes on without it, and says so
            leg.future.cancel()  # one that waits for a thread is not worth it any more
            self.degrade(leg.name, leg.started, error)
            return []
        detail = {"candidates": len(found.candidates), **found.detail}
        self._tell(Stage(leg.name, _ms_between(leg.started, ended), detail))
        return found.candidates

    def attempt(self, name: str, call: Callable[[], Result]) -> Result | None:
        """The call's result, made here; None when it fails, which `activity` tells: other stages make up for it."""
        started = time.monotonic()
        try:
            result = call()
        except Permanent:
            raise
        except Exception as error:  # noqa: BLE001  as above
            self._failed(name, started, error)
            return None
        self._tell(Stage(name, _ms_since(started)))
        return result

    def degrade(self, name: str, started: float, error: Exception) -> None:
        """The answer goes on without this stage, and says so."""
        self._degraded.append(name)
        self._failed(name, started, error)

    def _failed(self, name: str, started: float, error: Exception) -> None:
        reason = "internal"
        if isinstance(error, Retryable):
            reason = error.code
        elif isinstance(error, TimeoutError):
            reason = DeadlineExceeded.code
        else:
            log.error("the stage %s broke", name, exc_info=error)
        self._tell(Stage(name, _ms_since(started), {"failed": reason}))

    def _tell(self, stage: Stage) -> None:
        """Of a stage in several parts the sum."""
        if before := self._activity.get(stage.stage):
            ms, detail = round(before.ms + stage.ms, 2), {**before.detail, **stage.detail}
            stage = Stage(stage.stage, ms, detail)
        self._activity[stage.stage] = stage

    def left_s(self) -> float:
        """Seconds until the deadline, never less than a millisecond."""
        return max(0.001, self._deadline - time.monotonic())

    def run(self, name: str, call: Callable[[], Result], box_s: float) -> Result | None:
        """The call's result within `box_s` and the deadline, or None and `degraded`."""
        started = time.monotonic()
        future: Future[Result] = self._threads.submit(name, call)
        try:
            result = future.result(timeout=min(box_s, self.left_s()))
        except Permanent:
            raise
        except Exception as error:  # noqa: BLE001  as above
            future.cancel()
            self.degrade(name, started, error)
            return None
        self._tell(Stage(name, _ms_since(started)))
        return result

    def replay(self, name: str, detail: Mapping[str, Any]) -> None:
        """A stage whose outcome is known: it takes no time."""
        self._tell(Stage(name, 0.0, dict(detail)))

    def degraded(self) -> tuple[str, ...]:
        """Names of the stages that the answer went without."""
        return tuple(dict.fromkeys(self._degraded))

    def activity(self) -> tuple[Stage, ...]:
        """What each stage did, in order."""
        return tuple(sorted(self._activity.values(), key=lambda stage: ORDER.index(stage.stage)))


def _ended(leg: Callable[..., Proposed], *arguments: Any) -> tuple[Proposed, float]:
    return leg(*arguments), time.monotonic()


def _ms_since(started: float) -> float:
    return _ms_between(started, time.monotonic())


def _ms_between(started: float, ended: float) -> float:
    return round((ended - started) * 1000, 2)
