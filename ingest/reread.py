"""Read documents again whose texts were read under another policy on personal data and secrets."""

from collections.abc import Callable
from uuid import UUID

from core.sensitive import Policy
from store import policies
from store.pool import Conn, Store, writing

BATCH = 200  # documents a transaction


def read_again(
    store: Store,
    tenant_id: UUID,
    source_id: UUID | None,
    default: Policy,
    *,
    everything: bool = False,
    hold: Callable[[Conn], None] = lambda conn: None,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Accept a job for each stale document of the tenant, or of one source; returns how many.

    With `everything` also for those that were read before there was a policy and would only be flagged. `progress` is
    told how many there are by then, and may raise. Every write is made under `hold`.
    """
    done = 0
    while True:
        with writing(store) as conn:
            hold(conn)
            taken = policies.read_again(conn, tenant_id, source_id, default, everything, BATCH)
        done += taken
        if not taken:
            return done
        progress(done)
