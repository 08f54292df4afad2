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
from uuid import uuid4

from bench.world import Bench, bench_database, server_url
from core.records import Labels
from ingest.fingerprint import fingerprint
from store import access, copies
from store.pool import Conn, writing
from store.sources import ensure_api_source

ADD = """
    INSERT INTO documents (id, tenant_id, source_id, external_id, label_set_id, current_version, latest_version)
    VALUES (%s, %s, %s, %s, %s, 1, 1)
"""
SIZE = "SELECT pg_total_relation_size('fingerprints') + pg_total_relation_size('fingerprint_bands')"
COUNTS = "SELECT count(*) FILTER (WHERE n > 1), max(n) FROM (SELECT count(*) n FROM fingerprints GROUP BY family) f"


def texts(documents: int, words: int) -> list[str]:
    """The documents' texts, from one seed."""
    chance = random.Random(1)
    vocabulary = [f"word{n}" for n in range(20_000)]
    made: list[list[str]] = []
    for number in range(documents):
        text = chance.choices(vocabulary, k=words)
        if number > 10 and number % 10 < 2:
            text = list(made[chance.randrange(len(made))])
        elif number > 10 and number % 10 == 2:
            text = list(made[3])
        if number % 10 in (1, 2):  # one word of 800 is in 5 of their shingles
            for _ in range(max(1, words // 200)):
                text[chance.randrange(words)] = chance.choice(vocabulary)
        made.append(text)
    return [" ".join(text) for text in made]


def run(bench: Bench, documents: int, words: int) -> dict[str, object]:
    """Keep and link all; the figures."""
    store, tenant_id = bench.store, bench.tenant_id
    with writing(store) as conn:
        source = ensure_api_source(conn, tenant_id, "bench").id
        labels = access.intern_labels(conn, tenant_id, Labels(("public",)))
    made, kept = [], []
    for number, text in enumerate(texts(documents, words)):
        started = time.perf_counter()
        found = fingerprint(text)
        made.append(time.perf_counter() - started)
        with writing(store) as conn:
            document = uuid4()
            conn.execute(ADD, (document, tenant_id, source, str(number), labels))
            started = time.perf_counter()
            copies.keep(conn, document, found)
            kept.append(time.perf_counter() - started)
    with writing(store) as conn:
        families, largest = _row(conn, COUNTS)
        (size,) = _row(conn, SIZE)
        tenth = documents // 10
        read, least = [], []
        ids = [row[0] for row in conn.execute("SELECT id FROM documents ORDER BY random() LIMIT 400").fetchall()]
        for start in range(0, len(ids), 16):
            started = time.perf_counter()
            copies.told(conn, ids[start : start + 16])
            read.append(time.perf_counter() - started)
            started = time.perf_counter()
            conn.execute("SELECT 1").fetchone()
            least.append(time.perf_counter() - started)
    return {
        "documents": documents, "words": words, "families": families, "largest": largest,
        "bytes_a_document": round(size / documents), "fingerprint_ms": _ms(made),
        "link_first_tenth_ms": _ms(kept[:tenth]),
        "link_last_tenth_ms": _ms(kept[-tenth:]), "link_slowest_ms": round(1000 * max(kept), 1),
        "told_of_16_documents_ms": _ms(read), "statement_ms": _ms(least),
    }  # fmt: skip


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
