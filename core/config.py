"""Settings: the one place that reads the environment.

A setting comes from its `CITADEL_…` variable, else from the embedded stack that runs in the state folder
(`.citadel/runtime.json`, written by `citadel up`), else from its default.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from core.errors import Misconfigured

RUNTIME_FILE = "runtime.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an installation can set. Read once, at a process's start, and passed on."""

    state: Path = Path(".citadel")  # embedded servers, logs, model cache
    database_url: str = ""  # an administrator's: migrations only; replaces the embedded Postgres
    app_database_url: str = ""  # role citadel_app: reads under row-level security
    maintenance_database_url: str = ""  # role citadel_maintenance: writes and workers
    app_password: str = ""  # what `citadel migrate` gives the role; empty: left as it is
    maintenance_password: str = ""
    redis_url: str = ""
    source_roots: str = ""  # folders, `:` between, below which the API may add folder sources; empty: none
    source_urls: str = ""  # URLs, blanks between, below which the API may add others; empty: none
    blob_url: str = ""  # an fsspec URL; default: a folder under the state folder
    api_url: str = "http://127.0.0.1:8000"
    host: str = "127.0.0.1"
    port: int = 8000
    tenant: str = "default"
    model: str = "all-MiniLM-L6-v2"  # of a new tenant; an old one moves by `citadel profile`
    precision: str = ""  # of a new profile: f32 or bf16; empty: bf16 where the processor computes in it
    lexical: str = "fast"  # or rank-bm25: exact as well and without a follower, in memory and slow, for small corpora
    dense: str = "replica"  # its vectors too, scanned in memory (0.8 kB a chunk); or pgvector: by Postgres alone
    lexical_folder: str = ""  # where this host's follower keeps the replicas; default: in the state folder
    bm25_k1: float = 1.5
    bm25_b: float = 0.75
    pool: int = 200  # candidates of each leg that are fused, at most 200
    late_weight: float = 0.5  # of late interaction against the fused score; 0: among equals alone
    late_pool: int = 30  # candidates that late interaction looks at, at most 200
    reranker: str = ""  # a cross-encoder's name or folder; empty: none
    rerankers: str = ""  # the folder where trained rerankers lie, on each host; default: in the state folder
    late_box_s: float = 1.0  # an answer goes without late interaction that takes longer
    reranker_box_s: float = 2.0  # and without the cross-encoder
    chunker: str = "structure"  # or the name of a LlamaIndex node parser
    chunk_tokens: int = 200
    max_body_bytes: int = 128 * 2**20
    search_deadline_s: float = 10.0
    answers_s: float = 300.0  # that the API keeps a ranking in Redis for an equal search; 0: none is kept
    answers_bytes: int = 16 * 2**20  # of Redis, at most, for the rankings of one tenant
    at_least_wait_s: float = 5.0
    worker_processes: int = 2
    model_threads: int = 0  # of one process; 0: the library's choice
    lease_s: float = 60.0
    sweep_every_s: float = 5.0
    max_backlog: int = 100_000  # open jobs of a tenant, above which refreshes wait and submissions are refused with 429
    # What is done about personal data and secrets, by kind: flag,card=mask,private_key=quarantine.
    sensitive: str = "flag"
    phone_region: str = "US"  # ISO 3166 country of phone numbers that are written without a country code
    attachments: int = 100  # of a message and all below it that become documents of their own; 0: none
    attachment_bytes: int = 32 * 2**20  # of one of them, and of all that come with one message
    attachment_depth: int = 3  # how far below the topmost message: a file in an attached message is at 2
    sheet_cells: int = 500_000  # of a workbook or table; rows behind them are left out, which a warning says
    ocr: str = "off"  # on: pages and pictures without text are read by tesseract, which must be installed
    ocr_languages: str = "eng"  # of the text on them, as tesseract names them: eng+deu
    ocr_page_seconds: float = 30.0
    ocr_seconds: float = 300.0  # for all pages of a document; those left then are named in a warning
    ocr_pixels: int = 25_000_000  # of a page; A4 at 300 dpi has 8.7 million
    judge_url: str = ""  # of an OpenAI-compatible endpoint, with its /v1, that judges answers too; empty: none
    judge_model: str = ""
    judge_key: str = ""
    blob_grace_s: float = 86_400.0  # bytes that no version names are deleted when they are older

    def blob_store_url(self) -> str:
        """The blob store's fsspec URL."""
        return self.blob_url or (self.state.resolve() / "blobs").as_uri()

    def replicas(self) -> Path:
        """Where this host's replicas lie."""
        return Path(self.lexical_folder) if self.lexical_folder else self.state / "lexical"

    def trained(self) -> Path:
        """Where trained rerankers lie."""
        return Path(self.rerankers) if self.rerankers else self.state / "rerankers"

    def model_cache(self) -> Path:
        """Where compiled models are kept."""
        return self.state / "models"


def load_settings(environ: Mapping[str, str], *, running_stack: bool = True) -> Settings:
    """Settings from the environment and, with `running_stack`, from the stack that runs in the state folder.

    Raises Misconfigured for a value of the wrong type.
    """
    state = Path(environ.get("CITADEL_STATE") or ".citadel")
    running = read_runtime(state) if running_stack else {}
    values: dict[str, object] = {"state": state}
    for field in fields(Settings):
        raw = environ.get(f"CITADEL_{field.name.upper()}") or running.get(field.name)
        if raw and field.name != "state":
            values[field.name] = _typed(field.name, raw, type(field.default))
    return Settings(**values)  # type: ignore[arg-type]


def secret(reference: str) -> str:
    """What `env:NAME` or `file:/path` stands for; never empty, and without a line's end. Raises Misconfigured."""
    kind, _, name = reference.partition(":")
    if kind == "env" and name:
        value = os.environ.get(name, "")
    elif kind == "file" and name.startswith("/"):
        try:
            value = Path(name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(
                f"the secret in {name} cannot be read by this process: {type(error).__name__}"
            ) from None
    else:
        raise Misconfigured("a secret is given by reference: env:NAME of the workers' environment, or file:/path")
    if not value:
        raise Misconfigured(f"{reference} holds no secret: set it where the workers run")
    return value


def read_runtime(state: Path) -> dict[str, str]:
    """What `citadel up` wrote about the stack that runs in this state folder; empty when none does."""
    path = state / RUNTIME_FILE
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that give a child process these settings."""
    return {f"CITADEL_{name.upper()}": str(value) for name, value in asdict(settings).items()}


def _typed(name: str, raw: str, kind: type) -> object:
    try:
        return kind(raw)
    except ValueError as error:
        raise Misconfigured(f"CITADEL_{name.upper()} must be a {kind.__name__}, not {raw!r}") from error
