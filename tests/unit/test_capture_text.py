# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of capture functions, where it says something that no record could show."""

from __future__ import annotations

import itertools
import re

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.policy import parse_policies
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.capture import (
    capture_function,
    capture_name,
    is_capture,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.trigger import array_literal


class Quoter:
    """Quotes as PostgreSQL does."""

    def identifier(self, *parts):
        return ".".join('"' + part.replace('"', '""') + '"' for part in parts)

    def literal(self, value):
        return "'" + str(value).replace("'", "''") + "'"


def policy(**keys):
    return parse_policies([{"tables": ["public.users"], **keys}], "shop")[0]


def text(silence: bool = False, **keys):
    function = capture_function(policy(**keys), 7, "audit", silence)
    return function.create("audit").render(Quoter())


KEYS = {
    "columns": [{}, {"exclude": ["a"]}, {"only": ["a"], "redact": ["b"]}],
    "update_image": ["full", "changed"],
    "on_failure": ["abort", "warn"],
    "require_context": [[], ["changed_by"]],
}


@pytest.mark.parametrize("values", list(itertools.product(*KEYS.values())))
def test_old_and_new_stand_in_no_sql_statement(values):
    """There pgaudit would log the whole row, with the values that are about to be redacted."""
    body = text(**dict(zip(KEYS, values)))
    statements = re.findall(r"\b(?:INSERT INTO|SELECT|PERFORM|EXECUTE)\b[^;]*;", body)
    assert statements
    assert not any(re.search(r"\b(?:OLD|NEW)\b", statement) for statement in statements)


@pytest.mark.parametrize("capture", ["row", "statement"])
def test_every_function_runs_as_the_writer_with_everything_pinned(capture):
    body = text(capture=capture)
    assert "SECURITY DEFINER" in body
    settings = dict(re.findall(r"^  SET (\S+) TO (.+)$", body, re.MULTILINE))
    pinned = {
        "search_path": "pg_catalog, pg_temp",
        "TimeZone": "'UTC'",
        "DateStyle": "'ISO'",
        "IntervalStyle": "'postgres'",
        "extra_float_digits": "'1'",
        "bytea_output": "'hex'",
        "quote_all_identifiers": "'off'",
    }
    assert settings.items() >= pinned.items()


def test_pgaudit_is_silenced_only_where_it_may_be():
    assert "SET pgaudit.log TO 'none'" in text(silence=True)
    assert "pgaudit" not in re.sub(r"--.*", "", text(silence=False))


def test_a_condition_is_the_triggers_and_never_in_the_function():
    assert "my_function" not in text(when="my_function(NEW.id)")


def test_a_name_is_readable_fits_and_tells_policies_and_kinds_apart():
    names = [
        capture_name(policy(name="Payroll: salaries & bonuses " + "x" * 200)),
        capture_name(policy(name="Payroll: salaries & bonuses " + "x" * 201)),
        capture_name(policy(name="支払")),
        capture_name(policy(name="支給")),
        capture_name(policy()),
        capture_name(policy(capture="statement")),
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"capture_[a-z0-9_]{8,55}", name) and is_capture(name) for name in names)
    assert names[0].startswith("capture_payroll_salaries_bonuses")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "{}"),
        (["a", "B_1"], "{a,B_1}"),
        (["a,b", "null", "", 'q"\\'], r'{"a,b","null","","q\"\\"}'),
    ],
)
def test_array_literals_are_what_the_server_reads_back(names, expected):
    assert array_literal(names) == expected
