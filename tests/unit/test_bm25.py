"""Segments and BM25 over them, against dictionaries and the formula."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

import numpy as np
import pytest

from retrieval.bm25 import best, field_of, seen
from retrieval.lexical import Bm25
from retrieval.segment import Entry, Segment, build, hasher, in_joined, joined, pairs, without

KEY = bytes(range(64))
HASH = hasher(KEY)
WORDS = [f"w{n}" for n in range(30)]


def corpus(chance: random.Random, count: int, first: int = 0) -> list[Entry]:
    """Documents of one to three chunks; some chunks have no word."""
    entries = []
    while len(entries) < count:
        document, version = UUID(int=chance.getrandbits(128)), chance.randint(1, 9)
        for _ in range(chance.randint(1, 3)):
            words = [WORDS[min(29, int(chance.expovariate(0.2)))] for _ in range(chance.randint(0, 12))]
            entries.append(Entry(first + len(entries), document, version, words))
    return entries[:count]


def formula(entries: Sequence[Entry], wanted: Mapping[str, int], bm25: Bm25) -> dict[int, float]:
    """BM25 with Lucene's idf by chunk id, of the chunks that have a word of it."""
    average = sum(len(entry.terms) for entry in entries) / len(entries)
    scores = {}
    for entry in entries:
        score = 0.0
        for word, times in wanted.items():
            df = sum(word in other.terms for other in entries)
            idf = math.log(1 + (len(entries) - df + 0.5) / (df + 0.5))
            f = entry.terms.count(word)
            norm = bm25.k1 * (1 - bm25.b + bm25.b * len(entry.terms) / average)
            score += times * idf * f * (bm25.k1 + 1) / (f + norm) if f else 0
        if score > 0:
            scores[entry.chunk_id] = score
    return scores


def sight(segment: Segment, documents: set[UUID]) -> np.ndarray:
    """Which of the segment's documents these are [d]."""
    mask = np.zeros(segment.documents.shape[1], bool)
    places = segment.find(pairs(documents))
    mask[places[places >= 0]] = True
    return mask


def asked(words: Mapping[str, int]) -> dict[int, int]:
    return {HASH(word): times for word, times in words.items()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bm25", [Bm25(), Bm25(0.9, 0.4), Bm25(2.0, 1.0), Bm25(1.2, 0.0)])
def test_it_is_the_formula_over_what_is_seen_however_it_is_cut(seed: int, bm25: Bm25) -> None:
    chance = random.Random(seed)
    entries = corpus(chance, 60)
    documents = sorted({entry.document_id for entry in entries}, key=str)
    visible = set(chance.sample(documents, chance.randint(1, len(documents))))
    groups: list[list[Entry]] = [[], [], []]
    for entry in entries:
        groups[documents.index(entry.document_id) % 3].append(entry)
    one, three = [build(entries, HASH)], [build(group, HASH) for group in groups]
    wanted = dict(Counter(chance.choices([*WORDS, "absent"], k=chance.randint(1, 6))))
    scores = formula([entry for entry in entries if entry.document_id in visible], wanted, bm25)
    due = sorted(scores, key=lambda chunk_id: (-round(scores[chunk_id], 12), chunk_id))
    for k in (1, 5, 100):
        found = [best(field_of([seen(s, sight(s, visible)) for s in cut], bm25), asked(wanted), k)
                 for cut in (one, three, [joined(three)])]  # fmt: skip
        assert [c.chunk_id for c in found[0]] == due[:k]
        assert [c.score for c in found[0]] == pytest.approx([scores[chunk_id] for chunk_id in due[:k]], rel=1e-12)
        assert found[0] == found[1] == found[2]  # to the bit


def test_hidden_documents_change_no_bit() -> None:
    chance = random.Random(1)
    entries, hidden = corpus(chance, 40), corpus(chance, 200, first=1000)
    mixed = chance.sample([*entries, *hidden], 240)
    visible = {entry.document_id for entry in entries}
    alone, among = build(entries, HASH), build(mixed, HASH)
    for _ in range(50):
        wanted = asked(dict.fromkeys(chance.sample(WORDS, 4), 1))
        fields = [field_of([seen(segment, sight(segment, visible))], Bm25()) for segment in (alone, among)]
        assert best(fields[0], wanted, 10) == best(fields[1], wanted, 10)


def test_nothing_is_found_where_nothing_is() -> None:
    empty = build([], HASH)
    wordless = build([Entry(1, UUID(int=1), 1, [])], HASH)
    for segment in (empty, wordless):
        field = field_of([seen(segment, np.ones(segment.documents.shape[1], bool))], Bm25())
        assert best(field, asked({"w1": 1}), 5) == []
    assert best(field_of([], Bm25()), asked({"w1": 1}), 5) == []
    assert len(joined([])) == 0 and len(joined([empty, wordless])) == 1


def test_equal_scores_stand_by_chunk_id_and_the_smallest_are_kept() -> None:
    ids = random.Random(2).sample(range(1000), 50)
    segment = build([Entry(chunk_id, UUID(int=chunk_id), 1, ["w1"]) for chunk_id in ids], HASH)
    field = field_of([seen(segment, np.ones(50, bool))], Bm25())
    for k in (1, 7, 49, 50, 80):
        assert [c.chunk_id for c in best(field, asked({"w1": 1}), k)] == sorted(ids)[:k]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_taken_out_leaves_nothing(seed: int) -> None:
    """A segment without some documents is the segment that never had them, term by term and byte by byte."""
    chance = random.Random(seed)
    entries = [*corpus(chance, 50), Entry(500, UUID(int=7), 1, ["secret", "w1"])]
    documents = {entry.document_id for entry in entries}
    gone = {UUID(int=7), *chance.sample(sorted(documents - {UUID(int=7)}, key=str), 5)}
    whole = build(entries, HASH)
    left = without(whole, ~sight(whole, gone))
    never = build([entry for entry in entries if entry.document_id not in gone], HASH)
    for name in Segment.__dataclass_fields__:
        assert np.array_equal(getattr(left, name), getattr(never, name)), name
    assert HASH("secret") in whole.terms and HASH("secret") not in left.terms
    assert (left.find(pairs(gone)) == -1).all()


@pytest.mark.parametrize("seed", range(5))
def test_joined_segments_hold_what_they_held(seed: int) -> None:
    chance = random.Random(seed)
    pieces = [build(corpus(chance, chance.randint(0, 20), first=100 * n), HASH) for n in range(4)]
    labels = [np.arange(piece.documents.shape[1], dtype=np.int32) + 100 * n for n, piece in enumerate(pieces)]
    whole, places = joined(pieces), in_joined(pieces, labels)
    for piece, label in zip(pieces, labels, strict=True):
        found = whole.find(piece.documents)
        assert np.array_equal(whole.versions[found], piece.versions)
        assert np.array_equal(places[found], label)
    assert np.array_equal(whole.chunk_ids, np.concatenate([piece.chunk_ids for piece in pieces]))
    again = joined([whole])
    assert all(np.array_equal(getattr(again, n), getattr(whole, n)) for n in Segment.__dataclass_fields__)


def test_documents_whose_ids_begin_alike_are_told_apart() -> None:
    ids = [UUID(int=(5 << 64) | low) for low in (1, 2, 2**63)] + [UUID(int=9 << 64)]
    segment = build([Entry(n, each, n + 1, ["w1"]) for n, each in enumerate(ids)], HASH)
    strange = UUID(int=(5 << 64) | 3)
    found = segment.find(pairs([*reversed(ids), strange]))
    assert segment.versions[found[:4]].tolist() == [4, 3, 2, 1] and found[4] == -1


def test_words_stand_nowhere_and_another_key_finds_nothing() -> None:
    segment = build([Entry(1, UUID(int=1), 1, ["heron"])], HASH)
    field = field_of([seen(segment, np.ones(1, bool))], Bm25())
    assert best(field, {HASH("heron"): 1}, 5) and not best(field, {hasher(bytes(64))("heron"): 1}, 5)
    assert b"heron" not in b"".join(getattr(segment, n).tobytes() for n in Segment.__dataclass_fields__)
