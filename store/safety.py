"""Is row-level security really on? Checked as the application's own role, at start and by readiness."""

from core.errors import UnsafeDatabase
from store.pool import Conn

PROTECTED = (
    "documents",
    "versions",
    "chunks",
    "memberships",
    "clearances",
    "closed_subjects",
    "scim_users",
    "scim_groups",
    "label_sets",
    "sources",
    "change_log",
    "jobs",
    "tombstones",
    "label_set_chunks",
    "label_set_changes",
    "calibrations",
    "golden_sets",
    "golden_queries",
    "eval_runs",
    "eval_answers",
    "eval_passages",
    "eval_stages",
    "eval_schedules",
    "eval_results",
    "listings",
    "listed",
    "kept_profiles",
    "fingerprints",
    "fingerprint_bands",
    "asked",
    "asked_passages",
    "feedback",
)

ROLE = """
    SELECT rolname, rolsuper, rolbypassrls, pg_has_role(current_user, 'citadel_owner', 'MEMBER'),
           pg_has_role(current_user, 'citadel_maintenance', 'MEMBER')
    FROM pg_roles WHERE rolname = current_user
"""
TABLES = """
    SELECT relname, relrowsecurity AND relforcerowsecurity, pg_get_userbyid(relowner) = current_user
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
      AND (relname = ANY(%s) OR relname ~ '^(vectors|tokens)_')
"""
POLICIES = """
    SELECT tablename, policyname FROM pg_policies
    WHERE schemaname = 'public' AND NOT (policyname = 'reader' AND roles = '{citadel_app}' AND cmd = 'SELECT')
      AND NOT (policyname = 'maintenance' AND roles = '{citadel_maintenance}')
      AND NOT (tablename IN ('label_set_chunks', 'label_set_changes') AND policyname = 'counting'
               AND roles = '{citadel_owner}' AND cmd = 'INSERT')
      AND NOT (tablename IN ('fingerprints', 'fingerprint_bands') AND policyname = 'parting'
               AND roles = '{citadel_owner}')
"""
READERS = "SELECT tablename, qual FROM pg_policies WHERE schemaname = 'public' AND policyname = 'reader'"
# The schema's in_scope(), as Postgres tells it: the one part of a reader policy that may be met in either of two ways.
IN_SCOPE = (
    "((label_set_id IN ( SELECT unnest(scope_label_sets()) AS unnest)) OR "
    "(SUBSTRING(( SELECT scope_bits() AS scope_bits) FROM ((label_set_id - ( SELECT scope_base() AS scope_base)) + 1) "
    "FOR 1) = '1'::\"bit\"))"
)
# What a reader policy cannot be right without; tokens_… are as chunks, and what is named nowhere here as documents.
NEEDED = {
    "documents": ("scope_tenant()", IN_SCOPE),
    "versions": ("EXISTS", "FROM documents", IN_SCOPE),
    "chunks": ("EXISTS", "FROM documents"),
    "fingerprints": ("EXISTS", "FROM documents", IN_SCOPE),
}
NEEDED |= dict.fromkeys(
    ("memberships", "clearances", "closed_subjects", "scim_users", "scim_groups", "label_sets", "sources", "change_log",
     "jobs", "tombstones", "calibrations", "kept_profiles", "golden_sets", "golden_queries", "eval_runs",
      "eval_answers", "eval_passages", "eval_stages", "eval_schedules", "eval_results", "listings", "listed", "asked",
      "asked_passages", "feedback"),
    ("scope_tenant()",),
)  # fmt: skip
UNPOLICED = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
      AND (relname = ANY(%s) OR relname ~ '^(vectors|tokens)_')
      AND NOT EXISTS (SELECT FROM pg_policies WHERE tablename = relname AND policyname = 'reader')
"""
ELEVATED = """
    WITH found (name, id, namespace) AS (
        SELECT proname, oid, pronamespace FROM pg_proc WHERE prosecdef
          AND NOT (oid = to_regproc('public.audit_append') AND prorettype = 'trigger'::regtype)  -- it only writes
        UNION ALL
        SELECT relname, oid, relnamespace FROM pg_class WHERE relkind IN ('v', 'm')
          AND NOT coalesce(reloptions::text LIKE '%security_invoker=true%', false)
    )
    SELECT f.name FROM found f JOIN pg_namespace n ON n.oid = f.namespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND has_schema_privilege(n.oid, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = f.id AND d.deptype = 'e')  -- an extension's own
"""
# Without them a process goes on with a scope that it resolved before a grant was changed, or with an answer from before
# a document was, and a document stays with its copies under labels that it has no longer.
WATCHING = {
    **{
        table: {"epoch_insert", "epoch_delete", "epoch_update_from", "epoch_update_to", "epoch_truncate"}
        for table in ("memberships", "clearances", "classifications", "closed_subjects")
    },
    "label_sets": {"epoch_delete", "epoch_update_from", "epoch_update_to", "epoch_truncate"},
    "tenants": {"epoch"},
    "documents": {"changes_insert", "changes_update", "changes_delete", "part_copies"},
}
TRIGGERS = """
    SELECT relname, array_agg(tgname::text) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
    WHERE relnamespace = 'public'::regnamespace AND tgenabled IN ('O', 'A') GROUP BY relname
"""

AUDIT = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname LIKE 'audit\\_%'
      AND has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
"""


def violations(conn: Conn) -> list[str]:
    """What would let content past the policies, in words; empty when all is as it must be."""
    found = []
    role = conn.execute(ROLE).fetchone()
    if role is None or any(role[1:]):
        found.append(f"role {role[0] if role else '?'} is a superuser, bypasses row security, or is a maintenance role")
    tables = conn.execute(TABLES, (list(PROTECTED),)).fetchall()
    found += [f"table {name} has no forced row security" for name, forced, _ in tables if not forced]
    found += [f"table {name} belongs to the application's role" for name, _, owned in tables if owned]
    missing = set(PROTECTED) - {name for name, _, _ in tables}
    found += [f"table {name} is missing" for name in sorted(missing)]
    found += [f"table {name} has an unexpected policy {policy}" for name, policy in conn.execute(POLICIES).fetchall()]
    found += [f"table {name} has a weaker reader policy" for name, qual in conn.execute(READERS) if _weak(name, qual)]
    found += [
        f"table {name} has no reader policy" for (name,) in conn.execute(UNPOLICED, (list(PROTECTED),)).fetchall()
    ]
    watched = {name: set(triggers) for name, triggers in conn.execute(TRIGGERS).fetchall()}
    found += [
        f"changes of table {name} are not noticed: {', '.join(sorted(missing))}"
        for name, wanted in WATCHING.items()
        if (missing := wanted - watched.get(name, set()))
    ]
    found += [f"{name} runs with its owner's rights" for (name,) in conn.execute(ELEVATED).fetchall()]
    found += [f"table {name} is not for the application's role" for (name,) in conn.execute(AUDIT).fetchall()]
    return found


def _weak(table: str, qual: str | None) -> bool:
    needed = NEEDED.get("chunks" if table.startswith("tokens_") else table, NEEDED["documents"])
    return qual is None or " OR " in qual.replace(IN_SCOPE, "") or any(part not in qual for part in needed)


def check(conn: Conn) -> None:
    """Raises UnsafeDatabase with everything that is wrong."""
    if found := violations(conn):
        raise UnsafeDatabase("; ".join(found))
