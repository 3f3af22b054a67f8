# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of capture triggers on MariaDB and MySQL, where it says something that no record could show."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.policy import parse_policies
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.capture import Capture
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.column import Column
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.text import same_code, text


class Quoter:
    """Quotes as MySQL does."""

    def identifier(self, *parts):
        return ".".join("`" + part.replace("`", "``") + "`" for part in parts)

    def literal(self, value):
        return str(value) if isinstance(value, int) else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


COLUMNS = (Column("id", "int", None), Column("ssn", "varchar", "utf8mb4"), Column("body", "longtext", "utf8mb4"))


def body(operation, columns=COLUMNS, table=("shop", "people"), is_mariadb=True, **keys):
    policy = parse_policies([{"tables": ["shop.people"], **keys}], "shop")[0]
    return Capture("audit", table, columns, columns[:1], policy, 7, is_mariadb).body(operation).render(Quoter())


@pytest.mark.parametrize(
    ("operation", "image", "is_mariadb"),
    list(itertools.product(("insert", "update", "delete"), ("full", "changed"), (True, False))),
)
def test_a_redacted_column_is_read_for_nothing_but_whether_it_has_changed(operation, image, is_mariadb):
    secret = (*COLUMNS, Column("password", "varchar", "utf8mb4"))
    found = body(operation, columns=secret, is_mariadb=is_mariadb, update_image=image)
    lines = [line for line in found.splitlines() if ".`password`" in line]
    comparison = (
        "IF(OLD.`password` COLLATE utf8mb4_nopad_bin <=> NEW.`password`, "
        if is_mariadb
        else "OCTET_LENGTH(OLD.`password`) <=> OCTET_LENGTH(NEW.`password`)"
    )
    assert all(comparison in line for line in lines)
    assert bool(lines) == (operation == "update")


@pytest.mark.parametrize("name", ["it's", "é" * 40, "x" * 64, "back\\slash", "tick`tick"])
def test_a_message_is_plain_enough_and_short_enough_for_signal(name):
    found = body("insert", table=("d" * 64, name), require_context=["user"], on_failure="warn")
    assert "MESSAGE_TEXT = v_" in found
    assert "MESSAGE_TEXT = '" not in found
    assert "MESSAGE_TEXT = CONVERT" not in found


def test_the_comparison_comes_after_the_handler_that_sees_it_fail():
    found = body("update", on_failure="warn")
    assert found.index("SET v_changed") > found.index("EXIT HANDLER")


@pytest.mark.parametrize("value", ["it's", "back\\slash", "tick`tick", "é", "\n"])
def test_text_that_a_catalogue_would_show_otherwise_is_written_as_digits(value):
    assert text(value).render(Quoter()) == f"CONVERT(x'{value.encode().hex()}' USING utf8mb4)"


@pytest.mark.parametrize(
    ("wanted", "shown", "same"),
    [
        ("SET @a = NEW.`b`", "SET @a = NEW.`b`", True),
        ("SET @a = NEW.`b`", "SET @a = NEW.`c`", False),
        ("SET @a = 'it''s'", "SET @a = 'it's'", True),
        ("SET @a = NEW.`tick``tick`", "SET @a = NEW.`ttick`tickk`", True),
        ("SET @a = NEW.`tick``tick`, @b = 1", "SET @a = NEW.`ttick`tickk`, @b = 2", False),
        ("SET @a = 1", None, False),
    ],
)
def test_code_is_compared_as_catalogues_show_it(wanted, shown, same):
    assert same_code(wanted, shown) is same
