# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a collector has received: each line has to be RFC 5424 with an object of JSON, and statements are numbered.

    python3 arrived.py FILE NAME LAST

Prints {"received", "missing", "missing_count", "doubled", "broken", "sample"} as JSON: of the statements 'NAME 1' to
'NAME LAST', how many are there, the first numbers that are not, how many these are, how often one came again; lines
that are not what they should be; and the last message with such a number. Standard library only.
"""

from __future__ import annotations

import collections
import json
import re
import sys

LINE = re.compile(r"<110>1 (\S+T\S+) (\S+) (\w+) - (\w+) - (\{.*\})\n")


def main() -> int:
    """Print the account."""
    path, name, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
    numbered = re.compile(rf"numbered {re.escape(name)} (\d+)\b")
    seen: collections.Counter[int] = collections.Counter()
    broken, sample = [], None
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            match = LINE.fullmatch(line)
            try:
                message = json.loads(match[5]) if match else None
            except ValueError:
                message = None
            if message is None:
                broken.append(line)
                continue
            record = message["record"] if isinstance(message["record"], str) else message["record"]["message"]
            for number in set(numbered.findall(record)):
                seen[int(number)] += 1
                sample = message
    missing = [number for number in range(1, last + 1) if number not in seen]
    print(
        json.dumps(
            {
                "received": sum(number <= last for number in seen),
                "missing": missing[:20],
                "missing_count": len(missing),
                "doubled": sum(count - 1 for count in seen.values()),
                "broken": broken[:3],
                "sample": sample,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
