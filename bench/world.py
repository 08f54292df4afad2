"""A database of a benchmark's own, filled as the maintenance role in a few statements."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import numpy.typing as npt
from pgvector import HalfVector
from psycopg import sql

from core.records import Profile
from embedded.place import erase_servers
from embedded.postgres import start_postgres
from models.fake_embedder import FakeEmbedder
from store import changes
from store.migrate import as_owner, create_database, migrate, role_url
from store.pool import Store, open_store, writing
from store.profiles import ensure_profile, ensure_tenant

PASSWORDS = {"citadel_app": "app-password", "citadel_maintenance": "maintenance-password"}
PROFILE = Profile(0, "bench", FakeEmbedder.name, FakeEmbedder.dimensions, FakeEmbedder.precision, 200, "structure")

SOURCE = """
    INSERT INTO sources (tenant_id, name, kind, label_set_id) VALUES (%(tenant)s, 'bench', 'api', %(label_set)s)
    RETURNING id
"""
# COPY straight into a table is refused to whoever its policies hold for.
LOADING = "CREATE TEMP TABLE loading (name text, label_set_id int, text text, embedding halfvec) ON COMMIT DROP"
COPY = "COPY loading FROM STDIN (FORMAT BINARY)"
DOCUMENTS = """
    INSERT INTO documents (tenant_id, source_id, external_id, label_set_id, title, current_version, latest_version)
    SELECT %(tenant)s, %(source)s, name, label_set_id, name, 1, 1 FROM loading
"""
VERSIONS = """
    INSERT INTO versions (document_id, version, tenant_id, label_set_id, state, content_hash, blob_key, size, text)
    SELECT d.id, 1, d.tenant_id, d.label_set_id, 'indexed', sha256(convert_to(l.text, 'UTF8')), l.name, length(l.text),
           l.text
    FROM loading l JOIN documents d ON d.source_id = %(source)s AND d.external_id = l.name
"""
CHUNKS = """
    INSERT INTO chunks (tenant_id, profile_id, document_id, version, ordinal, start_offset, end_offset, tokens, text)
    SELECT tenant_id, %(profile)s, document_id, 1, 0, 0, length(text), 1, text FROM versions
    WHERE tenant_id = %(tenant)s
"""
VECTORS = """
    INSERT INTO {} (chunk_id, tenant_id, document_id, label_set_id, embedding)
    SELECT c.id, c.tenant_id, c.document_id, d.label_set_id, l.embedding
    FROM loading l JOIN documents d ON d.source_id = %(source)s AND d.external_id = l.name
    JOIN chunks c ON c.document_id = d.id
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """A migrated database with one tenant."""

    store: Store
    admin_url: str
    tenant_id: UUID
    profile: Profile


@dataclass(frozen=True, slots=True)
class Rows:
    """Documents of one chunk each: names, label set ids and texts of equal length, and vectors [names, dimensions]."""

    names: Sequence[str]
    label_set_ids: Sequence[int]
    texts: Sequence[str]
    vectors: npt.NDArray[np.float32]


@contextmanager
def server_url(settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """A Postgres for the length of the benchmark; its settings are the embedded ones, but for durability and these."""
    state = Path(tempfile.mkdtemp(prefix="citadel-bench-"))
    state.chmod(0o711)
    try:
        server = start_postgres(state, durable=False, settings=settings)
        try:
            yield server.url
        finally:
            server.stop()
    finally:
        erase_servers(state)
        shutil.rmtree(state, ignore_errors=True)


@contextmanager
def bench_database(server: str, name: str, profile: Profile = PROFILE) -> Iterator[Bench]:
    """An empty tenant on that profile, in a database of that name."""
    url = create_database(server, name)
    migrate(url, PASSWORDS)
    with as_owner(url) as conn:
        profile = ensure_profile(conn, profile)
    app, maintenance = (role_url(url, role, password) for role, password in PASSWORDS.items())
    store = open_store(app, maintenance)
    try:
        with writing(store) as conn:
            tenant_id = ensure_tenant(conn, "bench", profile.id)
        yield Bench(store, url, tenant_id, profile)
    finally:
        store.close()


def fill(bench: Bench, rows: Rows) -> None:
    """Store the rows as indexed documents, in one transaction as maintenance, and gather statistics."""
    with writing(bench.store) as conn:
        conn.execute("SET LOCAL statement_timeout = 0")
        conn.execute(LOADING)
        with conn.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.set_types(["text", "int4", "text", "halfvec"])
            for row in zip(rows.names, rows.label_set_ids, rows.texts, map(HalfVector, rows.vectors), strict=True):
                copy.write_row(row)
        values: dict[str, object] = {
            "tenant": bench.tenant_id,
            "profile": bench.profile.id,
            "label_set": rows.label_set_ids[0],
        }
        ((source_id,),) = conn.execute(SOURCE, values).fetchall()
        values["source"] = source_id
        for statement in (DOCUMENTS, "ANALYZE loading", VERSIONS, CHUNKS):
            conn.execute(statement, values)
        conn.execute(sql.SQL(VECTORS).format(changes.vectors_table(bench.profile.id)), values)
    with as_owner(bench.admin_url) as conn:
        conn.execute("ANALYZE")


def unit_vectors(count: int, dimensions: int, seed: int) -> npt.NDArray[np.float32]:
    """Random unit vectors [count, dimensions]."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
