# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines that real servers have written, line by line: prefixes, times, pgaudit's CSV, secrets."""

from __future__ import annotations

import io
import typing as t

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._server_log import structured
from ansible_collections.dbfleet.audit.plugins.module_utils._server_log.clock import Clock
from ansible_collections.dbfleet.audit.plugins.module_utils._server_log.files import Reading
from ansible_collections.dbfleet.audit.plugins.module_utils._server_log.pgaudit import Pgaudit
from ansible_collections.dbfleet.audit.plugins.module_utils._server_log.postgresql import LogRecord, PostgresqlEvents
from ansible_collections.dbfleet.audit.plugins.module_utils._server_log.server_audit import ServerAuditEvents
from ansible_collections.dbfleet.audit.plugins.module_utils._server_log.statement import (
    class_of,
    command_of,
    without_secrets,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._server_log.stderr import StderrFormat


def stderr(prefix: str, text: str) -> tuple[list[LogRecord], Reading]:
    reading = Reading("server.log", "stderr")
    return list(StderrFormat(prefix).records(reading.complete_lines(io.StringIO(text)), reading)), reading


def csvlog(text: str) -> tuple[list[LogRecord], Reading]:
    reading = Reading("server.csv", "csvlog")
    return list(structured.csv_records(reading.complete_lines(io.StringIO(text)), reading)), reading


def server_audit(text: str) -> list[dict[str, t.Any]]:
    reading = Reading("server_audit.log", "server_audit")
    return list(ServerAuditEvents(Clock("UTC")).events(reading.complete_lines(io.StringIO(text)), reading))


# -- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("2026-11-21 20:14:24.753 CET", "Europe/Berlin", "2026-11-21T19:14:24.753000Z"),
        ("2026-06-21 20:14:24 CEST", "Europe/Berlin", "2026-06-21T18:14:24.000000Z"),
        # The hour that comes twice.
        ("2026-10-25 02:30:00.000 CEST", "Europe/Berlin", "2026-10-25T00:30:00.000000Z"),
        ("2026-10-25 02:30:00.000 CET", "Europe/Berlin", "2026-10-25T01:30:00.000000Z"),
        ("2026-11-21 20:14:24.753 UTC", "Europe/Berlin", "2026-11-21T20:14:24.753000Z"),
        ("2026-11-21 20:14:24.753 -03", None, "2026-11-21T23:14:24.753000Z"),
        ("2026-11-21 20:14:24.753 +0530", None, "2026-11-21T14:44:24.753000Z"),
        ("1795288464.753", None, "2026-11-21T19:14:24.753000Z"),
        ("2026-11-21 19:17:38", "+02:00", "2026-11-21T17:17:38.000000Z"),
        ("2026-01-01 00:30:00", "Europe/Berlin", "2025-12-31T23:30:00.000000Z"),
    ],
)
def test_a_time_becomes_utc(text, zone, utc):
    assert Clock(zone).utc(text) == utc


def test_an_abbreviation_is_never_guessed():
    with pytest.raises(AuditError, match="in EST, and time_zone is Europe/Berlin, which has CET"):
        Clock("Europe/Berlin").utc("2026-11-21 20:14:24.753 EST")
    with pytest.raises(ValueError, match="month"):
        Clock("UTC").utc("2026-13-21 20:14:24.753 UTC")


# -- prefixes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "line", "expected"),
    [
        ("%m [%p] ", "2026-11-21 20:14:24.879 CET [25375] ", {"process_id": 25375}),
        ("%t:%r:%u@%d:[%p]: ", "2026-11-21 20:14:24 UTC:10.0.0.7(60302):ann@shop:[7]: ", {"client": "10.0.0.7"}),
        ("%m %-10u|%10d|%a ", "2026-11-21 20:14:24.879 CET ann       |      shop|my app, \"x\" ", {"database": "shop"}),
        ("%n %q%u %h %e ", "1795288464.753 ann 10.0.0.7 42501 ", {"user": "ann", "sqlstate": "42501"}),
        ("%m %c %l %s %v %x %i|%b %P %Q%% ", "2026-11-21 20:14:24.879 CET 6b01ed90.6319 3 2026-11-21 20:14:24 CET "
         "3/2 725 CREATE ROLE|client backend  -17% ", {"transaction_id": "725", "command": "CREATE ROLE"}),
    ],
)  # fmt: skip
def test_every_escape_of_a_prefix_is_read(prefix, line, expected):
    records, reading = stderr(prefix, f"{line}ERROR:  permission denied for table users\n")
    assert reading.unparsed == 0
    assert {name: getattr(records[0], name) for name in expected} == expected
    assert records[0].message == "permission denied for table users"


def test_what_no_session_has_is_left_out_of_the_prefix():
    records, reading = stderr("%m [%p] %q%u@%d ", "2026-11-21 20:14:24.753 CET [25361] LOG:  listening on port 1\n")
    assert (records, reading.records, reading.unparsed) == ([], 1, 0)


def test_a_verbose_message_has_its_code():
    records, _reading = stderr("%m ", "2026-11-21 20:14:24.753 CET FEHLER:  42501: keine Berechtigung\n")
    assert (records[0].sqlstate, records[0].message) == ("42501", "keine Berechtigung")


def test_lines_of_others_are_counted_and_shown_without_secrets():
    _records, reading = stderr("%m ", "cp: cannot stat 'x'\nALTER ROLE ann PASSWORD 'secret'\n")
    assert reading.unparsed == 2
    assert [sample["text"] for sample in reading.samples] == [
        "cp: cannot stat 'x'",
        "ALTER ROLE ann PASSWORD [REDACTED]",
    ]
    assert [sample["line"] for sample in reading.samples] == [1, 2]


def test_the_process_of_another_session_says_nothing_of_this_one():
    text = (
        "2026-11-21 20:14:24.826 CET [7] [unknown] LOG:  connection received: host=10.0.0.7 port=1\n"
        "2026-11-21 20:14:24.827 CET [7] ann LOG:  connection authorized: user=ann database=shop\n"
        "2026-11-21 20:14:25.827 CET [7] bob ERROR:  permission denied for table users\n"
    )
    records, _reading = stderr("%m [%p] %u ", text)
    assert [(record.user, record.client) for record in records] == [("ann", "10.0.0.7"), ("bob", None)]


def test_a_session_goes_on_in_the_next_file():
    form = StderrFormat("%m [%p] ")
    stamp = "2026-11-21 20:14:24.879 CET [7] "
    first = f"{stamp}LOG:  connection authorized: user=ann database=shop application_name=web\n"
    second = f"{stamp}ERROR:  permission denied for table users\n{stamp}STATEMENT:  TABLE users\n"
    records = [record for text in (first, second) for record in form.records([*text.splitlines(True)], Reading("", ""))]
    assert (records[1].user, records[1].database, records[1].application) == ("ann", "shop", "web")
    assert records[1].statement == "TABLE users"


# -- csvlog -----------------------------------------------------------------------------------------------------------

ROW = (
    '2026-11-21 20:14:24.875 CET,"ann","shop",25374,"::1:60302",6b01ed90.631e,4,"SELECT",2026-11-21 20:14:24 CET,3/12,'
    '0,LOG,00000,"AUDIT: OBJECT,1,1,READ,SELECT,TABLE,public.users,""SELECT name,\n\t\'a """"q""""\' FROM users"",'
    '<not logged>",,,,,,,,,"my app, ""x""","client backend",,0\n'
)


def test_a_record_over_several_lines():
    records, reading = csvlog(ROW)
    (record,) = records
    assert (record.user, record.client, record.application) == ("ann", "::1", 'my app, "x"')
    event = PostgresqlEvents(Clock("Europe/Berlin")).event(record)
    assert event["new_values"]["statement"] == "SELECT name,\n\t'a \"q\"' FROM users"
    assert (reading.lines, reading.unparsed) == (2, 0)


def test_a_record_that_was_cut_off_costs_no_other_one():
    cut = ROW[: ROW.index("FROM")] + "\n"
    records, reading = csvlog(ROW + cut + ROW + ROW)
    assert len(records) == 3
    assert reading.samples[0]["line"] == 3


def test_a_jsonlog_holds_no_half_of_a_character():
    reading = Reading("server.json", "jsonlog")
    line = '{"timestamp":"2026-11-21 20:14:24.879 CET","pid":1,"error_severity":"ERROR","message":"%s"}\n'
    assert list(structured.json_records([line % "\\ud800", line % "\\ud83d\\ude00", "{}\n"], reading)) == []
    assert (reading.records, reading.unparsed) == (1, 2)


# -- pgaudit ----------------------------------------------------------------------------------------------------------


def test_an_entry_that_refers_to_the_one_before_has_its_statement():
    pgaudit = Pgaudit()
    first = pgaudit.read("AUDIT: SESSION,3,1,READ,SELECT,,,SELECT count(*) FROM users,<none>,1", 7)
    again = pgaudit.read(
        "AUDIT: OBJECT,3,1,READ,SELECT,TABLE,public.users,<previously logged>,<previously logged>,1", 7
    )
    other = pgaudit.read(
        "AUDIT: OBJECT,3,1,READ,SELECT,TABLE,public.users,<previously logged>,<previously logged>,1", 8
    )
    assert (first.statement, first.parameters, first.rows) == ("SELECT count(*) FROM users", None, 1)
    assert again.statement == first.statement
    assert other.statement is None
    later = pgaudit.read(
        "AUDIT: OBJECT,4,1,READ,SELECT,TABLE,public.users,<previously logged>,<previously logged>,1", 7
    )
    assert later.statement is None


@pytest.mark.parametrize(
    ("kind", "name", "relation"),
    [
        ("TABLE", "public.users", ("public", "users")),
        ("TABLE", '"odd.schema"."a ""b"""', ("odd.schema", 'a "b"')),
        ("TABLE COLUMN", "public.users.name", ("public", "users")),
        ("FUNCTION", "public.f(integer)", (None, None)),
        ("", "", (None, None)),
    ],
)
def test_the_relation_of_an_entry(kind, name, relation):
    quoted = '"' + name.replace('"', '""') + '"'
    assert Pgaudit().read(f"AUDIT: OBJECT,1,1,DDL,ALTER,{kind},{quoted},x,<none>", 7).relation == relation


@pytest.mark.parametrize("entry", ['SESSION,1,1,READ,SELECT,,,"SELECT', "SESSION,1,1", "SESSION,a,1,READ,S,,,x,y", ""])
def test_half_an_entry_is_none(entry):
    with pytest.raises(ValueError, match=r"CSV|fields|int\(\)"):
        Pgaudit().read(f"AUDIT: {entry}", 7)


# -- server_audit -----------------------------------------------------------------------------------------------------


def test_tables_get_the_statement_that_follows_them_also_within_another_one():
    events = server_audit(
        "20261121 19:17:38,vm,root,localhost,7,55,READ,mysql,proc,\n"
        "20261121 19:17:38,vm,root,localhost,7,56,READ,shop,users,\n"
        "20261121 19:17:38,vm,root,localhost,7,56,QUERY,shop,'SELECT * FROM users',0\n"
        "20261121 19:17:38,vm,root,localhost,7,55,QUERY,shop,'CALL p()',0\n"
        "20261121 19:17:38,vm,ann,10.0.0.7,8,1,READ,shop,orders,\n"
    )
    told = [(event["action"], event["table_name"], event["new_values"]["statement"]) for event in events]
    assert told == [
        ("READ", "users", "SELECT * FROM users"),
        ("READ", None, "SELECT * FROM users"),
        ("READ", "proc", "CALL p()"),
        ("FUNCTION", None, "CALL p()"),
        ("READ", "orders", None),
    ]


# -- statements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE ann PASSWORD 'hid''den'",
        "ALTER ROLE ann ENCRYPTED PASSWORD E'hid\\'den'",
        "CREATE USER ann IDENTIFIED BY 'hidden'",
        "CREATE USER ann IDENTIFIED WITH mysql_native_password AS 'hidden'",
        "CREATE USER ann IDENTIFIED VIA ed25519 USING PASSWORD('hidden')",
        'SET PASSWORD = PASSWORD("hidden")',
        "UPDATE users SET api_token = 'hidden', name = 'ann'",
        "SELECT 1 FROM users WHERE \"password_hash\"='hidden'",
        "CREATE SUBSCRIPTION s CONNECTION 'host=h password=hidden' PUBLICATION p",
        "ALTER ROLE ann PASSWORD 'hidden",
    ],
)
def test_secrets_do_not_pass(statement):
    shown = without_secrets(statement)
    assert "hid" not in shown
    assert "den" not in shown
    assert "[REDACTED]" in shown


def test_all_else_does():
    statement = "SELECT name, 'a' FROM users WHERE id = 17 AND password IS NOT NULL"
    assert without_secrets(statement) == statement


@pytest.mark.parametrize(
    ("statement", "command", "kind"),
    [
        ("/* app */ -- x\n (select 1)", "SELECT", "READ"),
        ("INSERT INTO t VALUES (1)", "INSERT", "WRITE"),
        ("create user x", "CREATE", "ROLE"),
        ("create table x (a int)", "CREATE", "DDL"),
        ("SET PASSWORD = 'x'", "SET", "ROLE"),
        ("CALL p()", "CALL", "FUNCTION"),
        ("", None, "MISC"),
    ],
)
def test_what_kind_of_statement_it_is(statement, command, kind):
    assert (command_of(statement), class_of(statement)) == (command, kind)
