"""Style transfer: its terms, networks, data, classifier and scores, and that it learns a toy language."""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from common import make, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gans import StyleTransfer, load
from lightning_gans.callbacks import TransferMetrics
from lightning_gans.cli import main
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import MarkovText, StyledText, TextFile
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.prc import softmax_weights
from lightning_gans.functional.text import one_hot
from lightning_gans.metrics import (
    Bleu,
    StyleJudge,
    TransferScores,
    bleu,
    corpus_bleu,
    harmonic_mean,
    ngram_js_to_law,
    self_bleu,
)
from lightning_gans.networks import LanguageModel, SeqGANDiscriminator, StyleAutoencoder
from lightning_gans.runs.load import load_weights
from lightning_gans.stages import fit_style_classifier, style_accuracy
from lightning_gans.tools.text import rewrite

T, V, CODE = 3, 5, 4


def autoencoder(**options: Any) -> StyleAutoencoder:
    torch.manual_seed(1)
    return StyleAutoencoder((T, V), CODE + T, embedding=3, style=2, **options).double()


def critic(*out: int) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(T * V, *(out or (1,)))).double()


def module(**options: Any) -> StyleTransfer:
    given: dict[str, Any] = {"classifier": critic(2)} | options
    return StyleTransfer(autoencoder(), critic(), CODE + T, **given)


def batch(n: int = 6) -> Batch:
    source = torch.Generator().manual_seed(3)
    tokens = torch.randint(V, (n, T), generator=source)
    z = torch.randn(n, CODE + T, generator=source, dtype=torch.float64)
    return Batch(one_hot(tokens, V, torch.float64), torch.arange(n) % 2, None, z)


# ---------------------------------------------------------------------- the network
def test_teacher_forced_logits_are_those_of_the_text_as_it_is_written() -> None:
    """What is likeliest token by token, read as a text, has itself for its likeliest tokens."""
    net, x, styles = autoencoder(), batch().real, torch.arange(6) % 2
    code, made = net.encode(x), net.rewritten(x, styles)
    assert torch.equal(net.logits(made, code, styles).argmax(-1), made)
    assert torch.equal(net.encode(x.argmax(-1)), code) or torch.allclose(net.encode(x.argmax(-1)), code, atol=1e-12)


def test_a_relaxed_text_is_read_as_a_mixture_and_ends_as_a_text() -> None:
    net, b = autoencoder(beta=(1.0, 1e4), schedule_steps=10), batch()
    z = torch.cat([net.encode(b.real), b.z[:, CODE:]], 1)
    soft = net(z, b.labels)
    torch.testing.assert_close(soft.sum(-1), torch.ones(6, T, dtype=torch.float64))
    state = torch.cat([net.styles(b.labels), z[:, :CODE]], 1)[None]
    read = net.embedding(torch.zeros(6, 1, dtype=torch.int64))
    for t in range(T):  # written out
        h, state = net.decoder(read, state)
        now = net.out(h[:, 0]).softmax(-1)
        torch.testing.assert_close(soft[:, t], now)
        read = (now @ net.embedding.weight)[:, None]
    net.at_update(10)
    torch.testing.assert_close(net(z, b.labels), one_hot(net.rewritten(b.real, b.labels), V, torch.float64))


def test_a_text_of_noise_has_the_law_of_its_logits() -> None:
    net, n = autoencoder(), 20_000
    code = torch.randn(1, CODE, dtype=torch.float64).expand(n, -1)
    z = torch.cat([code, torch.randn(n, T, generator=torch.Generator().manual_seed(0), dtype=torch.float64)], 1)
    styles = torch.ones(n, dtype=torch.int64)
    with torch.no_grad():
        tokens = net.generate(z, styles, temperature=0.5)
        law = (net.logits(tokens[:1], code[:1], styles[:1])[0, 0] / 0.5).softmax(-1)
    assert float((tokens[:, 0].bincount(minlength=V) / n - law).abs().max()) < 0.015


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": T}, "latent_dim must be an integer >= 4"),
        ({"num_classes": 1}, "num_classes must be an integer >= 2"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"shape": (3,)}, "shape must be"),
    ],
)
def test_networks_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StyleAutoencoder(**({"shape": (T, V), "latent_dim": CODE + T} | options))


# ---------------------------------------------------------------------- the game
def test_terms_are_the_published_ones() -> None:
    model, b = module(reconstruction_weight=2.0, style_weight=0.5, adversarial_weight=0.3), batch()
    net: Any = model.generator
    fake = model.make_fake(b)
    terms = model.generator_terms(b, fake)
    assert b.labels is not None
    torch.testing.assert_close(fake, net(torch.cat([net.encode(b.real), b.z[:, CODE:]], 1), 1 - b.labels))
    log_p = net.logits(b.real, net.encode(b.real), b.labels).log_softmax(-1)
    torch.testing.assert_close(terms["reconstruction"], -2.0 * (log_p * b.real).sum(-1).mean())
    told = model.classifier(fake).log_softmax(1).gather(1, 1 - b.labels[:, None])
    torch.testing.assert_close(terms["style"], -0.5 * told.mean())
    torch.testing.assert_close(terms["adversarial"], 0.3 * F.softplus(-model.discriminator(fake)).mean())
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.generator.parameters())
    assert all(p.grad is None for p in model.classifier.parameters())


def test_the_classifier_tells_without_dropout() -> None:
    """Also where it is in training mode, as a trainer puts the whole model in."""
    model, x = module(classifier=nn.Sequential(critic(2), nn.Dropout(0.5)), reconstruction_weight=0.0).train(), batch()
    fake = model.make_fake(x)
    first, again = (model.generator_terms(x, fake)["style"] for _ in range(2))
    assert torch.equal(first, again) and model.classifier.training


def test_a_sentence_is_encoded_once_for_both_texts_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, read = module(), batch(), list[bool]()
    encode = model.generator.encode
    monkeypatch.setattr(model.generator, "encode", lambda text: (read.append(torch.is_grad_enabled()), encode(text))[1])
    data = DataLoader(list(zip(x.real, cast(Tensor, x.labels))), 6)
    trainer(max_steps=1, limit_train_batches=1).fit(model, data)
    assert read.count(True) == 1 and not model.kept
    fake = model.make_fake(x)
    model.kept.clear()  # of a make_fake of one's own
    assert model.generator_terms(x, fake)["reconstruction"].requires_grad


def test_vectors_are_dropped_in_training_alone() -> None:
    net, tokens = autoencoder(dropout=0.5), batch().real
    assert not torch.equal(net.encode(tokens), net.encode(tokens))
    assert torch.equal(net.eval().encode(tokens), net.encode(tokens))


@pytest.mark.parametrize("name", ["reconstruction", "style", "adversarial"])
def test_a_weight_of_0_is_no_term(name: str) -> None:
    model, b = module(**{f"{name}_weight": 0.0}), batch()
    assert model.generator_terms(b, model.make_fake(b)).keys() == {"reconstruction", "style", "adversarial"} - {name}


def test_weights_of_samples_weigh_their_own_terms() -> None:
    model, b = module(adversarial_weight=0.0), batch()
    assert b.labels is not None
    weights = torch.tensor([6.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    heavy = model.generator_terms(Batch(b.real, b.labels, weights, b.z), model.make_fake(b))
    first = Batch(b.real[:1], b.labels[:1], None, b.z[:1])
    alone = model.generator_terms(first, model.make_fake(first))
    for name, term in alone.items():
        torch.testing.assert_close(heavy[name], term)


def test_fakes_are_reweighted_as_in_prc_gan() -> None:
    plain, weighted, b = module(), module(reweight=True, temperature=0.5), batch()
    fake = plain.make_fake(b).detach()
    on_real, on_fake = (plain.discriminator(x).flatten() for x in (b.real, fake))
    w = softmax_weights(on_fake, 0.5)
    assert float(w.std()) > 1e-3
    expected = F.softplus(-on_real).mean() + (w * F.softplus(on_fake)).mean()
    torch.testing.assert_close(weighted.discriminator_terms(b, fake)["adversarial"], expected)
    torch.testing.assert_close(
        plain.discriminator_terms(b, fake)["adversarial"], F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
    )


def test_samples_are_sentences_seen_last_in_the_other_style() -> None:
    model, data = small(), StyledText(4, T, 2, items=400, batch_size=16)
    trainer(max_steps=2).fit(model, datamodule=data)
    x, y = model.seen[:32], model.seen_styles[:32]
    assert torch.equal(data.transferred(x, y), x)  # each in its style
    assert model.last_batch is not None and torch.equal(model.last_batch.real.argmax(-1), x[:16])
    z, labels = model.latents(200, seed=0)
    assert labels is not None and set(labels.tolist()) == {0, 1}
    codes = model.network.encode(model.seen)  # type: ignore[operator]
    nearest = torch.cdist(z[:, : codes.shape[1]], codes).min(1)
    assert float(nearest.values.max()) < 1e-3
    assert torch.equal(1 - labels, model.seen_styles[nearest.indices]) or len(model.seen.unique(dim=0)) < len(x)
    assert model.sample(3, torch.tensor([0, 1, 1]), seed=0, temperature=0.5).shape == (3, T)


def small(seed: int = 0, **options: Any) -> StyleTransfer:
    torch.manual_seed(seed)
    given: dict[str, Any] = {"classifier": SeqGANDiscriminator((T, 6), 8, (1, 2), 8, 0.0)} | options
    net = StyleAutoencoder((T, 6), 13 + T, embedding=16, style=8, beta=(1.0, 10.0), schedule_steps=100)
    return StyleTransfer(net, SeqGANDiscriminator((T, 6), 8, (1, 2), 8, 0.0), 13 + T, **given)


def test_a_code_in_half_stands_before_noise_in_full_precision() -> None:
    model = small()
    trainer(max_steps=1, precision="bf16-true").fit(model, datamodule=StyledText(4, T, 2, items=60, batch_size=8))
    z, styles = model.latents(3, seed=0)
    assert z.dtype == torch.float32 and model.sample(3).shape == (3, T) and model(z, styles).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": LanguageModel((T, V))}, "generator must be an autoencoder of text by styles, got LanguageModel"),
        ({"generator": StyleAutoencoder((T, V), 9, num_classes=3)}, "generator must be of 2 styles"),
        ({"style_weight": -1.0}, "style_weight must be"),
        ({"latent_dim": 6}, "latent_dim must be that of the generator, 7, got 6"),
        (
            {"reconstruction_weight": 0.0, "style_weight": 0.0, "adversarial_weight": 0.0},
            "One of reconstruction_weight, style_weight, adversarial_weight must be > 0, got 0 for all",
        ),
        ({"temperature": 0.0}, "temperature must be"),
        ({"g_batch_factor": 2}, "g_batch_factor must be 1"),
        ({"accumulate_g": 4}, "accumulate_g must be 1 where G has the sentences of one batch, got 4"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    given = {"generator": autoencoder(), "discriminator": critic(), "latent_dim": 7, "classifier": critic(2)} | change
    with pytest.raises((ValueError, TypeError), match=message):
        StyleTransfer(**given)


@pytest.mark.parametrize(
    ("tokens", "styles", "message"),
    [
        (torch.tensor([[0, 1, V]]), torch.tensor([1]), f"tokens must lie in 0..{V - 1}, got 0..{V}"),
        (torch.zeros(1, T + 1, dtype=torch.int64), torch.tensor([1]), f"tokens must be of length {T}, got {T + 1}"),
        (torch.zeros(1, T, dtype=torch.int64), torch.tensor([2]), "of 0 and 1, got torch.int64 (1,) of 2"),
        (torch.zeros(2, T, dtype=torch.int64), torch.tensor([1]), r"styles must be int64 (2,) of 0 and 1"),
        (torch.zeros(1, T, dtype=torch.int64), torch.tensor([True]), "got torch.bool (1,) of True"),
    ],
)
def test_what_cannot_be_rewritten(tokens: torch.Tensor, styles: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        module().transfer(tokens, styles)


def test_nothing_to_rewrite() -> None:
    with pytest.raises(ValueError, match="lines must hold a text, got none"):
        rewrite([], module(), 1)
    with pytest.raises(ValueError, match="style must be 0 or 1, got True"):
        rewrite(["a"], module(), True)


def test_a_discriminator_with_labels_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    class Labelled(nn.Module):
        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return x.sum((1, 2))

    with pytest.raises(ValueError, match="discriminator must take no labels, got Labelled"):
        StyleTransfer(autoencoder(), Labelled(), 7, classifier=critic(2))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "c.pt")
    for name in ("c.pt", "missing.pt"):
        with pytest.raises(ValueError, match="classifier_weights must be a file with the classifier's state_dict, got"):
            trainer(max_steps=1).fit(
                small(classifier_weights=str(tmp_path / name)), datamodule=StyledText(4, T, items=100)
            )


def test_weights_of_a_classifier_with_other_options_are_told(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), path := tmp_path / "c.pt")
    told = r"c.pt, of another class, other options or other data \(size mismatch for weight\)\.$"
    with pytest.raises(ValueError, match=told):
        load_weights(nn.Linear(2, 4), path)


def test_the_classifier_is_read_once_and_is_part_of_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    data = StyledText(4, T, items=400, batch_size=16)
    torch.save(SeqGANDiscriminator((T, 6), 8, (1, 2), 8, 0.0).state_dict(), tmp_path / "c.pt")
    model = small(classifier_weights="~/c.pt")
    t = trainer(max_steps=2)
    t.fit(model, datamodule=data)
    wanted = torch.load(tmp_path / "c.pt")
    assert all(torch.equal(wanted[name], p) for name, p in model.classifier.state_dict().items())
    t.save_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "c.pt").unlink()
    again = small(classifier_weights=str(tmp_path / "c.pt"))
    trainer(max_steps=4).fit(again, datamodule=data, ckpt_path=str(tmp_path / "a.ckpt"))
    assert all(torch.equal(wanted[name], p) for name, p in again.classifier.state_dict().items())


# ---------------------------------------------------------------------- learning
def learnt(steps: int, seed: int = 0, **options: Any) -> tuple[dict[str, float], float]:
    """Scores after some updates on a small language, and the classifier's accuracy on held-out sentences."""
    pl.seed_everything(seed, verbose=False)
    data = StyledText(4, T, 2, items=2000, batch_size=32)
    classifier = SeqGANDiscriminator((T, 6), 8, (1, 2), 8, 0.0)
    fit_style_classifier(classifier, *data.reference("train"), 6, steps=80, batch_size=32, lr=1e-2)
    model = small(seed, classifier=classifier, lr_g=1e-2, **options)
    trainer(max_steps=steps).fit(model, datamodule=data)
    scores = TransferScores(data)
    return scores(model.transfer(scores.inputs, scores.wanted)), style_accuracy(classifier, *data.reference("test"), 6)  # type: ignore[arg-type]


def test_it_learns_to_rewrite() -> None:
    """Cheap; without the style term the accuracy stays low, without reconstruction nothing of the text is left."""
    found, told = learnt(100)
    assert told > 0.8 and found["accuracy"] > 0.7 and found["right"] > 0.3, found


@pytest.mark.slow
def test_both_terms_are_needed() -> None:
    """Seeds differ much, so means of three: what comes out right, and its share without either term."""
    right = {}
    for left_out in ("", "style", "reconstruction"):
        options = {f"{left_out}_weight": 0.0} if left_out else {}
        right[left_out] = fmean(learnt(1200, seed, **options)[0]["right"] for seed in (0, 1, 2))
    assert right[""] > 0.55 and right["style"] < 0.42 and right["reconstruction"] < 0.1, right


@pytest.mark.parametrize("styles", [None, torch.zeros(4, dtype=torch.int64)])
def test_a_classifier_needs_two_styles(styles: Any) -> None:
    tokens = torch.zeros(4, T, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"data must be of two styles, as labels 0 and 1, got (none|1)\."):
        fit_style_classifier(critic(2).float(), tokens, styles, V)
    with pytest.raises(ValueError, match=r"texts must be of two styles, as labels 0 and 1, got (none|1)\."):
        StyleJudge(tokens, styles, V)


def test_from_the_command_line(tmp_path: Path, capsys: Any) -> None:
    """Classifier, autoencoder, transfer with its scores, and a file of sentences in the other style."""
    data = ["--data", "StyledText", "--data.K", "4", "--data.T", "3", "--data.items", "400"]
    nets = [
        "--classifier",
        "SeqGANDiscriminator",
        "--classifier.embedding",
        "16",
        "--classifier.kernels",
        "[1, 2]",
        "--classifier.filters",
        "8",
    ]
    main(["classify", *data, *nets, "--steps", "40", "--lr", "0.01", "--out", "c.pt"])
    assert "Classifier   c.pt, right on " in capsys.readouterr().out
    recipe = str(Path(__file__).parent.parent / "configs" / "styled" / "style_transfer.yaml")
    own = ["--data.init_args.K", "4", "--data.init_args.T", "3", "--data.init_args.items", "400"]
    critic = ["--model.classifier", "SeqGANDiscriminator", "--model.classifier.kernels", "[1, 2]",
              "--model.classifier.filters", "8", "--model.classifier_weights", "c.pt"]  # fmt: skip
    quick = ["--trainer.accelerator=cpu", "--trainer.max_steps=2", "--model.latent_dim=16"]
    main(["fit", "--config", recipe, *own, *critic, *quick, "--name", "a"])
    lines = Path("runs/a/scores-transfer.jsonl").read_text().splitlines()
    assert len(lines) == 2 and '"metrics/copy/bleu": 1.0' in lines[0] and '"judge": "naive Bayes' in lines[0]
    assert '"weights": "raw"' in lines[0] and '"tokens": "char"' in lines[0]
    Path("in.txt").write_text("abc\n\ncda\n")
    main(["rewrite", "--ckpt_path", "runs/a", "--samples", "in.txt", "--style", "1", "--out", "out.txt"])
    assert capsys.readouterr().out.endswith("Rewritten    out.txt, 2 lines in style 1\n")
    first, blank, second = Path("out.txt").read_text().splitlines()
    made, model = [first, second], cast(Any, load("runs/a"))
    assert blank == "" and made == rewrite(["abc", "cda"], model, 1) and [len(line) for line in made] == [3, 3]
    assert set("".join(made)) <= set("abcdCD")
    for args, message in [
        (["--style", "2"], "style must be 0 or 1, got 2"),
        (["--style", "1", "--samples", "missing.txt"], "path must be a text file, got missing.txt"),
        (["--style", "1", "--samples", "long.txt"], "samples, text 1: a text must have 3 symbols, got 4"),
    ]:
        Path("long.txt").write_text("abca\n")
        given = ["rewrite", "--ckpt_path", "runs/a", "--samples", "in.txt", "--out", "other.txt", *args]
        with pytest.raises(SystemExit, match=message):
            main(given)
        assert not Path("other.txt").exists()
    with pytest.raises(SystemExit, match="data must be text in two styles"):
        main(["classify", "--data", "Ring", *nets, "--out", "d.pt"])
    with pytest.raises(SystemExit, match="data must be of two styles"):
        main(["classify", "--data", "MarkovText", *nets, "--out", "d.pt"])
    assert not Path("d.pt").exists()


def test_transfer_metrics_refuse_what_has_no_styles() -> None:
    with pytest.raises(ValueError, match="TransferMetrics needs a datamodule of text in two styles, got MarkovText"):
        trainer(max_steps=1, callbacks=[TransferMetrics()]).fit(small(), datamodule=MarkovText(6, T))
    with pytest.raises(TypeError, match="TransferMetrics needs a model that rewrites text in another style, got GAN"):
        trainer(max_steps=1, callbacks=[TransferMetrics()]).fit(make("gan"), datamodule=StyledText(4, T))


# ---------------------------------------------------------------------- scores
def test_a_score_is_not_that_of_copying() -> None:
    """`best` and the progress bar tell the score by its name, beside which the copy's stands."""
    scores = TransferScores(StyledText(items=100))
    callback = TransferMetrics()
    for step, made in ((0, scores.inputs), (5, scores.data.transferred(scores.inputs, scores.wanted))):
        found = scores(made) | {f"copy/{name}": value for name, value in scores.copy.items()}
        callback.history.append({"step": step, **{f"metrics/{name}": value for name, value in found.items()}})
    for name in ("accuracy", "bleu", "harmonic", "copies", "right", "copy/harmonic"):
        assert callback.best(name)["step"] == 5
    assert callback.shown(callback.history[0]) == ["metrics/harmonic"]
    with pytest.raises(ValueError, match="metric must be one of metrics/accuracy, "):
        callback.best("copy")


def test_the_judge_is_naive_bayes() -> None:
    """Counted by hand: 1-grams aab | ab, 2-grams aa, ab | ab (twice, in two texts) and b-pad, which is left out."""
    tokens, styles = torch.tensor([[1, 1, 2], [1, 2, 0], [1, 2, 0]]), torch.tensor([0, 1, 1])
    judge = StyleJudge(tokens, styles, 3, pad=0)
    single = {1: (3 / 6) / (3 / 5), 2: (3 / 6) / (2 / 5)}  # style 1 has a, b twice each; style 0 a twice, b once
    double = {(1, 1): (1 / 4) / (2 / 4), (1, 2): (3 / 4) / (2 / 4)}
    expected = math.log(2) + math.log(single[1] ** 2 * single[2] * double[1, 1] * double[1, 2])
    assert float(judge.log_odds(tokens[:1])) == pytest.approx(expected, rel=1e-12)
    assert float(judge.log_odds(torch.tensor([[2, 1, 0]]))) == pytest.approx(
        math.log(2 * single[1] * single[2]), rel=1e-12
    )  # ba was never seen
    assert judge(tokens).tolist() == [int(expected > 0), 1, 1]
    words = torch.tensor([[1, 0], [1, 0], [2, 0]])  # all 2-grams have padding
    for texts in (words, words[:, :1]):
        assert StyleJudge(texts, torch.tensor([0, 1, 1]), 3, pad=0)(texts).tolist() == [1, 1, 1]


def test_what_stands_behind_padding_changes_no_score_of_a_transfer(tmp_path: Path) -> None:
    for style, lines in enumerate(("a b\na a b\nb b", "c d\nc c d\nd")):
        (tmp_path / f"{style}.txt").write_text(lines)
    data = TextFile([str(tmp_path / f"{style}.txt") for style in (0, 1)], "word", 4)
    data.prepare_data()
    data.setup("fit")
    scores, pad = TransferScores(data), data.vocabulary.pad
    hidden = torch.where((scores.inputs == pad).cumsum(1) > 1, data.vocabulary.known["d"], scores.inputs)
    assert pad is not None and not torch.equal(hidden, scores.inputs) and scores(hidden) == scores.copy
    assert torch.equal(scores.judge.log_odds(hidden), scores.judge.log_odds(scores.inputs))


def test_corpus_bleu_is_that_of_nltk() -> None:
    translate = pytest.importorskip("nltk.translate.bleu_score")
    source = torch.Generator().manual_seed(0)
    rows = torch.randint(4, (40, 9), generator=source).tolist()
    ours = [row[: 5 + i % 5] for i, row in enumerate(rows)]
    theirs = [[t if (i + j) % 4 else 0 for j, t in enumerate(row)][: 6 + i % 4] for i, row in enumerate(rows)]
    expected = translate.corpus_bleu([[reference] for reference in theirs], ours)
    assert 0.1 < expected < 0.9 and corpus_bleu(ours, theirs) == pytest.approx(expected, rel=1e-12)
    assert corpus_bleu(ours, ours) == 1.0 and corpus_bleu([[1, 2]], [[3, 4]]) == 0.0
    assert harmonic_mean(0.25, 0.75) == pytest.approx(0.375)
    with pytest.raises(ValueError, match="references must be one for each sample, got 1 for 2"):
        corpus_bleu([[1], [2]], [[1]])


def test_bleu_and_self_bleu_are_those_of_nltk_to_the_last_bit() -> None:
    """Of 60 different sentences, some shorter than five symbols: itself among the references, and left out."""
    translate = pytest.importorskip("nltk.translate.bleu_score")
    own, method1 = torch.Generator().manual_seed(0), translate.SmoothingFunction().method1
    weights = [(1 / n,) * n for n in (2, 3, 4, 5)]
    lengths = torch.randint(2, 12, (90,), generator=own).tolist()
    rows = [torch.randint(5, (length,), generator=own).tolist() for length in lengths]
    some = list({tuple(row): row for row in rows}.values())[:60]
    others = [row for row in rows if row not in some]

    def nltk(sentence: list[int], references: list[list[int]]) -> list[float]:
        return list(translate.sentence_bleu(references, sentence, weights, method1))

    assert len(some) == 60 and len(others) > 5 and min(map(len, some)) < 5
    for references, sentences in ((some, others), (others, some)):
        table = Bleu(references, 5)
        for sentence in sentences:
            assert table.up_to(sentence)[1:] == nltk(sentence, references)
    without = [nltk(sentence, some[:i] + some[i + 1 :]) for i, sentence in enumerate(some)]
    found, kept = self_bleu(some, 5), bleu(some, some, 5)
    for n, column in zip((2, 3, 4, 5), zip(*without)):
        assert found[n] == math.fsum(column) / 60 and 0.05 < found[n] < kept[n] - 0.01


def test_copying_has_bleu_1_and_hardly_any_accuracy() -> None:
    """And the right answer has both, but for sentences that have no style."""
    scores = TransferScores(StyledText(items=2000), 150, seed=1)
    right = scores(scores.data.transferred(scores.inputs, scores.wanted))
    assert scores.copy["bleu"] == scores.copy["copies"] == 1.0 and scores.copy["accuracy"] < 0.05
    assert right["accuracy"] > 0.95 and right["right"] == 1.0 and 0.1 < right["bleu"] < 0.6 and right["copies"] < 0.1
    assert right["harmonic"] > scores.copy["harmonic"] and scores.protocol["judge_accuracy"] > 0.95
    assert scores.protocol["data"] == scores.data.source and scores.protocol["tokens"] == "char"


# ---------------------------------------------------------------------- data
def test_the_toy_language_has_its_law_and_its_translation() -> None:
    data = StyledText()
    tokens, styles = data.reference("train")
    assert styles is not None and float(styles.double().mean()) == 0.5 and data.num_classes == 2
    assert torch.equal(data.transferred(tokens, styles), tokens)
    other = data.transferred(tokens, 1 - styles)
    assert torch.equal(data.transferred(other, styles), tokens)
    assert torch.equal((other != tokens), tokens >= 4)
    for n in (1, 2):
        assert float(data.law(n).sum()) == pytest.approx(1) and ngram_js_to_law(tokens, data.law, n, 8) < 1e-3
    half = [ngram_js_to_law(tokens[styles == y], data.law, 1, 8) for y in (0, 1)]
    assert min(half) > 0.05  # one style alone is another law
    for sizes in ({"marked": 6}, {"marked": 0}, {"K": 2}, {"items": 5}):
        with pytest.raises(ValueError, match="must be"):
            StyledText(**sizes)


def test_files_are_styles(tmp_path: Path) -> None:
    for style in ("bad", "good"):
        (tmp_path / style).write_text("".join(f"{style} {i}\n" for i in range(20)))
        (tmp_path / f"{style}.dev").write_text(f"{style} again\nso {style}\n{style} 3\n")
    paths = [str(tmp_path / style) for style in ("bad", "good")]
    data = TextFile(paths, "word", 3, batch_size=10)
    (x, y), (xt, yt) = data.reference("train"), data.reference("test")
    assert y is not None and yt is not None and (len(x), len(xt)) == (36, 4)
    assert [line.split()[0] for line in data.decode(x)] == [("bad", "good")[label] for label in y]
    assert yt.tolist() == [0, 0, 1, 1] and "2 styles" in data.describe() and data.source.count("md5") == 2
    real, labels = next(iter(data.train_dataloader()))
    assert real.shape == (10, 3, len(data.vocabulary)) and labels.shape == (10,)
    data = TextFile(paths, "word", 3, test_path=[f"{path}.dev" for path in paths])
    assert data.decode(data.reference("test")[0])[:2] == ["bad <unk>", "<unk> bad"]  # "bad 3" is among the training
    with pytest.raises(ValueError, match="test_path must be as many files as path, 2, got 1"):
        TextFile(paths, "word", 3, test_path=f"{paths[0]}.dev")
    assert TextFile(paths[0], "word", 3).num_classes is None and TextFile(paths[0], "word", 3).reference()[1] is None
