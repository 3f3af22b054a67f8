# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is masked of the rows of a foreign log, table by table, before they are history. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .adoption import ForeignLog, Name
from .policy import Policy, is_sensitive
from .selection import Table, policy_for


@dataclass(frozen=True)
class Rule:
    """What is to be done to the images of one table's rows.

    :ivar key: the columns that identify a row, where the table is still there.
    :ivar plain_key: whether the log's own word for the key may be taken where an image does not have it.
    :ivar excluded: whether a policy leaves the table out on purpose, so that no value of it is taken.
    """

    schema: str | None
    table: str
    redact: tuple[str, ...]
    hash: tuple[str, ...]
    leave_out: tuple[str, ...]
    key: tuple[str, ...]
    plain_key: bool
    excluded: bool = False

    @property
    def title(self) -> str:
        return ".".join(filter(None, (self.schema, self.table)))

    def plain(self) -> dict[str, Any]:
        """Return it as the server reads it."""
        return {
            "schema_name": self.schema,
            "table_name": self.table,
            **{name: list(getattr(self, name)) for name in ("redact", "hash", "leave_out", "key")},
            "plain_key": self.plain_key,
            "plain": not (self.redact or self.hash),
        }


def rules(
    keys: Mapping[tuple[str | None, str], Collection[str]], policies: Sequence[Policy], tables: Mapping[Name, Any]
) -> list[Rule]:
    """Return the rule for each table that the rows name; default names are redacted whatever a policy says.

    :param keys: by schema and table, as the rows name them, the columns that their images hold.
    """
    return [
        _rule(schema, name, columns, policies, tables)
        for (schema, name), columns in sorted(keys.items(), key=lambda item: (item[0][0] or "", item[0][1]))
    ]


def _rule(
    schema: str | None, name: str, columns: Collection[str], policies: Sequence[Policy], tables: Mapping[Name, Table]
) -> Rule:
    table: Any = tables.get((schema or "", name))
    policy = _policy(schema, name, table, policies, tables)
    # The log may call the columns by other letters than the table does.
    hashed = _spelled(policy.hash if policy else (), columns)
    left_out = _spelled(policy.excluded_columns if policy else (), columns)
    if policy and policy.only:
        left_out = set(columns) - _spelled(policy.only, columns)
    excluded = (policy is None or schema is None) and _excluded(schema, name, table, policies)
    if excluded:
        left_out = set(columns)
    named = _spelled(policy.redact if policy else (), columns)
    if not table or not policy:
        # It may be a table that is there, by another name, or what such a one was once.
        others = (name for one in policies for name in (*one.redact, *one.hash, *one.excluded_columns))
        named |= (_spelled(tuple(others), columns) & set(columns)) - hashed - left_out
    redact = named | {column for column in columns if is_sensitive(column) and column not in hashed}
    key = tuple(table.key) if table else ()
    # An image need not have the column that is the key, nor the log the table's schema.
    alike = [table] if table else [one for (_place, other), one in tables.items() if schema is None and other == name]
    hidden = redact | hashed | left_out | {column for one in alike for column in one.key if is_sensitive(column)}
    plain_key = not (excluded or (hidden.intersection(key) if key else hidden))
    masks = (tuple(sorted(names)) for names in (redact, hashed, left_out))
    return Rule(schema, name, *masks, () if excluded else key, plain_key, excluded)


def in_words(log: ForeignLog, of_tables: Sequence[Rule]) -> str:
    """Return what a batch brings."""
    excluded = ", ".join(rule.title for rule in of_tables if rule.excluded)
    without = f"; without any value of what policies exclude: {excluded}" if excluded else ""
    return f"rows of {log.title} as history{without}"


def _spelled(names: Collection[str], columns: Collection[str]) -> set[str]:
    """Return names of columns with every other way in which images spell them."""

    def folded(name: str) -> str:
        return re.sub(r"[\W_]", "", name.casefold())

    wanted = {folded(name) for name in names}
    return {*names, *(column for column in columns if folded(column) in wanted)}


def _policy(
    schema: str | None, name: str, table: Any, policies: Sequence[Policy], tables: Mapping[Name, Table]
) -> Policy | None:
    """Return the policy of a table, of a partition that of its root; without a schema, the first by the name."""
    if schema is None:
        # regexes: those of the schema and of the table.
        return next(
            (policy for policy in policies if any(re.match(one.regexes[1], name) for one in policy.tables)), None
        )
    return policy_for(table.root if table and table.root else (schema, name), policies, tables)


def _excluded(schema: str | None, name: str, table: Any, policies: Sequence[Policy]) -> bool:
    """Tell whether a policy that would have taken a table leaves it out; without a schema, one of that name."""
    where, which = table.root if table and table.root else (schema, name)
    return any(
        pattern.matches(where, which) if where is not None else bool(re.match(pattern.regexes[1], which))
        for policy in policies
        for pattern in policy.exclude
    )
