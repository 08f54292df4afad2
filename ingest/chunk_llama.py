"""Chunking by a LlamaIndex node parser, whose nodes are mapped back to spans of the canonical text."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.errors import Misconfigured
from ingest.outline import trim
from ingest.split import Limit, Segment, Source, Span, Tokenizer, measure, split_span

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode


def node_segments(source: Source, parser_name: str, limit: Limit) -> list[Segment]:
    """The parser's nodes as spans of the text, by position; a node over the limit is split. Those of some overlap.

    Raises Misconfigured for a name that is no node parser of llama-index-core, for one that cannot be set up by its
    name alone, and for one whose nodes are no spans of the text.
    """
    from llama_index.core import Document

    nodes = _parser(parser_name, limit, source.tokenizer).get_nodes_from_documents([Document(text=source.text)])
    segments: list[Segment] = []
    for node in measure(source, _spans(source.text, nodes, parser_name), limit):
        segments += [node] if node.fits(limit) else split_span(source, (node.start, node.end), "paragraph", limit)
    return segments


def _parser(name: str, limit: Limit, tokenizer: Tokenizer) -> Any:
    """The node parser of that name, with our budget and tokenizer where it takes them."""
    known = _known()
    if name not in known:
        raise Misconfigured(f"CITADEL_CHUNKER is {name!r}: set it to `structure` or one of {', '.join(sorted(known))}")
    wanted = {
        "chunk_size": limit.tokens,
        "chunk_overlap": 0,  # only then is it certain where a node stands in a text that repeats itself
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
    end = 0
    for node in nodes:
        start, end = _span(text, node, end, name)
        span = trim(text, start, end)
        spans |= {span} if span else set()
    if text.strip() and not spans:
        raise Misconfigured(f"the node parser {name} finds nothing in this text: set CITADEL_CHUNKER to `structure`")
    return sorted(spans)


def _span(text: str, node: "BaseNode", before: int, name: str) -> Span:
    """Where the node's text stands: next to the node that ended at `before`, else where it says, else where it is.

    What it says is not asked first: LlamaIndex looks from one character after the start of the node before, which is
    the wrong place in a text that repeats itself.
    """
    content = node.get_content()
    following = text.find(content, before)
    if following >= 0 and not text[before:following].strip():
        return following, following + len(content)
    for start in (getattr(node, "start_char_idx", None), following, text.find(content)):
        if start is not None and start >= 0 and text.startswith(content, start):
            return start, start + len(content)
    raise Misconfigured(
        f"the node parser {name} rewrites the text, so its nodes cannot be cited: set CITADEL_CHUNKER to `structure`"
    )
