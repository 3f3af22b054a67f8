# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clock of a server's log: local times and zone abbreviations become UTC."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .._core.errors import AuditError

_OFFSET = re.compile(r"([+-])(\d{1,2})(?::?([0-5]\d))?")
_UTC_NAMES = ("UTC", "GMT", "UCT", "Z", "Zulu", "Universal")
_EPOCH = re.compile(r"\d+\.\d{3}")

#: Minutes whose UTC is remembered: a log goes through them one after the other.
_REMEMBERED = 1000


class Clock:
    """Turns a log's times into UTC.

    :param zone: an IANA name, an offset such as +02:00, or None for the zone of this host.
    :raises AuditError: for a zone that there is not.
    """

    def __init__(self, zone: str | None = None) -> None:
        self._name = zone
        self._fixed = False
        self._zone = self._read(zone) if zone else None
        self._minutes: dict[tuple[str, str], str] = {}

    def utc(self, text: str) -> str:
        """Return ``2026-11-21 20:14:24.753 CET`` as ``2026-11-21T19:14:24.753000Z``; without a zone it is the server's.

        :raises ValueError: for what is no time.
        :raises AuditError: for an abbreviation that the zone does not use.
        """
        if _EPOCH.fullmatch(text):
            moment = datetime.fromtimestamp(int(text[:-4]), timezone.utc)
            return f"{moment:%Y-%m-%dT%H:%M:%S}.{text[-3:]}000Z"
        stamp, _separator, abbreviation = text[:19], text[19:20], text[19:].partition(" ")[2]
        minute, seconds = stamp[:16], text[16:].partition(" ")[0]
        known = self._minutes.get((minute, abbreviation))
        if known is None:
            known = self._remember(minute, abbreviation)
        whole, _dot, fraction = seconds.partition(".")
        return f"{known}{whole}.{fraction:0<6}Z"

    def _remember(self, minute: str, abbreviation: str) -> str:
        if len(self._minutes) >= _REMEMBERED:
            self._minutes.clear()
        utc = self._aware(datetime.fromisoformat(minute), abbreviation).astimezone(timezone.utc)
        return self._minutes.setdefault((minute, abbreviation), f"{utc:%Y-%m-%dT%H:%M}")

    def _aware(self, moment: datetime, abbreviation: str) -> datetime:
        offset = timezone.utc if abbreviation in _UTC_NAMES else _offset(abbreviation)
        if offset:
            return moment.replace(tzinfo=offset)
        # The hour that a clock goes through twice has two abbreviations.
        twice = [self._local(moment.replace(fold=fold)) for fold in (0, 1)]
        if not abbreviation or self._fixed:
            return twice[0]
        for aware in twice:
            if aware.tzname() == abbreviation:
                return aware
        place = f"time_zone is {self._name}, which" if self._name else "this host's zone"
        raise AuditError(
            f"the log's times are in {abbreviation}, and {place} has {twice[0].tzname()} at {moment}; set time_zone to "
            "the server's own (SHOW log_timezone), for example Europe/Berlin, or to an offset such as +02:00"
        )

    def _local(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=self._zone) if self._zone else moment.astimezone()

    def _read(self, name: str) -> tzinfo:
        offset = timezone.utc if name in _UTC_NAMES else _offset(name)
        if offset:
            self._fixed = name not in _UTC_NAMES
            return offset
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise AuditError(
                f"time_zone: this host knows no zone {name!r}; give an IANA name such as Europe/Berlin (from the "
                "package tzdata), or an offset such as +02:00"
            ) from None


def _offset(text: str) -> timezone | None:
    match = _OFFSET.fullmatch(text)
    if not match:
        return None
    sign, hours, minutes = match.groups()
    distance = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return timezone(-distance if sign == "-" else distance)
