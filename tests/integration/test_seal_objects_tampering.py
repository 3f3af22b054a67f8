# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a superuser does to what records and to the whole database, and how they would hide it; all of it is named."""

from __future__ import annotations

import pathlib

import pytest
from auditing import rollout, wanted
from databases import Database, fetch
from tampering import SealedLog, unseen


@pytest.fixture
def own_log(trail: Database, tmp_path: pathlib.Path) -> SealedLog:
    """Return a sealed log of a database of its own, whose triggers and functions may change."""
    made = SealedLog(trail, tmp_path)
    made.change(1, 20)
    made.sealer.seal()
    return made


def test_a_database_rolled_back_to_an_older_copy_is_named(own_log: SealedLog) -> None:
    older = Database(own_log.db.server)
    older.drop()
    own_log.db.disconnect()
    own_log.db._on_server("CREATE DATABASE {} TEMPLATE {}", older.name, own_log.db.name)
    try:
        own_log.change(101, 120)
        own_log.sealer.seal()
        own_log.sealer.login["login_db"] = older.name
        assert own_log.problems() == [("missing_block", 3, None)]
        assert (
            "the ledger has seals up to 3, the database lacks those from 3: it was restored to an earlier time"
            in own_log.sealer.refusal()
        )
    finally:
        own_log.db._on_server("DROP DATABASE {} WITH (FORCE)", older.name)


CAPTURE = (
    "SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid) FROM pg_proc AS p WHERE p.proname LIKE 'capture%'"
)


@pytest.mark.parametrize("put_back", [False, True])
def test_a_capture_function_that_skipped_a_user_is_named(own_log: SealedLog, put_back: bool) -> None:
    name, definition = own_log.db.execute(CAPTURE)[0]
    assert "BEGIN\n" in definition
    skipping = definition.replace("BEGIN\n", "BEGIN\n  IF session_user = 'eve' THEN RETURN NULL; END IF;\n", 1)
    with unseen(own_log.db) as connection:
        fetch(connection, skipping)
        fetch(connection, "INSERT INTO item VALUES (666)")
        if put_back:
            fetch(connection, definition)
    object_name = f"function {name.split('.')[1].split('(')[0]}"
    change = "was replaced" if put_back else "was altered"
    before = [text for text in own_log.details() if text.startswith(object_name) and "log has no" in text]
    assert before == [f"{object_name} {change} after the last seal, and the log has no record of who did it"]
    own_log.sealer.seal()
    found, texts = own_log.found()
    after = [text for text in texts if text.startswith(object_name) and "log has no" in text]
    number = own_log.headers()[-1]["number"]
    assert after == [f"{object_name} {change} before seal {number}, and the log has no record of who did it"]
    assert ("altered" in {kind for kind, _block, _id in found}) != put_back


TRIGGER_OFF = {
    "disabled": ("ALTER TABLE item DISABLE TRIGGER dbfleet_audit_insert",
                 "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_insert"),
    "disabled in the catalogue": (
        "UPDATE pg_trigger SET tgenabled = 'D' WHERE tgname = 'dbfleet_audit_insert'",
        "UPDATE pg_trigger SET tgenabled = 'A' WHERE tgname = 'dbfleet_audit_insert'"),
    "dropped": ("DROP TRIGGER dbfleet_audit_insert ON item", "{definition}",
                "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_insert"),
}  # fmt: skip


@pytest.mark.parametrize("statements", TRIGGER_OFF.values(), ids=TRIGGER_OFF.keys())
def test_a_trigger_that_was_off_for_a_while_is_named(own_log: SealedLog, statements: tuple[str, ...]) -> None:
    query = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'dbfleet_audit_insert'"
    definition = own_log.db.value(query)
    with unseen(own_log.db) as connection:
        fetch(connection, statements[0])
        fetch(connection, "INSERT INTO item VALUES (666)")
        for statement in statements[1:]:
            fetch(connection, statement.format(definition=definition))
    expected = "trigger dbfleet_audit_insert on public.item was replaced {}, and the log has no record of who did it"
    assert own_log.details() == [expected.format("after the last seal")]
    own_log.sealer.seal()
    number = own_log.headers()[-1]["number"]
    assert own_log.details() == [expected.format(f"before seal {number}")]
    assert own_log.problems() == [("altered_between_seals", number, None)]


def test_a_trigger_that_is_gone_while_its_table_has_another_name_is_named(own_log: SealedLog) -> None:
    """What went with its table is nothing to explain; a table that was renamed still has its triggers."""
    made = own_log.db.value("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'dbfleet_audit_insert'")
    with unseen(own_log.db) as connection:
        fetch(connection, "DROP TRIGGER dbfleet_audit_insert ON item")
        fetch(connection, "ALTER TABLE item RENAME TO other")
    own_log.sealer.seal()
    with unseen(own_log.db) as connection:
        fetch(connection, "ALTER TABLE other RENAME TO item")
        fetch(connection, made)
        fetch(connection, "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_insert")
    own_log.sealer.seal()
    said = [problem["detail"] for problem in own_log.sealer.verify()["problems"]]
    assert any(detail.startswith("trigger dbfleet_audit_insert on public.item is gone before seal") for detail in said)


def test_an_event_trigger_that_is_gone_is_named(own_log: SealedLog) -> None:
    own_log.db.execute("DROP EVENT TRIGGER dbfleet_audit_record_ddl")
    expected = (
        "event trigger dbfleet_audit_record_ddl is gone after the last seal, and the log has no record of who did it"
    )
    assert expected in own_log.details()


FAKE_INVENTORY = """
UPDATE audit.seal_inventory AS k SET version = t.xmin::text::bigint
FROM pg_trigger AS t
WHERE k.object = 'trigger dbfleet_audit_insert on public.item' AND t.tgname = 'dbfleet_audit_insert'
"""


@pytest.mark.parametrize("fake", [FAKE_INVENTORY, "DELETE FROM audit.seal_inventory"], ids=["changed", "emptied"])
def test_an_inventory_that_was_made_to_match_is_named(own_log: SealedLog, fake: str) -> None:
    with unseen(own_log.db) as connection:
        fetch(connection, "ALTER TABLE item DISABLE TRIGGER dbfleet_audit_insert")
        fetch(connection, "INSERT INTO item VALUES (666)")
        fetch(connection, "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_insert")
        fetch(connection, fake)
    assert own_log.details() == [
        "seal_inventory in the database is not what the last seal kept there: somebody changed it, and what they did "
        "to triggers and functions is not known"
    ]
    # A change of which the log has a record, so that the next seal says anew how the objects are.
    rollout(own_log.db, policies=[wanted("public.item", columns={"hash": ["name"]})])
    own_log.sealer.rollout["policies"] = [wanted("public.item", columns={"hash": ["name"]})]
    own_log.sealer.seal()
    number = next(header["number"] for header in reversed(own_log.headers()) if header["kind"] == "catalog")
    assert number > 2
    assert own_log.problems() == [("altered_between_seals", number, None)]
    (detail,) = own_log.details()
    assert detail.startswith(
        f"seal_inventory, with which seal {number} compared triggers and functions, is not what seal 2"
    )


FORGED_SEAL = """
INSERT INTO audit.seal (number, kind, attested)
SELECT max(s.number) + 1, 'catalog', jsonb_build_object('inventory', 'no matter', 'altered', '[]'::jsonb, 'compared',
  (SELECT c.attested ->> 'inventory' FROM audit.seal AS c WHERE c.kind = 'catalog' ORDER BY c.number DESC LIMIT 1))
FROM audit.seal AS s
"""

FORGED_INVENTORY = """
INSERT INTO audit.seal_inventory
SELECT k.seal + 1, k.object, k.schema_name, k.table_name, k.relation, k.definition, t.xmin::text::bigint, k.cluster
FROM audit.seal_inventory AS k
JOIN pg_trigger AS t ON k.object = format('trigger %I on public.item', t.tgname)
ON CONFLICT DO NOTHING
"""


REPLACED = "trigger dbfleet_audit_insert on public.item was replaced {}, and the log has no record of who did it"

UNSIGN = "UPDATE audit.seal SET signature = NULL WHERE number = (SELECT max(number) FROM audit.seal)"

#: Whenever a seal is signed, another one is there that says that nothing changed.
AMBUSH = f"""
CREATE FUNCTION public.ambush() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.signature IS NOT NULL THEN {FORGED_SEAL}; {FORGED_INVENTORY}; END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER ambush AFTER UPDATE ON audit.seal FOR EACH ROW EXECUTE FUNCTION public.ambush();
"""

#: Whatever a seal of objects has to say, it says that nothing changed.
REWRITE = """
CREATE FUNCTION public.rewrite() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  NEW.attested := NEW.attested || '{"altered": []}';
  RETURN NEW;
END $$;
CREATE TRIGGER rewrite BEFORE INSERT ON audit.seal FOR EACH ROW WHEN (NEW.kind = 'catalog')
EXECUTE FUNCTION public.rewrite();
"""


def switch_off_for_a_while(log: SealedLog, *afterwards: str) -> None:
    """Keep a row from being recorded, put the trigger back, and do something to hide it."""
    with unseen(log.db) as connection:
        fetch(connection, "ALTER TABLE item DISABLE TRIGGER dbfleet_audit_insert")
        fetch(connection, "INSERT INTO item VALUES (666)")
        fetch(connection, "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_insert")
        for statement in afterwards:
            fetch(connection, statement)


@pytest.mark.parametrize("unsign", [False, True], ids=["the last seal is signed", "the last seal seems cut off"])
def test_a_forged_seal_that_says_that_nothing_changed_is_not_signed(own_log: SealedLog, unsign: bool) -> None:
    before = own_log.headers()
    first = [UNSIGN] if unsign else []
    switch_off_for_a_while(own_log, *first, FORGED_SEAL, FORGED_INVENTORY, FORGED_SEAL)
    if not unsign:
        assert own_log.details() == [REPLACED.format("after the last seal")]
    own_log.sealer.seal()
    made = own_log.headers()[len(before) :]
    assert [header["kind"] for header in made] == ["catalog"]
    assert own_log.details() == [REPLACED.format(f"before seal {made[0]['number']}")]
    assert not own_log.sealer.seal()["changed"]


def test_a_seal_that_is_forged_while_another_is_signed_is_not_signed(own_log: SealedLog) -> None:
    switch_off_for_a_while(own_log, AMBUSH)
    own_log.change(701, 703)
    own_log.sealer.seal()
    made = own_log.headers()[-1]
    assert made["kind"] == "catalog"
    assert own_log.details() == [REPLACED.format(f"before seal {made['number']}")]


def test_a_seal_of_objects_that_is_rewritten_as_it_is_made_is_not_signed(own_log: SealedLog) -> None:
    switch_off_for_a_while(own_log, REWRITE)
    before = len(own_log.headers())
    assert "what waits for a signature is not what this run has made" in own_log.sealer.refusal()
    assert own_log.headers()[before:] == []
    own_log.db.execute("DROP TRIGGER rewrite ON audit.seal")
    own_log.sealer.seal()
    assert own_log.headers()[before]["kind"] == "catalog"
    assert REPLACED.format(f"before seal {before + 1}") in own_log.details()


def test_a_resync_that_is_rewritten_as_it_is_made_is_not_signed(own_log: SealedLog) -> None:
    with unseen(own_log.db) as connection:
        fetch(connection, REWRITE.replace("'catalog'", "'resync'"))
    before = own_log.sealer.ledger.read_bytes()
    assert "does not say what this run has asked for" in own_log.sealer.refusal(
        resync="restored to what it was at noon"
    )
    assert own_log.sealer.ledger.read_bytes() == before


def test_a_place_in_the_inventory_that_was_changed_is_named(own_log: SealedLog) -> None:
    """What goes with its table needs no explanation; so whoever takes a trigger away moves it to one that is gone."""
    with unseen(own_log.db) as connection:
        fetch(connection, "DROP TRIGGER dbfleet_audit_insert ON item")
        fetch(
            connection, "UPDATE audit.seal_inventory SET table_name = 'gone', relation = 0 WHERE object ~ '_insert on'"
        )
    assert any(detail.startswith("seal_inventory in the database is not what") for detail in own_log.details())


def test_a_seal_of_objects_that_was_taken_back_leaves_nothing(own_log: SealedLog) -> None:
    """The next seal of rows gets its number."""
    own_log.db.execute(FORGED_SEAL)
    own_log.db.execute(FORGED_INVENTORY)
    own_log.change(701, 703)
    own_log.sealer.seal()
    own_log.change(704, 705)
    own_log.sealer.seal()
    assert own_log.problems() == []
    assert own_log.db.value("SELECT count(DISTINCT seal) FROM audit.seal_inventory") == 1
