"""What of the site is made of the project's own files: the start page, techniques, recipes, gallery, API, and the nav.

Everything here is text in, text out; `hook` hands it to mkdocs. Run ``python -m website.pages wgan_gp`` to see one.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from website.docstrings import LIBRARY, ROOT, Technique, content, lineage, techniques

DOCS, CONFIGS, PICTURES = ROOT / "docs", ROOT / "configs", "images/techniques"
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")
# Of packages that lie elsewhere, and of those of which not all is for users.
FOLDERS = {"callbacks": ROOT / "callbacks", "datamodules": ROOT / "datamodules"}
PUBLIC = {
    "engine": ("module", "contract", "player", "batch"),
    "runs": ("load", "folder", "checkpoints", "card", "record"),
}
REFERENCE = {
    "techniques": "One file per paper with an adversary.",
    "nonadversarial": "One file per paper without one, on the same engine.",
    "engine": "How any model is trained.",
    "regularizers": "Terms that any technique can add to a player's loss.",
    "functional": "Pure functions of tensors: losses, penalties, densities.",
    "wrappers": "Networks to networks: normalised weights, augmentation, several samples at once.",
    "networks": "Architectures, without losses.",
    "optim": "Optimizers for games.",
    "datamodules": "Data.",
    "callbacks": "What watches a training and changes no gradient.",
    "metrics": "Scores and feature extractors.",
    "samplers": "Better samples of a trained GAN, by its discriminator.",
    "stages": "Models of several fits, each resumable.",
    "diagnostics": "What one learns about a trained model.",
    "visualization": "Drawing: grids, films, toy pictures; charts and pages of reports.",
    "runs": "What lies in a run's folder.",
    "tools": "What one does with a trained model: score, export, write, the Hub.",
}


# ---------------------------------------------------------------------- text
def title(page: Path) -> str:
    """The first heading of a page."""
    return next(line[2:] for line in content(page).splitlines() if line.startswith("# "))


def table(head: list[str], rows: list[list[str]]) -> str:
    """In Markdown; a cell may hold anything but a line break."""
    lines = [head, ["---"] * len(head), *[[cell.replace("|", r"\|") for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sentence(text: str) -> str:
    """With a capital letter: names begin with backticks, which have none."""
    return text[:1].upper() + text[1:]


def relinked(text: str, page: str, home: str = "") -> str:
    """A page's text with links as they are on the site: what lies elsewhere in a clone has a page here.

    Args:
        text: as it is in the repository, where it reads well on GitHub.
        page: where it stands on the site, as ``results/control.md``.
        home: the folder it has in the repository, from docs/; ".." for the README.
    """

    def there(found: re.Match[str]) -> str:
        told, (address, _, anchor) = found[1], found[2].partition("#")
        if not address or "://" in address or address.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join("docs", home, address))
        if told[1:-1].endswith(".md") and (ROOT / path).is_file() and not told.startswith("!"):
            told = f"[{title(ROOT / path)}]"
        if path.startswith("configs/"):
            path, anchor = f"docs/recipes/{Path(path).parent.name}.md", Path(path).stem
        if path.startswith("examples"):
            path, anchor = "docs/examples.md", Path(path).stem * path.endswith(".py")
        named = {
            "README.md": "docs/index.md",
            "CHANGELOG.md": "docs/changelog.md",
            "docs/results": "docs/results/index.md",
        }
        path = posixpath.relpath(named.get(path, path), posixpath.join("docs", posixpath.dirname(page)))
        return f"{told}({path}{'#' * bool(anchor)}{anchor})"

    return LINK.sub(there, text)


def mathml(html: str) -> str:
    r"""A page's HTML with its equations, which arithmatex has marked, as MathML: nothing need be loaded to see them."""
    from html import unescape

    from latex2mathml.converter import convert

    def rendered(found: re.Match[str]) -> str:
        tag, latex = found[1], unescape(found[2]).strip()
        kind = "block" if latex.startswith(r"\[") else "inline"
        latex = re.sub(r"\\(?:[Bb]ig|[Bb]igg)(?![a-z])", "", latex[2:-2])
        lines = latex.split(r"\qquad") if kind == "block" else [latex]  # side by side they are wider than a page
        return "".join(f'<{tag} class="equation">{convert(line.strip(), display=kind)}</{tag}>' for line in lines)

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', rendered, html, flags=re.DOTALL)


# ---------------------------------------------------------------------- what was recorded
@cache
def records() -> dict[str, Any]:
    """What `website.portraits` saw of each technique."""
    return dict(json.loads(content(DOCS / PICTURES / "record.json")))


@cache
def recipes() -> list[dict[str, str]]:
    """All of them, with what they cost."""
    costs: dict[str, Any] = json.loads(content(CONFIGS / "costs.json"))["recipes"]
    found = []
    for path in sorted(CONFIGS.glob("*/*.yaml")):
        name, config = f"{path.parent.name}/{path.stem}", yaml.safe_load(content(path))
        model, data = (str(config[part]["class_path"]).rpartition(".")[2] for part in ("model", "data"))
        inner = config["data"].get("init_args", {}).get("data")  # as the command `recipes` has it
        inner = inner["class_path"].rpartition(".")[2] if isinstance(inner, dict) else inner
        data = f"{data}({inner})" if inner else data
        cost = costs.get(name, {})
        found.append({
            "name": name, "technique": model, "data": data, "updates": f"{config['trainer']['max_steps']:,}",
            "seconds": str(cost.get("seconds", "inf")), "CPU time": took(cost["seconds"]) if "seconds" in cost else "-",
            "memory": f"{cost['mib']:,.0f} MiB" if "mib" in cost else "-",
        })  # fmt: skip
    return found


def took(seconds: float) -> str:
    """As people say it."""
    unit, length = next(
        u for u in (("days", 86400), ("hours", 3600), ("minutes", 60), ("s", 1)) if seconds >= 1.5 * u[1] or u[1] == 1
    )
    return f"{(amount := seconds / length):,.{0 if amount >= 9.95 else 1}f} {unit}"


@cache
def results() -> dict[str, str]:
    """The pages of results, by file name, without hyphens between capitals: WGAN-GP is WGANGP."""
    found = sorted((DOCS / "results").glob("*.md"))
    return {p.name: re.sub(r"(?<=[A-Za-z0-9])-(?=[A-Z])", "", content(p)) for p in found}


def mentions(technique: Technique) -> list[str]:
    """The pages of results that are about a technique, among others: by its names, its recipes, and by what to choose.

    Names of three letters are also words, and count in backticks and as the head of a table's row.
    """
    name, stem, called = technique.name, technique.stem, label(technique).replace("-GAN", "GAN").replace("-GP", "GP")
    own = "|".join(r["name"].replace(".", r"\.") for r in recipes() if r["technique"] == name)
    heads = rf"(?m:^\| (?:\d+\. )?(?:{stem}|{name})(?:,| \|))"
    words = rf"`{name}`" if len(name) == 3 else rf"(?<!\w)(?:{name}|{called}|{called.capitalize()}|{stem})(?!\w)"
    found = re.compile("|".join([words, heads, *([rf"configs/(?:{own})\.yaml"] if own else [])]))
    chosen = {link for line in advice(technique) for _, link in LINK.findall(line)}
    return [page for page, text in results().items()
            if page != "slow-tests.md" and (found.search(text) or f"../results/{page}" in chosen)]  # fmt: skip


def advice(technique: Technique) -> list[str]:
    """What docs/choosing.md says of a technique, with its links: rows that say to take it, and lines that name it."""
    said, section, named = [], "", re.compile(rf"`{technique.name}[`(]")
    for line in content(DOCS / "choosing.md").splitlines():
        section = line[3:] if line.startswith("## ") else section
        if line.startswith("| "):
            want, take, because = line.strip("| ").split(" | ")
            said += [f"*{want}*: take {take}, because: {because}"] if named.search(take) else []
        elif named.search(line):
            said.append(f"*{section}*: {line.removeprefix('- ')}")
    return [relinked(line.replace("](#", "](choosing.md#"), f"techniques/{technique.stem}.md") for line in said]


# ---------------------------------------------------------------------- pages
def logged(technique: Technique) -> dict[str, str]:
    """What is said of the terms that a technique logs, by their names, its own first and then those of its bases."""
    told: dict[str, str] = {}
    for one in lineage(technique):
        told |= {names: text for names, text in one.doc.entries.get("Logged", {}).items() if names not in told}
    return told


def entry(name: str, told: Iterable[str]) -> str | None:
    """The names under which a term stands, among others or by a pattern: ``d/r1, d/r2``, ``g/<attribute>_same``."""
    pattern = {names: re.sub(r"<\w+>", r"[\\w-]+", names).replace(", ", "|") for names in told}
    return next((names for names in told if re.fullmatch(pattern[names], name)), None)


def log_table(technique: Technique, seen: list[str]) -> str:
    """The terms that a technique documents, whether or not the game of its picture had them, and all that were seen.

    Documented are also those of techniques that it modifies, but for `GAN`, whose terms go by the loss.
    """
    told, rows = logged(technique), []
    modified = [one for one in lineage(technique)[1:] if one in techniques() and one.name != "GAN"]
    documented = {names for one in (technique, *modified) for names in one.doc.entries.get("Logged", {})}
    for names, text in told.items():
        known = names.split(", ") if names in documented else seen
        shown = [name for name in known if "<" in name or entry(name, told) == names]
        rows += [[", ".join(f"`{name}`" for name in shown), text]] if shown else []
    return table(["name", "what it is"], rows)


def reference(technique: Technique) -> str:
    """The entry of a class in the API."""
    module = technique.path.relative_to(LIBRARY.parent).with_suffix("").as_posix().replace("/", ".")
    return f"{module}.{technique.name}"


def technique_page(t: Technique) -> str:
    """All that is known of a technique."""
    doc, seen = t.doc, records()[t.stem]
    head = re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", t.head)
    arguments = {n: m for n, m in doc.entries["Args"].items() if n not in ("generator", "discriminator", "latent_dim")}
    bases = [one for one in lineage(t)[1:] if one.name in ("GANModule", "GenerativeModule") or one in techniques()]
    rest = ", ".join(f"[`{b.name}`][{reference(b)}]" for b in bases)
    known = {name: value for one in reversed(lineage(t)) for name, value in one.defaults.items()}
    own = [r for r in recipes() if r["technique"] == t.name]
    quickest = min(own, key=lambda r: (r["name"].startswith("markov"), float(r["seconds"])), default=None)
    parts = [
        f"# {t.name}",
        head,
        f'<figure class="portrait" markdown="span">![Samples of {t.name}](../{PICTURES}/{t.stem}.png)'
        f"<figcaption>{caption(seen)}</figcaption></figure>",
        doc.summary,
        *doc.body,
        "## When to use it",
        sentence(doc.labelled["When"]),
        *(["What was measured here:", "\n".join(f"- {line}" for line in advice(t))] if advice(t) else []),
        "## Defaults",
        sentence(doc.labelled["Defaults"]),
        table(["argument", "default", "what it is"],
              [[f"`{n}`", f"`{known[n]}`" if n in known else "required" if n != "kwargs" else "-", m]
               for n, m in arguments.items()]),
        f"The remaining arguments are those of {rest}.",
        "## Departures from the paper",
        sentence(doc.labelled["Departures"]),
        "## What is logged",
        f"Over {updates(t)}s, to every logger:",
        log_table(t, seen["logged"]),
        "## What an update costs",
        cost(t, seen),
        "## Recipes",
        recipe_table(own, "../recipes/") if own else "None is shipped.",
        *([f"```bash\nlightning-gans fit --config {quickest['name']}\n```"] if quickest else []),
        "## Results that mention it",
        "\n".join(f"- [{title(DOCS / 'results' / name)}](../results/{name})" for name in mentions(t)) or "None yet.",
        "## The whole of it",
        f"API: [`{t.name}`][{reference(t)}]. The file, `{t.path.relative_to(ROOT).as_posix()}`:",
        f'??? note "{t.path.name}"\n\n' + indented(f"```python\n{content(t.path)}```"),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def indented(text: str) -> str:
    """As the content of an admonition."""
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


def caption(seen: dict[str, Any]) -> str:
    """What a picture shows."""
    scores = seen["scores"]
    if "modes" in scores:
        kept = f"{scores['modes']} of 8 modes, {scores['high_quality']:.0%} of the samples near one"
        return f"1,000 samples (blue) over the data (orange) after {seen['updates']:,} updates of toy networks: {kept}"
    kept = f"{scores['possible_pairs']:.1%} of their pairs of letters occur in the data"
    return f"Twelve samples of {seen['data']} after {seen['updates']:,} updates: {kept}"


def updates(t: Technique) -> str:
    """What steps are counted by, one of them."""
    return "update" if t.path.parent.name == "nonadversarial" else "generator update"


def cost(t: Technique, seen: dict[str, Any]) -> str:
    """Of an update: of the picture's game, and beside a skilled loop where that was measured."""
    nets = "perceptrons of 3 x 64 units, batches of 256" if "modes" in seen["scores"] else "small networks of texts"
    told = (
        f"{seen['ms']:.1f} ms of one core for each {updates(t)} with all that belongs to it, in the game of the "
        f"picture ({seen['data']}, {nets}; `python -m website.portraits --only {t.stem}`, seed 0, commit "
        f"{seen['commit']})."
    )
    speed = content(DOCS / "results" / "speed.md")
    if row := re.search(rf"^\| {label(t)} \| \*\*([\d.]+)\*\*", speed, re.MULTILINE):
        told += f" Beside a skilled engineer's loop for it: {row[1]} of its time ([Speed](../results/speed.md))."
    return told


def label(t: Technique) -> str:
    """A technique's name in the table of docs/results/speed.md."""
    named = {"WGANALP": "ALP", "RobustWGAN": "Robust WGAN", "PrimalDualGAN": "primal-dual", "UnrolledGAN": "unrolled",
             "BoostedGAN": "boosted"}  # fmt: skip
    return named.get(t.name, re.sub(r"^(WGAN|CT|PRC|SN|SRN)(GP|GAN)$", r"\1-\2", t.name))


def recipe_table(rows: list[dict[str, str]], folder: str) -> str:
    """With a link to each."""
    columns = ["technique", "data", "updates", "CPU time", "memory"]
    cells = [[f"[{r['name']}]({folder}{r['name'].replace('/', '.md#')})", *[r[c] for c in columns]] for r in rows]
    return table(["recipe", *columns], cells)


GALLERY = """# Gallery

![Handwritten digits that WGAN-GP drew, one class per row](../images/digits.png)

`WGANGP` on scikit-learn's digits, after 900 generator updates: [digits/wgan_gp](../recipes/digits.md#wgan_gp).

## Every technique on the same data

A ring of eight narrow modes (orange), and 1,000 samples (blue) after 1,000 updates of small perceptrons (of the
generator's, where there is an adversary); of techniques for text a dozen samples of a toy language. One seed, and
nothing is tuned: this shows what a technique does in its first seconds, not which is best, for which see
[Which technique for which problem?](../choosing.md) Made by `python -m website.portraits`, seed 0; the commit of each
stands on its page.

<div class="pictures" markdown>

{techniques}

</div>

## Figures of the results

<div class="pictures figures" markdown>

{figures}

</div>
"""


def gallery() -> str:
    """All techniques on the same data, and the pictures of results."""

    def card(alt: str, image: str, page: str) -> str:
        return f"<div markdown>\n\n[![{alt}](../{image})](../{page})\n\n[{alt}](../{page})\n\n</div>"

    figures = []
    for page in sorted((DOCS / "results").glob("*.md")):
        if shown := re.search(r"!\[.*?\]\((\S+\.png)\)", content(page)):
            figures.append(card(title(page), f"results/{shown[1]}", f"results/{page.name}"))
    portraits = [card(t.name, f"{PICTURES}/{t.stem}.png", f"techniques/{t.stem}.md") for t in techniques()]
    return GALLERY.format(techniques="\n\n".join(portraits), figures="\n\n".join(figures))


def result_index() -> str:
    """The pages of results, by the question that they answer."""
    questions = content(DOCS / "questions.md")
    lines = re.findall(r"^\| (.+?) \| (.+)$", questions, re.MULTILINE)
    asked = {page: question for question, rest in lines for page in re.findall(r"\]\(results/(.+?)\)", rest)}
    rows = [[f"[{title(DOCS / 'results' / name)}]({name})", asked.get(name, "")] for name in results()]
    head = "Measured, each with its command, commit, seeds and hardware."
    return f"# Results\n\n{head}\n\n{table(['page', 'question'], rows)}\n"


def recipe_pages() -> Iterator[tuple[str, str]]:
    """A page for the recipes of each data set, and one of all."""
    head = "Complete configurations: `lightning-gans fit --config NAME`. CPU time of all updates on one core, "
    head += "without scores and pictures."
    yield "recipes/index.md", f"# Recipes\n\n{head}\n\n{recipe_table(recipes(), '')}\n"
    for folder in sorted({r["name"].split("/")[0] for r in recipes()}):
        files = sorted((CONFIGS / folder).glob("*.yaml"))
        texts = [f"## {f.stem} {{ #{f.stem} }}\n\n```yaml\n{content(f)}```" for f in files]
        yield f"recipes/{folder}.md", "\n\n".join([f"# Recipes: {folder}", *texts]) + "\n"


def examples() -> str:
    """The scripts of examples/, whole."""
    files = sorted((ROOT / "examples").glob("*.py"))
    texts = [f"## {f.stem} {{ #{f.stem} }}\n\n```python\n{content(f)}```" for f in files]
    return "\n\n".join(["# Examples", "Scripts of a clone, each of two minutes on one CPU core.", *texts]) + "\n"


def reference_pages() -> Iterator[tuple[str, str]]:
    """A page for each package, of all its modules."""
    index = [[f"[`lightning_gans.{n}`]({n}.md)", told] for n, told in REFERENCE.items()]
    yield (
        "reference/index.md",
        f"# API\n\n{table(['package', 'what'], index)}\n\n## gan\n\n::: lightning_gans.gan\n",
    )
    for name, told in REFERENCE.items():
        folder = FOLDERS.get(name, LIBRARY / name)
        files = [p.relative_to(folder).with_suffix("") for p in sorted(folder.rglob("*.py")) if p.name != "__init__.py"]
        files = [p for p in files if p.name in PUBLIC.get(name, (p.name,))]
        modules = [f"lightning_gans.{name}.{p.as_posix().replace('/', '.')}" for p in files]
        text = "\n\n".join(f"## {m.removeprefix(f'lightning_gans.{name}.')}\n\n::: {m}" for m in modules)
        yield f"reference/{name}.md", f"# lightning_gans.{name}\n\n{told}\n\n{text}\n"


def generated() -> dict[str, str]:
    """All pages that are no file of docs/, by their places on the site."""
    made = {
        "index.md": relinked(content(ROOT / "README.md"), "index.md", ".."),
        "changelog.md": relinked(content(ROOT / "CHANGELOG.md"), "changelog.md", ".."),
        "gallery/index.md": gallery(),
        "examples.md": examples(),
        "results/index.md": result_index(),
        **dict(recipe_pages()),
        **dict(reference_pages()),
    }
    return made | {f"techniques/{t.stem}.md": technique_page(t) for t in techniques()}


def changed(text: str, page: str) -> str:
    """A page of docs/ as it is on the site."""
    if page == "techniques.md":
        for t in techniques():
            text = text.replace(f" | `{t.name}` | ", f" | [`{t.name}`](techniques/{t.stem}.md) | ")
    return relinked(text, page, posixpath.dirname(page))


def nav() -> list[Any]:
    """The site's table of contents."""
    measured = sorted((DOCS / "results").glob("*.md"))
    return [
        {"Start": ["index.md", "choosing.md", "gallery/index.md", "questions.md"]},
        {"Guides": [
            {"Command line": "command-line.md"},
            {"Examples": "examples.md"},
            {"Your own data": "own-data.md"},
            {"Networks of your own": "own-networks.md"},
            {"Your own project": "own-project.md"},
            {"A technique of your own": "add-a-technique.md"},
            {"Several devices": "distributed.md"},
            {"Stop, and go on": "resume.md"},
            {"Scores and protocols": "scores.md"},
            {"Text": "text.md"},
            {"Control and explanation": "control.md"},
            {"From checkpoint to picture": "after-training.md"},
            {"W&B and TensorBoard": "dashboards.md"},
            {"What goes with what": "compatibility.md"},
            {"How the parts fit together": "design.md"},
        ]},
        {"Techniques": ["techniques.md", *({t.name: f"techniques/{t.stem}.md"} for t in techniques())]},
        {"Recipes": [name for name, _ in recipe_pages()]},
        {"Results": ["results/index.md", *({title(p): f"results/{p.name}"} for p in measured)]},
        {"API": [name for name, _ in reference_pages()]},
        {"Changelog": "changelog.md"},
    ]  # fmt: skip


if __name__ == "__main__":
    print(generated()[f"techniques/{sys.argv[1]}.md"])
