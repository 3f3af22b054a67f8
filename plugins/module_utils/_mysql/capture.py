# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The body of a capture trigger: written out for one table, one operation and one policy.

A trigger here can name columns and nothing else, so that a body is made for the columns that the table has; when they
change, the next rollout replaces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._core.policy import Policy, is_sensitive
from .._core.sql import Identifier, Joined, Literal, Sql, Verbatim, sql
from .column import Column
from .text import text
from .trail_tables import NAMED_ID

#: SIGNAL takes no more characters than this.
_MESSAGE_LENGTH = 128

# The time of the change, whatever SET timestamp has made of the session's clock: SYSDATE() follows the machine's.
CHANGED_AT = "UTC_TIMESTAMP(6) + INTERVAL TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6)) MICROSECOND"

# CURRENT_USER() is the definer here. A user's name may hold an @, a host's cannot.
CLIENT_HOST = "SUBSTRING_INDEX(USER(), '@', -1)"
DB_USER = "LEFT(USER(), CHAR_LENGTH(USER()) - LOCATE('@', REVERSE(USER())))"

# What costs in a trigger is less what it computes than how many instructions and expressions it is made of: the server
# prepares each of them again for every row, and makes variables for every execution of the block that declares them.
_BODY = """BEGIN{declarations}{compare}
  IF {condition} THEN{record}
  END IF;
END"""

# A session that sets no context pays for two looks at a variable. By their length, because MySQL reads a variable in an
# expression that has no type of its own as what it was in the session that ran this trigger before: a number, say.
_RECORD = """
    IF OCTET_LENGTH(@audit_user) IS NULL AND OCTET_LENGTH(@audit_context) IS NULL THEN{without_context}
    ELSE{with_context}
    END IF;"""

_INSERT = """
      INSERT INTO {schema}.audit_log_data ({id}changed_at, action, schema_name, table_name, record_id,
        old_values, new_values, changed_columns, changed_by,
        db_user, client_ip, policy_id{context_columns})
      VALUES ({next_id}{changed_at},
        {action}, {schema_name}, {table_name}, {record_id},
        {old_values},
        {new_values},
        {changed_columns},
        {changed_by},
        {db_user}, {client_ip}, {policy_id}{context_values});"""

_WITH_CONTEXT = """ BEGIN
      DECLARE v_context LONGTEXT CHARACTER SET utf8mb4 DEFAULT {schema}.current_context();
      DECLARE v_user TEXT CHARACTER SET utf8mb4 DEFAULT JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.user'));
      DECLARE v_client TEXT CHARACTER SET utf8mb4 DEFAULT JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.ip_address'));
      DECLARE v_application TEXT CHARACTER SET utf8mb4
        DEFAULT JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.application_name'));
      DECLARE v_transaction TEXT CHARACTER SET utf8mb4
        DEFAULT JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.transaction_id'));
      SET v_context = NULLIF(CAST(JSON_REMOVE(v_context, '$.user', '$.ip_address', '$.application_name',
        '$.transaction_id') AS CHAR), '{}');{require}{insert}
    END;"""

_DECLARE_CHANGED = """
  DECLARE v_changed LONGTEXT CHARACTER SET utf8mb4;"""

# No DEFAULT of its declaration: a handler, which has to come after that, would not see it fail.
_CHANGED = """
  SET v_changed = CONCAT_WS(', ',
    {columns});"""

# SIGNAL takes a plain literal or a variable, and names are not always plain.
_REQUIRE = """
      IF {missing} THEN
        BEGIN
          DECLARE v_message VARCHAR(128) CHARACTER SET utf8mb4 DEFAULT {message};
          SIGNAL SQLSTATE '{state}' SET MESSAGE_TEXT = v_message;
        END;
      END IF;"""

# The write goes through, and that its record is missing is itself on record.
_WARN = """
  DECLARE EXIT HANDLER FOR SQLEXCEPTION
  BEGIN
    DECLARE v_code INT;
    DECLARE v_message TEXT CHARACTER SET utf8mb4;
    DECLARE v_failed VARCHAR(128) CHARACTER SET utf8mb4 DEFAULT {failed};
    DECLARE v_nothing VARCHAR(128) CHARACTER SET utf8mb4 DEFAULT {nothing};
    DECLARE EXIT HANDLER FOR SQLEXCEPTION
      SIGNAL SQLSTATE '01000' SET MESSAGE_TEXT = v_nothing;
    GET {stacked}DIAGNOSTICS CONDITION 1 v_code = MYSQL_ERRNO, v_message = MESSAGE_TEXT;
    INSERT INTO {schema}.audit_log_data ({id}changed_at, action, schema_name, table_name, new_values, changed_by,
      db_user, client_ip, policy_id)
    VALUES ({next_id}{changed_at}, 'EVENT', {schema_name}, {table_name},
      JSON_OBJECT('event', 'audit_failure', 'operation', {action}, 'code', v_code + 0, 'error', v_message),
      {db_user}, {db_user}, {client_host}, {policy_id});
    SIGNAL SQLSTATE '01000' SET MESSAGE_TEXT = v_failed;
  END;"""

# An image has to fit into max_allowed_packet, and escapes make a value up to six times as long. Above a sixteenth of it
# for all of a row's long values, each that has more than its share is recorded as its size and digest.
_LIMIT = "@@max_allowed_packet DIV {share}"
_ROW_SHARE = 16

_WITH_OMISSIONS = """IF({large},
        JSON_MERGE_PATCH({shortened}, CONCAT('{', CONCAT_WS(', ', {omissions}), '}')),
        {image})"""

_VARIABLES = {
    "changed_by": "v_user",
    "user": "v_user",
    "client_ip": "v_client",
    "ip_address": "v_client",
    "application_name": "v_application",
    "transaction_id": "v_transaction",
}


@dataclass(frozen=True)
class Capture:
    """What a body is made of.

    :ivar key: the columns that identify a row, in the order of the key; empty where the table has none.
    :ivar policy: names columns as the table does (:meth:`Policy.spelled`).
    """

    schema: str
    table: tuple[str, str]
    columns: Sequence[Column]
    key: Sequence[Column]
    policy: Policy
    policy_id: int
    is_mariadb: bool

    def body(self, operation: str) -> Sql:
        """Return the trigger's body."""
        places = self._places(operation)
        return sql(
            _BODY,
            declarations=Joined("", tuple(self._declarations(operation, places))),
            compare=self._compare() if operation == "update" else sql(""),
            condition=self._condition(operation),
            record=self._record(operation, places),
        )

    def _record(self, operation: str, places: dict[str, Any]) -> Sql:
        """Return what adds the record. Who needs a context is asked for it in any case."""
        record = {
            "record_id": self._record_id("OLD" if operation == "delete" else "NEW"),
            "old_values": self._image("OLD") if operation != "insert" else sql("NULL"),
            "new_values": self._new_values(operation),
            "changed_columns": sql("CONCAT('[', v_changed, ']')" if operation == "update" else "NULL"),
            **places,
        }
        named = sql(
            _INSERT,
            changed_by=sql("COALESCE(v_user, {db_user})", **places),
            client_ip=sql("COALESCE(v_client, {client_host})", **places),
            context_columns=sql(", transaction_id, application_name, context"),
            context_values=sql(", v_transaction, v_application, v_context"),
            **record,
        )
        with_context = sql(_WITH_CONTEXT, require=self._require(operation), insert=named, **places)
        if self.policy.require_context:
            return with_context
        plain = sql(
            _INSERT,
            changed_by=places["db_user"],
            client_ip=places["client_host"],
            context_columns=sql(""),
            context_values=sql(""),
            **record,
        )
        return sql(_RECORD, without_context=plain, with_context=with_context)

    def masked(self, column: Column) -> str:
        """Return `redact`, `hash`, or an empty text."""
        if column.name in self.policy.hash:
            return "hash"
        by_name = self.policy.redact_defaults and is_sensitive(column.name)
        return "redact" if by_name or column.name in self.policy.redact else ""

    def _recorded(self) -> list[Column]:
        if self.policy.only:
            return [column for column in self.columns if column.name in self.policy.only]
        return [column for column in self.columns if column.name not in self.policy.excluded_columns]

    def _places(self, operation: str) -> dict[str, Any]:
        schema = Identifier.of(self.schema)
        column, value = NAMED_ID["mariadb" if self.is_mariadb else "mysql"]
        return {
            "schema": schema,
            "id": sql(column),
            "next_id": sql(value, schema=schema),
            "action": Literal(operation.upper()),
            "schema_name": text(self.table[0]),
            "table_name": text(self.table[1]),
            "policy_id": Literal(self.policy_id),
            "changed_at": sql(CHANGED_AT),
            "client_host": sql(CLIENT_HOST),
            "db_user": sql(DB_USER),
        }

    def _declarations(self, operation: str, places: dict[str, Any]) -> list[Sql]:
        declarations = [sql(_DECLARE_CHANGED)] if operation == "update" else []
        if self.policy.on_failure == "warn":
            messages = {
                "failed": self._message(operation, "was not recorded"),
                "nothing": self._message(operation, "was not recorded, nor could the failure be"),
            }
            stacked = sql("" if self.is_mariadb else "STACKED ")
            declarations.append(sql(_WARN, stacked=stacked, **messages, **places))
        return declarations

    def _compare(self) -> Sql:
        names = tuple(
            sql("IF({same}, NULL, {name})", same=column.same(self.is_mariadb), name=column.quoted_key())
            for column in self._recorded()
        )
        return sql(_CHANGED, columns=Joined(",\n    ", names or (sql("NULL"),)))

    def _condition(self, operation: str) -> Sql:
        tests = [sql("({text})", text=Verbatim(self.policy.when))] if self.policy.when else []
        if operation == "update":
            tests.append(sql("v_changed <> ''"))
        return sql("{tests}", tests=Joined(" AND ", tuple(tests))) if tests else sql("TRUE")

    def _require(self, operation: str) -> Sql:
        keys = self.policy.require_context
        if not keys:
            return sql("")
        missing = tuple(
            sql(f"{_VARIABLES[key]} IS NULL")
            if key in _VARIABLES
            else sql("JSON_EXTRACT(v_context, {path}) IS NULL", path=Literal(f"$.{key}"))
            for key in keys
        )
        return sql(
            _REQUIRE,
            missing=Joined(" OR ", missing),
            state=sql("01000" if self.policy.on_failure == "warn" else "45000"),
            message=self._message(operation, f"needs {', '.join(keys)}: CALL {self.schema}.set_context(...)"),
        )

    def _message(self, operation: str, what: str) -> Sql:
        """Return words that SIGNAL takes; of a long name, the beginning is enough to find the table."""
        start = f"audit: {operation.upper()} on "
        name = ".".join(self.table)
        room = _MESSAGE_LENGTH - len(start) - len(what) - 1
        if len(name) > room:
            name = name[: max(room - 3, 0)] + "..."
        return text(f"{start}{name} {what}"[:_MESSAGE_LENGTH])

    def _record_id(self, row: str) -> Sql:
        """Return the key as the images hold it: in clear it must not be, where a policy masks it."""
        if not self.key:
            return sql("NULL")
        if len(self.key) == 1:
            (column,) = self.key
            return self._stored(column, row) if self.masked(column) else column.text_value(row)
        values = tuple(self._stored(column, row) for column in self.key)
        return sql("JSON_ARRAY({values})", values=Joined(", ", values))

    def _new_values(self, operation: str) -> Sql:
        if operation == "delete":
            return sql("NULL")
        if operation == "update" and self.policy.update_image == "changed":
            return self._changed_image()
        return self._image("NEW")

    def _stored(self, column: Column, row: str, unless: Sql | None = None) -> Sql:
        """Return what a record holds of a column; of a value in clear, NULL where a condition holds."""
        masked = self.masked(column)
        if masked == "redact":
            return sql("'[REDACTED]'")
        if masked == "hash":
            return sql(
                "{schema}.keyed_digest({value})", schema=Identifier.of(self.schema), value=self._digestible(column, row)
            )
        return column.value(row, unless)

    def _digestible(self, column: Column, row: str) -> Sql:
        if not column.is_long:
            return column.text_value(row)
        # The same limit in every table, so that equal values have equal digests.
        large = sql("{size} > {limit}", size=column.size(row), limit=sql(_LIMIT, share=Literal(_ROW_SHARE)))
        return sql(
            "IF({large}, {digest}, {value})",
            large=large,
            digest=column.digest(row),
            value=column.text_value(row, unless=large),
        )

    def _long(self) -> list[Column]:
        return [column for column in self._recorded() if column.is_long and not self.masked(column)]

    def _large(self, column: Column, row: str) -> Sql:
        """Return the condition that a value has more than its share."""
        limit = sql(_LIMIT, share=Literal(8 * max(2, len(self._long()))))
        return sql("COALESCE({size}, 0) > {limit}", size=column.size(row), limit=limit)

    def _row_is_large(self, row: str) -> Sql:
        sizes = tuple(sql("COALESCE({size}, 0)", size=column.size(row)) for column in self._long())
        return sql("{total} > {limit}", total=Joined(" + ", sizes), limit=sql(_LIMIT, share=Literal(_ROW_SHARE)))

    def _image(self, row: str) -> Sql:
        long = self._long()
        if not long:
            return self._object(row)
        omissions = tuple(
            sql(
                "IF({large}, CONCAT({name}, {omission}), NULL)",
                large=self._large(column, row),
                name=column.quoted_key(": "),
                omission=column.omission(row),
            )
            for column in long
        )
        return sql(
            _WITH_OMISSIONS,
            large=self._row_is_large(row),
            shortened=self._object(row, shortened=True),
            image=self._object(row),
            omissions=Joined(", ", omissions),
        )

    def _object(self, row: str, shortened: bool = False) -> Sql:
        """Return the image as an object, with `shortened` without the values that are too large."""
        long = self._long() if shortened else []
        pairs = tuple(
            sql(
                "{name}, {value}",
                name=column.key(),
                value=self._stored(column, row, self._large(column, row) if column in long else None),
            )
            for column in self._recorded()
        )
        return sql("JSON_OBJECT({pairs})", pairs=Joined(", ", pairs))

    def _changed_image(self) -> Sql:
        columns = self._recorded()
        if self.is_mariadb:
            parts = tuple(self._changed_part(column) for column in columns)
            return sql("CONCAT('{', CONCAT_WS(', ', {parts}), '}')", parts=Joined(",\n        ", parts))
        # MySQL reads a number out of a text as a DOUBLE, which has fewer digits than a DECIMAL. No column is called "".
        paths = tuple(
            sql("IF({same}, {path}, '$.\"\"')", same=column.same(self.is_mariadb), path=column.path())
            for column in columns
        )
        return sql("JSON_REMOVE({image},\n        {paths})", image=self._image("NEW"), paths=Joined(", ", paths))

    def _changed_part(self, column: Column) -> Sql:
        """Return a column's name and new value as text, or NULL where it has not changed."""
        value = sql("JSON_EXTRACT(JSON_ARRAY({value}), '$[0]')", value=self._stored(column, "NEW"))
        if column in self._long():
            value = sql(
                "IF({row} AND {large}, {omission}, {value})",
                row=self._row_is_large("NEW"),
                large=self._large(column, "NEW"),
                omission=column.omission("NEW"),
                value=value,
            )
        return sql(
            "IF({same}, NULL, CONCAT({name}, {value}))",
            same=column.same(self.is_mariadb),
            name=column.quoted_key(": "),
            value=value,
        )
