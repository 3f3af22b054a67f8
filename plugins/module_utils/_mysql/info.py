# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read-only facts about a server, for roles and for people."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from .._core.activity import offsets
from .._core.exemption import parse_exemptions
from .._core.info import attempt, parse_request
from . import trail_catalog
from .info_queries import INSTALLED, SERVER_AUDIT
from .info_trail import refusal, trail_facts
from .log_files import read_logs
from .module import MysqlModule
from .session import Session, pymysql
from .trail_options import limitations
from .user_checks import user_checks


def gather(module: MysqlModule, session: Session) -> None:
    """Put the facts into the module's results."""
    schema = module.params["schema"]
    exemptions = parse_exemptions(module.params["exceptions"], schema)
    request = parse_request(module.params, datetime.now(timezone.utc), exemptions)
    # A zone that nobody knows is the user's to put right, and no reason of a server's.
    offsets(request.time_zone, request.since, request.until)
    lost: list[str] = []

    def read() -> trail_catalog.TrailCatalog:
        return trail_catalog.read(session, schema)

    catalog = attempt("accounts and their rights", read, pymysql.MySQLError, refusal, lost)
    module.results.update(
        version={
            "full": session.version,
            "major": ".".join(str(part) for part in session.version_number[:2]),
            "vendor": session.vendor,
        },
        read_only=session.read_only,
        event_scheduler=session.on("event_scheduler"),
        logs=read_logs(session),
        server_audit=session.all(SERVER_AUDIT) if session.is_mariadb else [],
        installed=catalog.installed if catalog else session.one(INSTALLED, {"schema": schema})["number"] > 0,
        limitations=[*(limitations(catalog, session) if catalog else ()), *lost],
    )
    if request.wanted:
        facts: dict[str, Any]
        try:
            facts = trail_facts(session, schema, request, catalog)
        except pymysql.MySQLError as error:
            facts = {"database": schema, "schema": schema, "error": module.explain(error)}
        module.results["trails"] = [facts]
        module.results["limitations"] += facts.get("limitations", ())
    if module.params["checks"]:
        module.results["checks"] = user_checks(session, module.params["checks"])
