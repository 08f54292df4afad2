"""`citadel`: thin commands over the functions that the API and the workers call."""

import logging
import os
import sys

import click

from cli.access import groups, keys_group
from cli.audit import audit_group
from cli.calibrate import calibrate_command
from cli.codes import fill_codes_command
from cli.demo import demo
from cli.documents import documents_group
from cli.erase import erase_command, tombstones_group
from cli.eval import eval_group
from cli.explain import access_group
from cli.fusion import fusion_command
from cli.golden import golden_group
from cli.identity import identity_group
from cli.jobs import jobs_group
from cli.options import CitadelGroup
from cli.policy import policy_group
from cli.processes import beat, dispatch, follow, migrate, serve, up, worker
from cli.profiles import profile_group
from cli.search import search_command
from cli.sources import refresh_command, sources_group
from cli.train import train_group
from cli.upkeep import retention_command, upkeep_command
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


@click.group(cls=CitadelGroup, epilog=EPILOG, context_settings={"auto_envvar_prefix": "CITADEL"})
@click.version_option(package_name="citadel-rag")
@click.pass_context
def citadel(ctx: click.Context) -> None:
    """Enterprise RAG: labelled documents in, permitted and cited context out."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    ctx.obj = load_settings(os.environ, running_stack=ctx.invoked_subcommand not in ("up", "demo"))


for command in (up, serve, worker, dispatch, beat, follow, migrate, keys_group, groups, identity_group, access_group,
                sources_group, refresh_command, jobs_group, search_command, fusion_command, eval_group, golden_group,
                audit_group, erase_command, tombstones_group, calibrate_command, fill_codes_command, profile_group,
                train_group, upkeep_command, retention_command, policy_group, documents_group,
                demo):  # fmt: skip
    citadel.add_command(command)


def main() -> None:
    """The console script."""
    citadel()


if __name__ == "__main__":
    main()
