# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook seal, and the seal part of verify: keys and ledgers on the controller, a line a database."""

from __future__ import annotations

import json
import pathlib
import typing as t
from datetime import datetime, timedelta, timezone

import databases
import pytest
from databases import Database, fetch
from fleet import HOST, inventory, lines, play
from local_postgresql import LocalPostgresql
from sealing import KeyPair, make_key

from ansible_collections.dbfleet.audit.plugins.plugin_utils._seals import last_verified

NewDatabase = t.Callable[..., Database]
PASSPHRASE = "open sesame 4711"


@pytest.fixture
def key(tmp_path: pathlib.Path) -> KeyPair:
    return make_key(tmp_path)


@pytest.fixture
def shop(db: Database) -> Database:
    db.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    return db


def sealed(pg: LocalPostgresql, entries: list[t.Any], key: KeyPair, **variables: t.Any) -> dict[str, t.Any]:
    """Return an inventory whose one host is sealed with a key; ledgers go beside it."""
    hosts = inventory(pg, entries)
    given = {
        "signing_key": key.private,
        "public_keys": [key.public],
        "ledger": str(pathlib.Path(key.private).with_name("ledger")),
        **variables,
    }
    hosts["postgresql"]["vars"] = {f"audit_seal_{name}": value for name, value in given.items()}
    return hosts


def ledger(key: KeyPair, name: str, host: str = HOST) -> pathlib.Path:
    return pathlib.Path(key.private).with_name("ledger") / host / f"{name}.jsonl"


def forge(database: Database, statement: str) -> None:
    """Change the log as a superuser who has turned every guard off."""
    connection = database.connect()
    leaves = fetch(connection, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", LOG)
    fetch(connection, "SET session_replication_role = replica")
    for table in [LOG, *(leaf for (leaf,) in leaves)]:
        fetch(connection, f"ALTER TABLE {table} DISABLE TRIGGER USER")
    fetch(connection, statement)
    for table in [LOG, *(leaf for (leaf,) in leaves)]:
        fetch(connection, f"ALTER TABLE {table} ENABLE TRIGGER USER")


LOG = "audit.audit_log_data"


@pytest.mark.smoke
@pytest.mark.thorough
def test_seal_says_in_a_line_what_it_sealed_and_verify_counts_it(shop: Database, key: KeyPair):
    hosts = sealed(shop.server, [shop], key)
    play("site", hosts)
    shop.execute("INSERT INTO users SELECT i, 'ann' FROM generate_series(1, 1500) AS i")
    predicted = play("seal", hosts, "--check")
    assert not ledger(key, shop.name).exists()
    first = play("seal", hosts)
    total = shop.value("SELECT count(*) FROM audit.audit_log_data")
    (line,) = lines(first)
    assert line.startswith(f"{HOST} {shop.name}: {total:,} rows in 2 seals, last seal 2, unsealed 0, ")
    assert line.endswith(" s")
    assert " ids to look through for rows to seal, " in lines(predicted)[0]
    assert first.stats(HOST)["changed"] == 1
    assert len(ledger(key, shop.name).read_text().splitlines()) == 2
    second = play("seal", hosts)
    assert second.stats(HOST)["changed"] == 0
    assert f"{HOST} {shop.name}: 0 rows in 0 seals, last seal 2, unsealed 0" in lines(second)[0]
    verified = play("verify", hosts)
    assert lines(verified)[0] == (
        f"OK {HOST} {shop.name}: 1 policy probed, tampering refused, 2 seals and {total:,} rows verified, 0 problems"
    )
    kept = last_verified(str(ledger(key, shop.name).parents[1]), HOST, [shop.name, "another"])
    age = datetime.now(timezone.utc) - datetime.fromisoformat(kept[shop.name]["verified_at"].replace("Z", "+00:00"))
    assert (kept[shop.name]["number"], kept["another"], age < timedelta(minutes=5)) == (2, {}, True)


@pytest.mark.thorough
def test_every_database_has_a_ledger_of_its_own_whatever_its_name_and_one_that_fails_does_not_stop_the_others(
    pg: LocalPostgresql, new_database: NewDatabase, key: KeyPair
):
    prefix = databases.unique("..")
    odd, plain, bare = [new_database(pg, f"{prefix}{name}") for name in ("/../é %2F", "a", "b")]
    for database in (odd, plain, bare):
        database.execute("CREATE TABLE users (id int PRIMARY KEY)")
    play("site", sealed(pg, [odd, plain], key))
    result = play("seal", sealed(pg, [f"{prefix}*"], key), check=False)
    said = lines(result)
    assert result.rc == 2
    assert [line.split(": ")[0] for line in said] == [
        f"{HOST} {odd.name}",
        f"{HOST} {plain.name}",
        f"FAILED {HOST} {bare.name}",
    ]
    assert "no audit trail" in said[2]
    names = {path.name for path in ledger(key, "x").parent.iterdir() if path.stat().st_size}
    assert names == {f"%2E{prefix[1:]}%2F..%2F%C3%A9%20%252F.jsonl", f"%2E{prefix[1:]}a.jsonl"}


@pytest.mark.thorough
def test_verify_names_the_row_that_was_changed_and_a_resync_accepts_it_on_one_server_only(shop: Database, key: KeyPair):
    hosts = sealed(shop.server, [shop], key)
    play("site", hosts)
    shop.execute("INSERT INTO users VALUES (17, 'ann')")
    play("seal", hosts)
    row = shop.value("SELECT id FROM audit.audit_log WHERE record_id = '17'")
    forge(shop, f"UPDATE {LOG} SET changed_by = 'eve' WHERE id = {row}")
    found = play("verify", hosts, check=False)
    assert found.rc == 2
    assert lines(found)[0].startswith(f"FAILED {HOST} {shop.name}: ")
    assert f"  modified_row: seal 1: row {row} is not what was sealed" in lines(found)
    # Brings back the guards that the forger has left weaker than they were.
    play("site", hosts)
    reason = ["-e", json.dumps({"audit_seal_resync": "corrected, change 4711"})]
    several = {**hosts, "web": {"hosts": {"web1": {}}}}
    refused = play("seal", several, *reason, check=False)
    assert refused.rc == 2
    assert "--limit the run to the one server that is meant" in refused.stdout
    elsewhere = json.dumps({"audit_seal_resync_databases": ["elsewhere"]})
    unknown = play("seal", hosts, *reason, "-e", elsewhere, check=False)
    assert "audit_seal_resync_databases lists elsewhere, which this server does not seal" in unknown.stdout
    play("seal", several, "--limit", HOST, *reason)
    assert lines(play("verify", hosts))[0].startswith(f"OK {HOST} {shop.name}: ")
    assert "corrected, change 4711" in ledger(key, shop.name).read_text()


def test_a_key_from_a_vault_is_in_no_line_of_output(shop: Database, tmp_path: pathlib.Path):
    key = make_key(tmp_path, "vaulted", PASSPHRASE)
    text = pathlib.Path(key.private).read_text()
    given = {"signing_key": "", "signing_key_content": text, "signing_key_passphrase": PASSPHRASE}
    hosts = sealed(shop.server, [shop], key, **given)
    play("site", hosts)
    result = play("seal", hosts, "-vvvvv", "--diff")
    assert "rows in 2 seals" in result.stdout
    body = text.splitlines()[1]
    for secret in (PASSPHRASE, body, body[:24]):
        assert secret not in result.stdout + result.stderr
    hosts["postgresql"]["vars"]["audit_seal_signing_key_passphrase"] = "wrong"
    refused = play("seal", hosts, check=False)
    assert refused.rc == 2
    assert "is signing_key_passphrase missing or wrong?" in lines(refused)[0]


@pytest.mark.thorough
def test_a_new_key_is_vouched_for_by_the_old_one(shop: Database, key: KeyPair, tmp_path: pathlib.Path):
    new = make_key(tmp_path, "new")
    play("site", sealed(shop.server, [shop], key))
    play("seal", sealed(shop.server, [shop], key))
    alone = play("seal", sealed(shop.server, [shop], new), check=False)
    assert "give the old one as previous_signing_key, once, to change keys" in lines(alone)[0]
    play("seal", sealed(shop.server, [shop], new, previous_signing_key=key.private))
    for public in (key.public, new.public):
        assert lines(play("verify", sealed(shop.server, [shop], new, public_keys=[public])))[0].startswith("OK ")
    stranger = make_key(tmp_path, "stranger")
    found = play("verify", sealed(shop.server, [shop], new, public_keys=[stranger.public]), check=False)
    assert "unknown_key" in found.stdout


@pytest.mark.thorough
def test_a_standby_is_skipped_and_its_name_leads_to_the_ledger_of_its_primary(
    pg: LocalPostgresql, pg_standby: LocalPostgresql, shop: Database, key: KeyPair
):
    primary, standby = (sealed(server, [shop], key, server="cluster 1") for server in (pg, pg_standby))
    play("site", primary)
    play("seal", primary)
    assert ledger(key, shop.name, "cluster%201").exists()
    databases.wait_for_replay(pg, pg_standby)
    result = play("seal", standby)
    assert f"{HOST}: standby; its logs are sealed on its primary" in result.stdout
    assert result.stats(HOST)["changed"] == 0
    verified = play("verify", standby)
    assert lines(verified)[0] == f"OK {HOST} {shop.name}: standby, catalogue compared, 0 problems"


def test_what_cannot_be_meant_is_refused_before_a_server_is_asked(pg: LocalPostgresql, key: KeyPair):
    wrong = {"signing_key": "", "ledger": "ledger", "resync_databases": ["shop"], "max_unsealed_hour": 1}
    result = play("seal", sealed(pg, ["shop"], key, **wrong), check=False)
    assert result.rc == 2
    for said in (
        "unknown variable audit_seal_max_unsealed_hour; did you mean audit_seal_max_unsealed_hours?",
        "audit_seal_signing_key is missing",
        "audit_seal_ledger is 'ledger', which would be another directory",
        "audit_seal_resync_databases is set without audit_seal_resync",
    ):
        assert said in result.stdout
    verified = play("verify", sealed(pg, ["shop"], key, ledger="ledger"), check=False)
    assert "audit_seal_ledger is 'ledger', which would be another directory" in verified.stdout


def test_no_group_no_seal():
    result = play("seal", {"web": {"hosts": {"web1": {}}}}, check=False)
    assert result.rc == 2
    assert "no host of the inventory is in postgresql" in result.stdout
