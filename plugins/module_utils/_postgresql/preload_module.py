# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading, checking and results of postgresql_preload_libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.errors import AuditError
from .._core.plan import Plan
from .module import PostgresqlModule
from .preload import SETTING, PreloadCatalog, difference, holds, merged, parse, plan_libraries, render, without
from .session import Session
from .settings import MAY_READ_FILES, patroni_cluster, place_of, read_lines, require_files, text_of

PRELOAD_SPEC: dict[str, Any] = {
    "name": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "check_files": {"type": "bool", "default": True},
    "keep_written": {"type": "bool", "default": False},
}

_RUNNING = f"""
SELECT s.setting, s.source, s.setting IS NOT NULL AND {MAY_READ_FILES} AS readable
FROM (VALUES ('shared_preload_libraries')) AS asked (name) LEFT JOIN pg_settings AS s ON s.name = asked.name
"""

# LOAD looks for the file just as the server does when it starts. Most libraries that hook into the server then refuse
# to be loaded into a session, which says that they are there; what is loaded ends with the session. The text of some
# of these refusals is all that tells them from a file that is no library of this version: it must be in English.
_LOAD = """
DO $dbfleet$
DECLARE
  v_name    text;
  v_state   text;
  v_message text;
  v_refused jsonb := '[]';
BEGIN
  PERFORM set_config('lc_messages', 'C', true);
  FOR v_name IN SELECT jsonb_array_elements_text(current_setting('dbfleet.libraries')::jsonb) LOOP
    BEGIN
      EXECUTE format('LOAD %L', v_name);
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
      IF v_state = '58P01' OR v_message ~ '^(could not load library|incompatible library)' THEN
        v_refused := v_refused || jsonb_build_object('library', v_name, 'message', v_message);
      END IF;
    END;
  END LOOP;
  PERFORM set_config('dbfleet.refused', v_refused::text, false);
END
$dbfleet$
"""


def read(session: Session) -> PreloadCatalog:
    """Read the list as it runs and as it is configured.

    :raises AuditError: for a login that may not see the configuration files.
    """
    running = session.one(_RUNNING)
    require_files(running.readable, SETTING)
    return PreloadCatalog(running.setting, running.source, read_lines(session, [SETTING]), patroni_cluster(session))


def reconcile(module: PostgresqlModule, session: Session) -> None:
    """Make the server load the libraries when it starts again, or no longer; where Patroni runs it, say what to do."""
    catalogs: list[PreloadCatalog] = []
    differences: list[str] = []

    def planner(open_session: Session) -> Plan:
        catalog = read(open_session)
        target = _target(module.params, catalog)
        found = difference(catalog, target)
        if found and module.params["check_files"]:
            _require_loadable(open_session, module.params, catalog)
        catalogs.append(catalog)
        differences[:] = [found] if found else []
        return Plan() if catalog.patroni else plan_libraries(catalog, target)

    module.reconcile(session, planner, on_replica=True)
    catalog = catalogs[-1]
    target = _target(module.params, catalog)
    module.results.update(
        differences=differences,
        patroni_parameters={SETTING: render(target) or None} if catalog.patroni else {},
        libraries=target,
        running=parse(catalog.running),
        restart_required=target != parse(catalog.running),
    )


def _target(params: Mapping[str, Any], catalog: PreloadCatalog) -> list[str]:
    if params["state"] == "present":
        return merged(catalog.configured, params["name"])
    # Patroni writes the whole list, and does not say who has put what on it.
    keep = params["keep_written"] and not catalog.patroni
    written = parse(text_of(catalog.beneath)) if keep else []
    return without(catalog.configured, [name for name in params["name"] if not holds(written, name)])


def _require_loadable(session: Session, params: Mapping[str, Any], catalog: PreloadCatalog) -> None:
    """Refuse a list with which the server would not start again.

    :raises AuditError: naming each library that cannot be loaded, and where it is asked for.
    """
    target = _target(params, catalog)
    refused = session.run_block(_LOAD, "dbfleet.libraries", target, "dbfleet.refused")
    problems = [
        f"{entry['library']} ({entry['message']}; {_remedy(entry['library'], params, catalog)})" for entry in refused
    ]
    if problems:
        raise AuditError(f"with these libraries the server would not start again: {', '.join(problems)}")


def _remedy(library: str, params: Mapping[str, Any], catalog: PreloadCatalog) -> str:
    if holds(params["name"], library):
        return "install its package for this version of PostgreSQL"
    return f"it is listed in {place_of(catalog.lines)}: install its package, or take it off that list"
