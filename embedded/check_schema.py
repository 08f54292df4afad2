"""Do the migrations build exactly `store/schema.sql`? Compares the dumps of two databases on a server of its own.

python -m embedded.check_schema
"""

import difflib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from embedded.place import erase_servers
from embedded.postgres import programs_folder, start_postgres
from store import migrate
from store.migrate import as_owner, create_database

SCHEMA = Path(migrate.__file__).with_name("schema.sql")
NOISE = re.compile(r"^(--.*|\\(un)?restrict .*|SET .*|SELECT pg_catalog\.set_config.*|)$")


def differences(server_url: str) -> list[str]:
    """Lines of a unified diff between what schema.sql and the migrations build; empty when they agree."""
    migrated = create_database(server_url, "check_migrations")
    migrate.migrate(migrated, {})
    whole = create_database(server_url, "check_schema")
    migrate.prepare_roles(whole, {})
    with as_owner(whole) as conn:
        conn.execute(SCHEMA.read_bytes())
    return list(difflib.unified_diff(_dump(whole), _dump(migrated), "schema.sql", "migrations", lineterm="", n=2))


def _dump(url: str) -> list[str]:
    command = [str(programs_folder() / "pg_dump"), "--schema-only", "--exclude-table=migrations*", url]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line for line in dumped.splitlines() if not NOISE.match(line)]


def main() -> int:
    """Exit status 0 when they agree, 1 with the differences when not."""
    state = Path(tempfile.mkdtemp(prefix="citadel-check-"))
    state.chmod(0o711)
    try:
        server = start_postgres(state, durable=False)
        try:
            found = differences(server.url)
        finally:
            server.stop()
    finally:
        erase_servers(state)
        shutil.rmtree(state)
    print("\n".join(found) or "the migrations build exactly schema.sql")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
