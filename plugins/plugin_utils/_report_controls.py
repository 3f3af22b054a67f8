# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which controls of the profiles the checks show to be met, and by what. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _profiles
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import Result
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_settings import retention_check

#: Pieces of evidence that a control shows; a fleet has more.
_MOST = 20

#: What each host's checks have found, by host and check.
Found = Mapping[str, Mapping[str, Result]]


def controls(names: Sequence[str], found: Found, ages: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every control of the profiles.

    It is met when each of its checks is ok on every host, not met when one is red, and else not provable: an amber
    check or a host that did not answer leaves something open.

    :param ages: by host, what the role audit_archive was given, or None.
    """
    entries = []
    for name, profile in _profiles.load(names).items():
        kept = {host: retention_check(given, profile["retention"]) for host, given in ages.items()}
        own = {
            host: {**checks, "retention": kept[host]} if host in kept and "retention" in checks else checks
            for host, checks in found.items()
        }
        entries += [_control(name, control, own) for control in profile["controls"]]
    return entries


def _control(framework: str, control: Mapping[str, Any], found: Found) -> dict[str, Any]:
    wanted = control["checks"]
    results = [(host, check, checks.get(check)) for host, checks in found.items() for check in wanted]
    bad = [(host, result) for host, _check, result in results if result and result.level == "red"]
    open_ = [(host, check, result) for host, check, result in results if not result or result.level != "ok"]
    met = False if bad else None if open_ or not results else True
    if met:
        said = [_evidence(host, [checks[check] for check in wanted]) for host, checks in found.items()]
    elif bad:
        said = [{"host": host, "text": _text(result)} for host, result in bad]
    else:
        said = [_gap(host, check, result, found[host]) for host, check, result in open_]
        # A host that did not answer leaves every check open, and has one reason.
        said = [dict(pairs) for pairs in dict.fromkeys(tuple(piece.items()) for piece in said)]
    return {
        "framework": framework,
        **{key: control[key] for key in ("control", "title", "checks", "says", "covers", "leaves", "source")},
        "met": met,
        "evidence": _first(said),
    }


def _evidence(host: str, results: Sequence[Result]) -> dict[str, str]:
    return {"host": host, "text": "; ".join(_text(result) for result in results)}


def _gap(host: str, check: str, result: Result | None, checks: Mapping[str, Result]) -> dict[str, str]:
    result = result or checks.get("reachable")
    return {"host": host, "text": _text(result) if result else f"{check}: not known"}


def _text(result: Result) -> str:
    where = f" ({result.database})" if result.database else ""
    return f"{result.check}{where}: {result.text}"


def _first(said: list[dict[str, str]]) -> list[dict[str, str]]:
    more = len(said) - _MOST
    return [*said[:_MOST], {"host": "", "text": f"and {more:,} more"}] if more > 0 else said
