"""One HTML file that needs nothing else: charts, films with a slider, tables and text."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_gans.visualization.images import evenly, read_images

FRAMES, LONGEST = 40, 860  # of a film: what a page can hold
_SMALL = 60_000  # bytes, above which a picture is compressed

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #30343b; background: #f4f5f7; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 28px 0 8px; } h3 { font-size: 14px; margin: 0; }
.lead { color: #666d78; margin: 0 0 16px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(520px, 100%), 1fr)); gap: 12px; }
.charts, main > .card { margin-bottom: 12px; }
.card { background: white; border: 1px solid #dfe2e7; border-radius: 8px; padding: 12px 14px; overflow-x: auto; }
table { border-collapse: collapse; } td, th { padding: 4px 12px 4px 0; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #dfe2e7; } td { border-bottom: 1px solid #f0f1f4; }
pre { background: #f7f8fa; padding: 10px; border-radius: 6px; overflow-x: auto; font-size: 12.5px; margin: 6px 0; }
code { font-size: 13px; } summary { cursor: pointer; font-weight: 600; }
.film img { max-width: 100%; image-rendering: auto; display: block; } .film input { width: min(560px, 70%); }
.film pre { min-height: 12em; white-space: pre-wrap; } .note { color: #8a4b12; }
"""
_FILM = """
document.querySelectorAll(".film").forEach(film => {
  const frames = JSON.parse(film.querySelector("script").textContent), slider = film.querySelector("input");
  const shown = film.querySelector(".frame"), told = film.querySelector("output"), play = film.querySelector("button");
  const show = () => {
    const frame = frames[slider.value];
    if (shown.tagName == "IMG") shown.src = frame[1]; else shown.textContent = frame[1];
    told.textContent = "update " + frame[0].toLocaleString("en");
  };
  slider.addEventListener("input", show);
  let timer = null;
  play.addEventListener("click", () => {
    if (timer) { clearInterval(timer); timer = null; play.textContent = "play"; return; }
    play.textContent = "stop";
    timer = setInterval(() => { slider.value = (+slider.value + 1) % frames.length; show(); }, 350);
  });
  show();
});
"""


def page(title: str, lead: str, sections: Iterable[tuple[str, str]]) -> str:
    """The whole file.

    Args:
        title: plain text.
        lead: plain text below it.
        sections: heading (plain text) and HTML of each; empty ones are left out.
    """
    from plotly.offline import get_plotlyjs

    body = "\n".join(f"<h2>{html.escape(head)}</h2>\n{content}" for head, content in sections if content)
    charts = f"<script>{get_plotlyjs()}</script>" if "plotly-graph-div" in body else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>{charts}</head>\n<body><main>\n'
        f'<h1>{html.escape(title)}</h1>\n<p class="lead">{html.escape(lead)}</p>\n{body}\n'
        f"<script>{_FILM}</script></main></body></html>\n"
    )


def charts(figures: Mapping[str, Any], prefix: str = "chart") -> str:
    """Plotly figures beside each other, each below its name."""
    cells = []
    for i, (name, figure) in enumerate(figures.items()):
        drawn = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"{prefix}-{i}",
                               config={"displayModeBar": False, "responsive": True})  # fmt: skip
        cells.append(f'<div class="card"><h3>{html.escape(name)}</h3>{drawn}</div>')
    return f'<div class="charts">{"".join(cells)}</div>' if cells else ""


def beside(parts: Mapping[str, str]) -> str:
    """Parts beside each other, each below its name; empty ones are left out."""
    cells = [f"<div><h3>{html.escape(name)}</h3>{part}</div>" for name, part in parts.items() if part]
    return f'<div class="charts">{"".join(cells)}</div>' if cells else ""


def film(folder: Path, prefix: str) -> str:
    """What ``<prefix>_<update>.png`` (or .txt) of a folder show, with a slider; empty where there is nothing."""
    frames: list[tuple[int, str]] = []
    if pictures := _by_step(folder, prefix, "png"):
        frames = [(step, _embedded(image)) for step, image in read_images(evenly(pictures, FRAMES), LONGEST).items()]
        shown = '<img class="frame" alt="samples">'
    elif texts := _by_step(folder, prefix, "txt"):
        frames = [(s, path.read_text(encoding="utf-8", errors="replace")) for s, path in evenly(texts, FRAMES).items()]
        shown = '<pre class="frame"></pre>'
    if not frames:
        return ""
    data = json.dumps(frames).replace("<", "\\u003c")
    return (
        f'<div class="card film"><p><button>play</button> <input type="range" min="0" max="{len(frames) - 1}" '
        f'value="{len(frames) - 1}" aria-label="update"> <output></output></p>{shown}'
        f'<script type="application/json">{data}</script></div>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Cells as plain text."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(str(cell))}</th>" for cell in head) + "</tr>"] if head else []
    lines += ["<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return f'<div class="card"><table>{"".join(lines)}</table></div>'


def folded(summary: str, text: str) -> str:
    """Plain text that a click opens."""
    return f'<details class="card"><summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre></details>'


def notes(lines: Iterable[str]) -> str:
    """A list of plain lines that want to be seen; empty where there are none."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<ul class="card note" style="padding-left:30px">{items}</ul>' if items else ""


def markdown(text: str) -> str:
    """The Markdown that model cards are made of: headings, lists, tables, code, `code` and paragraphs."""
    parts: list[str] = []
    blocks = re.split(r"(^(`{3,})(?!`).*?^\2$)", text, flags=re.MULTILINE | re.DOTALL)
    del blocks[2::3]  # the fences, which are caught too
    for block in blocks:
        if block.startswith("```"):
            parts.append(f"<pre>{html.escape(block.partition(chr(10))[2].rpartition(chr(10))[0])}</pre>")
            continue
        for paragraph in re.split(r"\n\s*\n", block):
            lines = paragraph.strip().splitlines()
            if lines and lines[0].startswith("|"):
                cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
                parts.append(table(cells[0], cells[2:]).replace(' class="card"', ""))
            elif lines and lines[0].startswith("- "):
                parts.append("<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>")
            elif lines and lines[0].startswith("#"):
                parts.append(f"<h3>{_inline(lines[0].lstrip('# '))}</h3>")
            elif lines:
                parts.append(f"<p>{_inline(' '.join(lines))}</p>")
    return f'<div class="card">{"".join(parts)}</div>'


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _by_step(folder: Path, prefix: str, ending: str) -> dict[int, Path]:
    found = ((re.fullmatch(rf"{prefix}_(\d+)\.{ending}", path.name), path) for path in folder.glob(f"{prefix}_*"))
    return {int(name[1]): path for name, path in sorted(found, key=lambda pair: pair[1]) if name}


def _embedded(image: Any) -> str:
    """A picture as an address that holds it."""
    file, kind = io.BytesIO(), "png"
    image.save(file, "PNG", optimize=True)
    if file.tell() > _SMALL:
        file, kind = io.BytesIO(), "jpeg"
        image.save(file, "JPEG", quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
