# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An option file of ours, which a server reads when it starts: where it goes, and how it is written."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .._core.errors import AuditError
from .option_files import Option, OptionFiles

AUTO, NONE = "auto", "none"
MODE = "0644"

_PLAIN = re.compile(r"[\w.,:/-]+", re.ASCII)


@dataclass(frozen=True)
class OptionFile:
    """A file as it is and as it is to be; no text means no file."""

    path: str
    current: str | None
    wanted: str | None
    #: What other option files, and the command line, say about the same.
    others: tuple[Option, ...]
    files: OptionFiles

    @property
    def changed(self) -> bool:
        return self.current != self.wanted

    def write(self, module: Any) -> None:
        """Bring the file into its state."""
        _replace(module, self.path, self.wanted)

    def restore(self, module: Any) -> None:
        """Take back what :meth:`write` did."""
        _replace(module, self.path, self.current)

    def require_writable(self) -> None:
        """Stop before a change that this account cannot write.

        :raises AuditError: with the way out.
        """
        if self.changed and not os.access(os.path.dirname(self.path), os.W_OK):
            raise AuditError(
                f"{self.path}: this account may not write there; run as root, or name another file with option_file"
            )

    def require_effective(self, module: Any) -> None:
        """Make sure that the server will start with what the file says.

        :raises AuditError: naming what says otherwise.
        """
        raise NotImplementedError

    def diff(self) -> dict[str, str]:
        """Return the change as --diff shows it, with what other files have said so far."""
        before = "".join(f"# another option file: {name} = {value}\n" for name, value in self.others)
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": before + (self.current or ""),
            "after": self.wanted if self.wanted is not None else before,
        }


def path_of(option_file: str, files: OptionFiles, name: str) -> str:
    """Return the path of the file that an option names, or for `auto` of one that the server reads last.

    :param name: what a file of ours is called, with a place for the suffix of one of several servers.
    :raises AuditError: where the server would not read it.
    """
    if option_file != AUTO:
        if files.reads(option_file):
            return option_file
        raise AuditError(
            f"option_file: the server does not read {option_file}; it reads {', '.join(files.files) or 'no file'}"
            f"{''.join(f', and *.cnf in {directory}' for directory in files.directories)}"
        )
    if not files.directories:
        raise AuditError(
            f"option_file: the server reads {', '.join(files.files) or 'no file'}, and none of it includes a directory "
            "that a file of ours could go to; add `!includedir DIRECTORY` at its end, or go without a file that "
            "survives a restart: option_file: none"
        )
    return os.path.join(files.directories[-1], name.format(suffix=files.suffix))


@contextmanager
def written(module: Any, file: OptionFile | None) -> Iterator[None]:
    """Have the file in its state while the server is brought into its own; leave none that does not count."""
    if file is None or not file.changed or module.check_mode:
        yield
        return
    done = False
    file.write(module)
    try:
        if file.wanted is not None:
            file.require_effective(module)
        yield
        done = True
    finally:
        if not done:
            file.restore(module)


def note(module: Any, file: OptionFile | None) -> None:
    """Put a change of the file into the results, beside those of the server."""
    if file is None:
        return
    module.results["changed"] = module.results["changed"] or file.changed
    if module._diff:
        module.results["diff"] = [module.results["diff"], file.diff()]


def quoted(text: str) -> str:
    """Return a value as an option file wants it."""
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquoted(text: str) -> str:
    """Return a value that :func:`quoted` has written."""
    return text[1:-1].replace('\\"', '"').replace("\\\\", "\\") if text.startswith('"') else text


def read_text(path: str) -> str | None:
    """Return what a file says, or None where there is none."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8", errors="surrogateescape") as opened:
        return opened.read()


def _replace(module: Any, path: str, text: str | None) -> None:
    if text is None:
        if os.path.exists(path):
            os.unlink(path)
        return
    descriptor, scratch = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as opened:
        opened.write(text)
    module.atomic_move(scratch, path)
    module.set_mode_if_different(path, MODE, False)
