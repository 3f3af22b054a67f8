# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a compliance framework asks of the roles and of the report: profiles/*.yml, and the stricter of several.

A profile has `title`, `retention` (the least age of archives, or None), `defaults` (values by the names of roles'
variables) and `controls` (each with `control`, `title`, `source`, `says`, `covers`, `leaves` and `checks`).
"""

from __future__ import annotations

import functools
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Age

PROFILES = ("gdpr", "hipaa", "iso27001", "pci_dss", "soc2", "sox")

#: Thresholds that say how much there has to be; of the others, how much there may be.
AT_LEAST = ("coverage", "partitions_ahead", "user_context")

_EVERY = re.compile(r"/(\d+)")


def load(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the profiles of these names.

    :raises AuditError: naming those that there are none of.
    """
    for name in names:
        if name not in PROFILES:
            raise AuditError(f"audit_profiles: there is no {name}; choose from {', '.join(PROFILES)}")
    return {name: _load(name) for name in names}


@functools.cache
def _load(name: str) -> dict[str, Any]:
    # By this module's name and not its package's: a folder of a collection need not be a package with a loader.
    text = pkgutil.get_data(__name__, f"profiles/{name}.yml")
    if text is None:
        raise AuditError(f"the file of the profile {name} is missing from the collection; install it again")
    return yaml.safe_load(text)


def default(given: Any, names: Sequence[str], variable: str) -> Any:
    """Return the default of a role's variable under these profiles: the strictest of all, and of the role's own.

    :param given: the role's own default.
    """
    found = [profile["defaults"] for profile in load(names).values()]
    return functools.reduce(_RULES[variable], [values[variable] for values in found if variable in values], given)


def least_retention(names: Sequence[str]) -> str | None:
    """Return the least age that archives must reach under all of these profiles; None when none names any."""
    ages = [profile["retention"] for profile in load(names).values() if profile["retention"]]
    return functools.reduce(_longest, ages) if ages else None


def _union(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys([*one, *other]))


def _longest(one: str, other: str) -> str:
    return other if Age.parse(one, "age") < Age.parse(other, "age") else one


def _retention(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ages by category: one log is kept for all frameworks, so that each category gets the longest of all."""
    ages = {**one, **other}
    return dict.fromkeys(ages, functools.reduce(_longest, ages.values())) if ages else {}


def _restart(one: str, other: str) -> str:
    return "never" if "never" in (one, other) else one


def _settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings of a plugin: classes and events are added up, and what only one has is taken over."""
    shared = {key: _union(one[key], other[key]) for key in one if isinstance(other.get(key), list)}
    return {**other, **one, **shared}


def _more_often(one: str, other: str) -> str:
    return min(one, other, key=_minutes)


def _minutes(schedule: str) -> int:
    found = _EVERY.search(schedule)
    return int(found[1]) if found else 60


def _thresholds(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    both = {name: (max if name in AT_LEAST else min)(one[name], other[name]) for name in one if name in other}
    return {**one, **other, **both}


#: How the stricter of two values is found, by variable.
_RULES: dict[str, Callable[[Any, Any], Any]] = {
    "audit_archive_older_than": _longest,
    "audit_archive_retention": _retention,
    "audit_controller_seal_calendar": _more_often,
    "audit_controller_seal_cron": _more_often,
    "audit_report_thresholds": _thresholds,
    "audit_seal_max_unsealed_hours": min,
    "mysql_audit_events": _union,
    "mysql_audit_plugin_restart": _restart,
    "mysql_audit_plugin_settings": _settings,
    "pgaudit_restart": _restart,
    "pgaudit_settings": _settings,
    "postgresql_audit_events": _union,
}
