"""Commands that run processes: the whole stack, or one of its parts."""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import FrameType

import click

from api.service import Service
from cli.options import as_json, pass_settings, show
from cli.prepare import prepare_database
from cli.service import open_service
from cli.stack import keeps_vectors, open_searcher, opened_store
from cli.up import bring_up, take_down
from core.config import Settings
from core.errors import Misconfigured
from embedded.supervisor import Supervisor, supervise
from store.broker import QUEUES, RedisBroker

LENGTHS = range(5, 62, 8)  # words of questions; the first of a length takes the default model 0.15 s more


@click.command(epilog="Example: citadel up    (Ctrl-C stops everything)")
@pass_settings
def up(settings: Settings) -> None:
    """Start Postgres, Redis, a worker, a fetcher, an evaluator, the dispatcher, beat, the follower and the API here.

    CITADEL_DATABASE_URL and CITADEL_REDIS_URL replace the embedded servers by your own.
    """
    os.umask(0o077)  # what is written beside the data is for its owner

    def start(supervisor: Supervisor) -> None:
        bring_up(supervisor, settings, dict(os.environ), click.echo)
        click.echo("running; Ctrl-C stops everything")

    try:
        code = supervise(settings.state, start, click.echo)
    finally:
        take_down(settings.state)
    raise SystemExit(code)


@click.command(epilog="Example: citadel serve --host 0.0.0.0 --port 8000")
@click.option("--host", help="Address to listen on; default CITADEL_HOST or 127.0.0.1.")
@click.option("--port", type=int, help="Port to listen on; default CITADEL_PORT or 8000.")
@pass_settings
def serve(settings: Settings, host: str | None, port: int | None) -> None:
    """Serve the API."""
    import uvicorn

    from api.app import create_app

    # A second thread for a question's pass takes a core from the rest of a search, and gains nothing: decision 0026.
    own = replace(settings, model_threads=settings.model_threads or 1)
    app = create_app(partial(_settled_service, own), settings.max_body_bytes)
    uvicorn.run(app, host=host or settings.host, port=port or settings.port, access_log=False, log_level="info")


@contextmanager
def _settled_service(settings: Settings) -> Iterator[Service]:
    """The service, ready for questions of every usual length. The collector leaves its long-lived objects alone: going
    through all 190,000 of them stopped every thread for 0.1 s, some 1 ms a search."""
    with open_service(settings) as service:
        service.searcher.embedder.embed_queries(["word " * count for count in LENGTHS])
        gc.collect()
        gc.freeze()
        yield service


@click.command(epilog="Example: citadel worker --queues index --processes 4")
@click.option("--processes", type=int, help="Worker processes; default CITADEL_WORKER_PROCESSES or 2.")
@click.option("--queues", default=",".join(QUEUES), show_default=True, help="What it works on.")
@click.option("--name", default="celery", show_default=True, help="Tells the workers of one host apart.")
@click.option("--drain", is_flag=True, help="This host's workers finish what they do and take no more.")
@pass_settings
def worker(settings: Settings, processes: int | None, queues: str, name: str, drain: bool) -> None:
    """Run a Celery worker that parses, chunks, embeds and indexes, refreshes sources, or runs scheduled evaluations.

    SIGTERM lets it finish what it does, and then it ends; --drain does the same for every worker of this host whose
    process is to stay; started anew, it takes work again.
    """
    from workers.app import make_app, worker_options
    from workers.drain import drain_host

    _needs(settings, "redis_url")
    if drain:
        click.echo("drained: " + ", ".join(drain_host(make_app(settings))))
        return
    _needs(settings, "maintenance_database_url")
    count = processes or settings.worker_processes
    threads = settings.model_threads or max(1, (os.cpu_count() or 1) // count)  # processes do not fight for cores
    make_app(replace(settings, model_threads=threads), open_searcher).worker_main(worker_options(count, queues, name))


@click.command(epilog="Example: citadel beat")
@pass_settings
def beat(settings: Settings) -> None:
    """Run the clock of the upkeep: unfinished erasures, counts, unnamed bytes. More than one does no harm."""
    from workers.app import make_app

    _needs(settings, "redis_url")
    settings.state.mkdir(parents=True, exist_ok=True)
    make_app(settings).Beat(schedule=str(settings.state / "beat-schedule"), loglevel="INFO").run()


@click.command(epilog="Example: citadel dispatch --once")
@click.option("--once", is_flag=True, help="Hand over what is due, say how much that was, and end.")
@as_json
@pass_settings
def dispatch(settings: Settings, once: bool, as_json: bool) -> None:
    """Add refreshes and evaluations that are due, and hand committed jobs to the workers, again what the broker lost.

    More than one does no harm.
    """
    from workers.app import make_app
    from workers.dispatch import dispatch_forever, dispatch_once

    _needs(settings, "redis_url")
    with opened_store(settings, reads=False) as store:
        if once:
            sent = dispatch_once(store, RedisBroker(settings.redis_url), make_app(settings))
            show({"sent": sent}, as_json, f"{sent} sent")
            return
        going = _until_signalled()
        dispatch_forever(store, RedisBroker(settings.redis_url), make_app(settings), going, settings.sweep_every_s)


@click.command(epilog="Example: citadel follow")
@pass_settings
def follow(settings: Settings) -> None:
    """Keep this host's replicas of words and vectors in step with Postgres. A second one waits until the first ends."""
    from retrieval.follower import Follower, only_one

    _needs(settings, "maintenance_database_url")
    going = _until_signalled()
    with opened_store(settings, reads=False) as store, only_one(settings.replicas(), going) as mine:
        if mine:
            Follower(store, settings.replicas(), vectors=keeps_vectors(settings)).run(going)


@click.command(epilog="Example: CITADEL_DATABASE_URL=postgresql://admin@db/citadel citadel migrate")
@as_json
@pass_settings
def migrate(settings: Settings, as_json: bool) -> None:
    """Bring the database up to this release: roles, tables, the default profile, the tenant."""
    done = prepare_database(settings)
    text = f"{len(done.applied)} migrations applied; profile {done.profile.name}; tenant {done.tenant}"
    show(done, as_json, text)


def _until_signalled() -> Callable[[], bool]:
    """Whether neither SIGINT nor SIGTERM has come."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return lambda: not stopping.is_set()


def _needs(settings: Settings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name):
            raise Misconfigured(f"set CITADEL_{name.upper()}, or start everything with `citadel up`")
