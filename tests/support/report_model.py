# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A report model of a fleet that nobody had to run: a health insurer's with a clinic and a bank, in one quarter.

The same number of hosts gives the same model, so that a picture of it changes only when the page does.
"""

from __future__ import annotations

import copy
import datetime
import pathlib
import random
import typing as t

import yaml

Model = dict[str, t.Any]

MADE_AT = datetime.datetime(2026, 10, 1, 6, 30)
SINCE, UNTIL = datetime.date(2026, 7, 1), datetime.date(2026, 9, 30)
POSTURES = ("green", "amber", "red", "unknown")
GIB = 2**30
DATA = yaml.safe_load(pathlib.Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))


def report_model(hosts: int = 24, *, databases: int | None = None, seed: int = 7) -> Model:
    """Return the model of a fleet.

    :param hosts: how many.
    :param databases: of each host; None: two or three, as its system has them.
    """
    chance = random.Random(seed)
    entries = [_host(number, databases, chance) for number in range(hosts)]
    trails = [trail for entry in entries for trail in entry["databases"]]
    controls = _controls(entries)
    activity = _activity(entries, chance)
    return {
        "title": "Database audit report: Meridian Health & Savings",
        "generated_at": f"{MADE_AT.isoformat()}Z",
        "collection_version": "0.1.0",
        "period": {"name": "quarter", "since": SINCE.isoformat(), "until": UNTIL.isoformat()},
        "profiles": ["hipaa", "pci_dss", "soc2"],
        "summary": _summary(entries, trails, controls),
        "hosts": entries,
        "controls": controls,
        "activity": activity,
        "growth": _growth(trails),
        **_discovery(entries),
        "checks": _on_hosts(DATA["checks"], entries),
        "alerts": [
            {"name": finding["check"], "host": entry["name"], "text": finding["text"]}
            for entry in entries
            for finding in entry["findings"]
            if finding["level"] == "red" and finding["check"] in ("coverage", "sealed")
        ],
    }


def _summary(hosts: list[Model], trails: list[Model], controls: list[Model]) -> Model:
    audited, auditable = (sum(trail[name] for trail in trails) for name in ("audited", "auditable"))
    return {
        "hosts": len(hosts),
        **{posture: sum(host["posture"] == posture for host in hosts) for posture in POSTURES},
        "auditable": auditable,
        "audited": audited,
        "coverage": audited / auditable if auditable else None,
        "changes": sum(trail["changes"] for trail in trails),
        "failures": 0,
        "unsealed_rows": sum(trail["unsealed_rows"] for trail in trails),
        "controls_met": sum(control["met"] is True for control in controls),
        "controls_not_met": sum(control["met"] is False for control in controls),
        "controls": len(controls),
    }


def _host(number: int, wanted: int | None, chance: random.Random) -> Model:
    systems: dict[str, list[str]] = DATA["systems"]
    system = list(systems)[number % len(systems)]
    engine = ("postgresql", "postgresql", "mariadb", "postgresql", "mysql")[number % 5]
    prefix = {"postgresql": "pg", "mariadb": "maria", "mysql": "my"}[engine]
    host = {"name": f"{prefix}-{system}-{number // len(systems) + 1}", "engine": engine, "standby": False}
    if number % 40 == 23:
        reason = "Failed to connect to the host via ssh: connect to host port 22: Connection timed out"
        checks = {"reachable": {"level": "unknown", "text": reason}}
        asked = {"version": "", "posture": "unknown", "reason": reason, "findings": [], "checks": checks}
        return {**host, **asked, "databases": []}
    names = systems[system]
    if wanted is not None:
        names = [*names, *(f"{system}_{spare}" for spare in range(wanted))][:wanted]
    databases = [_database(name, chance) for name in names]
    findings = _findings(number, host["name"], databases)
    levels = {finding["level"] for finding in findings}
    found = {finding["check"]: {"level": finding["level"], "text": finding["text"]} for finding in findings}
    return {
        **host,
        "version": DATA["versions"][engine][number % len(DATA["versions"][engine])],
        "posture": "red" if "red" in levels else "amber" if levels else "green",
        "reason": "",
        "findings": findings,
        "checks": {**{check: {"level": "ok", "text": text} for check, text in DATA["passed"].items()}, **found},
        "databases": databases,
    }


def _database(name: str, chance: random.Random) -> Model:
    words = sorted(chance.sample(DATA["tables"], chance.randint(8, 16)))
    size = int(chance.lognormvariate(1.6, 0.9) * GIB)
    return {
        "name": name,
        "auditable": len(words),
        "audited": len(words),
        "changes": int(chance.lognormvariate(11.4, 1.0)),
        "failures": 0,
        "log_bytes": size,
        "projected_bytes": int(size * chance.uniform(1.7, 2.4)),
        "partitions_until": "2027-01-01",
        "partitions_ahead": 3,
        "last_sealed_at": f"{(MADE_AT - datetime.timedelta(minutes=chance.randint(4, 64))).isoformat()}Z",
        "unsealed_rows": chance.randint(0, 900),
        "exceptions": DATA["exceptions"] if name == "claims" else [],
        "tables": [_table(word, chance) for word in words],
    }


def _table(word: str, chance: random.Random) -> Model:
    sensitive = word in DATA["sensitive"]
    return {
        "table": f"public.{word}",
        "audited": True,
        "policy": word if sensitive else "everything else",
        "classification": "restricted" if sensitive else "internal",
        "retention": "financial" if word in ("payments", "accounts", "claims") else "default",
        "tags": ["HIPAA", "GDPR"] if sensitive else [],
        "operations": ["insert", "update", "delete"],
        "rows": int(chance.lognormvariate(11, 1.6)),
        "bytes": int(chance.lognormvariate(18, 1.4)),
        "problem": None,
    }


def _findings(number: int, host: str, databases: list[Model]) -> list[Model]:
    """Give a host the faults of its number, and its databases what goes with them."""
    first, found = databases[0], []

    def finding(level: str, check: str, text: str, database: str = "", playbook: str = "site") -> None:
        fix = f"ansible-playbook dbfleet.audit.{playbook} --limit {host}"
        found.append({"level": level, "check": check, "database": database, "text": text, "fix": fix})

    if number % 19 == 4:
        missed = first["tables"][:3]
        for table in missed:
            table.update(audited=False, policy=None, operations=[])
        first["audited"] -= len(missed)
        names = ", ".join(table["table"] for table in missed)
        finding("red", "coverage", f"{len(missed)} tables are not audited: {names}", first["name"])
    if number % 21 == 10:
        first.update(last_sealed_at="2026-09-27T02:10:00Z", unsealed_rows=418_220)
        text = "last seal 8,114 of 2026-09-27T02:10:00Z, 418,220 rows unsealed: more than 24 hours"
        finding("red", "sealed", text, first["name"], "seal")
    if number % 17 == 6:
        table = first["tables"][1]
        table["problem"] = "trigger disabled: dbfleet_audit_update"
        finding("red", "drift", f"the trigger dbfleet_audit_update of {table['table']} is disabled", first["name"])
    if number % 11 == 3:
        finding("amber", "pending_restart", "shared_preload_libraries is not in force before a restart")
    if number % 9 == 7:
        first.update(partitions_until="2026-11-01", partitions_ahead=1)
        finding("amber", "partitions_ahead", "1 month ahead, until 2026-11-01; 3 were asked for", first["name"])
    if number % 13 == 9:
        text = "69 % of the changes name the application's user; without, at times: nightly-import"
        finding("amber", "user_context", text, databases[-1]["name"])
    return found


def _controls(hosts: list[Model]) -> list[Model]:
    """Return the controls; they are met where every check is ok on every host."""
    return [_control(control, hosts) for control in DATA["controls"]]


def _control(control: Model, hosts: list[Model]) -> Model:
    found = [(host["name"], [_result(host, check) for check in control["checks"]]) for host in hosts]
    levels = {level for _name, results in found for level, _text in results}
    met = False if "red" in levels else True if levels == {"ok"} else None
    said = [
        {"host": name, "text": "; ".join(text for level, text in results if met or (level == "red") == (met is False))}
        for name, results in found
        if met or any(level != "ok" if met is None else level == "red" for level, _text in results)
    ]
    return {
        **control,
        "met": met,
        "covers": "Changes, DDL, grants and logins of these servers are recorded, and the record is whole.",
        "leaves": "Applications, files and other systems; that people look at the records.",
        "source": DATA["sources"][control["framework"]],
        "evidence": [*said[:20], *([{"host": "", "text": f"and {len(said) - 20:,} more"}] if said[20:] else [])],
    }


def _result(host: Model, check: str) -> tuple[str, str]:
    """Return level and text of a check; of a host that did not answer, why not."""
    name = check if check in host["checks"] else "reachable"
    return host["checks"][name]["level"], f"{name}: {host['checks'][name]['text']}"


def _activity(hosts: list[Model], chance: random.Random) -> Model:
    changes = sum(database["changes"] for host in hosts for database in host["databases"])
    days = [SINCE + datetime.timedelta(days=number) for number in range((UNTIL - SINCE).days + 1)]
    weights = [(0.24 if day.weekday() > 4 else 1.0) * chance.uniform(0.85, 1.15) for day in days]
    # The end of a quarter, when everything is settled.
    weights[-1] *= 1.7
    counts = _shared(changes, [weight for weight, _share in DATA["applications"].values()])
    applications = zip(DATA["applications"].items(), counts)
    users = _ranked(DATA["users"], int(changes * 0.9), hosts)
    return {
        "by_day": [{"day": f"{day}", "changes": count} for day, count in zip(days, _shared(changes, weights))],
        "by_hour": _shared(changes, DATA["hours"]),
        "by_action": {"UPDATE": changes - changes // 3, "INSERT": changes // 3},
        "users": [{"name": user["name"], "changes": user["changes"], "hosts": [user["host"]]} for user in users],
        "tables": _ranked([f"public.{word}" for word in DATA["tables"][:10]], int(changes * 0.7), hosts),
        "off_hours": {
            "changes": int(changes * 0.171),
            "users": _ranked(DATA["users"][4:9], int(changes * 0.16), hosts),
        },
        "bulk": [{**change, "transaction_id": "918273645"} for change in _on_hosts(DATA["bulk"], hosts)],
        "applications": [
            {"name": name, "changes": count, "without_user": int(count * without)}
            for (name, (_weight, without)), count in applications
        ],
    }


def _shared(whole: int, weights: t.Sequence[float]) -> list[int]:
    """Divide a number in proportion; the last takes what is left."""
    parts = [int(whole * weight / sum(weights)) for weight in weights]
    return [*parts[:-1], whole - sum(parts[:-1])]


def _ranked(names: t.Sequence[str], whole: int, hosts: list[Model]) -> list[Model]:
    """Give each name its part, the first the most."""
    parts = sorted(_shared(whole, [0.78**rank for rank in range(len(names))]), reverse=True)
    return _on_hosts([{"name": name, "changes": part} for name, part in zip(names, parts)], hosts)


def _on_hosts(entries: list[Model], hosts: list[Model]) -> list[Model]:
    """Say of each entry on which host and in which database it is; hosts that gave no answer have none."""
    asked = [host for host in hosts if host["databases"]]
    if not asked:
        return []
    places = [asked[(5 * rank + 2) % len(asked)] for rank in range(len(entries))]
    return [
        {"host": host["name"], "database": host["databases"][0]["name"], **entry}
        for host, entry in zip(places, entries)
    ]


def _growth(trails: list[Model]) -> list[Model]:
    size, rows = (sum(trail[name] for trail in trails) for name in ("log_bytes", "changes"))
    months = [*(f"2025-{month}" for month in (10, 11, 12)), *(f"2026-{month:02}" for month in range(1, 10))]
    weights = [1 + 0.045 * number for number in range(len(months))]
    parts = zip(months, _shared(rows * 4, weights), _shared(size, weights))
    return [{"month": month, "rows": some, "bytes": much} for month, some, much in parts]


def _discovery(hosts: list[Model]) -> dict[str, list[Model]]:
    found = _on_hosts(copy.deepcopy(DATA["discovery"]), hosts)
    for entry in found:
        columns = {"redact": list(entry["columns"])}
        entry["policy"] = {"tables": [entry["table"]], "columns": columns, "classification": "restricted"}
    proposals = [
        {
            "host": entry["host"],
            "database": entry["database"],
            "yaml": yaml.safe_dump([entry["policy"]], sort_keys=False),
        }
        for entry in found
    ]
    return {"discovery": found, "proposals": proposals}
