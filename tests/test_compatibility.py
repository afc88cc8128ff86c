"""Every technique with every regularizer, wrapper and precision; docs/compatibility.md is what comes of it.

``python tests/test_compatibility.py`` writes the page anew.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from common import VARIANTS, build, plain, state, trainer
from torch import nn

from lightning_gans import TECHNIQUES, regularizers
from lightning_gans.datamodules import MemoryLoader
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator
from lightning_gans.regularizers import Regularizer
from lightning_gans.wrappers import DiffAugment, spectral_norm, weight_norm

PAGE = Path(__file__).parent.parent / "docs" / "compatibility.md"
REGULARIZERS = ["none", *(name for name in regularizers.__all__ if name != "Regularizer")]
WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda network: network,
    "spectral_norm": spectral_norm,
    "spectral_norm(stable_rank=0.7)": lambda network: spectral_norm(network, stable_rank=0.7),
    "weight_norm": weight_norm,
    "DiffAugment": DiffAugment,
}
PRECISIONS = ["32-true", "64-true", "bf16-mixed"]
DROPOUT = {"ct_gan", "prc_gan", "prc_gan_clip"}  # with a consistency term of their own
# Part of a refusal -> what a cell says.
KINDS = {"more than once": "built in", "BatchNorm": "refused", "stable_rank": "refused", "unroll_steps": "refused",
         "takes labels": "refused", "take no labels": "refused"}  # fmt: skip
VARIETIES = {
    "prc_gan": ", `ratio_clip=None`",
    "prc_gan_clip": ", clipped",
    "unrolled": ", `unroll_optimizer='sgd'`",
    "unrolled_adam": ", `'adam'`",
    "boosted_learned": ", `learn_p=True`",
}

Combination = tuple[str, str, str, str]  # technique, regularizer, wrapper, precision
Outcomes = dict[Combination, str | None]  # the sentence of a refusal, or None where all went well


def outcome(technique: str, regularizer: str, wrapper: str, precision: str, norm: Any = "none") -> str | None:
    """Train for two generator updates; None, or why it was refused before the first one."""
    torch.manual_seed(1)
    classes = 3 if regularizer == "InformationTerm" and technique != "stylex" else None
    generator = DCGANGenerator((1, 8, 8), 3, width=4, num_classes=classes)
    classifier = DCGANDiscriminator((1, 8, 8), width=4)
    discriminator = DCGANDiscriminator((1, 8, 8), width=4, norm=norm, num_classes=classes)
    if technique in DROPOUT or regularizer == "ConsistencyTerm":
        discriminator.layers.append(nn.Dropout(0.3))
    added: list[Regularizer] = [] if regularizer == "none" else [getattr(regularizers, regularizer)()]
    options: dict[str, Any] = {"regularizers": added, "d_steps": 1}
    if technique.startswith("prc_gan"):
        options["ct_weight"] = 2.0  # its default; the other tests have no dropout
    try:
        module = build(technique, generator, WRAPPERS[wrapper](discriminator), classifier, **options)
    except ValueError as refusal:
        return str(refusal)
    before, fit = state(module), trainer(max_steps=2, precision=precision)
    data = plain(n=100, shape=(1, 8, 8))
    fit.fit(module, data if classes is None else MemoryLoader(data.dataset, torch.arange(100) % 3, 4, shuffle=False))
    assert fit.global_step == 2
    assert all(value.isfinite().all() for value in module.values.values()), module.values
    assert {f"d/{r.name}" for r in added} | {"d/adversarial", "g/adversarial"} <= module.values.keys()
    after = state(module)
    assert all(value.isfinite().all() for value in after.values())
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    still = {name for name in trained if torch.equal(after[name].double(), before[name].double())}
    assert all(name.endswith("head.score.bias") for name in still), still  # no Wasserstein loss depends on the critic's
    return None


def outcomes(combinations: Iterable[Combination]) -> Outcomes:
    """What became of each; an error that is no refusal names the combination."""
    found: Outcomes = {}
    for combination in combinations:
        try:
            found[combination] = outcome(*combination)
        except Exception as error:
            raise AssertionError(f"{', '.join(combination)}: {error!r}") from error
    return found


def reduced() -> list[Combination]:
    """One wrapper and precision for each technique and regularizer, so that any two values meet."""
    pairs = itertools.product(enumerate(VARIANTS), enumerate(REGULARIZERS))
    wrappers = list(WRAPPERS)
    return [
        (t, r, wrappers[(i + j) % len(wrappers)], PRECISIONS[(i + j) % len(PRECISIONS)]) for (i, t), (j, r) in pairs
    ]


def few() -> list[Combination]:
    """Every second of them, by turns: each technique and each regularizer meets every wrapper and precision."""
    cells = (divmod(n, len(REGULARIZERS)) for n in range(len(VARIANTS) * len(REGULARIZERS)))
    return [combination for (i, j), combination in zip(cells, reduced()) if (i + j) % 2 == 0]


def whole() -> list[Combination]:
    return list(itertools.product(VARIANTS, REGULARIZERS, WRAPPERS, PRECISIONS))


def with_batch_norm() -> Outcomes:
    """The same for a discriminator with BatchNorm, under no wrapper."""
    pairs = itertools.product(VARIANTS, REGULARIZERS)
    return {(t, r, "none", "32-true"): outcome(t, r, "none", "32-true", norm="batch") for t, r in pairs}


def kind(sentence: str) -> str:
    return next((told for part, told in KINDS.items() if part in sentence), sentence)


def table(found: Outcomes, good: str) -> list[str]:
    """A row per technique, a column per regularizer; the cell is ``good``, or which refusals there were of what."""
    cells: dict[tuple[str, str], dict[str, str | None]] = defaultdict(dict)
    for (technique, regularizer, *rest), sentence in found.items():
        cells[technique, regularizer][", ".join(rest)] = sentence

    def cell(by_rest: dict[str, str | None]) -> str:
        kinds = {rest: kind(sentence) for rest, sentence in by_rest.items() if sentence}
        if len(kinds) == len(by_rest) and len(set(kinds.values())) == 1:
            return next(iter(kinds.values()))
        for wrapper in WRAPPERS:  # told once, if it is so in every precision
            here = [rest for rest in by_rest if rest.startswith(f"{wrapper}, ")]
            told = {kinds.get(rest) for rest in here}
            if here and None not in told and len(told) == 1:
                kinds = {wrapper: told.pop()} | {rest: k for rest, k in kinds.items() if rest not in here}
        return "; ".join(f"{rest}: {told}" for rest, told in kinds.items()) or good

    header = ["technique", "alone", *REGULARIZERS[1:]]
    rows = [[title(t), *(cell(cells[t, r]) for r in REGULARIZERS)] for t in VARIANTS]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def title(technique: str) -> str:
    """The class, and for PRCGAN whether it clips."""
    name = TECHNIQUES[technique.removesuffix("_clip").removesuffix("_adam").removesuffix("_learned")].__name__
    return name + VARIETIES.get(technique, "")


def example(found: Outcomes, part: str) -> str:
    return next(sentence for sentence in found.values() if sentence and part in sentence)


def page(found: Outcomes, batch_norm: Outcomes) -> str:
    """The text of docs/compatibility.md."""
    wrappers = ", ".join(f"`{name}`" for name in list(WRAPPERS)[1:])
    lines = f"""# What goes with what

Written by `python tests/test_compatibility.py`, which tries every technique with every regularizer, under every wrapper of the discriminator (no wrapper, {wrappers}) and in every precision ({", ".join(f"`{p}`" for p in PRECISIONS)}): two generator updates of tiny DCGAN networks on 1x8x8 images, on a CPU (`SeqGAN`, `LeakGAN`, `StyleTransfer`: of texts, which the discriminator takes for such). The default test suite repeats {len(few())} of these {len(whole())} runs, in which each technique and each regularizer meets every wrapper and precision, `--runslow` all of them; both compare the result with this page.

**all**: under each wrapper in each precision the run went to its end, all parameters and logged terms were finite, and every parameter of both networks moved (but the critic's last bias, on which a Wasserstein loss does not depend). It says that the parts fit together, not that the combination learns well.

**built in**: the technique has this term already, and refuses a second one of the same name:

> {example(found, "more than once")}

**refused**: `UnrolledGAN` takes no regularizer, `SRNGAN` no discriminator that is normalised otherwise, `StylEx` has verdicts in the place of labels, and `StyleTransfer` a discriminator without labels:

> {example(found, "unroll_steps").partition(", got")[0]} ...
>
> {example(found, "stable_rank")}
>
> {example(found, "takes labels")}

{{all}}

The discriminator has dropout where a consistency term is involved, which is 0 without it, and both networks have classes where `InformationTerm` is, which is about them.

## BatchNorm in the discriminator

Without wrapper, in `32-true`. Refused are penalties on single samples:

> {example(batch_norm, "BatchNorm")}

{{batch_norm}}

## What fits, but means something else

- `DiffAugment`: each pass of the discriminator has random augmentations of its own. Gradient penalties are taken of the discriminator with the augmentation. `ConsistencyTerm` asks for equal scores under two augmentations (and dropout masks); the two points of a pair in `FiniteDifferencePenalty` and `AdversarialLipschitzPenalty` are augmented differently, so that their slopes are no longer those of one function.
- `WGAN` clamps parameters. Of a normalised layer these are not the weights that it computes with, but those before spectral normalisation, or g and v of `weight_norm`.
- `SNGAN` and `SRNGAN` normalise a discriminator unless it has a spectral norm (by `spectral_norm`, torch's, or layers of other code that keep a vector u), whose settings then hold; `SRNGAN` refuses one by other code, and another stable rank than its own `c`. On top of `weight_norm` they normalise g v / ||v||. `weight_norm` on top of `spectral_norm` is refused.
"""  # noqa: E501
    tables = {"{all}": table(found, "all"), "{batch_norm}": table(batch_norm, "yes")}
    for place, rows in tables.items():
        lines = lines.replace(place, "\n".join(rows))
    return lines


def test_any_two_values_meet_in_the_reduced_set() -> None:
    def pairs(combinations: list[Combination]) -> set[Any]:
        return {pair for c in combinations for pair in itertools.combinations(enumerate(c), 2)}

    assert pairs(reduced()) == pairs(whole())
    across = {pair for pair in pairs(whole()) if pair[0][0] < 2 <= pair[1][0]}  # a part and how it is run
    assert across <= pairs(few())


def cells() -> dict[tuple[str, str], str]:
    """The cells of the page's first table, by technique and regularizer."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    names = {title(t): t for t in VARIANTS}
    return {(names[row[0]], r): cell for row in rows[2 : 2 + len(VARIANTS)] for r, cell in zip(REGULARIZERS, row[1:])}


@pytest.mark.parametrize("chosen", [few, pytest.param(reduced, marks=pytest.mark.slow)])
def test_the_page_says_what_happens(chosen: Callable[[], list[Combination]]) -> None:
    told = cells()
    for (technique, regularizer, wrapper, _), sentence in outcomes(chosen()).items():
        cell = told[technique, regularizer]
        expected = dict(part.split(": ") for part in cell.split("; ")).get(wrapper, "all") if ": " in cell else cell
        assert (kind(sentence) if sentence else "all") == expected, (technique, regularizer, wrapper)


@pytest.mark.slow
def test_the_page_says_what_happens_to_batch_norm() -> None:
    batch_norm = table(with_batch_norm(), "yes")
    assert "\n".join(batch_norm) in PAGE.read_text()


@pytest.mark.slow
def test_the_page_says_what_happens_everywhere() -> None:
    assert page(outcomes(whole()), with_batch_norm()) == PAGE.read_text()


def test_a_cell_names_what_is_refused() -> None:
    found: Outcomes = dict.fromkeys(whole())
    found["gan", "R1", "weight_norm", "64-true"] = "No."
    found |= {c: "got 'r2' more than once." for c in whole() if c[:2] == ("wgan", "R2")}
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table(found, "all")]
    assert [len(row) for row in rows] == [1 + len(REGULARIZERS)] * (2 + len(VARIANTS))
    assert rows[2][1 + REGULARIZERS.index("R1")] == "weight_norm, 64-true: No."
    wgan = next(row for row in rows if row[0] == "WGAN")
    assert wgan[1 + REGULARIZERS.index("R2")] == "built in" and wgan.count("all") == len(REGULARIZERS) - 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    for logger in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    text = page(outcomes(whole()), with_batch_norm())
    PAGE.write_text(text)
    sys.stdout.write(text)
