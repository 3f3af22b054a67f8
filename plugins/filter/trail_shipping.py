# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters of the role that ships rows; each is documented in a YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dbfleet.audit.plugins.plugin_utils._deferred import deferred


class FilterModule:
    """Makes the functions of plugin_utils known to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by its name."""
        return deferred(
            {
                "ship_problems": "_trail_shipping.ship_problems",
                "ship_logs": "_trail_shipping.ship_logs",
                "ship_lines": "_trail_shipping.ship_lines",
            }
        )
