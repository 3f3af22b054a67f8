# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever is done to whatever tables under whatever policies: the log replays to what is in them.

DBFLEET_FUZZ_EXAMPLES=1000 looks for longer, and elsewhere each time.
"""

from __future__ import annotations

import collections
import itertools
import os
import typing as t

import hypothesis
import hypothesis.configuration
import hypothesis.strategies as st
import pytest
import running
from auditing import rollout, trail_database
from databases import Database, fetch
from local_postgresql import LocalPostgresql

EXAMPLES = int(os.environ.get("DBFLEET_FUZZ_EXAMPLES", "0"))
hypothesis.configuration.set_hypothesis_home_dir(running.CACHE / "hypothesis")

#: type -> values whose text is another exactly when jsonb's is another.
TYPES = {
    "int": ["0", "1", "-7"],
    "numeric": ["1.0", "1.00", "'NaN'", "-0.5"],
    "text": ["'a'", "''", "'it''s \"x\" \\ {}'", "'null'", "repeat('long ', 1000)"],
    "boolean": ["true", "false"],
    "timestamptz": ["'2024-02-03 04:05+02'", "'infinity'", "'0044-03-15 00:00+00 BC'"],
    "bytea": [r"'\x00ff'", "''"],
    "jsonb": ["'{\"a\": 1}'", "'{\"a\": 1.0}'", "'[]'", "'\"x\"'"],
    "int[]": ["'{1,NULL}'", "'{}'", "'{{1},{2}}'"],
    "float8": ["0.1", "1e300", "'NaN'"],
    "interval": ["'1 day 02:03'", "'1 mon'"],
    "daterange": ["'[2024-02-03,2024-03-04)'", "'empty'"],
}
MASKED = {"redact": "pin", "hash": "ssn"}

SHADOW = """
CREATE EXTENSION hstore;
CREATE TABLE shadow (id serial, table_name text, action text, changed text[]);
CREATE FUNCTION shadow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD *= NEW THEN
    RETURN NULL;
  END IF;
  INSERT INTO shadow (table_name, action, changed)
  VALUES (TG_ARGV[0], TG_OP, CASE TG_OP WHEN 'UPDATE' THEN akeys(hstore(NEW) - hstore(OLD)) END);
  RETURN NULL;
END $$
"""


class Table(t.NamedTuple):
    """A table, its policy, and which of its columns the log shows as they are."""

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]
    partitioned: bool
    policy: dict[str, t.Any]

    @property
    def recorded(self) -> set[str]:
        columns = self.policy["columns"]
        return set(columns.get("only") or self.columns) - set(columns.get("exclude", ()))

    @property
    def shown(self) -> list[str]:
        return sorted(self.recorded - {column for kind in MASKED for column in self.policy["columns"].get(kind, ())})


@st.composite
def tables(draw: st.DrawFn, name: str) -> Table:
    extra = draw(st.lists(st.sampled_from(sorted(TYPES)), max_size=5))
    columns = {
        "id": "int",
        "n": "int",
        "amount": "numeric",
        **{f"c{number}": kind for number, kind in enumerate(extra)},
    }
    columns.update({"pin": "text", "ssn": "text"})
    partitioned = draw(st.integers(0, 4)) == 0
    key = draw(st.sampled_from([("id",), ("id",), (), ("n", "id"), ("id", "ssn")]))
    capture = "row" if partitioned else draw(st.sampled_from(["row", "statement"]))
    masks: dict[str, t.Any] = {kind: [column] for kind, column in MASKED.items()}
    left_out = draw(
        st.sets(st.sampled_from([column for column in columns if column not in ("id", "pin", "ssn")]), max_size=2)
    )
    selection = draw(st.sampled_from(["none", "exclude", "only"]))
    if selection == "exclude":
        masks["exclude"] = sorted(left_out)
    elif selection == "only":
        masks["only"] = sorted(set(columns) - left_out - draw(st.sets(st.sampled_from(["pin", "ssn"]))))
    image = draw(st.sampled_from(["full", "changed"]))
    return Table(name, columns, key, partitioned, {"capture": capture, "update_image": image, "columns": masks})


WHERE = st.sampled_from(
    ["true", "true", "n % 2 = 0", "n % 3 = 1", "id % 4 < 2", "false", "id = (SELECT max(id) FROM {t})"]
)
STEPS = st.sampled_from(["insert"] * 8 + ["update"] * 10 + ["delete", "delete", "rekey", "rekey", "upsert", "truncate"])


@st.composite
def statements(draw: st.DrawFn, table: Table, schema: str, serial: t.Iterator[int]) -> str:
    """Return a statement that no constraint refuses: ids are unique modulo 10,000, and so stay unique."""
    target = f"{schema}.{table.name}"

    def value(column: str) -> str:
        if column in MASKED.values():
            return f"'SECRET-{draw(st.integers(0, 5))}'"
        return draw(st.sampled_from(TYPES[table.columns[column]] + ["NULL"] * (column != "n")))

    kind, where = draw(STEPS), draw(WHERE).format(t=target)
    others = [column for column in table.columns if column != "id"]
    if kind == "insert":
        rows = [f"({next(serial)}, {', '.join(map(value, others))})" for _unused in range(draw(st.integers(1, 5)))]
        return f"INSERT INTO {target} VALUES {', '.join(rows)}"
    if kind == "update":
        chosen = draw(st.lists(st.sampled_from(others), min_size=1, max_size=3, unique=True))
        return f"UPDATE {target} SET {', '.join(f'{column} = {value(column)}' for column in chosen)} WHERE {where}"
    if kind == "rekey":
        return f"UPDATE {target} SET id = id + 10000 WHERE {where}"
    if kind == "upsert" and table.key == ("id",):
        upsert = f"ON CONFLICT (id) DO UPDATE SET n = {table.name}.n + 1"
        return f"INSERT INTO {target} SELECT * FROM {target} WHERE {where} {upsert}"
    return f"TRUNCATE {target}" if kind == "truncate" else f"DELETE FROM {target} WHERE {where}"


SERIAL = itertools.count(1)


@pytest.fixture(scope="module")
def fuzzed(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database for one example after the other."""
    with trail_database(pg) as database:
        database.execute(SHADOW)
        yield database


def create(db: Database, schema: str, table: Table) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
    key = f", PRIMARY KEY ({', '.join(table.key)})" if table.key else ""
    target = f"{schema}.{table.name}"
    db.execute(f"CREATE TABLE {target} ({columns}{key}){' PARTITION BY RANGE (id)' if table.partitioned else ''}")
    if table.partitioned:
        db.execute(f"CREATE TABLE {target}_low PARTITION OF {target} FOR VALUES FROM (0) TO (10000)")
        db.execute(f"CREATE TABLE {target}_rest PARTITION OF {target} DEFAULT")
    events = f"AFTER INSERT OR UPDATE OR DELETE ON {target} FOR EACH ROW"
    db.execute(f"CREATE TRIGGER shadow {events} EXECUTE FUNCTION shadow('{table.name}')")


#: The images of a record, each value as the text that the log has of it: 1.0 is not 1.00.
LOG = """
SELECT action, (SELECT jsonb_object_agg(key, value::text) FROM jsonb_each(old_values)),
       (SELECT jsonb_object_agg(key, value::text) FROM jsonb_each(new_values)), changed_columns
FROM audit.audit_log WHERE schema_name = %s AND table_name = %s AND action <> 'DDL' ORDER BY id
"""

Image = frozenset[tuple[str, str]]


def replay(log: list[tuple[t.Any, ...]]) -> collections.Counter[Image]:
    """Return the rows that a log leaves, as a bag."""
    bag: collections.Counter[Image] = collections.Counter()
    for action, old, new, _unused in log:
        if action == "TRUNCATE":
            bag.clear()
        if old is not None:
            image = frozenset(old.items())
            assert bag[image] > 0, f"{action} of a row that is not there: {old}"
            bag[image] -= 1
        if new is not None:
            bag[frozenset({**(old or {}), **new}.items())] += 1
    return +bag


@hypothesis.settings(
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    # Each example is a rollout: a smaller one that fails too is not worth the minutes that it takes to find.
    phases=[hypothesis.Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(data=st.data())
def test_the_log_replays_to_what_is_in_the_tables(fuzzed, data):
    schema = f"f{next(SERIAL)}"
    made = [data.draw(tables(f"t{number}")) for number in range(data.draw(st.integers(1, 4)))]
    fuzzed.execute(f"CREATE SCHEMA {schema}; TRUNCATE shadow")
    for table in made:
        create(fuzzed, schema, table)
    policies = [
        {"tables": [f"{schema}.{table.name}"], "name": f"{schema} {table.name}", **table.policy} for table in made
    ]
    rollout(fuzzed, policies=policies)
    session = fuzzed.connect(autocommit=False)
    serial = itertools.count(1)
    try:
        for _unused in range(data.draw(st.integers(4, 7))):
            for _unused in range(data.draw(st.integers(4, 8))):
                fetch(session, "SAVEPOINT here")
                fetch(session, data.draw(statements(data.draw(st.sampled_from(made)), schema, serial)))
                if data.draw(st.integers(0, 5)) == 0:
                    fetch(session, "ROLLBACK TO here")
            session.rollback() if data.draw(st.integers(0, 5)) == 0 else session.commit()
    finally:
        session.close()
    for table in made:
        check(fuzzed, schema, table)
    leaks = "SELECT count(*) FROM audit.audit_log_data AS d WHERE d.schema_name = %s AND d::text LIKE %s"
    assert fuzzed.value(leaks, schema, "%SECRET%") == 0
    fuzzed.execute(f"DROP SCHEMA {schema} CASCADE")


def check(db: Database, schema: str, table: Table) -> None:
    """Compare the log with the table, and with what a trigger of the test's own has seen."""
    log = db.execute(LOG, schema, table.name)
    rows = [
        "{" + ", ".join(f'"{name}": {value}' for name, value in image if name in table.shown) + "}"
        for image in replay(log).elements()
    ]
    target, shown = f"{schema}.{table.name}", ", ".join(table.shown)
    replayed = f"jsonb_populate_recordset(NULL::{target}, %s)"
    contents = "SELECT ROW({})::text FROM {} ORDER BY 1"
    expected = db.execute(contents.format(shown, target))
    assert db.execute(contents.format(shown, replayed), f"[{', '.join(rows)}]") == expected
    seen = db.execute("SELECT action, changed FROM shadow WHERE table_name = %s", table.name)
    changes = [
        (action, sorted(set(columns) & table.recorded) if action == "UPDATE" else None) for action, columns in seen
    ]
    changes = [change for change in changes if change[1] != []]
    kept = [(action, columns and sorted(columns)) for action, _unused, _unused, columns in log if action != "TRUNCATE"]
    assert sorted(kept, key=repr) == sorted(changes, key=repr)
