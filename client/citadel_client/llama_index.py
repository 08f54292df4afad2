"""A LlamaIndex retriever: cited passages as nodes."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

try:
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
except ModuleNotFoundError as error:
    raise ImportError("this retriever needs LlamaIndex: pip install 'citadel-client[llama-index]'") from error

from citadel_client.client import CitadelClient
from citadel_client.records import Mode, Passage, SearchAnswer


class PassageNode(TextNode):
    """A passage. Its hash is that of its place, so that fusing retrievers knows it again under another marker."""

    @property
    def hash(self) -> str:
        """Hexadecimal SHA-256 of the id. TextNode's own covers the metadata, and markers differ between answers."""
        return sha256(self.id_.encode()).hexdigest()


class CitadelRetriever(BaseRetriever):
    """Searches a Citadel as its client may: give each user a retriever over `client.acting_for(user)`.

    A node's id is document:version:start-end; its metadata holds the citation, the request's id and, in `degraded`, the
    stages that the search had to do without. Models see the text alone, but for the metadata keys in `llm_keys`.
    Texts in a query bundle's `custom_embedding_strs` are searched as variants of the question.
    """

    def __init__(
        self,
        client: CitadelClient,
        *,
        top_k: int = 8,
        mode: Mode = "hybrid",
        filters: Mapping[str, Any] | None = None,
        rerank: str | None = None,
        max_tokens: int | None = None,
        llm_keys: Sequence[str] = (),
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self._search = partial(
            client.search, top_k=top_k, mode=mode, filters=filters, rerank=rerank, max_tokens=max_tokens
        )
        self._llm_keys = tuple(llm_keys)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        question = query_bundle.query_str
        variants = [text for text in query_bundle.custom_embedding_strs or () if text != question]
        answer = self._search(question, queries=variants)
        return [node_of(passage, answer, self._llm_keys) for passage in answer.passages]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def node_of(passage: Passage, answer: SearchAnswer, llm_keys: Sequence[str] = ()) -> NodeWithScore:
    """The passage as a scored node."""
    citation = passage.citation
    metadata = {**citation.as_metadata(), "request_id": answer.request_id, "degraded": list(answer.degraded)}
    node = PassageNode(
        id_=passage.id,
        text=passage.text,
        start_char_idx=citation.start,
        end_char_idx=citation.end,
        extra_info=metadata,  # the alias of `metadata`
        excluded_embed_metadata_keys=list(metadata),
        excluded_llm_metadata_keys=[key for key in metadata if key not in llm_keys],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=str(citation.document_id))},
    )
    return NodeWithScore(node=node, score=passage.score)
