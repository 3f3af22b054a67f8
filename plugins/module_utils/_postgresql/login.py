# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the login may do on this server, and which guarantees it cannot give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core.errors import AuditError
from .roles import OWNER, WRITER
from .session import LOGIN_EVENTS_VERSION, Session

#: As an expression, so that it costs no round trip of its own. Until PostgreSQL 15, a member can always SET ROLE.
_LOGIN = """
  (SELECT jsonb_build_object(
     'name', l.rolname, 'superuser', l.rolsuper, 'creates_roles', l.rolcreaterole, 'inherits', l.rolinherit,
     'creates_schemas', has_database_privilege(current_database(), 'CREATE'),
     'roles', (SELECT jsonb_object_agg(r.rolname, jsonb_build_object(
                 'usable', pg_has_role(r.oid, 'USAGE') AND pg_has_role(
                   r.oid, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END),
                 'grantable', pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION')))
               FROM pg_roles AS r WHERE r.rolname IN ('audit_owner', 'audit_writer')),
     'pgaudit', EXISTS (SELECT FROM pg_settings WHERE name = 'pgaudit.log') OR {is_configured},
     'may_silence', {may_silence})
   FROM pg_roles AS l WHERE l.rolname = current_user)"""

#: Whether the writer may turn pgaudit off for itself: parameters have grants since PostgreSQL 15.
_MAY_SILENCE = """
  EXISTS (SELECT FROM pg_parameter_acl, aclexplode(paracl) AS a JOIN pg_roles AS r ON r.oid = a.grantee
          WHERE parname = 'pgaudit.log' AND rolname = 'audit_writer' AND privilege_type = 'SET')"""

#: Whether the server loads pgaudit from its next start on; its capture functions are then ready for it.
_IS_CONFIGURED = """
  EXISTS (SELECT FROM pg_show_all_file_settings() AS f
          WHERE lower(f.name) = 'shared_preload_libraries' AND f.setting ~ '\\mpgaudit\\M')"""

_NO_EVENT_TRIGGERS = (
    "no event triggers (the login is no superuser): that a table's owner drops, disables or replaces an audit trigger, "
    "or renames a masked column out of its mask, is repaired by the next rollout and found by verify, not refused",
    "no event triggers, so no `auto_attach`: a new table or child is audited from the next rollout on, or from "
    "audit.add_table(); a table attached as a partition may be recorded twice until then",
    "no event triggers: a cast to json by the owner of an audited type runs with the rights of audit_writer, which can "
    "add records that never happened and read the key of hashed columns; so can, adding records, owners of "
    "partitioned tables, who hold EXECUTE on capture functions; verify finds the cast",
)

_NO_LOGIN_EVENTS = (
    "logins are not in the audit log: PostgreSQL fires event triggers for them from version 17 on; the server's own "
    "log has them (log_connections, which the role pgaudit turns on)"
)

_UNRECORDED_EVENTS = (
    "no event triggers (the login is no superuser), so that these events are not in the audit log, only, where pgaudit "
    "is configured, in the server's"
)

_FOREIGN_EVENT_TRIGGERS = (
    "the event triggers are a superuser's: they stay as they are, and refuse this login's changes of audit triggers too"
)


@dataclass(frozen=True)
class Login:
    """The role that we are logged in as; `roles` says of audit_owner and audit_writer what it may do with them."""

    name: str
    superuser: bool
    creates_roles: bool
    inherits: bool
    creates_schemas: bool
    roles: Mapping[str, Mapping[str, bool]]
    pgaudit: bool
    may_silence: bool
    version_number: int

    @classmethod
    def read(cls, row: Mapping[str, Any], session: Session) -> Login:
        """Return the login that :func:`login_query` found."""
        expected = {"roles": row["roles"] or {}, "pgaudit": row["pgaudit"] or session.expects_pgaudit}
        return cls(**{**row, **expected}, version_number=session.version_number)

    @property
    def grants_options(self) -> bool:
        """Whether a membership has options of its own, and CREATEROLE ends at the roles that it has made."""
        return self.version_number >= 160000

    @property
    def silences_pgaudit(self) -> bool:
        """Whether capture functions turn pgaudit off for their own INSERT."""
        return self.pgaudit and self.version_number >= 150000 and (self.superuser or self.may_silence)

    def acts_as(self, role: str) -> bool:
        """Tell whether it has the rights of a role and can make objects in its name."""
        return self.superuser or bool(self.roles.get(role) and self.roles[role]["usable"])

    def check(self, has_schema: bool) -> None:
        """Refuse a login that would get stuck half way, before anything is changed.

        :raises AuditError: with what an administrator has to grant.
        """
        if self.superuser:
            return
        for role in (OWNER, WRITER):
            if not self.acts_as(role):
                self._check_joining(role)
        if not (has_schema or self.creates_schemas):
            raise AuditError(
                f"the login {self.name!r} may not make a schema here: GRANT CREATE ON DATABASE ... TO {self.name}"
            )

    def may_drop(self, role: str) -> bool:
        """Tell whether it may drop a role that it has not necessarily made."""
        return self.superuser or (self.creates_roles and (self.roles[role]["grantable"] or not self.grants_options))

    def require(self) -> None:
        """Refuse a login that can neither read nor change the trail's objects.

        :raises AuditError: with what gives it the rights.
        """
        # A log that auditing was taken out of has no writer any more.
        if not (self.acts_as(OWNER) and (WRITER not in self.roles or self.acts_as(WRITER))):
            raise AuditError(
                f"the login {self.name!r} has no rights on the audit trail, which another login has made; log in as "
                f"that one or as a superuser, or let an administrator GRANT {OWNER}, {WRITER} TO {self.name}"
            )

    def _check_joining(self, role: str) -> None:
        current = self.roles.get(role)
        may_grant = current["grantable"] if current else self.creates_roles
        if not (may_grant or (self.creates_roles and not self.grants_options)):
            lacks = f"cannot make itself a member of {role}" if current else f"may not create the role {role}"
            raise AuditError(
                f"the login {self.name!r} is no superuser and {lacks}; log in as a superuser, or as the role that made "
                f"{OWNER}, or let an administrator make the trail's roles and GRANT {OWNER}, {WRITER} TO {self.name}, "
                "which gives it the audit logs of the whole cluster"
            )
        if not (self.inherits or self.grants_options):
            raise AuditError(
                f"the login {self.name!r} is NOINHERIT and could not use its membership in {role}: "
                f"ALTER ROLE {self.name} INHERIT"
            )


def login_query(session: Session) -> str:
    """Return the expression that tells what :meth:`Login.read` takes."""
    return _LOGIN.replace("{may_silence}", _MAY_SILENCE if session.version_number >= 150000 else "false").replace(
        "{is_configured}", _IS_CONFIGURED if session.superuser else "false"
    )


def limitations(login: Login, guarded: bool = False, events: Sequence[str] = ()) -> list[str]:
    """Return the guarantees that this login or server cannot give, in words.

    :param guarded: whether a superuser has made the event triggers.
    :param events: what the trail is to record besides the changes of rows.
    """
    lost = []
    if "login" in events and login.version_number < LOGIN_EVENTS_VERSION:
        lost.append(_NO_LOGIN_EVENTS)
    recorded = [event for event in events if event != "app"]
    if recorded and not (login.superuser or guarded):
        lost.append(f"{_UNRECORDED_EVENTS}: {', '.join(recorded)}")
    if not login.superuser:
        lost += [_FOREIGN_EVENT_TRIGGERS] if guarded else _NO_EVENT_TRIGGERS
        lost.append(_membership(login))
    if login.pgaudit and not login.silences_pgaudit:
        lost.append(
            "pgaudit is not silenced (a superuser can: GRANT SET ON PARAMETER pgaudit.log TO audit_writer, from "
            "PostgreSQL 15): with its class `write` it logs every record a second time, masked values masked"
        )
    return lost


def _membership(login: Login) -> str:
    others = (
        "the role that made them keeps the right to come back to it"
        if login.grants_options
        else "until PostgreSQL 16, every role with CREATEROLE can do the same"
    )
    return (
        f"the login {login.name!r} must be a member of {OWNER} and {WRITER}: whoever has it, or is a member of it, can "
        "turn off the guards of every audit log of this cluster, add and change rows, read the key of hashed columns, "
        "and run code as the superuser who verifies or maintains another of these logs; give it to rollouts only "
        f"({others}). audit.add_table() runs with its rights"
    )
