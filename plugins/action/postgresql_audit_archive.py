# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the controller, where keys and ledgers are; the module of the same name does the work on the host."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive_step import ARCHIVE_SPEC, LOGS_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import CONNECTION_SPEC
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_action import ArchiveAction


class ActionModule(ArchiveAction):
    """The action of postgresql_audit_archive."""

    spec: ClassVar[dict[str, Any]] = {**CONNECTION_SPEC, **SCHEMA_SPEC, **ARCHIVE_SPEC, **LOGS_SPEC}
    database: ClassVar[str] = "login_db"
