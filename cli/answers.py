"""`citadel eval answers`: do the passages that agents' answers cite say what the answers say?"""

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from cli.options import as_json, html_option, markdown_option, pass_settings, plain, show, table
from cli.scratch import standing
from cli.stack import embedder_of, opened_store, tenant_of
from core.config import Settings
from eval import page
from eval.answers import read_answers
from eval.answers_page import answers_page, verdict_of
from eval.grounding import THRESHOLD, Grounding, check_answers, judged_by
from eval.judge import ChatJudge
from eval.report import to_line
from store.pool import reading_tenant
from store.profiles import live_profile

SHOWN = 10  # claims that are not supported


@click.command("answers")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--threshold", type=click.FloatRange(0, 1), default=THRESHOLD, show_default=True,
              help="Least likeness (cosine) of a claim with a sentence that it cites. The default is measured for "
              "all-MiniLM-L6-v2; another model needs its own.")  # fmt: skip
@click.option("--judge/--no-judge", default=True, show_default=True,
              help="Ask the language model of CITADEL_JUDGE_URL too, where that is set. Passages are sent to "
              "it.")  # fmt: skip
@html_option
@markdown_option
@as_json
@pass_settings
def answers_command(
    settings: Settings, path: Path, threshold: float, judge: bool, html: Path | None, markdown: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Hold each claim of the answers in FILE against the passages that it cites, read as who asked.

    A claim, which is a sentence, is supported when its own citations hold each of its quotations, numbers and dates,
    and a sentence like it. Coverage is the share of an answer's claims that are; the unsupported-claim rate is the
    share that nothing which the answer cites bears out. A citation that the asker may not read bears nothing out.

    \b
    A line of FILE, with citations as the search gave them (or with `external_id` for `document_id`, and of the whole
    document where they leave out `start` and `end`):
      {"query": "How long is parental leave?", "as": "user:ana@acme.example", "answer": "It is 26 weeks [1].",
       "citations": [{"marker": "[1]", "document_id": "8c5f…", "version": 1, "start": 0, "end": 412}]}

    \b
    Examples:
      citadel eval answers answers.jsonl --html answers.html
      CITADEL_JUDGE_URL=http://localhost:8001/v1 CITADEL_JUDGE_MODEL=qwen3 citadel eval answers answers.jsonl --json
    """
    answers = read_answers(path)
    with standing(settings) as running, opened_store(running) as store:
        tenant_id = tenant_of(store, running)
        with reading_tenant(store, tenant_id) as conn:
            profile = live_profile(conn, tenant_id)
        embedder = embedder_of(running, profile)
        found = check_answers(store, tenant_id, embedder, answers, threshold)
    if judge and settings.judge_url:
        click.echo(f"asking {settings.judge_model} about {found.claims} claims", err=True)
        with closing(ChatJudge(settings.judge_url, settings.judge_model, settings.judge_key)) as model:
            found = judged_by(model, found)
    page.write_page(answers_page(path.name, found), html, markdown)
    show(_told(found), as_json, answers_text(found))


def _told(found: Grounding) -> dict[str, Any]:
    """For JSON: everything but what the passages say."""
    told = {**plain(found), "answers": []}
    for each in found.answers:
        claims = [
            {"claim": c.claim.text, "markers": list(c.claim.markers), "verdict": verdict_of(c), "why": c.why,
             "likeness": c.likeness, "lacks": list(c.lacks), "judged": c.judged}
            for c in each.claims
        ]  # fmt: skip
        told["answers"].append({"id": each.answer.id, "as": each.answer.subject, **each.values(), "claims": claims})
    return told


def answers_text(found: Grounding) -> str:
    """For a terminal: the measures, what the judge said, and the first claims that are not supported."""
    rows = [
        {"": name, "mean": f"{each.mean:.3f}", "95 % of resamples": f"[{each.low:.3f}, {each.high:.3f}]"}
        for name, each in found.measures.items()
    ]
    parts = [f"{len(found.answers)} answers, {found.silent} without a claim; {found.claims} claims, {found.supported} "
             f"supported, {found.unsupported} unsupported"]  # fmt: skip
    parts += [table(rows)] if rows else []
    if found.judge:
        judge = found.judge
        parts.append(f"judge: {judge.supported} supported, {judge.unsupported} not; agrees with {judge.agrees}")
        parts += [f"judge: no opinion on {judge.failed} claims: {'; '.join(judge.failures)}"] if judge.failed else []
    lost = [(each.answer, claim) for each in found.answers for claim in each.claims if not claim.supported]
    worst = sorted(lost, key=lambda pair: not pair[1].unsupported)[:SHOWN]
    parts += [
        f"{verdict_of(claim)}  {to_line(answer.id)}: {to_line(claim.claim.text, 90)}\n    {to_line(claim.why, 110)}"
        for answer, claim in worst
    ]
    return "\n".join(parts)
