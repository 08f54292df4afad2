"""`citadel erase`: take a document away, prove it, and say what only time will clear."""

import json
import sys
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from cli.options import as_json, pass_settings, plain, show
from cli.stack import opened_store
from core.config import Settings
from core.errors import BrokerUnavailable, Invalid
from ingest.erase import erase, replay
from retrieval.lexical import KEEP_S, SWEEP_S
from store import audit, documents
from store import erase as erasures
from store.answers import RedisPlaces
from store.blobs import FsspecBlobs
from store.pool import Store, writing
from store.profiles import tenant_named
from store.traces import files_with, traces

ACTOR = "service:cli"
VERIFY_WAIT_S = 60.0  # for the follower to rewrite a segment; a million chunks take some seconds
REPLICA_S, MEMORY_S = 6.0, 11.0  # ERASE_AFTER_S and POLL_S of retrieval.follower; SETTLED_S and WATCH_S of its reader
SERVERS = ("postgres", "redis")  # in the state folder: their pages are named under REMAINS

# Measured in tests/integration/test_erase.py where that can be.
REMAINS = (
    "Postgres, table and index pages: dead rows until VACUUM, which autovacuum runs; it frees their room without "
    "overwriting it, so the bytes lie in the file until the room is used again or VACUUM FULL writes the table anew",
    "Postgres, write-ahead log: until its segments are recycled; in an archive or a replica as long as that keeps them",
    "Postgres, planner statistics: samples of titles, names, URIs and metadata until the next ANALYZE; none of text",
    "replicas, one a host: hashes of its words under the tenant's key, and its vectors, until the follower there "
    f"rewrites the files, within {REPLICA_S:.0f} s and the time that takes; for this host's, --verify waits",
    f"API processes that searched before: those hashes and vectors, for at most {MEMORY_S:.0f} s longer; with "
    f"CITADEL_LEXICAL=rank-bm25 its words, for at most {KEEP_S + SWEEP_S:.0f} s after the last search that began "
    "before the erasure, and in the process that answered DELETE not at all",
    "memory of Postgres, of the workers and of the operating system, until it is used again",
    "answers kept in Redis: ids and scores of the tenant's searches, sealed, which no search takes up again; emptied "
    "now where Redis answers, else gone within CITADEL_ANSWERS_S, as after a refresh that deletes",
    "backups and snapshots, until they expire; after a restore, `citadel tombstones replay` erases it again",
    "versions that a bucket keeps of deleted objects, and blocks of the disk that the deleted files had",
    "the audit: the document's id, and the text of queries where the tenant keeps it",
)


@dataclass(frozen=True, slots=True)
class Proof:
    """Where the document's id or the canary still stands; nowhere, when all are empty."""

    tables: dict[str, int]  # rows by table
    blobs: tuple[str, ...]
    files: tuple[str, ...]  # of the state folder, and replicas

    def holds(self) -> bool:
        """Whether nothing was found."""
        return not (self.tables or self.blobs or self.files)


@click.command("erase", epilog="Example: citadel erase 6f1c1f0e-8f3b-4f0a-9d5e-0c4a3f6f7b1d --verify --canary Heron")
@click.argument("document_id", type=click.UUID)
@click.option("--verify", is_flag=True, help="Then look for it in every table, blob and file of the state folder.")
@click.option("--verify-only", is_flag=True, help="Look, for a document that was erased before.")
@click.option("--canary", help="A string of the document that nothing else holds, to look for as well.")
@as_json
@pass_settings
@click.pass_context
def erase_command(
    ctx: click.Context, settings: Settings, document_id: UUID, verify: bool, verify_only: bool, canary: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Erase DOCUMENT_ID and print a receipt; ends with status 1 when something of it was found."""
    if canary is not None and not canary.strip():
        raise Invalid("--canary takes a string that only this document holds")
    blobs = FsspecBlobs(settings.blob_store_url())
    with opened_store(settings, reads=False) as store:
        with writing(store) as conn:
            tenant_id = tenant_named(conn, settings.tenant)
        keys = () if verify_only else _erased(settings, store, blobs, tenant_id, document_id)
        with writing(store) as conn:
            stone = erasures.tombstone(conn, tenant_id, document_id)
        look = verify or verify_only
        left = _in_replicas(store, settings.replicas(), tenant_id, document_id, canary) if look else []
        proof = prove(store, blobs, settings.state, document_id, canary, keys, left) if look else None
    show({"tombstone": _told(stone), "proof": proof, "remains": REMAINS}, as_json, _receipt(stone, proof, canary))
    ctx.exit(0 if stone.finished and (proof is None or proof.holds()) else 1)


def _erased(
    settings: Settings, store: Store, blobs: FsspecBlobs, tenant_id: UUID, document_id: UUID
) -> tuple[str, ...]:
    erased = erase(store, blobs, tenant_id, document_id, by=ACTOR)
    if settings.redis_url:
        places = RedisPlaces(settings.redis_url, settings.answers_bytes, settings.answers_s)
        with closing(places), suppress(BrokerUnavailable):  # then time clears them, as the receipt tells
            places.clear(tenant_id)
    return erased.blob_keys


def prove(
    store: Store,
    blobs: FsspecBlobs,
    state: Path,
    document_id: UUID,
    canary: str | None,
    blob_keys: Iterable[str] = (),
    replicas: Iterable[str] = (),
) -> Proof:
    """Look for the id in every table, for those bytes, and for the canary wherever this installation keeps anything."""
    with writing(store) as conn:
        tables = traces(conn, document_id, canary)
        kept = [key for key in blob_keys if blobs.has(key) and documents.freeze_blob(conn, key)]
    if canary is None:
        return Proof(tables, tuple(kept), tuple(replicas))
    files = files_with(state, canary.encode(), SERVERS) if state.is_dir() else []
    return Proof(tables, tuple({*kept, *blobs.holders(canary.encode())}), (*files, *replicas))


def _in_replicas(store: Store, root: Path, tenant_id: UUID, document_id: UUID, canary: str | None) -> list[str]:
    from retrieval.traces import traces_in_time

    with writing(store) as conn:
        key = audit.hash_key(conn, tenant_id)
    return traces_in_time(root, tenant_id, document_id, key, canary, VERIFY_WAIT_S)


def _receipt(stone: erasures.Tombstone, proof: Proof | None, canary: str | None) -> str:
    lines = [f"document {stone.document_id}, erased at {stone.erased_at} by {stone.erased_by}"]
    lines.append(f"gone: {json.dumps(stone.receipt)}")
    if not stone.finished:
        lines.append("NOT FINISHED: the blob store was away; the schedule tries again")
    if proof is not None:
        found = [f"{n} rows of {table}" for table, n in proof.tables.items()] + [*proof.blobs, *proof.files]
        lines += [f"FOUND: {place}" for place in found]
        if not found:
            sought = "in no table: its id; in no table, blob or file: the canary" if canary else "in no table: its id"
            lines.append(f"verified: {sought}")
    return "\n".join([*lines, "what time will clear:", *(f"  - {line}" for line in REMAINS)])


def _told(stone: erasures.Tombstone) -> dict[str, Any]:
    return {**plain(stone), "external_id_hash": stone.external_id_hash.hex(), "erased_at": stone.erased_at.isoformat()}


@click.group("tombstones")
def tombstones_group() -> None:
    """What was erased, to be erased again after a restore."""


@tombstones_group.command("export", epilog="Example: citadel tombstones export > /mnt/elsewhere/tombstones.jsonl")
@click.option("--since", type=click.DateTime(), help="UTC. Without: all.")
@pass_settings
def export_command(settings: Settings, since: datetime | None) -> None:
    """Print tombstones as JSON lines: ids, times and figures, never content."""
    with opened_store(settings, reads=False) as store, writing(store) as conn:
        for stone in erasures.tombstones(conn, tenant_named(conn, settings.tenant)):
            if since is None or stone.erased_at.replace(tzinfo=None) >= since:
                sys.stdout.write(json.dumps(_told(stone)) + "\n")


@tombstones_group.command("replay", epilog="Example: citadel tombstones replay /mnt/elsewhere/tombstones.jsonl")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@as_json
@pass_settings
def replay_command(settings: Settings, file: Path | None, as_json: bool) -> None:
    """Erase again what a restore brought back: the documents of FILE, and those that have a tombstone here."""
    blobs = FsspecBlobs(settings.blob_store_url())
    with opened_store(settings, reads=False) as store:
        with writing(store) as conn:
            tenant_id = tenant_named(conn, settings.tenant)
            known = [stone.document_id for stone in erasures.tombstones(conn, tenant_id)]
        erased = replay(store, blobs, tenant_id, [*known, *(read_ids(file) if file else ())], by=ACTOR)
    show({"erased": erased}, as_json, f"{len(erased)} documents erased again")


def read_ids(file: Path) -> list[UUID]:
    """The documents of exported tombstones. Raises Invalid."""
    try:
        return [UUID(json.loads(line)["document_id"]) for line in file.read_text().splitlines() if line.strip()]
    except (ValueError, TypeError, KeyError) as error:
        raise Invalid(f"{file} is not what `citadel tombstones export` prints: {error!r}") from error
