# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A rollout warns of triggers whose changes are recorded before the change that made them fire."""

from __future__ import annotations

import typing as t

from auditing import rollout, wanted
from databases import Database


def add_trigger(db: Database, table: str, name: str, body: str, when: str = "AFTER UPDATE", level: str = "ROW") -> None:
    """Make a table, if there is none, and a trigger with a function of its own."""
    db.execute(f'CREATE TABLE IF NOT EXISTS "{table}" (id int PRIMARY KEY, balance int, status text)')
    db.execute(
        f"""
        CREATE FUNCTION "{table}_{name}"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$;
        CREATE TRIGGER "{name}" {when} ON "{table}" FOR EACH {level} EXECUTE FUNCTION "{table}_{name}"();
        """
    )


def warned(db: Database, **policy: t.Any) -> list[str]:
    """Roll out, and return the warnings of a second run, which changes nothing."""
    first = rollout(db, policies=[wanted("public.*", **policy)]).get("warnings", [])
    again = rollout(db, policies=[wanted("public.*", **policy)])
    assert not again.changed
    assert again.get("warnings", []) == first
    return [str(warning) for warning in first]


def test_a_trigger_that_fires_before_ours_and_writes_to_its_table_is_warned_of_once(trail):
    add_trigger(trail, "acct", "check_overdraft", "UPDATE Acct SET status = 'blocked' WHERE id = NEW.id AND false")
    add_trigger(trail, "odd.(name", "CHECK", 'PERFORM FROM "odd.(name"', "AFTER INSERT OR DELETE")
    (warning,) = warned(trail)
    assert "public.acct (check_overdraft), public.odd.(name (CHECK). Such a change" in warning
    assert "ALTER TRIGGER ... RENAME TO zz_..." in warning
    trail.execute(
        'ALTER TRIGGER check_overdraft ON acct RENAME TO zz_a; ALTER TABLE "odd.(name" DISABLE TRIGGER "CHECK"'
    )
    assert warned(trail) == []


def test_other_triggers_make_no_noise(trail):
    add_trigger(trail, "acct", "a_log", "INSERT INTO acct_log VALUES (1); PERFORM FROM my_acct")
    add_trigger(trail, "acct", "a_before", "UPDATE acct SET status = ''", "BEFORE UPDATE")
    add_trigger(trail, "acct", "a_statement", "UPDATE acct SET status = '' WHERE false", level="STATEMENT")
    add_trigger(trail, "acct", "zz_late", "UPDATE acct SET status = '' WHERE false")
    assert warned(trail) == []
    (warning,) = warned(trail, capture="statement")
    assert "public.acct (zz_late). Such a change" in warning


def test_many_tables_are_counted(trail):
    for number in range(12):
        add_trigger(trail, f"t{number:02}", "a", f"UPDATE t{number:02} SET status = ''")
    (warning,) = warned(trail)
    assert "public.t09 (a) and 2 more. Such a change" in warning
