# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  adopt:
    description:
      - What becomes of a log of changes that triggers of somebody else's write (a home-made C(audit_log), 2ndQuadrant's
        audit trigger, supa_audit, table_log and their like). Log and triggers stay as they are in any case.
      - V(report) returns them in RV(foreign_auditing) and warns of each.
      - V(beside) says that they are there on purpose, and ends the warning.
      - V(import) copies their rows into the trail as history, each once, in batches; later runs import what has been
        added since. The rows carry a version of a policy that stands for their origin, and what the policies in force
        redact, hash or leave out is masked in them as well. So it needs the policies (the triggers module) first.
      - docs/adoption.md tells what is recognised, what is imported, and how to retire the old triggers.
    type: str
    choices: [report, beside, import]
    default: report
  adopt_columns:
    description:
      - >-
        Which column of a log holds what, by C(schema.table) of the log, for those that are not found by their names;
        as in C({public.changes: {id: "no", changed_at: happened}}).
      - The keys are V(id) (a whole number that ascends), V(changed_at), V(action), V(schema_name), V(table_name),
        V(record_id), V(old_values) and V(new_values) (JSON), V(row_values) and V(changed_values) (as 2ndQuadrant's
        trigger has them), V(changed_by), V(db_user), V(client_ip) and V(application_name). An empty name keeps a column
        that would be found from being taken.
    type: dict
    default: {}
"""
