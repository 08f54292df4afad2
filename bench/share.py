"""A world like a file share: most documents have an access list of their own, and people stand in nested groups.

    python -m bench.share [--documents 200000] [--users 2000] [--groups 300] [--askers 100] [--json]

Loads it as maintenance, searches it as many people, empties one group, gives one folder's label set other labels and
moves another folder document by document. Every passage, and for some people every document they can list, is compared
with an evaluator of its own that reads none of the database's answers.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bench.world import Bench, Rows, bench_database, fill, server_url, unit_vectors
from core.labels import make_labels
from core.records import Labels, Mode, Principal, SearchRequest
from models.fake_embedder import FakeEmbedder
from retrieval.lexical import RankBm25Index
from retrieval.search import Searcher, search
from store import access, documents
from store.pool import Conn, reading_tenant, writing
from store.profiles import SCALE

WORDS = [f"word{number}" for number in range(4000)]
FOLDER_SHARE = 0.15  # of the documents are under their folder's label set; the others have a list of their own
LEXICAL_LIMIT = 5_000  # visible chunks up to which the reference engine's table is built for somebody
TOP_K = 50
LISTED = 12  # people whose whole listing is compared


@dataclass(slots=True)
class Share:
    """What is in the world, as the evaluator knows it."""

    labels: dict[str, Labels]  # by document
    folders: dict[str, list[str]]  # label set shared → documents
    folder_labels: dict[str, Labels]
    members: dict[str, list[str]]  # group → members
    clearances: dict[str, str]
    held: dict[str, frozenset[str]] = field(default_factory=dict)  # by person, until the groups change

    def sees(self, person: str, document: str) -> bool:
        """The reference: an allowed label held, no denied one, classification within clearance."""
        labels, held = self.labels[document], self.held_by(person)
        cleared = SCALE.index(labels.classification) <= SCALE.index(self.clearances.get(person, "internal"))
        return cleared and not held.isdisjoint(labels.allow) and held.isdisjoint(labels.deny)

    def held_by(self, person: str) -> frozenset[str]:
        """The person, `public`, and all groups above, by a fixed point."""
        if person not in self.held:
            above: dict[str, list[str]] = defaultdict(list)
            for group, members in self.members.items():
                for member in members:
                    above[member].append(group)
            found, waiting = {person, "public"}, [person, "public"]
            while waiting:
                for group in above[waiting.pop()]:
                    if group not in found:
                        found.add(group)
                        waiting.append(group)
            self.held[person] = frozenset(found)
        return self.held[person]


def invent(count: int, users: int, groups: int, seed: int = 3) -> Share:
    """A share: groups in a forest with some circles, everybody in a few, access lists of groups and people."""
    chance = random.Random(seed)
    people = [f"user:p{n}@acme.example" for n in range(users)]
    names = [f"group:g{n}" for n in range(groups)]
    members: dict[str, list[str]] = {name: [] for name in names}
    for number, name in enumerate(names[1:], start=1):
        if chance.random() < 0.7:
            members[names[chance.randrange(number)]].append(name)
    for _ in range(groups // 30):
        members[chance.choice(names)].append(chance.choice(names))
    for person in people:
        for name in chance.sample(names, chance.randint(1, 4)):
            members[name].append(person)
    clearances = {person: chance.choice(SCALE) for person in chance.sample(people, users // 5)}

    def own_list() -> Labels:
        allow = [*chance.sample(names, chance.randint(0, 2)), *chance.sample(people, chance.randint(1, 4))]
        deny = chance.sample([*names, *people], 1) if chance.random() < 0.1 else []
        return make_labels(allow, deny, chance.choices(SCALE, (1, 7, 2, 1))[0])

    share = Share({}, defaultdict(list), {}, members, clearances)
    for number in range(max(2, count // 1000)):
        share.folder_labels[f"folder{number}"] = make_labels(chance.sample(names, 2))
    for number in range(count):
        name, folder = f"d{number:07}", chance.choice(list(share.folder_labels))
        inherits = chance.random() < FOLDER_SHARE
        share.labels[name] = share.folder_labels[folder] if inherits else own_list()
        if inherits:
            share.folders[folder].append(name)
    return share


class Run:
    """One run: the world, who searches it, and what was found wrong."""

    def __init__(self, bench: Bench, share: Share, askers: int, seed: int = 4) -> None:
        self.bench, self.share = bench, share
        self.chance = random.Random(seed)
        self.searcher = Searcher(bench.store, FakeEmbedder(), RankBm25Index(bench.store), deadline_s=120)
        people = sorted({m for members in share.members.values() for m in members if m.startswith("user:")})
        self.askers = self.chance.sample(people, min(askers, len(people)))
        self.pairs = self.leaks = self.missing = 0

    def load(self) -> dict[str, object]:
        """Groups, label sets and documents."""
        chance, names = random.Random(5), list(self.share.labels)
        texts = [" ".join(chance.choices(WORDS, k=12)) for _ in names]
        vectors = unit_vectors(len(names), FakeEmbedder.dimensions, 6)
        started = time.perf_counter()
        self.load_groups()
        with writing(self.bench.store) as conn:
            ids = access.intern_many(conn, self.bench.tenant_id, set(self.share.labels.values()))
        fill(self.bench, Rows(names, [ids[self.share.labels[name]] for name in names], texts, vectors))
        seconds = time.perf_counter() - started
        return {"documents": len(names), "label_sets": len(ids), "load_s": round(seconds, 1),
                "documents_per_s": round(len(names) / seconds)}  # fmt: skip

    def load_groups(self) -> None:
        """Make the share's groups the tenant's."""
        self.share.held.clear()
        with writing(self.bench.store) as conn:
            access.replace_groups(conn, self.bench.tenant_id, self.share.members, self.share.clearances)

    def search_all(self) -> dict[str, object]:
        """Each asker's search, twice: the first resolves the scope; and by words where the engine is meant for it."""
        first, again, lexical, scopes = [], [], [], []
        for person in self.askers:
            first.append(_ms(lambda: self.ask(person, "dense")))  # noqa: B023
            again.append(_ms(lambda: self.ask(person, "dense")))  # noqa: B023
            scope = self.scope_size(person)
            scopes.append(scope)
            if scope <= LEXICAL_LIMIT:
                lexical.append(_ms(lambda: self.ask(person, "lexical")))  # noqa: B023
        return {"label_sets_visible": _spread(scopes), "first_search_ms": _spread(first),
                "next_search_ms": _spread(again), "lexical_search_ms": _spread(lexical),
                "lexical_askers": len(lexical)}  # fmt: skip

    def ask(self, person: str, mode: Mode) -> None:
        """One search; each of its passages is checked."""
        query = " ".join(self.chance.choices(WORDS, k=3))
        answer = search(self.searcher, self.who(person), SearchRequest(query, top_k=TOP_K, mode=mode))
        assert not answer.degraded
        self.check(person, (passage.citation.external_id for passage in answer.passages))

    def check(self, person: str, found: Iterable[str]) -> None:
        """Count what the evaluator says the person must not see."""
        for name in found:
            self.pairs += 1
            self.leaks += not self.share.sees(person, name)

    def list_all(self, people: Iterable[str]) -> None:
        """Everything that these people can list: nothing more, and nothing less, than the evaluator says."""
        for person in people:
            with reading_tenant(self.bench.store, self.bench.tenant_id) as conn:
                access.enter_scope(conn, self.who(person), self.bench.store.scopes)
                listed = {row[0] for row in conn.execute("SELECT external_id FROM documents").fetchall()}
            self.check(person, listed)
            self.missing += sum(self.share.sees(person, name) for name in self.share.labels if name not in listed)

    def scope_size(self, person: str) -> int:
        """How many label sets the person sees."""
        with reading_tenant(self.bench.store, self.bench.tenant_id) as conn:
            return len(access.enter_scope(conn, self.who(person), self.bench.store.scopes).label_set_ids)

    def who(self, person: str) -> Principal:
        """The person as a principal."""
        return Principal(self.bench.tenant_id, person)

    def empty_group(self) -> dict[str, object]:
        """The largest group loses its members; those who were in it search and list again."""
        group = max(self.share.members, key=lambda name: len(self.share.members[name]))
        affected = [m for m in self.share.members[group] if m.startswith("user:")][:LISTED]
        before = {person: self.scope_size(person) for person in affected}
        self.share.members[group] = []
        changed = _ms(self.load_groups)
        for person in affected:
            self.ask(person, "dense")
        self.list_all(affected)
        lost = sum(self.scope_size(person) < before[person] for person in affected)
        return {"emptied_ms": round(changed, 1), "members_checked": len(affected), "of_them_see_less": lost}

    def change_folder(self) -> dict[str, object]:
        """One folder's label set gets the labels of a person; its documents follow by one row."""
        folder, person = max(self.share.folders, key=lambda name: len(self.share.folders[name])), self.askers[0]
        old, new = self.share.folder_labels[folder], make_labels([person])
        with writing(self.bench.store) as conn:
            shared = access.intern_labels(conn, self.bench.tenant_id, old)
        changed = _ms(lambda: self.write(lambda conn: access.relabel_set(conn, self.bench.tenant_id, shared, new)))
        follow = [name for name, labels in self.share.labels.items() if labels == old]  # whoever shares the set
        self.share.labels.update(dict.fromkeys(follow, new))
        self.list_all([person, *self.askers[1:4]])
        return {"relabelled_set_ms": round(changed, 1), "documents_that_follow": len(follow)}

    def move_folder(self) -> dict[str, object]:
        """Another folder's documents move to another label set, each by its own row, in one transaction."""
        folders = sorted(self.share.folders, key=lambda name: (-len(self.share.folders[name]), name))
        names, person = self.share.folders[folders[1]], self.askers[0]
        new = make_labels([person, "group:g0"])

        def move(conn: Conn) -> None:
            rows = conn.execute("SELECT id FROM documents WHERE external_id = ANY(%s)", (names,)).fetchall()
            for (document_id,) in rows:
                documents.change_labels(conn, self.bench.tenant_id, document_id, new)

        changed = _ms(lambda: self.write(move))
        self.share.labels.update(dict.fromkeys(names, new))
        self.list_all([person, *self.askers[1:4]])
        return {"moved_ms": round(changed, 1), "documents_moved": len(names)}

    def write(self, change: Callable[[Conn], object]) -> None:
        """A change in a transaction of its own."""
        with writing(self.bench.store) as conn:
            change(conn)


def measure(count: int, users: int, groups: int, askers: int) -> dict[str, object]:
    """The whole run on a server of its own."""
    with server_url() as server, bench_database(server, "share") as bench:
        return run(bench, invent(count, users, groups), askers)


def run(bench: Bench, share: Share, askers: int) -> dict[str, object]:
    """Load, search, list, empty a group, change and move a folder, search again; times, and what was wrong."""
    one = Run(bench, share, askers)
    try:
        outcome = {"users": len({m for ms in share.members.values() for m in ms if m.startswith("user:")}),
                   "groups": len(share.members), **one.load(), **one.search_all()}  # fmt: skip
        one.list_all(one.askers[:LISTED])
        outcome |= {**one.empty_group(), **one.change_folder(), **one.move_folder()}
        outcome["search_after_changes"] = one.search_all()
    finally:
        one.searcher.threads.shutdown()
    return {**outcome, "pairs_checked": one.pairs, "leaks": one.leaks, "missing": one.missing, "cores": os.cpu_count()}


def _ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def _spread(values: list[float] | list[int]) -> dict[str, float]:
    if not values:
        return {}
    return {"p50": round(statistics.median(values), 1), "max": round(max(values), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--groups", type=int, default=300)
    parser.add_argument("--askers", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcome = measure(options.documents, options.users, options.groups, options.askers)
    text = json.dumps(outcome) if options.json else "\n".join(f"{k:22} {v}" for k, v in outcome.items())
    print(text)
    raise SystemExit(1 if outcome["leaks"] or outcome["missing"] else 0)


if __name__ == "__main__":
    main()
