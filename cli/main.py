"""`citadel`: thin commands over the functions that the API and the workers call."""

import logging
import os
import sys

import click

from cli.options import CitadelGroup, LazyGroup
from core.config import load_settings

EPILOG = """\b
Examples:
  citadel up                                            start everything on this machine
  citadel sources add handbook ./handbook --schedule '*/15 * * * *'
  citadel refresh handbook --wait
  citadel search "How are flights booked?" --as user:ana@acme.example
  citadel eval run golden.jsonl --k 1,3,5,10

Every option has an environment variable: CITADEL_<COMMAND>_<OPTION>, for example CITADEL_SEARCH_TOP_K=5.
Settings such as CITADEL_DATABASE_URL, CITADEL_REDIS_URL and CITADEL_MODEL are listed in core/config.py."""


COMMANDS = {  # where each one is; loaded when it is named, for all of them together take 1.3 s to load and one 0.4
    "up": "cli.processes:up",
    "serve": "cli.processes:serve",
    "worker": "cli.processes:worker",
    "dispatch": "cli.processes:dispatch",
    "beat": "cli.processes:beat",
    "follow": "cli.processes:follow",
    "migrate": "cli.processes:migrate",
    "keys": "cli.access:keys_group",
    "groups": "cli.access:groups",
    "identity": "cli.identity:identity_group",
    "access": "cli.explain:access_group",
    "sources": "cli.sources:sources_group",
    "refresh": "cli.sources:refresh_command",
    "jobs": "cli.jobs:jobs_group",
    "search": "cli.search:search_command",
    "fusion": "cli.fusion:fusion_command",
    "eval": "cli.eval:eval_group",
    "tune": "cli.tune:tune_command",
    "golden": "cli.suggest:golden_group",  # of cli.golden, with two more
    "audit": "cli.audit:audit_group",
    "erase": "cli.erase:erase_command",
    "tombstones": "cli.erase:tombstones_group",
    "calibrate": "cli.calibrate:calibrate_command",
    "fill-codes": "cli.codes:fill_codes_command",
    "profile": "cli.profiles:profile_group",
    "upkeep": "cli.upkeep:upkeep_command",
    "retention": "cli.upkeep:retention_command",
    "train": "cli.train:train_group",
    "policy": "cli.policy:policy_group",
    "traces": "cli.traces:traces_group",
    "feedback": "cli.traces:feedback_command",
    "documents": "cli.documents:documents_group",
    "demo": "cli.demo:demo",
}


class Commands(LazyGroup, CitadelGroup):
    """Both."""


@click.group(cls=Commands, elsewhere=COMMANDS, epilog=EPILOG, context_settings={"auto_envvar_prefix": "CITADEL"})
@click.version_option(package_name="citadel-rag")
@click.pass_context
def citadel(ctx: click.Context) -> None:
    """Enterprise RAG: labelled documents in, permitted and cited context out."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    ctx.obj = load_settings(os.environ, running_stack=ctx.invoked_subcommand not in ("up", "demo"))


def main() -> None:
    """The console script."""
    citadel()


if __name__ == "__main__":
    main()
