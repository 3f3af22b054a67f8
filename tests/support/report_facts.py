# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Small facts of hosts, as the role audit_report gathers them, for tests of the report."""

from __future__ import annotations

import copy
import typing as t

NOW = "2026-11-22T10:00:00Z"

OPTIONS: dict[str, t.Any] = {
    "title": "Fleet",
    "generated_at": NOW,
    "collection_version": "0.1.0",
    "period": {"name": "month", "since": "2026-10-22T10:00:00Z", "until": NOW},
    "profiles": [],
    "thresholds": {"coverage": 100, "unsealed_hours": 24, "partitions_ahead": 1, "audit_failures": 0},
    "max_unsealed_hours": 24,
}


#: Of a server that waits for nothing.
SETTLED: dict[str, t.Any] = {"restart": {"pending": [], "errors": []}}


def table(name: str, audited: bool | None = True, problem: str | None = None, **more: t.Any) -> dict[str, t.Any]:
    """Return a table of a trail's coverage."""
    return {"table": name, "audited": audited, "problem": problem, "rows": 10, "bytes": 8192, "exception": None, **more}


TRAIL: dict[str, t.Any] = {
    "database": "shop",
    "schema": "audit",
    "installed": True,
    "error": None,
    "coverage": {
        "auditable": 2,
        "audited": 2,
        "excepted": 0,
        "tables": [table("public.orders"), table("public.users")],
    },
    "partitions": {
        "interval": "month",
        "until": "2027-03-01",
        "ahead": 3,
        "catch_all_rows": 0,
        "bytes": 8192,
        "list": [],
        "growth": [{"month": "2026-10", "rows": 100, "bytes": 8192}],
        "projected_bytes": 99,
    },
    "activity": {
        "since": "2026-10-22T10:00:00Z",
        "until": NOW,
        "changes": 100,
        "by_action": {"INSERT": 90, "DELETE": 10},
        "by_day": [{"day": "2026-11-01", "changes": 100}],
        "by_hour": [0] * 9 + [100] + [0] * 14,
        "users": [{"name": "ann", "changes": 100}],
        "tables": [{"name": "public.users", "changes": 100}],
        "off_hours": {"changes": 0, "users": []},
        "bulk": [],
        "bulk_deletes": 0,
        "without_user": 0,
        "applications": [{"name": "shop", "changes": 100, "without_user": 0}],
        "failures": 0,
        "ddl": 1,
        "logins": 0,
        "refused_logins": None,
    },
    "seals": {
        "last_number": 7,
        "last_sealed_at": "2026-11-22T09:45:00Z",
        "unsealed_rows": 5,
        "oldest_unsealed_at": "2026-11-22T09:50:00Z",
        "unsigned": 0,
    },
    "grants": [{"grantee": "audit_reader", "object": "audit_log", "privileges": ["SELECT"], "expected": True}],
    "settings": {"events": ["ddl", "app"], "log_connections": "on", "pgaudit.log": "ddl, role"},
    "discovery": [],
    "proposal": "",
    "problems": [],
    "exceptions": [],
    "limitations": [],
}


def trail(**changed: t.Any) -> dict[str, t.Any]:
    """Return the trail of a database that is as it has to be, but for what is given: ``seals={"unsigned": 1}``."""
    made = copy.deepcopy(TRAIL)
    for name, value in changed.items():
        made[name] = {**made[name], **value} if isinstance(value, dict) and made[name] else value
    return made


def host(*trails: dict[str, t.Any], **changed: t.Any) -> dict[str, t.Any]:
    """Return the facts of a host that is as it has to be, but for what is given."""
    return {
        "engine": "postgresql",
        "status": "ok",
        "reason": "",
        "server": {"version": {"full": "17.6", "major": 17}, "in_recovery": False, "limitations": [], **SETTLED},
        "trails": list(trails) or [trail()],
        "statements": {"enabled": True, "problems": [], "grants": True, "reads": True},
        "retention": {"url": "/mnt/archive", "older_than": "13mo", "categories": {}},
        "checks": [],
        **changed,
    }
