# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Archives of two servers as Parquet, and the queries of docs/archive-queries.md, as they stand there, on them."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import pathlib
import re
import shutil
import types
import typing as t

import pytest
import running
from archiving import Archiver, add_old, months_ago, old_log, period
from documentation import blocks_of
from local_postgresql import LocalPostgresql
from moto.server import ThreadedMotoServer
from mysql_auditing import audit, install_trail
from mysql_databases import MysqlServer, Schema
from tampering import tamper

from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.canonical import canonical
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_parquet import COLUMNS, ParquetCopies

PAGE = running.ROOT / "docs" / "archive-queries.md"
EXAMPLES = running.ROOT / "docs" / "examples" / "archive"
HOSTS = ("pg3", "pg4")
UTC = datetime.timezone.utc

Row = dict[str, t.Any]
#: Executes the statements of a block and returns the rows of the last one.
Ask = t.Callable[[str], list[Row]]

EXACT = "12345678901234567890.123456789"

#: How many months ago, the time in that month, and the rest of a row.
STORY: list[tuple[int, str, Row]] = [
    (5, "2 days 10:00", {"record_id": "4711", "new_values": '{"id": 4711, "name": "Zoë \\"Q\\" \\\\ 日本"}'}),
    (4, "00:30", {"action": "UPDATE", "changed_by": "night@example.com", "record_id": "4711"}),
    (4, "3 days 10:00", {"table_name": "payment", "record_id": "1", "new_values": f'{{"amount": {EXACT}}}'}),
    (4, "3 days 10:01", {"table_name": "payment", "context": "null", "hidden_changes": ["a", 'b"c']}),
    (4, "3 days 10:02", {"action": "TRUNCATE", "table_name": "item", "client_ip": "192.0.2.7", "new_values": None}),
]
STORY[1][2].update(
    old_values='{"id": 4711, "name": "Zoë", "n": 1.0}', new_values='{"id": 4711, "name": "X", "n": 1.00}'
)

_TELL = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id, old_values,
  new_values, hidden_changes, changed_by, db_user, client_ip, context)
VALUES ((%(day)s::text || ' UTC')::timestamptz + %(time)s::interval, pg_current_xact_id(), %(action)s, 'public',
  %(table_name)s, %(record_id)s, %(old_values)s, %(new_values)s, %(hidden_changes)s, %(changed_by)s, 'shop_app',
  %(client_ip)s, %(context)s)
"""
_DELETE_MANY = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id, changed_by,
  db_user, old_values)
SELECT (%s::text || ' UTC')::timestamptz + interval '9 days 11 hours' + n * interval '1 second', pg_current_xact_id(),
       'DELETE', 'public', 'item', n, 'mallory@example.com', 'shop_app', jsonb_build_object('id', n)
FROM generate_series(1, 120) AS n
"""
#: What the log's view has under other types, as canonical texts have it.
_AS_TEXT = {
    **{name: f"{name}::text" for name in ("transaction_id", "context", "old_values", "new_values")},
    "client_ip": "abbrev(client_ip)",
}
_NAMES = [name for name in COLUMNS if name != "hidden_changes"]
_ROWS = f"SELECT {', '.join(_AS_TEXT.get(name, name) for name in _NAMES)} FROM audit.audit_log WHERE changed_at < %s"


class ParquetArchiver(Archiver):
    """Archives as Parquet as well."""

    def run(self, **options: t.Any) -> Row:
        """Run the archive action; nothing leaves the log, so that it can be archived under another name again."""
        return super().run(**{"drop": False, "format": "parquet", **options})


class Fleet(t.NamedTuple):
    """Archives of one log under the names of two servers."""

    archiver: ParquetArchiver
    results: dict[str, Row]
    #: Of the log, by the names of the columns.
    rows: list[Row]

    @property
    def url(self) -> str:
        return str(self.archiver.url)


@pytest.fixture(scope="module")
def fleet(pg: LocalPostgresql, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    """Return archives of two months of two servers."""
    needs_clients()
    with old_log(pg) as log:
        session = log.connect()
        empty = dict.fromkeys(("record_id", "old_values", "hidden_changes", "client_ip", "context"))
        for ago, time, more in STORY:
            known = {"action": "INSERT", "table_name": "patient", "changed_by": "ward@example.com", "new_values": "{}"}
            row = {"day": months_ago(ago), "time": time, **empty, **known, **more}
            session.cursor().execute(_TELL, row)
        session.cursor().execute(_DELETE_MANY, [months_ago(5)])
        add_old(log, 5, rows=250)
        archiver = ParquetArchiver(log, tmp_path_factory.mktemp("fleet"))
        rows = [dict(zip(_NAMES, row)) for row in log.execute(f"{_ROWS} ORDER BY id", months_ago(3))]
        yield Fleet(archiver, {server: archiver.run(server=server) for server in HOSTS}, rows)


def needs_clients() -> None:
    """Skip the test where the clients' libraries are not installed at all: on any but the newest ansible-core."""
    for package in ("duckdb", "duckdb_extension_httpfs"):
        if importlib.util.find_spec(package) is None:
            pytest.skip("tests/requirements-clients.txt is installed for the newest ansible-core only")


def blocks() -> list[str]:
    """Return what stands between the page's fences."""
    return [block.text for block in blocks_of("docs/archive-queries.md", "sql")]


def queries() -> dict[str, str]:
    """Return the page's queries by title, with the months of these archives in place of the page's year."""
    found = {}
    for block in blocks()[1:]:
        title, _end, query = block.removeprefix("-- ").partition("\n")
        for example, number in (("2026-01", 5), ("2026-12", 4)):
            query = query.replace(f"'{example}'", f"'{months_ago(number):%Y-%m}'")
        found[title] = query
    assert len(found) == len(blocks()) - 1
    return {title: query for title, query in found.items() if not title.endswith("(DuckDB)")}


QUERIES = queries()


def statements(block: str) -> list[str]:
    return [statement for statement in re.sub(r"^--.*\n", "", block, flags=re.MULTILINE).split(";\n") if statement]


def duck(url: str, prepare: str = "") -> Ask:
    """Return a session of DuckDB that has the view of archives."""
    import duckdb

    session = duckdb.connect()
    session.execute(prepare)
    script = (EXAMPLES / "fleet.sql").read_text(encoding="utf-8")
    assert "'/srv/audit/" in script
    script = script.replace("'/srv/audit/", f"'{url}/")

    def ask(block: str) -> list[Row]:
        for statement in statements(script + block):
            result = session.execute(statement)
        return [plain(row) for row in result.to_arrow_table().to_pylist()]

    return ask


@pytest.fixture(scope="module")
def spark(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Ask]:
    """Return a session of Spark that has the view of archives."""
    if (shutil.which("java") is None or importlib.util.find_spec("pyspark") is None) and not os.environ.get("CI"):
        pytest.skip("Spark and its Java are not here: tests/support/setup.sh thorough installs them")
    from pyspark.sql import SparkSession

    fast = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.local.dir": str(tmp_path_factory.mktemp("spark")),
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.adaptive.enabled": "false",
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in fast.items():
        builder = builder.config(name, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        session = builder.getOrCreate()
    yield lambda block: spark_answer(session, fleet.url, block)
    session.stop()


def spark_answer(session: t.Any, url: str, block: str) -> list[Row]:
    spec = importlib.util.spec_from_file_location("fleet_spark", EXAMPLES / "fleet_spark.py")
    assert spec
    assert spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.fleet(session, url)
    for statement in statements(block):
        result = session.sql(statement)
    return [plain(row.asDict()) for row in result.collect()]


def plain(row: Row) -> Row:
    """Return a row with times in UTC; Spark gives those of this process's zone, without saying so."""
    return {
        name: value.astimezone(UTC) if isinstance(value, datetime.datetime) else value for name, value in row.items()
    }


def test_every_archive_names_its_copies_which_are_in_folders_of_host_database_and_month(fleet: Fleet):
    log, below = fleet.archiver.place.name, pathlib.Path(fleet.url)
    expected = {
        server: [f"host={server}/db={log}/month={months_ago(ago):%Y-%m}/{period(ago)}.parquet" for ago in (5, 4)]
        for server in HOSTS
    }
    for server, result in fleet.results.items():
        assert [list(made["copies"]) for made in result["archived"]] == [[path] for path in expected[server]]
        manifest = json.loads((below / server / log / f"{period(5)}.manifest.json").read_text())
        assert manifest["copies"] == expected[server][:1]
    assert {str(path.relative_to(below)) for path in below.rglob("*.parquet")} == {*expected["pg3"], *expected["pg4"]}


@pytest.mark.parametrize("host", HOSTS)
def test_the_copies_have_what_the_log_has(fleet: Fleet, host: str):
    found = duck(fleet.url)(f"SELECT * FROM audit WHERE host = '{host}' ORDER BY id")
    hidden = [row.pop("hidden_changes") for row in found]
    assert [{name: row[name] for name in fleet.rows[0]} for row in found] == [plain(row) for row in fleet.rows]
    assert [names for names in hidden if names] == [["a", 'b"c']]
    assert sum(row["changed_columns"] == ["n", "name"] for row in found) == 1
    assert {row["month"] for row in found} == {f"{months_ago(ago):%Y-%m}" for ago in (4, 5)}


def test_json_null_is_not_null(fleet: Fleet):
    [row] = duck(fleet.url)("SELECT * FROM audit WHERE context IS NOT NULL AND host = 'pg3'")
    assert (row["context"], row["old_values"]) == ("null", None)


def test_one_record_on_any_server(fleet: Fleet):
    found = duck(fleet.url)(QUERIES["Who changed one record, on any server"])
    assert [(row["host"], row["action"], row["name_before"], row["name_after"]) for row in found] == [
        *((host, "INSERT", None, 'Zoë "Q" \\ 日本') for host in HOSTS),
        *((host, "UPDATE", "Zoë", "X") for host in HOSTS),
    ]


def test_bulk_deletes(fleet: Fleet):
    found = duck(fleet.url)(QUERIES["Bulk deletes per user"])
    assert [(row["host"], row["changed_by"], row["deletes"]) for row in found] == [
        (host, "mallory@example.com", 120) for host in HOSTS
    ]


def test_off_hours_are_those_of_the_named_zone(fleet: Fleet):
    import zoneinfo

    found = duck(fleet.url)(QUERIES["Off-hours and weekends"])
    local = [row["changed_at"].astimezone(zoneinfo.ZoneInfo("Europe/Berlin")) for row in fleet.rows]
    outside = [time for time in local if not 7 <= time.hour <= 18 or time.isoweekday() > 5]
    assert len(found) == 2 * len(outside) > 0
    assert "night@example.com" in {row["changed_by"] for row in found}


def test_a_number_keeps_every_digit(fleet: Fleet):
    found = duck(fleet.url)(QUERIES["A number, to its last digit"])
    assert [row["amount"] for row in found if row["record_id"] == "1"] == [EXACT, EXACT]


def test_only_the_files_of_the_folders_that_a_query_names_are_opened(fleet: Fleet):
    plan = "EXPLAIN ANALYZE SELECT COUNT(*) FROM audit WHERE "
    for condition, opened in (
        (f"month = '{months_ago(5):%Y-%m}'", "2/4"),
        (f"month >= '{months_ago(4):%Y-%m}' AND host = 'pg4'", "1/4"),
        (f"host IN ('pg3') AND db = '{fleet.archiver.place.name}'", "2/4"),
    ):
        [row] = duck(fleet.url)(plan + condition)
        assert f"Scanning Files: {opened}" in row["explain_value"], condition


def test_the_page_shows_the_examples_as_they_are():
    assert blocks()[0] == (EXAMPLES / "fleet.sql").read_text(encoding="utf-8")
    [script] = blocks_of("docs/archive-queries.md", "python")
    assert script.text == (EXAMPLES / "fleet_spark.py").read_text(encoding="utf-8")
    assert {f"(examples/archive/{path.name})" in PAGE.read_text(encoding="utf-8") for path in EXAMPLES.iterdir()} == {
        True
    }


@pytest.mark.parametrize("title", QUERIES)
def test_every_query_of_the_page_finds_something(fleet: Fleet, title: str):
    assert duck(fleet.url)(QUERIES[title])


@pytest.mark.thorough
def test_every_query_of_the_page_finds_the_same_with_spark(fleet: Fleet, spark: Ask):
    for title, query in QUERIES.items():
        found = duck(fleet.url)(query)
        assert found, title
        assert spark(query) == found, title
    everything = "SELECT * FROM audit ORDER BY host, id"
    assert spark(everything) == duck(fleet.url)(everything)
    [plan] = spark(f"EXPLAIN SELECT COUNT(*) FROM audit WHERE month = '{months_ago(5):%Y-%m}'")
    assert re.search(r"PartitionFilters: \[.*month#\d+ = ", plan["plan"])


def test_queries_read_from_s3(fleet: Fleet, tmp_path: pathlib.Path):
    import duckdb_extension_httpfs
    import s3fs

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _host, port = server.get_host_and_port()
        login = {"key": "AKIA...", "secret": "...", "endpoint_url": f"http://127.0.0.1:{port}"}
        s3fs.S3FileSystem(**login, skip_instance_cache=True).mkdir("bucket")
        fleet.archiver.run(server="pg5", url="s3://bucket/audit", storage_options=login)
        [block] = [block for block in blocks() if block.startswith("-- From object storage (DuckDB)")]
        # Where the tests run there is no server of extensions; the package has the same file, signed by DuckDB.
        [extension] = pathlib.Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension")
        block = block.replace("INSTALL httpfs", f"INSTALL '{extension}'")
        local = f"REGION 'eu-central-1', ENDPOINT '127.0.0.1:{port}', URL_STYLE 'path', USE_SSL false"
        block = f"SET extension_directory = '{tmp_path}';\n{block}".replace("REGION 'eu-central-1'", local)
        ask = duck("s3://bucket/audit", block)
        found = ask(QUERIES["What there is"])
        assert [(row["host"], row["month"]) for row in found] == [("pg5", f"{months_ago(ago):%Y-%m}") for ago in (5, 4)]
        assert sum(row["records"] for row in found) == len(fleet.rows)
    finally:
        server.stop()


def test_the_log_of_mariadb_becomes_the_same_columns(mysql_server: MysqlServer, tmp_path: pathlib.Path):
    needs_clients()
    with Schema(mysql_server) as shop:
        install_trail(shop)
        shop.execute("CREATE TABLE item (id INT PRIMARY KEY, name TEXT, n DECIMAL(40,9), document JSON)")
        audit(shop, "item")
        shop.execute("INSERT INTO item VALUES (1, %s, %s, %s)", 'Änne "1" \\ 😀', EXACT, '{"a":1,"old_values":[{}]}')
        shop.execute("UPDATE item SET name = NULL, document = NULL")
        shop.execute("DELETE FROM item")
        quoter = types.SimpleNamespace(identifier=lambda name: f"`{name}`")
        text = canonical("r", "mariadb" if mysql_server.is_mariadb else "mysql").render(quoter).replace("%", "%%")
        lines = shop.execute(f"SELECT {text} FROM audit.audit_log_data r WHERE schema_name = %s ORDER BY id", shop.name)
        query = f"SELECT {', '.join(_NAMES)} FROM audit.audit_log WHERE schema_name = %s ORDER BY id"
        expected = [dict(zip(_NAMES, row)) for row in shop.execute(query, shop.name)]
    made = ParquetCopies(str(tmp_path), "db1", "audit", {}, {})
    with made(types.SimpleNamespace(name="audit_log_2026_11", sha256="", expires=None)) as copy:
        for (line,) in lines:
            copy.add(line.encode())
    found = duck(str(tmp_path))("SELECT * FROM audit ORDER BY id")
    assert len(found) == len(expected) == 3
    for row, known in zip(found, expected):
        known["changed_columns"] = known["changed_columns"] and json.loads(known["changed_columns"])
        known["changed_at"] = known["changed_at"].replace(tzinfo=UTC)
        assert {name: row[name] for name in _NAMES} == known
    assert EXACT in found[0]["new_values"]


def test_an_archive_that_is_not_what_was_sealed_has_no_copy(pg: LocalPostgresql, tmp_path: pathlib.Path):
    with old_log(pg) as log:
        add_old(log, 5, rows=20)
        archiver = ParquetArchiver(log, tmp_path)
        archiver.seal()
        tamper(log, "UPDATE audit.audit_log_data SET changed_by = 'x' WHERE id % 7 = 0")
        result = archiver.run(server="pg3")
        assert result["failed"]
        assert "is not what was sealed" in result["msg"]
        assert list(tmp_path.rglob("*.parquet")) == []
