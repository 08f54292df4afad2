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
      AND (relname = ANY(%s) OR relname LIKE 'vectors\\_%%')
"""
POLICIES = """
    SELECT tablename, policyname FROM pg_policies
    WHERE schemaname = 'public' AND NOT (policyname = 'reader' AND roles = '{citadel_app}' AND cmd = 'SELECT')
      AND NOT (policyname = 'maintenance' AND roles = '{citadel_maintenance}')
"""
READERS = "SELECT tablename, qual FROM pg_policies WHERE schemaname = 'public' AND policyname = 'reader'"
# What a reader policy cannot be right without; vectors_… and the tables named nowhere here are under the first two.
NEEDED = {
    "documents": ("scope_tenant()", "scope_label_sets()"),
    "versions": ("EXISTS", "FROM documents", "scope_label_sets()"),
    "chunks": ("EXISTS", "FROM documents"),
} | dict.fromkeys(
    ("memberships", "clearances", "closed_subjects", "scim_users", "scim_groups", "label_sets", "sources", "change_log",
     "jobs"), ("scope_tenant()",)
)  # fmt: skip
UNPOLICED = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
      AND (relname = ANY(%s) OR relname LIKE 'vectors\\_%%')
      AND NOT EXISTS (SELECT FROM pg_policies WHERE tablename = relname AND policyname = 'reader')
"""
ELEVATED = """
    WITH found (name, id, namespace) AS (
        SELECT proname, oid, pronamespace FROM pg_proc WHERE prosecdef
        UNION ALL
        SELECT relname, oid, relnamespace FROM pg_class WHERE relkind IN ('v', 'm')
          AND NOT coalesce(reloptions::text LIKE '%security_invoker=true%', false)
    )
    SELECT f.name FROM found f JOIN pg_namespace n ON n.oid = f.namespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND has_schema_privilege(n.oid, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = f.id AND d.deptype = 'e')  -- an extension's own
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
    found += [f"{name} runs with its owner's rights" for (name,) in conn.execute(ELEVATED).fetchall()]
    return found


def _weak(table: str, qual: str | None) -> bool:
    needed = NEEDED.get(table, NEEDED["documents"])
    return qual is None or " OR " in qual or any(part not in qual for part in needed)


def check(conn: Conn) -> None:
    """Raises UnsafeDatabase with everything that is wrong."""
    if found := violations(conn):
        raise UnsafeDatabase("; ".join(found))
