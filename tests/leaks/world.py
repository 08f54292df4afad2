"""Generated worlds: tenants, nested groups with circles, label sets, documents with canaries; and who may see what.

The reference evaluator is independent of the product: it shares the records' names with it and no code.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from core.records import Labels, Principal, Submission, Submitted
from ingest.erase import erase
from store import documents, sources
from store.pool import writing
from store.profiles import ensure_tenant
from tests.conftest import World

SCALE = ("public", "internal", "confidential", "restricted")
PEOPLE = tuple(f"user:u{n}" for n in range(6))
GROUPS = tuple(f"group:g{n}" for n in range(6))
BOT = "service:bot"
COMMON = "ledger"  # a word of every document
WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "knoll", "larch", "marsh")
FATES = ("plain", "plain", "moved", "replaced", "pending", "deleted")

# --- the reference ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grants:
    """A tenant's (member, group) pairs, its clearances, and whom its directory deactivated."""

    memberships: frozenset[tuple[str, str]] = frozenset()
    clearances: tuple[tuple[str, str], ...] = ()
    closed: frozenset[str] = frozenset()


def held_by(grants: Grants, subject: str, claims: Iterable[str] = ()) -> set[str]:
    """The subject, `public`, what its token claims, and every group reached, by a fixed point; of the closed, none."""
    if subject in grants.closed:
        return set()
    held = {subject, "public", *claims}
    while more := {group for member, group in grants.memberships if member in held} - held:
        held |= more
    return held


def may_see(grants: Grants, who: Principal, labels: Labels) -> bool:
    """Allowed within the ceiling, not denied, cleared by subject and key; an operator is bound by its key alone."""
    allow, ceiling = set(labels.allow), who.ceiling
    limits = [] if who.max_classification is None else [who.max_classification]
    if who.bypass:
        opened = ceiling is None or bool(allow & set(ceiling))
    else:
        held = held_by(grants, who.subject, who.claims)
        opened = bool(allow & (held if ceiling is None else held & set(ceiling))) and not held & set(labels.deny)
        limits.append(dict(grants.clearances).get(who.subject, "internal"))
    return opened and all(SCALE.index(labels.classification) <= SCALE.index(limit) for limit in limits)


def meet(old: Labels, new: Labels) -> Labels:
    """What is in force between the submission of a version with other labels and its indexing."""
    return Labels(tuple(sorted(set(old.allow) & set(new.allow))), tuple(sorted(set(old.deny) | set(new.deny))),
                  max(old.classification, new.classification, key=SCALE.index))  # fmt: skip


# --- what is in a world -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """A document as it stands: `labels` in force, and `canary` in its title, text, external id, uri and metadata."""

    tenant_id: UUID
    id: UUID
    external_id: str
    canary: str
    labels: Labels | None  # None: nobody sees it, for it is deleted
    current: int = 1


@dataclass(frozen=True, slots=True)
class Secret:
    """A word that stands in something of a document, and the label sets that all must admit whoever is told it."""

    tenant_id: UUID
    canary: str
    needs: tuple[Labels, ...]
    item: Item
    version: int
    nobody: bool = False  # deleted, or not indexed yet


@dataclass(frozen=True, slots=True)
class Realm:
    """A tenant with its grants and documents."""

    world: World
    grants: Grants
    items: tuple[Item, ...]
    secrets: tuple[Secret, ...]


def admits(realm: Realm, who: Principal, secret: Secret) -> bool:
    """Whether the reference lets the principal be told the secret."""
    same = who.tenant_id == secret.tenant_id == realm.world.tenant_id
    return same and not secret.nobody and all(may_see(realm.grants, who, labels) for labels in secret.needs)


def make_grants(chance: random.Random) -> Grants:
    """Random memberships, among them a circle of three groups and a group within itself."""
    pairs = {(chance.choice((*PEOPLE[:5], BOT, *GROUPS)), chance.choice(GROUPS)) for _ in range(14)}
    circle = chance.sample(GROUPS, 3)
    pairs |= {(circle[0], circle[1]), (circle[1], circle[2]), (circle[2], circle[0]), (circle[0], circle[0])}
    cleared = chance.sample(PEOPLE, 3)
    return Grants(frozenset(pairs), tuple((who, chance.choice(SCALE)) for who in cleared))


def make_label_set(chance: random.Random) -> Labels:
    """One or two that may, often one that may not, mostly at a classification that many reach."""
    pool = (*PEOPLE, *GROUPS, *GROUPS, BOT, "public")
    allow = chance.sample(pool, chance.randint(0, 3) or 1)
    deny = chance.sample((*PEOPLE, *GROUPS), 1) if chance.random() < 0.35 else []
    return Labels(tuple(sorted(set(allow))), tuple(deny), chance.choices(SCALE, (3, 6, 2, 1))[0])


def canary_word(seed: int, number: int) -> str:
    """A word that nothing else in a world contains."""
    return f"zq{random.Random(f'{seed}/{number}').getrandbits(48):012x}qz"


def store_grants(world: World, grants: Grants) -> None:
    """Make these the tenant's."""
    members = {group: [m for m, above in sorted(grants.memberships) if above == group] for group in GROUPS}
    world.groups(members, dict(grants.clearances))


def source_of(external_id: str) -> str:
    """One of two sources, by the name."""
    return "left" if external_id[-3] in "02468ace" else "right"


def put(world: World, external_id: str, canary: str, text: str, labels: Labels, metadata: str = "") -> Submitted:
    """Submit a document each part of which holds the canary; `metadata` holds its own."""
    submission = Submission(external_id, text.encode(), labels, source_of(external_id), f"Title {canary}", "text/plain",
                            uri=f"x:{external_id}", metadata={"secret": metadata or canary, "n": 1})  # fmt: skip
    key = world.blobs.put(submission.content)
    with writing(world.store) as conn:
        source = sources.ensure_api_source(conn, world.tenant_id, submission.source).id
        return documents.submit(conn, world.tenant_id, source, submission, key)


def generate(world: World, seed: int, tenants: Sequence[str] = ("rival",), size: int = 30) -> tuple[Realm, ...]:
    """The world's tenant and the named ones, `size` documents each, from the seed alone."""
    chance = random.Random(seed)
    with writing(world.store) as conn:
        ids = [world.tenant_id, *(ensure_tenant(conn, name, world.profile.id) for name in tenants)]
    shared = [make_label_set(chance) for _ in range(size // 2)]  # the same sets in each: a forgotten tenant shows
    realms = [_realm(replace(world, tenant_id=tid), seed, n * 10_000, size, shared) for n, tid in enumerate(ids)]
    return tuple(realms)


def _realm(world: World, seed: int, base: int, size: int, shared: Sequence[Labels]) -> Realm:
    chance = random.Random(f"{seed}/{base}")
    grants = make_grants(chance)
    store_grants(world, grants)
    made = [_document(world, chance, seed, base + 3 * n, FATES[n % len(FATES)], shared) for n in range(size)]
    return Realm(world, grants, tuple(item for item, _ in made), tuple(s for _, secrets in made for s in secrets))


def _document(
    world: World, chance: random.Random, seed: int, number: int, fate: str, shared: Iterable[Labels]
) -> tuple[Item, list[Secret]]:
    """A document that went through its fate, and the words that tell of it."""
    word, older, newer = (canary_word(seed, number + n) for n in range(3))
    before, labels = chance.choice(list(shared)), chance.choice(list(shared))
    name = f"doc-{word}"
    first = put(world, name, older if fate == "replaced" else word, _text(chance, older), before, word)
    world.index(first)
    item, secrets = Item(world.tenant_id, first.document_id, name, word, before), []
    if fate == "moved":
        with writing(world.store) as conn:
            documents.change_labels(conn, world.tenant_id, item.id, labels)
        item = replace(item, labels=labels)
    elif fate == "replaced":
        world.index(put(world, name, word, _text(chance, newer), labels))
        item = replace(item, labels=labels, current=2)
        secrets.append(Secret(world.tenant_id, newer, (labels,), item, 2))
    elif fate == "pending":
        put(world, name, newer, _text(chance, newer), labels, word)
        item = replace(item, labels=before if labels == before else meet(before, labels))
        secrets.append(Secret(world.tenant_id, newer, (), item, 2, nobody=True))
    elif fate == "deleted":
        erase(world.store, world.blobs, world.tenant_id, item.id, by="service:test")
        item = replace(item, labels=None)
    force = () if item.labels is None else (item.labels,)
    gone = item.labels is None
    old = force
    if fate in ("replaced", "pending"):  # what a wider version replaced stays closed, a narrower one closes it for good
        old = (*force, before if before == labels else meet(before, labels))
    secrets.append(Secret(world.tenant_id, older, old, item, 1, gone))
    secrets.append(Secret(world.tenant_id, word, force, item, item.current, gone))
    return item, secrets


def _text(chance: random.Random, canary: str) -> str:
    return f"The {COMMON} of {' '.join(chance.sample(WORDS, 4))} keeps {canary} for good."
