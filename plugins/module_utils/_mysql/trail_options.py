# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the user asked of the trail, and whether this server can have it: refused before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .._core.adoption import elsewhere
from .._core.errors import AuditError
from .._core.schema_version import refuse_newer
from .accounts import ACCOUNTS, Account
from .session import Session
from .trail_catalog import TrailCatalog, roles_of
from .trail_tables import LOG, MARK, SEQUENCE

#: Who may name somebody else as the definer of a trigger.
_DEFINER_PRIVILEGES = {"mariadb": ("SET USER", "SUPER"), "mysql": ("SET_ANY_DEFINER", "SET_USER_ID", "SUPER")}

#: Accounts that servers and distributions make for themselves and for whoever runs the server.
_ADMINISTRATORS = ("root", "mysql", "mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "debian-sys-maint")


#: With one of these in every database, the log can be changed or its guards dropped.
_CHANGING = ("INSERT", "UPDATE", "DELETE", "DROP", "ALTER", "TRIGGER")

#: What the server shows to no trigger, and the events of server_audit that have it.
_PLUGIN_EVENTS = {"ddl": "QUERY_DDL and QUERY_DCL", "login": "CONNECT"}


@dataclass(frozen=True)
class TrailOptions:
    """What the user asked for; field names are the module's options."""

    schema: str
    readers: tuple[Account, ...]
    applications: tuple[Account, ...]
    indexes: tuple[str, ...]
    events: tuple[str, ...] = ("app",)
    allow_downgrade: bool = False


def check(options: TrailOptions, catalog: TrailCatalog, session: Session) -> None:
    """Refuse what is not ours and what is not there, before anything is changed."""
    _refuse_events(options.events, session)
    _refuse_foreign(catalog)
    if not options.allow_downgrade:
        refuse_newer(f"{session.database}: the trail in database {catalog.schema!r}", catalog.schema_version)
    check_login(catalog, session)
    for account in (*options.readers, *options.applications):
        if account.grantee not in catalog.accounts:
            raise AuditError(
                f"account {account.grantee} does not exist; create it, or take it out of `readers`/`applications`"
            )
    for account in options.readers:
        if account in options.applications:
            raise AuditError(
                f"account {account.grantee} is in both `readers` and `applications`; applications must not read the log"
            )


def _refuse_events(events: Sequence[str], session: Session) -> None:
    for event in events:
        if event in _PLUGIN_EVENTS:
            way = (
                "the role mysql_audit_plugin"
                if session.is_mariadb
                else "the audit plugin of MySQL Enterprise or Percona"
            )
            raise AuditError(
                f"{session.database}: events: the server tells no trigger of {event!r}; take it out of `events`: "
                f"{way} records it in the server's own log ({_PLUGIN_EVENTS[event]})"
            )


def check_login(catalog: TrailCatalog, session: Session) -> None:
    """Refuse a server on which records could be backdated, and a login that would fail half way.

    :raises AuditError: with the way out.
    """
    if not session.clock_runs:
        raise AuditError(
            f"{session.database}: the server runs with --sysdate-is-now, with which any user can backdate its records "
            "by SET timestamp; take the option out of the server's configuration and restart it"
        )
    if session.on("log_bin") and session.variables.get("binlog_format") == "STATEMENT":
        raise AuditError(
            f"{session.database}: the server logs statements (binlog_format = STATEMENT), so that replicas would "
            "record changes as their own and MariaDB would refuse every audited change (1665); set binlog_format = ROW "
            "or MIXED in its configuration"
        )
    held = _held(catalog, session)
    wanted = _DEFINER_PRIVILEGES[session.vendor]
    if not held.intersection(wanted):
        raise AuditError(
            f"{session.database}: the login {session.account} may not make triggers that run as somebody else; give it "
            f"{wanted[0]} (GRANT {wanted[0]} ON *.* TO ...)"
        )
    guarded = session.on("log_bin") and not session.on("log_bin_trust_function_creators")
    if guarded and "SUPER" not in held:
        raise AuditError(
            f"{session.database}: the binary log is on, and the login {session.account} has no SUPER, so that the "
            "server refuses its triggers (1419); SET GLOBAL log_bin_trust_function_creators = 1 and keep it in the "
            "configuration, or in the parameter group of a managed service"
        )


def _held(catalog: TrailCatalog, session: Session) -> set[str]:
    """Return the privileges that the login has in every database."""
    held: set[str] = set()
    for grantee in roles_of(session):
        held.update((catalog.accounts.get(grantee, {}).get("privileges") or "").split(","))
    return held


def limitations(catalog: TrailCatalog, session: Session) -> list[str]:
    """Return the guarantees that this server cannot give, in words."""
    lost = []
    powerful = sorted(
        grantee
        for grantee, row in catalog.accounts.items()
        if row["powerful"]
        and _user(grantee) not in _ADMINISTRATORS
        and grantee != Account.parse(session.account).grantee
    )
    by_pattern = {
        grant.grantee
        for grant in catalog.grants
        if grant.name is None and grant.is_pattern and not _is_ours(grant.grantee)
    }
    powerful += sorted(by_pattern.difference(powerful))
    if powerful:
        lost.append(f"accounts whose rights reach every database may change the log as well: {', '.join(powerful)}")
    held = _held(catalog, session)
    if "SUPER" not in held and held.intersection(_CHANGING):
        lost.append(
            f"the login {session.account}, no superuser, has rights on every database: whoever has it can drop "
            "the guards of the log, and add and change rows; give it to rollouts only"
        )
    return lost


def _user(grantee: str) -> str:
    return Account.parse(grantee).user


def _is_ours(grantee: str) -> bool:
    return any(account.grantee == grantee for account in ACCOUNTS)


def _refuse_foreign(catalog: TrailCatalog) -> None:
    if not catalog.installed:
        for account, locked in catalog.locked.items():
            if not locked:
                raise AuditError(
                    f"an account {account.grantee} exists that dbfleet.audit did not make; rename it, or hand it over: "
                    f"ALTER USER {account.grantee} ACCOUNT LOCK"
                )
        foreign = sorted(set(catalog.tables) - {SEQUENCE})
        if foreign:
            raise AuditError(
                f"database {catalog.schema!r} exists (holds {', '.join(foreign[:5])}) and is not ours; it stays as it "
                f"is. {elsewhere('mysql_audit')}"
            )
        return
    # Before 0.1.0 a number followed.
    if not re.fullmatch(rf"{re.escape(MARK)}( \d+)?", catalog.tables[LOG]["comment"] or ""):
        raise AuditError(
            f"database {catalog.schema!r} has a table {LOG} that dbfleet.audit did not make; choose another database "
            "with `schema`, or move it away"
        )
