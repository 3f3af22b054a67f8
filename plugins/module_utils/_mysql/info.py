# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read-only facts about a server, for roles and for people."""

from __future__ import annotations

from . import trail_catalog
from .module import MysqlModule
from .session import Session
from .trail_options import limitations


def gather(module: MysqlModule, session: Session) -> None:
    """Put the facts into the module's results."""
    trail = trail_catalog.read(session, module.params["schema"])
    module.results.update(
        version={
            "full": session.version,
            "major": ".".join(str(part) for part in session.version_number[:2]),
            "vendor": session.vendor,
        },
        read_only=session.read_only,
        event_scheduler=session.on("event_scheduler"),
        installed=trail.installed,
        limitations=limitations(trail, session),
    )
