# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Digests of values in a database that does not know the encoding of its texts, and in those that do."""

from __future__ import annotations

import contextlib
import hashlib
import typing as t

import pytest
from auditing import install_trail, rollout, wanted
from databases import Database, connect, fetch, unique
from local_postgresql import LocalPostgresql
from sealing import Sealer
from tampering import unguarded

#: How each encoding writes "Grün" or, without an encoding, what no UTF-8 is.
BYTES = {"SQL_ASCII": b"Gr\xfcn", "UTF8": b"Gr\xc3\xbcn", "LATIN1": b"Gr\xfcn"}
CAPTURES = ("row", "statement")


@pytest.fixture(params=BYTES)
def encoded(request: pytest.FixtureRequest, pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database of one encoding with a trail."""
    name = unique("encoded")
    with contextlib.closing(connect(pg, "postgres")) as connection:
        fetch(connection, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LOCALE 'C'")
    database = Database(pg, name, template=None)
    install_trail(database)
    yield database
    database.drop()


def digest(db: Database, content: bytes) -> str:
    """Return the digest of a hashed column, made of the key and the bytes."""
    inner, outer = (bytes(pad) for pad in db.execute("SELECT inner_pad, outer_pad FROM audit.hash_key")[0])
    return "hmac-sha256:" + hashlib.sha256(outer + hashlib.sha256(inner + content).digest()).hexdigest()


@pytest.mark.parametrize("capture", CAPTURES)
def test_every_digest_is_of_the_bytes_in_utf8_or_else_of_those_that_are_there(encoded, capture):
    """Of a hashed column, of a key that no index takes, and of what is too large next to what jsonb does not take."""
    encoded.execute("CREATE TABLE people (name text PRIMARY KEY, ssn text, cv text, document json)")
    rollout(encoded, policies=[wanted("public.people", capture=capture, columns={"hash": ["ssn"]})])
    encoding = encoded.value("SELECT getdatabaseencoding()")
    there = f"convert_from('\\x{BYTES[encoding].hex()}', '{encoding}')"
    encoded.execute(
        f"INSERT INTO people VALUES (repeat({there}, 600), {there}, repeat({there}, 300000), '\"\\u0000\"')"
    )
    found = encoded.execute(
        "SELECT new_values ->> 'ssn', record_id, new_values #>> '{cv,sha256}' FROM audit.audit_log "
        "WHERE table_name = 'people' AND action = 'INSERT'"
    )
    known = BYTES["SQL_ASCII"] if encoding == "SQL_ASCII" else BYTES["UTF8"]
    key, cv = (hashlib.sha256(known * times).hexdigest() for times in (600, 300000))
    assert found == [(digest(encoded, known), f"sha256:{key}", cv)]


def test_what_no_encoding_knows_is_sealed_like_everything_else(encoded, tmp_path):
    encoded.execute("CREATE TABLE people (name text PRIMARY KEY)")
    policies = [wanted("public.people")]
    rollout(encoded, policies=policies)
    encoding = encoded.value("SELECT getdatabaseencoding()")
    encoded.execute(f"INSERT INTO people VALUES (convert_from('\\x{BYTES[encoding].hex()}', '{encoding}'))")
    sealer = Sealer(encoded.login, tmp_path, policies=policies)
    sealer.seal()
    assert sealer.problems() == []
    with unguarded(encoded) as connection:
        fetch(
            connection,
            "UPDATE audit.audit_log_data SET new_values = '{}' WHERE table_name = 'people' AND action = 'INSERT'",
        )
    assert [problem[0] for problem in sealer.problems()] == ["modified_row"]
