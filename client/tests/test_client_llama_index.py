"""The LlamaIndex retriever, over HTTP to a fake."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import fake_citadel
import pytest

pytest.importorskip("llama_index.core", reason="the extra llama-index is not installed")

from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import MetadataMode, QueryBundle, TextNode

from citadel_client import CitadelClient, Labels, NewDocument, SearchAnswer
from citadel_client.llama_index import CitadelRetriever

ANA = "user:ana@acme.example"
QUESTION = "how are flights booked"


@pytest.fixture
def client(fake: tuple[str, fake_citadel.State]) -> Iterator[CitadelClient]:
    with CitadelClient(fake[0], fake_citadel.KEY) as made:
        labels = Labels(allow=(ANA,))
        text = "Flights are booked early.\n\nTrains need {no} booking."
        made.submit(NewDocument("travel", text, labels, title="Travel", uri="https://acme.example/t"))
        made.submit(NewDocument("board", "Flights of the board are booked by the office.", Labels()))
        yield made


@pytest.fixture
def ana(client: CitadelClient) -> CitadelClient:
    return client.acting_for(ANA)


def test_nodes_carry_the_citation(ana: CitadelClient) -> None:
    nodes = CitadelRetriever(ana).retrieve(QUESTION)
    answer = ana.search(QUESTION)
    assert [n.node.node_id for n in nodes] == [p.id for p in answer.passages]
    assert [n.score for n in nodes] == [p.score for p in answer.passages]
    first, cited = nodes[0].node, answer.passages[0].citation
    assert isinstance(first, TextNode)
    assert first.text == "Flights are booked early."
    assert first.ref_doc_id == str(cited.document_id)
    assert (first.start_char_idx, first.end_char_idx) == (cited.start, cited.end)
    expected = {
        "marker": "[1]",
        "document_id": str(cited.document_id),
        "external_id": "travel",
        "version": 1,
        "page": None,
        "start": 0,
        "end": len("Flights are booked early."),
        "uri": "https://acme.example/t",
        "title": "Travel",
    }
    assert {name: first.metadata[name] for name in expected} == expected


def test_a_node_has_the_same_id_and_hash_in_every_answer(ana: CitadelClient) -> None:
    first = {n.node.node_id: n.node for n in CitadelRetriever(ana).retrieve("flights flights early trains")}
    second = {n.node.node_id: n.node for n in CitadelRetriever(ana).retrieve("trains need booking flights")}
    assert len(first) == 2
    assert first.keys() == second.keys()
    for node_id, node in first.items():
        assert node.hash == second[node_id].hash
        assert node.metadata["marker"] != second[node_id].metadata["marker"]
    assert len({node.hash for node in first.values()}) == 2


def test_models_see_the_text_alone(ana: CitadelClient) -> None:
    for found in CitadelRetriever(ana).retrieve("trains booking flights"):
        text = found.node.get_content(MetadataMode.NONE)
        assert found.node.get_content(MetadataMode.EMBED) == text
        assert found.node.get_content(MetadataMode.LLM) == text
        assert "marker" in found.node.get_content(MetadataMode.ALL)


def test_chosen_keys_are_shown_to_the_language_model(ana: CitadelClient) -> None:
    node = CitadelRetriever(ana, llm_keys=("title",)).retrieve(QUESTION)[0].node
    assert node.get_content(MetadataMode.LLM) == "title: Travel\n\nFlights are booked early."
    assert node.get_content(MetadataMode.EMBED) == "Flights are booked early."


def test_a_retriever_sees_what_its_user_may_see(client: CitadelClient, ana: CitadelClient) -> None:
    assert {n.node.metadata["external_id"] for n in CitadelRetriever(ana).retrieve(QUESTION)} == {"travel"}
    assert CitadelRetriever(client.acting_for("user:ben@acme.example")).retrieve(QUESTION) == []
    operator = CitadelRetriever(client).retrieve(QUESTION)
    assert {n.node.metadata["external_id"] for n in operator} == {"travel", "board"}


def test_options_reach_the_search(ana: CitadelClient) -> None:
    assert len(CitadelRetriever(ana, top_k=1).retrieve("flights trains booked")) == 1
    assert CitadelRetriever(ana, filters={"source": "elsewhere"}).retrieve(QUESTION) == []
    node = CitadelRetriever(ana, rerank="one-that-is-slow").retrieve(QUESTION)[0].node
    assert node.metadata["degraded"] == ["rerank"]


def test_variants_of_the_question_are_searched_with_it(ana: CitadelClient) -> None:
    plain = CitadelRetriever(ana).retrieve("flights")
    both = CitadelRetriever(ana).retrieve(QueryBundle("flights", custom_embedding_strs=["flights", "trains"]))
    assert [n.node.text for n in plain] == ["Flights are booked early."]  # type: ignore[attr-defined]
    assert len(both) == 2


def test_the_asynchronous_form_answers_the_same_off_the_event_loop(
    ana: CitadelClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, search = [], ana.search

    def watched(query: str, **fields: Any) -> SearchAnswer:
        threads.append(threading.get_ident())
        return search(query, **fields)

    monkeypatch.setattr(ana, "search", watched)
    retriever = CitadelRetriever(ana)
    nodes = asyncio.run(retriever.aretrieve(QUESTION))
    assert [n.node.node_id for n in nodes] == [n.node.node_id for n in retriever.retrieve(QUESTION)]
    assert threads[0] != threading.get_ident() == threads[1]


def test_fusing_retrievers_knows_a_passage_again(ana: CitadelClient) -> None:
    """Under another marker it is the same passage: reciprocal rank fusion adds up its ranks (k = 60, ranks from 0)."""
    one = CitadelRetriever(ana)
    other = CitadelRetriever(ana, mode="dense")
    rrf = FUSION_MODES.RECIPROCAL_RANK
    fused = QueryFusionRetriever([one, other], MockLLM(), mode=rrf, num_queries=1, use_async=False).retrieve(QUESTION)
    assert len({n.node.node_id for n in fused}) == len(fused) == len(one.retrieve(QUESTION))
    assert fused[0].score == pytest.approx(2 / 60)


def test_without_llama_index_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['llama_index.core.callbacks'] = None\nimport citadel_client.llama_index"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "pip install 'citadel-client[llama-index]'" in run.stderr.splitlines()[-1]
