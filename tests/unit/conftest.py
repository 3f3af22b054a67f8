# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Unit tests import this checkout by the collection's name, which the link in .cache makes possible."""

from __future__ import annotations

import pytest
import running


def pytest_configure() -> None:
    """Say what is missing, instead of an import error in every test."""
    if not (running.COLLECTIONS / "ansible_collections" / "dbfleet" / "audit").exists():
        pytest.exit("run tests/support/setup.sh tests first", returncode=2)
