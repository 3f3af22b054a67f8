# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option file from which a MariaDB server takes its binary log's settings when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.errors import AuditError
from .cdc import RETENTION
from .option_file import OptionFile, path_of, quoted, read_text, unquoted
from .option_files import OptionFiles

_NAME = "zz-dbfleet-audit-cdc{suffix}.cnf"
_MARK = "# Managed by dbfleet.audit (module mysql_audit_cdc)"
_HEADER = """; changes made here are undone by the next run.

[mariadb{suffix}]
"""
_OFF = ("skip_log_bin", "disable_log_bin")
#: The same setting under its older name, in days: the one that is read last counts.
_DAYS = "expire_logs_days"


class CdcFile(OptionFile):
    """The file of the binary log's settings."""

    def require_effective(self, module: Any) -> None:
        options = self.files.options(module.run_command)
        if any(name in _OFF for name, _value in options):
            raise AuditError(f"{self.path}: another option file, or the command line, says skip_log_bin; take it out")
        for name, text in _lines(self.wanted or ""):
            names = (name, _DAYS) if name == RETENTION else (name,)
            said = [value if option == name else f"{option} {value}" for option, value in options if option in names]
            if not said:
                raise AuditError(f"{self.path}: the server does not read it; name one that it reads with option_file")
            if said[-1].upper() != text.upper():
                raise AuditError(
                    f"{self.path}: {name} = {said[-1]} is what the server reads later, and counts; take it out of that "
                    "option file, or off the command line"
                )


def desired_file(option_file: str, files: OptionFiles, run: Any, wanted: Mapping[str, str]) -> CdcFile:
    """Return the file, to hold these variables and the binary log itself, unless another one has it.

    :raises AuditError: where the server does not read such a file, it is somebody else's, or it could not be written.
    """
    path = path_of(option_file, files, _NAME)
    current = read_text(path)
    if current is not None and not current.startswith(_MARK):
        raise AuditError(f"{path} is there and was not made by dbfleet.audit; name another file with option_file")
    others = tuple(
        option for option in files.options_without(path, run) if option[0] in wanted or option[0] in ("log_bin", *_OFF)
    )
    lines = [f"{name} = {quoted(value)}" for name, value in wanted.items()]
    if not any(name == "log_bin" for name, _value in others):
        # With a name: the default one follows the host's, and loses the logs that there are when that changes.
        lines.insert(0, "log_bin = mariadb-bin")
    text = _MARK + _HEADER.format(suffix=files.suffix) + "\n".join(lines) + "\n"
    file = CdcFile(path, current, text, others, files)
    file.require_writable()
    return file


def _lines(text: str) -> list[tuple[str, str]]:
    pairs = [line.partition(" = ") for line in text.splitlines() if " = " in line]
    return [(name, unquoted(value)) for name, _equals, value in pairs]
