"""The flow of `citadel train reranker`: split, gather, train, hold against the current one, ship."""

import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cli.access import ACTOR
from cli.legs import answers_of
from cli.scratch import bar
from cli.stack import embedder_of, late_boxed, open_trained, opened_store, tenant_of
from core.config import Settings
from core.errors import Conflict, Invalid
from core.records import Place, Principal, SearchRequest
from core.trained import RerankerKind, TrainedReranker
from eval.compare import MAIN
from eval.gather import as_learner, gather
from eval.golden import GoldenSet
from eval.judged import judge
from eval.parts import Parts, divide
from eval.scratch import visible_places
from eval.train import CHOOSING, Learned, Plan, train
from eval.trial import Figures, Part, Trial, figures_of, hold
from models.minilm import check_published, wheel_folder
from models.trained import Manifest, digest_of, write_manifest
from retrieval.rerank import RERANK_POOL, Boxed, chosen
from store import audit
from store.pool import Store, reading_tenant
from store.profiles import Ways, set_reranker, ways_of

WORK = "training"  # in the state folder: checkpoints, until the training is done
# A step of late interaction takes 0.05 s of processor time, one of a cross-encoder of six layers 11 s.
STEPS: dict[RerankerKind, int] = {"late": 200, "cross-encoder": 24}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is trained, and what becomes of it."""

    kinds: tuple[RerankerKind, ...]
    base: Path | None
    steps: int | None  # None: as many as the kind has by default
    seed: int
    device: str
    pool: int
    share: float
    name: str | None
    out: Path | None
    apply: bool
    progress: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    golden: GoldenSet
    parts: Parts
    current: Figures
    trials: tuple[Trial, ...]
    shipped: TrainedReranker | None
    folder: Path | None


def trained(settings: Settings, questions: GoldenSet, wanted: Wanted) -> Outcome:
    """Train, hold against the current one, and ship the best of what is shown to be better.

    Raises Invalid, and Conflict for a name that is taken.
    """
    parts = divide(questions, wanted.share)
    target = _target(settings, questions, wanted)
    with ExitStack() as opened:
        store = opened.enter_context(opened_store(settings))
        with reading_tenant(store, tenant_of(store, settings)) as conn:
            ways = ways_of(conn, tenant_of(store, settings))
        training = _Training(opened, settings, store, ways, parts, wanted)
        learned, trials, current = _tried(training)
        better = [(trial.gain.mean, number) for number, trial in enumerate(trials) if not trial.reason]
        which = None
        if better:
            _, best = max(better)
            which = _shipped(training, questions, target, learned[best], trials[best], current)
            if wanted.apply:
                apply(store, settings, which)
    for each in learned:
        shutil.rmtree(each.folder.parent)
    return Outcome(questions, parts, current, tuple(trials), which, target if which else None)


def apply(store: Store, settings: Settings, which: TrainedReranker | None) -> None:
    """Have the tenant's searches use it from now on; None: late interaction as it ships."""
    tenant_id = tenant_of(store, settings)
    detail = asdict(which) if which else {"name": "default"}
    with audit.audited(store) as conn:
        set_reranker(conn, tenant_id, which)
        audit.add(conn, tenant_id, "reranker.change", actor=ACTOR, detail=detail)


@dataclass(frozen=True, slots=True)
class _Training:
    """What a training works with."""

    opened: ExitStack
    settings: Settings
    store: Store
    ways: Ways
    parts: Parts
    wanted: Wanted

    def part(self, questions: GoldenSet, *, open_alone: bool) -> Part:
        """The questions with their candidates. Raises Invalid for none."""
        if not questions.queries:
            raise Invalid("one part of the questions is empty: judge more questions, about more than one document")
        tenant_id = tenant_of(self.store, self.settings)
        places: list[Place] = []
        subjects = {query.subject for query in questions.queries}
        for subject in subjects:
            places += visible_places(self.store, Principal(tenant_id, subject))
        judged = judge(questions, dict.fromkeys(places))
        request = SearchRequest("", rerank="none", fusion=self.ways.fusion)
        answers = answers_of(self.opened, self.settings, self.store, questions, self.wanted.progress, request)
        embedder = embedder_of(self.settings, self.ways.profile)
        found = gather(self.store, tenant_id, embedder, questions, judged, answers,
                       max(RERANK_POOL, self.settings.late_pool), open_alone=open_alone)  # fmt: skip
        return Part(tuple(found), judged)

    def current(self) -> Boxed | None:
        """What the tenant's searches use now."""
        own = open_trained(self.settings).own(self.ways.reranker, self.ways.profile.id)
        return chosen(late_boxed(self.settings), SearchRequest(""), own)

    def boxed(self, learned: Learned) -> Boxed:
        """What was trained, as a search would use it."""
        box_s = self.settings.late_box_s if learned.kind == "late" else self.settings.reranker_box_s
        return Boxed(learned.reranker, box_s, learned.weight, learned.pool)

    def plan(self, kind: RerankerKind) -> Plan:
        """Its folder follows from everything that the training does, so only the same training goes on there."""
        wanted = self.wanted
        base = wanted.base or check_published(wheel_folder())
        steps = wanted.steps or STEPS[kind]
        told = (kind, self.parts, self.settings.tenant, self.ways.profile, self.ways.fusion, str(base), steps,
                wanted.seed, wanted.device, wanted.pool)  # fmt: skip
        work = self.settings.state / WORK / sha256(repr(told).encode()).hexdigest()[:16]
        return Plan(base, steps, wanted.seed, wanted.device, wanted.pool, work)


def _tried(training: _Training) -> tuple[list[Learned], list[Trial], Figures]:
    wanted, inner = training.wanted, divide(training.parts.training, CHOOSING, "choosing ")
    teaching = training.part(as_learner(inner.training), open_alone=True)
    choosing = training.part(as_learner(inner.held_out), open_alone=True)
    held = training.part(training.parts.held_out, open_alone=False)
    current = figures_of(held, training.current())
    learned, trials = [], []
    for kind in wanted.kinds:
        with bar(f"training, {kind}", wanted.progress) as step:
            plan = training.plan(kind)
            found = train(kind, plan, teaching, choosing, step)
        learned.append(found)
        trials.append(hold(held, current, kind, found.note, training.boxed(found), len(wanted.kinds)))
    return learned, trials, current


def _target(settings: Settings, questions: GoldenSet, wanted: Wanted) -> Path:
    name = wanted.name or f"{questions.name.removesuffix('.jsonl')}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if Path(name).name != name or name.startswith("."):
        raise Invalid(f"a name is that of one folder, such as acme-2; not {name!r}")
    target = (wanted.out or settings.trained()) / name
    if target.exists():
        raise Conflict(f"{target} is there already: choose another --name")
    return target


def _shipped(
    training: _Training, questions: GoldenSet, target: Path, learned: Learned, trial: Trial, current: Figures
) -> TrainedReranker:
    """The folder, whole at once."""
    wanted, parts, profile = training.wanted, training.parts, training.ways.profile
    digest = digest_of(learned.folder)
    base = str(wanted.base or "all-MiniLM-L6-v2") if learned.kind == "cross-encoder" else profile.model
    trained_on = {
        "golden": questions.name, "digest": questions.digest, "tenant": training.settings.tenant,
        "training": len(parts.training.queries), "held_out": len(parts.held_out.queries), "left_out": parts.left_out,
        "share": wanted.share, "steps": wanted.steps or STEPS[learned.kind], "seed": wanted.seed,
    }  # fmt: skip
    held_out = {
        "measure": str(MAIN), "questions": len(trial.figures.values), "current": asdict(current.ndcg),
        "trained": asdict(trial.figures.ndcg), "gain": asdict(trial.gain), "at_least": trial.check.bound,
        "ms": trial.figures.ms, "current_ms": current.ms,
    }  # fmt: skip
    write_manifest(learned.folder, Manifest(learned.kind, digest, learned.weight, learned.pool, profile.name, base,
                                            trained_on, held_out, f"{datetime.now(UTC):%FT%TZ}"))  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = target.with_name(f".{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(learned.folder, fresh)
    fresh.rename(target)
    return TrainedReranker(target.name, learned.kind, digest, learned.weight, learned.pool, profile.id)
