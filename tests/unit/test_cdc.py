# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change data capture: which statements bring it about, in which order, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.pattern import Pattern
from ansible_collections.dbfleet.audit.plugins.module_utils._core.plan import Plan
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql import cdc as binlog
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql import cdc
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.cdc_settings import (
    ServerCatalog,
    Setting,
    SettingOptions,
    plan_settings,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.cdc_tables import Identity, choose
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.trigger_catalog import PgTable

OPTIONS = cdc.CdcOptions("audit_cdc", "audit_cdc", "pgoutput", "full")
READY = {
    "wal_level": Setting("logical", "configuration file"),
    "max_replication_slots": Setting("10", "default"),
    "max_wal_senders": Setting("10", "default"),
    "max_slot_wal_keep_size": Setting("1024", "configuration file"),
}


class Quotes:
    """Both engines' quoting, as far as these names need it."""

    def identifier(self, *parts):
        return ".".join(parts)

    def literal(self, value):
        return f"'{value}'" if isinstance(value, str) else str(value)


def table(name, kind="r", owned=True, parent=None, root=None):
    return PgTable("s", name, kind, "p", "owner", owned, owned, ("id",), ("id",), {}, parent, root, False, False)


def tables(*entries):
    return {("s", entry.name): entry for entry in entries}


def catalog(found, identities=None, publication=None, slot=None):
    kinds = {key: Identity("d") for key in found}
    kinds.update({("s", name): identity for name, identity in (identities or {}).items()})
    return cdc.CdcCatalog("shop", found, kinds, publication, slot, True)


def publication(*members, memory=(), narrowed=()):
    """Return one of ours; memory as [schema, table, kind, index, oid], the last left out by earlier versions."""
    kept = {("s", name): name in narrowed for name in members}
    return cdc.Publication(cdc.MARK + json.dumps(list(memory)), False, True, kept)


def statements(found, *patterns, **options):
    plan = Plan()
    choice = choose([Pattern.parse(f"s.{text}", "tables") for text in patterns], found.tables, found.identities, "shop")
    cdc.plan_present(dataclasses.replace(OPTIONS, **options), found, choice, plan)
    return plan.statements(Quotes())


def test_the_memory_comes_before_the_first_table_and_the_slot_last():
    found = catalog(tables(table("a"), table("b")), {"b": Identity("i", "b_key")})
    made = statements(found, "*")
    assert [text.split(" IS ")[0] for text in made] == [
        "CREATE PUBLICATION audit_cdc WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = "
        "true)",
        "COMMENT ON PUBLICATION audit_cdc",
        "ALTER TABLE s.a REPLICA IDENTITY FULL",
        "ALTER PUBLICATION audit_cdc ADD TABLE ONLY s.a",
        "ALTER TABLE s.b REPLICA IDENTITY FULL",
        "ALTER PUBLICATION audit_cdc ADD TABLE ONLY s.b",
        "SELECT pg_create_logical_replication_slot('audit_cdc', 'pgoutput') "
        "FROM set_config('lock_timeout', '60s', false)",
    ]
    assert json.loads(made[1].split(cdc.MARK)[1].rstrip("'")) == [["s", "a", "d", "", 0], ["s", "b", "i", "b_key", 0]]


def test_a_table_that_leaves_gets_back_what_it_had_and_not_what_its_owner_chose():
    ours = publication("a", "b", "c", memory=[["s", "a", "i", "a_key"], ["s", "b", "d", ""]])
    full = {name: Identity("f", indexes=("a_key",)) for name in "abc"}
    found = catalog(tables(*(table(name) for name in "abcd")), full, ours, {"plugin": "pgoutput"})
    plan = Plan()
    cdc.plan_leaving(OPTIONS, dataclasses.replace(found, slot=None), plan)
    assert plan.statements(Quotes()) == [
        "ALTER PUBLICATION audit_cdc DROP TABLE ONLY s.a",
        "ALTER TABLE s.a REPLICA IDENTITY USING INDEX a_key",
        "ALTER PUBLICATION audit_cdc DROP TABLE ONLY s.b",
        "ALTER TABLE s.b REPLICA IDENTITY DEFAULT",
        "ALTER PUBLICATION audit_cdc DROP TABLE ONLY s.c",
    ]
    assert statements(found, "a", "b", "c") == []
    assert statements(found, "b", "c")[1:] == ["ALTER TABLE s.a REPLICA IDENTITY USING INDEX a_key"]


def leaving(found):
    plan = Plan()
    cdc.plan_leaving(OPTIONS, dataclasses.replace(found, slot=None), plan)
    return plan.statements(Quotes())


def test_a_renamed_table_and_a_detached_partition_get_back_what_they_had_and_a_lost_index_is_no_obstacle():
    memory = [
        ["s", "old", "n", "", 7],
        ["s", "part", "d", "", 8],
        ["s", "c", "i", "c_key", 9],
        ["s", "gone", "d", "", 10],
    ]
    ours = publication("new", "c", memory=memory)
    full = {name: Identity("f", oid=oid) for name, oid in (("new", 7), ("part", 8), ("c", 9))}
    found = catalog(tables(*(table(name) for name in ("new", "part", "c"))), full, ours, {"plugin": "pgoutput"})
    assert [text for text in leaving(found) if "REPLICA" in text] == [
        "ALTER TABLE s.new REPLICA IDENTITY NOTHING",
        "ALTER TABLE s.c REPLICA IDENTITY DEFAULT",
        "ALTER TABLE s.part REPLICA IDENTITY DEFAULT",
    ]
    assert statements(found, "new", "c") == ["ALTER TABLE s.part REPLICA IDENTITY DEFAULT"]
    assert statements(found, "*") == ["ALTER PUBLICATION audit_cdc ADD TABLE ONLY s.part"]


def test_a_table_that_two_publications_have_gets_back_what_it_had_from_the_last_of_them():
    first = publication("a", memory=[["s", "a", "n", "", 7]])
    found = catalog(tables(table("a"), table("b")), {"a": Identity("f", oid=7), "b": Identity("f")})
    second = statements(dataclasses.replace(found, others=[first]), "*")
    assert second[1].endswith(f"IS '{first.comment}'")
    two = dataclasses.replace(found, publication=first, others=[first])
    assert leaving(two) == ["ALTER PUBLICATION audit_cdc DROP TABLE ONLY s.a"]
    assert "ALTER TABLE s.a REPLICA IDENTITY NOTHING" in leaving(dataclasses.replace(two, others=[]))


def test_in_a_restored_database_a_number_that_is_another_tables_does_not_mislead():
    ours = publication("a", "b", memory=[["s", "a", "n", "", 7], ["s", "b", "d", "", 8]])
    found = catalog(tables(table("a"), table("b")), {"a": Identity("f", oid=8), "b": Identity("f", oid=7)}, ours)
    assert "ALTER TABLE s.a REPLICA IDENTITY NOTHING" in leaving(found)
    assert "ALTER TABLE s.b REPLICA IDENTITY DEFAULT" in leaving(found)


@pytest.mark.parametrize("rest", ["(see wiki)", "[1]", '[["s", "a", "d", "", "x"]]', "3"])
def test_a_comment_that_somebody_has_rewritten_is_refused(rest):
    ours = dataclasses.replace(publication("a"), comment=cdc.MARK + rest)
    with pytest.raises(AuditError, match="is not as"):
        cdc.require_ours(OPTIONS, catalog(tables(table("a")), publication=ours))


def test_generated_columns_are_published_where_the_server_asks_for_them_and_virtual_ones_are_refused():
    found = catalog(tables(table("stored"), table("virtual")), {"virtual": Identity("d", generated="sv")})
    made = statements(dataclasses.replace(found, generated=True), "stored")
    assert "publish_generated_columns = stored" in made[0]
    with pytest.raises(AuditError, match="virtual cannot be published: it has a virtual generated column"):
        statements(found, "virtual")
    patterns = [Pattern.parse("s.virtual", "tables")]
    assert choose(patterns, found.tables, found.identities, "shop", whole_rows=False).tables


def test_a_table_of_which_somebody_publishes_less_is_published_whole_again():
    ours = publication("a", narrowed=["a"])
    found = catalog(tables(table("a")), {"a": Identity("f")}, ours, {"plugin": "pgoutput"})
    assert statements(found, "a") == [
        "ALTER PUBLICATION audit_cdc DROP TABLE ONLY s.a",
        "ALTER PUBLICATION audit_cdc ADD TABLE ONLY s.a",
    ]


def test_a_partition_goes_with_its_root_a_child_with_its_parent_and_what_is_not_ours_is_skipped():
    found = tables(
        table("root", kind="p"),
        table("leaf", root=("s", "root")),
        table("parent"),
        table("child", parent=("s", "parent")),
        table("foreign_owned", owned=False),
        table("keyless_root", kind="p"),
    )
    server = catalog(found, {"keyless_root": Identity("f", keyed=False)})

    def chosen(*texts):
        return choose([Pattern.parse(text, "tables") for text in texts], found, server.identities, "shop")

    choice = chosen("s.root", "s.leaf", "s.parent", "s.fore*", "s.keyless*")
    assert list(choice.tables) == [("s", "root"), ("s", "parent"), ("s", "child")]
    assert list(choice.skipped) == [("s", "foreign_owned"), ("s", "keyless_root")]
    assert "ALTER TABLE s.leaf REPLICA IDENTITY FULL" in statements(server, "root")
    assert list(chosen("s.leaf").tables) == [("s", "leaf")]
    with pytest.raises(
        AuditError, match=r"s\.keyless_root cannot be published: it is partitioned and has no primary key"
    ):
        chosen("s.keyless_root")


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ({}, {}, []),
        ({}, {"max_slot_wal_keep_size": "1GB"}, []),
        (
            {},
            {"max_slot_wal_keep_size": "2GB"},
            ["ALTER SYSTEM SET max_slot_wal_keep_size = '2GB'", "SELECT pg_reload_conf()"],
        ),
        (
            {"wal_level": "replica", "max_replication_slots": "2"},
            {"configure": True},
            [
                "ALTER SYSTEM SET wal_level = 'logical'",
                "ALTER SYSTEM SET max_replication_slots = '7'",
                "SELECT pg_reload_conf()",
            ],
        ),
        (
            {"max_wal_senders": "0"},
            {"configure": True},
            ["ALTER SYSTEM SET max_wal_senders = '10'", "SELECT pg_reload_conf()"],
        ),
        ({"wal_level": "replica"}, {"new_slot": False}, []),
        ({"wal_level": "replica"}, {}, "wal_level is replica and has to be logical"),
        ({"wal_level": "replica"}, {"configure": True, "superuser": False}, "this login is none"),
        ({"max_slot_wal_keep_size": "-1"}, {}, "would fill the disk"),
        ({"max_slot_wal_keep_size": "-1"}, {"new_slot": False}, []),
        ({}, {"max_slot_wal_keep_size": "-1"}, "is no size"),
    ],
)
def test_only_what_a_new_slot_lacks_is_set_and_only_where_that_is_allowed(changes, options, expected):
    given = {"max_slot_wal_keep_size": None, "configure": False, "new_slot": True, **options}
    superuser = given.pop("superuser", True)
    settings = {name: Setting(changes.get(name, setting.value), setting.source) for name, setting in READY.items()}
    server = ServerCatalog(settings, [], 3, superuser, True)
    plan = Plan()
    if isinstance(expected, str):
        with pytest.raises(AuditError, match=expected):
            plan_settings(server, SettingOptions(**given), plan)
    else:
        plan_settings(server, SettingOptions(**given), plan)
        assert plan.statements(Quotes()) == expected


def mysql(**changes):
    current = {"log_bin": "ON", "server_id": "7", "binlog_format": "ROW", "binlog_row_image": "FULL"}
    current.update(
        binlog_row_metadata="FULL", binlog_row_value_options="", enforce_gtid_consistency="ON", gtid_mode="ON"
    )
    return binlog.BinlogState("mysql", {**current, "binlog_expire_logs_seconds": "2592000", **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        (
            {"enforce_gtid_consistency": "OFF", "gtid_mode": "OFF", "binlog_row_value_options": "PARTIAL_JSON"},
            [
                "SET PERSIST binlog_row_value_options = ''",
                "SET PERSIST enforce_gtid_consistency = 'ON'",
                "SET PERSIST gtid_mode = 'OFF_PERMISSIVE'",
                "SET PERSIST gtid_mode = 'ON_PERMISSIVE'",
                "SET PERSIST gtid_mode = 'ON'",
            ],
        ),
        ({"gtid_mode": "ON_PERMISSIVE"}, ["SET PERSIST gtid_mode = 'ON'"]),
        ({"binlog_transaction_compression": "ON"}, ["SET PERSIST binlog_transaction_compression = 'OFF'"]),
        ({"binlog_row_metadata": "MINIMAL"}, ["SET PERSIST binlog_row_metadata = 'FULL'"]),
    ],
)
def test_mysql_is_taken_to_gtids_step_by_step(changes, expected):
    state = mysql(**changes)
    assert binlog.plan_variables(state, binlog.wanted_variables(state, None)).statements(Quotes()) == expected


def test_a_replica_that_does_not_log_what_it_gets_is_a_problem():
    def kinds(read_only, **changes):
        state = dataclasses.replace(mysql(**changes), read_only=read_only)
        return [problem.type for problem in binlog.problems(state, None)]

    assert kinds(True, log_slave_updates="OFF") == kinds(True, log_replica_updates="OFF") == ["replica"]
    assert kinds(True, log_slave_updates="ON") == kinds(False, log_slave_updates="OFF") == []


def test_binary_logs_need_an_end_and_a_server_id():
    with pytest.raises(AuditError, match="kept for ever"):
        binlog.wanted_variables(mysql(binlog_expire_logs_seconds="0"), None)
    with pytest.raises(AuditError, match="0 would keep"):
        binlog.check(mysql(), 0)
    with pytest.raises(AuditError, match="server_id is 0"):
        binlog.check(mysql(server_id="0"), None)
