# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one exception that a user is meant to read."""

from __future__ import annotations


class AuditError(Exception):
    """Something that the user can put right: the message names the input and the remedy."""
