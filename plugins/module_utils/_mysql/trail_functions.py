# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The routines that every trail has, whatever its policies. ``{schema}`` is the trail's database."""

from __future__ import annotations

from .._core.policy import SENSITIVE_PATTERN
from .._core.schema_version import FUNCTION, SCHEMA_VERSION
from .._core.sql import Identifier, Literal, sql
from .accounts import OWNER
from .capture import CHANGED_AT, CLIENT_HOST, DB_USER
from .partition_plan import partition_statement
from .routine import Routine, verbatim
from .trail_options import TrailOptions
from .trail_tables import LOG, NAMED_ID

_TEXT = "LONGTEXT CHARACTER SET utf8mb4"

#: The procedure of a trail on MySQL that waits until LOCK TABLES will not have to.
AWAIT_WRITERS = "await_writers"

# Never raises: what an application put into its variables must not break its writes. What cannot be read is named
# under "unreadable", so that it does not go unnoticed either.
_CURRENT_CONTEXT = """
BEGIN
  DECLARE v_text LONGTEXT CHARACTER SET utf8mb4;
  DECLARE v_context LONGTEXT CHARACTER SET utf8mb4 DEFAULT '{}';
  DECLARE v_user, v_unreadable TEXT CHARACTER SET utf8mb4;
  BEGIN
    DECLARE EXIT HANDLER FOR SQLEXCEPTION SET v_unreadable = '@audit_context', v_context = '{}', v_user = NULL;
    SET v_text = CONVERT(@audit_context USING utf8mb4);
    IF v_text IS NULL OR OCTET_LENGTH(v_text) > 65536 OR NOT JSON_VALID(v_text) THEN
      SET v_unreadable = IF(COALESCE(OCTET_LENGTH(@audit_context), 0) = 0, NULL, '@audit_context');
    ELSEIF JSON_TYPE(v_text) = 'OBJECT' THEN
      SET v_context = {schema}.snake_case(v_text);
    ELSEIF JSON_TYPE(v_text) IN ('STRING', 'INTEGER') THEN
      SET v_user = JSON_UNQUOTE(v_text);
    ELSE
      SET v_unreadable = '@audit_context';
    END IF;
  END;
  BEGIN
    DECLARE EXIT HANDLER FOR SQLEXCEPTION SET v_unreadable = CONCAT_WS('", "', v_unreadable, '@audit_user');
    SET v_text = CONVERT(@audit_user USING utf8mb4);
    IF v_text <> '' THEN
      SET v_user = v_text;
    ELSEIF v_text IS NULL AND OCTET_LENGTH(@audit_user) > 0 THEN
      SET v_unreadable = CONCAT_WS('", "', v_unreadable, '@audit_user');
    END IF;
  END;
  IF v_unreadable IS NOT NULL THEN
    SET v_context = JSON_SET(v_context, '$.unreadable', JSON_EXTRACT(CONCAT('["', v_unreadable, '"]'), '$'));
  END IF;
  SET v_user = COALESCE(v_user,
    JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.user')), JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.user_id')),
    JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.username')), JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.sub')),
    JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.user_email')), JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.email')),
    JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.id')));
  SET v_context = JSON_REMOVE(v_context, '$.user');
  IF v_user <> '' THEN
    SET v_context = JSON_SET(v_context, '$.user', LEFT(v_user, 500));
  END IF;
  IF OCTET_LENGTH(@audit_transaction) IS NOT NULL AND JSON_EXTRACT(v_context, '$.transaction_id') IS NULL THEN
    SET v_context = JSON_SET(v_context, '$.transaction_id', LEFT(CONVERT(@audit_transaction USING utf8mb4), 64));
  END IF;
  RETURN {schema}.fitting(v_context);
END
"""

# The columns of the log that a context can fill are no longer than this.
_FITTING = """
BEGIN
  IF CHAR_LENGTH(JSON_UNQUOTE(JSON_EXTRACT(context, '$.ip_address'))) > 255 THEN
    SET context = JSON_SET(context, '$.ip_address', LEFT(JSON_UNQUOTE(JSON_EXTRACT(context, '$.ip_address')), 255));
  END IF;
  IF CHAR_LENGTH(JSON_UNQUOTE(JSON_EXTRACT(context, '$.application_name'))) > 255 THEN
    SET context = JSON_SET(context, '$.application_name',
      LEFT(JSON_UNQUOTE(JSON_EXTRACT(context, '$.application_name')), 255));
  END IF;
  IF CHAR_LENGTH(JSON_UNQUOTE(JSON_EXTRACT(context, '$.transaction_id'))) > 64 THEN
    SET context = JSON_SET(context, '$.transaction_id',
      LEFT(JSON_UNQUOTE(JSON_EXTRACT(context, '$.transaction_id')), 64));
  END IF;
  RETURN context;
END
"""

# userId becomes user_id; a key without a value says nothing.
_SNAKE_CASE = """
BEGIN
  DECLARE v_keys LONGTEXT CHARACTER SET utf8mb4 DEFAULT JSON_KEYS(value);
  DECLARE v_result LONGTEXT CHARACTER SET utf8mb4 DEFAULT '{}';
  DECLARE v_key TEXT CHARACTER SET utf8mb4;
  DECLARE v_number INT DEFAULT 0;
  WHILE v_number < JSON_LENGTH(v_keys) DO
    SET v_key = JSON_UNQUOTE(JSON_EXTRACT(v_keys, CONCAT('$[', v_number, ']')));
    IF JSON_TYPE(JSON_EXTRACT(value, CONCAT('$.', JSON_QUOTE(v_key)))) <> 'NULL' THEN
      SET v_result = JSON_SET(v_result,
        CONCAT('$.', JSON_QUOTE(LOWER(REGEXP_REPLACE(v_key, {pattern}, {replacement})))),
        JSON_EXTRACT(value, CONCAT('$.', JSON_QUOTE(v_key))));
    END IF;
    SET v_number = v_number + 1;
  END WHILE;
  RETURN v_result;
END
"""

# MariaDB's regular expressions are Perl's, MySQL's are those of ICU; a backslash stands for itself in no sql_mode.
_CAMEL = {
    "mariadb": ("'(?-i)([a-z0-9])([A-Z])'", "CONCAT(x'5C', '1_', x'5C', '2')"),
    "mysql": ("'(?-i)([a-z0-9])([A-Z])'", "'$1_$2'"),
}

_SET_CONTEXT = """
BEGIN
  IF context IS NULL THEN
    SET @audit_context = NULL, @audit_user = NULL, @audit_transaction = NULL;
  ELSEIF NOT JSON_VALID(context) OR JSON_TYPE(context) <> 'OBJECT' THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit: set_context() takes a JSON object such as {"user": "ann"}';
  ELSEIF OCTET_LENGTH(context) > 65536 THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit: set_context() takes 64 kB';
  ELSE
    SET @audit_context = context, @audit_user = NULL, @audit_transaction = UUID_SHORT();
  END IF;
END
"""

# An application that logs a password reset must not log the password; keys deeper down are its own affair.
_WITH_ENTRIES = """
BEGIN
  DECLARE v_keys LONGTEXT CHARACTER SET utf8mb4 DEFAULT JSON_KEYS(entries);
  DECLARE v_key, v_path TEXT CHARACTER SET utf8mb4;
  DECLARE v_number INT DEFAULT 0;
  WHILE v_number < JSON_LENGTH(v_keys) DO
    SET v_key = JSON_UNQUOTE(JSON_EXTRACT(v_keys, CONCAT('$[', v_number, ']')));
    SET v_path = CONCAT('$.', JSON_QUOTE(v_key)), v_number = v_number + 1;
    IF LOWER(v_key) REGEXP {sensitive} AND JSON_TYPE(JSON_EXTRACT(entries, v_path)) NOT IN
      ('OBJECT', 'ARRAY', 'BOOLEAN', 'NULL') THEN
      SET document = JSON_SET(document, v_path, '[REDACTED]');
    ELSE
      SET document = JSON_SET(document, v_path, JSON_EXTRACT(entries, v_path));
    END IF;
  END WHILE;
  RETURN document;
END
"""

_LOG_EVENT = """
BEGIN
  DECLARE v_old, v_new, v_metadata LONGTEXT CHARACTER SET utf8mb4;
  DECLARE v_context LONGTEXT CHARACTER SET utf8mb4 DEFAULT {schema}.current_context();
  IF COALESCE(action, '') = '' THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit: log_event() needs an action, for example login_failed';
  ELSEIF OCTET_LENGTH(CONCAT_WS('', action, resource_type, resource_id)) > 2000 OR OCTET_LENGTH(metadata) > 1048576 THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit: log_event() takes 2 kB of names and 1 MB of metadata';
  ELSEIF NOT JSON_VALID(COALESCE(metadata, '{}')) THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit: the metadata of log_event() are no JSON';
  END IF;
  SET v_metadata = IF(JSON_TYPE(COALESCE(metadata, '{}')) = 'OBJECT', COALESCE(metadata, '{}'),
    JSON_SET('{}', '$.metadata', JSON_EXTRACT(metadata, '$')));
  SET v_old = JSON_EXTRACT(v_metadata, '$.old_values'), v_new = JSON_EXTRACT(v_metadata, '$.new_values');
  IF COALESCE(JSON_TYPE(v_old), 'NULL') NOT IN ('OBJECT', 'NULL')
    OR COALESCE(JSON_TYPE(v_new), 'NULL') NOT IN ('OBJECT', 'NULL') THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit: log_event() takes JSON objects as old_values and new_values';
  END IF;
  INSERT INTO {schema}.audit_log_data ({id}changed_at, transaction_id, action, table_name, record_id, old_values,
    new_values, changed_by, db_user, client_ip, application_name, context)
  VALUES ({next_id}{changed_at}, JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.transaction_id')), 'EVENT', resource_type,
    resource_id,
    IF(JSON_TYPE(v_old) = 'OBJECT', {schema}.with_entries('{}', v_old), NULL),
    JSON_SET({schema}.with_entries(
      {schema}.with_entries('{}', JSON_REMOVE(v_metadata, '$.old_values', '$.new_values')),
      IF(JSON_TYPE(v_new) = 'OBJECT', v_new, '{}')),
      '$.event', action, '$.success', JSON_EXTRACT(IF(COALESCE(success, TRUE), 'true', 'false'), '$')),
    COALESCE(JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.user')), {db_user}), {db_user},
    COALESCE(JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.ip_address')), {client_host}),
    JSON_UNQUOTE(JSON_EXTRACT(v_context, '$.application_name')),
    NULLIF(CAST(JSON_REMOVE(v_context, '$.user', '$.ip_address', '$.application_name', '$.transaction_id') AS CHAR),
      '{}'));
END
"""

_KEYED_DIGEST = """
RETURN (
  SELECT CONCAT('hmac-sha256:',
    SHA2(CONCAT(k.outer_pad, UNHEX(SHA2(CONCAT(k.inner_pad, CAST(value AS BINARY)), 256))), 256))
  FROM {schema}.hash_key AS k
)
"""

# JSON_MERGE_PATCH() would take a NULL in the changes for a column that is gone; as text, MySQL would take exact numbers
# for floating ones.
_OVERLAY = """
BEGIN
  DECLARE v_keys LONGTEXT CHARACTER SET utf8mb4 DEFAULT JSON_KEYS(changes);
  DECLARE v_path TEXT CHARACTER SET utf8mb4;
  DECLARE v_number INT DEFAULT 0;
  IF JSON_LENGTH(changes) = JSON_LENGTH(image) THEN
    RETURN changes;
  END IF;
  WHILE v_number < JSON_LENGTH(v_keys) DO
    SET v_path = CONCAT('$.', JSON_EXTRACT(v_keys, CONCAT('$[', v_number, ']')));
    SET image = JSON_SET(image, v_path, JSON_EXTRACT(changes, v_path)), v_number = v_number + 1;
  END WHILE;
  RETURN image;
END
"""

# The interval and the number of periods are those that the last rollout asked for.
_MAINTAIN = """
BEGIN
  DECLARE v_period VARCHAR(8) CHARACTER SET utf8mb4;
  DECLARE v_ahead INT;
  DECLARE v_wait INT DEFAULT @@session.lock_wait_timeout;
  DECLARE v_length BIGINT DEFAULT @@session.group_concat_max_len;
  DECLARE EXIT HANDLER FOR SQLEXCEPTION
  BEGIN
    SET SESSION lock_wait_timeout = v_wait, SESSION group_concat_max_len = v_length;
    DO RELEASE_LOCK('dbfleet.audit');
    RESIGNAL;
  END;
  IF @@global.read_only = 0 THEN
    IF GET_LOCK('dbfleet.audit', 60) <> 1 THEN
      SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit: no partitions were made: another run is changing this server';
    END IF;
    SET SESSION lock_wait_timeout = 2, SESSION group_concat_max_len = 1048576;
    SELECT s.value INTO v_period FROM {schema}.setting AS s WHERE s.name = 'partition_interval';
    SELECT s.value INTO v_ahead FROM {schema}.setting AS s WHERE s.name = 'partition_ahead';
    SET @dbfleet_audit_statement = {statement};
    IF @dbfleet_audit_statement IS NOT NULL THEN
      PREPARE dbfleet_audit_maintain FROM @dbfleet_audit_statement;
      EXECUTE dbfleet_audit_maintain;
      DEALLOCATE PREPARE dbfleet_audit_maintain;
    END IF;
    SET SESSION lock_wait_timeout = v_wait, SESSION group_concat_max_len = v_length;
    DO RELEASE_LOCK('dbfleet.audit');
  END IF;
END
"""


# LOCK TABLES of a table with a trigger locks the log as well in MySQL, and who waits for that makes every audited
# change wait behind it. So it is not asked for while a transaction that has been open for long holds the log.
# Whoever reads innodb_trx more often than every 0.1 s reads the same copy again (MySQL, trx0i_s.cc), in which a busy
# connection's transactions grow old.
_AWAIT_WRITERS = """
BEGIN
  DECLARE v_until DATETIME(6) DEFAULT SYSDATE(6) + INTERVAL @@session.lock_wait_timeout SECOND;
  WHILE (
    SELECT COUNT(*)
    FROM performance_schema.metadata_locks AS l
    JOIN performance_schema.threads AS t ON t.thread_id = l.owner_thread_id
    JOIN information_schema.innodb_trx AS x ON x.trx_mysql_thread_id = t.processlist_id
    WHERE l.object_schema = {schema_name} AND l.object_name = {table_name} AND l.lock_status = 'GRANTED'
      AND t.processlist_id <> CONNECTION_ID()
      AND x.trx_started < CONVERT_TZ(SYSDATE(), @@session.time_zone, 'SYSTEM') - INTERVAL 1 SECOND
  ) > 0 DO
    IF SYSDATE(6) > v_until THEN
      SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205, MESSAGE_TEXT = 'a long transaction holds the log';
    END IF;
    DO SLEEP(0.15);
  END WHILE;
END
"""


def trail_routines(options: TrailOptions, vendor: str) -> list[Routine]:
    """Return the routines of a trail, in the order in which they need each other."""
    schema = options.schema
    place = {"schema": Identifier.of(schema)}
    pattern, replacement = _CAMEL[vendor]
    who = {"changed_at": sql(CHANGED_AT), "client_host": sql(CLIENT_HOST), "db_user": sql(DB_USER)}
    column, value = NAMED_ID[vendor]
    named_id = {"id": sql(column), "next_id": sql(value, **place)}
    statement = partition_statement(schema, LOG, sql("v_period"), sql("v_ahead"), sql("at"))
    names = {"schema_name": Literal(schema), "table_name": Literal(LOG)}
    patience = Routine(AWAIT_WRITERS, sql(_AWAIT_WRITERS.strip(), **names), access="READS SQL DATA", security="INVOKER")
    return [
        *([patience] if vendor == "mysql" else []),
        Routine(FUNCTION, verbatim(f"BEGIN RETURN {SCHEMA_VERSION}; END"), "", "INT", executors=options.readers),
        Routine(
            "snake_case",
            sql(_SNAKE_CASE.strip(), pattern=sql(pattern), replacement=sql(replacement)),
            f"value {_TEXT}",
            _TEXT,
        ),
        Routine("fitting", verbatim(_FITTING), f"context {_TEXT}", _TEXT),
        Routine("current_context", sql(_CURRENT_CONTEXT.strip(), **place), "", _TEXT),
        Routine(
            "set_context",
            verbatim(_SET_CONTEXT),
            f"IN context {_TEXT}",
            executors=options.applications,
        ),
        Routine(
            "with_entries",
            sql(_WITH_ENTRIES.strip(), sensitive=Literal(SENSITIVE_PATTERN)),
            f"document {_TEXT}, entries {_TEXT}",
            _TEXT,
        ),
        Routine(
            "log_event",
            sql(_LOG_EVENT.strip(), **who, **named_id, **place),
            "IN action TEXT CHARACTER SET utf8mb4, IN resource_type TEXT CHARACTER SET utf8mb4, "
            f"IN resource_id TEXT CHARACTER SET utf8mb4, IN success BOOLEAN, IN metadata {_TEXT}",
            access="MODIFIES SQL DATA",
            executors=options.applications if "app" in options.events else (),
        ),
        Routine(
            "keyed_digest",
            sql(_KEYED_DIGEST.strip(), **place),
            f"value {_TEXT}",
            "TEXT CHARACTER SET utf8mb4",
            access="READS SQL DATA",
        ),
        Routine("overlay", verbatim(_OVERLAY), "image JSON, changes JSON", "JSON", executors=options.readers),
        Routine(
            "maintain_partitions_at",
            sql(_MAINTAIN.strip(), statement=statement, **place),
            "IN at DATETIME(6)",
            access="MODIFIES SQL DATA",
            definer=OWNER,
        ),
        Routine(
            "maintain_partitions",
            sql("CALL {schema}.maintain_partitions_at(UTC_TIMESTAMP(6))", **place),
            access="MODIFIES SQL DATA",
            definer=OWNER,
        ),
    ]
