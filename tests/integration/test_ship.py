# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sealed rows leave the database in order and at least once, and what was received is proven by the ledger."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import json
import pathlib
import random
import time
import typing as t

import pytest
from archiving import Archiver, add_old, period
from auditing import rollout, trail_database, wanted
from collectors import HttpCollector, SyslogCollector
from databases import Database
from fleet import HOST, inventory, play
from killing import killed
from local_postgresql import LocalPostgresql
from running import ModuleResult
from sealing import make_key
from shipping import SERVER, AtCursor, Shipper, lines_of

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _ship_rows
from ansible_collections.dbfleet.audit.plugins.plugin_utils._seals import ledger_lines

ITEM = [wanted("public.item")]
TOKEN = "token-4711-secret"


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with one audited table, whose rows hold what a careless reader of lines would trip over."""
    with trail_database(pg) as database:
        database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")
        rollout(database, policies=ITEM)
        yield database


@pytest.fixture(scope="module")
def shipper(shop: Database, tmp_path_factory: pytest.TempPathFactory) -> Shipper:
    """Return what ships its log, of which there are three seals of rows to begin with."""
    shipper = Shipper(shop.login, tmp_path_factory.mktemp("ship"), policies=ITEM)
    # More than one part of an answer holds, however small that may be.
    shop.execute("INSERT INTO item (name) SELECT repeat('x', 150000) || i FROM generate_series(1, 5) AS i")
    add(shop, 250)
    shipper.seal(block_rows=100)
    return shipper


@pytest.fixture
def http() -> t.Iterator[HttpCollector]:
    collector = HttpCollector()
    yield collector
    collector.close()


def add(shop: Database, rows: int) -> None:
    shop.execute(f"INSERT INTO item (name) SELECT 'é\r\n\u2028\\\"😀' || i FROM generate_series(1, {rows}) AS i")


def canonical(shop: Database) -> dict[int, str]:
    """Return the canonical texts of all rows by their ids."""
    return dict(shop.execute("SELECT d.id, audit.canonical(d) FROM audit.audit_log_data AS d ORDER BY d.id"))


def tamper(shop: Database, row: int, statement: str) -> None:
    """Execute something on the partition of a row, as a superuser who has turned every guard off."""
    # Where all rows of these tests are.
    ((name,),) = shop.execute("SELECT DISTINCT d.tableoid::regclass::text FROM audit.audit_log_data AS d")
    connection = shop.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        cursor.execute(statement.format(name=name, row=row))


def found(result: ModuleResult) -> list[tuple[str, int | None, int | None]]:
    return [(problem["type"], problem.get("block"), problem.get("id")) for problem in result["problems"]]


def received(got: t.Sequence[dict[str, t.Any]]) -> dict[int, str]:
    """Return the texts of rows that came, by their ids."""
    return {line["id"]: line["row"] for line in got}


@pytest.mark.smoke
def test_each_seal_becomes_a_file_that_the_ledger_proves(
    shop: Database, shipper: Shipper, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_ship_rows, "PART_BYTES", 1)
    given = {"url": str(tmp_path)}
    seals = shipper.seals()
    predicted = shipper.ship(**given, _check_mode=True)
    assert (predicted["rows"], predicted["behind"]) == (len(canonical(shop)), len(seals))
    assert list(tmp_path.iterdir()) == []
    shipper.calls.clear()
    done = shipper.ship(**given)
    assert len(shipper.calls) > len(seals)
    assert (done["seals"], done["rows"], done["behind"], done["changed"]) == (len(seals), predicted["rows"], 0, True)
    place = tmp_path / SERVER / shop.name
    files = sorted(place.iterdir())
    assert [path.name for path in files] == [f"seal_{seal['number']:012d}.jsonl.gz" for seal in seals]
    got = [line for path in files for line in lines_of(path)]
    assert [line["id"] for line in got] == [
        number for seal in seals for first, last in seal["ids"] for number in range(first, last + 1)
    ]
    assert received(got) == canonical(shop)
    assert (got[-1]["server"], got[-1]["database"], got[-1]["table_name"]) == (SERVER, shop.name, "item")
    checked = shipper.check(place)
    assert checked["problems"] == []
    assert checked["rows_checked"] == len(got)
    assert shipper.ship(**given)["changed"] is False
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files]
    files[1].write_bytes(b"somebody has been here")
    assert "give the login a longer login_password" in shipper.refused(**given, from_seal=1, login_password="A")
    # What a compressed part begins with, and Ansible hides in it.
    again = shipper.ship(**given, from_seal=1, login_password="H4sI")
    assert again["last_seal"] == seals[-1]["number"]
    # What is right is left as it is.
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) == known for path, known in zip(files, before)] == [
        number != 1 for number in range(len(files))
    ]
    assert shipper.check(place)["valid"]
    assert not list(place.glob(".*"))
    # A database that was made anew has the same names.
    whole = files[0].read_bytes()
    files[0].write_bytes(gzip.compress(gzip.decompress(whole).replace(got[0]["chain"].encode(), b"another")))
    assert "is of another log than this one" in shipper.refused(**given, from_seal=1)
    files[0].write_bytes(whole)
    # Nothing to ship, for the ledger is somewhere else.
    assert "the ledger none: is it the right ledger?" in shipper.refused(**given, ledger=str(tmp_path / "none"))


def test_a_row_that_is_not_what_was_sealed_is_not_shipped(shop: Database, shipper: Shipper, tmp_path: pathlib.Path):
    seal = shipper.seals()[1]
    row = seal["ids"][0][0] + 7
    tamper(shop, row, "CREATE TABLE kept AS SELECT * FROM {name} WHERE id = {row}")
    tamper(shop, row, "UPDATE {name} SET changed_by = 'eve' WHERE id = {row}")
    said = shipper.refused(url=str(tmp_path))
    assert f"seal {seal['number']}: row {row} is not what was sealed" in said
    files = [path.name for path in (tmp_path / SERVER / shop.name).iterdir()]
    assert files == [f"seal_{shipper.seals()[0]['number']:012d}.jsonl.gz"]
    tamper(shop, row, "DELETE FROM {name} WHERE id = {row}")
    assert f"row {row} was sealed, and is not in the log" in shipper.refused(url=str(tmp_path))
    # One that is being moved to its partition, which the log does not show meanwhile, is no alarm.
    tamper(shop, row, "CREATE TABLE audit.audit_log_moving AS SELECT * FROM kept")
    (tmp_path / "moving").mkdir()
    assert shipper.ship(url=str(tmp_path / "moving"))["behind"] == 0
    tamper(shop, row, "DROP TABLE audit.audit_log_moving")
    tamper(shop, row, "INSERT INTO {name} SELECT * FROM kept")
    shop.execute("DROP TABLE kept")
    # With a record of all that DDL, for the tests to come.
    shipper.seal()
    assert shipper.ship(url=str(tmp_path))["first_seal"] == seal["number"]


def test_a_collector_that_is_busy_or_down_loses_nothing(shop: Database, shipper: Shipper, http: HttpCollector):
    http.answers = [(503, {}), (429, {"Retry-After": "2"})]
    collector = {"token": TOKEN, "batch_bytes": 30_000}
    done = shipper.ship(url=http.url, collector=collector)
    assert http.asked[2] - http.asked[1] > 1.9
    assert done["behind"] == 0
    assert done["destination"] == http.url.partition("/ingest")[0]
    assert received(http.lines) == canonical(shop)
    assert [line["id"] for line in http.lines] == sorted(received(http.lines))
    assert http.posts[0]["Authorization"] == f"Bearer {TOKEN}"
    assert len({post["Idempotency-Key"] for post in http.posts}) == len(http.posts) > len(shipper.seals())
    add(shop, 5)
    shipper.seal()
    http.answers = [(401, {})]
    said = shipper.refused(url=http.url, collector=collector)
    assert "HTTP status 401 (you said Bearer ***)" in said
    http.answers = [(500, {})] * 20
    said = shipper.refused(url=http.url, collector=collector, timeout=1)
    assert "HTTP status 500" in said
    assert "tried for 1 s (timeout)" in said
    assert TOKEN not in said
    assert "path-token" not in said
    http.answers = []
    assert shipper.ship(url=http.url, collector=collector)["rows"] == 5
    assert received(http.lines) == canonical(shop)
    url, _end = http.url, http.close()
    assert "Connection refused" in shipper.refused(url=url, collector=collector, timeout=1, from_seal=1)
    # What was to be shipped again still is, for the run after it.
    assert shipper.ship(url=url, _check_mode=True)["first_seal"] == shipper.seals()[0]["number"]


def test_killed_anywhere_it_sends_one_seal_twice_and_none_less(shop: Database, shipper: Shipper, http: HttpCollector):
    shipper.options = {"url": http.url, "name": "killed"}  # type: ignore[misc]
    try:
        assert killed(shipper, AtCursor(2))
        assert killed(shipper, AtCursor(1))
        shipper.ship()
    finally:
        del shipper.options
    second = shipper.seals()[1]
    assert received(http.lines) == canonical(shop)
    # Each of the two runs was killed when the second seal had arrived.
    assert len(http.lines) == len(canonical(shop)) + 2 * second["rows"]
    keys = [post["Idempotency-Key"] for post in http.posts]
    assert len(keys) - len(set(keys)) == 2
    result = shipper.check(http.export(shipper.directory / "twice.jsonl"))
    assert result["problems"] == []
    assert result["shipped"]["duplicates"] == 2 * second["rows"]


def test_what_a_siem_has_kept_is_compared_with_the_ledger(
    shipper: Shipper, http: HttpCollector, tmp_path: pathlib.Path
):
    shipper.ship(url=http.url)
    seals = [seal["number"] for seal in shipper.seals()]
    wrapped = [{"_source": line} for line in http.lines]
    random.Random(7).shuffle(wrapped)
    export = tmp_path / "export.jsonl"

    def check(changed: t.Sequence[dict[str, t.Any]]) -> ModuleResult:
        export.write_text("".join(json.dumps(line) + "\n" for line in changed))
        return shipper.check(export)

    whole = check(wrapped)
    assert whole["problems"] == []
    assert whole["shipped"]["whole_seals"] == [[seals[0], seals[-1]]]
    (line,) = ledger_lines(whole, "shop.jsonl")
    assert f", {len(wrapped)} rows verified, whole seals {seals[0]}-{seals[-1]}, 0 rows twice" in line
    row = http.lines[120]
    changed = {**row, "row": row["row"].replace('"INSERT"', '"DELETE"')}
    unless = [line for line in wrapped if line["_source"] != row]
    result = check([*unless, changed])
    assert found(result) == [("modified_row", row["seal"], row["id"])]
    assert row["seal"] not in [
        number for first, last in result["shipped"]["whole_seals"] for number in range(first, last + 1)
    ]
    assert found(check(unless)) == [("deleted_row", row["seal"], row["id"])]
    # With a leaf that fits, the ledger's hash of all rows still says that one is wrong.
    hidden = {**changed, "leaf": ""}
    assert found(check([*unless, hidden])) == [("modified_row", row["seal"], None)]
    first = [line for line in wrapped if line["_source"]["seal"] == seals[0]]
    assert check(first)["shipped"]["absent_seals"] == [[seals[1], seals[-1]]]
    beyond = {**row, "row": row["row"].replace(f'"id":{row["id"]},', '"id":999999,')}
    stranger = {**row, "chain": "another"}
    assert found(check([stranger])) == found(check([])) == [("deleted_row", None, None)]
    assert found(check([*wrapped, beyond, stranger, {"no": "row"}])) == [
        ("inserted_row", None, 999999),
        ("unreadable_line", None, None),
    ]


def test_syslog_over_tls_is_acknowledged_by_the_end_of_the_connection(
    shop: Database, shipper: Shipper, tmp_path: pathlib.Path
):
    with contextlib.closing(SyslogCollector(tmp_path)) as collector:
        assert "is not trusted" in shipper.refused(url=collector.url, timeout=3)
        collector.resets = 2
        done = shipper.ship(url=collector.url, collector={"ca_cert": str(collector.certificate)})
        assert (done["behind"], collector.resets) == (0, 0)
        got = [json.loads(message[message.index("] {") + 2 :]) for message in collector.messages]
        assert received(got) == canonical(shop)
        assert [line["id"] for line in got] == sorted(canonical(shop))
        last = got[-1]
        assert collector.messages[-1].startswith(
            f"<110>1 {last['changed_at']}Z {SERVER} dbfleet.audit - INSERT "
            f'[dbfleet@32473 chain="{last["chain"]}" database="{shop.name}" seal="{last["seal"]}" id="{last["id"]}"] {{'
        )


def test_a_new_seal_is_shipped_at_once_while_it_is_followed(shop: Database, shipper: Shipper, http: HttpCollector):
    shipper.ship(url=http.url)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(shipper.ship, url=http.url, follow=4, interval=30)
        time.sleep(1.5)
        add(shop, 3)
        shipper.seal()
        sealed = time.monotonic()
        done = running.result()
    assert done["rows"] == 3
    late = max(http.times.values()) - sealed
    print(f"arrived {late:.2f} s after the seal")
    assert late < 1.5


def test_a_log_that_was_archived_before_says_so_and_how_to_go_on(
    log: Database, archiver: Archiver, tmp_path: pathlib.Path
):
    add_old(log, 5, 20)
    archiver.run()
    log.execute("INSERT INTO item VALUES (1, 'now')")
    archiver.seal()
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    shipper = Shipper(log.login, shipped)
    shipper.key, shipper.ledger = archiver.key, archiver.ledger
    given = {"url": str(shipped)}
    said = shipper.refused(**given)
    assert f"before its rows left the log for the archive {period(5)}, which has them; from_seal: " in said
    go_on = int(said.partition("from_seal: ")[2].partition(" ")[0])
    done = shipper.ship(**given, from_seal=go_on)
    assert (done["first_seal"], done["seals"], done["behind"]) == (go_on, 1, 0)
    # For the next run, the cursor says it.
    assert shipper.ship(**given)["seals"] == 0


def test_what_the_key_s_holder_has_accepted_is_shipped_as_it_is(
    shop: Database, shipper: Shipper, tmp_path: pathlib.Path
):
    first = shipper.seals()[1]["ids"][0][0]
    tamper(shop, first, "UPDATE {name} SET changed_by = 'eve' WHERE id = {row}")
    tamper(shop, first + 1, "DELETE FROM {name} WHERE id = {row}")
    assert f"row {first} is not what was sealed" in shipper.refused(url=str(tmp_path))
    shipper.seal(resync="case 4711")
    assert shipper.ship(url=str(tmp_path))["behind"] == 0
    place = tmp_path / SERVER / shop.name
    assert received([line for path in place.iterdir() for line in lines_of(path)]) == canonical(shop)
    checked = shipper.check(place)
    assert (checked["problems"], checked["shipped"]["accepted_seals"]) == ([], [[shipper.seals()[1]["number"]] * 2])


def test_a_key_that_will_be_changed_is_no_alarm_before(shipper: Shipper, tmp_path: pathlib.Path):
    new = make_key(tmp_path)
    keys = {"signing_key": new.private, "previous_signing_key": shipper.key.private, "public_key": []}
    assert shipper.ship(url=str(tmp_path), _check_mode=True, **keys)["behind"] == len(shipper.seals())


def test_the_playbook_says_it_in_a_line(shop: Database, shipper: Shipper, http: HttpCollector, tmp_path: pathlib.Path):
    hosts = inventory(shop.server, [shop])
    ledger = tmp_path / "ledger" / HOST / f"{shop.name}.jsonl"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(shipper.ledger.read_bytes())
    hosts["postgresql"]["vars"] = {
        "audit_seal_public_keys": [shipper.key.public],
        "audit_seal_ledger": str(tmp_path / "ledger"),
        "audit_shipping_trail_url": http.url,
        "audit_shipping_trail_collector": {"username": "audit", "password": TOKEN},
    }
    done = play("ship", hosts, "-vvv")
    said = (
        f"{HOST} {shop.name}: {len(canonical(shop))} rows of {len(shipper.seals())} seals shipped to http://127.0.0.1:"
    )
    assert said in done.stdout
    assert ", nothing behind, " in done.stdout
    assert received(http.lines) == canonical(shop)
    assert http.posts[0]["Authorization"].startswith("Basic ")
    assert TOKEN not in done.stdout + done.stderr
    (cursor,) = ledger.parent.glob("*.cursor")
    assert cursor.name.startswith(f"{ledger.name}.http_127.0.0.1_")
    assert "path-token" not in cursor.name + cursor.read_text()
