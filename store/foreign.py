"""Other people's databases, read only: the rows of an operator's query, through SQLAlchemy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.types import NullType

from core.errors import Invalid, Misconfigured, SourceUnavailable

NONE = "SELECT * FROM (\n{query}\n) q WHERE 1 = 0"
MARKS = "SELECT {columns} FROM (\n{query}\n) q"
ONE = "SELECT * FROM (\n{query}\n) q WHERE q.{id} = :id"
BATCH = 500  # rows held at a time
READ_ONLY = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET TRANSACTION READ ONLY",
             "mysql": "SET SESSION TRANSACTION READ ONLY", "mariadb": "SET SESSION TRANSACTION READ ONLY"}  # fmt: skip
_BIND = re.compile(r"(?<![:\w\\]):(?=\w)")  # what SQLAlchemy would take for a parameter
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class ForeignRows:
    """A query in a transaction that may not write. Its columns are named by the caller; the query is the operator's."""

    def __init__(self, url: str, query: str) -> None:
        """Raises Misconfigured for a URL that no driver here reads."""
        self._query = _BIND.sub(r"\:", query.strip().rstrip(";"))
        try:
            parsed = make_url(url)
            self._url = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
            self._engine = create_engine(self._url, poolclass=NullPool)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise Misconfigured(f"no driver here reads this database URL: {type(error).__name__}") from None

    def columns(self) -> list[str]:
        """The names of the query's columns. Raises SourceUnavailable."""
        with self._reading() as conn:
            return list(conn.execute(text(NONE.format(query=self._query))).keys())

    def rows(self, columns: list[str]) -> Iterator[RowMapping]:
        """These columns of every row, streamed. Raises SourceUnavailable."""
        chosen = ", ".join(f"q.{self._quoted(name)}" for name in columns)
        with self._reading() as conn:
            streamed = conn.execution_options(stream_results=True, max_row_buffer=BATCH)
            yield from streamed.execute(text(MARKS.format(columns=chosen, query=self._query))).mappings()

    def row(self, id_column: str, value: Any) -> RowMapping | None:
        """One row, whole; None where it is gone. Raises SourceUnavailable, and Invalid for an id that two rows have."""
        statement = ONE.format(query=self._query, id=self._quoted(id_column))
        wanted = text(statement).bindparams(bindparam("id", type_=NullType()))  # as the column's own type
        with self._reading() as conn:
            found = conn.execute(wanted, {"id": value}).mappings().fetchmany(2)
        if len(found) > 1:
            raise Invalid("two rows have this id")
        return found[0] if found else None

    def _quoted(self, name: str) -> str:
        return self._engine.dialect.identifier_preparer.quote(name)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        sqlite = self._url.get_backend_name() == "sqlite"
        if sqlite and not Path((self._url.database or "").removeprefix("file:")).is_file():
            raise SourceUnavailable("the database file is not there: is it mounted?")  # sqlite would make a new one
        try:
            with self._engine.connect() as conn:
                if statement := READ_ONLY.get(self._url.get_backend_name()):
                    conn.execute(text(statement))
                yield conn
                conn.rollback()
        except (
            SQLAlchemyError
        ) as error:  # its message holds the statement and its values; the cause, the server's words
            cause = getattr(error, "orig", None) or error
            said = str(cause).replace(self._url.password or "\0", "[secret]")
            raise SourceUnavailable(f"the database: {type(cause).__name__}: {said[:300]}") from None
