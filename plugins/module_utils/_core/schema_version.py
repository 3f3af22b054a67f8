# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version of what a trail consists of, which the trail carries as a function, and what is newer than this code."""

from __future__ import annotations

import re
from typing import Any

from .errors import AuditError

#: Raised by the first change after a release of anything that the collection puts into a database; 0 is a trail from
#: before it had one.
SCHEMA_VERSION = 2

#: What the function is called. Its text is read with the text of all others, so that asking costs no query.
FUNCTION = "schema_version"

DOWNGRADE_SPEC: dict[str, Any] = {"allow_downgrade": {"type": "bool", "default": False}}


def version_in(source: str | None) -> int:
    """Return the version that the function's text names; 0 without one."""
    match = re.search(r"\d+", source or "")
    return int(match[0]) if match else 0


def refuse_newer(place: str, version: int) -> None:
    """Refuse to put what this release knows in the place of what a newer one has made.

    :param place: what the message calls the trail.
    :raises AuditError: with both ways out.
    """
    if version > SCHEMA_VERSION:
        raise AuditError(
            f"{place} was made by a newer dbfleet.audit (schema version {version}, this release knows "
            f"{SCHEMA_VERSION}); update the collection, or go back to this release on purpose with "
            "`allow_downgrade: true` of the trail's module or role"
        )
