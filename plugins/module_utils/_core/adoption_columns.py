# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the columns of a home-made audit log hold, by the names that guides and tools give them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from .errors import AuditError

#: By what a column holds, its usual names in lower case without underscores, the best first. The guides' own, then
#: those of 2ndQuadrant's audit trigger, supa_audit and table_log.
_NAMES = {
    "id": "id auditid logid eventid changeid historyid triggerid",
    "changed_at": (
        "changedat actiontstampclk actiontstamptx actiontstamp actiontimestamp performedat occurredat recordedat "
        "loggedat createdat executedat modifiedat operationtime operationtimestamp operationdate changetime "
        "changetimestamp changedate changedon dmltimestamp audittimestamp auditdate auditts eventtime eventtimestamp "
        "eventtimeutc triggerchanged timestamp timestamp datetime tstamp stamp ts"
    ),
    "action": "action operation op actiontype operationtype changetype dmltype eventtype tgop triggermode",
    "schema_name": "schemaname tableschema tgtableschema",
    "table_name": "tablename relationname relname tgtablename tabname entityname entitytype objecttype",
    "record_id": "recordid rowid rowpk recordpk primarykey primarykeyvalue pk entityid objectid",
    "old_values": "olddata oldvalues oldrow oldrecord oldrowdata oldvalue oldval oldjson beforevalue beforedata before",
    "new_values": (
        "newdata newvalues newrow newrecord newrowdata newvalue newval newjson aftervalue afterdata after record"
    ),
    # What 2ndQuadrant's has: the row before an UPDATE or DELETE and after an INSERT, and what an UPDATE has changed.
    "row_values": "rowdata",
    "changed_values": "changedfields",
    "changed_by": (
        "changedby performedby modifiedby username userid appuser actor actorid useremail authuid dmlcreatedby "
        "sessionusername dbuser currentuser triggeruser user"
    ),
    "db_user": "dbuser sessionusername sessionuser databaseuser dbusername",
    "client_ip": "clientip clientaddr clientaddress ipaddress remoteaddr remoteip ip",
    "application_name": "applicationname appname",
}
_NAMES = {role: names.replace("_", "").split() for role, names in _NAMES.items()}

ROLES = tuple(_NAMES)

#: What a log has to say of a change for its rows to be history.
_REQUIRED = {"id": "a number that ascends", "changed_at": "the time of a change", "action": "what was done"}
#: Kinds of columns that hold values by the names of columns.
DOCUMENTS = ("json", "jsonb", "hstore")
_IMAGES = ("old_values", "new_values", "row_values")


def map_columns(
    columns: Mapping[str, str],
    given: Mapping[str, str],
    where: str,
    unordered: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Return the column for each of :data:`ROLES` that a log has one for.

    :param columns: kind by name, and `unordered`, as :func:`obstacle` takes them.
    :param given: what the user says; an empty name keeps a column that would be found from being taken.
    :raises AuditError: for a role that there is not, or a column that the log does not have.
    """
    found: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(re.sub(r"[^a-z0-9]", "", column.lower()), column)
    for role, names in _NAMES.items():
        if role in given:
            found.update(_given(columns, role, given[role], where))
            continue
        candidates = [by_name[name] for name in names if name in by_name]
        if role == "id":
            # What is called id may be that of the patient.
            candidates.sort(key=lambda name: columns[name] != "number" or name in unordered)
        if candidates:
            found[role] = candidates[0]
    for role in given:
        if role not in ROLES:
            raise AuditError(f"adopt_columns: {where}: {role!r} is none of {', '.join(ROLES)}")
    # A list of names has the same name in the guides' logs.
    if "row_values" not in found or columns[found.get("changed_values", found["row_values"])] not in DOCUMENTS:
        found.pop("changed_values", None)
    return found


def _given(columns: Mapping[str, str], role: str, column: str, where: str) -> dict[str, str]:
    if column and column not in columns:
        raise AuditError(f"adopt_columns: {where}: {role} is said to be in {column!r}; it has {', '.join(columns)}")
    return {role: column} if column else {}


def is_log(name: str, mapping: Mapping[str, str]) -> bool:
    """Tell whether a table that triggers write to holds a history: by what it has, or by its name."""
    by_name = re.search(r"audit|history|change_?log|changelog|journal|logged_actions|_log(s)?$", name.lower())
    return {"action", "changed_at"} <= set(mapping) or bool(by_name)


def repeats(columns: Mapping[str, str], mapping: Mapping[str, str]) -> bool:
    """Tell whether a log holds what other tables hold or held: what a patient's history or a bank's journal does not.

    :param columns: kind by name, as :func:`obstacle` takes it.
    """
    images = [mapping[role] for role in ("old_values", "row_values") if role in mapping]
    after = mapping.get("new_values", "")
    # A document that is called `record` may be what an application lives on.
    if "table_name" in mapping or after.lower().startswith(("new", "after")):
        images.append(after)
    return {"action", "changed_at"} <= set(mapping) and any(columns.get(image) in DOCUMENTS for image in images)


def disorder(numbers: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return why whole numbers do not ascend from row to row for certain, by their columns; see :func:`obstacle`.

    :param numbers: of each its column, and whether it is `nullable`, `unique` by itself, `counted` by the server, and
        the sequence that does so out of order, if any (`unsteady`).
    """
    found = {}
    for column, number in numbers:
        if number["nullable"]:
            found[column] = "may be NULL"
        elif number["unsteady"]:
            found[column] = f"is numbered by {number['unsteady']} with another CACHE or INCREMENT than 1"
        elif not (number["counted"] or number["unique"]):
            found[column] = "is neither numbered by the server nor unique"
    return found


def obstacle(
    columns: Mapping[str, str],
    mapping: Mapping[str, str],
    tables: int,
    unordered: Mapping[str, str] = MappingProxyType({}),
) -> str | None:
    """Return why the rows of a log cannot be imported, or None.

    :param columns: what each column is: `number`, `time` (of one zone), `zoned` (a moment), one of
        :data:`DOCUMENTS`, `binary`, or `other`.
    :param tables: how many tables are known to be recorded in it.
    :param unordered: of each whole number that does not ascend from row to row for certain, why not.
    """
    missing = [f"{role} ({what})" for role, what in _REQUIRED.items() if role not in mapping]
    images = [mapping[role] for role in _IMAGES if role in mapping]
    if not images:
        missing.append("old_values or new_values (the row as JSON)")
    if missing:
        return f"no column is known to be {', '.join(missing)}; name them in adopt_columns"
    if columns[mapping["id"]] != "number":
        return f"column {mapping['id']} is no whole number, by which rows that are new could be told"
    if mapping["id"] in unordered:
        return (
            f"column {mapping['id']} {unordered[mapping['id']]}, so that rows that are new could not be told by it; "
            "change that, or name the column that numbers the rows as `id` in adopt_columns"
        )
    if columns[mapping["changed_at"]] not in ("time", "zoned"):
        return f"column {mapping['changed_at']} is no date and time"
    for column in images:
        if columns[column] not in DOCUMENTS:
            return f"column {column} is no JSON, so that what a policy redacts could not be found in it"
    if "table_name" not in mapping and tables != 1:
        return f"it does not say which table was changed, and {tables} are recorded in it"
    return None
