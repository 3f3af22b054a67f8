# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Up to which id everything is sealed for good: who could still add a row with a lower one has ended.

A row takes its id before its transaction ends, so that rows come into sight in another order. Ids are handed out in
order: whoever has one below the highest that can be seen has asked for it by now, and 100 ms later it is among the
transactions that have written. Once all of these have ended, no row can come in below.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Protocol

from .._core.errors import AuditError
from .._core.sql import Literal, sql
from .._core.watermark import remaining
from .seal_queries import BEGIN, SERVER, TRANSACTIONS
from .session import Session, pymysql

#: Seconds that InnoDB goes by what it has noted of transactions.
NOTED = 0.1

#: How often to ask for the transactions while somebody else does so, too.
_TRIES = 20

_NO_PROCESS = 1227


class Positioned(Protocol):
    """A store, as far as this module needs it."""

    session: Session

    def position(self) -> dict[str, Any]:
        """Return `watermark`, `marked_at`, `marks`, `last_id` and `now`."""


def begin(store: Positioned) -> dict[str, Any]:
    """Return the cursor of a run, with the mark that the watermark may move up to once all before it is sealed."""
    state = store.position()
    # A prepared transaction has another number on a server that replicated it: what marks name means nothing there.
    here = server(store.session)
    marks, known = [mark for mark in state["marks"] if mark.get("server") == here], state["marks"]
    cursor = {
        "after": state["watermark"],
        "until": state["last_id"],
        "began": state["watermark"],
        "marked_at": state["marked_at"],
        "reached": None,
        "marks": marks,
        "known": known,
    }
    new = state["last_id"] > max((mark["id"] for mark in marks), default=state["watermark"])
    if not (new or marks):
        return cursor
    if new:
        time.sleep(NOTED)
    held = writers(store.session)
    if new:
        marks.append({"id": state["last_id"], "at": state["now"], "holders": held, "server": here})
        if held:
            time.sleep(NOTED)
            held = writers(store.session)
    free = [mark for mark in marks if not set(held).intersection(mark["holders"])]
    reached = max(free, key=lambda mark: mark["id"], default=None)
    cursor["reached"] = reached
    cursor["marks"] = remaining(marks, reached)
    return cursor


def server(session: Session) -> str:
    """Return what tells this server from others."""
    return " ".join(sorted(row["Value"] for row in session.all(SERVER)))


def writers(session: Session) -> list[int]:
    """Return the numbers of the transactions that have written and not ended; prepared ones (XA) are among them.

    :raises AuditError: when the login may not see them, or the server shows none that are of now.
    """
    for _try in range(_TRIES):
        rows = _look(session)
        if any(row["own"] for row in rows):
            return sorted(int(row["id"]) for row in rows if not row["own"])
        # Whoever asks again sooner is shown the same again, and so is everybody else.
        time.sleep(NOTED * 1.1)
    raise AuditError(
        f"{session.database}: somebody reads information_schema.innodb_trx more often than every {NOTED} s, for which "
        "the server does not renew it; slow that monitoring down"
    )


def _look(session: Session) -> list[dict[str, Any]]:
    token = Literal(f"%{uuid.uuid4().hex}%")
    session.execute(BEGIN)
    try:
        return session.all(sql(TRANSACTIONS, token=token).render(session))
    except pymysql.MySQLError as error:
        if error.args[:1] == (_NO_PROCESS,):
            raise AuditError(
                f"{session.database}: the login {session.account} may not see other transactions, without which nobody "
                f"knows whether rows are still to come; GRANT PROCESS ON *.* TO it"
            ) from None
        raise
    finally:
        session.execute("ROLLBACK")
