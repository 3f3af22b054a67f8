# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Draws what a run of the demo printed as a picture of a terminal, word for word.

script --quiet --command demo/run /dev/null | python3 demo/picture.py "demo/run" >docs/images/demo.svg
"""

from __future__ import annotations

import html
import re
import sys

FONT = 14
CHARACTER = 8.43
LINE = 19
PADDING = 18

FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}">
<rect width="100%" height="100%" rx="8" fill="#1b1f27"/>
<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{font}" fill="#d5dae3" xml:space="preserve">
{lines}
</g>
</svg>
"""
SPAN = '<text x="{x:.1f}" y="{y}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"{style}>{text}</text>'
BOLD = ' font-weight="bold" fill="#ffffff"'


def shown(recorded: str) -> list[str]:
    """Return the lines as a terminal shows them in the end: what a carriage return overwrote is gone."""
    text = recorded.replace("\r\n", "\n")
    return [line.rpartition("\r")[2].rstrip() for line in text.strip("\n").split("\n")]


def draw(line: str, number: int) -> str:
    """Return one line as SVG, plain and bold parts at their columns."""
    column, parts = 0, []
    for index, text in enumerate(re.split(r"\033\[[01]m", line)):
        # Leading blanks are drawn by position, for not every viewer keeps them.
        column += len(text) - len(text.lstrip())
        words = text.strip()
        if words:
            place = {"x": PADDING + column * CHARACTER, "y": PADDING + (number + 1) * LINE - 5}
            style = BOLD if index % 2 else ""
            parts.append(SPAN.format(**place, length=len(words) * CHARACTER, style=style, text=html.escape(words)))
        column += len(text.lstrip())
    return "".join(parts)


def main() -> None:
    """Read a recording, print a picture."""
    lines = [f"\033[1m$ {sys.argv[1]}\033[0m", *shown(sys.stdin.read())]
    width = max(len(re.sub(r"\033\[[01]m", "", line)) for line in lines)
    size = {"width": 2 * PADDING + width * CHARACTER, "height": 2 * PADDING + len(lines) * LINE}
    drawn = "\n".join(draw(line, number) for number, line in enumerate(lines))
    print(FRAME.format(**size, font=FONT, lines=drawn), end="")


if __name__ == "__main__":
    main()
