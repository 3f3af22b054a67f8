# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter by which defaults of roles follow compliance profiles; a YAML file of its name beside this one has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _profiles


def profile_default(given: Any, profiles: list[str], variable: str) -> Any:
    """Return the strictest default of a variable; a profile that there is none of is the user's error."""
    try:
        return _profiles.default(given, profiles, variable)
    except AuditError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Makes the functions of plugin_utils/_profiles.py known to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by its name."""
        return {"profile_default": profile_default}
