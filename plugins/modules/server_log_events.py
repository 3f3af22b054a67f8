#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: server_log_events
short_description: Ask a database server's own logs who read what, logged in, or was refused
description:
  - Reads the log files of a PostgreSQL or MariaDB server and returns what they have recorded beside the changes of
    rows, namely statements that pgaudit or server_audit has logged, refusals for want of a right, logins, failed ones
    too, and their ends. The events have the same fields as those of M(dbfleet.audit.postgresql_audit_events).
  - It needs no database, and no more than the right to read the files. Each file is read once, line by line, however
    large it is.
  - Logins, their ends, and refusals without an SQLSTATE are recognised by their English messages (C(lc_messages) C(C)
    or C(en_US)). Refusals in a csvlog, a jsonlog or with C(%e) in the prefix, and pgaudit's entries, are recognised in
    every language.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
attributes:
  check_mode:
    description:
      - Reads as always. With O(dest), what the file would hold is compared with the one that is there, and nothing is
        written.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  paths:
    description:
      - Log files of one server, or globs for them; C(**) matches any directories. They may be compressed with gzip.
      - They are read in the order in which they were last written to. Name only one format of a server that writes its
        log in several at once, or each event comes once for every format.
    type: list
    elements: path
    required: true
  log_format:
    description:
      - Format of the files. V(auto) tells it from the first lines of each. V(csvlog) is the one with 26 columns of
        PostgreSQL 14 and newer, V(server_audit) the one of MariaDB's plugin in a file (not through syslog).
      - Of PostgreSQL's formats, V(stderr) is the weakest evidence. A user can put text into the name of a role or an
        application that looks like the rest of a line, and what the prefix does not hold is not known. In V(csvlog) and
        V(jsonlog) nothing can be mistaken.
    type: str
    choices: [auto, stderr, csvlog, jsonlog, server_audit]
    default: auto
  log_line_prefix:
    description:
      - The server's setting of that name (C(SHOW log_line_prefix)), for files of the format V(stderr). It must have a
        time (C(%m), C(%t) or C(%n)).
      - What the prefix does not say of a session (C(%u), C(%d), C(%h), C(%a)) is taken from the lines of its connection
        where C(log_connections) is on and the prefix has C(%p).
    type: str
    default: "%m [%p] "
  time_zone:
    description:
      - Zone of times that do not say it themselves, as V(Europe/Berlin) or V(+02:00). PostgreSQL writes abbreviations
        such as C(CET), which mean different things in different places; UTC and numbers need no zone. MariaDB writes
        the local time of its process and no zone at all.
      - Unless set, it is the zone of the host that runs the module. An abbreviation that the zone does not use is an
        error. Of the hour that MariaDB's clock goes through twice in autumn, the first is assumed.
    type: str
  table:
    description:
      - Name of the table, or C(schema.table), on MariaDB C(database.table), as events name it.
      - An event for which the server names no table matches where its statement has the table's name as a word, and a
        refusal, for which PostgreSQL names no schema, by the table's name alone.
    type: str
  db_user:
    description: The login that ran the statement.
    type: str
  database:
    description:
      - The database that the session was connected to; of an event about a table on MariaDB, the table's. An event for
        which the log names no database matches too.
    type: str
  actions:
    description:
      - What was done, in upper or lower case. V(READ), V(WRITE), V(FUNCTION), V(ROLE), V(DDL) and V(MISC) are pgaudit's
        classes, which MariaDB's statements are sorted into as well; V(LOGIN) (RV(ignore:success) in C(new_values) is
        false for a failed one), V(LOGOUT), and V(DENIED) for a statement that was refused for want of a right.
    type: list
    elements: str
  since:
    description:
      - The earliest time, included. A date or date-time of ISO 8601, in UTC where it names no zone, or an interval back
        from now on the host that runs the module (V(30s), V(90m), V(24h), V(7d), V(4w)).
    type: str
  until:
    description: The time, in the same forms, at which the range ends; an event at that very time is left out.
    type: str
  limit:
    description: How many events to return at most, 1 to 10000, the latest ones. An export has no limit.
    type: int
    default: 1000
  dest:
    description:
      - Path of a file on the host that runs the module, to write all events that match to, instead of returning them,
        in the order of the logs. Its directory must exist. The file can be read by its owner alone (mode 0600), and
        appears under its name when it is complete.
    type: path
  format:
    description:
      - Format of O(dest), as that of M(dbfleet.audit.postgresql_audit_events). V(jsonl) is one JSON object a
        line, V(csv) RFC 4180 with a header.
    type: str
    choices: [jsonl, csv]
    default: jsonl
notes:
  - pgaudit logs a statement before it is run, so that RV(ignore:success) says that it was allowed to begin.
  - Passwords after C(PASSWORD) and C(IDENTIFIED BY), and values of columns whose names say C(password), C(secret),
    C(token) and the like, are replaced by C([REDACTED]) in statements where the server has not done so. Parameters that
    C(pgaudit.log_parameter) has logged are returned as they are.
seealso:
  - module: dbfleet.audit.postgresql_audit_events
  - module: dbfleet.audit.mysql_audit_events
  - module: dbfleet.audit.postgresql_pgaudit
  - module: dbfleet.audit.mysql_audit_plugin
"""

EXAMPLES = r"""
- name: Who has read the customers this week, and who was not allowed to?
  dbfleet.audit.server_log_events:
    paths: [/var/log/postgresql/postgresql-17-main.log*]
    log_line_prefix: "%m [%p] %q%u@%d %h %a "
    table: public.customers
    actions: [read, denied]
    since: 7d
  register: reads

- name: Failed logins and refusals on a MariaDB server, all that there are, into a file
  dbfleet.audit.server_log_events:
    paths: [/var/lib/mysql/server_audit.log*]
    time_zone: Europe/Berlin
    actions: [login, denied]
    dest: /var/tmp/refusals.jsonl
"""

RETURN = r"""
events:
  description:
    - The latest events that match, oldest first. Times are UTC. A field that the log does not have is none; C(id),
      C(record_id) and C(old_values) always are, for a log does not say which rows a statement has met.
    - C(new_values) has C(event) (the command), C(statement), C(success), and where they are known C(parameters),
      C(rows), C(failure_reason) and C(session_seconds).
    - C(context) has C(source) (C(pgaudit), C(server log) or C(server_audit)), and where they are known C(audit_type)
      (C(OBJECT) for an access to one table, C(SESSION) for a statement), C(database), C(process_id), C(session_id),
      C(statement_id), C(substatement_id), C(object_type), C(object_name), C(sqlstate), C(error_code) and
      C(server_host).
  returned: without O(dest)
  type: list
  elements: dict
  sample:
    - id: null
      changed_at: "2026-11-21T19:14:24.875000Z"
      transaction_id: null
      action: READ
      schema_name: public
      table_name: customers
      record_id: null
      old_values: null
      new_values: {"event": "SELECT", "statement": "SELECT name FROM customers WHERE id = 17", "success": true}
      changed_columns: null
      changed_by: ann
      db_user: ann
      client_ip: 192.0.2.7
      application_name: psql
      context: {"source": "pgaudit", "audit_type": "OBJECT", "statement_id": 1, "substatement_id": 1,
        "object_type": "TABLE", "object_name": "public.customers", "database": "shop", "process_id": 25374}
      policy_id: null
total:
  description: How many events match.
  returned: without O(dest)
  type: int
  sample: 1
files:
  description:
    - The files in the order in which they were read, with their C(format), and how many C(lines), C(events) that match
      and C(unparsed) lines they have. C(incomplete) is true for one whose last record has no end, because the server
      was writing it.
  returned: success
  type: list
  elements: dict
  sample: [{"path": "/var/log/postgresql/postgresql-17-main.log", "format": "stderr", "lines": 90210, "events": 1,
    "unparsed": 0, "incomplete": false}]
unparsed:
  description:
    - How many lines are none of their file's format, and the first of them with C(path), C(line) and C(text). A file
      without any line of its format is an error.
  returned: success
  type: dict
  sample: {"count": 1, "samples": [{"path": "/var/log/postgresql/postgresql-17-main.log", "line": 7,
    "text": "cp: cannot stat 'x'"}]}
dest:
  description: Path of the file.
  returned: with O(dest)
  type: str
  sample: /var/tmp/refusals.jsonl
written:
  description: How many events are in the file, or in check mode would be.
  returned: with O(dest)
  type: int
  sample: 1234
size:
  description: Size of the file, in bytes.
  returned: with O(dest)
  type: int
  sample: 987654
sha256:
  description: SHA-256 of the file, in hexadecimal digits.
  returned: with O(dest)
  type: str
  sample: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.05
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dbfleet.audit.plugins.module_utils._server_log.module import SERVER_LOG_SPEC, gather


def main() -> None:
    gather(AnsibleModule(SERVER_LOG_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
