# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of server_audit, the statements that bring them about, and the line that a person reads."""

from __future__ import annotations

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.audit_plugin import (
    KNOWN,
    PERMANENT,
    PluginState,
    limitations,
    plan_absent,
    plan_present,
    wanted_settings,
)
from ansible_collections.dbfleet.audit.plugins.plugin_utils._audit_plugin import audit_plugin_lines


class Quoter:
    """Quotes as MySQL does."""

    def identifier(self, *parts):
        return ".".join(f"`{part}`" for part in parts)

    def literal(self, value):
        return str(value) if isinstance(value, int) else f"'{value}'"


def wanted(**given):
    return wanted_settings(given, KNOWN)


def loaded(**current):
    return PluginState("server_audit", True, "ON", current={**wanted(), **current})


def statements(plan):
    return plan.statements(Quoter())


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("events", "query_dcl , connect", "CONNECT,QUERY_DCL"),
        ("events", ["TABLE", "Connect", "CONNECT"], "CONNECT,TABLE"),
        ("excl_users", ["b", " a", "b", ""], "a,b"),
        ("excl_users", "b,,a,", "a,b"),
        ("excl_users", [], ""),
        ("logging", "yes", "ON"),
        ("logging", 0, "OFF"),
        ("file_rotate_size", "1g", "1073741824"),
        ("file_rotate_size", 5000, "5000"),
        ("query_log_limit", "2K", "2048"),
        ("query_log_limit", None, "1024"),
        ("output_type", "SYSLOG", "syslog"),
        ("syslog_facility", "log_local3", "LOG_LOCAL3"),
        ("file_path", "a b.log", "a b.log"),
    ],
)
def test_a_value_becomes_what_the_server_would_show(name, value, text):
    assert wanted(**{name: value})[name] == text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"event": 1}, "did you mean events?"),
        ({"loc_info": 1}, "it has events, excl_users"),
        ({"events": ""}, "events: '' is empty"),
        ({"events": "DDL"}, "did you mean QUERY_DDL"),
        ({"logging": "perhaps"}, "neither true nor false"),
        ({"file_rotate_size": True}, "is no number"),
        ({"file_rotate_size": "1.5G"}, "is no number"),
        ({"file_rotate_size": 99}, "between 100 and"),
        ({"excl_users": ["a b"]}, "has a space in it"),
        ({"syslog_info": "a\nb"}, "cannot hold"),
        ({"syslog_ident": "é" * 64}, "longer than the 127 bytes"),
        ({"incl_users": "a", "excl_users": "b"}, "exclude each other"),
        ({"file_rotate_now": True}, "an order and not a setting"),
    ],
)
def test_what_no_server_could_take_is_refused(given, words):
    with pytest.raises(AuditError) as caught:
        wanted(**given)
    assert words in str(caught.value)


def test_loading_a_plugin_that_finds_its_option_file_is_all_there_is_to_do():
    state = PluginState("server_audit")
    assert statements(plan_present(state, wanted(), persisted=True)) == ["INSTALL SONAME 'server_audit'"]
    assert statements(plan_present(state, wanted(), persisted=False)) == [
        "INSTALL SONAME 'server_audit'",
        "SET GLOBAL `server_audit_events` = 'CONNECT,QUERY_DDL,QUERY_DCL'",
        "SET GLOBAL `server_audit_file_rotate_size` = 104857600",
        "SET GLOBAL `server_audit_file_rotations` = 20",
        "SET GLOBAL `server_audit_query_log_limit` = 65536",
        "SET GLOBAL `server_audit_logging` = 'ON'",
    ]


def test_values_that_mean_the_same_are_left_alone():
    state = loaded(events="QUERY_DCL,CONNECT,QUERY_DDL", excl_users="b , a")
    assert not plan_present(state, wanted(excl_users=["a", "b"]), persisted=True)
    assert plan_present(state, wanted(excl_users=["A", "b"]), persisted=True)


def test_one_list_of_users_is_emptied_before_the_other_is_filled():
    for before, after in (("excl_users", "incl_users"), ("incl_users", "excl_users")):
        plan = plan_present(loaded(**{before: "a"}), wanted(**{after: "a"}), persisted=True)
        emptied, filled = statements(plan)
        assert emptied == f"SET GLOBAL `server_audit_{before}` = ''"
        assert filled == f"SET GLOBAL `server_audit_{after}` = 'a'"


def test_logging_starts_when_all_else_is_set():
    plan = plan_present(loaded(logging="OFF", output_type="syslog"), wanted(mode=1), persisted=True)
    assert statements(plan)[-1] == "SET GLOBAL `server_audit_logging` = 'ON'"
    assert len(statements(plan)) == 3


def test_what_is_permanent_is_not_unloaded_but_forgotten():
    unload = "UNINSTALL SONAME 'server_audit2'"
    forget = "SET STATEMENT sql_log_bin = 0 FOR DELETE FROM mysql.plugin WHERE name = 'SERVER_AUDIT'"
    stop = "SET GLOBAL `server_audit_logging` = 'OFF'"
    for option, registered, current, expected in (
        ("ON", True, "ON", [stop, unload]),
        ("ON", False, "OFF", [unload]),
        (PERMANENT, True, "ON", [stop, forget]),
        (PERMANENT, False, "OFF", []),
    ):
        state = PluginState("server_audit2", True, option, registered, current={"logging": current})
        assert statements(plan_absent(state)) == expected
    assert not plan_absent(PluginState("server_audit"))


def test_what_stays_open_is_said():
    assert "only the event QUERY logs them" in limitations(loaded(), wanted())[0]
    assert limitations(loaded(), wanted(events="CONNECT,QUERY")) == []
    assert limitations(loaded(), wanted(events="CONNECT")) == []
    assert "nothing is logged" in limitations(loaded(), wanted(logging=False))[0]
    state = PluginState("server_audit", True, status={"writes_failed": "7"})
    assert "7 records could not be written" in limitations(state, wanted(events="QUERY"))[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "logs CONNECT, QUERY_DDL, QUERY_DCL to /log, 20 x 100 MB, restart pending: no, 0.3 s"),
        ({"excl_users": "a,b"}, "QUERY_DCL without a, b to /log"),
        ({"incl_users": "a"}, "QUERY_DCL of a to /log"),
        ({"file_rotate_size": "1536M", "file_rotations": 2}, "2 x 1.5 GB"),
        ({"file_rotate_size": 100, "file_rotations": 2}, "2 x 100 bytes"),
        ({"file_rotations": 0}, "to /log, not rotated,"),
        ({"logging": False}, "is loaded and logs nothing, restart"),
    ],
)
def test_a_line_says_what_is_logged_and_where(given, words):
    result = {
        "available": True,
        "restart_required": False,
        "seconds": 0.312,
        "limitations": ["so it is"],
        "settings": wanted(**given),
        "log": "/log",
    }
    first, second = audit_plugin_lines(result, "maria1")
    assert words in first
    assert second == "maria1: limitation: so it is"


def test_other_lines_say_why_there_is_nothing():
    syslog = {"available": True, "restart_required": True, "seconds": 1, "limitations": [], "log": "syslog"}
    assert audit_plugin_lines({**syslog, "settings": wanted()}, "m")[0].endswith("to syslog, restart pending: yes, 1 s")
    assert audit_plugin_lines(syslog, "m") == [
        "m: server_audit taken out, its log files kept, restart pending: yes, 1 s"
    ]
    assert audit_plugin_lines({"available": False, "reason": "why"}, "m") == ["m: no server_audit: why"]
