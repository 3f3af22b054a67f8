# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person has to know of a publication and its slot: problems now, and limits that stay. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.cdc import NO_CONTEXT, Problem
from .cdc import CdcCatalog, CdcOptions
from .cdc_settings import LIMIT, ServerCatalog
from .cdc_tables import Choice, tree

_LOST = (
    "the server has thrown away WAL that the consumer had not read ({limit}): what changed since {position} is not in "
    "the stream; drop the slot and make a new one, and look for the changes of the gap in a backup"
)
_UNRESERVED = (
    "the slot keeps more WAL than it may ({limit}); with the next checkpoint the server throws it away, and the slot "
    "is lost"
)


def problems(slot: Mapping[str, Any] | None, name: str, max_lag: int, server: ServerCatalog) -> list[Problem]:
    """Return what is wrong with a slot.

    :param slot: its row of pg_replication_slots with lag_bytes, or None where there is none.
    :param max_lag: bytes of WAL that the consumer may be behind.
    """
    if slot is None and server.decodes and server.has_room:
        return [Problem("missing", f"slot {name}: it is not there, and changes are in no stream")]
    if slot is None:
        waits = server.waits_for or "max_replication_slots"
        detail = f"the slot is not made yet: {waits} waits for a restart of the server; run this again after it"
        return [Problem("restart", detail)]
    limit = server.settings[LIMIT].value
    place = {"limit": f"{LIMIT} = {limit} MB", "position": slot["confirmed_flush_lsn"]}
    if slot["wal_status"] == "lost":
        return [Problem("lost", f"slot {name}: {_LOST.format(**place)}")]
    found = []
    if slot["wal_status"] == "unreserved":
        found.append(Problem("unreserved", f"slot {name}: {_UNRESERVED.format(**place)}"))
    if not slot["active"]:
        found.append(Problem("inactive", f"slot {name}: no consumer is connected"))
    if (slot["lag_bytes"] or 0) > max_lag:
        detail = f"slot {name}: the consumer is {slot['lag_bytes']} bytes of WAL behind, and may be {max_lag}"
        found.append(Problem("lag", detail))
    if not server.limited:
        found.append(Problem("unlimited", f"{LIMIT} is -1: a consumer that does not come back fills the disk"))
    return found


def limitations(options: CdcOptions, catalog: CdcCatalog, choice: Choice, emits: bool) -> list[str]:
    """Return what consumers of these tables do not get."""
    lost = []
    if not emits:
        lost.append(f"{NO_CONTEXT}; emit_context makes a function that says it")
    if options.slot and options.plugin == "wal2json":
        lost.append(
            "wal2json knows no publications: a consumer gets every table, unless it asks for some by `add-tables`"
        )
    if options.replica_identity == "keep":
        lost.append("replica_identity is `keep`: of an UPDATE or DELETE only the key's old values are in the stream")
    keyless = [key for key in choice.tables if not any(catalog.tables[part].key for part in tree(key, catalog.tables))]
    if keyless:
        told = ", ".join(".".join(key) for key in keyless)
        lost.append(f"no key, so that events have no record_id: {told}")
    return lost
