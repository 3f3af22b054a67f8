# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  policies:
    description:
      - What to audit, in order; the first policy that matches a table wins.
      - C(tables) (list, required) and C(exclude) (list) hold patterns on C(schema.table), as C(public.users),
        C(billing.*), C(*.*). A half in double quotes is an exact name. System schemas, the trail's own and temporary
        tables never match.
      - C(name) (text) identifies the policy through changes; left out, it is the text of C(tables).
      - C(operations) (list of V(insert), V(update), V(delete), V(truncate)), all by default.
      - C(columns) (dict) with C(only) or C(exclude) (columns to leave out), C(redact) (stored as C([REDACTED])) and
        C(hash) (stored as a keyed digest, so that equal values stay recognisable). PostgreSQL tells C(ssn) from C(SSN)
        and the module warns of a table with the one where the policy names the other; on MariaDB and MySQL a name means
        the column in whatever case a table writes it.
      - C(when) (SQL condition on NEW and OLD) records only the rows for which it is true.
      - C(capture) is V(row), complete, or V(statement), faster on bulk work and refused where it would miss rows.
      - C(update_image) is V(full), or V(changed) to store only the new values that differ.
      - C(require_context) (list) refuses a change whose context lacks a key, for example V(changed_by); with
        C(on_failure) V(warn) it is recorded and a WARNING raised.
      - C(on_failure) is V(abort), no change without its record, or V(warn), where the write goes through, the failure
        is recorded and a WARNING raised; V(warn) costs a subtransaction, and a transaction id, for every row.
      - C(classification), C(retention) (text) and C(tags) (list) are kept with the policy.
      - C(auto_attach) (bool) audits a table that is created later in the transaction that creates it, if the policy is
        the one that matches it. C(audit.add_table()) does the same for one table, whatever the policy says here.
      - On MariaDB and MySQL a database is the schema of a pattern, and what those servers cannot do is refused with
        the reason, namely the operation V(truncate), C(capture) V(statement) and C(auto_attach).
    type: list
    elements: dict
    default: []
  purge:
    description: Drop audit triggers and functions that no policy asks for.
    type: bool
    default: true
  allow_missing:
    description: Accept a pattern that matches no table, and a column that none of a policy's tables has (yet).
    type: bool
    default: false
  redact_defaults:
    description:
      - Redact columns whose names contain C(password), C(passwd), C(secret), C(token), C(api_key), C(apikey), C(cvv),
        C(card_number) or C(cardnumber), unless a policy hashes them.
    type: bool
    default: true
"""
