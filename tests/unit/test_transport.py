# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bytes get through Ansible's search for passwords."""

from __future__ import annotations

import pytest
from ansible.module_utils.common.parameters import remove_values

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.transport import received, transported

DATA = bytes(range(256)) * 3


@pytest.mark.parametrize("password", ["AA", "AAA", "BAgM", "D0+P", "AAECAwQFBgcICQoLDA0ODw=="])
def test_what_looks_like_a_password_does_not_hide_rows(password: str) -> None:
    answer = transported({"answer": [{"data": DATA, "rows": 3}]}, {password, ""})
    sent = remove_values(answer, {password})
    assert received(sent["answer"][0]["data"]) == DATA
    assert sent["answer"][0]["rows"] == 3


def test_a_password_of_one_character_is_told_of() -> None:
    sent = remove_values(transported({"data": DATA}, {"A"}), {"A"})
    with pytest.raises(AuditError, match="a longer login_password"):
        received(sent["data"])


def test_the_rest_of_an_answer_is_left_as_it_is() -> None:
    answer = {"changed": False, "texts": ["AA", None], "number": 1.5}
    assert transported(answer, {"AA"}) == answer
