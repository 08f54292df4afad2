"""Hostile files through the sandbox: how each ended, how long it took, and whether its neighbours went on."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from core.errors import Unparseable
from core.records import ParsedDocument
from ingest.sandbox import ParseLimits, ParserSandbox
from tests.hostile.bombs import BOMBS
from tests.hostile.mutate import mutant, sources

GRACE_SECONDS = 2.0  # over the wall clock, in which a file must have ended
LIMITS = ParseLimits(memory_bytes=1024**3, cpu_seconds=10, wall_seconds=15.0)


@dataclass(frozen=True, slots=True)
class Case:
    """A file to be thrown at the parser."""

    group: str
    name: str
    load: Callable[[], tuple[bytes, str]]  # its bytes and its name


@dataclass(frozen=True, slots=True)
class Ending:
    """How a file ended."""

    group: str
    name: str
    outcome: str  # parsed, or a refusal's code; anything else is a defect
    seconds: float
    message: str = ""


def found(folder: Path) -> Iterator[Case]:
    """Everything below a folder."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield Case("found", path.name, partial(_read, path))


def _read(path: Path) -> tuple[bytes, str]:
    return path.read_bytes(), path.name


def made() -> Iterator[Case]:
    """The bombs."""
    for name in BOMBS:
        yield Case("bombs", name, partial(_bomb, name))


def _bomb(name: str) -> tuple[bytes, str]:
    return BOMBS[name](), name


def mutated(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged documents."""
    by_suffix = sources(folder)
    for number in range(count):
        yield Case("mutated", f"{seed}:{number}", partial(_damaged, by_suffix, seed, number))


def _damaged(by_suffix: Mapping[str, Sequence[Path]], seed: int, number: int) -> tuple[bytes, str]:
    damaged = mutant(by_suffix, seed, number)
    return damaged.content, damaged.name


@dataclass(frozen=True, slots=True)
class Thrown:
    """How all cases ended."""

    endings: list[Ending]
    died: int  # of the sandboxes' warm processes
    seconds: float  # without the start of those


def throw(cases: Iterable[Case], processes: int, told: Callable[[Ending], None]) -> Thrown:
    """Each case's ending, parsed by that many sandboxes at once."""
    lock, endings = threading.Lock(), []
    waiting = iter(cases)

    def work(sandbox: ParserSandbox) -> None:
        while True:
            with lock:
                case = next(waiting, None)
            if case is None:
                return
            ending = _end(sandbox, case)
            with lock:
                endings.append(ending)
                told(ending)

    with ExitStack() as stack:
        sandboxes = [stack.enter_context(ParserSandbox(LIMITS)) for _ in range(processes)]
        before = [sandbox.child_pid for sandbox in sandboxes]
        started = time.monotonic()
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(work, sandboxes))
        seconds = time.monotonic() - started
        died = sum(pid != sandbox.child_pid for pid, sandbox in zip(before, sandboxes, strict=True))
    return Thrown(endings, died, seconds)


def _end(sandbox: ParserSandbox, case: Case) -> Ending:
    content, name = case.load()
    started = time.monotonic()
    try:
        document = sandbox.parse(content, name)
        outcome, message = ("parsed", "") if _is_sound(document) else ("unsound", "")
    except Unparseable as refusal:
        outcome, message = refusal.code, str(refusal)
    return Ending(case.group, case.name, outcome, time.monotonic() - started, message)


def _is_sound(document: ParsedDocument) -> bool:
    """Whether elements and flags lie on a text that can be stored."""
    edges = list(chain.from_iterable((element.start, element.end) for element in document.elements))
    document.text.encode()
    within = all(0 <= flag.start < flag.end <= len(document.text) for flag in document.flags)
    return edges == sorted(edges) and "\x00" not in document.text and within


def late(endings: Iterable[Ending]) -> list[Ending]:
    """Those that took longer than their limit and its grace."""
    return [ending for ending in endings if ending.seconds > LIMITS.wall_seconds + GRACE_SECONDS]


def tally(endings: Sequence[Ending]) -> dict[str, Counter[str]]:
    """Outcomes by group."""
    counts: dict[str, Counter[str]] = {}
    for ending in endings:
        counts.setdefault(ending.group, Counter())[ending.outcome] += 1
    return counts


@dataclass(frozen=True, slots=True)
class Throughput:
    """Healthy documents a second, alone and beside poison."""

    alone: float
    beside: float
    poison: int

    @property
    def kept(self) -> float:
        """The share that is left beside poison."""
        return self.beside / self.alone


def throughput(healthy: Sequence[Case], poison: Sequence[Case], processes: int) -> Throughput:
    """Healthy cases alone and with one poison to each hundred of them: alone, beside, beside, alone, for a busy machine
    changes its speed."""
    mixed: list[Case] = []
    for number, case in enumerate(healthy):
        mixed.append(case)
        if number % 100 == 50:
            mixed.append(poison[number // 100 % len(poison)])
    alone, beside = 0.0, 0.0
    for poisoned in (False, True, True, False):
        spent = throw(mixed if poisoned else healthy, processes, lambda ending: None).seconds
        alone, beside = alone + (not poisoned) * spent, beside + poisoned * spent
    return Throughput(2 * len(healthy) / alone, 2 * len(healthy) / beside, len(mixed) - len(healthy))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
