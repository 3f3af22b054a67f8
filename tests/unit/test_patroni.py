# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the configuration of a Patroni cluster gets, and gets back: merged, not replaced, and never by ALTER SYSTEM."""

from __future__ import annotations

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.patroni import (
    changes,
    not_taken_over,
    restoring,
    undoing,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.pgaudit import (
    ServerCatalog,
    ServerOptions,
    plan_server,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.preload import PreloadCatalog, difference
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.settings import Line

PRELOAD = "shared_preload_libraries"
FILE, AUTOMATIC = "/data/postgresql.conf", "/data/postgresql.auto.conf"


def line(name, text, file=FILE):
    return Line(name, text, file, 7, file == AUTOMATIC)


def server(*lines, in_recovery=True):
    return ServerCatalog(
        version_number=170000,
        in_recovery=in_recovery,
        superuser=True,
        creates_roles=True,
        loaded=True,
        lines=lines,
        sources={},
        current={},
        scoped={},
        object_role=None,
        silencers=[],
        messages={},
        patroni="shop",
    )


@pytest.mark.parametrize(
    ("current", "wanted", "changed"),
    [
        ({}, {"pgaudit.log": "ddl"}, {"pgaudit.log": "ddl"}),
        # What means the same stays as somebody has written it.
        ({"pgaudit.log": "role,ddl"}, {"pgaudit.log": "ddl, role"}, {}),
        ({PRELOAD: "a,pgaudit"}, {PRELOAD: "a, pgaudit"}, {}),
        ({"log_disconnections": True}, {"log_disconnections": "on"}, {}),
        ({"log_disconnections": "off"}, {"log_disconnections": True}, {"log_disconnections": "on"}),
        # Order counts for libraries.
        ({PRELOAD: "pgaudit, a"}, {PRELOAD: "a, pgaudit"}, {PRELOAD: "a, pgaudit"}),
        ({"pgaudit.role": "x", "work_mem": "8MB"}, {"pgaudit.role": None}, {"pgaudit.role": None}),
        ({"work_mem": "8MB"}, {"pgaudit.role": None}, {}),
    ],
)
def test_only_what_differs_is_changed(current, wanted, changed):
    assert changes(current, wanted) == changed


def test_a_change_is_undone_to_what_there_was():
    current = {"pgaudit.log": "none", "work_mem": "8MB", PRELOAD: "a"}
    changed = {"pgaudit.log": "ddl", "pgaudit.role": "x"}
    assert undoing(current, changed) == {"pgaudit.log": "none", "pgaudit.role": None}


def test_a_member_that_does_not_come_up_gets_back_what_it_ran_with():
    current = {PRELOAD: "a, pgaudit", "shared_buffers": "900GB", "work_mem": "8MB"}
    # max_wal_senders is the member's own, which the cluster's configuration does not reach.
    running = {PRELOAD: "a", "shared_buffers": "16384", "max_wal_senders": "10"}
    assert restoring(current, running) == {PRELOAD: "a", "shared_buffers": "16384"}
    assert restoring(current, {PRELOAD: ""}) == {PRELOAD: None}


def test_what_a_member_overrides_is_named_with_its_place():
    changed = {PRELOAD: "a, pgaudit", "pgaudit.log": "ddl", "pgaudit.role": None}
    assert not_taken_over(changed, [line(PRELOAD, "a,pgaudit"), line("pgaudit.log", "ddl")]) == []
    assert not_taken_over(changed, [line(PRELOAD, "a, pgaudit"), line(PRELOAD, "a", AUTOMATIC)]) == [
        f"{PRELOAD} is 'a' ({AUTOMATIC}:7)",
        "pgaudit.log is not set",
    ]


def test_settings_of_the_server_are_compared_and_none_is_a_statement():
    options = ServerOptions({"pgaudit.log": "ddl", "log_connections": "on"}, {}, returned=["log_connections"])
    result = plan_server(options, server(line("pgaudit.log", "none"), line("pgaudit.log_level", "info")))
    assert not result.plan
    assert result.patroni_parameters == {"pgaudit.log": "ddl", "log_connections": "on", "pgaudit.log_level": None}
    assert [text.split(" is ")[0] for text in result.unmet] == ["pgaudit.log", "log_connections", "pgaudit.log_level"]


@pytest.mark.parametrize("name", ["pgaudit.log", "pgaudit.log_level"])
def test_alter_system_beside_patroni_is_refused_with_the_way_out(name):
    options = ServerOptions({"pgaudit.log": "ddl"}, {})
    with pytest.raises(AuditError, match=f"{AUTOMATIC}:7.*ALTER SYSTEM RESET {name}"):
        plan_server(options, server(line("pgaudit.log", "ddl"), line(name, "none", AUTOMATIC)))


def test_the_list_of_libraries_that_alter_system_has_set_is_refused():
    catalog = PreloadCatalog("", "configuration file", [line(PRELOAD, "a"), line(PRELOAD, "b", AUTOMATIC)], "shop")
    with pytest.raises(AuditError, match=f"ALTER SYSTEM RESET {PRELOAD}"):
        difference(catalog, ["b", "pgaudit"])
    assert difference(catalog, ["b"]) == ""
    # Without Patroni, that file is ALTER SYSTEM's.
    assert difference(PreloadCatalog("", "configuration file", catalog.lines), ["b", "pgaudit"])
