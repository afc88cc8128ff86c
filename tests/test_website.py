"""The documentation site: what is generated is whole and its links lead somewhere, and a browser shows it."""

from __future__ import annotations

import ast
import doctest
import functools
import html
import importlib.util
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from PIL import Image

from lightning_gans import NONADVERSARIAL, TECHNIQUES
from website import docstrings, hook, pages, portraits

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STEMS = [portraits.stem(name) for name in portraits.KINDS]


@functools.cache
def site() -> dict[str, str]:
    """All pages, by their places."""
    docs = {p.relative_to(pages.DOCS).as_posix(): docstrings.content(p) for p in pages.DOCS.rglob("*.md")}
    return pages.generated() | {name: pages.changed(text, name) for name, text in docs.items()}


def test_docstrings_become_markdown() -> None:
    assert doctest.testmod(docstrings).attempted
    doc = docstrings.parse(
        "What.\n\n.. math:: a +\n          b\n\nWords. Departures: none,\nbut one.\n\nLogged:\n    d/a, d/b: two\n"
        "        of them.\n\nArgs:\n    x: a :class:`GAN`.\n\n>>> 1\n1"
    )
    assert doc.summary == "What." and doc.body == [r"\[ a + b \]", "Words.", "```pycon\n>>> 1\n1\n```"]
    assert doc.labelled == {"Departures": "none, but one."}
    assert doc.entries == {"Logged": {"d/a, d/b": "two of them."}, "Args": {"x": "a `GAN`."}}
    assert docstrings.markdown("Logged:\n    g/x: it.\n        More.") == "Logged:\n    - `g/x`: it.\n        More."


@pytest.mark.parametrize("technique", docstrings.techniques(), ids=lambda t: t.name)
def test_a_techniques_docstring_says_all_that_its_page_needs(technique: docstrings.Technique) -> None:
    assert technique.doc.labelled.keys() >= {"When", "Defaults", "Departures"}
    assert any(text.startswith(r"\[") for text in technique.doc.body) and technique.doc.summary.endswith(".")
    terms = pages.logged(technique)
    unknown = [name for name in pages.records()[technique.stem]["logged"] if not pages.entry(name, terms)]
    assert not unknown, f"say under Logged what they are: {unknown}"
    page = site()[f"techniques/{technique.stem}.md"]
    for label, text in technique.doc.labelled.items():  # which gets a capital letter
        assert not re.match(r"(?!a )[a-z]\b|rho\b|lambda\b", text), (
            f"{label}: a symbol in double backticks, or not first"
        )
    for name, default in technique.defaults.items():
        if name in technique.doc.entries["Args"].keys() - {"latent_dim"}:
            assert f"| `{name}` | `{default}` |" in page.replace("\\|", "|")
    assert re.search(r"\d ms of one core", page) and f"# {technique.name}\n" in page


def test_every_technique_has_its_page_and_picture() -> None:
    made = [*TECHNIQUES.values(), *NONADVERSARIAL.values()]
    assert {t.name for t in docstrings.techniques()} == {model.__name__ for model in made}
    assert {f"techniques/{stem}.md" for stem in STEMS} <= site().keys() and set(STEMS) == pages.records().keys()
    for stem in STEMS:
        path = portraits.FOLDER / f"{stem}.png"
        assert path.stat().st_size < 20_000 and Image.open(path).size == (312, 312)
    assert set(portraits.RING) | set(portraits.TEXTS) == portraits.KINDS.keys()


def test_what_is_said_of_one_technique() -> None:
    known = docstrings.classes()
    assert [t.name for t in docstrings.lineage(known["CTGAN"])] == [
        "CTGAN", "WGANGP", "GAN", "GANModule", "GenerativeModule"]  # fmt: skip
    mentioned = {name: pages.mentions(one) for name, one in known.items() if one in docstrings.techniques()}
    assert {"mode-collapse.md", "unrolling.md"} <= {*mentioned["UnrolledGAN"]} and "gpu.md" not in mentioned["VAEBM"]
    assert "boosted-start.md" in mentioned["BoostedGAN"] and "mnist.md" in mentioned["RobustWGAN"]
    assert all(mentioned.values()) and not any("slow-tests.md" in found for found in mentioned.values())
    assert any("take `RobustWGAN`" in line for line in pages.advice(known["RobustWGAN"]))
    assert pages.entry("g/hue_same", pages.logged(known["GANControl"])) == "g/<attribute>_same"
    assert pages.entry("d/x", ["d/xy", "d/y, d/x"]) == "d/y, d/x" and not pages.entry("g/x", ["d/x"])
    table = pages.log_table(known["R3GAN"], ["d/r1", "d/r2", "d/loss", "g/loss"]).splitlines()[2:]
    assert [row.split(" | ")[0] for row in table] == ["| `d/r1`, `d/r2`", "| `d/loss`, `g/loss`"]
    for name in ("StyleGAN2", "StylEx"):
        assert "`d/augment`" in pages.log_table(known[name], []), "what the picture's game did not have"
    assert "wasserstein" in pages.log_table(known["GAN"], []) and "wasserstein" not in pages.log_table(
        known["R3GAN"], []
    )
    for name, counted in {"DDPM": "Over updates", "GAN": "Over generator updates"}.items():
        assert counted in site()[f"techniques/{known[name].stem}.md"]
    assert "for each update" in pages.cost(known["VAE"], pages.records()["vae"])
    assert re.search(r"\d\.\d\d of its time", pages.cost(known["WGANGP"], pages.records()["wgan_gp"]))
    assert [r["name"] for r in pages.recipes() if r["technique"] == "AdaGAN"] == ["ring/ada_gan"]


def test_links_are_those_of_the_site() -> None:
    text = "[a](docs/text.md#b), ![c](docs/images/digits.png), [docs/choosing.md](docs/choosing.md), [d](https://x.y/z)"
    assert pages.relinked(text, "index.md", "..") == (
        "[a](text.md#b), ![c](images/digits.png), [Which technique for which problem?](choosing.md), [d](https://x.y/z)"
    )
    for link, there in {"../../configs/ring/gan.yaml": "../recipes/ring.md#gan", "../../examples": "../examples.md",
                        "../../examples/text_gan.py": "../examples.md#text_gan", "../text.md": "../text.md",
                        "../results": "index.md", "../../README.md": "../index.md", "#x": "#x"}.items():  # fmt: skip
        assert pages.relinked(f"[x]({link})", "results/a.md", "results") == f"[x]({there})"


def test_every_page_is_linked_to_what_there_is() -> None:
    """mkdocs checks it too, and anchors; this does where it is not installed."""
    files = {p.relative_to(pages.DOCS).as_posix() for p in pages.DOCS.rglob("*.*")} | site().keys()
    for name, text in site().items():
        for _, link in pages.LINK.findall(re.sub(r"```.*?```|`[^`\n]+`", "", text, flags=re.DOTALL)):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), link.partition("#")[0]))
            assert "://" in link or link.startswith("#") or path in files, f"{name}: {link}"


def listed(nav: object) -> set[str]:
    """The pages of a table of contents."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*map(listed, nav.values() if isinstance(nav, dict) else nav))  # type: ignore[attr-defined]


def test_the_table_of_contents_has_every_page_and_nothing_else() -> None:
    assert listed(pages.nav()) == site().keys()
    assert all(f"::: lightning_gans.{name}." in site()[f"reference/{name}.md"] for name in pages.REFERENCE)


def test_equations_are_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("latex2mathml.converter")
    module.convert = lambda latex, display: f"<math {display}>{latex}</math>"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "latex2mathml", ModuleType("latex2mathml"))
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", module)
    marked = r'<div class="arithmatex">\[ a &lt; \Big[b], \qquad c \]</div> <span class="arithmatex">\(x\)</span>'
    assert pages.mathml(marked) == (
        '<div class="equation"><math block>a < [b],</math></div><div class="equation"><math block>c</math></div> '
        '<span class="equation"><math inline>x</math></span>'
    )


def test_no_equation_keeps_a_command() -> None:
    """What latex2mathml does not know it leaves as it is: backslash and name."""
    pytest.importorskip("latex2mathml")
    texts = list(site().values())
    for path in [*docstrings.LIBRARY.rglob("*.py"), *(p for f in pages.FOLDERS.values() for p in f.rglob("*.py"))]:
        tree = ast.walk(ast.parse(docstrings.content(path)))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts += [docstrings.markdown(ast.get_docstring(node) or "") for node in tree if isinstance(node, kinds)]
    found = {e for text in texts for e in re.findall(r"\\\(.+?\\\)|\\\[.+?\\\]", re.sub(r"(?s)```.*?```", "", text))}
    rendered = {e: pages.mathml(f'<span class="arithmatex">{html.escape(e)}</span>') for e in found}
    assert len(found) > 100 and not [e for e, shown in rendered.items() if "\\" in shown]


def test_what_mkdocs_is_handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "PACKAGE", tmp_path / "package")
    hook.on_startup()
    assert hook.PACKAGE.is_dir()
    config = hook.on_config(SimpleNamespace(nav=None))
    assert config.nav == pages.nav() and (tmp_path / "package/lightning_gans/datamodules/base.py").is_file()
    page = SimpleNamespace(file=SimpleNamespace(generated_by=None, src_uri="techniques.md"))
    assert "[`GAN`](techniques/gan.md)" in hook.on_page_markdown(" | `GAN` | ", page=page)
    page.file.generated_by = "this"
    assert hook.on_page_markdown(" | `GAN` | ", page=page) == " | `GAN` | "


def test_a_workflow_publishes_what_make_docs_builds() -> None:
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "docs.yml").read_text(encoding="utf-8"))["jobs"].values()
    assert any(step.get("run", "").startswith("make docs") for step in job["steps"])
    assert {"path": "build/site"} in [step.get("with") for step in job["steps"]]
    config = (ROOT / "website" / "mkdocs.yml").read_text(encoding="utf-8")
    assert "site_dir: ../build/site" in config and "http" not in config.partition("plugins:")[0], (
        "nothing from elsewhere"
    )
    rule = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ndocs:")[2].partition("\n\n")[0]
    assert "--strict" in rule and "--quiet" not in rule, "quiet, mkdocs counts no warnings"
    assert "docs PYTHON=" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_a_portrait_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portraits, "UPDATES", 10)
    monkeypatch.setattr(sys, "argv", ["portraits", "--only", "gan", "--out", str(tmp_path)])
    portraits.main()
    seen = json.loads((tmp_path / portraits.RECORD).read_text(encoding="utf-8"))["gan"]
    assert seen["updates"] == 10 and seen["ms"] > 0 and {"d/loss", "g/adversarial"} <= set(seen["logged"])
    assert "gan" not in portraits.missing(tmp_path, []) and list(portraits.missing(tmp_path, ["gan"])) == ["gan"]
    (tmp_path / "gan.png").unlink()
    assert next(portraits.missing(tmp_path, [])) == "gan"


# ---------------------------------------------------------------------- built, and in a browser
# The search runs in a thread of the browser's own, for which its virtual time does not wait: a page around the site
# whose loading ends when something is found.
AROUND = """<link rel="icon" href="data:,"><iframe src="/index.html?q=spectral" width="1200" height="900"></iframe>
<img src="/until-found"><script>
const look = setInterval(() => {
  const found = document.querySelectorAll("iframe")[0].contentDocument.querySelector(".md-search-result__link");
  if (found) { clearInterval(look); document.body.append(found.cloneNode(true)); fetch("/found"); }
}, 200);
</script>"""


class Served(SimpleHTTPRequestHandler):
    """Tells what was asked for, in ``asked``: the status by the path."""

    asked: dict[str, int]
    found: threading.Event

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Kept."""
        self.asked[self.path.partition("?")[0]] = int(code)

    def do_GET(self) -> None:
        """A file of the site, or what is around it."""
        if self.path not in ("/search", "/found", "/until-found"):
            return super().do_GET()
        if self.path == "/found":
            self.found.set()
        elif self.path == "/until-found":
            self.found.wait(60)
        self.send_response(200)
        self.send_header("Content-Type", "image/svg+xml" if self.path == "/until-found" else "text/html")
        self.end_headers()
        empty = '<svg xmlns="http://www.w3.org/2000/svg"/>'
        self.wfile.write((AROUND if self.path == "/search" else empty).encode())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, every warning of which is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "website/mkdocs.yml", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.skipif(
    importlib.util.find_spec("mkdocstrings_handlers") is None or importlib.util.find_spec("latex2mathml") is None,
    reason="there is no mkdocs: pip install -e '.[docs]'",
)
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("index.html", "<h2 id=\"two-commands\">"),
        ("techniques/wgan_gp.html", "<math"),
        ("gallery/index.html", "images/techniques/mle.png"),
        ("search", 'class="md-search-result__link"'),
    ],
)  # fmt: skip
def test_a_browser_shows_it(built: Path, tmp_path: Path, address: str, expected: str) -> None:
    """No word in the console, nothing asked of anybody else, all that is asked for is there, and images are shown."""
    asked: dict[str, int] = {}
    handler = type("Handler", (Served,), {"asked": asked, "found": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(built)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        budget = [] if address == "search" else ["--virtual-time-budget=8000"]
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *budget, "--enable-logging=stderr",
                   f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1240,6000",
                   "--dump-dom", f"http://127.0.0.1:{server.server_port}/{address}"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    finally:
        server.shutdown()
        server.server_close()
    assert "CONSOLE" not in done.stderr and expected in done.stdout, done.stderr[-2000:]
    assert not {path: code for path, code in asked.items() if code not in (200, 304)}
    loaded = re.findall(r'<(?:img|script)[^>]* src="([^"]+)"|<link rel="stylesheet"[^>]* href="([^"]+)"', done.stdout)
    for link in filter(None, (a or b for a, b in loaded)):
        place = posixpath.normpath(posixpath.join("/", posixpath.dirname(address), link))
        assert "://" not in link and place in asked, link
