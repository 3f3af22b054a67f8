# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A report of answers that other runs have left in the fact cache."""

from __future__ import annotations

import pytest
from report_facts import OPTIONS, host

from ansible_collections.dbfleet.audit.plugins.plugin_utils._report import of_hosts
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_inputs import period

HOUR_AGO = {"asked_at": "2026-11-22T09:00:00Z", "period": "month"}


def model(*, hours, own=None, options=OPTIONS, **cached):
    kept = {"_audit_report_cached": host(**{**HOUR_AGO, **cached})}
    variables = {"ansible_facts": kept, **({"_audit_report_facts": own} if own else {})}
    (entry,) = of_hosts(["pg1"], {"pg1": variables}, {**options, "cache_hours": hours})["hosts"]
    return entry


def test_an_answer_of_another_run_counts_as_one_of_this_run_and_says_of_when_it_is():
    entry = model(hours=1)
    assert (entry["posture"], entry["asked_at"]) == ("green", "2026-11-22T09:00:00Z")


@pytest.mark.parametrize(
    ("hours", "cached", "reason"),
    [
        (0, {}, "it was not reached, or not asked in this run"),
        (0.9, {}, "it was last asked at 2026-11-22T09:00:00Z, which is more than 0.9 hours ago"),
        (
            1,
            {"asked_at": "2027-11-22T09:00:00Z"},
            "it was last asked at 2027-11-22T09:00:00Z, which is more than 1 hours ahead",
        ),
        (1, {"period": "week"}, "it was asked at 2026-11-22T09:00:00Z for another period (week)"),
    ],
)
def test_an_answer_that_cannot_count_leaves_its_host_unknown_and_says_why(hours, cached, reason):
    entry = model(hours=hours, **cached)
    assert (entry["posture"], entry["reason"]) == ("unknown", reason)


def test_an_answer_about_one_period_of_one_s_own_is_none_about_another():
    spring, summer = (
        period({"since": since, "until": until}, OPTIONS["generated_at"])
        for since, until in (("2026-04-01", "2026-07-01"), ("2026-07-01", "2026-10-01"))
    )
    options = {**OPTIONS, "period": summer}
    assert model(hours=1, options=options, period=summer["name"])["posture"] == "green"
    entry = model(hours=1, options=options, period=spring["name"])
    assert (entry["posture"], entry["reason"]) == (
        "unknown",
        "it was asked at 2026-11-22T09:00:00Z for another period (2026-04-01 to 2026-07-01)",
    )


def test_an_answer_of_this_run_wins():
    own = {"engine": "postgresql", "status": "failed", "reason": "no route to host"}
    assert model(hours=24, own=own)["reason"] == "no route to host"
