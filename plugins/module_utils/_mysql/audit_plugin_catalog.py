# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a server has of the plugin, what it could have instead, and what the login may do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .._core.plan import Plan
from .audit_plugin import KNOWN, PERMANENT, PLUGIN, PREFIX, UNREGISTER, PluginState, Variable
from .session import Session
from .trail_catalog import roles_of

_SERVER = """
SHOW GLOBAL VARIABLES WHERE variable_name IN ('version_comment', 'hostname', 'pid_file', 'datadir', 'basedir',
  'plugin_dir', 'socket')
"""

# ALL_PLUGINS has what lies in plugin_dir as well, loaded or not.
_PLUGIN = """
SELECT p.plugin_status AS status, p.load_option AS load_option, p.plugin_library AS library
FROM information_schema.all_plugins AS p
WHERE p.plugin_name = 'SERVER_AUDIT'
ORDER BY p.plugin_status = 'ACTIVE' DESC, p.plugin_library = 'server_audit.so' DESC
"""

_VARIABLES = """
SELECT v.variable_name AS name, v.variable_type AS kind, v.global_value AS value, v.default_value AS default_value,
       v.enum_value_list AS choices, v.numeric_min_value AS minimum, v.numeric_max_value AS maximum
FROM information_schema.system_variables AS v
WHERE v.variable_name LIKE 'SERVER\\_AUDIT\\_%'
"""

_STATUS = r"SHOW GLOBAL STATUS WHERE variable_name LIKE 'server\_audit\_%'"

_REGISTERED = "SELECT COUNT(*) AS number FROM mysql.plugin AS p WHERE p.name = 'SERVER_AUDIT'"

_RIGHTS = """
SELECT u.privilege_type AS name FROM information_schema.user_privileges AS u WHERE u.grantee IN ({grantees})
UNION
SELECT s.privilege_type FROM information_schema.schema_privileges AS s
WHERE s.grantee IN ({grantees}) AND s.table_schema = 'mysql'
UNION
SELECT t.privilege_type FROM information_schema.table_privileges AS t
WHERE t.grantee IN ({grantees}) AND t.table_schema = 'mysql' AND t.table_name = 'plugin'
"""

_ACCOUNTS = "SELECT DISTINCT u.user AS name FROM mysql.user AS u"


def server_facts(session: Session) -> dict[str, str]:
    """Return where the server's files are and what it calls itself."""
    return {row["Variable_name"].lower(): row["Value"] or "" for row in session.all(_SERVER)}


def read(session: Session) -> PluginState:
    """Read what a MariaDB server has of the plugin."""
    plugins = session.all(_PLUGIN)
    if not plugins:
        return PluginState()
    plugin = plugins[0]
    library = (plugin["library"] or PLUGIN).rpartition(".")[0] or PLUGIN
    if plugin["status"] != "ACTIVE":
        return PluginState(library=library)
    rows = {row["name"].lower()[len(PREFIX) :]: row for row in session.all(_VARIABLES)}
    return PluginState(
        library=library,
        loaded=True,
        load_option=plugin["load_option"],
        # Who may not look may not change it either; the difference is of no use but to take the plugin out.
        registered=plugin["load_option"] == PERMANENT
        and "SELECT" in rights(session)
        and bool(session.one(_REGISTERED)["number"]),
        variables={name: _variable(name, row) for name, row in rows.items()} or KNOWN,
        current={name: row["value"] or "" for name, row in rows.items()},
        status={row["Variable_name"].lower()[len(PREFIX) :]: row["Value"] for row in session.all(_STATUS)},
    )


def _variable(name: str, row: dict[str, str | None]) -> Variable:
    return Variable(
        name,
        row["kind"] or "",
        row["default_value"] or "",
        tuple(filter(None, (row["choices"] or "").split(","))),
        int(row["minimum"] or 0),
        int(row["maximum"] or 0),
    )


def rights(session: Session) -> set[str]:
    """Return the privileges that the login has everywhere, or on mysql.plugin."""
    grantees = ", ".join(session.literal(name) for name in roles_of(session))
    return {row["name"] for row in session.all(_RIGHTS.replace("{grantees}", grantees))}


def missing_rights(session: Session, plan: Plan) -> list[str]:
    """Return the privileges that a plan needs and the login has not, as GRANT wants them."""
    statements = plan.statements(session)
    if not statements:
        return []
    held = rights(session)
    loads = any(text.startswith("INSTALL ") for text in statements)
    unloads = any(text.startswith("UNINSTALL ") for text in statements)
    forgets = UNREGISTER in statements
    needed = {
        ("SUPER", "*.*"): any(text.startswith("SET ") for text in statements),
        ("INSERT", "mysql.plugin"): loads,
        ("DELETE", "mysql.plugin"): unloads or forgets,
        ("BINLOG ADMIN", "*.*"): forgets,
        ("READ_ONLY ADMIN", "*.*"): session.read_only and (loads or unloads or forgets),
    }
    missing = [pair for pair, wanted in needed.items() if wanted and not _holds(session, held, pair[0])]
    return [" ON ".join(pair) for pair in missing]


def _holds(session: Session, held: set[str], right: str) -> bool:
    # Until MariaDB 10.11 SUPER had these in it.
    return right in held or (right.endswith("ADMIN") and "SUPER" in held and session.version_number < (10, 11))


def unknown_accounts(session: Session, names: Iterable[str]) -> dict[str, str]:
    """Return those of the names that no account has, each with the account that was probably meant, if any."""
    if "SELECT" not in rights(session):
        return {}
    known = [row["name"] for row in session.all(_ACCOUNTS)]
    unknown = [name for name in names if name not in known]
    return {name: "".join(difflib.get_close_matches(name, known, n=1)) for name in unknown}
