# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every benchmark says while it runs."""

from __future__ import annotations

import pathlib
import sys
import time

_BEGAN = time.monotonic()


def say(text: str) -> None:
    """Show progress, and the seconds that have passed."""
    print(f"  {time.monotonic() - _BEGAN:4.0f} s  {text}", file=sys.stderr, flush=True)


def expect(holds: object, what: str) -> None:
    """End the benchmark when what it measures is not what it says."""
    if not holds:
        raise SystemExit(f"benchmarks/{pathlib.Path(sys.argv[0]).stem}: {what}")
