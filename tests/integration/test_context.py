# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who did it, from where and why: what applications tell the log, and what they cannot tell it."""

from __future__ import annotations

import json
import typing as t

import psycopg2
import pytest
from auditing import Record, install_trail, records, rollout, trail_database, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql

EVENT = """SELECT audit.log_event('export', 'invoices', '2026-03', false, '{"rows": 5}')"""


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with one audited table, things."""
    with trail_database(pg) as database:
        database.execute("CREATE TABLE things (id serial PRIMARY KEY)")
        rollout(database, policies=[wanted("public.things")])
        yield database


def change(db: Database, *settings: tuple[str, str], before: str = "", **options: t.Any) -> Record:
    """Insert a row in a session of its own with these settings and return the record."""
    session = db.connect(**options)
    for name, value in settings:
        fetch(session, "SELECT set_config(%s, %s, false)", name, value)
    fetch(session, before + "INSERT INTO things DEFAULT VALUES")
    session.close()
    return records(db, "things")[-1]


def who(record: Record) -> tuple[str, str | None, t.Any]:
    return record.changed_by, record.client_ip, record.context


def test_set_context_feeds_the_columns_and_ends_with_the_transaction(shop):
    session = shop.connect(autocommit=False, application_name="shop-web")
    context = {"user": "ann", "ip_address": "192.0.2.7", "request_id": "r-1", "roles": ["hr"]}
    fetch(session, "SELECT audit.set_context(%s)", json.dumps(context))
    fetch(session, "INSERT INTO things DEFAULT VALUES")
    xid = fetch(session, "SELECT pg_current_xact_id()::text")[0][0]
    session.commit()
    fetch(session, "INSERT INTO things DEFAULT VALUES")
    session.commit()
    told, untold = records(shop, "things")[-2:]
    assert who(told) == ("ann", "192.0.2.7", {"request_id": "r-1", "roles": ["hr"]})
    assert (told.db_user, told.application_name, str(told.transaction_id)) == ("postgres", "shop-web", xid)
    assert who(untold) == ("postgres", None, None)


def test_without_any_context_the_login_is_who_did_it(shop):
    record = change(shop)
    assert (record.changed_by, record.db_user, record.context) == ("postgres", "postgres", None)


def test_the_client_address_is_that_of_the_connection(shop):
    record = change(shop, host="127.0.0.1", password=shop.server.password)
    assert record.client_ip == "127.0.0.1"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([("app.user", "ann")], ("ann", None, None)),
        ([("app.user_id", "42")], ("42", None, None)),
        ([("app.user_id", "42"), ("app.user", "ann")], ("ann", None, None)),
        ([("app.ip_address", "2001:db8::1")], ("postgres", "2001:db8::1", None)),
        ([("app.business_process", "hiring")], ("postgres", None, {"business_process": "hiring"})),
        ([("app.current_user", '"ann"')], ("ann", None, None)),
        ([("app.current_user", "42")], ("42", None, None)),
        ([("app.current_user", '{"id": 7, "email": "a@b"}')], ("a@b", None, {"id": 7, "email": "a@b"})),
        ([("app.audit_context", '{"user": "ann", "request_id": "r"}')], ("ann", None, {"request_id": "r"})),
        (
            [("request.jwt.claims", '{"sub": "u-1", "role": "web"}')],
            ("u-1", None, {"sub": "u-1", "claimed_role": "web"}),
        ),
        (
            [
                (
                    "app.audit_context",
                    '{"userId": "ann", "ipAddress": "192.0.2.1", "businessProcess": "pay", "sessionID": 1}',
                )
            ],
            ("ann", "192.0.2.1", {"user_id": "ann", "business_process": "pay", "session_id": 1}),
        ),
        (
            [
                ("audit.context", '{"user": "first"}'),
                ("app.user", "second"),
                ("request.jwt.claims", '{"sub": "third"}'),
            ],
            ("second", None, {"sub": "third"}),
        ),
    ],
)
def test_each_default_source_feeds_its_column(shop, settings, expected):
    assert who(change(shop, *settings)) == expected


@pytest.mark.parametrize(
    "setting",
    [
        "app.user",
        "app.user_id",
        "app.current_user",
        "app.ip_address",
        "app.business_process",
        "app.audit_context",
        "request.jwt.claims",
        "audit.context",
    ],
)
@pytest.mark.parametrize(
    "value", ["", "{", "null", "[1]", "no-address", '{"a": "\\u0000"}', "[" * 20000, "1e999999", "é"]
)
def test_no_value_of_a_setting_breaks_a_write(shop, setting, value):
    record = change(shop, (setting, value))
    assert record.action == "INSERT"
    assert record.changed_by in ("postgres", value[:500])


def test_what_cannot_be_read_is_named_in_the_record(shop):
    record = change(shop, ("app.audit_context", "{broken"), ("app.user", "ann"))
    assert who(record) == ("ann", None, {"unreadable": ["app.audit_context"]})


NO_BARE_ADDRESSES = [
    "10.1.2.3:55123",
    "10.1.2.3, 192.168.0.1",
    "[2001:db8::1]:443",
    "fe80::1%eth0",
    "unknown",
    ["10.1.2.3"],
]


@pytest.mark.parametrize("address", NO_BARE_ADDRESSES)
def test_an_address_that_is_more_or_less_than_one_is_kept_as_it_was_told(shop, address):
    context = json.dumps({"user": "ann", "ipAddress": address})
    record = change(shop, ("app.audit_context", context), host="127.0.0.1", password=shop.server.password)
    kept = {"claimed_ip_address": address, "unreadable": ["ip_address"]}
    assert who(record) == ("ann", "127.0.0.1", kept)
    shop.execute("BEGIN; SELECT set_config('app.audit_context', %s, true); " + EVENT + "; COMMIT", context)
    event = records(shop)[-1]
    assert (event.action, who(event)) == ("EVENT", ("ann", None, kept))


def test_an_unreadable_address_is_named_beside_what_else_is(shop):
    settings = [("app.audit_context", "{broken"), ("app.ip_address", "unknown")]
    kept = {"claimed_ip_address": "unknown", "unreadable": ["app.audit_context", "ip_address"]}
    assert who(change(shop, *settings)) == ("postgres", None, kept)


@pytest.mark.parametrize("context", ['{"ip_address": ""}', '{"ip_address": null}'])
def test_an_address_that_was_not_told_is_not_missed(shop, context):
    assert who(change(shop, ("app.audit_context", context))) == ("postgres", None, None)


def test_a_context_may_have_keys_of_these_names(shop):
    told = '{"ip_address": "unknown", "unreadable": {"a": 1}, "claimed_ip_address": "x"}'
    kept = {"claimed_ip_address": "unknown", "unreadable": [{"a": 1}, "ip_address"]}
    assert who(change(shop, ("app.audit_context", told))) == ("postgres", None, kept)


def test_a_pooled_session_that_has_forgotten_its_user_does_not_remember_an_empty_one(shop):
    """After SET LOCAL, later transactions of the session see '' and not NULL."""
    session = shop.connect(autocommit=False)
    for name in ("app.user", "app.ip_address", "app.business_process", "app.audit_context"):
        fetch(session, "SELECT set_config(%s, '{}', true)", name)
    session.commit()
    fetch(session, "INSERT INTO things DEFAULT VALUES")
    assert fetch(session, "SELECT current_setting('app.user')") == [("",)]
    session.commit()
    assert who(records(shop, "things")[-1]) == ("postgres", None, None)


def test_a_role_taken_with_set_role_is_in_the_context_and_the_login_stays(shop):
    role = shop.create_role("clerk", "NOLOGIN")
    shop.execute(f"GRANT INSERT ON things TO {role}; GRANT USAGE ON SEQUENCE things_id_seq TO {role}")
    record = change(shop, before=f"SET ROLE {role}; ")
    assert (record.db_user, record.changed_by, record.context) == ("postgres", "postgres", {"role": role})
    told = change(shop, ("app.audit_context", '{"role": "forged", "user": "ann"}'), before=f"SET ROLE {role}; ")
    assert (told.changed_by, told.context) == ("ann", {"role": role, "claimed_role": "forged"})


def test_db_user_is_the_login_whatever_the_application_claims(shop):
    role = shop.create_role("app")
    shop.execute(f"GRANT INSERT ON things TO {role}; GRANT USAGE ON SEQUENCE things_id_seq TO {role}")
    record = change(shop, ("app.audit_context", '{"user": "ann", "db_user": "postgres"}'), user=role)
    assert (record.changed_by, record.db_user) == ("ann", role)


def test_a_context_that_is_short_and_would_be_long_in_the_record_is_unreadable(shop):
    numbers = ", ".join(["1e131000"] * 3)
    record = change(shop, ("app.audit_context", f'{{"user": "ann", "n": [{numbers}]}}'))
    assert record.context == {"unreadable": ["app.audit_context"]}


def test_set_context_takes_only_an_object(shop):
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="JSON object, not array"):
        shop.execute("SELECT audit.set_context('[1]')")


def test_set_context_null_takes_the_context_back(shop):
    session = shop.connect(autocommit=False)
    fetch(session, """SELECT audit.set_context('{"user": "ann"}'), audit.set_context(NULL)""")
    fetch(session, "INSERT INTO things DEFAULT VALUES")
    session.commit()
    assert records(shop, "things")[-1].changed_by == "postgres"


def test_the_sources_can_be_chosen(db):
    context = {"user": ["myapp.login", "app.user"], "tenant": ["myapp.tenant"], "business_process": []}
    install_trail(db, context=context)
    db.execute("CREATE TABLE things (id serial PRIMARY KEY)")
    rollout(db, policies=[wanted("public.things")])
    settings = [("app.user", "b"), ("myapp.login", "a"), ("myapp.tenant", "acme"), ("app.business_process", "x")]
    assert who(change(db, *settings)) == ("a", None, {"tenant": "acme"})
    assert who(change(db, ("app.user", "b"), ("app.ip_address", "192.0.2.9"))) == ("b", "192.0.2.9", None)


class Roles(t.NamedTuple):
    """Logins of one database."""

    db: Database
    application: str
    reader: str
    member: str
    stranger: str


@pytest.fixture(scope="module")
def roles(pg: LocalPostgresql) -> t.Iterator[Roles]:
    """Return a trail with an application, a reader, a member of audit_reader and somebody without any right."""
    with trail_database(pg) as database:
        names = [database.create_role(name) for name in ("application", "reader", "member", "stranger")]
        install_trail(database, applications=[names[0]], readers=[names[1]])
        database.execute(f"GRANT audit_reader TO {names[2]}")
        yield Roles(database, *names)


def test_an_application_logs_events_in_its_own_name(roles):
    session = roles.db.connect(user=roles.application, autocommit=False)
    fetch(session, """SELECT audit.set_context('{"user": "ann", "requestId": "r1"}')""")
    fetch(session, EVENT)
    session.commit()
    record = records(roles.db)[-1]
    assert (record.action, record.table_name, record.record_id) == ("EVENT", "invoices", "2026-03")
    assert record.new_values == {"event": "export", "success": False, "rows": 5}
    assert (record.changed_by, record.db_user, record.context) == ("ann", roles.application, {"request_id": "r1"})


@pytest.mark.parametrize("action", ["INSERT", "DELETE", "DDL", "LOGIN", "'; --"])
def test_an_event_can_never_pass_for_a_change_of_a_row(roles, action):
    metadata = '{"event": "nothing", "action": "UPDATE", "db_user": "postgres"}'
    roles.db.execute(
        "SELECT audit.log_event(%s, 'users', '1', metadata => %s)", action, metadata, user=roles.application
    )
    record = records(roles.db)[-1]
    assert (record.action, record.db_user, record.old_values) == ("EVENT", roles.application, None)
    assert record.new_values["event"] == action


@pytest.mark.parametrize(("metadata", "kept"), [("[1]", {"metadata": [1]}), ('"x"', {"metadata": "x"}), (None, {})])
def test_metadata_of_an_event_may_be_any_json(roles, metadata, kept):
    roles.db.execute("SELECT audit.log_event('export', metadata => %s)", metadata, user=roles.application)
    assert records(roles.db)[-1].new_values == {"event": "export", "success": True, **kept}


@pytest.mark.parametrize("action", [None, ""])
def test_an_event_needs_a_name(roles, action):
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="needs an action"):
        roles.db.execute("SELECT audit.log_event(%s)", action, user=roles.application)


CALLS = {
    "set_context": "SELECT audit.set_context('{}')",
    "log_event": EVENT,
    "audit_log": "SELECT * FROM audit.audit_log",
    "audit_history": "SELECT * FROM audit.audit_history",
    "audit_logs": "SELECT * FROM audit.audit_logs",
}
ALLOWED = {
    "application": {"set_context", "log_event"},
    "reader": {"audit_log", "audit_history", "audit_logs"},
    "member": {"audit_log", "audit_history", "audit_logs"},
    "stranger": set(),
}


@pytest.mark.parametrize("kind", ALLOWED)
@pytest.mark.parametrize("call", CALLS)
def test_who_may_call_what(roles, kind, call):
    def attempt() -> None:
        roles.db.execute(CALLS[call], user=getattr(roles, kind))

    if call in ALLOWED[kind]:
        attempt()
    else:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            attempt()


MINE = (
    "SELECT coalesce(array_agg(proname::text ORDER BY proname), '{}') FROM pg_proc "
    "WHERE pronamespace = 'audit'::regnamespace AND has_function_privilege(%s, oid, 'EXECUTE')"
)


def test_no_function_of_the_trail_is_anybodys(roles):
    """Whoever is neither application nor reader can execute none, and these two only what is theirs."""
    assert roles.db.value(MINE, roles.stranger) == []
    assert roles.db.value(MINE, roles.application) == ["add_table", "log_event", "set_context"]
    assert roles.db.value(MINE, roles.reader) == roles.db.value(MINE, roles.member) == ["canonical", "schema_version"]


def test_the_first_rollout_leaves_no_function_to_everybody(trail):
    """Not only the second, which would repair it."""
    trail.execute("CREATE TABLE things (id int)")
    rollout(trail, policies=[wanted("public.things")])
    assert trail.value(MINE, trail.create_role("stranger")) == []
