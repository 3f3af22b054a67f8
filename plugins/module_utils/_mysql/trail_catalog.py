# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The trail as a server has it: a fixed number of queries, whatever is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core.schema_version import FUNCTION, version_in
from .accounts import ACCOUNTS, Account
from .session import Session
from .trigger import Slots, read_triggers

_TABLES = """
SELECT t.table_name AS name, t.table_comment AS comment
FROM information_schema.schemata AS s
LEFT JOIN information_schema.tables AS t ON t.table_schema = s.schema_name
WHERE s.schema_name = %(schema)s
"""

_INDEXES = """
SELECT DISTINCT s.index_name AS name
FROM information_schema.statistics AS s
WHERE s.table_schema = %(schema)s AND s.table_name = 'audit_log_data'
"""

_ROUTINES = """
SELECT r.routine_name AS name, r.routine_type AS kind, r.definer AS definer, r.security_type AS security,
       r.sql_data_access AS access, r.sql_mode AS sql_mode, r.routine_definition AS body
FROM information_schema.routines AS r
WHERE r.routine_schema = %(schema)s
"""

_VIEWS = """
SELECT v.table_name AS name, v.definer AS definer, v.security_type AS security,
       SHA2(v.view_definition, 256) AS digest
FROM information_schema.views AS v
WHERE v.table_schema = %(schema)s
"""

_EVENTS = """
SELECT e.event_name AS name, e.definer AS definer, e.event_definition AS body, e.status AS status,
       e.interval_value AS every, e.interval_field AS unit
FROM information_schema.events AS e
WHERE e.event_schema = %(schema)s
"""

#: What is granted on the trail, table by table and as a whole, and to our own accounts on anything.
_GRANTS = """
SELECT p.grantee, p.table_schema AS db, p.table_name AS name, p.privilege_type AS privilege
FROM information_schema.table_privileges AS p
WHERE p.table_schema = %(schema)s
UNION ALL
SELECT p.grantee, p.table_schema, p.table_name, p.privilege_type
FROM information_schema.column_privileges AS p
WHERE p.table_schema = %(schema)s
UNION ALL
SELECT p.grantee, p.table_schema, NULL, p.privilege_type
FROM information_schema.schema_privileges AS p
WHERE %(schema)s LIKE p.table_schema OR p.grantee IN %(ours)s
"""

_ROUTINE_GRANTS = """
SELECT CONCAT(x'27', p.user, x'274027', p.host, x'27') AS grantee, p.routine_name AS name
FROM mysql.procs_priv AS p
WHERE p.db = %(schema)s
"""

#: Which accounts there are, and who may change the log because he may change everything.
_ACCOUNTS = """
SELECT p.grantee,
       MAX(p.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'DROP', 'ALTER', 'SUPER')) AS powerful,
       GROUP_CONCAT(p.privilege_type) AS privileges
FROM information_schema.user_privileges AS p
GROUP BY p.grantee
"""

_DEFINITIONS = "SELECT d.object, d.source_digest, d.server_digest FROM {schema}.definition AS d"
_SETTINGS = "SELECT s.name, s.value FROM {schema}.setting AS s"
_HAS_KEY = "SELECT COUNT(*) AS number FROM {schema}.hash_key"
_HAS_CHAIN = "SELECT COUNT(*) AS number FROM {schema}.seal_state"


@dataclass(frozen=True)
class Grant:
    """One privilege. `name` is a table, a routine (privilege EXECUTE), or None for the whole database `db`."""

    grantee: str
    db: str
    name: str | None
    privilege: str

    @property
    def is_pattern(self) -> bool:
        """Whether `db` stands for every database whose name fits."""
        return re.search(r"(?<!\\)[%_]", self.db) is not None


@dataclass
class TrailCatalog:
    """The trail as the server has it; everything but the accounts is empty on a server without one."""

    schema: str
    exists: bool
    tables: dict[str, dict[str, Any]]
    indexes: list[str]
    routines: dict[str, dict[str, Any]]
    views: dict[str, dict[str, Any]]
    events: dict[str, dict[str, Any]]
    grants: list[Grant]
    accounts: dict[str, dict[str, Any]]
    locked: dict[Account, bool]
    triggers: Mapping[tuple[str, str], Slots]
    definitions: dict[str, list[str]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    has_hash_key: bool = False
    has_chain: bool = False

    @property
    def installed(self) -> bool:
        return "audit_log_data" in self.tables

    @property
    def schema_version(self) -> int:
        """The version of what the trail consists of; 0 where it does not say."""
        return version_in((self.routines.get(FUNCTION) or {}).get("body"))


def read(session: Session, schema: str) -> TrailCatalog:
    """Read the trail in a database, and the accounts of the server."""
    place = {"schema": schema, "ours": [account.grantee for account in ACCOUNTS]}
    rows = session.all(_TABLES, place)
    tables = {row["name"]: row for row in rows if row["name"]}
    accounts = {row["grantee"]: row for row in session.all(_ACCOUNTS)}
    grants = [Grant(**row) for row in session.all(_GRANTS, place)]
    grants += [Grant(row["grantee"], schema, row["name"], "EXECUTE") for row in session.all(_ROUTINE_GRANTS, place)]
    catalog = TrailCatalog(
        schema,
        bool(rows),
        tables,
        [row["name"] for row in session.all(_INDEXES, place)],
        *({row["name"]: row for row in session.all(query, place)} for query in (_ROUTINES, _VIEWS)),
        read_events(session, schema),
        grants,
        accounts,
        {account: _is_locked(session, account) for account in ACCOUNTS if account.grantee in accounts},
        read_triggers(session, schema),
    )
    _read_content(session, catalog)
    return catalog


def read_events(session: Session, schema: str) -> dict[str, dict[str, Any]]:
    """Read the events in a database, by name."""
    return {row["name"]: row for row in session.all(_EVENTS, {"schema": schema})}


def _read_content(session: Session, catalog: TrailCatalog) -> None:
    quoted = session.identifier(catalog.schema)
    if "definition" in catalog.tables:
        rows = session.all(_DEFINITIONS.replace("{schema}", quoted))
        catalog.definitions = {row["object"]: [row["source_digest"], row["server_digest"]] for row in rows}
    if "setting" in catalog.tables:
        rows = session.all(_SETTINGS.replace("{schema}", quoted))
        catalog.settings = {row["name"]: row["value"] for row in rows}
    if "hash_key" in catalog.tables:
        catalog.has_hash_key = bool(session.one(_HAS_KEY.replace("{schema}", quoted))["number"])
    if "seal_state" in catalog.tables:
        catalog.has_chain = bool(session.one(_HAS_CHAIN.replace("{schema}", quoted))["number"])


def _is_locked(session: Session, account: Account) -> bool:
    row = session.one(f"SHOW CREATE USER {account.sql().render(session)}")
    return "ACCOUNT LOCK" in next(iter(row.values()))


def roles_of(session: Session) -> Sequence[str]:
    """Return the grantees whose privileges the login has: itself, and its roles in force."""
    names = [Account.parse(session.account).grantee]
    for role in filter(None, session.role.split(",")):
        account = Account.parse(role)
        names += [account.grantee, f"'{account.user}'@''"]
    return names
