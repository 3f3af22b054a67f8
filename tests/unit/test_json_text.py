# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Texts that MariaDB calls JSON, of which no parser reads some: where they end, and which they are."""

from __future__ import annotations

import json

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.json_text import end_of_value, is_readable

# MariaDB 10.11 says 1 to JSON_VALID() of each.
ODD = [
    *("[1e]", "[-]", "[1.]", "[-,1]", "[1.e]", "[1.e5]", "[1e+]", "[1E-\n]", "[- ]", "1e ", '{"a":-}'),
    *('"\\q"', '{"\\q": 1}', '["\\"\\q]"]'),
]
PLAIN = [
    *("null", "true", "-1.5e+10", "[-0]", '"three - 1e, [."', '"\\"]\\\\"', "[]", '{"a": [1, {"b": "}"}], "c": 1e5}'),
    *("[" * 100000 + "]" * 100000, '["\\u00e9"' + ', "-]"' * 1000 + "]", "9" * 5000),
]


@pytest.mark.parametrize("text", ODD)
def test_what_no_parser_reads(text):
    with pytest.raises(ValueError, match="line 1"):
        json.loads(text)
    assert not is_readable(text)


@pytest.mark.parametrize("text", [*PLAIN, '["\\\\", ' + "[" * 100000 + "]" * 100001])
def test_what_a_parser_reads_if_it_goes_that_deep(text):
    assert is_readable(text)


@pytest.mark.parametrize("text", [*ODD, *PLAIN])
def test_a_value_ends_where_the_next_one_begins(text):
    text = text.strip()
    for before, after in (("", ""), ('{"x": ', ' , "y": [1]}'), ("[", "]"), ('{"x":', "\n}")):
        assert end_of_value(before + text + after, len(before)) == len(before + text)


@pytest.mark.parametrize("text", ["", " ", "]", ", 1", '"a', '"a\\"', "[1", '{"a": "}"', "[[1]"])
def test_a_value_that_does_not_end(text):
    with pytest.raises(ValueError, match="no JSON value from place 0 on, or one without an end"):
        end_of_value(text, 0)
