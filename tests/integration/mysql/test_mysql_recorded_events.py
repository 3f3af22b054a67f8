# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an application records itself, and what the trail refuses to promise on MariaDB and MySQL."""

from __future__ import annotations

import json
import typing as t

import pymysql
import pytest
import running
from mysql_databases import Schema

METADATA = {
    "failure_reason": "link expired",
    "channel": "mail",
    "api_token": "PIN-1",
    "attempts": 3,
    "none": None,
    "exact": 1.10,
    "old_values": {"password": "PIN-1", "mfa": True},
    "new_values": {"mfa": False, 'it\'s "odd"': "ü"},
}


def log_event(schema: Schema, metadata: t.Any, success: bool | None = True) -> tuple[t.Any, t.Any]:
    """Log an event of this schema's own and return what stands in the log: values before and after."""
    schema.execute("CALL audit.log_event('password_reset', %s, '17', %s, %s)", schema.name, success, metadata)
    rows = schema.execute(
        "SELECT old_values, new_values FROM audit.audit_log "
        "WHERE action = 'EVENT' AND table_name = %s ORDER BY id DESC",
        schema.name,
    )
    return tuple(value and json.loads(value) for value in rows[0])  # type: ignore[return-value]


def test_an_event_has_a_reason_and_values_before_and_after_but_no_secret(shop):
    old, new = log_event(shop, json.dumps(METADATA), success=False)
    assert old == {"password": "[REDACTED]", "mfa": True}
    assert new == {
        "event": "password_reset",
        "success": False,
        "failure_reason": "link expired",
        "channel": "mail",
        "api_token": "[REDACTED]",
        "attempts": 3,
        "none": None,
        "exact": 1.10,
        "mfa": False,
        'it\'s "odd"': "ü",
    }


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [(None, {}), ("{}", {}), ("[1]", {"metadata": [1]}), ('"x"', {"metadata": "x"}), ('{"old_values": null}', {})],
)
def test_metadata_of_an_event_may_be_any_json(shop, metadata, kept):
    assert log_event(shop, metadata) == (None, {"event": "password_reset", "success": True, **kept})


def test_values_of_an_event_are_objects(shop):
    with pytest.raises(pymysql.err.OperationalError, match="takes JSON objects as old_values"):
        log_event(shop, '{"new_values": [1]}')


@pytest.mark.parametrize(("event", "plugin"), [("ddl", "QUERY_DDL and QUERY_DCL"), ("login", "CONNECT")])
def test_what_the_server_shows_to_no_trigger_is_refused_with_the_way_to_it(shop, event, plugin):
    result = running.run_module("mysql_audit_trail", may_fail=True, events=["app", event], **shop.login)
    assert f"events: the server tells no trigger of '{event}'; take it out of `events`" in result.msg
    assert f"records it in the server's own log ({plugin})" in result.msg


def test_without_app_no_application_logs_events(shop):
    user = shop.create_account()
    running.run_module("mysql_audit_trail", events=[], applications=[user], **shop.login)
    with pytest.raises(pymysql.err.OperationalError) as caught:
        shop.execute("CALL audit.log_event('export', 'x', '7', TRUE, NULL)", user=user)
    assert caught.value.args[0] == 1370
    shop.execute("CALL audit.set_context(NULL)", user=user)
    running.run_module("mysql_audit_trail", applications=[user], **shop.login)
    shop.execute("CALL audit.log_event('export', 'x', '7', TRUE, NULL)", user=user)
