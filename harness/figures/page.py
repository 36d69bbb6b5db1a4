"""One HTML page that needs nothing else: sortable tables, figures inside, no network."""

import base64
from collections.abc import Sequence
from html import escape

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.files import render

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #111; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-top: 1px solid #bbb; }
h3 { font-size: 1.05rem; margin-top: 1.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.87rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
td.number { text-align: right; }
th button { font: inherit; font-weight: 600; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort="ascending"] button::after { content: " \\25B2"; }
th[aria-sort="descending"] button::after { content: " \\25BC"; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
pre { background: #f5f5f5; padding: 0.7rem; overflow-x: auto; font-size: 0.8rem; }
.note { color: #555; }
"""

# Clicking a column's name sorts by it, again the other way; numbers as numbers, empty cells last.
SCRIPT = """
function key(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
}
function compare(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}
function sort(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = Array.from(body.rows).map((row) => [key(row, column), row]);
  rows.sort(([a], [b]) => (a === "" || b === "" || up ? 1 : -1) * compare(a, b));
  body.append(...rows.map(([, row]) => row));
}
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}
"""


def page(title: str, *parts: str) -> str:
    """A whole document."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{chr(10).join(parts)}\n<script>{SCRIPT}</script></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it."""
    return f"<section><h2>{escape(title)}</h2>\n{chr(10).join(parts)}</section>"


def part(title: str, *parts: str) -> str:
    """A heading inside a section and what stands below it."""
    return f"<h3>{escape(title)}</h3>\n{chr(10).join(parts)}"


def chapters(chapters: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """A section for each title, behind a table of contents where there are several."""
    sections = [
        f'<section id="chapter{number}"><h2>{escape(title)}</h2>\n{chr(10).join(parts)}</section>'
        for number, (title, parts) in enumerate(chapters)
    ]
    entries = "".join(
        f'<li><a href="#chapter{number}">{escape(title)}</a></li>' for number, (title, _) in enumerate(chapters)
    )
    return [f"<nav><ul>{entries}</ul></nav>", *sections] if len(sections) > 1 else sections


def note(text: str) -> str:
    """A remark."""
    return f'<p class="note">{escape(text)}</p>'


def table(rows: pd.DataFrame, digits: dict[str, int] | None = None) -> str:
    """A sortable table; `digits` gives the decimals of columns of numbers."""
    head = "".join(f'<th><button type="button">{escape(str(name))}</button></th>' for name in rows.columns)
    body = "\n".join(
        f"<tr>{''.join(_cell(value, (digits or {}).get(str(name))) for name, value in row.items())}</tr>"
        for row in rows.to_dict("records")
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _cell(value: object, digits: int | None) -> str:
    if value is None or value != value:
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{escape(str(value))}</td>"
    text = f"{value:.{digits}f}" if digits is not None else f"{value:g}" if isinstance(value, float) else str(value)
    return f'<td class="number" data-value="{value!r}">{text}</td>'


def figure(drawn: Figure, caption: str) -> str:
    """A figure inside the page."""
    data = base64.b64encode(render(drawn, "svg", dpi="figure")).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}"></figure>'


def preformatted(text: str) -> str:
    """Text as it stands."""
    return f"<pre>{escape(text)}</pre>"


def folded(entries: Sequence[tuple[str, str]]) -> str:
    """Titles that open to show preformatted text."""
    return "\n".join(
        f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>" for title, text in entries
    )
