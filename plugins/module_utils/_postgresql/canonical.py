# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The canonical text of a row of the log: one line of JSON, which seals hash and archives keep.

It names the columns and takes no value through an output function that a session's settings change, so that it is the
same in every session, on every server, for as long as an archive is kept. A column without a value is left out: one
that a later release adds leaves the text of older rows as it was. No two rows have the same text: every text is
quoted, and NULL is not the JSON value null.
"""

from __future__ import annotations

from .._core.sql import Identifier, Sql, sql

# Every || copies what is before it, hence the brackets, and the images last. Where no text needs an escape, which one
# look at all of them tells, none is escaped: to_json() looks a type up at every call. What is not in the pattern may
# need none either; the other way writes the same. No backslash in it: this is also the text of an SQL function, which a
# session with standard_conforming_strings = off would read differently. A text ends with the quote of the next part.
_CANONICAL = """(('{"id":' || {row}.id || ',"changed_at":' || to_json({row}.changed_at AT TIME ZONE 'UTC')::text
     || ',"transaction_id":"' || {row}.transaction_id::text)
    || CASE
         WHEN ({row}.action || {row}.changed_by || {row}.db_user || coalesce({row}.application_name, '')
               || coalesce({row}.schema_name, '') || coalesce({row}.table_name, '') || coalesce({row}.record_id, '')
              ) COLLATE "C" ~ '^[] !#-[^-~]*$'
         THEN {plain} ELSE {escaped}
       END)
   || (coalesce('","policy_id":' || {row}.policy_id, '"')
    || coalesce(',"hidden_changes":' || to_json({row}.hidden_changes)::text, '')
    || coalesce(',"context":' || {row}.context::text, '')
    || coalesce(',"old_values":' || {row}.old_values::text, '')
    || coalesce(',"new_values":' || {row}.new_values::text || '}', '}'))"""

_TEXTS = """(
           ('","action":"' || {action} || '","changed_by":"' || {changed_by} || '","db_user":"' || {db_user}
            || coalesce('","client_ip":"' || abbrev({row}.client_ip), ''))
           || (coalesce('","application_name":"' || {application_name}, '')
            || coalesce('","schema_name":"' || {schema_name}, '')
            || coalesce('","table_name":"' || {table_name}, '')
            || coalesce('","record_id":"' || {record_id}, '')))"""

# Without the quotes around it.
_ESCAPED = "left(substr(to_json({row}.{column})::text, 2), -1)"

_TEXT_COLUMNS = ("action", "schema_name", "table_name", "record_id", "changed_by", "db_user", "application_name")


def canonical(row: str) -> Sql:
    """Return the expression for the text of the row that a query calls `row`."""
    name = Identifier.of(row)
    return sql(_CANONICAL, row=name, plain=_texts(name, "{row}.{column}"), escaped=_texts(name, _ESCAPED))


def _texts(row: Identifier, value: str) -> Sql:
    values = {column: sql(value, row=row, column=Identifier.of(column)) for column in _TEXT_COLUMNS}
    return sql(_TEXTS, row=row, **values)


#: What texts are turned into before they are digested. A database of SQL_ASCII does not know what its bytes mean, and
#: refuses to call them UTF-8 unless they are.
DIGESTED_AS = "CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END"


def leaf(row: str) -> Sql:
    """Return the expression for the SHA-256 of the row's text, as bytea."""
    return sql("sha256(convert_to({text}, {digested_as}))", text=canonical(row), digested_as=sql(DIGESTED_AS))
