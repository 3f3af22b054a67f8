# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sealed rows of MariaDB and MySQL leave the server in order, and what was received is proven by the ledger."""

from __future__ import annotations

import concurrent.futures
import pathlib
import time
import typing as t

import pytest
from fleet import HOST, lines, play
from mysql_databases import Schema
from mysql_sealing import add, drop_guards, logged
from shipping import SERVER, Shipper, lines_of


@pytest.fixture
def shipper(log: Schema, tmp_path: pathlib.Path) -> Shipper:
    return Shipper(log.login, tmp_path, "mysql", policies=[{"tables": [f"{log.name}.item"]}])


def assert_playbook_ships(log: Schema, shipper: Shipper, local_host: dict[str, t.Any]) -> None:
    """Have the playbook seal and ship, with its cursors in a directory of their own."""
    ledgers, cursors = shipper.directory / "ledgers", shipper.directory / "cursors"
    ledgers.mkdir()
    (ledgers / f"{HOST}.jsonl").write_bytes(shipper.ledger.read_bytes())
    (shipper.directory / "played").mkdir()
    settings = {
        "mysql_audit_login": log.login,
        "mysql_audit_policies": [{"tables": [f"{log.name}.item"]}],
        "audit_seal_signing_key": shipper.key.private,
        "audit_seal_ledger": str(ledgers),
        "audit_shipping_trail_seal": True,
        "audit_shipping_trail_url": str(shipper.directory / "played"),
        "audit_shipping_trail_cursors": str(cursors),
    }
    add(log, 258, 259)
    (line,) = lines(play("ship", {"mysql": {"hosts": {HOST: settings}, "vars": local_host}}))
    shipped = f"{len(logged(log))} rows of {len(shipper.seals()) + 1} seals shipped to {shipper.directory}/played"
    assert line.startswith(f"{HOST}: {shipped}, nothing behind, ")
    assert (cursors / f"{HOST}.cursor").exists()
    shipper.ledger.write_bytes((ledgers / f"{HOST}.jsonl").read_bytes())


def test_rows_arrive_in_order_and_the_ledger_proves_them(
    log: Schema, shipper: Shipper, local_host: dict[str, t.Any], tmp_path: pathlib.Path
):
    (tmp_path / "shipped").mkdir()
    given = {"url": str(tmp_path / "shipped")}
    add(log, 1, 250)
    log.execute("INSERT INTO item VALUES (251, 'é\r\n\u2028\"')")
    shipper.seal(block_rows=100)
    done = shipper.ship(**given)
    assert (done["rows"], done["behind"]) == (len(logged(log)), 0)
    place = tmp_path / "shipped" / SERVER / "audit"
    got = [line for path in sorted(place.iterdir()) for line in lines_of(path)]
    assert [line["id"] for line in got] == logged(log)
    checked = shipper.check(place)
    assert (checked["problems"], checked["rows_checked"]) == ([], len(got))
    # Looked for twice a second: nobody here tells of a seal.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(shipper.ship, **given, follow=4, interval=30)
        time.sleep(1)
        add(log, 252, 254)
        shipper.seal()
        sealed = time.time()
        assert running.result()["rows"] == 3
    assert max(path.stat().st_mtime for path in place.iterdir()) - sealed < 2.5
    add(log, 255, 257)
    shipper.seal()
    assert_playbook_ships(log, shipper, local_host)
    row = logged(log)[-1]
    drop_guards(log)
    log.execute(f"UPDATE audit.audit_log_data SET changed_by = 'eve' WHERE id = {row}")
    seal = shipper.seals()[-1]["number"]
    assert f"seal {seal}: row {row} is not what was sealed" in shipper.refused(**given)
    assert len(list(place.iterdir())) == len(shipper.seals()) - 1
