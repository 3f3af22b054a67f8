# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statements as logs have them: what kind they are, and without the secrets in them."""

from __future__ import annotations

import re

from .._core.policy import SENSITIVE_PATTERN

_QUOTED = r"(?:'(?:[^'\\]|\\.|'')*(?:'|$)|\"(?:[^\"\\]|\\.|\"\")*(?:\"|$)|\$\$.*?(?:\$\$|$))"

#: PASSWORD '...' and IDENTIFIED BY '...' in all their forms, and a value that is compared with or put into a column
#: (or a parameter of a connection) whose name is that of a secret.
_SECRET = re.compile(
    rf"(\b(?:PASSWORD|IDENTIFIED(?:\s+(?:WITH|VIA)\s+\S+)?\s+(?:BY|AS|USING)(?:\s+PASSWORD)?)\b[\s(=]*[EN]?"
    rf"|[\w`\"]*(?:{SENSITIVE_PATTERN})[\w`\"]*\s*(?:=|:=|<>|!=)\s*[EN]?)({_QUOTED})",
    re.IGNORECASE | re.DOTALL,
)
_CONNECTION_SECRET = re.compile(r"(\bpassword\s*=\s*)(?![\s'\"\[$(:?@%])([^\s'\",;)]+)", re.IGNORECASE)
_HINT = re.compile(f"{SENSITIVE_PATTERN}|identified", re.IGNORECASE)

_COMMENTS = re.compile(r"(?:\s+|/\*.*?\*/|--[^\n]*(?:\n|$)|#[^\n]*(?:\n|$)|\()+", re.DOTALL)
_WORDS = re.compile(r"([A-Za-z]+)(?:\s+([A-Za-z]+))?")

#: pgaudit's classes of statements, for servers that have none.
_CLASSES = {
    "READ": ("SELECT", "TABLE", "VALUES", "WITH", "HANDLER", "SHOW", "DESCRIBE", "DESC", "EXPLAIN"),
    "WRITE": ("INSERT", "UPDATE", "DELETE", "REPLACE", "TRUNCATE", "LOAD"),
    "DDL": ("CREATE", "ALTER", "DROP", "RENAME"),
    "ROLE": ("GRANT", "REVOKE"),
    "FUNCTION": ("CALL", "DO"),
}
_CLASS_OF = {word: name for name, words in _CLASSES.items() for word in words}
_ROLE_OBJECTS = ("USER", "ROLE")


def without_secrets(statement: str) -> str:
    """Return a statement with ``[REDACTED]`` in place of passwords: servers mask most of them, not all."""
    if not _HINT.search(statement):
        return statement
    return _CONNECTION_SECRET.sub(r"\1[REDACTED]", _SECRET.sub(r"\1[REDACTED]", statement))


def command_of(statement: str) -> str | None:
    """Return the statement's first word, as SELECT, or None where it has none; comments are no words."""
    words = _first_words(statement)
    return words[0] or None


def class_of(statement: str) -> str:
    """Return READ, WRITE, DDL, ROLE, FUNCTION or MISC."""
    first, second = _first_words(statement)
    name = _CLASS_OF.get(first, "MISC")
    if (name == "DDL" and second in _ROLE_OBJECTS) or (first == "SET" and second == "PASSWORD"):
        return "ROLE"
    return name


def _first_words(statement: str) -> tuple[str, str]:
    leading = _COMMENTS.match(statement)
    words = _WORDS.match(statement, leading.end() if leading else 0)
    return (words[1].upper(), (words[2] or "").upper()) if words else ("", "")
