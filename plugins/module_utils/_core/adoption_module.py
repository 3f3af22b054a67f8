# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the trail modules of all engines do about auditing that is not ours: tell of it, or import its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .adoption import ForeignLog, notes
from .adoption_import import NoPolicyError
from .module import AuditModule
from .plan import Plan


def adopt(
    module: AuditModule,
    session: Any,
    read: Callable[[], Sequence[ForeignLog]],
    plan: Callable[[Sequence[ForeignLog]], Plan],
    installed: bool,
) -> None:
    """Report the logs that triggers of somebody else's write, and import their rows where that was asked for.

    :param plan: what copies the rows that are not in the trail yet.
    :param installed: whether there is a trail; in check mode of a first rollout there is none to look into.
    :raises AuditError: when rows cannot be imported.
    """
    logs = read()
    module.results["foreign_auditing"] = [log.facts() for log in logs]
    for title in sorted(set(module.params["adopt_columns"]) - {log.title for log in logs}):
        # The same variable may be meant for several databases.
        module.warn(f"{session.database}: adopt_columns: no trigger of somebody else's writes to {title!r} here")
    wanted = module.params["adopt"]
    if wanted == "report":
        for note in notes(logs, session.database):
            module.warn(note)
    elif wanted == "import" and installed:
        for log in logs:
            if log.obstacle:
                module.warn(f"{session.database}: {log.title} is not imported: {log.obstacle}")
        try:
            module.reconcile(session, lambda _session: plan(read()))
        except NoPolicyError as error:
            # In check mode of a first rollout, the policies are only predicted.
            if not module.check_mode:
                raise
            module.warn(str(error))
