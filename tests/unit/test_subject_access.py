# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report on a person's data: what is asked, what is counted once, and that no value becomes markup."""

from __future__ import annotations

import base64
import csv
import io
import json
import typing as t

from ansible_collections.dbfleet.audit.plugins.module_utils._core.event import EVENT_FIELDS
from ansible_collections.dbfleet.audit.plugins.plugin_utils._subject_access import (
    input_problems,
    queries,
    report,
    report_lines,
    tables,
)
from ansible_collections.dbfleet.audit.plugins.plugin_utils._subject_access_files import files

RECORDS = [
    {"database": "shop", "table": "users", "record_id": 17},
    {"database": "shop", "table": "users", "values": {"customer_id": 17}},
]
EVIL = "<img src=x onerror=alert(1)>\"'&"


def event(**values: t.Any) -> dict[str, t.Any]:
    return {**dict.fromkeys(EVENT_FIELDS), "changed_at": "2026-11-21T19:00:00.000000Z", **values}


def slurped(*events: dict[str, t.Any]) -> dict[str, t.Any]:
    # As the modules write them: a text has its characters, not their numbers.
    text = "".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in events)
    return {"results": [{"item": {"database": "shop"}, "content": base64.b64encode(text.encode()).decode()}]}


def answered(changes: list[dict[str, t.Any]], reads: list[dict[str, t.Any]] | None = None) -> dict[str, t.Any]:
    known: dict[str, t.Any] = {"_audit_subject_access_changes": slurped(*changes)}
    if reads is not None:
        known["_audit_subject_access_reads"] = slurped(*reads)
        known["_audit_subject_access_logs"] = {"results": [{"unparsed": {"count": 2}}]}
    return known


def made(hostvars: dict[str, t.Any]) -> dict[str, t.Any]:
    return report(list(hostvars), hostvars, "Ann", "2026-11-21 19:03:07", ["", ""])


CHANGE = event(
    id=1,
    action="UPDATE",
    schema_name="public",
    table_name="users",
    record_id="17",
    old_values={"id": 17, "name": EVIL, "price": 1, "password": "[REDACTED]"},
    new_values={"name": "Ann", "password": "[REDACTED]"},
    changed_columns=["name", "password"],
    changed_by=EVIL,
    db_user="shop",
)
ACCESS = {"source": "pgaudit", "process_id": 7, "statement_id": 1, "substatement_id": 1}
READ = event(
    action="READ",
    schema_name="public",
    table_name="users",
    new_values={"event": "SELECT", "statement": f"SELECT {EVIL}", "success": True, "parameters": "17"},
    changed_by="bob",
    context={**ACCESS, "audit_type": "OBJECT"},
)
STATEMENT = {**READ, "schema_name": None, "table_name": None, "context": {**ACCESS, "audit_type": "SESSION"}}


def test_what_is_asked_of_each_engine():
    assert [(query["table"], query["record_id"], query["columns"]) for query in queries(RECORDS, "mysql")] == [
        ("shop.users", "17", None),
        ("shop.users", None, {"customer_id": 17}),
    ]
    assert tables(RECORDS, "mysql") == [{"table": "shop.users", "database": None, "file": "reads-0.jsonl"}]
    assert tables(RECORDS, "postgresql") == [{"table": "users", "database": "shop", "file": "reads-0.jsonl"}]


def test_input_that_cannot_be_meant():
    assert input_problems("Ann", RECORDS, ["html"], "/srv/ann") == []
    assert input_problems("", [{"database": "shop", "record_id": 1, "values": {}}], ["pdf"], "/srv/ann") == [
        "audit_subject_access_subject is empty; set it",
        "audit_subject_access_formats: there is no pdf; choose from jsonl, csv, html",
        "audit_subject_access_records[0]: table is missing",
        "audit_subject_access_records[0]: give either record_id, the key of the person's row, or values, as "
        "{customer_id: 17}",
    ]


def test_an_event_counts_once_however_often_it_was_found():
    found = made({"pg1": answered([CHANGE, CHANGE], [STATEMENT, READ]), "pg2": answered([CHANGE], [])})
    assert [(entry["host"], entry["action"]) for entry in found["events"]] == [
        ("pg1", "UPDATE"),
        ("pg2", "UPDATE"),
        # In the same millisecond, which is all that the server's log knows.
        ("pg1", "READ"),
    ]
    assert found["actions"] == {"UPDATE": 2, "READ": 1}
    assert found["people"] == {EVIL: 2, "bob": 1}


def test_a_value_may_have_characters_that_end_a_line_elsewhere():
    address = {"address": "Main St 1\u2028Rear\u2029Berlin\u0085Mitte"}
    found = made({"pg1": answered([{**CHANGE, "new_values": address}, {**CHANGE, "id": 2}])})
    assert [entry["new_values"] for entry in found["events"]] == [address, CHANGE["new_values"]]
    assert json.loads(found["events"][0]["line"])["new_values"] == address


def test_a_context_may_be_no_object():
    for context in ('{"user": [11e]}', [1], "database", 7, None):
        changes = slurped({**CHANGE, "context": context})
        changes["results"][0]["item"] = {}
        reads = [{**READ, "context": context}]
        found = made({"my1": {**answered([], reads), "_audit_subject_access_changes": changes}})
        assert [(event["context"], event["database"]) for event in found["events"]] == [
            (context, None),
            (context, "shop"),
        ]


def test_who_did_not_answer_and_what_is_not_known_is_said():
    hostvars = {
        "pg1": answered([CHANGE]),
        "pg2": answered([], []),
        "gone": {},
        "broken": {"_audit_subject_access_error": "no"},
    }
    found = made(hostvars)
    assert found["missing"] == ["gone", "broken"]
    said = report_lines(found, ["/srv/ann/subject_access.html"])
    assert said[:4] == [
        "Ann: UPDATE 1, of 2 hosts",
        "written: /srv/ann/subject_access.html",
        "MISSING gone: it was not reached, or not asked in this run",
        "MISSING broken: no",
    ]
    assert "names no log of pg1." in said[4]
    assert "does not say which rows" in said[5]
    assert said[6] == "pg2: 2 lines of its logs could not be read, and what they record is not in this report."


def test_no_value_becomes_markup_or_a_formula():
    hostvars = {"pg1": answered([{**CHANGE, "application_name": "=1+1"}], [READ])}
    written = files(made(hostvars), ["jsonl", "csv", "html"])
    page = written["subject_access.html"]
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&amp;") >= 3
    assert page.count('<span class="masked">masked</span>') == 2
    assert '<span class="new">Ann</span>' in page
    assert "price" not in page
    assert "parameters: 17" in page
    rows = list(csv.DictReader(io.StringIO(written["subject_access.csv"])))
    assert [row["application_name"] for row in rows] == ["'=1+1", ""]
    lines = [json.loads(line) for line in written["subject_access.jsonl"].splitlines()]
    assert lines[0] == {"host": "pg1", "database": "shop", **CHANGE, "application_name": "=1+1"}


def test_a_number_stays_as_the_server_has_written_it():
    line = json.dumps({**CHANGE, "new_values": {"name": 0}}).replace('"name": 0}', '"name": 12345678901234567890.10}')
    content = base64.b64encode(f"{line}\n".encode()).decode()
    changes = {"results": [{"item": {"database": "shop"}, "content": content}]}
    written = files(made({"pg1": {"_audit_subject_access_changes": changes}}), ["jsonl", "html"])
    assert all("12345678901234567890.10" in text for text in written.values())
