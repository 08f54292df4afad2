"""Chunking by a LlamaIndex node parser, whose nodes are mapped back to spans of the canonical text."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.errors import Misconfigured
from core.records import Chunk, ParsedDocument
from ingest.chunk import ChunkBudget, make_chunks
from ingest.outline import outline, trim
from ingest.split import Segment, Source, Span, Tokenizer, measure, split_span

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode


def chunk_with_llama(
    parsed: ParsedDocument, title: str | None, parser_name: str, budget: ChunkBudget, tokenizer: Tokenizer
) -> tuple[Chunk, ...]:
    """The parser's nodes as chunks, by position; they may overlap. A node over the budget is split.

    Pages and headings come from the document's elements. Raises Misconfigured for a name that is no node parser of
    llama-index-core, for one that cannot be set up by its name alone, and for one whose nodes are no spans of the text.
    """
    from llama_index.core import Document

    parser = _parser(parser_name, budget, tokenizer)
    nodes = parser.get_nodes_from_documents([Document(text=parsed.text)])
    source = Source(parsed.text, tokenizer)
    segments: list[Segment] = []
    for node in measure(source, _spans(parsed.text, nodes, parser_name), budget.limit):
        whole = node.fits(budget.limit)
        segments += [node] if whole else split_span(source, (node.start, node.end), "paragraph", budget.limit)
    return make_chunks(source, outline(parsed), segments, title, budget)


def _parser(name: str, budget: ChunkBudget, tokenizer: Tokenizer) -> Any:
    """The node parser of that name, with our budget and tokenizer where it takes them."""
    known = _known()
    if name not in known:
        raise Misconfigured(f"CITADEL_CHUNKER is {name!r}: set it to `structure` or one of {', '.join(sorted(known))}")
    wanted = {
        "chunk_size": budget.chunk_tokens,
        "chunk_overlap": budget.chunk_tokens // 10,  # their own default, 200, would repeat a whole chunk
        "tokenizer": lambda text: range(tokenizer.count_tokens([text])[0]),  # only its length is asked for
    }
    build = getattr(known[name], "from_defaults", known[name])
    taken = inspect.signature(build).parameters
    try:
        return build(**{key: value for key, value in wanted.items() if key in taken})
    except (ImportError, TypeError, ValueError) as error:
        raise Misconfigured(
            f"CITADEL_CHUNKER is {name!r}, which needs more than a token budget ({str(error).splitlines()[0][:200]}): "
            "set it to `structure`, SentenceSplitter, TokenTextSplitter, MarkdownNodeParser or SentenceWindowNodeParser"
        ) from error


def _known() -> dict[str, Any]:
    """The node parsers of llama-index-core by name, without those that would send the text to a model of their own."""
    from llama_index.core import node_parser

    return {
        name: value
        for name, value in vars(node_parser).items()
        if inspect.isclass(value)
        and issubclass(value, node_parser.NodeParser)
        and not inspect.isabstract(value)
        and not {"llm", "embed_model"} & set(value.model_fields)
    }


def _spans(text: str, nodes: Sequence["BaseNode"], name: str) -> list[Span]:
    """The nodes' spans without white space at the ends, by position, each once."""
    spans: set[Span] = set()
    position = 0
    for node in nodes:
        position, end = _span(text, node, position, name)
        span = trim(text, position, end)
        spans |= {span} if span else set()
    if text.strip() and not spans:
        raise Misconfigured(f"the node parser {name} finds nothing in this text: set CITADEL_CHUNKER to `structure`")
    return sorted(spans)


def _span(text: str, node: "BaseNode", position: int, name: str) -> Span:
    """Where the node's text stands: where it says, else where it next occurs, else where it first does."""
    content = node.get_content()
    said = getattr(node, "start_char_idx", None)
    for start in (said, text.find(content, position), text.find(content)):
        if start is not None and start >= 0 and text.startswith(content, start):
            return start, start + len(content)
    raise Misconfigured(
        f"the node parser {name} rewrites the text, so its nodes cannot be cited: set CITADEL_CHUNKER to `structure`"
    )
