"""In which section, and in which panel of it, a logged value is shown: by pages of reports, and by dashboards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SCORES, TERMS, GRADIENTS = "Scores", "Loss terms and diagnostics", "Gradient norms"
OF_GROUPS = {"metrics": SCORES, "grad": GRADIENTS, "lr": "Learning rates", "time": "Time"}
SAMPLES = {"step": "Samples of one fixed noise", "interpolation": "Interpolations", "neighbours": "Nearest neighbours"}
LOGARITHMIC = (SCORES, GRADIENTS)  # where values are far apart

Sections = dict[str, dict[str, list[str]]]


def sections(names: Iterable[str]) -> Sections:
    """Names as they are logged, by section and panel, in the order in which one looks at them.

    Each score, and each clock, has a panel of its own; of others those of one group (``d/...``, ``grad/d/...``) share
    one. How many samples were seen, which rises with the updates, is in none.

    >>> found = sections(["d/loss", "lr/g", "metrics/fid/lenet", "time/seconds", "d/real"])
    >>> found["Scores"], found["Loss terms and diagnostics"]
    ({'fid/lenet': ['metrics/fid/lenet']}, {'d': ['d/loss', 'd/real']})
    >>> list(found)
    ['Scores', 'Loss terms and diagnostics', 'Learning rates', 'Time']
    """
    order = (SCORES, TERMS, *(title for title in OF_GROUPS.values() if title != SCORES))
    found: Sections = {title: {} for title in order}
    for name in (name for name in names if name != "time/images_seen"):
        group, _, rest = name.partition("/")
        title = GRADIENTS if rest == "grad_norm" else OF_GROUPS.get(group, TERMS)
        if title == GRADIENTS:
            panel = f"grad/{group if rest == 'grad_norm' else rest.split('/')[0]}"
        else:
            own = group if title == TERMS else title
            panel = rest if title == SCORES else name if group == "time" or not rest else own
        found[title].setdefault(panel, []).append(name)
    return {title: panels for title, panels in found.items() if panels}


def merged(many: Iterable[Mapping[str, object]]) -> list[str]:
    """The names of several runs, each once, in the order of the first that has it."""
    return list(dict.fromkeys(name for names in many for name in names))
