# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Old partitions of the log become verified archives, and leave the database."""

from __future__ import annotations

import typing as t

import pytest
from archiving import Archiver, add_old, ids, months_ago, partitions, period
from databases import Database

from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger


def reasons(result: dict[str, t.Any]) -> dict[str, str]:
    """Return why partitions were kept."""
    return {kept["name"]: kept["reason"] for kept in result["kept"]}


def test_a_partition_past_its_time_becomes_an_archive_and_leaves_the_log(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, rows=250)
    add_old(log, 4, rows=30)
    add_old(log, 3, rows=7)
    log.execute("INSERT INTO item VALUES (1, 'now')")
    before = ids(log)
    first = archiver.run()
    assert [made["name"] for made in first["archived"]] == [period(5), period(4)]
    assert first["dropped"] == [period(6), period(5), period(4)]
    assert set(partitions(log)) & {period(number) for number in (6, 5, 4)} == set()
    assert [row["record_id"] for row in archiver.archived(period(5))] == [str(number) for number in range(1, 251)]
    assert ids(log) | archiver.ids() == before
    assert archiver.problems() == []
    archiver.calls.clear()
    again = archiver.run()
    assert [call["step"]["do"] for call in archiver.calls] == ["periods"]
    assert not again["changed"]
    assert (again["archived"], again["dropped"], again["kept"], again["statements"]) == ([], [], [], [])
    assert archiver.problems() == []


def test_what_the_manifest_says_is_so(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, 3, "payment")
    add_old(log, 5, 2, "item")
    (made,) = archiver.run(retention={"financial": {"archive": "7y"}})["archived"]
    manifest = archiver.manifest(period(5))
    rows = archiver.archived(period(5))
    assert manifest["rows"] == len(rows) == 5
    assert (manifest["first_id"], manifest["last_id"]) == (rows[0]["id"], rows[-1]["id"])
    assert (manifest["first_day"], manifest["end_day"]) == (months_ago(5).isoformat(), months_ago(4).isoformat())
    times = sorted(row["changed_at"] for row in rows)
    assert manifest["first_at"].startswith(times[0])
    assert manifest["last_at"].startswith(times[-1])
    assert manifest["tables"] == {"public.payment": 3, "public.item": 2}
    assert manifest["categories"] == ["default", "financial"]
    assert manifest["expires"] is None
    (said,) = [e.seal for e in Ledger(str(archiver.ledger)).entries()[0] if e.seal.kind == "archive"]
    assert said.attested["archives"][0]["manifest"] == made["manifest"]
    assert said.attested["seals"] == manifest["seals"]


def test_check_mode_names_the_statements_that_a_run_executes_and_writes_nothing(
    log: Database, archiver: Archiver
) -> None:
    add_old(log, 5)
    predicted = archiver.run(_check_mode=True)
    assert predicted["changed"]
    assert predicted["due"] == [period(5)]
    assert predicted["dropped"] == [period(6), period(5), period(4)]
    assert archiver.files() == []
    assert not archiver.ledger.exists()
    done = archiver.run()
    assert done["statements"] == predicted["statements"]
    assert not archiver.run(_check_mode=True)["changed"]


def test_without_drop_there_is_a_copy_and_the_next_run_reads_it_back_before_it_drops(
    log: Database, archiver: Archiver
) -> None:
    add_old(log, 5)
    before = ids(log)
    copied = archiver.run(drop=False)
    assert copied["dropped"] == []
    assert ids(log) >= before == archiver.ids()
    assert not archiver.run(drop=False)["changed"]
    dropped = archiver.run()
    assert dropped["archived"] == []
    assert period(5) in dropped["dropped"]


def test_rows_for_which_there_is_no_period_any_more_still_have_a_place(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.run()
    add_old(log, 5, 1)
    assert log.value("SELECT count(*) FROM audit.audit_log_past") == 1
    assert log.value("SELECT tgname FROM pg_trigger WHERE tgrelid = 'audit.audit_log_past'::regclass LIMIT 1")


def test_the_longest_age_of_the_rows_in_a_partition_counts(log: Database, archiver: Archiver) -> None:
    retention = {"financial": {"database": "5mo", "archive": "7y"}, "hipaa": {"database": "2mo", "archive": "6mo"}}
    add_old(log, 5, 2, "patient")
    add_old(log, 4, 2, "patient")
    add_old(log, 4, 1, "payment")
    done = archiver.run(older_than="2mo", retention=retention)
    assert [made["name"] for made in done["archived"]] == [period(5)]
    assert period(4) in partitions(log)
    assert done["kept"] == []
    later = archiver.run(older_than="2mo", retention={**retention, "financial": {"database": "2mo", "archive": "7y"}})
    assert [made["name"] for made in later["archived"]] == [period(4)]
    assert archiver.manifest(period(4))["expires"] == months_ago(3 - 84).isoformat()


@pytest.mark.parametrize(
    "hold",
    [
        {"table": "public.pay*"},
        {"table": "public.payment", "record_id": 2},
        {"changed_by": "user2"},
        {"table": "*.*", "changed_by": "shop_app"},
    ],
)
def test_a_legal_hold_keeps_a_partition_and_its_archive(
    log: Database, archiver: Archiver, hold: dict[str, t.Any]
) -> None:
    add_old(log, 5, 3, "payment")
    add_old(log, 4, 1, "item")
    held = [{"reason": "case 4711", **hold}]
    done = archiver.run(holds=held)
    assert reasons(done)[period(5)] == "legal hold: case 4711"
    assert not done.get("failed")
    assert period(5) in partitions(log)
    assert len(archiver.archived(period(5))) == 3
    archiver.run()
    assert period(5) not in partitions(log)
    over = {"financial": "3mo"}
    kept = archiver.run(retention=over, older_than="2mo", holds=held)
    assert (kept["expired"], reasons(kept)) == ([], {period(5): "legal hold: case 4711"})
    assert archiver.run(retention=over, older_than="2mo")["expired"] == [period(5)]


@pytest.mark.parametrize(
    "hold", [{"table": "public.item"}, {"table": "public.payment", "record_id": "17"}, {"changed_by": "nobody"}]
)
def test_a_hold_on_other_rows_keeps_nothing(log: Database, archiver: Archiver, hold: dict[str, t.Any]) -> None:
    add_old(log, 5, 3, "payment")
    done = archiver.run(holds=[{"reason": "case 4711", **hold}])
    assert (done["kept"], period(5) in partitions(log)) == ([], False)


def test_an_archive_whose_time_is_over_is_deleted_and_the_ledger_says_so(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, 3, "payment")
    add_old(log, 4, 3, "item")
    archiver.run()
    over = {"financial": "5mo"}
    assert archiver.run(retention=over, _check_mode=True)["expired"] == []
    over = {"financial": "4mo"}
    predicted = archiver.run(retention=over, _check_mode=True)
    assert (predicted["expired"], predicted["changed"]) == ([period(5)], True)
    assert len(archiver.files()) == 4
    done = archiver.run(retention=over)
    assert done["expired"] == [period(5)]
    assert archiver.files() == [f"{period(4)}.jsonl.gz", f"{period(4)}.manifest.json"]
    last = Ledger(str(archiver.ledger)).entries()[0][-1].seal
    assert [said["name"] for said in last.attested["expired"]] == [period(5)]
    assert archiver.problems() == []
    assert not archiver.run(retention=over)["changed"]


def test_an_archive_that_is_gone_before_its_time_is_named(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    add_old(log, 4)
    archiver.run()
    path = archiver.place / f"{period(5)}.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-1])
    for _time in range(2):
        done = archiver.run()
        assert (done["missing"], done["failed"]) == ([period(5)], True)
        assert done["msg"].startswith(f"archives that are not there, or not what the ledger says: {period(5)}")
        path.unlink(missing_ok=True)


def test_a_file_of_the_name_that_somebody_has_put_there_stays_until_there_is_a_good_one(
    log: Database, archiver: Archiver
) -> None:
    add_old(log, 5)
    archiver.place.mkdir(parents=True)
    (archiver.place / f"{period(5)}.jsonl.gz").write_text("something")
    archiver.run()
    (name,) = [name for name in archiver.files() if name.endswith(".gz")]
    assert (name, archiver.manifest(period(5))["file"]) == (name, name) != (f"{period(5)}.jsonl.gz",) * 2
    assert len(archiver.archived(period(5))) == 5
    assert not archiver.run()["changed"]
