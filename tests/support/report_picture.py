# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Draws the top of the report's page as the picture of the README, of a fleet that nobody had to run.

(source tests/support/env.sh 2.21; python tests/support/report_picture.py >docs/images/report.png)
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import running
from browsing import Visit, browser
from report_model import report_model

WIDTH, HEIGHT = 1280, 1560
#: One that does not answer leaves every control open; these all do.
HOSTS = 23


def main() -> None:
    """Print a picture."""
    sys.path.insert(0, str(running.COLLECTIONS))
    from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_html import html

    with tempfile.TemporaryDirectory() as directory, browser() as started:
        path = pathlib.Path(directory, "report.html")
        path.write_text(html(report_model(HOSTS)), encoding="utf-8")
        visit = Visit(started, path, viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        sys.stdout.buffer.write(visit.page.screenshot())
        visit.close()


if __name__ == "__main__":
    main()
