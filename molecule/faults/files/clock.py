# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sets a server's clock, by the file that libfaketime reads at each look at it.

    clock.py FILE MONTHS    # to three seconds before the month begins that comes MONTHS after this one

Prints {"before", "after"}: the names of the two months that meet then, as the log's partitions have them.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import sys

MARGIN = datetime.timedelta(seconds=3)


def main() -> int:
    """Run the command line."""
    path, months = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    now = datetime.datetime.now(datetime.timezone.utc)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month = start.month - 1 + months
    start = start.replace(year=start.year + month // 12, month=month % 12 + 1)
    ahead = start - MARGIN - now
    # In one go, for the server reads it at any moment.
    new = path.with_name(f"{path.name}.new")
    new.write_text(f"+{int(ahead.total_seconds())}\n", encoding="utf-8")
    new.chmod(0o644)
    os.replace(new, path)
    print(json.dumps({"before": f"{start - MARGIN:%Y_%m}", "after": f"{start:%Y_%m}"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
