# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several logs of a server in one task: as many at a time as were asked for, and each by itself."""

from __future__ import annotations

import functools
import os
import typing as t

import pytest
from ansible.utils.multiprocessing import context

from ansible_collections.dbfleet.audit.plugins.action.postgresql_audit_archive import ActionModule
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils._processes import in_processes


def test_works_are_done_some_at_a_time_and_their_results_are_in_order() -> None:
    meeting = context.Barrier(2)
    going, most = context.Value("i", 0), context.Value("i", 0)

    def work(number: int) -> dict[str, t.Any]:
        with going:
            going.value += 1
            most.value = max(most.value, going.value)
        # Nobody comes alone.
        meeting.wait(20)
        with going:
            going.value -= 1
        # The first to begin is not the first to end.
        meeting.wait(20)
        return {"number": number}

    results = in_processes([functools.partial(work, number) for number in range(6)], 2)
    assert results == [{"number": number} for number in range(6)]
    assert most.value == 2


def test_what_ends_one_work_does_not_end_the_others() -> None:
    def refuse() -> dict[str, t.Any]:
        raise ValueError("it cannot be")

    works: list[t.Callable[[], dict[str, t.Any]]] = [lambda: os._exit(3), refuse, lambda: {"changed": True}]
    ended, refused, done = in_processes(works, 3)
    assert ended == {"failed": True, "msg": "its process on the controller has ended (3)"}
    assert (refused["failed"], refused["msg"]) == (True, "it cannot be")
    assert done == {"changed": True}
    assert in_processes([], 2) == []


class Told(ActionModule):
    """The action; what it would archive it only tells."""

    def __init__(self, **arguments: t.Any) -> None:
        self.arguments = arguments

    def _archive(self) -> dict[str, t.Any]:
        told = {name: self.option(name) for name in ("login_db", "schema", "ledger", "parallel", "url")}
        if told["login_db"] == "crm":
            raise AuditError("url is missing")
        return {**told, "changed": True, "title": self.title}

    def leave_host(self) -> None:
        """Leave no host: it was on none."""


@pytest.mark.parametrize(("parallel", "each"), [(2, 1), (1, 1), (5, 1), (6, 2)])
def test_each_log_is_archived_as_if_it_were_the_only_one_but_for_its_share(parallel: int, each: int) -> None:
    names = ["shop", "crm", "hr"]
    logs = [{"login_db": name, "ledger": f"/ledger/{name}.jsonl", "schema": None} for name in names]
    result = Told(logs=logs, login_db="postgres", schema="trail", url="/mnt/archive", parallel=parallel).work()
    shop, crm, hr = result["results"]
    del shop["seconds"], hr["seconds"]
    usual = {"schema": "trail", "url": "/mnt/archive", "parallel": each, "changed": True}
    assert shop == {"login_db": "shop", "ledger": "/ledger/shop.jsonl", "title": "shop", **usual}
    assert hr == {"login_db": "hr", "ledger": "/ledger/hr.jsonl", "title": "hr", **usual}
    assert (crm["login_db"], crm["failed"]) == ("crm", True)
    assert (result["changed"], result["failed"], result["msg"]) == (True, True, "crm: url is missing")


def test_no_log_is_nothing_to_do() -> None:
    assert Told(logs=[], login_db="postgres").work() == {"changed": False, "results": []}
