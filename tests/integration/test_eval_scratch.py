"""Collections in scratch tenants: indexed once, kept apart, and asked leg by leg as a search answers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner

from cli.main import citadel
from core.errors import DeadlineExceeded, Invalid
from core.records import Fusion, Principal, SearchAnswer, SearchRequest
from eval.collection import SUBJECT, Collection, read_collection
from eval.legs import LEGS, Answers, ask_all, cache_key, code_hash, kept, ordered
from eval.scratch import PREFIX, delete_scratch, ensure_scratch, index_state, tenant_name, visible_places
from ingest.chunk import ChunkBudget
from ingest.pipeline import Pipeline
from retrieval.fuse import fuse
from retrieval.search import Searcher, search
from store.pool import writing
from store.profiles import fusion_of, set_fusion, tenant_named
from store.scratch import scratches
from tests.conftest import World
from tests.integration.conftest import CountingEmbedder
from tests.integration.rows import fetch
from tests.unit.collections_by_hand import beir, chroma, lines


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return read_collection(beir(tmp_path))


def scratch(pipeline: Pipeline, world: World, collection: Collection, budget: ChunkBudget | None = None) -> UUID:
    """The tenant of the collection, indexed."""
    budget = budget or ChunkBudget(world.profile.chunk_tokens)
    name = ensure_scratch(lambda: pipeline, world.store, collection, world.profile, budget)
    with writing(world.store) as conn:
        return tenant_named(conn, name)


def found(searcher: Searcher, tenant_id: UUID, query: str = "wing tail title secret") -> set[str]:
    answer = search(searcher, Principal(tenant_id, SUBJECT), SearchRequest(query, top_k=50, mode="dense"))
    return {passage.citation.external_id for passage in answer.passages}


def test_a_second_run_indexes_nothing(
    world: World, pipeline: Pipeline, embedder: CountingEmbedder, collection: Collection
) -> None:
    told: list[tuple[int, int]] = []
    budget = ChunkBudget(world.profile.chunk_tokens)

    def run() -> str:
        return ensure_scratch(
            lambda: pipeline, world.store, collection, world.profile, budget, lambda done, of: told.append((done, of))
        )

    first = run()
    assert sorted(embedder.take()) == ["A tail steers.", "Only a title\nOnly a title", "Wings\nA wing lifts."]
    assert run() == first
    assert embedder.take() == [] and told == [(3, 3)]


def test_a_scratch_tenant_goes_with_all_it_holds_and_no_other(
    world: World, pipeline: Pipeline, collection: Collection
) -> None:
    world.add("kept", "A wing lifts.")  # whose bytes are those of one of the collection's documents
    beside = scratch(pipeline, world, collection, ChunkBudget(20))
    other = replace(collection, name="other")
    scratch(pipeline, world, other)
    with writing(world.store) as conn:
        found = scratches(conn, PREFIX)
    assert {(each.documents, each.chunks) for each in found} == {(3, 3)} and len(found) == 2
    told: list[tuple[int, int]] = []
    (mine,) = (each for each in found if each.id == beside)
    delete_scratch(world.store, world.blobs, mine, lambda done, of: told.append((done, of)))
    assert told == [(3, 3), (3, 3)]
    with writing(world.store) as conn:
        assert [each.id for each in scratches(conn, PREFIX)] == [each.id for each in found if each.id != beside]
    tables = fetch(world, "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id' "
                          "AND table_schema = 'public' AND table_name !~ '^audit'")  # fmt: skip
    assert len(tables) > 10
    for (table,) in tables:
        assert fetch(world, f"SELECT count(*) FROM {table} WHERE tenant_id = %s", beside) == [(0,)], table  # noqa: S608
    blobs = fetch(world, "SELECT DISTINCT blob_key FROM versions")
    assert all(world.blobs.has(key) for (key,) in blobs)
    with pytest.raises(Invalid, match="no scratch"):
        delete_scratch(world.store, world.blobs, replace(mine, id=world.tenant_id, name="default"))


def test_what_was_interrupted_goes_on(
    world: World, pipeline: Pipeline, embedder: CountingEmbedder, collection: Collection
) -> None:
    part = replace(collection, documents=collection.documents[:1])  # the digest is the whole one's: the same tenant
    tenant_id = scratch(pipeline, world, part)
    embedder.take()
    assert scratch(pipeline, world, collection) == tenant_id
    assert len(embedder.take()) == 2


def test_other_documents_have_another_tenant(world: World, collection: Collection, tmp_path: Path) -> None:
    names = {tenant_name(collection, world.profile)}
    lines(tmp_path / "beir" / "corpus.jsonl", [{"_id": "d1", "text": "other"}])
    names.add(tenant_name(read_collection(tmp_path / "beir"), world.profile))
    names.add(tenant_name(collection, replace(world.profile, name="other chunks")))
    assert len(names) == 3 and all(name.startswith("eval/beir/") for name in names)


def test_a_scratch_tenant_and_the_others_never_meet(
    world: World, neighbour: World, pipeline: Pipeline, searcher: Searcher, collection: Collection
) -> None:
    world.add("ours", "a wing, a tail, a title")
    neighbour.add("theirs", "a wing, a tail, a title")
    tenant_id = scratch(pipeline, world, collection)
    assert found(searcher, tenant_id) == {"d1", "d2", "d3"}
    assert found(searcher, world.tenant_id) == {"ours"}
    assert found(searcher, neighbour.tenant_id) == {"theirs"}
    assert {place.external_id for place in visible_places(world.store, world.who(SUBJECT))} == {"ours"}


def test_no_job_is_ever_open(world: World, pipeline: Pipeline, collection: Collection) -> None:
    """What is done in one transaction no dispatcher can send and no worker take."""
    scratch(pipeline, world, collection)
    assert {state for (state,) in fetch(world, "SELECT state FROM jobs")} == {"done"}
    assert [row[0] for row in fetch(world, "SELECT DISTINCT attempts FROM jobs")] == [1]


def test_chunks_have_at_most_so_many_characters(world: World, pipeline: Pipeline, tmp_path: Path) -> None:
    text = " ".join(f"Sentence {number} is here." for number in range(60)) + "\nDucks swim."
    folder = chroma(tmp_path, text=text, start=text.index("Ducks"))
    tenant_id = scratch(
        pipeline, world, read_collection(folder), ChunkBudget(world.profile.chunk_tokens, chunk_chars=80)
    )
    places = visible_places(world.store, Principal(tenant_id, SUBJECT))
    assert len(places) > 10 and max(place.end - place.start for place in places) <= 80
    assert "".join(text.split()) == "".join("".join(text[p.start : p.end].split()) for p in sorted(
        places, key=lambda place: place.start))  # fmt: skip


# --- legs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def indexed(world: World, pipeline: Pipeline, collection: Collection) -> UUID:
    return scratch(pipeline, world, collection)


def asker(searcher: Searcher, asked: list[SearchRequest]) -> Callable[[Principal, SearchRequest], SearchAnswer]:
    def ask(principal: Principal, request: SearchRequest) -> SearchAnswer:
        asked.append(request)
        return search(searcher, principal, request)

    return ask


def of(**more: Any) -> SearchRequest:
    return SearchRequest("", rerank="none", **more)


@pytest.mark.parametrize("fusion", [Fusion("rrf"), Fusion("convex", 0.2), Fusion("convex", 0.9)])
def test_fused_legs_are_the_hybrid_search(
    world: World, searcher: Searcher, collection: Collection, indexed: UUID, fusion: Fusion
) -> None:
    legs = {leg: ask_all(asker(searcher, []), indexed, collection.golden, of(mode=leg)) for leg in LEGS}
    hybrid = ask_all(asker(searcher, []), indexed, collection.golden, of(fusion=fusion))
    for query in collection.golden.queries:
        fused = fuse(fusion, legs["dense"].leg("dense", query.id), legs["lexical"].leg("lexical", query.id))
        assert [c.chunk_id for c in fused] == [c.chunk_id for c in hybrid.found[query.id]]
        assert [c.fused for c in fused] == pytest.approx([c.fused for c in hybrid.found[query.id]])
        assert legs["lexical"].found[query.id]  # a leg without anything would show nothing


def test_the_tenants_own_fusion_is_what_a_search_does(
    world: World, searcher: Searcher, collection: Collection, indexed: UUID
) -> None:
    for fusion in (Fusion("rrf"), Fusion("convex", 0.85)):
        with writing(world.store) as conn:
            set_fusion(conn, indexed, fusion)
        unsaid = ask_all(asker(searcher, []), indexed, collection.golden, of())
        assert unsaid == ask_all(asker(searcher, []), indexed, collection.golden, of(fusion=fusion))


def test_a_fusion_is_one_tenants_and_holds_from_the_next_search(world: World, neighbour: World) -> None:
    with writing(world.store) as conn:
        set_fusion(conn, world.tenant_id, Fusion("rrf", 0.25))
    with writing(world.store) as conn:
        assert fusion_of(conn, world.tenant_id) == Fusion("rrf", 0.25)
        assert fusion_of(conn, neighbour.tenant_id) == Fusion() == Fusion("convex", 0.4)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(Invalid, match="between 0 and 1"), writing(world.store) as conn:
            set_fusion(conn, world.tenant_id, Fusion("convex", weight))


def test_answers_are_asked_once_and_read_back_as_they_were(
    searcher: Searcher, collection: Collection, indexed: UUID, tmp_path: Path
) -> None:
    asked: list[SearchRequest] = []

    def ask() -> Answers:
        return ask_all(asker(searcher, asked), indexed, collection.golden, of(mode="dense"))

    first = kept(tmp_path / "legs", "key", ask)
    again = kept(tmp_path / "legs", "key", ask)
    assert first == again and len(asked) == len(collection.golden.queries)
    assert ordered(first, first.found["q1"])[0].external_id in {"d1", "d2", "d3"}
    (file,) = (tmp_path / "legs").iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_the_key_is_of_everything_that_answers_follow_from(
    world: World, pipeline: Pipeline, collection: Collection, indexed: UUID
) -> None:
    golden = collection.golden
    state = index_state(world.store, indexed, [SUBJECT])
    other = replace(golden, queries=tuple(replace(q, subject="user:ana@acme.example") for q in golden.queries))
    fewer = replace(golden, queries=(replace(golden.queries[0], query="else?"),))
    regraded = replace(golden, digest="other", name="other")
    key = cache_key(state, golden, of(mode="dense"), fused=False)
    keys = {
        cache_key(state, golden, of(mode="lexical"), fused=False),
        cache_key(state, golden, of(mode="dense"), fused=True),
        cache_key(state, other, of(mode="dense"), fused=False),
        cache_key(state, fewer, of(mode="dense"), fused=False),
        cache_key(index_state(world.store, world.tenant_id, [SUBJECT]), golden, of(mode="dense"), fused=False),
    }
    assert len(keys) == 5 and key not in keys
    assert cache_key(state, regraded, of(mode="dense"), fused=False) == key  # other judgements ask nothing else
    assert code_hash(fused=True) != code_hash(fused=False)


def test_the_index_and_the_grants_are_in_the_key(world: World) -> None:
    def state() -> dict[str, Any]:
        return index_state(world.store, world.tenant_id, ["user:ana@acme.example"])

    states = [state()]
    world.add("one", "a wing")
    states.append(state())
    world.add("hers", "a tail", ("group:staff",))
    states.append(state())
    world.groups({"group:staff": ["user:ana@acme.example"]})
    states.append(state())
    assert all(before != after for before, after in zip(states, states[1:], strict=False))
    assert state() == states[-1]


def test_an_answer_without_a_leg_is_no_measurement(
    world: World, searcher: Searcher, collection: Collection, indexed: UUID
) -> None:
    def degraded(principal: Principal, request: SearchRequest) -> SearchAnswer:
        return replace(search(searcher, principal, request), degraded=("lexical",))

    with pytest.raises(DeadlineExceeded, match="CITADEL_SEARCH_DEADLINE_S"):
        ask_all(degraded, indexed, collection.golden, of())


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(database_url: str, app_url: str, maintenance_url: str, tmp_path: Path) -> Callable[..., Any]:
    """`citadel …` on the test's database, which stands for a running stack."""
    env = {"CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MODEL": "fake",
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path / "state")}  # fmt: skip
    return lambda *arguments: CliRunner().invoke(citadel, [str(a) for a in arguments], env=env, catch_exceptions=False)


def test_run_and_legs_agree(world: World, run: Callable[..., Any], tmp_path: Path) -> None:
    world.add("ours", "a wing that lifts")
    folder = beir(tmp_path)
    told = json.loads(run("eval", "run", folder, "--json").stdout)
    assert told["ranked"] == "documents by their best passage" and told["scored"] == 1
    assert set(told["queries"][0]["documents"]) <= {"d1", "d2", "d3"}
    page = tmp_path / "quality.md"
    told_of_legs = json.loads(run("eval", "legs", folder, "--json", "--weights", "0.3", "--write", page).stdout)
    (table,) = told_of_legs["tables"]
    rows = {row["name"]: row["measures"] for row in table["rows"]}
    assert set(rows) == {"dense", "lexical", "RRF", "convex 0.3", "convex 0.4, the tenant's"}
    assert rows["convex 0.4, the tenant's"]["nDCG@10"]["mean"] == pytest.approx(told["measures"]["nDCG@10"])
    assert "## beir" in page.read_text() and "convex 0.3" in page.read_text()


def test_run_by_passages_with_chunks_of_a_size(world: World, run: Callable[..., Any], tmp_path: Path) -> None:
    text = " ".join(f"Sentence {number} is here." for number in range(20)) + "\nDucks swim."
    folder = chroma(tmp_path, text=text, start=text.index("Ducks"))
    told = json.loads(run("eval", "run", folder, "--chunk-chars", "80", "--json", "--mode", "lexical").stdout)
    assert told["ranked"].startswith("passages") and told["measures"]["nDCG@10"] == 1.0


def test_legs_of_several_parts_and_sizes_on_one_page(world: World, run: Callable[..., Any], tmp_path: Path) -> None:
    by_documents, by_spans = beir(tmp_path), chroma(tmp_path, questions=12)
    (by_documents / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td2\t1\n")
    page = tmp_path / "page.md"
    told = json.loads(run("eval", "legs", by_documents, f"{by_spans}@64", "--part", "test", "--part", "held", "--json",
                          "--write", page).stdout)  # fmt: skip
    # of a collection with a train split, what is held out is the test split: one table of it
    assert [(t["collection"], t["part"], t["chunk_chars"]) for t in told["tables"]] == [
        ("beir", "test", None), ("chroma", "test", 64), ("chroma", "held", 64),
    ]  # fmt: skip
    assert [line for line in page.read_text().splitlines() if line.startswith("## ")] == [
        "## In short", "## beir, test", "## chroma, test", "## chroma, held",
    ]  # fmt: skip


def test_a_tenants_fusion_is_shown_and_set(world: World, run: Callable[..., Any]) -> None:
    assert run("fusion").stdout == "convex, dense weight 0.4\n"
    assert run("fusion", "--dense-weight", "0.6").stdout == "convex, dense weight 0.6\n"
    assert run("fusion", "--method", "rrf").stdout == "rrf, k 60\n"
    assert run("fusion", "--rrf-k", "20").stdout == "rrf, k 20\n"
    assert run("fusion", "--method", "convex").stdout == "convex, dense weight 0.6\n"
    assert run("fusion", "--dense-weight", "1.5").exit_code == 2
    assert fetch(world, "SELECT count(*) FROM audit_log WHERE action = 'fusion.change'") == [(4,)]
