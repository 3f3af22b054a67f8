# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Open an HTML report in the distribution's Chromium, and know what it asked for and complained of."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import typing as t

import running

if t.TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Return the browser's program; None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def browser() -> t.Iterator[Browser]:
    """Start a browser that nobody sees, without a sandbox (root has none) and without the user's home."""
    from playwright.sync_api import sync_playwright

    environment = running.private_environment()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"], env=environment)
        try:
            yield started
        finally:
            started.close()


class Visit:
    """A page that was opened from a file."""

    def __init__(self, browser: Browser, path: pathlib.Path, **options: t.Any):
        self._context = browser.new_context(**options)
        self.page: Page = self._context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.goto(path.as_uri())

    def close(self) -> None:
        """Close the page."""
        self._context.close()
