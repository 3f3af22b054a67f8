# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""With pgaudit loaded, auditing adds no line per row to the server's log, and no masked value."""

from __future__ import annotations

import typing as t

import pytest
from auditing import install_trail, records, rollout, wanted
from databases import Database, fetch
from statement_auditing import preload

# Values that stand in no statement: what shows them in the server's log can only be the capture.
SECRET = "reverse('TERCES-' || 'NIP')"
IN_CLEAR = "PIN-SECRET"
EVERYTHING = {
    "pgaudit.log": "all",
    "pgaudit.log_parameter": "on",
    "pgaudit.log_catalog": "on",
    "pgaudit.log_relation": "on",
    "pgaudit.log_rows": "on",
    "pgaudit.log_statement": "on",
    "log_statement": "all",
    "log_error_verbosity": "verbose",
    "log_parameter_max_length": "-1",
    "log_min_messages": "debug1",
}


def server_log(db: Database) -> list[str]:
    return db.server.log.read_text(encoding="utf-8", errors="replace").splitlines()


def lines_of(db: Database, statement: str) -> list[str]:
    """Return what a statement, run by a session with everything on, adds to the server's log."""
    session = db.connect(options=" ".join(f"-c {name}={value}" for name, value in EVERYTHING.items()))
    before = len(server_log(db))
    fetch(session, statement)
    session.close()
    return [line for line in server_log(db)[before:] if f"@{db.name} " in line or line.startswith("\t")]


def audit_lines(lines: list[str]) -> int:
    return sum("AUDIT: SESSION" in line for line in lines)


@pytest.mark.parametrize("capture", ["row", "statement"])
@pytest.mark.parametrize(
    "values",
    [f"{SECRET}, '{{}}'", f"{SECRET}, '\"\\u0000\"'"],
    ids=["jsonb", "fallback"],
)
def test_pgaudit_logs_no_masked_value_and_no_line_for_a_record(db_pgaudit, capture, values):
    db = db_pgaudit
    if db.value("SELECT current_setting('server_version_num')::int") < 150000:
        pytest.skip("PostgreSQL 14 has no grants on parameters; documented")
    db.execute("CREATE EXTENSION pgaudit; CREATE TABLE plain (id int PRIMARY KEY, pin text, ssn text, j json)")
    db.execute("CREATE TABLE audited (LIKE plain INCLUDING ALL)")
    install_trail(db)
    rollout(db, policies=[wanted("public.audited", capture=capture, columns={"redact": ["pin"], "hash": ["ssn"]})])
    pin, json = values.split(", ", 1)
    written = {}
    for table in ("plain", "audited"):
        changes = (
            f"INSERT INTO {table} SELECT i, {pin}, {pin}, {json} FROM generate_series(1, 10) AS i",
            f"UPDATE {table} SET pin = pin || '+', ssn = ssn || '+'",
            f"DELETE FROM {table}",
        )
        written[table] = [lines_of(db, change) for change in changes]
    assert len(records(db, "audited")) == 30
    assert [audit_lines(lines) for lines in written["audited"]] == [audit_lines(lines) for lines in written["plain"]]
    assert audit_lines(written["audited"][0]) >= 1
    assert [line for lines in written["audited"] for line in lines if IN_CLEAR in line] == []
    assert IN_CLEAR not in str(records(db))


def test_capture_functions_made_before_the_restart_that_loads_pgaudit_are_silent_after_it(new_server: t.Any):
    server = new_server()
    made = Database(server, "made")
    if made.value("SELECT current_setting('server_version_num')::int") < 150000:
        pytest.skip("PostgreSQL 14 has no grants on parameters; documented")
    made.execute("CREATE TABLE plain (id int PRIMARY KEY, pin text); CREATE TABLE audited (LIKE plain INCLUDING ALL)")
    preload(server, "pgaudit")
    install_trail(made)
    rollout(made, policies=[wanted("public.audited", columns={"redact": ["pin"]})])
    server.restart()
    db = Database(server, "made", template=None)
    writer = db.create_role("writer")
    db.execute(f"GRANT ALL ON plain, audited TO {writer}")
    written = {}
    for table in ("plain", "audited"):
        written[table] = lines_of(db, f"INSERT INTO {table} SELECT i, {SECRET} FROM generate_series(1, 10) AS i")
        # The application's own login can write, although it may not change what pgaudit logs.
        db.execute(f"INSERT INTO {table} VALUES (11, 'x')", user=writer)
    assert len(records(db, "audited")) == 11
    assert audit_lines(written["audited"]) == audit_lines(written["plain"]) >= 1
    assert [line for line in written["audited"] if IN_CLEAR in line] == []
    assert not rollout(db, policies=[wanted("public.audited", columns={"redact": ["pin"]})]).changed
