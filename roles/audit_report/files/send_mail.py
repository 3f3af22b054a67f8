# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mail what stands on the standard input. A password for the SMTP server is in DBFLEET_AUDIT_SMTP_PASSWORD."""

from __future__ import annotations

import argparse
import os
import smtplib
import ssl
import subprocess
import sys
from email.message import EmailMessage

SECONDS = 30


def main() -> None:
    """Send it, by the SMTP server if one is given, else by sendmail; whatever goes wrong ends with a message."""
    options = arguments()
    message = EmailMessage()
    # A line break would begin another header.
    message["Subject"] = " ".join(options.subject.split())
    message["To"] = ", ".join(options.to)
    if options.sender:
        message["From"] = options.sender
    message.set_content(sys.stdin.read())
    try:
        send(message, options)
    except (OSError, smtplib.SMTPException, subprocess.SubprocessError) as error:
        sys.exit(f"the mail was not sent: {error}")


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", action="append", required=True)
    parser.add_argument("--sender", default="")
    parser.add_argument("--subject", required=True)
    parser.add_argument("--sendmail", default="/usr/sbin/sendmail")
    parser.add_argument("--host", default="")
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--starttls", action="store_true")
    parser.add_argument("--user", default="")
    return parser.parse_args()


def send(message: EmailMessage, options: argparse.Namespace) -> None:
    """Hand the message over."""
    if not options.host:
        subprocess.run([options.sendmail, "-t", "-i"], input=bytes(message), check=True, timeout=SECONDS)
        return
    with smtplib.SMTP(options.host, options.port, timeout=SECONDS) as server:
        if options.starttls:
            server.starttls(context=ssl.create_default_context())
        if options.user:
            server.login(options.user, os.environ.get("DBFLEET_AUDIT_SMTP_PASSWORD", ""))
        server.send_message(message)


if __name__ == "__main__":
    main()
