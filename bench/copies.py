"""What linking copies costs: documents one after another into one label set, each compared with all before it.

    python -m bench.copies [--documents 10000] [--words 800] [--json]

The texts are drawn words; every tenth document is an exact copy of another, every tenth a near one, and a tenth are of
one large family. Without chunks and vectors: what is timed is the fingerprint, and keeping and linking it.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

from bench.world import Bench, bench_database, server_url
from core.copies import Fingerprint
from core.records import Labels
from ingest.fingerprint import fingerprint
from store import access, copies
from store.pool import Conn, writing
from store.sources import ensure_api_source

TIMED = 100  # documents
ADD = """
    INSERT INTO documents (id, tenant_id, source_id, external_id, label_set_id, current_version, latest_version)
    VALUES (%s, %s, %s, %s, %s, 1, 1)
"""
SIZE = "SELECT pg_total_relation_size('fingerprints') + pg_total_relation_size('fingerprint_bands')"
COUNTS = "SELECT count(*) FILTER (WHERE n > 1), max(n) FROM (SELECT count(*) n FROM fingerprints GROUP BY family) f"


def texts(documents: int, words: int) -> Iterator[tuple[str, int]]:
    """The documents' texts, from one seed, each with the number of the one that it is a copy of, or its own."""
    chance = random.Random(1)
    vocabulary = [f"word{n}" for n in range(20_000)]
    made: list[list[str]] = []
    for number in range(documents):
        kind = number % 10 if number > 10 else 3
        root = {0: chance.randrange(len(made) or 1), 1: chance.randrange(len(made) or 1), 2: 3}.get(kind, number)
        root = root - root % 10 + 3 if root != number else number  # those of 3 are copies of none
        text = list(made[root]) if root < number else chance.choices(vocabulary, k=words)
        if kind in (1, 2):  # one word of 200 is in 5 of their shingles
            for _ in range(max(1, words // 200)):
                text[chance.randrange(words)] = chance.choice(vocabulary)
        made.append(text)
        yield " ".join(text), min(root, number)


def run(bench: Bench, documents: int, words: int) -> dict[str, object]:
    """Keep and link so many; of those after the first tenth, and of the last ones, it is timed."""
    with writing(bench.store) as conn:
        source = ensure_api_source(conn, bench.tenant_id, "bench").id
        labels = access.intern_labels(conn, bench.tenant_id, Labels(("public",)))
    made: list[float] = []
    given: list[tuple[UUID, Fingerprint, UUID]] = []
    families = {}
    for number, (text, root) in enumerate(texts(documents, words)):
        started = time.perf_counter()
        found = fingerprint(text)
        made.append(time.perf_counter() - started)
        families[number] = families.get(root) or uuid4()
        given.append((uuid4(), found, families[number]))
    rows = [(document, bench.tenant_id, source, str(n), labels) for n, (document, _, _) in enumerate(given)]
    tenth = documents // 10
    with writing(bench.store) as conn, conn.cursor() as cursor:
        cursor.executemany(ADD, rows)
        _fill(conn, given[:tenth])
    first = _timed(bench, given[tenth : tenth + TIMED])
    with writing(bench.store) as conn:
        _fill(conn, given[tenth + TIMED : -TIMED])
    last = _timed(bench, given[-TIMED:])
    with writing(bench.store) as conn:
        found_families, largest = _row(conn, COUNTS)
        (size,) = _row(conn, SIZE)
    read, least = _read(bench, [document for document, _, _ in given[:: max(1, documents // 400)]])
    return {
        "documents": documents, "words": words, "families": found_families, "largest": largest,
        "bytes_a_document": round(size / documents), "fingerprint_ms": _ms(made), "link_after_a_tenth_ms": _ms(first),
        "link_at_the_end_ms": _ms(last), "told_of_16_documents_ms": _ms(read), "empty_statement_ms": _ms(least),
    }  # fmt: skip


def _fill(conn: Conn, given: Sequence[tuple[UUID, Fingerprint, UUID]]) -> None:
    """Keep the fingerprints as linked, without a look at the others."""
    with conn.cursor() as cursor:
        cursor.executemany(copies.ADD, [{"document": document, "hash": found.text_hash, "signature": found.signature}
                                        for document, found, _ in given])  # fmt: skip
        cursor.executemany(copies.ADD_BANDS, [(list(found.bands), document) for document, found, _ in given])
        cursor.executemany(copies.JOIN, [(family, document) for document, _, family in given])


def _timed(bench: Bench, given: Sequence[tuple[UUID, Fingerprint, UUID]]) -> list[float]:
    took = []
    with writing(bench.store) as conn:
        for document, found, _ in given:
            started = time.perf_counter()
            copies.keep(conn, document, found)
            took.append(time.perf_counter() - started)
    return took


def _read(bench: Bench, ids: Sequence[UUID]) -> tuple[list[float], list[float]]:
    """What the copies of 16 documents take to be told of, and a statement that does nothing."""
    read, least = [], []
    with writing(bench.store) as conn:
        for start in range(0, len(ids), 16):
            started = time.perf_counter()
            copies.told(conn, list(ids[start : start + 16]))
            read.append(time.perf_counter() - started)
            started = time.perf_counter()
            conn.execute("SELECT 1").fetchone()
            least.append(time.perf_counter() - started)
    return read, least


def _row(conn: Conn, statement: str) -> tuple[int, ...]:
    row = conn.execute(statement.encode()).fetchone()
    assert row is not None
    return row


def _ms(seconds: list[float]) -> float:
    return round(1000 * statistics.median(seconds), 2)


def main() -> None:
    """Start a Postgres, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=800)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with server_url() as server, bench_database(server, "copies") as bench:
        told = run(bench, options.documents, options.words)
    print(json.dumps(told) if options.json else "\n".join(f"{name}: {value}" for name, value in told.items()))


if __name__ == "__main__":
    main()
