"""Answers given again: the ranking of an equal search is kept in Redis, for whoever asked, as long as it holds.

Kept are ids, scores and what the stages told, never a text: passages and citations are read again by the search that
recalls, in its own snapshot, under its own row-level security. The key is all that a ranking follows from beside the
index; that the index is still the same for this caller is asked of Postgres each time (`store/standing.py`). What lies
in Redis is sealed under the tenant's key for the very question: who can write there can plant nothing and learn
nothing, and an old value put back holds only if it still holds. When Redis is slow or away, nothing is recalled.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from secrets import token_bytes
from typing import Any, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import core.records
import models
import store
from core.errors import Retryable
from core.records import AccessScope, FusedCandidate, Fusion, Principal, Profile, SearchRequest
from core.trained import TrainedReranker
from retrieval.breaker import Breaker
from retrieval.stages import Stages
from store import audit
from store.following import Position
from store.pool import Conn
from store.standing import Standing, standing, stands

SLOW_S = 0.1  # for Redis to give or take a value: as long as ten searches
RETOLD = ("look", "dense", "lexical", "fuse", "rerank")  # stages that a recalled answer does not go through
NONCE = 12  # bytes, of AES-GCM: NIST SP 800-38D


class Places(Protocol):
    """Where sealed values are kept: `store.answers.RedisPlaces`, or a fake. Its calls raise BrokerUnavailable."""

    @property
    def places(self) -> int: ...
    def get(self, tenant_id: UUID, place: int) -> bytes | None: ...
    def put(self, tenant_id: UUID, place: int, value: bytes) -> None: ...
    def clear(self, tenant_id: UUID) -> int: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What a ranking follows from, beside the index and the code: who asks with what sight, of which index, what."""

    principal: Principal
    scope: AccessScope
    profile: Profile
    fusion: Fusion
    request: SearchRequest
    reranker: TrainedReranker | None  # the tenant's own

    def told(self, engine: str) -> str:
        """The same in one string; two that differ in anything differ in it."""
        ids = hashlib.sha256(",".join(map(str, sorted(self.scope.label_set_ids))).encode()).hexdigest()
        # which change is waited for decides nothing of what is found then
        request = replace(self.request, at_least=None, fusion=None)
        ways = (self.profile, self.fusion, self.reranker)
        return repr((engine, self.principal, ids, self.scope.epoch, *ways, request))

    @property
    def keepable(self) -> bool:
        """Whether an equal search may get the same answer: not one that explains what it did, or that goes by time."""
        return not self.request.explain and self.request.recency is None


@dataclass(slots=True)
class Memory:
    """Of one search: the ranking that was kept of an equal one, or else where this one's goes."""

    ranked: list[FusedCandidate] | None = None  # None: to be found out
    retold: tuple[tuple[str, dict[str, Any]], ...] = ()
    answers: "KeptAnswers | None" = None
    tenant_id: UUID | None = None
    key: bytes = b""
    at: Standing | None = None

    def replay(self, stages: Stages) -> list[FusedCandidate]:
        """The kept ranking, and its stages told again."""
        assert self.ranked is not None
        for name, detail in self.retold:
            stages.replay(name, detail)
        return self.ranked

    def keep(self, stages: Stages, used: Sequence[FusedCandidate]) -> None:
        """Keep the part of the ranking that made the answer, unless a stage failed."""
        failed = stages.degraded() or any("failed" in stage.detail for stage in stages.activity())
        if self.answers is None or self.at is None or self.ranked is not None or failed:
            return
        told = [(stage.stage, dict(stage.detail)) for stage in stages.activity() if stage.stage in RETOLD]
        assert self.tenant_id is not None
        self.answers.put(self.tenant_id, self.key, _written(used, told, self.at))


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """What a process needs to keep answers. Safe to share between threads."""

    places: Places
    engine: str  # the settings that rankings follow from, and the code's digest
    breaker: Breaker = field(default_factory=lambda: Breaker("the answer cache", slow_s=SLOW_S))
    keys: dict[UUID, bytes] = field(default_factory=dict)  # the tenants' hash keys, which never change

    def recall(self, conn: Conn, asked: Asked) -> Memory:
        """What is kept of an equal search, if it holds in this transaction, whose scope is set."""
        if not asked.keepable:
            return Memory()
        tenant_id, profile_id = asked.scope.tenant_id, asked.profile.id
        if tenant_id not in self.keys:
            self.keys[tenant_id] = audit.hash_key(conn, tenant_id)
        key = audit.keyed_hash(self.keys[tenant_id], "answer", asked.told(self.engine))
        value = self._get(tenant_id, key)
        if value is not None:
            ranked, told, at = _read(value)
            if stands(conn, tenant_id, profile_id, at):
                return Memory(ranked, told)
        return Memory(None, (), self, tenant_id, key, standing(conn, tenant_id, profile_id))

    def put(self, tenant_id: UUID, key: bytes, value: bytes) -> None:
        """Keep a value under the key, in place of whatever stands there."""
        nonce = token_bytes(NONCE)
        sealed = nonce + self._cipher(tenant_id).encrypt(nonce, value, key)
        try:
            with self.breaker.guarding():
                self.places.put(tenant_id, self._place(key), sealed)
        except Retryable:  # it is found out again next time
            return

    def clear(self, tenant_id: UUID) -> None:
        """Let go of all that is kept for a tenant; what Redis does not let go of now, it does in its time."""
        try:
            with self.breaker.guarding():
                self.places.clear(tenant_id)
        except Retryable:
            return

    def _get(self, tenant_id: UUID, key: bytes) -> bytes | None:
        try:
            with self.breaker.guarding():
                sealed = self.places.get(tenant_id, self._place(key))
        except Retryable:  # away, or given a rest: then there is none
            return None
        if sealed is None or len(sealed) <= NONCE:
            return None
        try:
            return self._cipher(tenant_id).decrypt(sealed[:NONCE], sealed[NONCE:], key)
        except InvalidTag:  # another question's, for which this is the place as well, or a stranger's
            return None

    def _place(self, key: bytes) -> int:
        return int.from_bytes(key[:8], "big") % self.places.places

    def _cipher(self, tenant_id: UUID) -> AESGCM:
        return AESGCM(audit.keyed_hash(self.keys[tenant_id], "answer seal"))


def recall(answers: KeptAnswers | None, conn: Conn, asked: Asked) -> Memory:
    """What is kept of an equal search; of a process that keeps none, nothing."""
    return Memory() if answers is None else answers.recall(conn, asked)


@cache
def code_digest() -> str:
    """sha256 of the code that rankings are made by: a release never meets another's."""
    digest = hashlib.sha256(Path(str(core.records.__file__)).read_bytes())
    for module in (models.__file__, store.__file__, __file__):
        for file in sorted(Path(str(module)).parent.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _written(used: Sequence[FusedCandidate], told: Sequence[tuple[str, dict[str, Any]]], at: Standing) -> bytes:
    ranked = [(c.chunk_id, c.fused, c.dense, c.lexical, c.rerank) for c in used]
    position = (at.position.snapshot, at.position.seq, at.position.xid)
    standing_at = {"position": position, "calibrated": at.calibrated, "noted": at.noted}
    return json.dumps({"ranked": ranked, "told": told, **standing_at}).encode()


def _read(value: bytes) -> tuple[list[FusedCandidate], tuple[tuple[str, dict[str, Any]], ...], Standing]:
    found = json.loads(value)
    told = tuple((name, detail) for name, detail in found["told"])
    at = Standing(Position(*found["position"]), found["calibrated"], found["noted"])
    return [FusedCandidate(*row) for row in found["ranked"]], told, at
