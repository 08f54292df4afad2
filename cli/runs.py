"""`citadel eval list|compare|gate|report`: what became of the runs that are kept."""

from pathlib import Path
from typing import Any

import click

from cli.options import as_json, html_option, markdown_option, pass_settings, plain, show, table
from cli.scratch import standing
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Invalid
from eval import page
from eval.gate import Check, Verdict, gate, parse_limits, to_junit
from eval.pair import Comparison, compare, shown, side
from eval.report import to_line
from store import runs
from store.pool import writing


@click.command("list", epilog="Example: citadel eval list")
@as_json
@pass_settings
def list_command(settings: Settings, as_json: bool) -> None:
    """Show the runs that are kept, newest first."""
    with standing(settings) as running, opened_store(running) as store, writing(store) as conn:
        found = runs.listed(conn, tenant_of(store, running))
    rows = [
        {"name": run.name, "id": str(run.id)[:8], "golden": run.config["golden"],
         "state": "finished" if run.finished_at else "interrupted", "started": run.started_at.strftime("%F %T"),
         **_means(run.summary)}
        for run in found
    ]  # fmt: skip
    show({"runs": [plain(run) for run in found]}, as_json, table(rows))


def _means(summary: dict[str, Any] | None) -> dict[str, str]:
    means = (summary or {}).get("measures", {})
    name = next((name for name in reversed(list(means)) if name.startswith("nDCG")), None)
    return {"measure": f"{name} {means[name]:.3f}" if name else ""}


@click.command("compare")
@click.argument("before")
@click.argument("after")
@click.option("--measure", "main", metavar="M", help="Whose movers are shown.  [default: nDCG@10]")
@click.option("--top", type=click.IntRange(0), default=5, show_default=True, help="Movers shown on either side.")
@html_option
@markdown_option
@as_json
@pass_settings
def compare_command(
    settings: Settings, before: str, after: str, main: str | None, top: int, html: Path | None, markdown: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Compare the kept run AFTER with BEFORE: the measures, what is chance, the questions that moved, and why.

    Runs go by name (the latest of it) or by the first characters of their id; both are of one golden set.

    \b
    Examples:
      citadel eval compare main candidate
      citadel eval compare main candidate --markdown comment.md --html comparison.html
    """
    with standing(settings) as running, opened_store(running) as store:
        owner = tenant_of(store, running)
        found = compare(side(store, owner, before), side(store, owner, after), main)
    page.write_page(page.comparison_page(found), html, markdown)
    show(found, as_json, comparison_text(found, top))


def comparison_text(found: Comparison, top: int) -> str:
    """The comparison for a terminal."""
    rows = [
        {"measure": r.name, found.before[:20]: f"{r.before:.3f}", f"{found.after[:20]} ": f"{r.after:.3f}",
         "change": f"{r.change.mean:+.3f}", "95 %": f"[{r.change.low:+.3f}, {r.change.high:+.3f}]", "p": f"{r.p:.4f}",
         "p, Holm": f"{r.p_holm:.4f}", "won/lost/same": f"{r.wins}/{r.losses}/{r.ties}",
         "detectable": f"{r.detectable:.3f}"}
        for r in found.rows
    ]  # fmt: skip
    parts = [f"{found.after} against {found.before}, {found.questions} questions", table(rows)]
    parts += [f"differs: {key}: {to_line(shown(a))} → {to_line(shown(b))}" for key, (a, b) in found.changed.items()]
    lost = [m for m in found.moved if m.after < m.before][:top]
    won = [m for m in reversed(found.moved) if m.after > m.before][:top]
    for told, moved in (("lost most", lost), ("won most", won)):
        parts += [f"\n{told} ({found.main}):"] if moved else []
        for m in moved:
            parts.append(f"  {m.before:.3f} → {m.after:.3f}  {to_line(m.query_id)}  {to_line(m.query)}")
            parts += [f"      {to_line(why, 200)}" for why in m.why]
    return "\n".join(parts)


@click.command("gate")
@click.argument("run", required=False)
@click.option("--baseline", required=True, metavar="RUN", help="What it is held against, by name or id.")
@click.option("--max-drop", "drops", multiple=True, metavar="M=D",
              help="How far a measure's mean may fall; may be given again.  [default: nDCG@10=0.01]")  # fmt: skip
@click.option("--forbidden", type=click.IntRange(0), default=0, show_default=True,
              help="Forbidden documents that may come back.")  # fmt: skip
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the verdict as JUnit XML.")
@as_json
@pass_settings
@click.pass_context
def gate_command(
    ctx: click.Context, settings: Settings, run: str | None, baseline: str, drops: tuple[str, ...], forbidden: int,
    junit: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Hold the kept RUN (the latest of the baseline's golden set) against a baseline; status 1 when it fails.

    It fails when a measure fell by more than is allowed and by more than chance, or when forbidden documents came back.
    What the questions at hand can tell is printed with it: the power to catch a loss of 3 points, the least loss that
    is caught with 95 %, and the share of neutral changes that would fail.

    \b
    Examples:
      citadel eval gate --baseline main
      citadel eval gate candidate --baseline main --max-drop nDCG@10=0.01 --max-drop R@10=0.02 --junit gate.xml
    """
    limits = parse_limits(drops or ("nDCG@10=0.01",), forbidden)
    with standing(settings) as running, opened_store(running) as store:
        owner = tenant_of(store, running)
        old = side(store, owner, baseline)
        with writing(store) as conn:
            name = run or str(runs.latest_of(conn, owner, old.run.golden_id, old.run.id).id)
        new = side(store, owner, name)
    if old.run.golden_id != new.run.golden_id:
        raise Invalid(f"{new.run.name} is of {new.run.config['golden']}, {old.run.name} of {old.run.config['golden']}")
    if lost := {**(old.run.summary or {})["degraded"], **(new.run.summary or {})["degraded"]}:
        raise Invalid(f"answers went without {', '.join(lost)}, which measures something else: run again in quiet, "
                      "or with CITADEL_SEARCH_DEADLINE_S and CITADEL_LATE_BOX_S set higher")  # fmt: skip
    verdict = gate(old.values, new.values, (new.run.summary or {})["forbidden"]["count"], limits)
    if junit:
        junit.write_text(to_junit(verdict, old.run.name, new.run.name), "utf-8")
    told = {"passed": verdict.passed, "baseline": plain(old.run.id), "run": plain(new.run.id), **plain(verdict)}
    show(told, as_json, gate_text(verdict))
    ctx.exit(0 if verdict.passed else 1)


def gate_text(verdict: Verdict) -> str:
    """The verdict for a terminal."""
    lines = [line for check in verdict.checks for line in _check_lines(check)]
    return "\n".join([*lines, "the gate is open" if verdict.passed else "the gate is shut"])


def _check_lines(check: Check) -> list[str]:
    lines = [f"{'pass' if check.passed else 'FAIL'}  {check.told}"]
    if check.power is not None and check.caught is not None and check.alarms is not None:
        lines.append(f"      {check.questions} questions: a loss of 0.03 is caught {check.power:.0%} of the time, "
                     f"one of {check.caught:.3f} 95 %; neutral changes fail {check.alarms:.1%}")  # fmt: skip
    elif check.change is not None:
        lines.append("      both runs answer every question alike, which tells nothing of the set's power")
    return lines


@click.command("report", epilog="Example: citadel eval report main --html main.html --markdown main.md")
@click.argument("run")
@html_option
@markdown_option
@as_json
@pass_settings
def report_command(settings: Settings, run: str, html: Path | None, markdown: Path | None, as_json: bool) -> None:
    """Write the report of a kept RUN, with what its principals may see now."""
    if not (html or markdown):
        raise Invalid("say where: --html main.html, --markdown main.md, or both")
    with standing(settings) as running, opened_store(running) as store:
        owner = tenant_of(store, running)
        of = side(store, owner, run)
        page.write_page(page.run_page(store, owner, of), html, markdown)
    written = [str(path) for path in (html, markdown) if path]
    show({"run": str(of.run.id), "written": written}, as_json, "\n".join(written))
