# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a trigger changes can be recorded before the change that made it fire: undo looks at what each of them found."""

from __future__ import annotations

import typing as t

import pytest
from auditing import records, rollout, wanted
from databases import Database, fetch
from undoing import kinds, now, rows, undo

BLOCK = "IF NEW.balance < 0 AND NEW.status = 'open' THEN UPDATE acct SET status = 'blocked' WHERE id = NEW.id; END IF"

FUNCTION = "FUNCTION app() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$"


def accounts(db: Database, body: str = BLOCK, name: str = "check_overdraft", **policy: t.Any) -> str:
    """Make an audited table of two accounts with a trigger of the application's; return the time after that."""
    db.execute(
        f"""
        CREATE TABLE acct (id int PRIMARY KEY, balance int, status text);
        CREATE {FUNCTION.format(body=body)};
        CREATE TRIGGER {name} AFTER INSERT OR UPDATE ON acct FOR EACH ROW EXECUTE FUNCTION app();
        """
    )
    rollout(db, policies=[wanted("public.*", **policy)])
    db.execute("INSERT INTO acct VALUES (1, 50, 'open'), (2, 9, 'open')")
    return now(db)


def together(db: Database, *statements: str) -> None:
    """Execute statements in one transaction."""
    session = db.connect(autocommit=False)
    for statement in statements:
        fetch(session, statement)
    session.commit()
    session.close()


def taken_back(db: Database, **options: t.Any) -> bool:
    """Tell whether an undo of everything brings the two accounts back, and another one finds nothing more to do."""
    result = undo(db, "public.acct", execute=True, **options)
    assert result["skipped"] == []
    again = undo(db, "public.acct", execute=True, **options)
    assert (again.changed, again["skipped"]) == (False, [])
    return rows(db, "acct") == ["(1,50,open)", "(2,9,open)"]


@pytest.mark.parametrize("policy", [{}, {"update_image": "changed"}, {"capture": "statement"}], ids=str)
@pytest.mark.parametrize("later", ["", "UPDATE acct SET balance = 7"], ids=["alone", "with later changes"])
def test_what_a_trigger_has_changed_before_its_cause_was_recorded(trail, policy, later):
    at = accounts(trail, **policy)
    trail.execute("UPDATE acct SET balance = -10")
    nested, cause = [entry for entry in records(trail) if entry.record_id == "1"][-2:]
    assert (nested.new_values["status"], cause.old_values["status"]) == ("blocked", "open")
    if later:
        trail.execute(later)
    assert taken_back(trail, to=at)


def test_one_transaction_and_one_user(trail):
    accounts(trail)
    trail.execute("UPDATE acct SET balance = -10")
    transaction = records(trail)[-1].transaction_id
    assert taken_back(trail, transaction_id=transaction)
    at = now(trail)
    trail.execute("UPDATE acct SET balance = -10")
    assert taken_back(trail, to=at, changed_by="postgres")


def test_a_trigger_that_fires_after_ours_meets_the_next_row_of_the_statement(trail):
    at = accounts(trail, "IF NEW.balance < 0 THEN UPDATE acct SET balance = 0 WHERE balance < 0; END IF", "zz_repair")
    trail.execute("UPDATE acct SET balance = -id")
    assert taken_back(trail, to=at)


def test_records_that_came_and_went(trail):
    at = accounts(trail)
    trail.execute("INSERT INTO acct VALUES (3, -1, 'open'), (4, 1, 'open')")
    together(trail, "INSERT INTO acct VALUES (5, -1, 'open')", "DELETE FROM acct WHERE id = 5")
    together(trail, "INSERT INTO acct VALUES (6, -1, 'open')", "UPDATE acct SET balance = -2", "DELETE FROM acct")
    assert kinds(undo(trail, "public.acct", to=at)) == [("2", "deleted", "INSERT"), ("1", "deleted", "INSERT")]
    assert taken_back(trail, to=at)


def test_columns_that_are_not_in_the_log_do_not_count(trail):
    at = accounts(trail, columns={"hash": ["balance"]})
    trail.execute("UPDATE acct SET balance = -10")
    result = undo(trail, "public.acct", to=at)
    assert (kinds(result), result["skipped"]) == ([("2", "changed", "UPDATE"), ("1", "changed", "UPDATE")], [])
    assert all("SET \"status\" = 'open'" in statement for statement in result["statements"])


RESET = "IF NEW.balance < 0 THEN UPDATE acct SET balance = 50 WHERE id = NEW.id; END IF"


def test_a_ring_begins_where_the_next_change_found_it_to_end(trail):
    at = accounts(trail, RESET)
    trail.execute("UPDATE acct SET balance = -10 WHERE id = 1")
    trail.execute("UPDATE acct SET status = 'gold' WHERE id = 1")
    assert taken_back(trail, to=at)
    together(trail, "UPDATE acct SET balance = 3 WHERE id = 2", "UPDATE acct SET balance = 9 WHERE id = 2")
    assert taken_back(trail, to=at)


def test_what_is_not_certain_is_left_alone_and_named(trail):
    at = accounts(trail, RESET)
    trail.execute("UPDATE acct SET balance = -10 WHERE id = 1")
    trail.execute("UPDATE acct SET balance = 4 WHERE id = 2")
    one, other, _last = records(trail)[-3:]
    result = undo(trail, "public.acct", to=at, execute=True)
    assert kinds(result) == [("2", "changed", "UPDATE")]
    (skip,) = result["skipped"]
    assert skip["record_id"] == "1"
    assert skip["reason"] == (
        f"the order of its changes by transaction {one.transaction_id} is not certain: records {one.id} and {other.id} "
        "of the log (either may have come first; a trigger that changes its own table?); read them with "
        "postgresql_audit_events and restore it by hand"
    )
    assert rows(trail, "acct") == ["(1,50,open)", "(2,9,open)"]


def test_a_gap_is_told_from_a_wrong_order(trail):
    at = accounts(trail, "NULL", when="NEW.balance < 100", operations=["insert", "update"])
    together(trail, *(f"UPDATE acct SET balance = {balance} WHERE id = 1" for balance in (60, 200, 70)))
    assert taken_back(trail, to=at)
    at = now(trail)
    trail.execute(f"CREATE OR REPLACE {FUNCTION.format(body=BLOCK)}")
    steps = ("balance = 60", "balance = 200", "balance = 70", "balance = -10")
    together(trail, *(f"UPDATE acct SET {step} WHERE id = 1" for step in steps))
    before = rows(trail, "acct")
    (skip,) = undo(trail, "public.acct", to=at, execute=True)["skipped"]
    assert "the later one does not begin as the earlier one ends" in skip["reason"]
    assert rows(trail, "acct") == before
