# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook seal, and the seal part of verify, on a MariaDB or MySQL server: one log, one ledger."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from fleet import HOST, lines, play
from mysql_databases import MysqlServer, Schema
from sealing import make_key

pytestmark = pytest.mark.own_server


@pytest.fixture
def shop(without_trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database with a table, on a server without a trail."""
    with Schema(without_trail) as made:
        made.execute("CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20))")
        yield made


@pytest.mark.thorough
def test_seal_says_in_a_line_what_it_sealed_and_verify_names_a_row_that_was_changed(
    shop: Schema, local_host: dict[str, t.Any], tmp_path: pathlib.Path
):
    key = make_key(tmp_path)
    settings = {
        "mysql_audit_plugin_enabled": False,
        "mysql_audit_login": shop.login,
        "mysql_audit_policies": [{"tables": [f"{shop.name}.*"]}],
        "mysql_audit_schedule": "none",
        "audit_seal_signing_key": key.private,
        "audit_seal_public_keys": [key.public],
        "audit_seal_ledger": str(tmp_path / "ledger"),
    }
    hosts = {"mysql": {"hosts": {HOST: settings}, "vars": local_host}}
    play("site", hosts)
    shop.execute("INSERT INTO users VALUES (1, 'ann'), (2, 'bob')")
    (line,) = lines(play("seal", hosts))
    assert line.startswith(f"{HOST}: 2 rows in ")
    assert (tmp_path / "ledger" / f"{HOST}.jsonl").exists()
    assert lines(play("seal", hosts))[0].startswith(f"{HOST}: 0 rows in 0 seals, ")
    (proof,) = lines(play("verify", hosts))
    assert proof.startswith(f"OK {HOST}: probe recorded, tampering refused, ")
    assert proof.endswith(" and 2 rows verified, 0 problems")
