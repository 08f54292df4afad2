"""Something real of each kind of source, that a test can write to, close and change the permissions of.

The contract suite and the refresh tests run over all of them; what a kind cannot do is None.
"""

import contextlib
import email.utils
import hashlib
import imaplib
import io
import json
import logging
import mailbox
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from wsgiref.simple_server import WSGIRequestHandler, make_server

import fsspec
import psycopg

from core.records import Labels, Source

FINANCE = Labels(("group:finance",))
STAFF = Labels(("group:staff",))
RULES = "version: 1\nrules:\n  - {path: 'b*', allow: [group:finance]}\n"
AWAY = "away"


class Stage(ABC):
    """A place with documents, each a name and a line of text; the source's own labels are STAFF."""

    kind: str
    config: dict[str, Any]
    edits = True  # False: an edited document is another one, as a message is

    @abstractmethod
    def put(self, name: str, text: str) -> None:
        """Write the document, anew or over the old one."""

    @abstractmethod
    def remove(self, name: str) -> None: ...

    def close_b(self) -> None:
        """Give the document `b` to FINANCE alone."""
        raise NotImplementedError

    @abstractmethod
    @contextmanager
    def outage(self) -> Iterator[None]:
        """The place is away meanwhile."""

    def source(self, source_id: UUID | None = None) -> Source:
        """Such a source."""
        return Source(source_id or uuid4(), uuid4(), "staged", self.kind, self.config, STAFF, None, 0.5, None)


class Folder(Stage):
    kind = "folder"

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.config = {"path": str(root)}

    def put(self, name: str, text: str) -> None:
        (self.root / f"{name}.txt").write_text(text)

    def remove(self, name: str) -> None:
        (self.root / f"{name}.txt").unlink()

    def close_b(self) -> None:
        (self.root / ".citadel.yaml").write_text(RULES)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.root.rename(self.root.with_name(AWAY))
        yield
        self.root.with_name(AWAY).rename(self.root)


class Posix(Folder):
    """A folder whose labels are by owner and mode."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        root.chmod(0o755)
        self.config |= {"posix": {"users": {str(os.getuid()): "user:owner@acme.example"},
                                  "groups": {str(os.getgid()): "group:finance"}, "others": "group:staff"}}  # fmt: skip

    def put(self, name: str, text: str) -> None:
        super().put(name, text)
        (self.root / f"{name}.txt").chmod(0o044 | 0o600)

    def close_b(self) -> None:
        (self.root / "b.txt").chmod(0o040)


class Memory(Stage):
    kind = "files"

    def __init__(self) -> None:
        self.root = f"/{uuid4().hex}"
        self.fs = fsspec.filesystem("memory")
        self.fs.mkdir(self.root)
        self.config = {"url": f"memory:/{self.root}"}

    def put(self, name: str, text: str) -> None:
        self.fs.pipe(f"{self.root}/{name}.txt", text.encode())

    def remove(self, name: str) -> None:
        self.fs.rm(f"{self.root}/{name}.txt")

    def close_b(self) -> None:
        self.fs.pipe(f"{self.root}/.citadel.yaml", RULES.encode())

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.fs.mv(self.root, f"/{AWAY}{self.root}", recursive=True)
        yield
        self.fs.mv(f"/{AWAY}{self.root}", self.root, recursive=True)


class Zip(Stage):
    kind = "files"

    def __init__(self, root: Path) -> None:
        self.archive, self.files = root / "files.zip", {}  # type: dict[str, str]
        root.mkdir()
        self.config = {"url": f"zip::file://{self.archive}"}
        self._write()

    def put(self, name: str, text: str) -> None:
        self.files[f"{name}.txt"] = text
        self._write()

    def remove(self, name: str) -> None:
        del self.files[f"{name}.txt"]
        self._write()

    def close_b(self) -> None:
        self.files[".citadel.yaml"] = RULES
        self._write()

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.archive.rename(self.archive.with_name(AWAY))
        yield
        self.archive.with_name(AWAY).rename(self.archive)

    def _write(self) -> None:
        with zipfile.ZipFile(self.archive, "w") as archive:
            for name, text in self.files.items():
                archive.writestr(name, text)


class WebDav(Folder):
    """A WebDAV server over a folder, by wsgidav."""

    kind = "files"

    def __init__(self, root: Path, stack: ExitStack) -> None:
        from wsgidav.wsgidav_app import WsgiDAVApp

        super().__init__(root)
        logging.getLogger("wsgidav").setLevel(logging.CRITICAL)
        app = WsgiDAVApp({"provider_mapping": {"/": str(root)}, "verbose": 0, "logging": {"enable": False},
                          "simple_dc": {"user_mapping": {"*": {"ana": {"password": "dav-secret-1"}}}}})  # fmt: skip
        self.down = False

        def answer(environ: Any, start: Any) -> Any:
            if self.down:
                start("503 Service Unavailable", [("Content-Length", "0")])
                return []
            return app(environ, start)

        class Quiet(WSGIRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                """Nothing."""

        server = make_server("127.0.0.1", 0, answer, handler_class=Quiet)
        stack.enter_context(serving(server))
        os.environ["CITADEL_TEST_DAV"] = "dav-secret-1"
        self.config = {"url": f"webdav://127.0.0.1:{server.server_port}/", "options": {"user": "ana"},
                       "secrets": {"password": "env:CITADEL_TEST_DAV"}}  # fmt: skip

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.down = True
        yield
        self.down = False


class Pages:
    """A web server of pages in memory, with entity tags and conditional requests (RFC 9110, 13)."""

    def __init__(self, stack: ExitStack) -> None:
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.moved: dict[str, str] = {}
        self.status: dict[str, int] = {}
        self.down = False
        self.asked: list[tuple[str, int]] = []
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = pages.answer(self.path, dict(self.headers))
                pages.asked.append((self.path, status))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *arguments: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        stack.enter_context(serving(self.server))
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}"

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if self.down:
            return 503, {}, b""
        if path in self.status:
            return self.status[path], {}, b""
        if path in self.moved:
            return 302, {"Location": self.moved[path]}, b""
        if path not in self.pages:
            return 404, {}, b""
        kind, body = self.pages[path]
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if headers.get("If-None-Match") == tag:
            return 304, {"ETag": tag}, b""
        return 200, {"Content-Type": kind, "ETag": tag}, body

    def put(self, path: str, body: str | bytes, kind: str = "text/html; charset=utf-8") -> None:
        self.pages[path] = kind, body.encode() if isinstance(body, str) else body

    def index(self, path: str, names: list[str]) -> None:
        """A page that links to others."""
        self.put(path, "<html><body>" + "".join(f'<a href="{name}">{name}</a> ' for name in names) + "</body></html>")


class Website(Stage):
    kind = "website"

    def __init__(self, stack: ExitStack) -> None:
        self.web, self.names = Pages(stack), []  # type: ignore[var-annotated]
        self.config = {"url": f"{self.web.url}/", "intranet": [self.web.host], "delay_s": 0.0, "links": False}
        self._index()

    def put(self, name: str, text: str) -> None:
        self.names = sorted({*self.names, name})
        self.web.put(f"/{name}", text, "text/plain")
        self._index()

    def remove(self, name: str) -> None:
        self.names.remove(name)
        del self.web.pages[f"/{name}"]
        self._index()

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.web.down = True
        yield
        self.web.down = False

    def _index(self) -> None:
        locations = "".join(f"<url><loc>{self.web.url}/{name}</loc></url>" for name in self.names)
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        self.web.put("/sitemap.xml", f'<urlset xmlns="{space}">{locations}</urlset>', "application/xml")


class Http(Stage):
    """A web server's folder, by fsspec."""

    kind = "files"

    def __init__(self, stack: ExitStack) -> None:
        self.web, self.names = Pages(stack), []  # type: ignore[var-annotated]
        self.config = {"url": f"{self.web.url}/files/"}
        self.web.index("/files/", [])
        self.web.moved["/files"] = "/files/"  # as web servers do for a folder

    def put(self, name: str, text: str) -> None:
        self.names = sorted({*self.names, f"{name}.txt"})
        self.web.put(f"/files/{name}.txt", text, "text/plain")
        self.web.index("/files/", self.names)

    def remove(self, name: str) -> None:
        self.names.remove(f"{name}.txt")
        self.web.index("/files/", self.names)

    def close_b(self) -> None:
        self.web.put("/files/.citadel.yaml", RULES)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.web.down = True
        yield
        self.web.down = False


class S3(Stage):
    """A bucket of moto's server, labelled by the objects' tags."""

    kind = "files"

    def __init__(self, stack: ExitStack) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self.server.start()
        stack.callback(self.server.stop)
        host, port = self.server.get_host_and_port()
        os.environ |= {"CITADEL_TEST_S3_KEY": "s3-key-1", "CITADEL_TEST_S3_SECRET": "s3-secret-1"}
        self.endpoint, self.bucket = f"http://{host}:{port}", uuid4().hex
        self.fs = fsspec.filesystem("s3", key="s3-key-1", secret="s3-secret-1", endpoint_url=self.endpoint,
                                    skip_instance_cache=True)  # fmt: skip
        self.fs.mkdir(self.bucket)
        secrets = {"key": "env:CITADEL_TEST_S3_KEY", "secret": "env:CITADEL_TEST_S3_SECRET"}
        self.config = {"url": f"s3://{self.bucket}/docs", "label_tag": "citadel",
                       "options": {"endpoint_url": self.endpoint}, "secrets": secrets}  # fmt: skip

    def put(self, name: str, text: str) -> None:
        self.fs.pipe(f"{self.bucket}/docs/{name}.txt", text.encode())
        self.fs.put_tags(f"{self.bucket}/docs/{name}.txt", {"citadel": "group:staff"})

    def remove(self, name: str) -> None:
        self.fs.rm(f"{self.bucket}/docs/{name}.txt")

    def close_b(self) -> None:
        self.fs.put_tags(f"{self.bucket}/docs/b.txt", {"citadel": "group:finance"})

    @contextmanager
    def outage(self) -> Iterator[None]:
        paths = self.fs.find(f"{self.bucket}/docs")
        kept = {path: (self.fs.cat_file(path), self.fs.get_tags(path)) for path in paths}
        self.fs.rm(paths)
        yield
        for path, (content, tags) in kept.items():
            self.fs.pipe(path, content)
            self.fs.put_tags(path, tags)


class Git(Stage):
    kind = "git"

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.config = {"url": root.as_uri(), "branch": "main", "folder": "docs", "owners": "CODEOWNERS",
                       "owner_labels": {"@acme/staff": "group:staff", "@acme/finance": "group:finance"}}  # fmt: skip
        (root / "docs").mkdir()
        (root / "docs/.keep").touch()
        (root / "CODEOWNERS").write_text("*.txt @acme/staff\n")
        self.commit()

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=Ana", "-c", "user.email=ana@acme.example", "-c", "commit.gpgSign=false")
        subprocess.run(["git", *who, *arguments], cwd=self.root, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=x")

    def put(self, name: str, text: str) -> None:
        (self.root / f"docs/{name}.txt").write_text(text)
        self.commit()

    def remove(self, name: str) -> None:
        (self.root / f"docs/{name}.txt").unlink()
        self.commit()

    def close_b(self) -> None:
        (self.root / "CODEOWNERS").write_text("*.txt @acme/staff\n/docs/b.txt @acme/finance\n")
        self.commit()

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.root.rename(self.root.with_name(AWAY))
        yield
        self.root.with_name(AWAY).rename(self.root)


def message(name: str, text: str) -> bytes:
    """A mail of one line; the same name and text give the same bytes."""
    date = email.utils.format_datetime(email.utils.parsedate_to_datetime("Mon, 05 Jan 2026 09:00:00 +0000"))
    people = "From: ana@acme.example\r\nTo: ben@acme.example\r\n"
    head = f"{people}Subject: {name}\r\nDate: {date}\r\nMessage-ID: <{name}@a>\r\n"
    return f"{head}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n".encode()


class Imap(Stage):
    """pymap's server, its mailbox in memory."""

    kind = "mail"
    edits = False

    def __init__(self, stack: ExitStack) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [str(Path(sys.executable).with_name("pymap")), "--no-service", "admin", "--no-service", "managesieve",
                   "--host", "127.0.0.1", "--port", str(self.port), "--no-tls", "dict", "--demo-data"]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)
        os.environ["CITADEL_TEST_IMAP"] = "demopass"
        self.config = {"url": f"imap://demouser@127.0.0.1:{self.port}/", "options": {"cleartext": True},
                       "folders": ["INBOX"], "secrets": {"password": "env:CITADEL_TEST_IMAP"}}  # fmt: skip
        with self._client() as client:
            client.store("1:*", "+FLAGS", "\\Deleted")
            client.expunge()

    def put(self, name: str, text: str) -> None:
        self.remove(name)
        with self._client() as client:
            client.append("INBOX", "", "", message(name, text))  # type: ignore[arg-type]

    def remove(self, name: str) -> None:
        with self._client() as client:
            _, found = client.search(None, "SUBJECT", name)
            for number in found[0].split():
                client.store(number.decode(), "+FLAGS", "\\Deleted")
            client.expunge()

    @contextmanager
    def outage(self) -> Iterator[None]:
        os.environ["CITADEL_TEST_IMAP"] = "wrong-imap-password"
        yield
        os.environ["CITADEL_TEST_IMAP"] = "demopass"

    @contextmanager
    def _client(self) -> Iterator[imaplib.IMAP4]:
        for _ in range(200):
            with contextlib.suppress(OSError):
                client = imaplib.IMAP4("127.0.0.1", self.port)
                break
            time.sleep(0.05)
        client.login("demouser", "demopass")
        client.select("INBOX")
        yield client
        client.logout()


class Maildir(Stage):
    kind = "mail"
    edits = False

    def __init__(self, root: Path) -> None:
        self.root, self.keys = root, {}  # type: dict[str, str]
        self.box = mailbox.Maildir(str(root), create=True)
        self.config = {"url": f"maildir://{root}"}

    def put(self, name: str, text: str) -> None:
        if name in self.keys:
            self.remove(name)
        self.keys[name] = self.box.add(message(name, text).replace(b"\r\n", b"\n"))

    def remove(self, name: str) -> None:
        self.box.remove(self.keys.pop(name))

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.root.rename(self.root.with_name(AWAY))
        yield
        self.root.with_name(AWAY).rename(self.root)


class Mbox(Stage):
    kind = "mail"
    edits = False

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.file, self.texts = root / "mail.mbox", {}  # type: dict[str, str]
        self.config = {"url": f"mbox://{self.file}"}
        self._write()

    def put(self, name: str, text: str) -> None:
        self.texts[name] = text
        self._write()

    def remove(self, name: str) -> None:
        del self.texts[name]
        self._write()

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.file.rename(self.file.with_name(AWAY))
        yield
        self.file.with_name(AWAY).rename(self.file)

    def _write(self) -> None:
        out = io.BytesIO()
        for name, text in self.texts.items():
            out.write(
                b"From ana@acme.example Mon Jan  5 09:00:00 2026\n"
                + message(name, text).replace(b"\r\n", b"\n")
                + b"\n"
            )
        self.file.write_bytes(out.getvalue())


class Sqlite(Stage):
    kind = "sql"

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.file = root / "notes.db"
        self._run("CREATE TABLE notes (n text PRIMARY KEY, body text, who text, at int)")
        query = "SELECT n AS id, body AS text, who AS labels, at AS modified, 'x: :y' AS kind FROM notes"
        self.config = {"url": f"sqlite:///{self.file}", "query": query}

    def put(self, name: str, text: str) -> None:
        self._run("INSERT INTO notes VALUES (?, ?, 'group:staff', 1) "
                  "ON CONFLICT (n) DO UPDATE SET body = excluded.body, at = at + 1", name, text)  # fmt: skip

    def remove(self, name: str) -> None:
        self._run("DELETE FROM notes WHERE n = ?", name)

    def close_b(self) -> None:
        self._run("UPDATE notes SET who = 'group:finance' WHERE n = 'b'")

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.file.rename(self.file.with_name(AWAY))
        yield
        self.file.with_name(AWAY).rename(self.file)

    def _run(self, statement: str, *values: str) -> None:
        with contextlib.closing(sqlite3.connect(self.file)) as conn, conn:
            conn.execute(statement, values)


class PostgresRows(Stage):
    """A table with uuids, label arrays and times."""

    kind = "sql"

    def __init__(self, url: str) -> None:
        self.url = url
        os.environ["CITADEL_TEST_DSN"] = url
        query = "SELECT id, body AS text, title, labels, at AS modified FROM notes -- all of them"
        self.config = {"secrets": {"url": "env:CITADEL_TEST_DSN"}, "query": query}
        self._run("DROP TABLE IF EXISTS notes")
        self._run("CREATE TABLE notes (id uuid PRIMARY KEY, title text, body text, labels text[], at timestamptz)")

    def put(self, name: str, text: str) -> None:
        add = "INSERT INTO notes VALUES (md5(%s)::uuid, %s, %s, '{group:staff}', clock_timestamp())"
        self._run(f"{add} ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, at = EXCLUDED.at", name, name, text)

    def remove(self, name: str) -> None:
        self._run("DELETE FROM notes WHERE title = %s", name)

    def close_b(self) -> None:
        self._run("UPDATE notes SET labels = '{group:finance}' WHERE title = 'b'")

    @contextmanager
    def outage(self) -> Iterator[None]:
        self._run("ALTER TABLE notes RENAME TO away")
        yield
        self._run("ALTER TABLE away RENAME TO notes")

    def _run(self, statement: str, *values: str) -> None:
        with psycopg.connect(self.url) as conn:
            conn.execute(statement.encode(), values or None)


class Reader(Stage):
    """A reader of JSON notes."""

    kind = "reader"

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.file, self.texts, self.who = root / "notes.json", {}, {}  # type: ignore[var-annotated]
        self.config = {"reader": "tests.json_notes:JsonNotes", "load": {"path": str(self.file)}, "id": "name",
                       "labels": "who", "timeout_s": 60.0}  # fmt: skip
        self._write()

    def put(self, name: str, text: str) -> None:
        self.texts[name] = text
        self._write()

    def remove(self, name: str) -> None:
        del self.texts[name]
        self._write()

    def close_b(self) -> None:
        self.who["b"] = ["group:finance"]
        self._write()

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.file.rename(self.file.with_name(AWAY))
        yield
        self.file.with_name(AWAY).rename(self.file)

    def _write(self) -> None:
        notes = [{"name": n, "text": t, "who": self.who.get(n, ["group:staff"])} for n, t in self.texts.items()]
        self.file.write_text(json.dumps(notes))


@contextmanager
def serving(server: Any) -> Iterator[None]:
    """A server in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


KINDS = ("folder", "posix", "memory", "zip", "webdav", "http", "s3", "git", "website", "imap", "maildir", "mbox",
         "sqlite", "postgres", "reader")  # fmt: skip


@contextmanager
def staged(kind: str, root: Path, database_url: str) -> Iterator[Stage]:
    """An empty place of this kind."""
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        make: dict[str, Any] = {
            "folder": lambda: Folder(root), "posix": lambda: Posix(root), "memory": Memory, "zip": lambda: Zip(root),
            "webdav": lambda: WebDav(root, stack), "http": lambda: Http(stack), "s3": lambda: S3(stack),
            "git": lambda: Git(root), "website": lambda: Website(stack), "imap": lambda: Imap(stack),
            "maildir": lambda: Maildir(root), "mbox": lambda: Mbox(root), "sqlite": lambda: Sqlite(root),
            "postgres": lambda: PostgresRows(database_url), "reader": lambda: Reader(root),
        }  # fmt: skip
        yield make[kind]()
