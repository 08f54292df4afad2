"""A LangChain retriever: cited passages as documents."""

from collections.abc import Mapping
from typing import Any

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
except ModuleNotFoundError as error:
    raise ImportError("this retriever needs LangChain: pip install 'citadel-client[langchain]'") from error

from citadel_client.client import CitadelClient
from citadel_client.records import Mode, Passage, SearchAnswer


class CitadelRetriever(BaseRetriever):
    """Searches a Citadel as its client may: give each user a retriever over `client.acting_for(user)`.

    A document's id is document:version:start-end; its metadata holds the citation, the score, the request's id and, in
    `degraded`, the stages that the search had to do without.
    """

    client: CitadelClient
    top_k: int = 8
    mode: Mode = "hybrid"
    filters: Mapping[str, Any] | None = None
    rerank: str | None = None
    max_tokens: int | None = None

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        answer = self.client.search(
            query,
            top_k=self.top_k,
            mode=self.mode,
            filters=self.filters,
            rerank=self.rerank,
            max_tokens=self.max_tokens,
        )
        return [document_of(passage, answer) for passage in answer.passages]


def document_of(passage: Passage, answer: SearchAnswer) -> Document:
    """The passage as a document."""
    metadata = {
        **passage.citation.as_metadata(),
        "score": passage.score,
        "request_id": answer.request_id,
        "degraded": list(answer.degraded),
    }
    return Document(id=passage.id, page_content=passage.text, metadata=metadata)
