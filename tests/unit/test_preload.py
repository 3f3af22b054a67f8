# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of libraries that a server loads: read as the server reads it, changed with as little as possible."""

from __future__ import annotations

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.preload import (
    PreloadCatalog,
    merged,
    parse,
    plan_libraries,
    render,
    same_library,
    without,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.settings import Line

OWN, AUTOMATIC = "/etc/pg/postgresql.conf", "/data/postgresql.auto.conf"


class Quotes:
    """PostgreSQL's quoting, as far as these names need it."""

    def identifier(self, *parts):
        return ".".join(f'"{part}"' for part in parts)

    def literal(self, value):
        return f"'{value}'"


def catalog(own=None, automatic=None, running="", source="default"):
    """Return a server whose files say this; None where a file says nothing."""
    lines = [
        Line("shared_preload_libraries", text, file, 7, file == AUTOMATIC)
        for text, file in ((own, OWN), (automatic, AUTOMATIC))
        if text is not None
    ]
    return PreloadCatalog(running, source, lines)


def statements(server, target):
    return plan_libraries(server, target).statements(Quotes())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("   ", []),
        ('""', []),
        ("pgaudit", ["pgaudit"]),
        ("  pgaudit , auto_explain  ", ["pgaudit", "auto_explain"]),
        ("a,b,c", ["a", "b", "c"]),
        ('"a,b", c', ["a,b", "c"]),
        ('"a ""b"" c"', ['a "b" c']),
        ('" a "', [" a "]),
        ('"a"  ,  "b"', ["a", "b"]),
        ("a b, c", ["a b", "c"]),
        ('"", pgaudit', ["pgaudit"]),
        ('pgaudit, ""', ["pgaudit"]),
        ("PgAudit", ["PgAudit"]),
        ("$libdir/pgaudit, /usr/lib/x.so", ["$libdir/pgaudit", "/usr/lib/x.so"]),
    ],
)
def test_a_list_is_read_as_the_server_reads_it(text, names):
    assert parse(text) == names


@pytest.mark.parametrize("text", ['"a', 'a"b', '"a" b', 'a, "b', '"a""'])
def test_what_the_server_cannot_read_is_no_list(text):
    with pytest.raises(AuditError, match="is no list: correct it by hand"):
        parse(text)


@pytest.mark.parametrize(
    "names", [[], ["pgaudit"], ["a", "b"], ["odd, name"], ['a "b" c', "d"], [" lead", "trail "], ["it's", "$libdir/x"]]
)
def test_a_list_is_written_as_it_is_read(names):
    assert parse(render(names)) == names


@pytest.mark.parametrize("name", ["pgaudit", "pgaudit.so", "$libdir/pgaudit", "$libdir/pgaudit.so", "/opt/pgaudit.so"])
def test_names_of_one_file_are_the_same_library(name):
    assert same_library(name, "pgaudit")


@pytest.mark.parametrize("name", ["pgaudit2", "pgauditlogtofile", "pg", "pgaudit/x", "PGAUDIT"])
def test_names_of_other_files_are_other_libraries(name):
    assert not same_library(name, "pgaudit")


def test_new_libraries_come_last_and_once_and_all_others_keep_their_place():
    assert merged(["c", "a.so"], ["b", "a", "b", "$libdir/c"]) == ["c", "a.so", "b"]
    assert merged([], ["b", "a"]) == ["b", "a"]
    assert merged(["b", "a"], []) == ["b", "a"]


def test_a_library_is_taken_out_by_any_of_its_names():
    assert without(["c", "$libdir/a", "b", "a.so"], ["a"]) == ["c", "b"]
    assert without(["c"], ["a"]) == ["c"]


def test_nothing_is_planned_for_a_list_that_is_as_wanted():
    assert statements(catalog(own="a, b"), ["a", "b"]) == []
    assert statements(catalog(), []) == []


def test_order_counts():
    assert statements(catalog(own="a, b"), ["b", "a"]) == ["ALTER SYSTEM SET shared_preload_libraries = 'b', 'a'"]


@pytest.mark.parametrize(("own", "target"), [("a", ["a"]), (None, []), ("", [])])
def test_what_stands_beneath_comes_to_count_again_where_it_is_wanted(own, target):
    assert statements(catalog(own=own, automatic="a, pgaudit"), target) == [
        "ALTER SYSTEM RESET shared_preload_libraries"
    ]


def test_what_alter_system_has_set_counts_more_than_a_file():
    assert catalog(own="a", automatic="b").configured == ["b"]
    assert catalog(own="a").configured == ["a"]


def test_an_empty_name_is_removed_even_if_the_list_is_as_wanted():
    assert statements(catalog(automatic='"", a'), ["a"]) == ["ALTER SYSTEM SET shared_preload_libraries = 'a'"]
    assert statements(catalog(own="", automatic='""'), []) == ["ALTER SYSTEM RESET shared_preload_libraries"]


@pytest.mark.parametrize("own", ["pgaudit", '""'])
def test_an_empty_list_over_a_persons_own_is_refused_with_its_line(own):
    with pytest.raises(AuditError, match=f"in {OWN}:7; take the library out there"):
        plan_libraries(catalog(own=own, automatic="other"), [])


@pytest.mark.parametrize("source", ["command line", "environment variable"])
def test_what_no_file_overrides_is_refused(source):
    server = catalog(own="x", running="a", source=source)
    with pytest.raises(AuditError, match=f"by its {source}.*change it there to a, pgaudit"):
        plan_libraries(server, ["a", "pgaudit"])
    assert statements(server, ["a"]) == []
