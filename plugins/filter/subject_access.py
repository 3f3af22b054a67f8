# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters of the role audit_subject_access; each is documented in a YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dbfleet.audit.plugins.plugin_utils._deferred import deferred


class FilterModule:
    """Makes the functions of plugin_utils/_subject_access*.py known to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by its name."""
        return deferred(
            {
                "subject_access_problems": "_subject_access.input_problems",
                "subject_access_queries": "_subject_access.queries",
                "subject_access_tables": "_subject_access.tables",
                "subject_access_report": "_subject_access.report",
                "subject_access_lines": "_subject_access.report_lines",
                "subject_access_files": "_subject_access_files.files",
            }
        )
