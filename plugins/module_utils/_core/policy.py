# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the user asked for: policies as plain dicts, checked key by key, each error naming policy and key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import AuditError
from .pattern import Pattern

OPERATIONS = ("insert", "update", "delete", "truncate")
CAPTURES = ("row", "statement")
UPDATE_IMAGES = ("full", "changed")
ON_FAILURE = ("abort", "warn")
COLUMN_KEYS = ("only", "exclude", "redact", "hash")

#: Column names that are redacted unless ``redact_defaults`` is off. The words are those of PCI DSS 3.3 and of the
#: usual web frameworks' parameter filters; they are looked for anywhere in the lower-cased name.
SENSITIVE_WORDS = ("password", "passwd", "secret", "token", "api_key", "apikey", "cvv", "card_number", "cardnumber")
#: The same as a regular expression, in any engine's dialect, for a lower-cased name.
SENSITIVE_PATTERN = "|".join(SENSITIVE_WORDS)

_LISTS = ("tables", "exclude", "operations", "require_context", "tags")
_CHOICES = {"capture": CAPTURES, "update_image": UPDATE_IMAGES, "on_failure": ON_FAILURE}
_TEXTS = ("name", "when", "classification", "retention")
_BOOLEANS = ("auto_attach",)
KEYS = ("columns",) + _LISTS + tuple(_CHOICES) + _TEXTS + _BOOLEANS


@dataclass(frozen=True)
class Policy:
    """One checked policy; field names are the keys that the user writes."""

    name: str
    tables: tuple[Pattern, ...]
    exclude: tuple[Pattern, ...]
    operations: tuple[str, ...]
    only: tuple[str, ...]
    excluded_columns: tuple[str, ...]
    redact: tuple[str, ...]
    hash: tuple[str, ...]
    when: str | None
    capture: str
    update_image: str
    require_context: tuple[str, ...]
    on_failure: str
    classification: str | None
    retention: str | None
    tags: tuple[str, ...]
    auto_attach: bool
    redact_defaults: bool

    def matches(self, schema: str, table: str) -> bool:
        return any(pattern.matches(schema, table) for pattern in self.tables) and not any(
            pattern.matches(schema, table) for pattern in self.exclude
        )

    def named_columns(self) -> tuple[str, ...]:
        """Every column that the policy names, in the order written."""
        return self.only + self.excluded_columns + self.redact + self.hash

    def spelled(self, columns: Collection[str]) -> Policy:
        """Return the policy with its columns written as a table writes them, where the case of letters means nothing.

        A column that is redacted by one spelling and hashed by another is what its own spelling says, else redacted.
        """
        redact, hashed = _spelled(self.redact, columns), _spelled(self.hash, columns)
        return replace(
            self,
            only=_spelled(self.only, columns),
            excluded_columns=_spelled(self.excluded_columns, columns),
            redact=redact,
            hash=tuple(name for name in hashed if name not in redact or name in self.hash),
        )

    def definition(self) -> dict[str, Any]:
        """The policy as it is kept in the database: canonical, complete, comparable."""
        return {
            "tables": [pattern.text for pattern in self.tables],
            "exclude": [pattern.text for pattern in self.exclude],
            "operations": list(self.operations),
            "columns": {
                "only": list(self.only),
                "exclude": list(self.excluded_columns),
                "redact": list(self.redact),
                "hash": list(self.hash),
            },
            "when": self.when,
            "capture": self.capture,
            "update_image": self.update_image,
            "require_context": list(self.require_context),
            "on_failure": self.on_failure,
            "classification": self.classification,
            "retention": self.retention,
            "tags": list(self.tags),
            "auto_attach": self.auto_attach,
            "redact_defaults": self.redact_defaults,
        }

    def patterns(self) -> dict[str, list[list[str]]]:
        """The patterns as pairs of regular expressions, for matching in the server."""
        return {
            "tables": [pattern.regexes for pattern in self.tables],
            "exclude": [pattern.regexes for pattern in self.exclude],
        }

    def definition_text(self) -> str:
        return json.dumps(self.definition(), sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class Limits:
    """What an engine cannot do of what a policy may ask for, with the reason and the remedy.

    :ivar operations: operations that it cannot record; they are refused where a policy names them, and are not among
        the operations of a policy that names none.
    :ivar keys: values of other keys that it refuses, as (key, value).
    """

    operations: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[tuple[str, Any], str] = field(default_factory=dict)


NO_LIMITS = Limits()


def parse_policies(
    raw: Sequence[Any], database: str, redact_defaults: bool = True, limits: Limits = NO_LIMITS
) -> list[Policy]:
    """Return checked policies in the order given, or raise :class:`AuditError` for the first thing that is wrong."""
    policies = [
        _parse_policy(entry, f"{database}: policies[{index}]", redact_defaults, limits)
        for index, entry in enumerate(raw)
    ]
    names: dict[str, int] = {}
    owners: dict[str, int] = {}
    for index, policy in enumerate(policies):
        if policy.name in names:
            raise AuditError(
                f"{database}: policies[{names[policy.name]}] and policies[{index}] are both named {policy.name!r}; "
                "give one of them another `name`"
            )
        names[policy.name] = index
        for pattern in policy.tables:
            if pattern.text in owners:
                raise AuditError(
                    f"{database}: policies[{owners[pattern.text]}] and policies[{index}] both list {pattern.text!r} "
                    "in `tables`; the second would never apply, remove one"
                )
        owners.update((pattern.text, index) for pattern in policy.tables)
    return policies


def without_case(name: str) -> str:
    """Return what all names have in common that MariaDB and MySQL take for one column's."""
    # The one letter that the servers take for another one and lower() does not: a capital I with a dot.
    return name.replace("\u0130", "i").lower()


def is_sensitive(column: str) -> bool:
    """Tell whether a column's name says that its value is a secret."""
    name = column.lower()
    return any(word in name for word in SENSITIVE_WORDS)


def _spelled(names: Sequence[str], columns: Collection[str]) -> tuple[str, ...]:
    """Return names of columns as a table writes them; those that it does not have stay, lest `only` becomes empty."""
    spelled: list[str] = []
    for name in names:
        # Python knows more pairs of letters than the servers do: a table may have both of them.
        found = [] if name in columns else [column for column in columns if without_case(column) == without_case(name)]
        spelled += found or [name]
    return tuple(dict.fromkeys(spelled))


def _parse_policy(raw: Any, where: str, redact_defaults: bool, limits: Limits) -> Policy:
    if not isinstance(raw, Mapping):
        raise AuditError(f"{where} is not a dictionary with a `tables` list: {raw!r}")
    _refuse_unknown(raw, KEYS, where)
    if not raw.get("tables"):
        raise AuditError(f"{where}: `tables` is missing; list at least one pattern such as 'public.users'")
    lists = {key: _text_list(raw, key, where) for key in _LISTS}
    choices = {key: _choice(raw, key, allowed, where) for key, allowed in _CHOICES.items()}
    texts = {key: _text(raw, key, where) for key in _TEXTS}
    where_named = f"{where} ({', '.join(lists['tables'])})"
    columns = _columns(raw.get("columns"), where_named)
    for (key, value), reason in limits.keys.items():
        if raw.get(key) == value:
            raise AuditError(f"{where_named}: `{key}: {_yaml(value)}` is not possible here: {reason}")
    if texts["when"] and choices["capture"] == "statement":
        raise AuditError(
            f"{where_named}: `when` looks at single rows, which `capture: statement` does not; remove one of the two"
        )
    return Policy(
        name=texts["name"] or ", ".join(lists["tables"]),
        tables=tuple(Pattern.parse(text, where_named) for text in lists["tables"]),
        exclude=tuple(Pattern.parse(text, where_named) for text in lists["exclude"]),
        operations=_operations(lists["operations"], where_named, limits),
        only=columns["only"],
        excluded_columns=columns["exclude"],
        redact=columns["redact"],
        hash=columns["hash"],
        when=texts["when"],
        require_context=tuple(_context_key(key, where_named) for key in lists["require_context"]),
        classification=texts["classification"],
        retention=texts["retention"],
        tags=tuple(lists["tags"]),
        auto_attach=_boolean(raw, "auto_attach", where_named),
        redact_defaults=redact_defaults,
        **choices,
    )


def _refuse_unknown(raw: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise AuditError(f"{where}: unknown key {key!r}; {hint}")


def _text_list(raw: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = raw.get(key) or []
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item for item in value):
        raise AuditError(f"{where}: `{key}` is not a list of text: {value!r}")
    repeated = sorted({item for item in value if list(value).count(item) > 1})
    if repeated:
        raise AuditError(f"{where}: `{key}` lists {repeated[0]!r} twice")
    return tuple(value)


def _choice(raw: Mapping[str, Any], key: str, allowed: Sequence[str], where: str) -> str:
    value = raw.get(key) or allowed[0]
    if value not in allowed:
        raise AuditError(f"{where}: `{key}` is {value!r}; it can be {' or '.join(allowed)}")
    return value


def _text(raw: Mapping[str, Any], key: str, where: str) -> str | None:
    value = raw.get(key)
    if value is None or (isinstance(value, str) and value.strip()):
        return value.strip() if value else None
    raise AuditError(f"{where}: `{key}` is not a text: {value!r}")


def _boolean(raw: Mapping[str, Any], key: str, where: str) -> bool:
    value = raw.get(key) or False
    if not isinstance(value, bool):
        raise AuditError(f"{where}: `{key}` is neither true nor false: {value!r}")
    return value


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _operations(wanted: Sequence[str], where: str, limits: Limits) -> tuple[str, ...]:
    for operation in wanted:
        if operation not in OPERATIONS:
            raise AuditError(f"{where}: unknown operation {operation!r}; known: {', '.join(OPERATIONS)}")
        if operation in limits.operations:
            raise AuditError(f"{where}: `operations` lists {operation}: {limits.operations[operation]}")
    known = (operation for operation in OPERATIONS if operation not in limits.operations)
    return tuple(operation for operation in known if not wanted or operation in wanted)


def _columns(raw: Any, where: str) -> dict[str, tuple[str, ...]]:
    if raw is not None and not isinstance(raw, Mapping):
        raise AuditError(f"{where}: `columns` is not a dictionary of {', '.join(COLUMN_KEYS)}: {raw!r}")
    raw = raw or {}
    _refuse_unknown(raw, COLUMN_KEYS, f"{where}: columns")
    columns = {key: _text_list(raw, key, f"{where}: columns") for key in COLUMN_KEYS}
    if columns["only"] and columns["exclude"]:
        raise AuditError(f"{where}: columns: `only` and `exclude` exclude each other; keep one")
    both = set(columns["redact"]) & set(columns["hash"])
    if both:
        raise AuditError(f"{where}: columns: {sorted(both)[0]!r} is in both `redact` and `hash`; keep one")
    return columns


def _context_key(key: str, where: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", key):
        raise AuditError(f"{where}: `require_context` names {key!r}; keys look like changed_by or business_process")
    return key
