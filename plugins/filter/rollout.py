# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters that the roles reason with; each is documented in a YAML file of its name beside this one."""

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
                "unknown_variables": "_rollout.unknown_variables",
                "database_problems": "_rollout.database_problems",
                "server_problems": "_rollout.server_problems",
                "instance_problems": "_rollout.instance_problems",
                "match_problems": "_rollout.match_problems",
                "rollout_targets": "_rollout.targets",
                "plain_exceptions": "_rollout.plain_exceptions",
                "rollout_outcomes": "_rollout.outcomes",
                "rollout_lines": "_rollout.rollout_lines",
                "proof_lines": "_rollout.proof_lines",
                "removal_lines": "_rollout.removal_lines",
                "statement_lines": "_statements.statement_lines",
                "statement_proof_lines": "_statements.statement_proof_lines",
            }
        )
