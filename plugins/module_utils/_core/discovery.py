# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which tables look as if they have to be audited, by the names and types of their columns, and a policy for each.

Pure: what it is given are names, and no value of a row is ever looked at. docs/discovery.md explains the score.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .discovery_terms import ACCESS, CREDENTIALS, KINDS, PEOPLE, TABLE_TAGS, TABLE_TERMS, WEAK_BEFORE, WEAK_BEHIND, Kind

#: A table is proposed from this score on.
LEAST_SCORE = 20
#: What the name of a table adds, and what is left of the weight of a column whose name speaks of something else.
TABLE_WEIGHT = 25
WEAK_FACTOR = 0.2
#: A table with as many rows counts in full, an empty one less by a fifth.
FULL_SIZE = 10_000

_KIND_OF_TERM = {term: kind for kind in KINDS for term in kind.terms}
_PERSON_NAME = next(kind for kind in KINDS if kind.name == "name of a person")
_LONGEST_RUN = 5

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "œ": "oe"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})

_TYPES = (
    ("boolean", re.compile(r"bool|tinyint\(1\)|^bit(\(1\))?$")),
    ("time", re.compile(r"timestamp|datetime|^time|interval")),
    ("date", re.compile(r"^date$")),
    ("number", re.compile(r"int|serial|numeric|decimal|float|double|real|money|^year")),
)
#: Types that contradict what a name says, by Kind.values.
_CONTRADICTIONS = {
    "text": ("boolean", "time", "date", "number"),
    "value": ("boolean", "time", "date"),
    "date": ("boolean",),
    "any": (),
}

_PLAIN_YAML = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Words that YAML reads as something else than text.
_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")
_PLAIN_HALF = re.compile(r'[^".*?\[\]\s]+')


@dataclass(frozen=True)
class Columns:
    """A table as discovery sees it.

    :ivar types: the types of the columns by their names, as the server writes them.
    :ivar rows: about how many rows it has, or None where nobody knows.
    """

    schema: str
    name: str
    types: Mapping[str, str]
    rows: int | None


@dataclass(frozen=True)
class Finding:
    """What a column's name says."""

    kind: Kind
    weight: float
    weak: bool


def words(name: str) -> list[str]:
    """Return the words of a name in lower case, without accents: `Birth_Date`, `birthDate` are ["birth", "date"]."""
    plain = unicodedata.normalize("NFKD", name.translate(_UMLAUTS).translate(_LETTERS))
    letters = "".join(character for character in plain if not unicodedata.combining(character))
    return [word.lower() for word in _WORD.findall(letters)]


def judge(column: str, type_name: str, of_people: bool = False) -> Finding | None:
    """Return what a column holds, by its name and type, or None when they say nothing.

    :param of_people: whether its table is one of people, whose `name` is theirs.
    """
    parts = words(column)
    kind, begin, end = _weightiest(parts)
    if kind is None:
        if of_people and parts in (["name"], ["names"]):
            return Finding(_PERSON_NAME, 35.0, False)
        return None
    behind = [part for part in parts[end:] if not part.isdigit()]
    weak = any(part in WEAK_BEFORE for part in parts[:begin]) or any(part in WEAK_BEHIND for part in behind)
    # What says who may do what may well be a flag, or lead to another table.
    weak = (weak and kind.category != ACCESS) or _family(type_name) in _CONTRADICTIONS[kind.values]
    return Finding(kind, kind.weight * (WEAK_FACTOR if weak else 1), weak)


def discover(tables: Iterable[Columns], operations: Sequence[str]) -> list[dict[str, Any]]:
    """Return the tables that look as if they had to be audited, those that most look so first.

    :param operations: what the engine can record of a table.
    :returns: table, score (0 to 100), categories, columns (name -> kind, those that are meant), rows, policy.
    """
    found = [entry for table in tables for entry in [_entry(table, operations)] if entry["score"] >= LEAST_SCORE]
    return sorted(found, key=lambda entry: (-entry["score"], entry["table"]))


def proposal(discovered: Sequence[Mapping[str, Any]]) -> str:
    """Return the policies of what was discovered as YAML, a list as the option `policies` takes it."""
    return "".join(_yaml(entry) for entry in discovered)


def pattern(schema: str, table: str) -> str:
    """Return the pattern of a policy that means one table and no other."""
    halves = (half if _PLAIN_HALF.fullmatch(half) else '"' + half.replace('"', '""') + '"' for half in (schema, table))
    return ".".join(halves)


def _weightiest(parts: Sequence[str]) -> tuple[Kind | None, int, int]:
    """Return what weighs most of what runs of words mean, and where it is; of a longer run, no part means anything."""
    matches: list[tuple[Kind, int, int]] = []
    for length in range(min(len(parts), _LONGEST_RUN), 0, -1):
        for begin in range(len(parts) - length + 1):
            end = begin + length
            term = "".join(parts[begin:end])
            kind = _KIND_OF_TERM.get(term) or _KIND_OF_TERM.get(_singular(term))
            if kind and not any(begin < other_end and other_begin < end for _kind, other_begin, other_end in matches):
                matches.append((kind, begin, end))
    return max(matches, key=lambda match: match[0].weight, default=(None, 0, 0))


def _singular(term: str) -> str:
    return term[:-1] if len(term) > 3 and term.endswith("s") and not term.endswith("ss") else term


def _family(type_name: str) -> str:
    text = type_name.lower()
    return next((family for family, expression in _TYPES if expression.search(text)), "text")


def _table_hints(name: str) -> list[str]:
    parts = words(name)
    runs = {*parts, *("".join(pair) for pair in zip(parts, parts[1:]))}
    runs |= {_singular(run) for run in runs}
    return [category for category, terms in TABLE_TERMS.items() if runs & terms]


def _entry(table: Columns, operations: Sequence[str]) -> dict[str, Any]:
    of_people = bool({_singular(word) for word in words(table.name)} & PEOPLE)
    judged = {name: judge(name, type_name, of_people) for name, type_name in table.types.items()}
    findings = {name: finding for name, finding in judged.items() if finding}
    meant = {name: finding.kind for name, finding in findings.items() if not finding.weak}
    hints = _table_hints(table.name)
    categories = sorted({kind.category for kind in meant.values()} | set(hints))
    return {
        "table": f"{table.schema}.{table.name}",
        "score": _score(findings.values(), bool(hints), table.rows),
        "categories": categories,
        "columns": {name: kind.name for name, kind in meant.items()},
        "rows": table.rows,
        "policy": _policy(table, meant, categories, hints, operations),
    }


def _score(findings: Iterable[Finding], has_hint: bool, rows: int | None) -> int:
    """Return how much speaks for auditing: each kind of column takes its share of what the others leave open."""
    weights: dict[str, float] = {}
    for finding in findings:
        weights[finding.kind.name] = max(weights.get(finding.kind.name, 0), finding.weight)
    shares = [*weights.values(), TABLE_WEIGHT if has_hint else 0]
    score = 100 * (1 - math.prod(1 - share / 100 for share in shares))
    size = 1.0 if rows is None else min(1.0, math.log10(max(rows, 0) + 1) / math.log10(FULL_SIZE))
    return round(score * (0.8 + 0.2 * size))


def _policy(
    table: Columns,
    meant: Mapping[str, Kind],
    categories: Sequence[str],
    hints: Sequence[str],
    operations: Sequence[str],
) -> dict[str, Any]:
    policy: dict[str, Any] = {"tables": [pattern(table.schema, table.name)], "operations": list(operations)}
    masks = {mask: [name for name, kind in meant.items() if kind.mask == mask] for mask in ("hash", "redact")}
    columns = {mask: names for mask, names in masks.items() if names}
    if columns:
        policy["columns"] = columns
    restricted = any(kind.restricted for kind in meant.values()) or CREDENTIALS in categories
    policy["classification"] = "restricted" if restricted else "confidential"
    tags = {tag for kind in meant.values() for tag in kind.tags} | {tag for hint in hints for tag in TABLE_TAGS[hint]}
    if tags:
        policy["tags"] = sorted(tags)
    return policy


def _yaml(entry: Mapping[str, Any]) -> str:
    policy = entry["policy"]
    rows = "" if entry["rows"] is None else f", about {entry['rows']} rows"
    title = json.dumps(entry["table"], ensure_ascii=False)[1:-1]
    lines = [f"# {_UNPRINTABLE.sub('?', title)}: score {entry['score']} ({', '.join(entry['categories'])}){rows}"]
    for name, kind in entry["columns"].items():
        lines.append(f"#   {_UNPRINTABLE.sub('?', json.dumps(name, ensure_ascii=False)[1:-1])}: {kind}")
    for key, value in policy.items():
        lead = "  " if lines[-1].startswith(" ") or lines[-1].startswith("-") else "- "
        if isinstance(value, Mapping):
            lines.append(f"{lead}{key}:")
            lines += [f"    {inner}: {_yaml_value(names)}" for inner, names in value.items()]
        else:
            lines.append(f"{lead}{key}: {_yaml_value(value)}")
    return "\n".join(lines) + "\n"


def _yaml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_yaml_value(item) for item in value)}]"
    if _PLAIN_YAML.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    # A JSON text is a YAML text but for a few characters; and Ansible must not take a name for a template.
    text = _UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", json.dumps(value, ensure_ascii=False))
    return f"!unsafe {text}" if re.search(r"\{[{%#]", value) else text
