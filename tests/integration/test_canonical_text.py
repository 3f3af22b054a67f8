# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The canonical text of a row is one line of JSON that says what the row says, whatever characters are in it."""

from __future__ import annotations

import json

from databases import Database

_TEXTS = ("action", "schema_name", "table_name", "record_id", "changed_by", "db_user", "application_name")

# Each character once alone in one text column, the others being plain, and once in all of them.
_FILL = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id, changed_by,
                                  db_user, application_name, hidden_changes)
SELECT now(), '7', t[1], t[2], nullif(t[3], 'plain'), t[4], t[5], t[6], t[7], CASE WHEN n % 2 = 0 THEN ARRAY[chr(n)] END
FROM generate_series(1, 300) AS n
CROSS JOIN generate_series(1, 8) AS place
CROSS JOIN LATERAL (
  SELECT array_agg(CASE WHEN place IN (i, 8) THEN 'a' || chr(n) ELSE 'plain' END ORDER BY i) AS t
  FROM generate_series(1, 7) AS i) AS texts
"""


def test_every_character_is_kept_in_every_text(trail: Database) -> None:
    trail.execute(_FILL)
    rows = trail.execute(
        f"SELECT audit.canonical(r), {', '.join(_TEXTS)}, hidden_changes FROM audit.audit_log_data AS r "
        "WHERE transaction_id = '7'"
    )
    assert len(rows) == 300 * 8
    for text, *values in rows:
        assert "\n" not in text
        said = json.loads(text)
        assert [said.get(name) for name in (*_TEXTS, "hidden_changes")] == values


def test_texts_that_need_an_escape_and_those_that_do_not_are_written_alike(trail: Database) -> None:
    trail.execute(_FILL)
    # Text by text with to_json(), which is slower and what the fast way has to equal. These are side by side.
    for names in (("action", "changed_by", "db_user"), ("application_name", "schema_name", "table_name", "record_id")):
        named = " || ".join(f"coalesce(',\"{name}\":' || to_json(r.{name})::text, '')" for name in names)
        different = trail.value(
            f"SELECT count(*) FROM audit.audit_log_data AS r WHERE strpos(audit.canonical(r), {named}) = 0"
        )
        assert different == 0
