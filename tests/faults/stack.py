"""The harness's own servers and processes, each of which it may kill and start again."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import psycopg

from core.config import Settings, environment_of
from core.records import Profile
from embedded.place import erase_servers
from embedded.postgres import start_postgres
from embedded.process import Running, spawn
from embedded.redis import start_redis
from embedded.server import Server
from models.fake_embedder import FakeEmbedder
from store.migrate import as_owner, create_database, migrate, role_url
from store.pool import Store, open_store, writing
from store.profiles import ensure_profile, ensure_tenant
from tests.faults import worker
from tests.faults.deadly import Plan
from tests.faults.proxy import Proxy

PROFILE = Profile(0, "faults", FakeEmbedder.name, FakeEmbedder.dimensions, FakeEmbedder.precision, 60, "structure")
PASSWORDS = {"citadel_app": "app-password", "citadel_maintenance": "maintenance-password"}
STOP = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
BLOB_MIB = 24


@dataclass(slots=True)
class Stack:
    """Postgres, Redis behind a proxy, a blob store with little room, and the processes that work on them."""

    state: Path
    postgres: Server
    redis: Server
    proxy: Proxy
    settings: Settings
    store: Store
    tenant_id: UUID
    plan: Plan
    slow_s: float
    small_disk: bool  # whether the blob store is a file system of its own, that can be filled
    running: dict[str, Running] = field(default_factory=dict)

    def start(self, name: str, *command: str, on: Sequence[str] = ()) -> None:
        """Start a process under that name, by the command `on` where given; what ran under it must have ended."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CITADEL_")}
        environment |= environment_of(replace(self.settings, state=self.state / name))
        environment |= {worker.PLAN: str(self.state / "deaths"), worker.SLOW_S: str(self.slow_s),
                        worker.VISIBILITY_S: "5"}  # fmt: skip
        log = self.state / f"{name}.log"
        self.running[name] = spawn(name, (*on, sys.executable, *command), env=environment, log=log, stop_steps=STOP)

    def start_all(self, workers: int, others: int) -> None:
        """The workers, and so many dispatchers and beats."""
        for n in range(workers):
            self.start_worker(f"worker{n}")
        for n in range(others):
            self.start(f"dispatcher{n}", "-m", "cli.main", "dispatch")
            self.start(f"beat{n}", "-m", "cli.main", "beat")

    def start_worker(self, name: str, on: Sequence[str] = ()) -> None:
        self.start(name, "-m", "tests.faults.worker", name, on=on)

    def end(self, name: str) -> None:
        """kill -9 a process with all its children."""
        running = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.process.wait()

    def kill(self, name: str) -> None:
        """`end` it, and start it again."""
        self.end(name)
        if name.startswith("worker"):
            self.start_worker(name)
        else:
            self.start(name, "-m", "cli.main", {"b": "beat", "d": "dispatch"}[name[0]])

    def restart_redis(self) -> None:
        """kill -9 and a new start on the same files."""
        os.kill(self.redis.pid, signal.SIGKILL)
        self.redis.stop()
        self.redis = start_redis(self.state, durable=False)

    def restart_postgres(self) -> None:
        """kill -9 of the postmaster and a new start, which recovers."""
        os.kill(self.postgres.pid, signal.SIGKILL)
        self.postgres.stop()
        self.postgres = start_postgres(self.state, durable=False)

    @property
    def blobs(self) -> Path:
        return self.state / "blobs"

    def fill_disk(self) -> None:
        """Until not a byte more fits."""
        with suppress(OSError), (self.blobs / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
        with suppress(OSError), (self.blobs / "ballast").open("ab", buffering=0) as file:
            while True:
                file.write(b"\0")

    def empty_disk(self) -> None:
        (self.blobs / "ballast").unlink()


@dataclass(frozen=True, slots=True)
class Reached:
    """How other hosts reach the stack."""

    address: str  # of this one, where Postgres and Redis listen
    subnet: str
    blob_url: str


def _mounted(folder: Path) -> bool:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={BLOB_MIB}m,mode=0700", "citadel-faults", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0


def _let_in(postgres: Server, subnet: str) -> None:
    with (postgres.folder / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {subnet} scram-sha-256\n")
    with psycopg.connect(postgres.url) as conn:
        conn.execute("SELECT pg_reload_conf()")


@contextmanager
def stack(
    state: Path, processes: int, slow_s: float, lease_s: float, reached: Reached | None = None
) -> Iterator[Stack]:
    """Everything but the processes, and at the end nothing of it."""
    state.chmod(0o711)
    small_disk = reached is None and _mounted(state / "blobs")
    here = "127.0.0.1" if reached is None else reached.address
    try:
        listen = {"listen_addresses": ",".join({"127.0.0.1", here})}
        postgres = start_postgres(state, durable=False, settings=listen)
        redis = start_redis(state, durable=False)
        if reached is not None:
            _let_in(postgres, reached.subnet)
        admin = create_database(postgres.url, "faults")
        migrate(admin, PASSWORDS)
        with as_owner(admin) as conn:
            profile = ensure_profile(conn, PROFILE)
        proxy = Proxy(redis.port, here)
        place = admin.replace("@127.0.0.1:", f"@{here}:")
        settings = Settings(
            state=state, model="fake", lease_s=lease_s, sweep_every_s=1.0, worker_processes=processes,
            blob_url=(state / "blobs").as_uri() if reached is None else reached.blob_url,
            app_database_url=role_url(place, "citadel_app", PASSWORDS["citadel_app"]),
            maintenance_database_url=role_url(place, "citadel_maintenance", PASSWORDS["citadel_maintenance"]),
            redis_url=redis.url.replace(f"127.0.0.1:{redis.port}/", f"{here}:{proxy.port}/"),
        )  # fmt: skip
        store = open_store(settings.app_database_url, settings.maintenance_database_url, size=8)
        with writing(store) as conn:
            tenant_id = ensure_tenant(conn, settings.tenant, profile.id)
        made = Stack(state, postgres, redis, proxy, settings, store, tenant_id, Plan(state / "deaths"), slow_s,
                     small_disk)  # fmt: skip
        try:
            yield made
        finally:
            for running in made.running.values():
                running.stop()
            store.close()
            proxy.close()
            made.redis.stop()
            made.postgres.stop()
    finally:
        erase_servers(state)
        if small_disk:
            subprocess.run(["umount", str(state / "blobs")], check=False)
