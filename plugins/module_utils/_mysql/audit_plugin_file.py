# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option file from which a server takes the plugin and its variables when it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.errors import AuditError
from .audit_plugin import PERMANENT, PLUGIN, PREFIX, USER_LISTS, PluginState
from .option_file import OptionFile, path_of, quoted, read_text, unquoted
from .option_files import Option, OptionFiles

_NAME = "zz-dbfleet-audit{suffix}.cnf"
_MARK = "# Managed by dbfleet.audit (role and module mysql_audit_plugin)"
# With loose, a server that has lost the plugin, or a variable of it, starts all the same.
_HEADER = """; changes made here are undone by the next run.
# loose: a server that does not have the plugin any more starts all the same.

[mariadb{suffix}]
"""


class AuditFile(OptionFile):
    """The file of the plugin and its variables."""

    def require_effective(self, module: Any) -> None:
        """Make sure that the server will start with what the file says.

        :raises AuditError: naming what says otherwise.
        """
        options = self.files.options(module.run_command)
        wanted = [line.partition(" = ") for line in (self.wanted or "").splitlines() if " = " in line]
        loads = ("plugin_load_add", _library(wanted))
        if loads not in options:
            raise AuditError(f"{self.path}: the server does not read it; name one that it reads with option_file")
        later = options[options.index(loads) + 1 :]
        if any(name == "plugin_load" for name, _value in later):
            raise AuditError(
                f"{self.path}: a plugin_load that the server reads later unloads what is loaded before it; make a "
                "plugin_load_add of it"
            )
        for name, _equals, text in wanted:
            bare = name[len("loose_") :]
            said = [value for option, value in later if option == bare]
            if said and said[-1] != unquoted(text):
                raise AuditError(
                    f"{self.path}: {bare} = {said[-1]} is what the server reads later, and counts; take it out of that "
                    "option file, or off the command line"
                )


def desired_file(
    option_file: str, files: OptionFiles, run: Any, state: PluginState, wanted: Mapping[str, str] | None
) -> AuditFile:
    """Return the file, to hold these variables, or with none of them to be no more.

    :raises AuditError: where the server does not read such a file, it is somebody else's, or it could not be written.
    """
    path = path_of(option_file, files, _NAME)
    current = read_text(path)
    others = tuple(
        option
        for option in files.options_without(path, run)
        if option[0].startswith(PREFIX) or option[0] == PLUGIN or (_loads(option) and state.library in option[1])
    )
    if current is not None and not current.startswith(_MARK):
        if wanted is None:
            return AuditFile(path, current, current, others, files)
        raise AuditError(f"{path} is there and was not made by dbfleet.audit; name another file with option_file")
    text = None if wanted is None else _render(path, files.suffix, state, wanted, others)
    file = AuditFile(path, current, text, others, files)
    file.require_writable()
    return file


def _render(path: str, suffix: str, state: PluginState, wanted: Mapping[str, str], others: Sequence[Option]) -> str:
    said = {name[len(PREFIX) :] for name, _value in others if name.startswith(PREFIX)}
    lines = [f"plugin_load_add = {state.library}", f"loose_{PLUGIN} = {PERMANENT}"]
    for name, text in sorted(wanted.items()):
        if text == state.variables[name].default and name not in said:
            continue
        other = USER_LISTS[1 - USER_LISTS.index(name)] if name in USER_LISTS else ""
        if other and wanted[other] and not text:
            # Found by a server that starts, even an empty one makes it forget the other.
            raise AuditError(
                f"{path}: another option file, or the command line, sets {PREFIX}{name}, and with both lists a server "
                f"that starts follows neither; take it out there, or take {other} out of settings"
            )
        lines.append(f"loose_{PREFIX}{name} = {quoted(text)}")
    return _MARK + _HEADER.format(suffix=suffix) + "\n".join(lines) + "\n"


def _loads(option: Option) -> bool:
    return option[0] in ("plugin_load", "plugin_load_add")


def _library(wanted: Sequence[tuple[str, str, str]]) -> str:
    return next((text for name, _equals, text in wanted if name == "plugin_load_add"), "")
