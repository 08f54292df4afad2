"""Attachments: documents below their message, under its labels from the first to the last."""

from dataclasses import replace
from email.message import EmailMessage
from uuid import UUID

import psycopg
import pytest

from cli.jobs import _refused
from core.errors import BlobUnavailable, Invalid
from core.records import Labels, Submission, Submitted
from ingest import submit
from ingest.attempt import attempt
from ingest.erase import erase
from ingest.pipeline import Pipeline
from ingest.sandbox import ParseLimits, ParserSandbox
from store import attachments, documents, operations, policies, preview
from store.pool import trying, writing
from store.traces import traces
from tests.conftest import Api
from tests.integration.conftest import ANA, BEN, Site
from tests.integration.rows import fetch
from tests.integration.test_copies import families, near, prose

STAFF, FINANCE = Labels(("group:staff",)), Labels(("group:finance",))
MAIL = "message/rfc822"
RULE = "version: 1\ndefault: {{allow: [group:{}]}}\n"


def message(subject: str, body: str, *files: tuple[str, bytes] | EmailMessage) -> bytes:
    return composed(subject, body, *files).as_bytes()


def composed(subject: str, body: str, *files: tuple[str, bytes] | EmailMessage) -> EmailMessage:
    """A message with files, and messages as files."""
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "Ana <ana@acme.example>", subject
    mail.set_content(body)
    for file in files:
        if isinstance(file, EmailMessage):
            mail.add_attachment(file)
        else:
            mail.add_attachment(file[1], maintype="application", subtype="octet-stream", filename=file[0])
    return mail


def send(site: Site, content: bytes, labels: Labels, name: str = "mail/1") -> Submitted:
    submission = Submission(name, content, labels, mime_type=MAIL, filename="message.eml", uri="imap://host/1")
    world = site.world
    return submit.submit(world.store, world.blobs, world.tenant_id, submission, default_labels=False, expected=None)


def indexed(site: Site, content: bytes, labels: Labels, name: str = "mail/1") -> Submitted:
    """The message and, generation by generation, what came with it."""
    submitted = send(site, content, labels, name)
    while site.index():
        pass
    return submitted


def below(site: Site) -> dict[str, UUID]:
    """Attachments by the end of their external ids."""
    rows = fetch(site.world, "SELECT external_id, id FROM documents WHERE parent_id IS NOT NULL")
    return {name.rsplit("/", 1)[-1]: found for name, found in rows}


def seen(site: Site, subject: str) -> set[str]:
    return {passage.text for passage in site.ask(subject)}


BUDGET = ("budget.csv", b"item,eur\ntrain,120\n")
PLAN = ("plan.md", b"# Plan\n\nWe go by train.\n")


def test_an_attachment_is_a_document_that_names_its_message(site: Site) -> None:
    sent = indexed(site, message("Trip", "See the files.", BUDGET, PLAN), STAFF)
    found = {passage.citation.title: passage for passage in site.ask(BEN)}
    assert set(found) == {"Trip", "budget.csv", "plan.md"}
    table = found["budget.csv"]
    assert table.text == "item | eur\ntrain | 120"
    citation = table.citation
    assert (citation.attached_to, citation.attached_to_title) == (sent.document_id, "Trip")
    assert citation.external_id.startswith("mail/1#") and citation.external_id.endswith("/budget.csv")
    assert citation.uri == "imap://host/1" and found["Trip"].citation.attached_to is None
    assert fetch(site.world, "SELECT mime_type FROM versions WHERE filename = 'plan.md'") == [("text/markdown",)]


def test_an_attached_message_brings_its_own_files(site: Site) -> None:
    inner = composed("Re: Trip", "Mine is inside.", BUDGET)
    sent = indexed(site, message("Trip", "See the mail.", inner), STAFF)
    found = {p.citation.title: p.citation for p in site.ask(BEN)}
    assert set(found) == {"Trip", "Re: Trip.eml", "budget.csv"}
    assert found["Re: Trip.eml"].attached_to == sent.document_id
    assert found["budget.csv"].attached_to == found["Re: Trip.eml"].document_id
    assert found["budget.csv"].attached_to_title == "Re: Trip.eml"


def test_labels_of_a_message_are_those_of_all_below_it_in_one_transaction(site: Site) -> None:
    inner = composed("Re: Trip", "Mine is inside.", BUDGET)
    sent = indexed(site, message("Trip", "See the mail.", inner, PLAN), STAFF)
    world, everything = site.world, seen(site, BEN)
    assert len(everything) == 4
    submit.change_labels(world.store, world.tenant_id, sent.document_id, FINANCE, None)
    assert seen(site, BEN) == set() and seen(site, ANA) == everything
    for table in ("documents", "versions", f"vectors_{world.profile.id}"):
        assert len(fetch(world, f"SELECT DISTINCT label_set_id FROM {table}")) == 1  # noqa: S608
    submit.change_labels(world.store, world.tenant_id, sent.document_id, Labels(("public",)), None)
    assert seen(site, "user:anybody@acme.example") == everything


def test_a_file_that_came_under_other_labels_links_no_copies_under_those_before(site: Site) -> None:
    text, world = prose(3), site.world
    sent = indexed(site, message("Trip", "See the file.", ("first.txt", text.encode())), STAFF)
    submit.change_labels(world.store, world.tenant_id, sent.document_id, FINANCE, None)
    for table in ("fingerprints", "fingerprint_bands"):
        of_both = f"SELECT FROM {table} f JOIN documents d ON d.id = f.document_id"  # noqa: S608
        assert fetch(world, f"{of_both} WHERE f.label_set_id <> d.label_set_id") == []
    # either is near to the file that is hidden, and not to the other
    for name, places in ("one", (50, 150, 250)), ("two", (100, 200, 300)):
        world.add(name, near(text, places), STAFF.allow)
    assert families(world) == set()


def test_a_mask_covers_the_names_of_files(site: Site) -> None:
    card = "4111 1111 1111 1111"
    world = site.world
    files = (f"of {card}.txt", b"The first."), composed(f"Re {card}", "The second.")
    indexed(site, message("Trip", "See.", *files), STAFF)
    assert sum(card in name for name in below(site)) == 2  # flagged, by default
    with writing(world.store) as conn:
        policies.change(conn, world.tenant_id, None, {"card": "mask"}, ())
        assert policies.read_again(conn, world.tenant_id, None, site.pipeline.policy, False, 10) == 3
    while site.index():
        pass
    assert set(below(site)) == {"of [CARD].txt", "Re [CARD].eml"}
    with writing(world.store) as conn:
        assert traces(conn, UUID(int=0), card) == {}


def test_a_preview_tells_of_attachments_too(site: Site) -> None:
    sent = indexed(site, message("Trip", "See the mail.", composed("Re: Trip", "Mine is inside.", BUDGET)), FINANCE)
    with trying(site.world.store) as conn:
        moved, changes = preview.labels_change(conn, site.world.tenant_id, {sent.document_id: Labels(("public",))})
    assert moved == 3 and {change.subject: change.gains.count for change in changes}[preview.ANYONE_ELSE] == 3


def test_a_narrower_version_closes_the_files_at_once_and_a_wider_one_opens_only_its_own(site: Site) -> None:
    indexed(site, message("Trip", "v1", BUDGET, PLAN), FINANCE)
    send(site, message("Trip", "v2", PLAN), STAFF)  # the labels in force are what both allow: nobody
    assert seen(site, ANA) == seen(site, BEN) == set()
    site.index()
    assert {p.citation.title for p in site.ask(BEN)} == {"Trip", "plan.md"}
    assert set(below(site)) == {"plan.md"}  # it came with both; the budget was never staff's


def test_changed_bytes_are_another_document_and_the_old_one_has_a_tombstone(site: Site) -> None:
    indexed(site, message("Trip", "v1", BUDGET, PLAN), STAFF)
    before = below(site)
    other = ("budget.csv", b"item,eur\nplane,900\n")
    indexed(site, message("Trip", "v2", other, PLAN), STAFF)
    after = below(site)
    assert after["plan.md"] == before["plan.md"] and after["budget.csv"] != before["budget.csv"]
    assert "item | eur\nplane | 900" in seen(site, BEN) and "item | eur\ntrain | 120" not in seen(site, BEN)
    buried = fetch(site.world, "SELECT document_id, erased_by FROM tombstones")
    assert buried == [(before["budget.csv"], "service:worker")]
    assert fetch(site.world, "SELECT latest_version FROM documents WHERE parent_id IS NOT NULL") == [(1,), (1,)]


def test_erasing_a_message_erases_all_below_it_with_their_bytes(site: Site) -> None:
    inner = composed("Re: Trip", "Mine is inside.", BUDGET)
    sent = indexed(site, message("Trip", "See the mail.", inner, PLAN), STAFF)
    family = {sent.document_id, *below(site).values()}
    world = site.world
    keys = [key for (key,) in fetch(world, "SELECT blob_key FROM versions")]
    gone = erase(world.store, world.blobs, world.tenant_id, sent.document_id, by="service:test")
    assert gone.finished and set(gone.blob_keys) == set(keys) and seen(site, ANA) == set()
    assert {found for (found,) in fetch(world, "SELECT document_id FROM tombstones")} == family
    for table in ("documents", "versions", "chunks", f"vectors_{world.profile.id}"):
        assert fetch(world, f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608
    for key in keys:
        with pytest.raises(BlobUnavailable):
            world.blobs.get(key)


def test_nobody_but_the_message_changes_an_attachment(site: Site) -> None:
    indexed(site, message("Trip", "See the file.", BUDGET), STAFF)
    world, child = site.world, below(site)["budget.csv"]
    name = fetch(world, "SELECT external_id FROM documents WHERE id = %s", child)[0][0]
    with pytest.raises(Invalid, match="its message"):
        submit.change_labels(world.store, world.tenant_id, child, Labels(("public",)), None)
    with pytest.raises(Invalid, match="its message"):
        send(site, b"mine now", Labels(("public",)), name)
    with pytest.raises(Invalid, match="its message"), writing(world.store) as conn:
        documents.narrow_labels(conn, world.tenant_id, child, FINANCE)
    assert seen(site, "user:anybody@acme.example") == set()


def test_the_database_refuses_other_labels_than_the_messages(site: Site) -> None:
    sent = indexed(site, message("Trip", "See the file.", BUDGET), STAFF)
    world, child = site.world, below(site)["budget.csv"]
    indexed(site, b"From: a@b.example\n\nopen", Labels(("public",)), "mail/2")
    with pytest.raises(psycopg.errors.ForeignKeyViolation), writing(world.store) as conn:
        conn.execute("UPDATE documents SET label_set_id = (SELECT label_set_id FROM documents WHERE external_id = "
                     "'mail/2') WHERE id = %s", (child,))  # fmt: skip
    fetch(world, "UPDATE documents SET label_set_id = (SELECT label_set_id FROM documents WHERE external_id = "
                 "'mail/2') WHERE id = %s RETURNING 1", sent.document_id)  # fmt: skip
    assert fetch(world, "SELECT count(DISTINCT label_set_id) FROM documents") == [(1,)]


def test_a_name_that_another_document_has_is_not_taken_over(site: Site) -> None:
    content = message("Trip", "See the file.", BUDGET)
    indexed(site, content, STAFF)
    name = fetch(site.world, "SELECT external_id FROM documents WHERE parent_id IS NOT NULL")[0][0]
    erase(site.world.store, site.world.blobs, site.world.tenant_id, below(site)["budget.csv"], by="service:test")
    indexed(site, b"From: eve@acme.example\n\nEve was here first", Labels(("public",)), name)
    sent = indexed(site, content + b"\n", STAFF)
    told = site.job(sent.job_id).detail["refused"]  # type: ignore[arg-type]
    assert [each["code"] for each in told] == ["attachment_name_taken"]
    assert "From: eve@acme.example\n\nEve was here first" in seen(site, "user:anybody@acme.example")


def test_a_refusal_stands_on_the_job(site: Site) -> None:
    with ParserSandbox(ParseLimits(attachments=1)) as parser:
        sent = send(site, message("Trip", "See the files.", BUDGET, PLAN), STAFF)
        assert sent.job_id is not None and attempt(replace(site.pipeline, parser=parser), sent.job_id) == "done"
    job = site.job(sent.job_id)
    assert [(each["name"], each["code"]) for each in job.detail["refused"]] == [("plan.md", "attachment_count")]
    assert "CITADEL_ATTACHMENTS" in job.detail["refused"][0]["reason"]
    assert _refused(job) == "plan.md: attachment_count"
    with writing(site.world.store) as conn:
        piles = {(pile.state, pile.error_code) for pile in operations.piles(conn, site.world.tenant_id)}
    assert ("done", "attachment_count") in piles


def test_the_depth_is_counted_over_generations(site: Site) -> None:
    innermost = composed("three", "3", ("four.md", b"# Four\n"))
    nested = composed("one", "1", composed("two", "2", innermost))
    indexed(site, message("zero", "0", nested), STAFF)
    assert set(below(site)) == {"one.eml", "two.eml", "three.eml"}
    told = fetch(site.world, "SELECT detail #>> '{refused,0,code}' FROM jobs WHERE detail ? 'refused'")
    assert told == [("attachment_depth",)]


def test_a_file_that_no_parser_reads_fails_its_own_job(site: Site) -> None:
    indexed(site, message("Trip", "See the file.", ("a.bin", bytes(range(256)) * 9), PLAN), STAFF)
    states = fetch(site.world, "SELECT state, error_code FROM jobs ORDER BY 1, 2")
    assert states == [("done", None), ("done", None), ("failed", "unsupported_type")]
    assert {p.citation.title for p in site.ask(BEN)} == {"Trip", "plan.md"}


def test_a_refresh_moves_relabels_and_deletes_them_with_their_file(site: Site) -> None:
    site.write(".citadel.yaml", RULE.format("staff"))
    file = site.write("mail/a.eml", message("Trip", "See the files.", BUDGET, PLAN))
    site.refresh()
    site.index()
    before = below(site)
    assert len(before) == 2 and site.refresh().detail["counts"] == {"unchanged": 1}
    file.rename(file.with_name("b.eml"))
    assert site.refresh().detail["counts"] == {"moved": 1} and below(site) == before
    names = {name.partition("#")[0] for name in site.documents()}
    assert names == {"mail/b.eml"}
    site.write(".citadel.yaml", RULE.format("finance"))
    site.refresh()
    assert seen(site, BEN) == set() and len(seen(site, ANA)) == 3
    site.write("mail/b.eml", message("Trip", "One is gone.", PLAN))
    site.refresh()
    assert set(below(site)) == {"plan.md"}
    (site.folder / "mail/b.eml").unlink()
    site.refresh(allow_mass_delete=True)
    assert site.documents() == {}


def test_a_lost_child_job_does_not_open_it(site: Site, pipeline: Pipeline) -> None:
    """Labels that change while the attachment is not indexed yet hold when it is."""
    sent = send(site, message("Trip", "See the file.", BUDGET), STAFF)
    site.index()
    world = site.world
    submit.change_labels(world.store, world.tenant_id, sent.document_id, FINANCE, None)
    site.index()
    assert seen(site, BEN) == set() and "item | eur\ntrain | 120" in seen(site, ANA)


def test_a_long_name_of_the_message_is_cut_and_told_apart() -> None:
    file = attachments.KeptFile("é" * 300 + "#.txt", None, "ab" * 32, 1)
    one, other = (attachments.external_id("x" * 1024 + end, file) for end in "ab")
    assert one != other and len(one) <= submit.MAX_EXTERNAL_ID and len(one.encode()) <= submit.MAX_EXTERNAL_ID_BYTES
    assert one.count("#") == 1


def test_the_api_names_the_message_and_keeps_its_labels(api: Api, pipeline: Pipeline) -> None:
    world = api.world
    world.groups({"group:staff": [BEN]})
    key = api.key("app", "search", "ingest", "act_for")
    body = {"external_id": "mail/1", "text": message("Trip", "See the file.", BUDGET).decode(),
            "labels": {"allow": ["group:staff"]}, "mime_type": MAIL}  # fmt: skip
    sent = api.http.post("/v1/documents", json=body, headers=key).json()
    for _ in range(2):
        for (job_id,) in fetch(world, "SELECT id FROM jobs WHERE state = 'accepted'"):
            attempt(pipeline, job_id)
    child = fetch(world, "SELECT id FROM documents WHERE parent_id IS NOT NULL")[0][0]
    for person, told in ((BEN, sent["document_id"]), (ANA, None)):
        who = key | {"X-Citadel-Act-For": person}
        passages = api.http.post("/v1/search", json={"query": "train"}, headers=who).json()["passages"]
        cited = {p["citation"]["title"]: p["citation"] for p in passages}
        assert ("budget.csv" in cited) == (told is not None)
        if told:
            assert (cited["budget.csv"]["attached_to"], cited["budget.csv"]["attached_to_title"]) == (told, "Trip")
            assert cited["Trip"]["attached_to"] is None
        answer = api.http.get(f"/v1/documents/{child}", headers=who)
        assert answer.json().get("attached_to") == told and answer.status_code == (200 if told else 404)
    open_it = {"allow": ["public"], "deny": [], "classification": "internal"}
    refused = api.http.put(f"/v1/documents/{child}/labels", json=open_it, headers=key)
    assert refused.status_code == 400 and "its message" in refused.json()["detail"]
