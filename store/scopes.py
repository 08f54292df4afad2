"""Resolved scopes, kept between transactions; they outlive no change of a grant.

A scope is kept for its whole principal: whatever a principal consists of, two that differ in it share nothing. It is
used again only at the epoch it was resolved at, which moves with every change of a grant. New label sets do not move
it; they are resolved by themselves, found by the id of the transaction that added them.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from core.records import AccessScope, Principal

MAX_IDS = 500_000  # label set ids kept, of all scopes: some 25 MB
ENTRY_IDS = 20  # what an entry costs beside its ids, counted as ids
CLAIM_IDS = 3  # and what each claim of its principal does


@dataclass(frozen=True, slots=True)
class Resolved:
    """A scope, and which label sets it has decided: those of every transaction below `below`, seen or not by it."""

    scope: AccessScope
    below: int
    newest: int = 0  # id of the transaction that added the newest of them: a database without it was restored


class ScopeCache:
    """The scopes last used in this process, up to a number of label set ids. Safe to share between threads."""

    def __init__(self, max_ids: int = MAX_IDS) -> None:
        self._max_ids = max_ids
        self._lock = threading.Lock()
        self._kept: OrderedDict[Principal, Resolved] = OrderedDict()
        self._ids = 0

    def get(self, principal: Principal) -> Resolved | None:
        """What the principal's scope last came to, if it is kept. It holds at its own epoch alone: compare."""
        with self._lock:
            found = self._kept.get(principal)
            if found is not None:
                self._kept.move_to_end(principal)
            return found

    def put(self, principal: Principal, resolved: Resolved) -> None:
        """Keep it, unless one of a later epoch or snapshot is kept; drop those that were not used for longest."""
        with self._lock:
            if (old := self._kept.get(principal)) is not None:
                if (old.scope.epoch, old.below) > (resolved.scope.epoch, resolved.below):
                    return
                self._ids -= _size(principal, self._kept.pop(principal))
            self._kept[principal] = resolved
            self._ids += _size(principal, resolved)
            while self._ids > self._max_ids:
                self._ids -= _size(*self._kept.popitem(last=False))

    def size(self) -> tuple[int, int]:
        """(scopes, label set ids with what entries cost beside) that are kept."""
        with self._lock:
            return len(self._kept), self._ids


def _size(principal: Principal, resolved: Resolved) -> int:
    return len(resolved.scope.label_set_ids) + ENTRY_IDS + CLAIM_IDS * len(principal.claims)
