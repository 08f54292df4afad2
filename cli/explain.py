"""`citadel access …`: why somebody sees a document, who gains and loses by a change, and a label set's one row."""

from pathlib import Path
from typing import Any

import click
import yaml

from cli.access import ACTOR, read_groups
from cli.options import as_json, pass_settings, show, table
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Invalid, InvalidRules
from core.labels import check_label, check_subject, make_labels
from core.records import Principal
from ingest.preview import proposed_labels
from ingest.rules import read_rules
from store import access as access_store
from store import audit, preview, sources
from store.blobs import FsspecBlobs
from store.explain import Explanation, Held, document_named, explain
from store.pool import Conn, Store, reading_tenant, trying, writing

OPERATOR = "service:cli"


@click.group("access")
def access_group() -> None:
    """Explain who sees what, and try changes before they are made."""


@access_group.command("explain", epilog="Example: citadel access explain --as user:ana@acme.example handbook/travel.md")
@click.argument("document")
@click.option("--as", "subject", required=True, help="Whose sight to explain, e.g. user:ana@acme.example.")
@click.option("--claim", "claims", multiple=True, help="A label that the person's token gives, e.g. group:hr; repeat.")
@as_json
@pass_settings
def explain_command(settings: Settings, document: str, subject: str, claims: tuple[str, ...], as_json: bool) -> None:
    """Say what decides whether somebody sees DOCUMENT, an id or a source's own name for it."""
    subject = check_subject(subject)
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        operator = Principal(tenant_id, OPERATOR, bypass=True)
        asked = Principal(tenant_id, subject, claims=tuple(sorted({check_label(claim) for claim in claims})))
        with reading_tenant(store, tenant_id) as conn:
            document_id = document_named(conn, operator, document)
            found = explain(conn, operator, asked, document_id)
        audit.record(store, tenant_id, "access.explain", actor=ACTOR, resource=f"document:{document_id}",
                     detail={"as": subject, "claims": asked.claims, "decision": found.decision,
                             "epoch": found.epoch})  # fmt: skip
    show(found, as_json, as_text(found))


def as_text(found: Explanation) -> str:
    """An explanation as a person reads it."""
    if found.labels is None or found.clearance is None:
        return f"there is no document {found.document_id}: {found.subject} is told the same as of one it may not see"
    clearance = f"{'its own' if found.clearance.own else 'the default'} clearance, {found.clearance.classification}"
    reach = "is within" if found.clearance.reaches else "is above"
    lines = [
        f"{found.subject} {'sees' if found.decision == 'visible' else 'does not see'} {found.external_id}"
        + ("" if found.indexed else " (not indexed yet: there is no text to see)"),
        f"  {_why(found)}",
        f"  allow           {', '.join(found.labels.allow) or 'nobody'}",
        *(f"    holds         {_way(held)}" for held in found.allowed_by),
        f"  deny            {', '.join(found.labels.deny) or 'nobody'}",
        *(f"    holds         {_way(held)}" for held in found.denied_by),
        f"  classification  {found.labels.classification} {reach} {clearance}",
        f"  label set {found.label_set_id}, access epoch {found.epoch}",
    ]
    return "\n".join(lines)


def _why(found: Explanation) -> str:
    if found.decision == "denied":
        return f"because it holds a denied label: {_way(found.denied_by[0])}"
    if found.decision == "above_clearance":
        return "because the classification is above its clearance"
    if found.decision == "no_label_held":
        return "because it holds none of the allowed labels"
    return f"because it holds an allowed label: {_way(found.allowed_by[0])}"


def _way(held: Held) -> str:
    return " → ".join(held.path) + (" (claimed by the token)" if held.claimed else "")


@access_group.command("diff", epilog="Example: citadel access diff new-rules.yaml --source handbook")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--source", help="The folder source whose `.citadel.yaml` FILE would be.")
@as_json
@pass_settings
def diff(settings: Settings, file: Path, source: str | None, as_json: bool) -> None:
    """Say who would gain and lose which documents by FILE, a folder's rules or the groups; nothing is changed."""
    rules = _is_rules(file)
    if rules and source is None:
        raise Invalid("these are a folder's rules: name its source with --source")
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with trying(store) as conn:
            if rules:
                outcome = _rules_diff(conn, settings, store, str(source), file)
            else:
                changes = preview.groups_change(conn, tenant_id, *read_groups(file))
                outcome = {"kind": "groups", "changes": changes, "problems": ()}
        audit.record(store, tenant_id, "access.diff", actor=ACTOR,
                     detail={"kind": outcome["kind"], "source": source, "people": len(outcome["changes"])})  # fmt: skip
    show(outcome, as_json, _diff_text(outcome))


def _rules_diff(conn: Conn, settings: Settings, store: Store, name: str, file: Path) -> dict[str, Any]:
    source = sources.named(conn, tenant_of(store, settings), name)
    rules = read_rules(file.read_text(encoding="utf-8-sig"))
    proposed = proposed_labels(conn, source, rules, FsspecBlobs(settings.blob_store_url()).get)
    moved, changes = preview.labels_change(conn, source.tenant_id, proposed.labels)
    return {"kind": "rules", "source": name, "moved": moved, "changes": changes, "problems": proposed.problems}


def _is_rules(file: Path) -> bool:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRules(f"{file} is not YAML: {error}") from error
    return isinstance(content, dict) and "version" in content


def _diff_text(outcome: dict[str, Any]) -> str:
    changes: list[preview.Change] = outcome["changes"]
    rows = [
        {"who": c.subject, "gains": c.gains.count, "loses": c.loses.count,
         "such as": ", ".join([*(f"+{name}" for name in c.gains.samples[:3]), *(f"−{n}" for n in c.loses.samples[:3])])}
        for c in changes
    ]  # fmt: skip
    moved = f"{outcome['moved']} documents would have other labels\n" if "moved" in outcome else ""
    told = table(rows) if rows else "nobody would gain or lose a document"
    return "\n".join([f"{moved}{told}", *(f"not told: {problem}" for problem in outcome["problems"])])


@access_group.command("relabel-set", epilog="Example: citadel access relabel-set 12 --allow group:finance")
@click.argument("label_set_id", type=int)
@click.option("--allow", multiple=True, help="A label that opens; repeat.")
@click.option("--deny", multiple=True, help="A label that closes; repeat.")
@click.option("--classification", default="internal", show_default=True)
@as_json
@pass_settings
def relabel_set(
    settings: Settings, label_set_id: int, allow: tuple[str, ...], deny: tuple[str, ...], classification: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Give a label set other labels: all its documents, of every source, follow at the next query.

    `citadel access explain` tells a document's label set. A folder's refresh puts a changed file under its rules again:
    change those as well.
    """
    labels = make_labels(allow, deny, classification)
    with opened_store(settings, reads=True) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            documents = access_store.relabel_set(conn, tenant_id, label_set_id, labels)
        audit.record(store, tenant_id, "label_set.change", actor=ACTOR, resource=f"label_set:{label_set_id}",
                     detail={"allow": list(allow), "deny": list(deny), "classification": classification,
                             "documents": documents})  # fmt: skip
    show({"label_set_id": label_set_id, "documents": documents}, as_json,
         f"label set {label_set_id} is changed; {documents} documents follow")  # fmt: skip
