"""Collections in scratch tenants: on the stack that runs here, or on a Postgres that is started for the command."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import click

from cli.options import F
from cli.prepare import prepare_database, with_roles
from cli.stack import keeps_vectors, opened_store, tenant_of
from core.config import Settings
from core.errors import Misconfigured, NotYetIndexed
from core.records import Profile
from embedded.postgres import start_postgres
from embedded.state import open_state
from eval.collection import Collection
from eval.scratch import ensure_scratch
from ingest.chunk import ChunkBudget
from ingest.pipeline import Pipeline
from ingest.sandbox import ParserSandbox
from models.embedder import open_embedder
from store.blobs import FsspecBlobs
from store.migrate import as_owner, create_database
from store.pool import Store, reading_tenant
from store.profiles import ensure_profile, live_profile, tenant_named

FOLLOWED_S = 300.0  # that the follower which runs here has for a new collection
OWN = "eval"  # the folder, in the state folder, of the Postgres that is started for a command


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """How long a collection's chunks may be; None: as the tenant's own profile has it."""

    tokens: int | None = None
    chars: int | None = None


def chunk_options(command: F) -> F:
    """The options of a ChunkSize."""
    tokens, chars = (
        click.option(f"--chunk-{unit}", type=click.IntRange(16), metavar="N", help=f"Of a collection: {told}")
        for unit, told in (
            ("tokens", "at most so many tokens a chunk.  [default: as the tenant has it]"),
            ("chars", "at most so many characters a chunk.  [default: no such limit]"),
        )
    )
    return tokens(chars(command))


@contextmanager
def standing(settings: Settings) -> Iterator[Settings]:
    """The settings of the stack that runs, or of a Postgres that is started, kept in the state folder and stopped."""
    if settings.app_database_url and settings.maintenance_database_url:
        yield settings
        return
    own = replace(settings, state=open_state(open_state(settings.state) / OWN), blob_url="", app_database_url="",
                  maintenance_database_url="")  # fmt: skip
    click.echo("no stack runs here: starting a Postgres for this command", err=True)
    server = start_postgres(own.state)
    try:
        running = with_roles(own, create_database(server.url, "citadel"))
        prepare_database(running, again=False)
        yield running
    finally:
        server.stop()


def scratch_settings(settings: Settings, collection: Collection, size: ChunkSize, show_progress: bool) -> Settings:
    """Settings whose tenant holds the collection, indexed now if it was not."""
    with ExitStack() as opened:
        store = opened.enter_context(opened_store(settings))
        profile, budget = _profile(settings, store, size)
        pipeline = partial(_pipeline, opened, settings, store, profile)
        with bar(f"indexing {collection.name}", show_progress) as step:
            name = ensure_scratch(pipeline, store, collection, profile, budget, step)
    return replace(settings, tenant=name)


def follow(settings: Settings) -> None:
    """Have the tenant's lexical replica up to now: by a follower of our own, or by the one that runs on this host."""
    with opened_store(settings) as store:
        _follow(settings, store, settings.tenant)


def _follow(settings: Settings, store: Store, tenant: str) -> None:
    from retrieval.follower import Follower, only_one  # numba takes a second, which other commands need not
    from retrieval.replica_index import ReplicaIndex

    root = settings.replicas()
    with only_one(root, lambda: False) as mine:
        if mine:
            Follower(store, root, vectors=keeps_vectors(settings)).step()
            return
    index, give_up = ReplicaIndex(store, root, watch_s=0, vectors=False), time.monotonic() + FOLLOWED_S
    with closing(index), reading_tenant(store, None) as conn:
        tenant_id = tenant_named(conn, tenant)
    while time.monotonic() < give_up:
        with reading_tenant(store, tenant_id) as conn:
            if index.lag_s(conn, tenant_id) == 0:
                return
        time.sleep(0.5)
    raise NotYetIndexed(f"this host's follower made no replica of {tenant!r} within {FOLLOWED_S:g} s: see its log")


def _profile(settings: Settings, store: Store, size: ChunkSize) -> tuple[Profile, ChunkBudget]:
    tenant_id = tenant_of(store, settings)
    with reading_tenant(store, tenant_id) as conn:
        live = live_profile(conn, tenant_id)
    if size.tokens is None and size.chars is None:
        return live, ChunkBudget(chunk_tokens=live.chunk_tokens)
    budget = ChunkBudget(chunk_tokens=size.tokens or live.chunk_tokens, chunk_chars=size.chars)
    name = f"{live.model}/{live.precision}/{live.chunker}/{budget.chunk_tokens}"
    wanted = replace(live, name=name + (f"/{size.chars}c" if size.chars else ""), chunk_tokens=budget.chunk_tokens)
    if not settings.database_url:
        raise Misconfigured("chunks of another size need a profile of their own: set CITADEL_DATABASE_URL to a role "
                            "that may make one, or leave out the size")  # fmt: skip
    with as_owner(settings.database_url) as conn:
        return ensure_profile(conn, wanted), budget


def _pipeline(opened: ExitStack, settings: Settings, store: Store, profile: Profile) -> Pipeline:
    threads = settings.model_threads or None
    embedder = open_embedder(settings.model, settings.model_cache(), threads, profile.precision)
    parser = opened.enter_context(ParserSandbox())
    return Pipeline(store, FsspecBlobs(settings.blob_store_url()), parser, embedder, settings.lease_s)


@contextmanager
def bar(label: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error: what to call with how many are done, and of how many. It shows up then."""
    with ExitStack() as opened:
        bars: list[Any] = []

        def step(done: int, length: int) -> None:
            if shown and not bars:
                bars.append(opened.enter_context(click.progressbar(length=length, label=label, file=sys.stderr)))
            for each in bars:
                each.update(done - each.pos)

        yield step
