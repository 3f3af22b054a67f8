# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a module writes into its host's log."""

from __future__ import annotations

import typing as t

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC, AuditModule
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal_step import STEP_SPEC


def test_neither_rows_nor_whom_a_hold_is_about_is_in_the_log_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[t.Any] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, *given, **named: said.append((given, named)))
    step = {"do": "load", "data": "rows of patients", "holds": [{"changed_by": "eve"}]}
    with patch_module_args({"schema": "audit", "step": step}):
        module = AuditModule({**SCHEMA_SPEC, **STEP_SPEC})
    assert module.params["step"] == step
    assert "audit" in str(said)
    assert "patients" not in str(said)
    assert "eve" not in str(said)
