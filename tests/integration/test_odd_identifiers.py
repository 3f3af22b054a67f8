# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names that need quoting, names that mean something elsewhere, very many tables and very wide ones."""

from __future__ import annotations

import contextlib
import time
import typing as t

import pytest
from auditing import install_trail, records, rollout, trail_database, wanted
from databases import Database, connect, fetch, unique
from local_postgresql import LocalPostgresql

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.pattern import Pattern

CAPTURES = ("row", "statement")
NAMES = (
    "Mixed Case",
    "rabbits;",
    "a.b",
    'x"y',
    "it's",
    "back\\slash",
    "$audit$",
    "$1",
    "%s",
    "%(name)s",
    "{place}",
    "{schema}",
    "[seq]",
    "*",
    "?",
    "a,b",
    "two\nlines",
    " space ",
    "NULL",
    "select",
    "x" * 63,
    "é" * 31,
    "Größe €",
    "名前",
    "😀",
    "audit_log",
    "audit",
    "dbfleet_audit_insert",
)
#: Names that the functions use themselves, or that mean something to the server.
COLUMNS = (
    *("v_old", "v_new", "v_hidden", "v_record", "v_context", "v_user", "v_client", "v_schema", "v_table", "v_row"),
    *("TG_OP", "tg_op", "TG_ARGV", "OLD", "NEW", "old", "new", "relation", "policy", "image", "redacted", "hashed"),
    *("user", "current_user", "order", "table", "ctid_", "id ", "value", "key", "name", "columns", "position"),
)


def quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


@pytest.fixture(scope="module", params=CAPTURES)
def odd(pg: LocalPostgresql, request: pytest.FixtureRequest) -> t.Iterator[Database]:
    """Return a database with schemas, tables, columns and policies of each of these names."""
    with trail_database(pg) as database:
        policies = []
        for number, name in enumerate(NAMES):
            schema = name if name != "audit" else "s_audit"
            database.execute(f"CREATE SCHEMA {quoted(schema)}")
            table = f"{quoted(schema)}.{quoted(name)}"
            other = NAMES[(number + 1) % len(NAMES)]
            database.execute(f"CREATE TABLE {table} ({quoted(name)} int PRIMARY KEY, {quoted(other)} text)")
            columns = {"redact": [other]} if number % 2 else {"hash": [other]}
            policies.append(wanted(table, name=f"policy {name}", columns=columns, capture=request.param))
        database.policies = policies
        rollout(database, policies=policies)
        yield database


def test_a_second_run_finds_every_name_again(odd):
    assert not rollout(odd, policies=odd.policies).changed


@pytest.mark.parametrize("name", NAMES)
def test_changes_are_recorded_under_the_names_as_they_are(odd, name):
    schema, other = name if name != "audit" else "s_audit", NAMES[(NAMES.index(name) + 1) % len(NAMES)]
    table = quoted(schema, name)
    odd.execute(f"INSERT INTO {table} VALUES (1, 'one')")
    odd.execute(f"UPDATE {table} SET {quoted(other)} = 'two', {quoted(name)} = 2")
    odd.execute(f"TRUNCATE {table}")
    query = (
        "SELECT l.action, l.record_id, l.new_values ->> %s, l.new_values ->> %s ~ '^.REDACTED.$|^hmac-sha256:', "
        "l.changed_columns, p.name FROM audit.audit_log AS l JOIN audit.policy AS p USING (policy_id) "
        "WHERE l.schema_name = %s AND l.table_name = %s ORDER BY l.id"
    )
    found = odd.execute(query, name, other, schema, name)
    policy = f"policy {name}".strip()
    changed = sorted([name, other], key=lambda text: text.encode())
    assert found == [
        ("INSERT", "1", "1", True, None, policy),
        ("UPDATE", "2", "2", True, changed, policy),
        ("TRUNCATE", None, None, None, None, policy),
    ]


@pytest.mark.parametrize("capture", CAPTURES)
def test_columns_may_be_called_what_the_functions_call_their_own(trail, capture):
    columns = ", ".join(f"{quoted(name)} text" for name in COLUMNS)
    trail.execute(f"CREATE TABLE words (id int PRIMARY KEY, {columns})")
    masked = {"redact": ["v_old", "TG_OP", "policy"], "hash": ["relation", "NEW"]}
    keys = (
        {"capture": capture}
        if capture == "statement"
        else {"when": 'NEW."OLD" IS NOT NULL', "operations": ["insert", "update"]}
    )
    rollout(trail, policies=[wanted("public.words", columns=masked, **keys)])
    trail.execute(f"INSERT INTO words VALUES (1, {', '.join(['%s'] * len(COLUMNS))})", *COLUMNS)
    for name in COLUMNS:
        trail.execute(f"UPDATE words SET {quoted(name)} = 'changed'")
    insert, *updates = records(trail, "words")
    expected = {"id": 1, **{name: name for name in COLUMNS}, **dict.fromkeys(masked["redact"], "[REDACTED]")}
    hashed = {name: insert.new_values[name] for name in masked["hash"]}
    assert all(digest.startswith("hmac-sha256:") for digest in hashed.values())
    assert insert.new_values == {**expected, **hashed}
    assert [update.changed_columns for update in updates] == [[name] for name in COLUMNS]


def test_schemas_and_tables_may_be_called_like_roles_and_like_the_log(trail):
    role = trail.create_role("Odd role")
    trail.execute(f"GRANT CREATE ON DATABASE {quoted(trail.name)} TO {quoted(role)}")
    trail.execute(f"CREATE SCHEMA AUTHORIZATION {quoted(role)}", user=role)
    for table in ("audit_log", "audit_log_data", "policy", "definition", role):
        trail.execute(f"CREATE TABLE {quoted(role, table)} (id int PRIMARY KEY)", user=role)
    policies = [wanted(f"{quoted(role)}.*")]
    assert rollout(trail, policies=policies)["audited"] == 5
    trail.execute(f"INSERT INTO {quoted(role, 'audit_log')} VALUES (7)", user=role)
    (record,) = records(trail)
    assert (record.schema_name, record.table_name, record.record_id, record.db_user) == (role, "audit_log", "7", role)
    assert not rollout(trail, policies=policies).changed


POLICY_NAMES = ('O\'Neil "the" DBA; --', "two\nlines", "Größe €uro", "$audit$ {schema} %s \\", "名前", "x" * 300)


@pytest.mark.parametrize("capture", CAPTURES)
def test_policies_may_have_any_name(trail, capture):
    policies = []
    for number, name in enumerate(POLICY_NAMES):
        trail.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY)")
        policies.append(wanted(f"public.t{number}", name=name, capture=capture, tags=[name], classification=name))
    rollout(trail, policies=policies)
    for number in range(len(POLICY_NAMES)):
        trail.execute(f"INSERT INTO t{number} VALUES (1)")
    query = "SELECT p.name, p.tags[1] FROM audit.audit_log JOIN audit.policy AS p USING (policy_id) ORDER BY id"
    assert trail.execute(query) == [(name, name) for name in POLICY_NAMES]
    assert not rollout(trail, policies=policies).changed


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "EUC_JP"])
def test_databases_of_other_encodings(pg, encoding):
    letters = {"LATIN1": "Größe", "WIN1252": "Größe €", "EUC_JP": "名前"}[encoding]
    with contextlib.closing(connect(pg, "postgres")) as connection:
        name = unique("encoded")
        fetch(connection, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    db = Database.__new__(Database)
    db.server, db.name, db._connections, db._roles, db._own = pg, name, [], [], None
    try:
        install_trail(db)
        db._own = db.connect(client_encoding="UTF8")
        db.execute(f"CREATE TABLE {quoted(letters)} ({quoted(letters)} text PRIMARY KEY, ssn text, pin text)")
        policy = wanted(
            f"public.{letters[:-1]}?", name=letters, columns={"redact": [letters], "hash": ["ssn"]}, auto_attach=True
        )
        rollout(db, policies=[policy])
        assert not rollout(db, policies=[policy]).changed
        db.execute(f"INSERT INTO {quoted(letters)} VALUES (%s, %s, 'x')", letters, letters)
        db.execute(f"ALTER TABLE {quoted(letters)} RENAME pin TO {quoted(letters + '2')}")
        db.execute(f"INSERT INTO {quoted(letters)} VALUES ('b', NULL, %s)", letters)
        first, second = records(db)
        assert (first.table_name, first.new_values[letters], first.new_values["pin"]) == (letters, "[REDACTED]", "x")
        assert (second.new_values[letters + "2"], second.record_id) == (letters, "[REDACTED]")
        assert not rollout(db, policies=[policy]).changed
    finally:
        db.drop()


GLOBS = (
    *(
        "a?",
        "a[bc]",
        "a[!bc]",
        "a[a-c]x",
        "[ab]*",
        "*[!0-9]",
        "[]]x",
        "[!]]x",
        "[[]x",
        "[*?]",
        "a[",
        "a]",
        "a[]",
        "[!]",
    ),
    *("a[^b]", "[^]x", "[\\]", "[b-]", "[-b]", "[!-b]", "a*b", "a{2}", "a+", "a|b", "(a)", "^a", "a$"),
    *("[[:alpha:]]", "[a[.b.]c]", "[a&&b]", "[a--c]", "[a||b]", "a\\d", "\\", "é", "[é]", "[!é]", "É", "\n", "[c-a]"),
)
QUOTED = ('"a.b"', '"a*"', '"[ab]"', '"x""y"', '"a\\"', '"?"', '"$"', '"(a|b)"')
CANDIDATES = (
    *("a", "b", "ab", "ac", "ad", "aax", "abx", "adx", "axx", "]x", "[x", "bx", "*", "?", "a[", "a]", "[!]", "a[]"),
    *(
        "a^",
        "^",
        "^x",
        "\\",
        "[\\]",
        "-",
        "aab",
        "a\nb",
        "aa",
        "a{2}",
        "a+",
        "a|b",
        "(a)",
        "^a",
        "a$",
        "[[:alpha:]]",
        "a]]",
    ),
    *(
        ":]",
        "a:]",
        "l]",
        "a[.b.]c]",
        "&",
        "a&&b",
        "ad\\d",
        "a1",
        "a\\d",
        "é",
        "É",
        "e",
        "\n",
        "a.b",
        "a*",
        "[ab]",
        'x"y',
        "a\\",
    ),
    *("$", "(a|b)", "9", "a9", "0", ".c]", "[c", ".", "|", "c", "A", ""),
)


def test_globs_mean_the_same_in_python_and_in_the_server(trail):
    disagreements, refused = [], []
    for glob in (*GLOBS, *QUOTED):
        try:
            pattern = Pattern.parse(f"s.{glob}", "here")
        except AuditError:
            refused.append(glob)
            continue
        rows = trail.execute(
            "SELECT name FROM unnest(%s) AS u (name) WHERE 's' ~ %s AND name ~ %s", list(CANDIDATES), *pattern.regexes
        )
        server = {row[0] for row in rows}
        python = {name for name in CANDIDATES if pattern.matches("s", name)}
        if server != python:
            disagreements.append((glob, pattern.regexes[1], sorted(server - python), sorted(python - server)))
    assert disagreements == []
    # Brackets without an end, a dot outside of quotes, ranges the wrong way round: an error, and not a pattern.
    assert refused == ["a[]", "[!]", "[a[.b.]c]", "[a--c]", "[c-a]"]


def test_globs_mean_what_the_shells_globs_mean():
    """By hand, from the definition in glob(7)."""
    expected = {
        "a?": {"ab", "ac", "ad", "a[", "a]", "a^", "aa", "a+", "a$", "a1", "a*", "a\\", "a9"},
        "a[bc]": {"ab", "ac"},
        "a[!bc]": {"ad", "a[", "a]", "a^", "aa", "a+", "a$", "a1", "a*", "a\\", "a9"},
        "[]]x": {"]x"},
        "[!]]x": {"[x", "bx", "^x"},
        "[*?]": {"*", "?"},
        '"a*"': {"a*"},
        '"x""y"': {'x"y'},
        "a|b": {"a|b"},
    }
    for glob, names in expected.items():
        pattern = Pattern.parse(f"s.{glob}", "here")
        assert {name for name in CANDIDATES if pattern.matches("s", name)} == names, glob


def test_policy_for_finds_the_policy_that_the_module_finds(trail):
    tables = ["orders", "orders_2024", "orders_old", "Orders", "x.y", "items"]
    for table in tables:
        trail.execute(f"CREATE TABLE {quoted(table)} (id int PRIMARY KEY)")
    policies = [
        wanted('public."x.y"', name="exact"),
        wanted("public.orders_[0-9]*", name="years"),
        wanted("public.[!x]*", name="rest", exclude=["public.*_old"]),
    ]
    exceptions = [{"table": "public.item?", "reason": "test", "approved_by": "me"}]
    rollout(trail, policies=policies, exceptions=exceptions)
    query = "SELECT p.name FROM audit.policy AS p WHERE p.policy_id = audit.policy_for('public', %s)"
    found = {table: [row[0] for row in trail.execute(query, table)] for table in tables}
    assert found == dict(zip(tables, (["rest"], ["years"], [], ["rest"], ["exact"], [])))
    audited = trail.execute(
        "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'dbfleet_audit_i%'"
    )
    assert {row[0] for row in audited} == {"orders", "orders_2024", '"Orders"', '"x.y"'}


MANY = """
DO $$ BEGIN
  FOR i IN 1 .. 2000 LOOP
    EXECUTE format('CREATE TABLE many.t%s (id int PRIMARY KEY)', i);
    IF i % 200 = 0 THEN COMMIT; END IF;
  END LOOP;
END $$
"""


@pytest.mark.thorough
def test_two_thousand_tables_cost_as_many_statements_as_one(new_server):
    server = new_server()
    with trail_database(server) as db:
        db.execute("CREATE TABLE single (id int PRIMARY KEY); CREATE SCHEMA many")
        db.execute(MANY)
        db.execute(f"ALTER DATABASE {db.name} SET log_statement = 'all'")

        def sent(*patterns: str) -> tuple[int, t.Any]:
            before = server.log.read_text().count(" statement: ")
            result = rollout(db, policies=[wanted(*patterns, name="all", operations=["insert"])])
            return server.log.read_text().count(" statement: ") - before, result

        first, single = sent("public.single")
        began = time.monotonic()
        second, many = sent("public.single", "many.*")
        assert time.monotonic() - began < 60
        assert (single["audited"], many["audited"], len(many["changed_tables"])) == (1, 2001, 2000)
        assert first == second > 5
        third, again = sent("public.single", "many.*")
        assert (again.changed, third < second) == (False, True)
        db.execute("INSERT INTO many.t1 VALUES (1); INSERT INTO many.t2000 VALUES (1)")
        assert [record.table_name for record in records(db)] == ["t1", "t2000"]


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("width", [300, 1600])
def test_wide_tables(trail, capture, width):
    columns = ", ".join(f"c{number} {'bool' if number % 2 else 'smallint'}" for number in range(1, width))
    trail.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})")
    rollout(
        trail, policies=[wanted("public.wide", capture=capture, columns={"redact": ["c7"], "hash": [f"c{width - 1}"]})]
    )
    trail.execute("INSERT INTO wide (id, c7, c8) VALUES (1, true, 5)")
    trail.execute(f"UPDATE wide SET c{width - 2} = 1")
    trail.execute("UPDATE wide SET c7 = false")
    trail.execute("DELETE FROM wide")
    insert, update, hidden, delete = records(trail, "wide")
    row = {"id": 1, **{f"c{number}": None for number in range(1, width)}, "c7": "[REDACTED]", "c8": 5}
    assert (insert.new_values, insert.record_id) == (row, "1")
    assert (update.old_values, update.changed_columns) == (row, [f"c{width - 2}"])
    assert (hidden.changed_columns, delete.old_values) == (["c7"], {**row, f"c{width - 2}": 1})
