"""The LangChain retriever, over HTTP to a fake."""

import asyncio
import subprocess
import sys

import fake_citadel
import pytest

from citadel_client import CitadelClient, Labels, NewDocument

ANA = "user:ana@acme.example"


def test_documents_carry_the_citation(fake: tuple[str, fake_citadel.State]) -> None:
    pytest.importorskip("langchain_core", reason="the extra langchain is not installed")
    from citadel_client.langchain import CitadelRetriever

    with CitadelClient(fake[0], fake_citadel.KEY) as client:
        client.submit(NewDocument("travel", "Flights are booked early.", Labels(allow=(ANA,)), title="Travel"))
        client.submit(NewDocument("board", "Flights of the board are booked by the office.", Labels()))
        retriever = CitadelRetriever(client=client.acting_for(ANA), top_k=3, rerank="one-that-is-slow")
        documents = retriever.invoke("flights booked")
        passage = client.acting_for(ANA).search("flights booked").passages[0]
        later = asyncio.run(retriever.ainvoke("flights booked"))
        assert CitadelRetriever(client=client.acting_for("user:ben@acme.example")).invoke("flights booked") == []
    assert [(d.id, d.page_content) for d in documents] == [(passage.id, "Flights are booked early.")]
    assert [d.id for d in later] == [passage.id]
    metadata = documents[0].metadata
    assert {name: metadata[name] for name in passage.citation.as_metadata()} == passage.citation.as_metadata()
    assert (metadata["score"], metadata["degraded"]) == (passage.score, ["rerank"])
    assert fake_citadel.KEY not in repr(retriever)


def test_without_langchain_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['langchain_core.callbacks'] = None\nimport citadel_client.langchain"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "pip install 'citadel-client[langchain]'" in run.stderr.splitlines()[-1]
