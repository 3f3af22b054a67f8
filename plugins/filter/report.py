# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters of the role audit_report; each is documented in a YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dbfleet.audit.plugins.plugin_utils._deferred import deferred


class FilterModule:
    """Makes the functions of plugin_utils/_report*.py known to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by its name."""
        return deferred(
            {
                "report_problems": "_report_inputs.input_problems",
                "report_period": "_report_inputs.period",
                "report_facts": "_report_inputs.host_facts",
                "report_pgaudit": "_report_inputs.pgaudit_facts",
                "report_plugin": "_report_inputs.plugin_facts",
                "report_model": "_report.of_hosts",
                "report_files": "_report_files.files",
                "report_lines": "_report_files.lines",
            }
        )
