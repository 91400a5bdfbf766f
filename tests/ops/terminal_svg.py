"""A terminal's screen, as `tmux capture-pane -e` prints it, as SVG: every character in its place, in its colour."""

import re

CELL, LINE, SIZE, BASE = 8.4, 18, 14, 13
PAD, BAR = 14, 30 # around the screen; the window's bar above it
BACK, FRONT, EDGE, QUIET = "#0d1117", "#d7dde4", "#30363d", "#8b949e"
COLOURS = {31: "#ff7b72", 32: "#56d364", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea"}
BLOCKS = " ▁▂▃▄▅▆▇█"
SGR = re.compile(r"\x1b\[([\d;]*)m")


def runs(line):
    """(text, style) for each piece of a line; a style is (colour, bold, reversed)."""
    colour, bold, swapped, at = None, False, False, 0
    for code in [*SGR.finditer(line), None]:
        text = line[at:code.start() if code else None]
        if text:
            yield text, (colour, bold, swapped)
        if not code:
            return
        at = code.end()
        # ratatui asks for its eight colours by their numbers in a palette.
        numbers = re.sub(r"\b38;5;([0-7])\b", r"3\1", code[1] or "0")
        for number in map(int, filter(None, numbers.split(";"))):
            match number:
                case 0: colour, bold, swapped = None, False, False
                case 1: bold = True
                case 7: swapped = True
                case 22: bold = False
                case 27: swapped = False
                case 39: colour = None
                case 49: pass # the usual background
                case number if number in COLOURS: colour = COLOURS[number]
                case _: raise ValueError(f"a screen with SGR {number}, which has no picture here")


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def piece(text, style, column, top):
    """One piece of a line from `column` on."""
    colour, bold, swapped = style
    x, ink = PAD + column * CELL, colour or FRONT
    parts = []
    if swapped:
        parts.append(f'<rect x="{x:.1f}" y="{top}" width="{len(text) * CELL:.1f}" height="{LINE}" fill="{ink}"/>')
        ink = BACK
    # Bars are drawn, since fonts differ in where they put them.
    for at, character in enumerate(text):
        if character in BLOCKS[1:]:
            height = BLOCKS.index(character) * LINE / 8
            parts.append(f'<rect x="{x + at * CELL:.1f}" y="{top + LINE - height:.2f}" width="{CELL - 0.6:.1f}" '
                         f'height="{height:.2f}" fill="{ink}"/>')
    for word in re.finditer(f"[^ {BLOCKS}]+(?: [^ {BLOCKS}]+)*", text):
        weight = ' font-weight="bold"' if bold else ""
        parts.append(f'<text x="{x + word.start() * CELL:.1f}" y="{top + BASE}" fill="{ink}"{weight} '
                     f'textLength="{len(word[0]) * CELL:.1f}" lengthAdjust="spacingAndGlyphs">{escaped(word[0])}</text>')
    return parts


def draw(screen, columns, title):
    """The screen of so many columns in a window with a title."""
    lines = screen.rstrip("\n").split("\n")
    width, height = 2 * PAD + columns * CELL, BAR + PAD + len(lines) * LINE + PAD
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
             f'height="{height}" font-family="ui-monospace, Menlo, \'DejaVu Sans Mono\', monospace" '
             f'font-size="{SIZE}" xml:space="preserve">',
             f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1}" rx="9" fill="{BACK}" stroke="{EDGE}"/>',
             f'<line x1="0.5" x2="{width - 0.5:.1f}" y1="{BAR}" y2="{BAR}" stroke="{EDGE}"/>']
    parts += [f'<circle cx="{18 + at * 18}" cy="15" r="5.5" fill="{colour}"/>'
              for at, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))]
    parts.append(f'<text x="{width / 2:.0f}" y="20" fill="{QUIET}" text-anchor="middle" font-size="13">'
                 f'{escaped(title)}</text>')
    for number, line in enumerate(lines):
        column, top = 0, BAR + PAD // 2 + number * LINE
        for text, style in runs(line):
            parts += piece(text, style, column, top)
            column += len(text)
    return "\n".join([*parts, "</svg>", ""])
