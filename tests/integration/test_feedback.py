"""Feedback and sampled questions: whose they are, what is kept of them, and what takes them away."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.errors import NotFound
from core.feedback import Feedback
from core.records import Principal, SearchRequest
from ingest.erase import erase
from ingest.upkeep import Upkeep, run
from retrieval.redact import redacted
from retrieval.search import Searcher, search
from retrieval.traced import keep_feedback, sampled
from store import access, asked, audit
from store.asked import Asked, Tracing
from store.pool import reading_tenant, writing
from tests.conftest import Api, World
from tests.integration.rows import fetch

ANA, BEN = {"X-Citadel-Act-For": "user:ana"}, {"X-Citadel-Act-For": "user:ben"}
TEXT = "The heron nests at the weir from March on."


def kept(world: World) -> list[Asked]:
    with writing(world.store) as conn:
        return asked.listed(conn, world.tenant_id, None, 100)


def set_tracing(world: World, **to: Any) -> None:
    with writing(world.store) as conn:
        asked.set_tracing(conn, world.tenant_id, Tracing(**to))


def ask(api: Api, headers: dict[str, str], query: str = "where does the heron nest?", **more: Any) -> dict[str, Any]:
    answer = api.http.post("/v1/search", json={"query": query, **more}, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def tell(api: Api, headers: dict[str, str], **body: Any) -> Any:
    return api.http.post("/v1/feedback", json={key: str(v) if isinstance(v, UUID) else v for key, v in body.items()},
                         headers=headers)  # fmt: skip


@pytest.fixture
def agent(api: Api) -> dict[str, str]:
    return api.key("agent", "search", "act_for")


# --- whose it is ----------------------------------------------------------------------------------------------------


def test_only_who_asked_is_heard_and_everybody_else_hears_that_there_is_no_such_request(
    api: Api, agent: dict[str, str], neighbour: World
) -> None:
    api.world.add("heron", TEXT)
    mine = ask(api, agent | ANA)["request_id"]
    other_key = api.key("other", "search", "act_for")
    stranger = replace(api, world=neighbour).key("agent", "search", "act_for")  # of another tenant, named alike
    foreign = ask(api, stranger | ANA)["request_id"]
    absent = tell(api, agent | ANA, request_id=uuid4(), helpful=True, used=["[1]"])
    assert absent.status_code == 404 and absent.json()["code"] == "not_found"
    for headers, request_id in ((agent | BEN, mine), (agent, mine), (other_key | ANA, mine), (stranger | ANA, mine),
                                (agent | ANA, foreign)):  # fmt: skip
        for body in ({"helpful": True}, {"used": ["[99]"]}, {"query": "other words", "helpful": False}):
            refused = tell(api, headers, request_id=request_id, **body)
            assert (refused.status_code, refused.content) == (404, absent.content)
            assert sorted(refused.headers.items()) == sorted(absent.headers.items())
    assert kept(api.world) == [] and kept(neighbour) == []
    assert tell(api, agent | ANA, request_id=mine, helpful=True).json() == {"request_id": mine}
    no_search = api.key("writer", "ingest")
    assert tell(api, no_search, request_id=mine, helpful=True).status_code == 403
    told = "SELECT outcome, actor, acting_for FROM audit_log WHERE action = 'feedback' AND tenant_id = %s"
    rows = fetch(api.world, told + " AND resource = %s ORDER BY seq", api.world.tenant_id, f"request:{mine}")
    assert rows[-1] == ("ok", "service:agent", "user:ana") and {row[0] for row in rows[:-1]} == {"not_found"}


def test_a_closed_subject_says_nothing_more(api: Api, agent: dict[str, str]) -> None:
    mine = ask(api, agent | ANA)["request_id"]
    fetch(api.world, "INSERT INTO closed_subjects (tenant_id, subject) VALUES (%s, 'user:ana') RETURNING 1",
          api.world.tenant_id)  # fmt: skip
    assert tell(api, agent | ANA, request_id=mine, helpful=True).status_code == 403


def test_the_same_again_is_one_and_a_change_of_mind_replaces_it(api: Api, agent: dict[str, str]) -> None:
    first = api.world.add("heron", TEXT)
    mine = ask(api, agent | ANA)["request_id"]
    body = {"helpful": True, "used": ["[1]"], "missing": [{"document": "weir.md"}], "comment": "Just so."}
    for _ in range(3):
        assert tell(api, agent | ANA, request_id=mine, **body).status_code == 200
    (one,) = kept(api.world)
    assert (one.subject, one.used, one.helpful, one.comment) == ("user:ana", (1,), True, "Just so.")
    assert [m.document for m in one.missing] == ["weir.md"]
    assert [(p.document_id, p.version) for p in one.passages] == [(first.document_id, 1)]
    assert tell(api, agent | ANA, request_id=mine, helpful=False).status_code == 200
    (one,) = kept(api.world)
    assert (one.used, one.helpful, one.comment, one.missing) == ((), False, None, ())


def test_markers_are_those_of_the_answer(api: Api, agent: dict[str, str]) -> None:
    for number in range(3):
        api.world.add(f"heron-{number}", f"{TEXT} It is number {number} {'heron ' * number}.")
    answer = ask(api, agent | ANA)
    last = answer["passages"][-1]["citation"]
    assert tell(api, agent | ANA, request_id=answer["request_id"], used=[last["marker"]]).status_code == 200
    (one,) = kept(api.world)
    (used,) = (one.passages[marker - 1] for marker in one.used)
    assert (str(used.document_id), used.version, used.start, used.end) == (
        last["document_id"], last["version"], last["start"], last["end"])  # fmt: skip
    beyond = f"[{len(answer['passages']) + 1}]"
    assert tell(api, agent | ANA, request_id=answer["request_id"], used=[beyond]).status_code == 400


@pytest.mark.parametrize("body", [
    {}, {"helpful": "maybe"}, {"used": ["1"]}, {"used": ["[0]"]}, {"missing": [{}]}, {"comment": "x" * 4001},
    {"missing": [{"document": "d", "text": "t"}]}, {"missing": [{"document": "d"}] * 11}, {"comment": "nul \0"},
    {"helpful": True, "more": 1}, {"used": ["[1]"] * 101}, {"missing": [{"text": "x" * 4001}]},
])  # fmt: skip
def test_what_is_too_large_or_says_nothing_is_refused(api: Api, agent: dict[str, str], body: dict[str, Any]) -> None:
    mine = ask(api, agent | ANA)["request_id"]
    assert tell(api, agent | ANA, request_id=mine, **body).status_code in (400, 422)
    assert kept(api.world) == []


def test_the_words_of_a_question_are_taken_from_who_asked_and_checked(api: Api, agent: dict[str, str]) -> None:
    query = "does ben@acme.example know the heron?"
    mine = ask(api, agent | ANA, query)["request_id"]
    assert tell(api, agent | ANA, request_id=mine, helpful=True).status_code == 200
    assert kept(api.world)[0].query is None  # the audit has a hash alone
    assert tell(api, agent | ANA, request_id=mine, helpful=True, query="what he did not ask").status_code == 400
    assert tell(api, agent | ANA, request_id=mine, helpful=True, query=query).status_code == 200
    assert tell(api, agent | ANA, request_id=mine, helpful=False).status_code == 200  # does not forget them
    assert kept(api.world)[0].query == "does [email] know the heron?"
    with writing(api.world.store) as conn:
        audit.keep_queries(conn, api.world.tenant_id, True)
    mine = ask(api, agent | ANA, query)["request_id"]
    assert tell(api, agent | ANA, request_id=mine, helpful=True, comment="Call +49 170 1234567").status_code == 200
    newest = max(kept(api.world), key=lambda each: each.at)
    assert newest.query == "does [email] know the heron?" and newest.comment == "Call [phone]"


# --- sampled questions ----------------------------------------------------------------------------------------------


@pytest.fixture
def traced(searcher: Searcher) -> Searcher:
    return replace(searcher, traced=True)


def test_nothing_is_kept_unless_the_tenant_chose_so(traced: Searcher, searcher: Searcher, neighbour: World) -> None:
    world = replace(neighbour, tenant_id=neighbour.tenant_id)
    world.add("heron", TEXT)
    ana = world.who("user:ana")
    search(traced, ana, SearchRequest("heron"))
    assert kept(world) == []
    set_tracing(world, rate=1.0)
    search(searcher, ana, SearchRequest("heron"))  # as an evaluation does
    search(traced, replace(ana, bypass=True), SearchRequest("heron"))  # an operator's own sight
    assert kept(world) == []
    search(traced, ana, SearchRequest("the heron of ana@acme.example"))
    (one,) = kept(world)
    assert (one.subject, one.query, one.told) == ("user:ana", "the heron of [email]", False)
    assert len(one.passages) == 1 and one.used == ()


def test_as_many_are_kept_as_was_chosen() -> None:
    ids = [uuid4() for _ in range(20_000)]
    for rate in (0.0, 0.05, 0.5, 1.0):
        share = sum(sampled(each, rate) for each in ids) / len(ids)
        assert abs(share - rate) <= 4 * (rate * (1 - rate) / len(ids)) ** 0.5  # of a binomial, four deviations


def test_feedback_keeps_a_sampled_question_longer(world: World, traced: Searcher, tmp_path: Any) -> None:
    world.add("heron", TEXT)
    set_tracing(world, rate=1.0, days=30, feedback_days=90)
    told, untold, fresh = (search(traced, world.who("user:ana"), SearchRequest(f"heron {n}")) for n in range(3))
    keep_feedback(world.store, world.who("user:ana"), Feedback(told.request_id, helpful=True), uuid4())
    work = Upkeep(world.store, world.blobs, lambda profile: world.embedder)

    def left_after(days: int) -> set[str]:
        fetch(world, "UPDATE asked SET at = now() - make_interval(days => %s) WHERE request_id <> %s RETURNING 1",
              days, fresh.request_id)  # fmt: skip
        before = len(kept(world))
        (would,) = run(replace(work, dry_run=True), ["questions"])
        (did,) = run(work, ["questions"])
        assert would.counts["questions"] == did.counts["questions"] == before - len(kept(world))
        return {each.query or "" for each in kept(world)}

    assert left_after(29) == {"heron 0", "heron 1", "heron 2"}
    assert left_after(31) == {"heron 0", "heron 2"}
    assert left_after(91) == {"heron 2"}
    with writing(world.store) as conn:
        assert asked.forget(conn, world.tenant_id, "user:ben") == 0
        assert asked.forget(conn, world.tenant_id, "user:ana") == 1


# --- erasure --------------------------------------------------------------------------------------------------------


def test_an_erasure_takes_what_may_quote_the_document(world: World, traced: Searcher, searcher: Searcher) -> None:
    ana, words = world.who("user:ana"), "Call (030) 123 45 67 about the 5% weir_fee."
    heron, owl = world.add("heron", TEXT), world.add("owl", f"The owl hunts at night. {words}")
    set_tracing(world, rate=1.0)
    ids = {}
    for name, query, missing in (("answered", "heron", ()), ("named", "owl", ({"document": "heron"},)),
                                 ("quoted", "owl at night", ({"text": "nests at the weir"},)),
                                 ("apart", "owl hunts", ({"text": "nests at sea"}, {"document": "swan"}))):  # fmt: skip
        answer = search(traced, ana, SearchRequest(query, top_k=1, mode="lexical"))
        assert len(answer.passages) == 1
        ids[name] = answer.request_id
        told = asked.Feedback(answer.request_id, missing=tuple(asked.Missing(**m) for m in missing), comment=TEXT)
        keep_feedback(world.store, ana, told, uuid4())
    erase(world.store, world.blobs, world.tenant_id, heron.document_id, by="service:test")
    assert {each.request_id for each in kept(world)} == {ids["apart"]}
    # what is said of an answer after its document went is kept without a word
    keep_feedback(world.store, ana, Feedback(ids["answered"], helpful=False, comment=TEXT, query="heron"), uuid4())
    late = next(each for each in kept(world) if each.request_id == ids["answered"])
    assert (late.helpful, late.comment, late.query, late.passages, late.missing) == (False, None, None, (), ())
    # a quote that was redacted is found by the rest of it
    quoting = asked.Feedback(ids["apart"], missing=(asked.Missing(text=words),))
    keep_feedback(world.store, ana, quoting, uuid4())
    assert next(each for each in kept(world) if each.request_id == ids["apart"]).missing[0].text == redacted(words)
    swan = world.add("swan", f"Elsewhere: {words}")
    erase(world.store, world.blobs, world.tenant_id, swan.document_id, by="service:test")
    assert {each.request_id for each in kept(world)} == {ids["answered"]}
    erase(world.store, world.blobs, world.tenant_id, owl.document_id, by="service:test")


def test_no_reader_sees_any_of_it(world: World, traced: Searcher) -> None:
    world.add("heron", TEXT)
    set_tracing(world, rate=1.0)
    answer = search(traced, world.who("user:ana"), SearchRequest("heron"))
    keep_feedback(world.store, world.who("user:ana"), Feedback(answer.request_id, helpful=True), uuid4())
    for table in ("asked", "asked_passages", "feedback"):
        with pytest.raises(Exception, match="permission denied"), reading_tenant(world.store, world.tenant_id) as conn:
            access.enter_scope(conn, Principal(world.tenant_id, "service:top", bypass=True))
            conn.execute(f"SELECT * FROM {table}")  # type: ignore[arg-type]  # noqa: S608


def test_the_search_of_a_request_is_found_by_an_index(world: World, searcher: Searcher) -> None:
    search(searcher, world.who("user:ana"), SearchRequest("heron"))
    with writing(world.store) as conn:
        conn.execute("SET LOCAL enable_seqscan = off")
        plan = conn.execute("EXPLAIN " + asked.FIND, (uuid4(), world.tenant_id, "user:ana", None)).fetchall()
        assert any("request_id_idx" in row[0] for row in plan), plan
        with pytest.raises(NotFound):
            asked.find(conn, world.tenant_id, uuid4(), "user:ana", None)
