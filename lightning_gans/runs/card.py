"""The model card of a checkpoint: what it is, how it scores, how it was made."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import yaml

SIGNED = {"uniformity_gap"}  # parts of names of scores that are best at 0, not below it
# Of those of which neither more nor less is better: they are to be as of real samples, or tell how sure a score is.
NEITHER = {"mean", "std", "tail_mass", "sharpness", "is_std", "kid_std", "uniformity", "uniformity_real"}


def card(checkpoint: Mapping[str, Any], name: str = "last.ckpt") -> str:
    """Markdown: technique, data, updates, scores with their protocol, how to load it, configuration.

    Args:
        checkpoint: what is written, or was read; all is told by it.
        name: its file's.
    """
    options = dict(checkpoint.get("hyper_parameters", {}))
    technique = str(checkpoint.get("class_path", "") or options.get("_class_path", "unknown"))
    module, _, short = technique.rpartition(".")
    source = (getattr(sys.modules.get(module), "__doc__", None) or "").strip().splitlines()[:1]
    data = checkpoint.get("data", "")
    engine = checkpoint.get("engine", checkpoint.get("gan", {}))
    images, counted = engine.get("images_seen"), "generator updates" if "g" in engine.get("updates", "g") else "updates"
    seen = f" ({images:,} real samples seen)" if images is not None else ""
    written = {"lightning_gans": "unknown", "torch": "unknown"} | checkpoint.get("versions", {})
    written["Lightning"] = checkpoint.get("pytorch-lightning_version", "unknown")
    lines = [
        f"# {short}{f' on {data}' if data else ''}",
        "",
        *source,
        "",
        f"- technique: `{technique}`",
        *([f"- data: {data}"] if data else []),
        f"- {counted}: {checkpoint.get('global_step', 0):,}{seen}",
        f"- weights: {'averaged over training (EMA), and raw' if 'ema' in checkpoint else 'raw'}",
        *([f"- network calls for a sample: {calls:,}"] if (calls := checkpoint.get("network_calls")) else []),
        f"- written by: {', '.join(f'{name} {version}' for name, version in written.items())}",
    ]
    states = [s for s in checkpoint.get("callbacks", {}).values() if isinstance(s, Mapping) and "higher_is_better" in s]
    states = [s for s in states if s["history"]]  # of `ScoreCallback`; others may call anything a history
    if states:
        lines += ["", "## Scores", "", "| score | before | last | at update | best of training | at update |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        for state in states:
            lines += _rows(state["history"], state["higher_is_better"])
        for state in states:
            if protocol := state.get("protocol"):
                lines += ["", "Protocol: " + ", ".join(f"{k} {v}" for k, v in protocol.items()) + "."]
    for state in checkpoint.get("callbacks", {}).values():
        if isinstance(state, Mapping) and state.get("texts"):  # of `SampleText`
            shown = [str(line)[:200] for line in state["texts"][:10]]
            lines += ["", "## Samples", "", *_fenced("text", shown)]
            break
    ours = all(map(_known, [technique, *_class_paths(settings_of(options))]))
    trust = "" if ours else ", trust_code=True"  # it imports your code
    code = ["from lightning_gans import load", "", f'samples = load("{name}"{trust}).sample(64, seed=0)']
    lines += ["", "## Use", "", *_fenced("python", code)]
    config = {"model": options, "data": dict(checkpoint.get("datamodule_hyper_parameters", {}))}
    plain = {k: {n: v for n, v in part.items() if n != "_instantiator"} for k, part in config.items() if part}
    text = yaml.safe_dump(_plain(plain), sort_keys=False).rstrip()
    return "\n".join([*lines, "", "## Configuration", "", *_fenced("yaml", [text]), ""])


def _fenced(kind: str, lines: list[str]) -> list[str]:
    """A block of code, whose fences are longer than what it may hold of such."""
    held = max(map(len, re.findall("`+", "\n".join(lines))), default=0)
    fence = "`" * max(3, held + 1)
    return [fence + kind, *lines, fence]


def goodness(name: str, higher: Iterable[str]) -> Callable[[float], float]:
    """Of two values of a score the better one has the larger goodness: more, less, or, of a gap with a sign, nearer 0.

    Args:
        name: of the score, in full.
        higher: parts of names of scores of which more is better; "bleu" stands for "bleu-2", "bleu-3" and so on.

    >>> max([-0.5, 0.1, 0.4], key=goodness("metrics/uniformity_gap/lenet", ()))
    0.1
    >>> [max([0.1, 0.4], key=goodness(name, ("bleu",))) for name in ("metrics/bleu-6", "metrics/self_bleu-6")]
    [0.4, 0.1]
    """
    parts = set(name.split("/"))
    parts |= {re.sub(r"-\d+$", "", part) for part in parts}
    if parts & SIGNED:
        return lambda value: -abs(value)
    return (lambda value: value) if parts & set(higher) else (lambda value: -value)


def best_entry(history: Iterable[Mapping[str, float]], name: str, higher: Iterable[str]) -> Mapping[str, float] | None:
    """The measurement with the best value of a score; None where it is NaN in all, or no value is better than another.

    That of update 0 counts only where there is no other: it is of an untrained network, or of the one that the training
    began with, and tells nothing of the training. Tables have it beside the best.

    Args:
        history: measurements, each ``step`` and values by name.
        name: of the score, in full.
        higher: parts of names of scores of which more is better.

    >>> best_entry([{"step": 0, "js": 1.0}, {"step": 5, "js": 3.0}, {"step": 9, "js": 2.0}], "js", ())
    {'step': 9, 'js': 2.0}
    """
    known = [entry for entry in history if not math.isnan(entry.get(name, math.nan))]
    if set(name.split("/")) & NEITHER:
        return None
    good = goodness(name, higher)
    return max([e for e in known if e["step"] > 0] or known, key=lambda entry: good(entry[name]), default=None)


def _rows(history: list[dict[str, float]], higher: Iterable[str]) -> list[str]:
    rows = []
    for name in (n for n in history[-1] if n != "step"):
        if not math.isnan(history[-1][name]) or best_entry(history, name, higher):
            best = best_entry(history, name, higher)
            entries = [
                history[-1],
                best if best and best["step"] > 0 else None,
            ]  # of an untrained network there is none
            told = ["- | -" if e is None else f"{e[name]:.4g} | {e['step']:.0f}" for e in entries]
            before = f"{history[0][name]:.4g}" if history[0]["step"] == 0 and name in history[0] else ""
            rows.append(f"| {name.removeprefix('metrics/')} | {' | '.join([before, *told])} |")
    return rows


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a technique but for those that only a training needs."""
    return {k: v for k, v in options.items() if not str(k).startswith(("_", "optimizer_", "scheduler_"))}


def _known(class_path: str) -> bool:
    """Whether ``load`` builds it without being told to trust it; what a script defines is there already."""
    return class_path.startswith(("lightning_gans.", "torch.nn.", "__main__.")) or "." not in class_path


def _class_paths(value: Any) -> Iterator[str]:
    """All that options tell."""
    if isinstance(value, Mapping):
        yield from (str(value[key]) for key in ("class_path", "_class_path") if key in value)
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        yield from _class_paths(part)


def _plain(value: Any) -> Any:
    """Values that YAML can hold."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
