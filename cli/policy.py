"""`citadel policy`: what is done about personal data and secrets that documents hold."""

from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

import click

from cli.access import ACTOR
from cli.options import as_json, pass_settings, show, table
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Invalid, SensitiveContent
from core.records import ParsedDocument
from core.sensitive import KINDS, UNSET, Kind, Policy, read_changes, read_policy
from ingest.reread import read_again
from ingest.sandbox import ParserSandbox
from ingest.screen import screen
from store import audit, operations, policies, sources
from store.audit import Actor
from store.operations import Choice
from store.pool import Store, writing

of_source = click.option("--source", help="Of one source; else of the tenant.")


@dataclass(frozen=True, slots=True)
class Told:
    """A policy, and the documents whose texts another one was in force for."""

    policy: Policy
    own: Policy  # what of it the source, or the tenant, says itself
    to_read_again: int  # at the next refresh of their sources, or now
    never_screened: int  # read before there was a policy: now, if they are to be flagged
    held_back: int  # out of the index because of the policy


@click.group("policy")
def policy_group() -> None:
    """What is done about personal data and secrets: off, flag, mask or quarantine, by kind.

    \b
    off         not looked for
    flag        passages that hold it say so, in `flags`
    mask        its kind's name stands in its place, such as [CARD], before the text is stored or embedded
    quarantine  the document stays out of the index, and its job says why, with kinds and counts
    """


@policy_group.command("show", epilog="Example: citadel policy show --source handbook")
@of_source
@as_json
@pass_settings
def show_command(settings: Settings, source: str | None, as_json: bool) -> None:
    """Show the policy, and how many documents were read under another one."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        told = _told(store, settings, tenant_id, _source_id(store, tenant_id, source))
    show(told, as_json, _text(told))


@policy_group.command(
    "set",
    epilog="Examples: citadel policy set card=mask private_key=quarantine; "
    "citadel policy set --source mail all=mask email=flag --now; citadel policy set card=default",
)
@click.argument("changes", nargs=-1, required=True, metavar="KIND=ACTION...")
@of_source
@click.option("--now", is_flag=True, help="Read again now what was read under another policy, and try again what a "
              "policy kept out; else the next refresh of each source does the first.")  # fmt: skip
@as_json
@pass_settings
def set_command(settings: Settings, changes: tuple[str, ...], source: str | None, now: bool, as_json: bool) -> None:
    """Change the policy for every document that is read from now on. `all` is every kind; `default` takes back what was
    said here."""
    unset = tuple(kind for word in changes for kind in _unset(word))
    wanted = read_changes([word for word in changes if not _unset(word)])
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        source_id = _source_id(store, tenant_id, source)
        with audit.audited(store) as conn:
            policies.change(conn, tenant_id, source_id, wanted, unset)
            audit.add(conn, tenant_id, "policy.change", actor=ACTOR, resource=source and f"source:{source}",
                      detail={"set": dict(wanted), "unset": list(unset)})  # fmt: skip
        again = _read_now(store, settings, tenant_id, source_id) if now else None
        told = _told(store, settings, tenant_id, source_id)
    end = "" if again is None else f"\n{again} jobs accepted: citadel jobs list"
    show({**asdict(told), "accepted": again}, as_json, _text(told) + end)


@policy_group.command("try", epilog="Example: citadel policy try statement.pdf --source mail")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@of_source
@as_json
@pass_settings
def try_command(settings: Settings, file: Path, source: str | None, as_json: bool) -> None:
    """Say what would become of FILE under the policy. What it holds is counted and never printed."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        policy = _policy(store, settings, tenant_id, _source_id(store, tenant_id, source))
    with closing(ParserSandbox()) as parser:
        parsed = parser.parse(file.read_bytes(), file.name, None)
    found, outcome = _tried(parsed, policy, settings.phone_region)
    rows = [{"kind": kind, "found": count, "action": policy[kind]} for kind, count in found.items()]
    show({"outcome": outcome, "found": rows}, as_json, f"{table(rows)}\n{outcome}")


def _tried(parsed: ParsedDocument, policy: Policy, region: str) -> tuple[dict[Kind, int], str]:
    """How many of each kind that is looked for, and what becomes of the document."""
    looked_for: Policy = {kind: "off" if action == "off" else "flag" for kind, action in policy.items()}
    screening = screen(parsed, looked_for, region).screening
    assert screening is not None
    try:
        screen(parsed, policy, region)
    except SensitiveContent:
        return screening.found, "quarantined: it would not come into the index"
    masked = any(policy[kind] == "mask" for kind in screening.found)
    return screening.found, "indexed, masked" if masked else "indexed"


def _unset(word: str) -> tuple[Kind, ...]:
    kind, _, action = word.partition("=")
    if action != UNSET:
        return ()
    found = tuple(each for each in KINDS if kind in (each, "all"))
    if not found:
        raise Invalid(f"{kind[:60]!r} is no kind: choose from {', '.join(KINDS)} or all")
    return found


def _source_id(store: Store, tenant_id: UUID, name: str | None) -> UUID | None:
    if name is None:
        return None
    with writing(store) as conn:
        return sources.named(conn, tenant_id, name).id


def _policy(store: Store, settings: Settings, tenant_id: UUID, source_id: UUID | None) -> Policy:
    with writing(store) as conn:
        of_tenant = policies.own(conn, tenant_id, None)
        own = policies.own(conn, tenant_id, source_id)
    return {**read_policy(settings.sensitive), **of_tenant, **own}


def _told(store: Store, settings: Settings, tenant_id: UUID, source_id: UUID | None) -> Told:
    default = read_policy(settings.sensitive)
    with writing(store) as conn:
        own = policies.own(conn, tenant_id, source_id)
        stale = policies.count_stale(conn, tenant_id, source_id, default, False)
        whole = policies.count_stale(conn, tenant_id, source_id, default, True)
        held_back = policies.count_held_back(conn, tenant_id, source_id)
    return Told(_policy(store, settings, tenant_id, source_id), own, stale, whole - stale, held_back)


def _read_now(store: Store, settings: Settings, tenant_id: UUID, source_id: UUID | None) -> int:
    with audit.audited(store) as conn:
        choice = Choice(kind="index", error_code=SensitiveContent.code, source_id=source_id)
        kept_out = operations.chosen(conn, tenant_id, choice, ("quarantined",))
        tried = operations.retry(conn, tenant_id, [job.id for job in kept_out], Actor(ACTOR))
    return tried + read_again(store, tenant_id, source_id, read_policy(settings.sensitive), everything=True)


def _text(told: Told) -> str:
    counts = Counter(told.policy.values())
    rows = [{"kind": kind, "action": told.policy[kind], "said": "here" if kind in told.own else ""} for kind in KINDS]
    lines = [table(rows), ", ".join(f"{n} {action}" for action, n in sorted(counts.items()))]
    if told.to_read_again:
        lines.append(f"{told.to_read_again} documents were read under another policy: they are read again at the next "
                     "refresh of their source, or with `citadel policy set … --now`")  # fmt: skip
    if told.never_screened:
        lines.append(f"{told.never_screened} documents were read before there was a policy, and are flagged when they "
                     "are read again: `citadel policy set … --now`")  # fmt: skip
    if told.held_back:
        lines.append(f"{told.held_back} documents are kept out: citadel jobs list --state quarantined")
    return "\n".join(lines)
