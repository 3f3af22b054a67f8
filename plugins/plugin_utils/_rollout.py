# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles work out from the user's variables and the modules' answers, on the controller. Pure functions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

_EXCEPTION = re.compile(r"[^.]+\.[^.].*\..+", re.DOTALL)
_SERVER_EXCEPTION = re.compile(r"[^.]+\..+", re.DOTALL)
_INSTANCE = re.compile(r"[A-Za-z0-9_-]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def unknown_variables(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return a problem for every variable that a role does not know, with the name that was probably meant."""
    problems = []
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)
        problems.append(f"unknown variable {name}; did you mean {near[0]}?")
    return problems


def database_problems(
    databases: Sequence[Mapping[str, Any]], baseline: Sequence[Any], exceptions: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return what is wrong with postgresql_audit_databases and its exceptions, before a server is asked."""
    if not databases:
        return ["postgresql_audit_databases is empty; list at least one database"]
    problems = []
    names = [entry["name"] for entry in databases]
    for index, entry in enumerate(databases):
        if names.index(entry["name"]) != index:
            problems.append(f"postgresql_audit_databases lists {entry['name']} twice; make one entry of them")
        if not (entry.get("policies") or baseline):
            problems.append(
                f"database {entry['name']} has no policies; give it some, or set postgresql_audit_baseline_policies"
            )
    for exception in exceptions:
        problems += _exception_problems(exception, names)
    return problems


def server_problems(
    policies: Sequence[Any], baseline: Sequence[Any], exceptions: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return what is wrong with mysql_audit_policies and the exceptions from them, before a server is asked."""
    problems = []
    if not (policies or baseline):
        problems.append("mysql_audit_policies is empty; list at least one policy, or set mysql_audit_baseline_policies")
    for exception in exceptions:
        where = f"mysql_audit_exceptions: {exception['table']}"
        if _SERVER_EXCEPTION.fullmatch(exception["table"]):
            problems += _until_problems(where, exception)
        else:
            problems.append(f"{where} is not schema.table, as in shop.tmp_load")
    return problems


def instance_problems(instance: Any, variable: str) -> list[str]:
    """Return what is wrong with the name of an instance, which becomes a part of the names of units and files."""
    if _INSTANCE.fullmatch(str(instance)):
        return []
    return [f"{variable} is {instance}; letters, digits, _ and - make a unit name"]


def _exception_problems(exception: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    table = exception["table"]
    where = f"postgresql_audit_exceptions: {table}"
    if not _EXCEPTION.fullmatch(table):
        return [f"{where} is not database.schema.table, as in shop.public.tmp_load"]
    problems = []
    database = table.split(".", 1)[0]
    if not any(fnmatchcase(name, database) or fnmatchcase(database, name) for name in names):
        problems.append(
            f"{where} names the database {database}, which postgresql_audit_databases does not list "
            f"({', '.join(names)})"
        )
    return problems + _until_problems(where, exception)


def _until_problems(where: str, exception: Mapping[str, Any]) -> list[str]:
    until = exception.get("until")
    if until and not _DATE.fullmatch(str(until)):
        return [f"{where}: until is {until}, which is not a date like 2027-03-31"]
    return []


def matching_databases(databases: Sequence[Mapping[str, Any]], matches: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the databases that each entry stands for; an exact name wins over a glob."""
    names = {entry["name"] for entry in databases}
    return {name: [found for found in matches[name] if found == name or found not in names] for name in names}


def match_problems(databases: Sequence[Mapping[str, Any]], server: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the databases now that the server has said which it has."""
    problems = [
        f"postgresql_audit_databases lists {name}, but the server has no such database" for name in server["unmatched"]
    ]
    matched = matching_databases(databases, server["matches"])
    for database in server["databases"]:
        entries = [entry["name"] for entry in databases if database in matched[entry["name"]]]
        if len(entries) > 1:
            problems.append(
                f"database {database} is matched by {' and by '.join(entries)}; list it by its exact name, "
                "or narrow one of them"
            )
    return problems


def targets(
    databases: Sequence[Mapping[str, Any]], server: Mapping[str, Any], common: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return one entry a database, with all that is to be there: the modules' options.

    :param common: what all databases share: schema, policies, readers, applications, exceptions.
    """
    matched = matching_databases(databases, server["matches"])
    return [
        {
            "name": name,
            "schema": entry.get("schema") or common["schema"],
            "policies": [*(entry.get("policies") or []), *common["policies"]],
            "readers": _merged(common["readers"], entry.get("readers")),
            "applications": _merged(common["applications"], entry.get("applications")),
            "exceptions": _exceptions_of(name, entry["name"], common["exceptions"]),
        }
        for entry in databases
        for name in matched[entry["name"]]
    ]


def _merged(common: Sequence[str], own: Sequence[str] | None) -> list[str]:
    return list(dict.fromkeys([*common, *(own or [])]))


def _exceptions_of(database: str, entry: str, exceptions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for exception in exceptions:
        pattern, table = exception["table"].split(".", 1)
        if pattern == entry or fnmatchcase(database, pattern):
            found.append({**exception, "table": table})
    return plain_exceptions(found)


def plain_exceptions(exceptions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the exceptions as the modules take them: YAML reads a bare date as one, the modules take text."""
    return [
        {**exception, **({"until": str(exception["until"])} if exception.get("until") else {})}
        for exception in exceptions
    ]


def outcomes(wanted: Sequence[Mapping[str, Any]], *registered: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one entry a target: its last module's result, the first failure, and the seconds of all modules.

    A target is a database, or a whole server, whose name is empty and whose tasks need no loop.
    """
    collected = []
    for index, target in enumerate(wanted):
        results = [entry.get("results", [entry])[index] for entry in registered]
        collected.append(
            {
                "name": target["name"],
                "result": results[-1],
                "failure": next((result["msg"] for result in results if result.get("failed")), ""),
                "limitations": [lost for result in results for lost in result.get("limitations", [])],
                "seconds": round(sum(result.get("seconds", 0) for result in results), 1),
            }
        )
    return collected


def rollout_lines(collected: Sequence[Mapping[str, Any]], host: str) -> list[str]:
    """Return the line that a person wants of each target after a rollout."""
    lines = []
    for outcome in collected:
        where = heading(host, outcome["name"])
        parts = _coverage(outcome["result"]) + (["FAILED"] if outcome["failure"] else [])
        lines.append(where + ", ".join([*parts, f"{outcome['seconds']} s"]))
        lines += [f"{where}limitation: {limitation}" for limitation in outcome["limitations"]]
    return lines


def heading(host: str, name: str) -> str:
    """Return what the line of a host's database, or of a whole server, begins with."""
    return f"{host} {name}: " if name else f"{host}: "


def _coverage(result: Mapping[str, Any]) -> list[str]:
    if "audited" not in result:
        return []
    parts = [f"{result['audited']}/{result['auditable']} tables audited"]
    reasons: dict[str, list[str]] = {}
    for entry in result["skipped_tables"]:
        reasons.setdefault(entry["reason"], []).append(entry["table"])
    parts += [f"{len(names)} skipped ({reason}: {', '.join(names)})" for reason, names in sorted(reasons.items())]
    for exception in result["exceptions"]:
        until = f" (until {exception['until']})" if exception["until"] else ""
        parts.append(f"{'EXPIRED ' if exception['expired'] else ''}exception {exception['table']}{until}")
    return parts


def proof_lines(results: Sequence[Mapping[str, Any]], names: Sequence[str], host: str, replica: str) -> list[str]:
    """Return the line that a person wants of each target after a verification, and its problems below it.

    :param replica: what a server that cannot be probed is called, "standby" for example; empty for one that can.
    """
    lines = []
    for name, result in zip(names, results):
        where = heading(host, name)
        if result.get("failed"):
            lines.append(f"FAILED {where}{result['msg']}")
            continue
        problems = result["problems"]
        proven = [
            _proven(result, name, replica),
            *(["tampering refused"] if result["tampering_refused"] else []),
            *_sealed(result),
            counted(len(problems), "problem"),
        ]
        lines.append(("OK " if result["valid"] else "FAILED ") + where + ", ".join(proven))
        lines += [f"  {problem['type']}: {problem['detail']}" for problem in problems]
        lines += [f"  {result['seal_state']}"] if result.get("seal_state") else []
        lines += _unrecorded(result.get("catalog_changes", []))
    return lines


def _proven(result: Mapping[str, Any], name: str, replica: str) -> str:
    if replica:
        return f"{replica}, catalogue compared"
    if not result["recorded"]:
        return "not probed"
    # A whole server is probed by one table of its trail, a database by every policy.
    return counted(result["probes"], "policy", "policies") + " probed" if name else "probe recorded"


def _sealed(result: Mapping[str, Any]) -> list[str]:
    if "blocks_checked" not in result:
        return []
    return [f"{counted(result['blocks_checked'], 'seal')} and {counted(result['rows_checked'], 'row')} verified"]


def _unrecorded(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    if not changes:
        return []
    first = changes[0]
    return [
        f"  not in the log yet, because no event trigger sees it: {first['object_type']} {first['object']} "
        f"{first['change']} after {first['since']}" + (f", and {len(changes) - 1} more" if changes[1:] else "")
    ]


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number of things in words: 1 policy, 4,211 rows."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def removal_lines(wanted: Sequence[Mapping[str, Any]], host: str, dropped: bool, predicted: bool) -> list[str]:
    """Return the line that says of each target what became of its log when auditing was taken out."""
    removed = f"auditing {'would be ' if predicted else ''}removed, "
    return [
        heading(host, target["name"])
        + removed
        + ("the log dropped with all its rows" if dropped else f"the rows kept in {target['schema']}.audit_log")
        for target in wanted
    ]
