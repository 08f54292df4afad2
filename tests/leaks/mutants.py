"""`make mutants`: take one isolation out of a copy of the tree, and see which test notices.

A mutant of the database is a migration that is added to the copy, so that the throw-away databases of its tests have
it; a mutant of the code is a textual patch. Each runs against KILL_LIST until its first failure. One that no test
notices survives: a test is missing. One that stops the tests from starting is broken, and kills nothing.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In the order in which they are asked, the quickest killers first: most mutants die in the seconds that servers take to
# start. The leak suite comes last.
CACHE, AUDIT = "tests/integration/test_scope_cache.py", "tests/integration/test_audit.py"
KILL_LIST = (
    "tests/unit/test_labels.py",
    "tests/unit/test_scopes.py",
    "tests/integration/test_scope_identity.py",
    "tests/integration/test_access.py",
    f"{CACHE}::test_a_kept_scope_asks_the_definition_no_second_time",
    f"{CACHE}::test_what_a_transaction_resolves_of_its_own_changes_is_not_kept",
    f"{AUDIT}::test_a_search_leaves_who_for_whom_what_and_through_which_label_sets",
    f"{AUDIT}::test_reads_leave_a_row_each",
    "tests/integration/test_token_attacks.py::test_every_attack_is_refused_with_the_same_bytes",
    "tests/integration/test_token_attacks.py::test_a_closed_users_token_opens_no_route_even_one_without_documents",
    "tests/integration/test_feedback.py",
    "tests/integration/test_suggest.py::test_what_the_asker_sees_no_more_is_not_suggested",
    "tests/integration/test_identity.py",
    "tests/integration/test_api_access.py",
    "tests/integration/test_publication.py",
    "tests/integration/test_label_order.py",
    "tests/integration/test_attachments.py",
    "tests/integration/test_reader_role.py",
    "tests/integration/test_safety.py",
    "tests/integration/test_recall.py",
    "tests/leaks/test_leaks.py::test_no_probe_leaks",
    "tests/leaks/test_paired_worlds.py::test_hidden_documents_change_no_byte",
    "tests/leaks/test_stateful.py",
)
TREE = ("api", "cli", "core", "embedded", "eval", "examples", "ingest", "models", "retrieval", "store", "tests",
        "workers", "bench", "client", "docs", "pyproject.toml")  # fmt: skip
LIMIT_S = 600
FAILED = re.compile(r"^(FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is taken out: SQL for a migration of the copy, or a file's text and what stands there instead."""

    name: str
    sql: str = ""
    path: str = ""
    old: str = ""
    new: str = ""
    more: tuple[tuple[str, str, str], ...] = ()  # (file, text, replacement): what two places check

    @property
    def patches(self) -> tuple[tuple[str, str, str], ...]:
        """(file, text, replacement) of each textual patch."""
        return ((self.path, self.old, self.new), *self.more) if self.path else ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """killed, survived or broken; by which test; in how many seconds."""

    mutant: str
    fate: str
    by: str
    seconds: float


def _function(name: str, old: str, new: str) -> str:
    """The function (or procedure) redefined with a part replaced; an error if the part is not there."""
    return f"""
        DO $mutant$
        DECLARE old text := pg_get_functiondef('{name}'::regproc);
                new text := replace(old, $x${old}$x$, $x${new}$x$);
        BEGIN
            IF old = new THEN RAISE EXCEPTION 'the mutant changes nothing'; END IF;
            EXECUTE new;
        END $mutant$;
    """


BEGIN = """connection() as conn:
        ClientCursor(conn).execute(START_TENANT"""
LIVE = "(expires_at IS NULL OR expires_at > now())"
TENANT = "tenant_id = (SELECT scope_tenant())"
SETS = "label_set_id IN (SELECT unnest(scope_label_sets()))"


def _open(table: str) -> Mutant:
    return Mutant(f"policy of {table}: USING (true)", sql=f"ALTER POLICY reader ON {table} USING (true);")


def _off(table: str) -> Mutant:
    return Mutant(f"row security of {table} off", sql=f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;")


def _unforced(table: str) -> Mutant:
    return Mutant(f"FORCE of {table} dropped", sql=f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;")


def _visible(name: str, old: str, new: str) -> Mutant:
    return Mutant(name, sql=_function("visible_label_sets", old, new))


def _code(name: str, path: str, old: str, new: str, *more: tuple[str, str, str]) -> Mutant:
    return Mutant(name, path=path, old=old, new=new, more=more)


def _unkeyed(part: str, line: str, after: str) -> Mutant:
    """A field of Principal is no longer compared, so it is no part of the key that a scope is kept by."""
    default = after.removeprefix(" = ")
    given = f"default={default}, " if default != after else ""
    rest = line.partition(after)[2] if given else after + line.partition(after)[2]
    new = f"{line.partition(after)[0]} = field({given}compare=False){rest}"
    return Mutant(f"a kept scope's key without the {part}", path="core/records.py", old=line, new=new)


MUTANTS = (
    # the database
    *map(_off, ("documents", "versions", "chunks", "label_sets", "jobs", "sources")),
    *map(_open, ("documents", "versions", "chunks", "memberships", "change_log")),
    *map(_unforced, ("documents", "chunks", "clearances")),
    Mutant("policy of documents dropped", sql="DROP POLICY reader ON documents;"),
    Mutant("policy of documents: the tenant alone", sql=f"ALTER POLICY reader ON documents USING ({TENANT});"),
    Mutant("policy of documents: the labels alone", sql=f"ALTER POLICY reader ON documents USING ({SETS});"),
    Mutant("policy of versions: the document alone", sql="ALTER POLICY reader ON versions USING (EXISTS (SELECT FROM "
           "documents d WHERE d.id = document_id));"),
    Mutant("policy of versions: its own labels alone", sql=f"ALTER POLICY reader ON versions USING ({SETS});"),
    Mutant("vectors: no protection", sql=_function("add_profile", "CALL protect(vectors::regclass,",
                                                    "PERFORM format('%s %s', vectors,")),
    Mutant("vectors: labels forgotten", sql=_function("add_profile", f"{TENANT} AND ' || in_scope()", f"{TENANT}'")),
    Mutant("token codes: no protection", sql=_function("add_tokens", "CALL protect(tokens::regclass,",
                                                       "PERFORM format('%s %s', tokens,")),
    Mutant("token codes: every document's", sql=_function("add_tokens", "d.id = document_id", "true")),
    Mutant("the application may act as maintenance", sql="GRANT UPDATE ON documents TO citadel_app; "
           "CREATE POLICY more ON documents FOR UPDATE TO citadel_app USING (true);"),
    _visible("deny forgotten", "AND NOT s.deny && mine.held", ""),
    _visible("deny seen through the ceiling", "NOT s.deny && mine.held", "NOT s.deny && mine.usable"),
    _visible("allow and deny swapped", "s.allow && mine.usable\n      AND NOT s.deny && mine.held",
             "s.deny && mine.usable\n      AND NOT s.allow && mine.held"),
    _visible("the tenant forgotten", "WHERE s.tenant_id = p_tenant\n      AND s.xid", "WHERE s.xid"),
    _visible("the clearance skipped", "AND c.rank <= mine.subject_rank", ""),
    _visible("the clearance one too high", "c.rank <= mine.subject_rank", "c.rank <= mine.subject_rank + 1"),
    _visible("the key's clearance skipped", "AND (p_max_classification IS NULL OR c.rank <= mine.key_rank)", ""),
    _visible("the ceiling skipped", "s.allow && mine.usable", "s.allow && mine.held"),
    _visible("allow means all or any: contained", "s.allow && mine.usable", "s.allow <@ mine.usable"),
    Mutant("groups of every tenant", sql=_function("held_labels", "WHERE m.tenant_id = p_tenant", "")),
    Mutant("members of a group hold its members", sql=_function("held_labels",
           "SELECT m.group_label FROM memberships m JOIN held h ON m.member = h.label",
           "SELECT unnest(ARRAY[m.group_label, m.member]) FROM memberships m JOIN held h "
           "ON h.label IN (m.member, m.group_label)")),
    Mutant("nested groups not followed", sql=_function("held_labels", "m.member = h.label",
                                                        "m.member = h.label AND h.label = p_subject")),
    Mutant("the closed hold labels", sql=_function("held_labels", "tenant_id = p_tenant AND subject IN",
                                                   "false AND subject IN")),
    # the code
    _code("bypass for all", "store/access.py", "EVERY if principal.bypass else VISIBLE", "EVERY"),
    _code("bypass beyond the ceiling", "store/access.py", "AND (%(ceiling)s::text[] IS NULL OR s.allow && %(ceiling)s)",
          "AND (%(ceiling)s::text[] IS NULL OR true)"),
    _code("an operator keeps its bypass in a user's name", "api/deps.py",
          "key.ceiling, key.max_classification, via=service)",
          'key.ceiling, key.max_classification, via=service, bypass="operate" in key.scopes)'),
    _code("act_for scope not checked", "api/deps.py", 'if "act_for" not in key.scopes:', "if False:"),
    _code("require_act_for not checked", "api/deps.py", "if key.require_act_for:", "if False:"),
    _code("any label may be acted for", "api/deps.py", 'if not user.startswith("user:"):', "if False:"),
    _code("the ceiling lost when acting for a user", "api/deps.py", "_end_user(act_for[0]), key.ceiling,",
          "_end_user(act_for[0]), None,"),
    _code("scopes of a key not checked", "api/deps.py", "if not self.scopes & caller.scopes:", "if False:"),
    _code("writes in a user's name", "api/deps.py", "if self.itself and caller.delegated:", "if False:"),
    _code("a revoked key lives", "store/keys.py", f"AND revoked_at IS NULL AND {LIVE}\n\"", f"AND {LIVE}\n\""),
    _code("an expired key lives", "store/keys.py", f"AND revoked_at IS NULL AND {LIVE}\n\"",
          "AND revoked_at IS NULL\n\""),
    _code("scope not local to the transaction", "store/pool.py",
          "%(citadel.tenant)s, true),\n    set_config('citadel.label_sets', %(citadel.label_sets)s, true)",
          "%(citadel.tenant)s, false),\n    set_config('citadel.label_sets', %(citadel.label_sets)s, false)"),
    _code("scope of the view not set in a leg", "store/pool.py",
          "**scope_settings(view.scope)}", "**scope_settings(view.scope), **NOTHING}"),
    _code("readers on the maintenance pool", "store/pool.py",
          f"store.app.{BEGIN}", f"store.maintenance.{BEGIN}"),
    _code("every label set set", "store/access.py", "set_scope(conn, resolved.scope)\n    return",
          "set_scope(conn, AccessScope(principal.tenant_id, '', tuple(range(1, 999)), 0))\n    return"),
    _code("narrowing skipped", "store/documents.py",
          "in_force = wanted if document.latest_version == 0 else _narrow(conn, tenant_id, document, wanted)",
          "in_force = wanted"),
    _code("narrowed to the wider", "store/access.py", "set(old.allow) & set(new.allow)",
          "set(old.allow) | set(new.allow)"),
    _code("narrowed without the denied", "store/access.py", "set(old.deny) | set(new.deny)",
          "set(old.deny) & set(new.deny)"),
    _code("narrowed to the lower class", "store/access.py", "max(old.classification", "min(old.classification"),
    _code("FLIP without labels", "store/chunks.py", "THEN v.label_set_id ELSE", "THEN d.label_set_id ELSE"),
    _code("attachments do not follow a relabelling", "store/documents.py",
          "    attachments.follow(conn, tenant_id, document.id)\n", ""),
    _code("attachments do not follow a publication", "store/chunks.py",
          "    attachments.follow(conn, lease.job.tenant_id, document_id)\n", ""),
    _code("anybody relabels an attachment", "store/documents.py",
          "    if document.parent_id is not None:\n", "    if False:\n"),
    _code("a name is taken for an attachment", "store/attachments.py",
          "(source_id, external_id) DO NOTHING", "(source_id, external_id) DO UPDATE SET uri = ''"),
    Mutant("attachments under labels of their own", sql="ALTER TABLE documents DROP CONSTRAINT documents_parent;"),
    _code("vectors do not move", "store/documents.py",
          "    changes.move_vectors(conn, tenant_id, document.id, label_set_id)\n", ""),
    _code("vectors under the set of another document", "store/chunks.py",
          "SELECT %s, v.tenant_id, v.document_id, v.label_set_id, %s",
          "SELECT %s, v.tenant_id, v.document_id, (SELECT min(id) FROM label_sets), %s"),
    _code("an older version reopens", "store/documents.py",
          "    _narrow_before(conn, tenant_id, document, document.latest_version + 1, wanted)\n", ""),
    _code("label sets of another tenant", "store/access.py",
          '"SELECT id FROM label_sets WHERE (tenant_id, hash) = (%s, %s) FOR KEY SHARE"',
          '"SELECT id FROM label_sets WHERE (%s::uuid IS NOT NULL) AND hash = %s ORDER BY id LIMIT 1"'),
    _code("writes reach any tenant", "store/documents.py", "FROM documents WHERE tenant_id = %s AND id = %s FOR UPDATE",
          "FROM documents WHERE (%s IS NOT NULL) AND id = %s FOR UPDATE"),
    _code("old texts open with the document", "store/documents.py", "version >= %s\"", 'version >= 0 * %s"'),
    _code("figures for everybody", "api/answers.py", "if operator or k in OPEN_DETAILS", "if True"),
    _code("labels told to readers", "api/routes/documents.py",
          'return bool({"ingest", "operate"} & caller.scopes) and not caller.delegated', "return True"),
    _code("BM25 tables shared", "retrieval/lexical.py", "hashlib.blake2b(ids.tobytes(), digest_size=16).digest()",
          "str(len(ids)).encode()"),
    _code("the search in the caller's place", "api/routes/search.py", "search(service.searcher, caller.principal,",
          "search(service.searcher, __import__('dataclasses').replace(caller.principal, bypass=True),"),
    # what is kept between transactions
    _unkeyed("tenant", "    tenant_id: UUID\n    subject: str  # the principal's own", "\n    subject"),
    _unkeyed("subject", "    subject: str  # the principal's own", "  # the principal"),
    _unkeyed("ceiling", "    ceiling: tuple[str, ...] | None = None  # allow labels that the credential", " = None"),
    _unkeyed("clearance", "    max_classification: str | None = None  # the credential's own", " = None"),
    _unkeyed("bypass", "    bypass: bool = False  # an operator acting", " = False"),
    _unkeyed("one who asks for it", "    via: str | None = None  # service:<key>", " = None"),
    _unkeyed("claims", "    claims: tuple[str, ...] = ()", " = ()"),
    _code("a kept scope is entered at any epoch", "store/access.py", "AND epoch = %(epoch)s AND newest",
          "AND %(epoch)s::bigint IS NOT NULL AND newest"),
    _code("a kept scope is added to at any epoch", "store/access.py", "and found.scope.epoch == epoch:", "and True:"),
    _code("what may be rolled back is kept", "store/access.py", "if kept and may_keep:", "if kept:"),
    _code("the closed are let in", "store/access.py", "    if closed:\n", "    if False:\n"),
    _code("a closed user's token is taken", "api/deps.py", "            access.check_open(conn, bearer.principal)\n",
          "            pass\n"),
    # tokens
    _code("signature not checked", "api/tokens.py", '{"require": [', '{"verify_signature": False, "require": ['),
    _code("expiry not checked", "api/tokens.py", '{"require": [', '{"verify_exp": False, "require": ['),
    _code("any algorithm of the key", "api/tokens.py", "if algorithm not in provider.algorithms or", "if"),
    Mutant("audience not checked", path="store/providers.py", old="WHERE issuer = %s AND audience = ANY(%s)",
           new="WHERE issuer = %s AND %s::text[] IS NOT NULL",
           more=(("api/tokens.py", '{"require": [', '{"verify_aud": False, "require": ['),)),
    Mutant("issuer not checked", path="store/providers.py", old="WHERE issuer = %s AND audience = ANY(%s)",
           new="WHERE %s <> '' AND audience = ANY(%s)",
           more=(("api/tokens.py", "        issuer=provider.issuer,\n", ""),)),
    _code("a token's groups are not held", "api/tokens.py", "claims=_groups(provider, claims)", "claims=()"),
    # names, jobs, the audit, erasure
    _code("spellings of a name are many labels", "core/labels.py", 'composed = unicodedata.normalize("NFC", label)',
          "composed = label"),
    _code("jobs beyond an operator's ceiling", "api/deps.py", 'return "ingest" not in self.scopes and not reaches_all',
          "return False"),
    _code("a refresh's numbers beyond it", "api/answers.py", "if limited and job.document_id is None:", "if False:"),
    _code("a search leaves no row in the audit", "retrieval/search.py",
          "    record_search(searcher.store, principal, request, request_id, answered)\n", ""),
    _code("a read leaves no row in the audit", "retrieval/trail.py",
          '    _record(store, principal, action, resource, request_id, "ok", told)\n', ""),
    _code("an erased document is still listed", "store/erase.py", '"DELETE FROM documents WHERE id = %s"',
          '"SELECT FROM documents WHERE id = %s"'),
    # feedback
    _code("feedback is heard from anybody of the key", "store/asked.py",
          "AND acting_for IS NOT DISTINCT FROM %s AND", "AND (acting_for IS NOT DISTINCT FROM %s OR true) AND"),
    _code("feedback is heard from another tenant", "store/asked.py",
          "AND tenant_id = %s AND actor = %s\n", "AND (tenant_id = %s OR true) AND actor = %s\n"),
    _code("a suggestion is read by an operator", "eval/suggest.py",
          "Principal(tenant_id, kept.subject)", "Principal(tenant_id, kept.subject, bypass=True)"),
    _code("an erasure leaves what was said", "store/erase.py",
          "    asked.scrub(conn, told.tenant_id, document_id, names[1])\n", ""),
    # kept answers
    _code("a kept answer is anybody's", "retrieval/recall.py", "(engine, self.principal, ids,", "(engine, ids,"),
    _code("a kept answer is of any sight", "retrieval/recall.py", "self.principal, ids, self", "self.principal, self"),
    _code("a kept answer outlives a grant", "retrieval/recall.py", "ids, self.scope.epoch,", "ids,"),
    _code("a kept answer outlives a change", "retrieval/recall.py",
          "if stands(conn, tenant_id, profile_id, at):", "if at:"),
    _code("a kept answer of a later snapshot", "store/standing.py",
          " and includes(row[0], at.position.snapshot)", ""),
    _code("a kept answer is not sealed for its question", "retrieval/recall.py",
          "sealed[NONCE:], key)", 'sealed[NONCE:], b"")', ("retrieval/recall.py", "encrypt(nonce, value, key)",
                                                           'encrypt(nonce, value, b"")')),
    Mutant("where a document was before is not noted", sql=_function("note_changes", "(VALUES (w.label_set_id),",
                                                                    "(VALUES (c.label_set_id),")),
    Mutant("everybody's changes end an answer", sql="ALTER POLICY reader ON label_set_changes USING (" + TENANT + ");"),
)  # fmt: skip


NOTHING = Mutant("nothing taken out")


def apply(mutant: Mutant, tree: Path) -> None:
    """Change the copy. Raises LookupError when what is to be replaced does not stand there exactly once."""
    if mutant.sql:
        folder = tree / "store/migrations"
        (folder / f"{len(list(folder.glob('*.sql'))) + 1:04d}_mutant.sql").write_text(mutant.sql)
        return
    for name, old, new in mutant.patches:
        text = (tree / name).read_text()
        if text.count(old) != 1:
            raise LookupError(f"{mutant.name}: {text.count(old)} places in {name}")
        (tree / name).write_text(text.replace(old, new))


def rotten() -> list[str]:
    """Textual patches that no longer fit the code, each with why; what SQL no longer fits, only a database tells."""
    wrong = []
    for mutant in MUTANTS:
        for name, old, new in mutant.patches:
            places = (ROOT / name).read_text().count(old) if (ROOT / name).is_file() else 0
            if places != 1 or old == new:
                wrong.append(f"{mutant.name}: {places} places in {name}")
    return wrong


def try_out(mutant: Mutant, kill_list: tuple[str, ...] = KILL_LIST) -> Outcome:
    """Whether the tests notice."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="citadel-mutant-") as folder:
        tree = Path(folder)
        for name in TREE:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            elif (ROOT / name).exists():
                shutil.copy(ROOT / name, tree / name)
        try:
            apply(mutant, tree)
        except LookupError as error:
            return Outcome(mutant.name, "broken", str(error), 0)
        fate, by = _run(tree, kill_list)
    return Outcome(mutant.name, fate, by, round(time.perf_counter() - started, 1))


def _run(tree: Path, kill_list: tuple[str, ...]) -> tuple[str, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *kill_list]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        return "broken", f"no end within {LIMIT_S} s"
    if done.returncode == 0:
        return "survived", ""
    kinds = FAILED.findall(done.stdout)
    if not kinds:
        return "broken", done.stdout[-300:]
    kind, test = kinds[0]
    return ("killed" if kind == "FAILED" else "broken"), test


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """Lines for people."""
    for outcome in outcomes:
        yield f"{outcome.fate:9} {outcome.seconds:6.1f} s  {outcome.mutant:50} {outcome.by}"
    counts = {fate: sum(o.fate == fate for o in outcomes) for fate in ("killed", "survived", "broken")}
    yield ", ".join(f"{count} {fate}" for fate, count in counts.items())


def main() -> int:
    """Try the mutants whose names hold the words given, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.leaks.mutants", description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--slice", default="0/1", help="of the list: 1/4 is every fourth, from the second on")
    parser.add_argument("--check", action="store_true", help="only see whether each textual patch fits the code")
    parser.add_argument("--json", type=Path, help="write the outcomes there too")
    arguments = parser.parse_args()
    if arguments.check:
        print("\n".join(rotten()) or f"all {len(MUTANTS)} fit")
        return int(bool(rotten()))
    first, step = map(int, arguments.slice.split("/"))
    chosen = [m for m in MUTANTS if not arguments.words or any(word in m.name for word in arguments.words)][first::step]
    if not arguments.words and (control := try_out(NOTHING)).fate != "survived":
        print(f"the tests fail as they are, so no mutant would be missed: {control.by}")
        return 1
    outcomes = []
    with ThreadPoolExecutor(arguments.jobs) as threads:
        for outcome in threads.map(try_out, chosen):
            outcomes.append(outcome)
            print(next(table([outcome])), file=sys.stderr, flush=True)
    print("\n".join(table(outcomes)))
    if arguments.json:
        arguments.json.write_text(json.dumps([[o.mutant, o.fate, o.by, o.seconds] for o in outcomes], indent=1))
    return int(any(outcome.fate != "killed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
