"""The same visible documents with and without hidden ones: every answer equal, byte for byte.

But request id, milliseconds, and document ids, which are mapped by external id. Two tenants of one database: the order
in which the visible documents came is the same, their chunk ids are not.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

from core.records import Labels
from store.pool import writing
from store.profiles import ensure_tenant
from tests.conftest import Api, World
from tests.leaks.asking import ACT_FOR, NOISE
from tests.leaks.world import COMMON, SCALE, WORDS, Grants, canary_word, put, store_grants

ANA = "user:u0"
GRANTS = Grants(frozenset({(ANA, "group:g0"), ("group:g0", "group:g1"), ("user:u1", "group:g2")}), ((ANA, SCALE[2]),))
SEEN = (Labels(("group:g1",)), Labels(("public",)), Labels((ANA, "group:g2"), (), SCALE[2]))
HIDDEN = (Labels(("group:g2",)), Labels(("public",), ("group:g1",)), Labels((ANA,), (), SCALE[3]), Labels(("user:u1",)))

Twin = tuple[World, dict[str, str], dict[str, str]]  # a tenant, Ana's headers in it, and document id → external id


def build(api: Api, seed: int, size: int) -> tuple[Twin, Twin]:
    """The tenant with the visible documents alone, and the one with hidden ones between them."""
    twins = []
    for name in ("without", "with"):
        with writing(api.world.store) as conn:
            tenant = ensure_tenant(conn, f"{name}-{seed}", api.world.profile.id)
        world = replace(api.world, tenant_id=tenant)
        store_grants(world, GRANTS)
        headers = {**Api(api.http, world).key("agent", "search", "act_for"), ACT_FOR: ANA}
        twins.append((world, headers, _fill(world, seed, size, name == "with")))
    return twins[0], twins[1]


def _fill(world: World, seed: int, size: int, hidden: bool) -> dict[str, str]:
    names = {}
    for number in range(size):
        for labels, kind in ((SEEN, 0), (HIDDEN, 1))[: 1 + hidden]:
            word = canary_word(seed, 2 * number + kind)
            text = _text(seed, number, kind)
            sent = put(world, f"doc-{word}", word, text, labels[number % len(labels)])
            world.index(sent)
            names[str(sent.document_id)] = f"doc-{word}"
    return names


def _text(seed: int, number: int, kind: int) -> str:
    """Every second hidden text is a visible one's; every fourth visible one is of another under the same labels."""
    if kind == 1 and number % 2 == 0:
        kind = 0
    if kind == 0 and number % 4 == 3:
        number -= len(SEEN)
    chance = random.Random(f"{seed}/{number}/{kind}")
    words = chance.choices(WORDS, k=chance.randint(3, 30))
    return " ".join([COMMON, *words, canary_word(seed, 2 * number + kind)])


def queries(seed: int, size: int) -> Iterator[dict[str, Any]]:
    """Searches of all modes, with variants, filters and words that only hidden documents have."""
    chance = random.Random(f"{seed}/queries")
    while True:
        word = canary_word(seed, chance.randrange(2 * size))
        terms = chance.sample((*WORDS, COMMON, word, "title", "absentee"), chance.randint(1, 4))
        body: dict[str, Any] = {"query": " ".join(terms), "mode": chance.choice(("hybrid", "dense", "lexical")),
                                "top_k": chance.choice((1, 3, 8, 50, 100))}  # fmt: skip
        if chance.random() < 0.3:
            body["queries"] = chance.sample((*WORDS, word), chance.randint(1, 3))
        if chance.random() < 0.3:
            body["max_tokens"] = chance.randint(10, 400)
        if chance.random() < 0.4:
            body["filters"] = chance.choice(_filters(word))
        if chance.random() < 0.3:
            body["rerank"] = chance.choice(("late", "none"))  # late is the default of hybrid searches alone
        yield body


def _filters(word: str) -> list[dict[str, Any]]:
    return [
        {"external_id": {"$ne": f"doc-{word}"}},
        {"title": {"$gt": f"Title {word}"}},
        {"source": "left"},
        {"metadata.secret": {"$lte": word}},
        {"$or": [{"uri": f"x:doc-{word}"}, {"source": "right"}]},
    ]


def differences(api: Api, seed: int, count: int, size: int = 40) -> tuple[int, list[str]]:
    """How many of `count` answers held a passage, and the searches that were answered differently."""
    twins, wrong, filled = build(api, seed, size), [], 0
    asked = queries(seed, size)
    for _ in range(count):
        body = next(asked)
        one, two = (_answer(api, twin, body) for twin in twins)
        filled += '"passages":[{' in one
        wrong += [] if one == two else [str(body)]
    for limit in (1, 7, 200):  # a list has times of its own; all else, its pages' borders too, is the same
        one, two = (_pages(api, twin, limit) for twin in twins)
        wrong += [] if one == two else [f"list by {limit}"]
    return filled, wrong


def _answer(api: Api, twin: Twin, body: dict[str, Any]) -> str:
    _, headers, names = twin
    answer = api.http.post("/v1/search", json=body, headers=headers)
    text = NOISE.sub("", answer.text)
    for document_id, name in names.items():
        text = text.replace(document_id, name)
    heads = {k: v for k, v in answer.headers.items() if k != "content-length"}  # moved by the digits of milliseconds
    return f"{answer.status_code} {sorted(heads.items())} {text}"


def _pages(api: Api, twin: Twin, limit: int) -> str:
    _, headers, names = twin
    pages: list[Any] = []
    cursor = None
    while cursor is not None or not pages:
        params = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        body = api.http.get("/v1/documents", params=params, headers=headers).json()
        cursor = body["next_cursor"]
        own = [{k: v for k, v in d.items() if not k.endswith("_at")} for d in body["documents"]]
        pages.append(([{**d, "document_id": names[str(UUID(d["document_id"]))]} for d in own], cursor is None))
    return repr(pages)
