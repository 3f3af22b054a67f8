# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the seal and verify actions of all engines share: keys and ledger on the controller, steps on the host."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action import ActionBase

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.signature import (
    CRYPTOGRAPHY_ERROR,
    PublicKey,
    SigningKey,
    read_public_key,
    read_signing_key,
)

#: Options that are the controller's: no host ever gets them, neither keys nor where they are.
CONTROLLER = (
    *(f"{prefix}signing_key{suffix}" for prefix in ("", "previous_") for suffix in ("", "_content", "_passphrase")),
    *("ledger", "public_key", "public_key_content", "resync"),
)


#: Types that are the same everywhere.
_NUMBERS = ("int", "float", "bool")


class StepError(AuditError):
    """A call of the module on the host has failed; `result` is its answer."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        super().__init__(str(result.get("msg") or result))
        self.result = dict(result)


class SealAction(ActionBase):
    """Runs the module of its own name on the host, step by step. Subclasses say what the steps are.

    :cvar spec: the module's options, all of them.
    :cvar controller: those that no host gets.
    """

    spec: ClassVar[dict[str, Any]] = {}
    controller: ClassVar[tuple[str, ...]] = CONTROLLER

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        self._supports_check_mode = True
        self._supports_async = False
        result = super().run(tmp, task_vars)
        del tmp
        self.vars = task_vars or {}
        if CRYPTOGRAPHY_ERROR:
            raise AnsibleActionFail("the controller's Python lacks the package cryptography")
        return {**result, **self.outcome(self._task.args)}

    def outcome(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Do the work with these options; return its result, or the failed one that an error makes."""
        started = time.monotonic()
        try:
            self.arguments = self._typed(given)
            result = self.work()
        except StepError as error:
            # With what the host was sent, rows among it.
            result = {name: value for name, value in error.result.items() if name != "invocation"}
        except (AuditError, OSError) as error:
            result = {"failed": True, "msg": str(error)}
        finally:
            self.leave_host()
        return {**result, "seconds": round(time.monotonic() - started, 3)}

    def leave_host(self) -> None:
        """Remove what running modules has left on the host."""
        self._remove_tmp_path(self._connection._shell.tmpdir)

    def _typed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task's options, those that matter here in their types.

        :raises AuditError: as the module would, before it gets anything.
        """
        checked = ArgumentSpecValidator(self.spec).validate(given)
        for error in checked.errors:
            unsupported = isinstance(error, UnsupportedError)
            raise AuditError(
                f"Unsupported parameters for ({self._task.action}) module: {error}" if unsupported else f"{error}"
            )
        # A path of the host means what it means there.
        here = [name for name in given if name in self.controller or self.spec[name]["type"] in _NUMBERS]
        return {**given, **{name: checked.validated_parameters[name] for name in here}}

    def work(self) -> dict[str, Any]:
        """Do what the action is for; return its result."""
        raise NotImplementedError

    def on_host(self, **more: Any) -> dict[str, Any]:
        """Run the module on the host, with the task's options but those of the controller.

        :raises StepError: when it fails.
        """
        arguments = {key: value for key, value in self.arguments.items() if key not in self.controller}
        result = self._execute_module(
            module_name=self._task.action,
            module_args={**arguments, **more},
            task_vars=self.vars,
        )
        if result.get("failed"):
            raise StepError(result)
        return result

    def step(self, do: str, **more: Any) -> dict[str, Any]:
        """Ask the host for one step and return its answer."""
        return self.on_host(step={"do": do, **more})["answer"]

    def option(self, name: str, default: Any = None) -> Any:
        """Return an option of the task; one that is empty was not given."""
        value = self.arguments.get(name)
        return default if value in (None, "") else value

    def number(self, name: str, default: float) -> float:
        """Return an option that has to be a number above 0."""
        value = self.option(name, default)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if number <= 0:
            raise AuditError(f"{name} is {value!r}, and has to be a number above 0")
        return number

    def signing_key(self, option: str) -> SigningKey | None:
        """Return the key of an option or of its _content, or None when neither is given."""
        content = self.option(f"{option}_content")
        path = self.option(option)
        if not (content or path):
            return None
        if content and path:
            raise AuditError(f"{option} and {option}_content are both given; one of them is the key")
        pem = content.encode() if content else _read(path, option)
        return read_signing_key(pem, self.option(f"{option}_passphrase"), option)

    def public_keys(self) -> list[PublicKey]:
        """Return the keys of public_key and public_key_content."""
        paths, texts = (_listed(self.option(name, [])) for name in ("public_key", "public_key_content"))
        keys = [read_public_key(_read(path, "public_key"), f"public_key {path}") for path in paths]
        return keys + [read_public_key(text.encode(), "public_key_content") for text in texts]


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _read(path: str, option: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read()
    except OSError as error:
        raise AuditError(f"{option}: {path} on the controller cannot be read: {error.strerror}") from None
