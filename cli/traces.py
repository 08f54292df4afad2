"""`citadel traces` and `citadel feedback`: people's questions, kept to make judgements of, and what they say."""

from dataclasses import replace
from uuid import UUID, uuid4

import click

from cli.access import ACTOR
from cli.options import as_json, pass_settings, show
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Invalid
from core.feedback import Feedback, Missing
from core.labels import check_subject
from core.records import Principal
from retrieval.traced import keep_feedback
from store import asked, audit
from store.asked import Counts, Tracing
from store.pool import Store, writing


@click.group("traces")
def traces_group() -> None:
    """Keep a share of people's questions, so that judgements can be made of them: off until you turn it on.

    Kept are who asked, the question without addresses, numbers and secrets, and where the passages stood. An erased
    document takes the questions with it that were answered from it.
    """


@traces_group.command("on", epilog="Example: citadel traces on --rate 0.05 --days 30")
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True), default=0.05, show_default=True,
              help="Share of the searches.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 36500), help="That they are kept.  [default: as it is, at first 30]")
@click.option("--feedback-days", type=click.IntRange(1, 36500),
              help="That those with feedback are kept.  [default: as it is, at first 365]")  # fmt: skip
@as_json
@pass_settings
def on_command(settings: Settings, rate: float, days: int | None, feedback_days: int | None, as_json: bool) -> None:
    """Keep questions from the next search on."""
    with opened_store(settings) as store:
        told = _changed(store, settings, rate, days, feedback_days)
    show(told, as_json, _text(told))


@traces_group.command("off", epilog="Example: citadel traces off    (what is kept: citadel traces forget --all)")
@as_json
@pass_settings
def off_command(settings: Settings, as_json: bool) -> None:
    """Keep no further question; those that are kept stay until their days are over."""
    with opened_store(settings) as store:
        told = _changed(store, settings, 0.0, None, None)
    show(told, as_json, _text(told))


@traces_group.command("show", epilog="Example: citadel traces show")
@as_json
@pass_settings
def show_command(settings: Settings, as_json: bool) -> None:
    """Show what is kept, and how much."""
    with opened_store(settings) as store, writing(store) as conn:
        tenant_id = tenant_of(store, settings)
        tracing, counts = asked.tracing_of(conn, tenant_id), asked.counts(conn, tenant_id)
    show({"tracing": tracing, "kept": counts}, as_json, f"{_text(tracing)}\n{_counted(counts)}")


@traces_group.command("forget", epilog="Example: citadel traces forget --as user:ana@acme.example")
@click.option("--as", "subject", metavar="LABEL", help="Whose questions and feedback.")
@click.option("--all", "everybody", is_flag=True, help="Everybody's.")
@as_json
@pass_settings
def forget_command(settings: Settings, subject: str | None, everybody: bool, as_json: bool) -> None:
    """Delete kept questions, with the feedback on their answers."""
    if (subject is None) != everybody:
        raise Invalid("say whose: --as user:ana@acme.example, or --all")
    whose = None if subject is None else check_subject(subject)
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with audit.audited(store) as conn:
            forgotten = asked.forget(conn, tenant_id, whose)
            audit.add(conn, tenant_id, "traces.change", actor=ACTOR, detail={"forgot": forgotten, "of": whose})
    show({"forgotten": forgotten}, as_json, f"{forgotten} questions forgotten")


@click.command("feedback", epilog="Example: citadel feedback 0b0d5e0c-52a4-4d0e-8a07-6f4c1b2b9c11 "
               "--as user:ana@acme.example --helpful --used 1")  # fmt: skip
@click.argument("request_id", type=click.UUID)
@click.option("--as", "subject", required=True, help="Who asked, by `citadel search --json`, which tells the id.")
@click.option("--helpful/--unhelpful", default=None, help="Whether the answer was.")
@click.option("--used", type=click.IntRange(1, 100), multiple=True, help="The marker of a passage; repeat.")
@click.option("--missing-document", "documents", multiple=True, help="The external id of one it should have had.")
@click.option("--missing-text", "texts", multiple=True, help="Words it should have had.")
@click.option("--comment")
@click.option("--query", help="The question again: without it there is a judgement only where it is kept.")
@as_json
@pass_settings
def feedback_command(
    settings: Settings, request_id: UUID, subject: str, helpful: bool | None, used: tuple[int, ...],
    documents: tuple[str, ...], texts: tuple[str, ...], comment: str | None, query: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Say how good an answer of `citadel search` was; said again, it replaces what was said before."""
    missing = (*(Missing(document=each) for each in documents), *(Missing(text=each) for each in texts))
    if helpful is None and not (used or missing or comment):
        raise Invalid("say something: --helpful, --unhelpful, --used, --missing-document, --missing-text, --comment")
    said = Feedback(request_id, helpful, tuple(sorted(set(used))), missing, comment, query)
    with opened_store(settings) as store:
        asker = Principal(tenant_of(store, settings), check_subject(subject), via=ACTOR)
        keep_feedback(store, asker, said, uuid4())
    show({"request_id": str(request_id)}, as_json, "kept")


def _changed(store: Store, settings: Settings, rate: float, days: int | None, feedback_days: int | None) -> Tracing:
    tenant_id = tenant_of(store, settings)
    with audit.audited(store) as conn:
        held = asked.tracing_of(conn, tenant_id)
        wanted = replace(held, rate=rate, days=days or held.days, feedback_days=feedback_days or held.feedback_days)
        asked.set_tracing(conn, tenant_id, wanted)
        detail = {"rate": wanted.rate, "days": wanted.days, "feedback_days": wanted.feedback_days}
        audit.add(conn, tenant_id, "traces.change", actor=ACTOR, detail=detail)
    return wanted


def _text(tracing: Tracing) -> str:
    sampled = f"{tracing.rate:.1%} of the questions are kept for {tracing.days} days" if tracing.rate else "off"
    return f"{sampled}; those with feedback for {tracing.feedback_days} days"


def _counted(counts: Counts) -> str:
    wordless = f"; of {counts.wordless} the words are not known" if counts.wordless else ""
    return f"kept: {counts.sampled} sampled, {counts.feedback} with feedback{wordless}"
