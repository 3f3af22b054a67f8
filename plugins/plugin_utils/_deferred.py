# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters whose code is imported by their first call.

Each process of Ansible's that meets a filter of a collection loads all files of filters that this has, and compiles
what they import anew: with imports at their top, a sixth of a rollout's time went into the code of reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError

_PACKAGE = "ansible_collections.dbfleet.audit.plugins.plugin_utils"


def deferred(functions: Mapping[str, str]) -> dict[str, Callable[..., Any]]:
    """Return filters by their names. What is wrong with a user's input ends as an error of the filter.

    :param functions: for each name its function, as `_module.function` of plugin_utils.
    """
    return {name: _deferred(*function.split(".")) for name, function in functions.items()}


def _deferred(module: str, function: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return getattr(import_module(f"{_PACKAGE}.{module}"), function)(*arguments, **options)
        except AuditError as error:
            raise AnsibleFilterError(str(error)) from error

    return call
