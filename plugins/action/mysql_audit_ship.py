# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the controller, where keys, ledgers and cursors are; the module of the same name sends the host's rows."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ship_step import SHIP_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import CONNECTION_SPEC
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_action import ShipAction


class ActionModule(ShipAction):
    """The action of mysql_audit_ship."""

    spec: ClassVar[dict[str, Any]] = {**CONNECTION_SPEC, **SCHEMA_SPEC, **SHIP_SPEC}
    database: ClassVar[str] = "schema"
