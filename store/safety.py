"""Is row-level security really on? Checked as the application's own role, at start and by readiness."""

from core.errors import UnsafeDatabase
from store.pool import Conn

PROTECTED = (
    "documents",
    "versions",
    "chunks",
    "memberships",
    "clearances",
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
    WHERE schemaname = 'public' AND NOT (policyname = 'reader' AND roles = '{citadel_app}' AND cmd = 'SELECT'
          AND qual NOT IN ('true', '(true)'))
      AND NOT (policyname = 'maintenance' AND roles = '{citadel_maintenance}')
"""
UNPOLICED = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
      AND (relname = ANY(%s) OR relname LIKE 'vectors\\_%%')
      AND NOT EXISTS (SELECT FROM pg_policies WHERE tablename = relname AND policyname = 'reader')
"""
ELEVATED = """
    SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
    UNION ALL
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')
      AND NOT coalesce(reloptions::text LIKE '%security_invoker=true%', false)
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
    found += [
        f"table {name} has no reader policy" for (name,) in conn.execute(UNPOLICED, (list(PROTECTED),)).fetchall()
    ]
    found += [f"{name} runs with its owner's rights" for (name,) in conn.execute(ELEVATED).fetchall()]
    return found


def check(conn: Conn) -> None:
    """Raises UnsafeDatabase with everything that is wrong."""
    if found := violations(conn):
        raise UnsafeDatabase("; ".join(found))
