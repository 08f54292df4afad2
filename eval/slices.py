"""Which slices a question belongs to: by tag, source, format, language, asker, and how much the asker may see."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from core.records import Principal
from eval.golden import GoldenSet
from store import access, golden
from store.chunks import Scan
from store.pool import Store, reading_tenant, writing
from store.profiles import live_profile
from store.vectors import outlook, rows_of_all

SHARES = ((0.01, "≤ 1 %"), (0.1, "≤ 10 %"), (0.5, "≤ 50 %"), (1.0, "≤ 100 %"))
MOST_ASKERS = 20  # with more of them a slice each tells nothing


def slices_of(store: Store, tenant_id: UUID, questions: GoldenSet) -> dict[str, tuple[str, ...]]:
    """By question id, names such as `source:handbook`. Of a question's documents those that are relevant count."""
    names = sorted({document for query in questions.queries for document in query.gains()})
    with writing(store) as conn:
        facts = golden.facts(conn, tenant_id, names)
    subjects = {query.subject for query in questions.queries}
    visible = visible_shares(store, tenant_id, subjects)
    found = {}
    for query in questions.queries:
        of = [f"tag:{tag}" for tag in query.tags]
        of += _told(facts[document] for document in query.gains() if document in facts)
        of += [f"as:{query.subject}"] if 1 < len(subjects) <= MOST_ASKERS else []
        of.append(f"visible:{next(told for share, told in SHARES if visible[query.subject] <= share)}")
        found[query.id] = tuple(dict.fromkeys(of))
    return found


def visible_shares(store: Store, tenant_id: UUID, subjects: Iterable[str]) -> Mapping[str, float]:
    """Of the live index's chunks the share that each subject may see; 0 where there are none."""
    with writing(store) as conn:
        profile = live_profile(conn, tenant_id)
        every = rows_of_all(conn, tenant_id, profile.id)
    shares = {}
    for subject in sorted(subjects):
        with reading_tenant(store, tenant_id) as conn:
            scope = access.enter_scope(conn, Principal(tenant_id, subject))
            shares[subject] = min(1.0, outlook(conn, Scan(scope, profile.id)).visible / every) if every else 0.0
    return shares


def _told(facts: Iterable[tuple[str, str, str | None]]) -> list[str]:
    told = []
    for source, mime_type, language in facts:
        told += [f"source:{source}", f"format:{mime_type}", *([f"language:{language}"] if language else [])]
    return told
