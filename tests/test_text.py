"""Text: alphabets, data, draws, scores, the language model, and what becomes of them on the command line."""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from common import equal, trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_gans import GAN, MLE, load
from lightning_gans.callbacks import GenerativeMetrics, ModeCoverage, SampleGrid, SampleText, TextMetrics
from lightning_gans.cli import main
from lightning_gans.cli.commands import _landmark_lines
from lightning_gans.compat.lightning import callbacks as lightning_callbacks
from lightning_gans.compat.lightning import loggers, pl
from lightning_gans.datamodules import MarkovText, OracleText, PyDocText, Ring, TextFile
from lightning_gans.datamodules.text import lines_of
from lightning_gans.engine.logbook import NonFiniteError
from lightning_gans.functional import text
from lightning_gans.metrics import Bleu, bleu, copied, distinct, jensen_shannon, ngram_js, ngram_js_to_law, self_bleu
from lightning_gans.metrics.text import TextScores, held_out_nll, ngrams, scores_of
from lightning_gans.networks import CharGenerator, LanguageModel, LSTMGenerator
from lightning_gans.runs.record import read_record
from lightning_gans.samplers import LatentLangevin
from lightning_gans.tools.text import landmarks, score_text, temperature_sweep

CONFIGS = Path(__file__).parent.parent / "configs"


# ---------------------------------------------------------------------- tokens
def test_draws_have_their_law_and_are_monotone_in_the_noise() -> None:
    logits = torch.randn(300, generator=torch.Generator().manual_seed(0))  # more than a block
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    z = torch.special.ndtri(u)
    drawn = text.draw_tokens(logits.expand(len(z), -1), z)
    assert bool((drawn.diff() >= 0).all())
    share = drawn.bincount(minlength=300) / len(z)
    assert float((share - logits.softmax(-1)).abs().max()) < 2 / len(z)  # a grid of noise: no chance is left
    cold = text.draw_tokens(logits.expand(len(z), -1), z, 1e-4)
    assert cold.unique().tolist() == [int(logits.argmax())]
    extreme = text.draw_tokens(logits.expand(2, -1), torch.tensor([-50.0, 50.0]))
    assert extreme.tolist() == [0, 299]


def test_many_rows_are_drawn_in_parts_that_a_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit as all at once, at any temperature, since rows know nothing of one another."""
    own, softmax, seen = torch.Generator().manual_seed(0), torch.softmax, list[int]()
    monkeypatch.setattr(torch, "softmax", lambda x, dim: (seen.append(x.numel()), softmax(x, dim))[1])
    logits, z = torch.randn(300, 5000, generator=own), torch.randn(300, generator=own)
    for temperature in (1.0, 0.7):
        drawn = text.draw_tokens(logits, z, temperature)
        assert len(seen) == 3 and sum(seen) == logits.numel() and max(seen) <= 2**19
        with monkeypatch.context() as whole:
            whole.setattr(text, "CACHED", logits.numel())
            assert torch.equal(drawn, text.draw_tokens(logits, z, temperature)) and seen.pop() == logits.numel()
        seen.clear()


@pytest.mark.parametrize("size", [5, 300])
def test_numbers_that_are_none_draw_a_token_that_there_is(size: int) -> None:
    for logits in (torch.full((3, size), math.nan), torch.full((3, size), math.inf)):
        assert int(text.draw_tokens(logits, torch.tensor([-1.0, 0.0, 50.0])).max()) < size


@pytest.mark.parametrize("callback", [SampleText(1, lines=4, shown=0), TextMetrics(1, num_samples=4)])
def test_lost_weights_are_told_as_such_whoever_writes_texts_before(callback: Any) -> None:
    class Lose(lightning_callbacks.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            nn.init.constant_(module.generator.out.weight, math.nan)

    model = MLE(LanguageModel((8, 6), 4, 4))
    with pytest.raises(NonFiniteError, match=r"must be (finite|a finite number), got"):
        trainer(max_steps=3, callbacks=[Lose(), callback]).fit(model, datamodule=MarkovText())


def test_the_coldest_text_is_the_likeliest() -> None:
    """Also where logits over the temperature are no numbers any more."""
    torch.manual_seed(0)
    for net in (LanguageModel((4, 5)), LSTMGenerator((4, 5)), LSTMGenerator((4, 5)).half()):
        z = torch.randn(3, getattr(net, "latent_dim", 4))
        found = [net.generate(z, t) for t in (1e-5, 1e-40)]
        assert torch.equal(*found) and bool((found[0] == found[0][0]).all())
        assert float(net.nll(found[0], 1e-40).abs().max()) == 0
    chars = CharGenerator((4, 5), latent_dim=24, width=8, blocks=1, gumbel=1.0)
    z = torch.randn(3, 24)
    assert torch.equal(chars.generate(z, 1e-40), chars.logits(z).argmax(-1))


def test_a_temperature_is_a_power_of_the_law() -> None:
    logits, z = (
        torch.randn(1, 7, dtype=torch.float64),
        torch.special.ndtri(torch.linspace(1e-4, 1 - 1e-4, 100_000).double()),
    )
    for temperature in (0.5, 1.0, 2.0):
        share = text.draw_tokens(logits.expand(len(z), -1), z, temperature).bincount(minlength=7) / len(z)
        p = logits[0].softmax(-1) ** (1 / temperature)
        assert torch.allclose(share.double(), p / p.sum(), atol=4e-4)


def test_vocabulary() -> None:
    words = text.Vocabulary(("", "<unk>", "a", "cat"), "word", 0, 1)
    assert words.encode("a cat a dog", 6) == [2, 3, 2, 1, 0, 0]
    assert words.decode(torch.tensor([[2, 3, 1, 0, 2]])) == ["a cat <unk>"]
    assert text.Vocabulary.of(json.loads(json.dumps(words.as_dict()))) == words
    letters = text.Vocabulary(tuple("ab"))
    with pytest.raises(ValueError, match="a text must be made of the 2 known symbols, got 'c' in 'abc'"):
        letters.encode("abc")
    with pytest.raises(ValueError, match="a text must have 3 symbols, got 2: 'ab'"):
        letters.encode("ab", 3)
    with pytest.raises(ValueError, match=r"tokens must lie in 0..1, got 0..2"):
        letters.decode(torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match="tokens must be int64"):
        letters.decode(torch.zeros(2, 2))
    for wrong, told in (
        ({"symbols": ("a", "b", "a")}, "symbols must be all different, got 'a' twice"),
        ({"level": "chars"}, "level must be one of char, word, got 'chars'"),
        ({"pad": 2}, r"pad must be None or a token, an integer in 0..1, got 2"),
        ({"unknown": -1}, r"unknown must be None or a token, an integer in 0..1, got -1"),
    ):
        with pytest.raises(ValueError, match=told):
            text.Vocabulary(**{"symbols": ("a", "b"), **wrong})  # type: ignore[arg-type]


# ---------------------------------------------------------------------- data
def test_pydoc_text_is_what_python_ships() -> None:
    from pydoc_data.topics import topics

    data = PyDocText(length=24)
    train, test = (data.reference(split)[0] for split in ("train", "test"))
    assert data.shape == (24, 27) and data.num_items == len(train) > 8 * len(test) > 8000
    whole = re.sub("[^a-z]+", " ", " ".join(topics[k] for k in sorted(topics)).lower()).strip()
    assert data.decode(train[:1]) == [whole[:24]] and re.search("md5 [0-9a-f]{32}", data.source)
    held_out = whole[whole.rindex(" ", 0, math.floor(len(whole) * 0.9)) + 1 :]
    assert data.decode(test[:1]) == [held_out[:24]]
    words = data.decode(train[:200])
    assert all(f" {line}" in f" {whole}" for line in words)  # each begins at a word
    assert words[0].split()[1] == words[1].split()[0]  # and the next at the next one
    batch = next(iter(data.train_dataloader()))
    assert (
        batch.shape == (64, 24, 27) and batch.dtype == torch.float32 and torch.equal(batch.sum(-1), torch.ones(64, 24))
    )
    tokens = next(iter(PyDocText(length=24, one_hot=False).fixed_loader("test")))
    assert torch.equal(tokens, test[:64])


def test_without_pydoc_data_a_path_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match=r"PyDocText needs pydoc_data, .* give the path of a text \(path=\)"):
        PyDocText()
    (tmp_path / "a.txt").write_text("Some words, of a text 2 read. " * 40)
    assert PyDocText(8, path=str(tmp_path / "a.txt")).decode(torch.tensor([[19, 15, 13, 5]])) == ["some"]
    for text_of_one_word in ("a" * 500, "ab " + "a" * 500):
        (tmp_path / "b.txt").write_text(text_of_one_word)
        with pytest.raises(ValueError, match=r"path must be a text of words, with blanks between them, got .*b.txt\."):
            PyDocText(8, path=str(tmp_path / "b.txt"))


def test_a_file_by_words(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join([*["the cat sat", "the dog", "", "a cat"] * 3, "the bird", "the cat sat"]) + "\n")
    data = TextFile(str(path), "word", 4, test_share=0.2)
    train, test = (data.reference(split)[0] for split in ("train", "test"))
    assert data.vocabulary.symbols[:2] == ("", "<unk>")
    assert set(data.vocabulary.symbols[2:]) == {"the", "cat", "sat", "dog", "a"} and data.shape == (4, 7)
    assert data.vocabulary.symbols[2] in ("the", "cat") and train.shape == (9, 4)
    assert data.decode(train[:2]) == ["the cat sat", "the dog"] and int(train[1, -1]) == 0
    assert data.decode(test) == ["the <unk>"]  # what is among the training lines is not held out
    fewer = TextFile(str(path), "word", 4, max_vocab=4, rare="unknown", test_share=0.2)
    assert fewer.shape == (4, 4) and fewer.decode(fewer.reference()[0][:1]) == ["the cat <unk>"]


def test_a_file_that_has_unknown_words_of_its_own_and_a_held_out_one(tmp_path: Path) -> None:
    path, other = tmp_path / "lines.txt", tmp_path / "test.txt"
    path.write_text("the <unk> sat\nthe cat\n")
    other.write_text("the dog\n")
    data = TextFile(str(path), "word", 3, test_path=str(other))
    assert sorted(data.vocabulary.symbols) == ["", "<unk>", "cat", "sat", "the"]
    assert int(data.reference("train")[0][0, 1]) == int(data.reference("test")[0][0, 1]) == 1
    assert len(re.findall("md5 [0-9a-f]{32}", data.source)) == 2 and "held out test.txt" in data.source


def test_windows_of_a_file_do_not_leak(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"line {i:03d} of the file" for i in range(50)))
    data = TextFile(str(path), length=8, long="windows")
    train, test = (set(data.decode(data.reference(split)[0])) for split in ("train", "test"))
    assert "line 000" in train and "line 049" in test and "line 049" not in train and "000 of t" in train
    assert all(len(line) == 8 for line in train)


def test_windows_hold_all_text_and_none_that_is_held_out(tmp_path: Path) -> None:
    path, letters = tmp_path / "lines.txt", "".join(random.Random(1).choices("ACGT", k=28))
    lines = [letters[i : i + 10 + i] for i in range(9)] + [f"an order {letters} {i}" for i in (*range(9), 11, 22)]
    path.write_text("\n".join(lines))
    data = TextFile(str(path), length=8, long="windows", test_share=0.1)
    train, test = (data.decode(data.reference(split)[0]) for split in ("train", "test"))
    rows = iter(train)
    for line in lines[:-2]:
        covered, start = set[int](), -1
        while len(covered) < len(line):
            start = line.index(next(rows), start + 1)
            covered |= set(range(start, start + 8))
        assert start == len(line) - 8
    assert [next(rows, None)] == [None] and f"order {letters[:2]}" in train
    assert test == [f"{letters} {i}"[-8:] for i in (11, 22)] and not set(test) & set(train)
    assert data.describe().endswith("; 10 of 12 held-out sequences, which are among these, left out")
    path.write_text("\n".join(f"dear customer, order {i}" for i in range(10)))
    with pytest.raises(ValueError, match=r"must be others than the training ones, got 1 that are all .* test_path"):
        TextFile(str(path), length=8, long="truncate").reference("test")


def test_styles_of_held_out_lines_stay_with_them(tmp_path: Path) -> None:
    """Without those that are among the training ones; a mark of the order of bytes and blanks at ends are no text."""
    files = {"a": "one\ntwo\n", "b": "six \nten\n", "held a": "one\nnet\n", "held b": "six\n now\ntie\n"}
    for name, lines in files.items():
        (tmp_path / name).write_text(lines, encoding="utf-8-sig")
    paths = [str(tmp_path / name) for name in files]
    data = TextFile(paths[:2], length=3, test_path=paths[2:])
    tokens, styles = data.reference("test")
    assert styles is not None and data.decode(tokens) == ["net", "now", "tie"] and styles.tolist() == [0, 1, 1]
    assert set(data.vocabulary.symbols[2:]) == set("onetwosixten")


def test_each_style_has_lines_to_train_on_and_others_to_hold_out(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    paths[0].write_text("".join(f"good {i}\n" for i in range(30)))
    for content, options, told in (
        ("bad 0\n", {}, "path must hold a line of each style to train on, got 1 in .*b, all of them held out: give"),
        ("bad 0\nbad 1\n", {"test_share": 0.8}, "to train on, got 2 in .*b, all of them held out"),
        ("bad film\n" * 20, {}, r"held-out sequences of style 1 must be others than .*, got 2 that are all among"),
    ):
        paths[1].write_text(content)
        with pytest.raises(ValueError, match=told):
            TextFile(list(map(str, paths)), "word", 2, **options).describe()  # type: ignore[arg-type]
    paths[1].write_text("bad film\n" * 20 + "bad play\n")
    data = TextFile(list(map(str, paths)), "word", 2, rare="unknown")
    assert data.reference("test")[1].bincount().tolist() == [3, 1]  # type: ignore[union-attr]


def test_a_text_without_latin_letters_is_told_what_takes_it(tmp_path: Path) -> None:
    (path := tmp_path / "a.txt").write_text("\u043a\u043e\u0442 " * 100)
    with pytest.raises(ValueError, match=r"text's 0 letters a-z and blanks, .* \(TextFile keeps any symbols\), got 4"):
        PyDocText(4, path=str(path))


def test_paths_are_words_or_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint keeps them as words, which is read without running code."""
    for name in "ab":
        (tmp_path / name).write_text(f"{name} a\n{name} b\n{name}{name}\n")
    a, b = tmp_path / "a", tmp_path / "b"
    for path, test_path in ((a, None), ([a, b], None), (a, b), ([a], [b])):
        data = TextFile(path, length=3, test_path=test_path)  # type: ignore[arg-type]
        words = TextFile(told(path), length=3, test_path=told(test_path))
        assert data.source == words.source and data.name == "a"
    a.write_text("any text " * 20)
    data = PyDocText(4, path=a, batch_size=2)  # type: ignore[arg-type]
    (fitted := trainer(max_steps=1)).fit(MLE(LanguageModel(data.shape, 4, 4)), datamodule=data)
    fitted.save_checkpoint(ckpt := tmp_path / "a.ckpt")
    assert torch.load(ckpt, weights_only=True)["datamodule_hyper_parameters"]["path"] == str(a)
    again = MLE(LanguageModel(data.shape, 4, 4), generator_checkpoint=ckpt)  # type: ignore[arg-type]
    assert again.hparams["generator_checkpoint"] == str(ckpt)
    monkeypatch.setenv("HOME", str(tmp_path))
    for model in (again, MLE(LanguageModel(data.shape, 4, 4), lr_mle=0.0, generator_checkpoint="~/a.ckpt")):
        trainer(max_steps=1).fit(model, datamodule=data)
    assert equal(model.state_dict(), torch.load(ckpt, weights_only=True)["state_dict"])
    load(ckpt, generator=LanguageModel(data.shape, 4, 4))


def told(value: Any) -> Any:
    return [str(v) for v in value] if isinstance(value, list) else value and str(value)


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("a\u2028b\r\nc\x0cd\ne\u0085f\n".encode())
    assert lines_of(path) == ["a\u2028b", "c\x0cd", "e\u0085f"]


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    for content, told, options in (
        (b"\xff\xfe\xff", "path must be a UTF-8 text, got .*bad.txt, whose byte 0 is none: .*, not as UTF-16", {}),
        (b"a\xff", "whose byte 1 is none: save it as UTF-8\\.$", {}),
        (b" \n \n", "path must hold text, got .*, which is empty", {}),
        (b"one line", "must hold lines to train on and others, .* got 0 and 1 .*, or break the text into lines", {}),
        (b"abc\nabcdef\nab\nb", "lines of .* must have at most 4 symbols, got 6 in line 2", {"length": 4}),
        (
            b"abc\nabd\nabe",
            "max_vocab must be at least 6, .* got 5: raise it, or give rare='unknown'",
            {"max_vocab": 5},
        ),
        (b"abc\nabd", "level must be one of char, word, got 'letter'", {"level": "letter"}),
        (b"abc\nabd", "length must be an integer >= 1, got 0", {"length": 0}),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=told):
            TextFile(str(path), **options)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"path must be a text file, got .*none.txt, which is none"):
        TextFile(str(tmp_path / "none.txt"))


def test_the_file_and_the_line_that_is_too_long(tmp_path: Path) -> None:
    """The one that an editor shows: blank lines, other files and held-out lines that are left out do not shift it."""
    files = {"good": "abc\nabd\n" * 20, "long": "abc\n\nabe\nabcdef\n"}
    good, long = (str(tmp_path / f"{name}.txt") for name in files)
    for path, content in zip((good, long), files.values()):
        Path(path).write_text(content)
    told = rf"lines of {re.escape(long)} must have at most 4 symbols, got 6 in line 4: raise length, or give long='win"
    for options in ({"path": good, "test_path": long}, {"path": [good, long]}, {"path": long}):
        with pytest.raises(ValueError, match=told):
            TextFile(length=4, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path must be a file, or one for each style, got none"):
        TextFile(path=[])
    with pytest.raises(ValueError, match="test_path must be as many files as path, 1, got 2"):
        TextFile(good, test_path=[good, long])
    with pytest.raises(ValueError, match="test_path must be as many files as path, 1, got 0"):
        TextFile(good, test_path=[])


def test_a_markov_chain_has_the_law_that_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    data = MarkovText()
    tokens = data.reference("train")[0]
    for n, most in ((1, 1e-3), (2, 1e-3), (3, 2e-3)):
        law = data.law(n)
        assert float(law.sum()) == pytest.approx(1, abs=1e-12) and law.shape == (6**n,)
        assert ngram_js_to_law(tokens, data.law, n, 6) < most
    assert torch.allclose(data.law(1) @ data.transitions, data.law(1), atol=1e-12)
    assert not torch.equal(tokens, data.reference("test")[0])
    first = next(iter(MarkovText(batch_size=5).train_dataloader()))
    assert first.shape == (5, 8, 6)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 1 - 2**-53, dtype=torch.float64))
    assert all(int(MarkovText(K).sample_exact(2).max()) < K for K in range(2, 27))  # whatever the sums are rounded to


def test_an_oracle_by_seed_and_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = OracleText(11, 6, items=30, hidden=4, seed=3)
    assert data.reference()[0].shape == (30, 6) and torch.equal(
        data.reference()[0], OracleText(11, 6, 30, 4, 3).reference()[0]
    )
    assert not data.oracle.lstm.get_parameter("bias_hh_l0").any()  # of the two biases, one
    own = np.random.default_rng(0)
    shapes = {"embedding": (11, 4), "w_out": (4, 11), "b_out": (11,)}
    shapes |= {f"{part}_{k}": (4, 4) for part in "wu" for k in "ifoc"} | {f"b_{k}": (4,) for k in "ifoc"}
    found = {name: own.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    np.savez(tmp_path / "oracle.npz", **found)  # type: ignore[arg-type]
    data = OracleText(11, 6, items=30, path=str(tmp_path / "oracle.npz"))
    digest = hashlib.md5((tmp_path / "oracle.npz").read_bytes()).hexdigest()
    assert data.source == f"oracle oracle.npz, md5 {digest}, V=11, T=6"
    assert len({OracleText(11, 6, hidden=n, seed=s).source for n in (4, 5) for s in (0, 1)}) == 4
    tokens, total = data.reference()[0][:3], torch.zeros(3)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for row in range(3):  # SeqGAN's formulas, gate by gate
        h = c = np.zeros(4)
        before = 0
        for token in tokens[row].tolist():
            x = found["embedding"][before]
            i, f, o = (sigmoid(x @ found[f"w_{k}"] + h @ found[f"u_{k}"] + found[f"b_{k}"]) for k in "ifo")
            c = f * c + i * np.tanh(x @ found["w_c"] + h @ found["u_c"] + found["b_c"])
            h = o * np.tanh(c)
            logits = h @ found["w_out"] + found["b_out"]
            total[row] += float(np.log(np.exp(logits).sum()) - logits[token])
            before = token
    assert torch.allclose(data.oracle.nll(tokens).sum(1), total, atol=1e-4)
    with pytest.raises(ValueError, match="path must hold an oracle of 12 symbols"):
        OracleText(12, 6, path=str(tmp_path / "oracle.npz"))
    with pytest.raises(FileNotFoundError, match=r"path must be an .npz file of an oracle"):
        OracleText(12, 6, path="none.npz")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert OracleText(11, 6, items=30, path="~/oracle.npz").source == data.source


# ---------------------------------------------------------------------- scores
def test_jensen_shannon_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.25, 0.5])
    wanted = 0.5 * (math.log2(0.5 / 0.375)) + 0.5 * (0.5 * math.log2(0.25 / 0.375) + 0.5)
    assert float(jensen_shannon(p, q)) == pytest.approx(wanted, rel=1e-12)
    x, y = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 2, 2], [2, 1, 0, 0]])
    counts = [Counter(pairwise(row)) for row in (x.tolist()[0], *y.tolist())]
    left, right = counts[0], counts[1] + counts[2]
    keys = sorted(left.keys() | right.keys())
    laws = [torch.tensor([float(c[k]) for k in keys], dtype=torch.float64) / sum(c.values()) for c in (left, right)]
    assert ngram_js(x, y, 2, 3) == pytest.approx(float(jensen_shannon(*laws)), rel=1e-12)
    assert ngram_js(x, x, 3, 3) == 0 and ngram_js(x, 2 - x, 2, 3) > 0


def test_ngrams_of_large_alphabets_are_told_apart() -> None:
    """5,000 symbols to the eighth are more than an int64 holds."""
    x = torch.randint(5000, (4, 12), generator=torch.Generator().manual_seed(0))
    y = torch.cat([x[:2], (x[2:] + 1) % 5000])
    left, right = ngrams((x, y), 8, 5000)
    assert torch.equal(left[:2], right[:2]) and not bool((left[2:, :, None] == right[2:].flatten()).any())
    assert len(left.unique()) == left.numel() and copied(y, x, 8, 5000) == 0.5
    with pytest.raises(ValueError, match="n must be at most the length of the sequences, 12, got 13"):
        ngrams((x,), 13, 5000)


def test_distinct_and_copied_leave_padding_out() -> None:
    x = torch.tensor([[1, 2, 1, 2], [1, 2, 0, 0]])
    assert distinct(x, 2, 3, pad=0) == 2 / 4 and distinct(x, 2, 3) == 4 / 6
    assert copied(torch.tensor([[2, 1, 0, 0]]), x, 2, 3, pad=0) == 1.0
    hidden = torch.tensor([[1, 2, 1, 2], [1, 2, 0, 1]])  # the last one stands behind padding
    assert distinct(hidden, 1, 3, pad=0) == 2 / 6 and copied(hidden, x[:, :1], 1, 3, pad=0) == 3 / 6


def test_what_stands_behind_padding_changes_no_score(tmp_path: Path) -> None:
    """As a network writes it in training, and as its lines come back."""
    (tmp_path / "a.txt").write_text("\n".join(["a b c d e f g h i", "a b c", "d e f g h i a b", "c a"]))
    data = TextFile(str(tmp_path / "a.txt"), "word", 10)
    data.prepare_data()
    data.setup("fit")
    made = torch.randint(2, len(data.vocabulary), (20, 10), generator=torch.Generator().manual_seed(0))
    made[:10, 9], made[10:14, 4], made[14, 0], pad = data.vocabulary.pad, data.vocabulary.pad, data.vocabulary.pad, 0
    assert data.vocabulary.pad == pad and bool((made[10:14, 5:] != pad).all())
    metrics = ["js", "distinct", "copied", "bleu", "self_bleu"]
    found = scores_of(data, metrics)(made)
    assert found == score_text(data.decode(made), data, metrics)["scores"] and found["empty"] == 1 / 20
    made[10:14, 5:], made[14, 1:] = made[:4, :5], 2
    assert found == scores_of(data, metrics)(made)


def slow_bleu(sentence: list[Any], references: list[list[Any]], n: int) -> float:
    """The published formula, reference by reference."""
    logs = []
    for k in range(1, n + 1):
        grams = lambda s, k=k: Counter(tuple(s[i : i + k]) for i in range(len(s) - k + 1))  # noqa: E731
        most: Counter[Any] = Counter()
        for reference in references:
            most |= grams(reference)
        matches = sum(min(count, most[gram]) for gram, count in grams(sentence).items())
        if k == 1 and not matches:
            return 0.0
        logs.append(math.log((matches if matches else 0.1) / max(1, len(sentence) - k + 1)))
    h = len(sentence)
    r = min((abs(len(reference) - h), len(reference)) for reference in references)[1]
    return (1.0 if h > r else math.exp(1 - r / h)) * math.exp(math.fsum(1 / n * log for log in logs))


def lines(n: int, seed: int = 0) -> list[list[int]]:
    """Sentences of different lengths over few words, with repetitions."""
    own = np.random.default_rng(seed)
    return [own.integers(0, 9, own.integers(1, 13)).tolist() for _ in range(n)]


def test_bleu_is_the_published_one_to_the_last_bit() -> None:
    references, table = lines(60), Bleu(lines(60), 5)
    for sentence in lines(60, 1):
        assert table.up_to(sentence) == [slow_bleu(sentence, references, n) for n in range(1, 6)]
    # nltk 3.10.4, sentence_bleu with smoothing method 1 and weights 1/n, printed with repr
    words = [s.split() for s in ("the cat is on the mat", "there is a cat on the mat", "a dog")]
    assert Bleu(words, 4).up_to(["the", "the", "the", "cat", "on", "mat"]) == NLTK


NLTK = [0.8333333333333334, 0.5773502691896258, 0.20274006651911336, 0.12909944487358058]


def test_bleu_at_its_ends() -> None:
    references = lines(20)
    assert Bleu(references, 5)(references[3]) == 1.0 or len(references[3]) < 5
    assert Bleu(references, 3)([99, 98]) == 0.0
    short = Bleu([[1, 2, 3, 4]], 4).up_to([1, 2])
    assert short[3] == pytest.approx(math.exp(1 - 4 / 2) * 0.1 ** (2 / 4))  # no trigrams: .1 over 1
    assert Bleu([[1, 2], [1, 2, 3, 4]], 1)([1, 2, 3]) == 1.0  # of two lengths equally near the shorter
    assert Bleu([[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]], 1)([1]) == pytest.approx(math.exp(1 - 4))
    with pytest.raises(ValueError, match="references must hold a sentence, got none"):
        Bleu([])


def test_self_bleu_leaves_the_sentence_itself_out() -> None:
    assert self_bleu([[1, 2, 3]] * 5, 3) == {1: 1.0, 2: 1.0, 3: 1.0}
    assert self_bleu([[1, 1], [2, 2], [3, 3]], 2) == {1: 0.0, 2: 0.0}
    some = list({tuple(line): line for line in lines(90)}.values())[:60]
    assert len(some) == 60
    wanted = [[slow_bleu(s, some[:i] + some[i + 1 :], n) for n in (2, 4)] for i, s in enumerate(some)]
    found, kept = self_bleu(some, 4), bleu(some, some, 4)
    for column, n in enumerate((2, 4)):
        assert found[n] == math.fsum(row[column] for row in wanted) / 60 and found[n] < kept[n] - 0.01
    with pytest.raises(ValueError, match="samples must be at least 2 for self-BLEU, got 1"):
        self_bleu([[1]])


def test_a_collapse_to_empty_text_is_no_diversity() -> None:
    """Empty samples are copies of one another, told by their share, and lines of a file as others are."""
    assert self_bleu([[]] * 4, 3) == {1: 1.0, 2: 1.0, 3: 1.0}
    assert self_bleu([[], [1, 2], [3, 4]], 2) == {1: 0.0, 2: 0.0}
    assert self_bleu([[], [], [1, 2], [1, 2]], 2) == {1: 1.0, 2: 1.0}
    written = [[1, 2, 3, 4], [1, 2, 3, 5]]
    assert self_bleu([[], *written, []], 3)[3] == pytest.approx((1 + self_bleu(written, 3)[3]) / 2)
    x = torch.tensor([[2, 3, 0], [3, 2, 2], [0, 0, 0], [0, 2, 2]])
    scores = TextScores(x, x[:2], 4, ("distinct", "self_bleu", "bleu"), bleu_n=(2,), pad=0)
    assert scores(x)["empty"] == 0.5
    found = scores(torch.zeros(5, 3, dtype=torch.int64))
    assert found == {"distinct-1": 0, "distinct-2": 0, "empty": 1.0, "bleu-2": 0.0, "self_bleu-2": 1.0}


def test_empty_lines_of_a_file_are_samples(tmp_path: Path) -> None:
    corpus, made = tmp_path / "corpus.txt", tmp_path / "made.txt"
    corpus.write_text("".join(f"ab{'c' * i}\n" for i in range(12)))
    made.write_text("abc\n\n\nac\n")
    data = TextFile(str(corpus), length=14)
    found = score_text(made, data, ["self_bleu"])
    assert found["protocol"]["samples"] == 4 and found["scores"]["empty"] == 0.5
    assert found == score_text(["abc", "", "", "ac"], data, ["self_bleu"])
    made.write_text("\n" * 3)
    assert score_text(made, data, ["self_bleu"])["scores"]["self_bleu-2"] == 1.0


def test_texts_of_an_oracle_are_independent_of_its_weights_and_of_others() -> None:
    """No seed's noise is that of its weights, of its other split, of another seed, or of what samples are scored by."""
    from unittest.mock import patch

    seen: list[torch.Tensor] = []
    with patch.object(LanguageModel, "forward", lambda self, z: (seen.append(z), z.long())[1]):
        for seed in range(4):
            data = OracleText(5, 4, items=100, seed=seed)
            data.load("train"), data.load("test")
    seen += [torch.randn(100, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(9)]
    first = [float(z[0, 0]) for z in seen]
    assert len({*first}) == len(first) == 17
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        OracleText(5, 4, seed=-1)


def test_landmarks_of_a_language_whose_law_is_known() -> None:
    """Independent letters are as far from it as the law says, held-out text of as many texts is near."""
    data = MarkovText()
    found = landmarks(data, 4000, ["js"])
    letters = data.law(1)
    independent = jensen_shannon((letters[:, None] * letters).flatten(), data.law(2))
    assert found["independent symbols"]["js-2/law"] == pytest.approx(float(independent), abs=0.01)
    assert found["independent symbols"]["nll_gen"] == pytest.approx(-float((letters * letters.log()).sum()), abs=0.01)
    assert found["held-out text"]["js-2/law"] < 0.001 and "nll_gen" not in found["held-out text"]
    assert list(landmarks(data, 20_000, ["distinct"])) == ["independent symbols"], "there are 10,000 others"
    assert landmarks(data, 50, ["js"], seed=1) != landmarks(data, 50, ["js"]) == landmarks(data, 50, ["js"])
    with pytest.raises(ValueError, match="samples must be an integer >= 2, got 1"):
        landmarks(data, 1)


def test_a_sweep_says_why_it_has_no_held_out_text_to_be_read_beside() -> None:
    found: Any = {"protocol": {"held_out": 30, "samples": 1000}, "landmarks": {"independent symbols": {"js-2": 0.5}}}
    first = "held-out text: not told, since 30 are held out, fewer than 1,000 samples (--samples 30)"
    assert list(_landmark_lines(found, ["js-2"])) == [first, "independent symbols: js-2 0.5"]
    found["landmarks"]["held-out text"] = {"js-2": 0.25, "bleu-2": 0.5}
    assert list(_landmark_lines(found, ["js-2"])) == ["independent symbols: js-2 0.5", "held-out text: js-2 0.25"]


def test_a_symbol_that_was_never_seen_leaves_no_infinite_nll() -> None:
    data = MarkovText()
    data.setup("test")
    scores = scores_of(data, ["js"])
    scores.training = scores.training.masked_fill(scores.training == 0, 1)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("lightning_gans.tools.text.scores_of", lambda *_: scores)
        assert "nll_gen" not in landmarks(data, 100, ["js"])["independent symbols"]


def test_real_sentences_are_not_their_own_references() -> None:
    data = PyDocText(length=16)
    found = landmarks(data, 200, ["bleu"])
    held_out = data.reference("test")[0]
    assert found["independent symbols"]["bleu-4"] < found["held-out text"]["bleu-4"] < 0.999, "windows overlap"
    assert not landmarks(data, len(held_out), ["bleu"])["held-out text"], "none are left to be compared with"


def test_a_sweep_is_on_data_of_as_many_symbols() -> None:
    for size in (5, 7):
        with pytest.raises(ValueError, match=rf"number of the data's symbols must be {size} as the model has, got 6"):
            temperature_sweep(MLE(LanguageModel((8, size))), MarkovText(), samples=4)


def test_a_sweep_sets_its_data_up() -> None:
    class Late(MarkovText):
        def setup(self, stage: str | None = None) -> None:
            self.ready = True

        def reference(self, split: Any = "train") -> Any:
            assert self.ready
            return super().reference(split)

    model, data = MLE(LanguageModel((8, 6))), Late()
    protocol = temperature_sweep(model, data, [1.0], 4, ["distinct"])["protocol"]
    about = {"data": data.source, "tokens": "char", "length": 8, "training": 10_000, "held_out": 10_000}
    assert protocol == {**about, "samples": 4, "seed": 0, "weights": "raw"}
    assert about.items() < score_text(["abcdefab", "defabcde"], data, ["distinct"])["protocol"].items()
    model.start_ema()
    assert temperature_sweep(model, data, [1.0], 4, ["distinct"])["protocol"]["weights"] == "ema"


def test_more_bleu_is_better_of_any_length(tmp_path: Path) -> None:
    callback = TextMetrics(metrics=["bleu", "self_bleu"], bleu_n=(2, 6))
    callback.history = [
        {"step": step, "metrics/bleu-2": bleu, "metrics/bleu-6": bleu, "metrics/self_bleu-6": bleu}
        for step, bleu in ((5, 0.1), (10, 0.9))
    ]
    assert [callback.best(name)["step"] for name in ("bleu-2", "bleu-6", "self_bleu-6")] == [10, 10, 5]
    (tmp_path / "metrics.csv").write_text("step,metrics/bleu-6,metrics/self_bleu-6\n5,0.1,0.1\n10,0.9,0.9\n")
    record = read_record(tmp_path)
    assert record.best("metrics/bleu-6") == (0.9, 10) and record.best("metrics/self_bleu-6") == (0.1, 5)


@pytest.mark.parametrize("metric, option", [("bleu", "bleu_n"), ("self_bleu", "bleu_n"), ("js", "js")])
def test_a_score_of_no_length_is_refused_before_a_fit(metric: str, option: str) -> None:
    callback = TextMetrics(1, 4, [metric], at_start=False, **{option: ()})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"{option} must hold a length of n-grams for .*, got none"):
        trainer(max_steps=1, callbacks=[callback]).fit(MLE(LanguageModel((8, 6), 4, 4)), datamodule=MarkovText())
    assert not callback.history
    with pytest.raises(ValueError, match=rf"{option}\[0\] must be an integer >= [12], got 0"):
        TextScores(*torch.zeros(2, 3, 4, dtype=torch.int64), 2, [metric], **{option: (0,)})  # type: ignore[arg-type]


def test_scores_tell_their_names() -> None:
    data = OracleText(9, 10, items=40, hidden=4)
    x, y = data.reference("train")[0], data.reference("test")[0]
    scores = TextScores(x, y, 9, text_metrics := ("js", "distinct", "copied", "bleu", "self_bleu", "nll_oracle"),
                        oracle=data.oracle.nll)  # fmt: skip
    found = scores(x)
    assert len(text_metrics) == 6 and found["copied-8"] == 1.0 and found["js-4"] == 0.0
    assert found["nll_oracle"] == pytest.approx(float(data.oracle.nll(x).mean()), rel=1e-5)
    assert {"bleu-2", "bleu-5", "self_bleu-2", "distinct-2"} <= found.keys()
    long = TextScores(x, y, 9, ["js"], js=(1, 8), law=lambda n: torch.full((9**n,), 9.0**-n))(x)
    assert long.keys() == {"js-1", "js-8", "js-1/law"}  # a law of 9^8 numbers is not asked for
    with pytest.raises(ValueError, match=r"metrics must be one of js, .* got 'fid'"):
        TextScores(x, y, 9, ["fid"])
    with pytest.raises(ValueError, match="metrics must be without 'nll_oracle' for data that have no oracle"):
        TextScores(x, y, 9, ["nll_oracle"])


# ---------------------------------------------------------------------- the language model
def test_probabilities_of_all_texts_sum_to_one_and_samples_follow_them() -> None:
    torch.manual_seed(0)
    net = LanguageModel((3, 2), 3, 3).double()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
    every = torch.cartesian_prod(*[torch.arange(2)] * 3)
    for temperature in (1.0, 0.5):
        p = (-net.nll(every, temperature).sum(1)).exp().detach()
        assert float(p.sum()) == pytest.approx(1, abs=1e-12)
        z = torch.randn(40_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        drawn = (net.generate(z, temperature) * torch.tensor([4, 2, 1])).sum(1).bincount(minlength=8) / 40_000
        assert float(((drawn - p) / (p * (1 - p) / 40_000).sqrt()).abs().max()) < 3.5
    model = MLE(net)
    assert torch.allclose(model.log_density_bound(every).exp(), (-net.nll(every).sum(1)).exp())
    hot = text.one_hot(every, 2, torch.float64)
    assert torch.equal(model.nll(hot), model.nll(every))


def test_the_density_of_a_network_in_half_is_in_full_precision() -> None:
    torch.manual_seed(0)
    net, tokens = LanguageModel((20, 50)).bfloat16(), torch.randint(50, (8, 20))
    nll = net.nll(tokens, 0.7)
    assert nll.dtype == torch.float32
    exact = -(net.logits(tokens).double() / 0.7).log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    assert torch.allclose(nll.double(), exact, atol=1e-5)


def test_texts_of_a_network_in_half_have_its_law() -> None:
    """Of a thousand symbols, all as likely: noise of 16 bits has a few hundred values."""
    model = MLE(LanguageModel((1, 1000), 4, 4)).bfloat16()
    with torch.no_grad():
        model.network.out.weight.zero_()
        model.network.out.bias.zero_()
    counts = model.sample(20_000, seed=0).flatten().bincount(minlength=1000)
    assert int(counts.min()) > 0 and float(((counts - 20) ** 2 / 20).sum()) < 1150  # chi^2 of 999


class Conditional(nn.Module):
    """The label, or the one behind it at a high temperature."""

    num_classes, vocabulary_size, length = 3, 4, 2

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def generate(self, z: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        return (labels[:, None] + int(temperature > 1)).expand(-1, 2)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return text.one_hot(self.generate(z, labels), 4)


def test_text_of_a_class_at_a_temperature() -> None:
    model, labels = GAN(Conditional(), nn.Flatten(), 3), torch.tensor([2, 0])
    assert model.sample(2, labels).tolist() == [[2, 2], [0, 0]]
    assert model.sample(2, labels, temperature=2.0).tolist() == [[3, 3], [1, 1]]


def test_a_method_generate_of_networks_of_images_is_theirs() -> None:
    class Net(nn.Linear):
        def generate(self, *_: torch.Tensor) -> torch.Tensor:
            raise AssertionError

    assert GAN(Net(3, 2), nn.Linear(2, 1), 3).sample(4).shape == (4, 2)


def test_maximum_likelihood_learns_a_chain() -> None:
    """Its conditional entropy is known: 8 letters cost H(1) + 7 H(2 | 1). One-hot data and tokens are the same."""
    data = MarkovText()
    h1, h2 = (float(-(p[p > 0] * p[p > 0].log()).sum()) for p in (data.law(1), data.law(2)))
    floor, found = (h1 + 7 * (h2 - h1)) / 8, []
    for one_hot in (True, False):
        torch.manual_seed(0)
        model = MLE(LanguageModel(data.shape, 16, 16))
        callback = TextMetrics(150, 500, at_start=False)
        t = trainer(max_steps=150, callbacks=[callback])
        t.fit(model, datamodule=MarkovText(one_hot=one_hot))
        found.append(callback.history[-1]["metrics/nll_gen"])
    assert found[0] == found[1] and floor - 0.01 < found[0] < floor + 0.05 < 1.79
    assert callback.history[-1]["metrics/js-2/law"] < 0.03
    assert callback.protocol["samples"] == 500 and callback.protocol["data"] == data.source
    assert callback.protocol["length"] == 8 and callback.protocol["tokens"] == "char"
    assert callback.protocol["temperature"] == "as the model is" and callback.protocol["weights"] == "raw"


def test_models_refuse_other_data() -> None:
    with pytest.raises(TypeError, match="generator must be a language model, got Linear without length"):
        MLE(torch.nn.Linear(2, 2))
    for data, told in (
        (
            MarkovText(T=5),
            r"real samples must be \(N, 8, 6\), the network's length and symbols, or tokens .* got \(64, 5, 6\)",
        ),
        (MarkovText(K=7, one_hot=False), r"data must have as many symbols as the network, 6, got 7"),
        (MarkovText(K=5, one_hot=False), r"data must have as many symbols as the network, 6, got 5"),
        (DataLoader(torch.full((4, 8), 6)), r"tokens must lie in 0..5, got 6..6"),
        (Ring(), r"real samples must be \(N, 8, 6\)"),
    ):
        with pytest.raises(ValueError, match=told):
            trainer(max_steps=1).fit(MLE(LanguageModel((8, 6))), data)
    with pytest.raises(ValueError, match="shape must be"):
        LanguageModel((8,))  # type: ignore[arg-type]


def test_temperatures_out_of_range_and_models_without() -> None:
    model = MLE(LanguageModel((4, 6)))
    for wrong in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="temperature must be a finite number > 0, got"):
            model.sample(2, temperature=wrong)
    from common import make

    with pytest.raises(ValueError, match=r"temperature must be None for GAN, which makes no text, got 0.5"):
        make("gan").sample(2, temperature=0.5)
    with pytest.raises(ValueError, match="temperature must be a finite number > 0, got 0"):
        SampleText(temperature=0)
    a, b = (model.sample(50, seed=1, temperature=t) for t in (1.0, None))
    assert torch.equal(a, b) and a.dtype == torch.int64


def test_the_first_lines_are_texts_too(tmp_path: Path) -> None:
    """What stands for a token is known before callbacks write."""
    callback = SampleText(1, lines=2, shown=0, dirpath=tmp_path)
    trainer(max_steps=1, callbacks=[callback]).fit(MLE(LanguageModel((8, 6))), datamodule=MarkovText())
    for step in (0, 1):
        assert re.fullmatch("([a-f]{8}\n){2}", next(tmp_path.rglob(f"step_00000{step}.txt")).read_text())


def latin(monkeypatch: pytest.MonkeyPatch) -> io.TextIOWrapper:
    """An output that can show Latin letters only."""
    monkeypatch.setattr(sys, "stdout", out := io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    return out


def read(out: io.TextIOWrapper) -> str:
    out.flush()
    return out.buffer.getvalue().decode("latin-1")  # type: ignore[attr-defined, no-any-return]


def test_an_output_that_lacks_a_symbol_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unknown one of characters is such, which every untrained model writes."""
    (tmp_path / "a.txt").write_text("abc\nbca\ncab\ncba\n")
    data, out = TextFile(str(tmp_path / "a.txt"), length=3, batch_size=1), latin(monkeypatch)
    callback = SampleText(1, lines=20, shown=20, dirpath=tmp_path)
    trainer(max_steps=1, callbacks=[callback]).fit(MLE(LanguageModel(data.shape, 4, 4)), datamodule=data)
    assert "\ufffd" in "".join(callback.texts) and "?" in read(out) and out.errors == "strict"


def test_the_command_line_tells_names_that_the_output_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "\u043a\u043e\u0442.txt").write_text("abcdefab\nabcdefab\n")
    out = latin(monkeypatch)
    main(["score", "--samples", str(path), "--data", "MarkovText", "--metrics", "distinct"])
    assert "???.txt: 2 texts" in read(out) and out.errors == "strict"


class Told(loggers.Logger):
    """Whatever it is told, by the name of the method."""

    name = version = "told"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.experiment = SimpleNamespace(add_text=self.log_text)

    def log_text(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append((args, kwargs))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Nothing."""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


def test_loggers_of_text_have_the_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B a table with a row for each, TensorBoard a text that Markdown leaves as it is, others nothing."""
    signature = inspect.signature(loggers.WandbLogger.log_text)
    wandb, board = type("Wandb", (Told,), {}), type("Board", (Told,), {})
    monkeypatch.setattr(loggers, "WandbLogger", wandb)
    monkeypatch.setattr(loggers, "TensorBoardLogger", board)
    told = [wandb(), board(), Told()]
    t = trainer(max_steps=2, callbacks=[SampleText(2, lines=3, shown=0, dirpath=tmp_path)], logger=told)
    t.fit(MLE(LanguageModel((8, 6)), lr_mle=1.0), datamodule=MarkovText())
    lines = [(tmp_path / "samples" / f"step_00000{step}.txt").read_text().splitlines() for step in (0, 2)]
    assert lines[0] != lines[1] and [len(part) for part in lines] == [3, 3] and not told[2].calls
    for (args, kwargs), written, step in zip(told[0].calls, lines, (0, 2), strict=True):
        bound = signature.bind(None, *args, **kwargs).arguments
        assert bound.pop("self") is None
        assert bound == {"key": "samples/text", "columns": ["line"], "data": [[line] for line in written], "step": step}
    markdown = ["".join(f"    {line}\n" for line in written).removesuffix("\n") for written in lines]
    assert [args for args, _ in told[1].calls] == [("samples/text", markdown[0], 0), ("samples/text", markdown[1], 2)]


@pytest.mark.parametrize("callback", [SampleGrid, GenerativeMetrics, ModeCoverage])
def test_callbacks_of_images_refuse_text(callback: type) -> None:
    model = MLE(LanguageModel((8, 6)))
    told = f"{callback.__name__} needs a model that makes images or points, got MLE, whose samples are text."
    with pytest.raises(TypeError, match=re.escape(told)):
        trainer(max_steps=1, callbacks=[callback()]).fit(model, datamodule=MarkovText())


def test_samplers_and_text_callbacks_refuse_the_other_kind() -> None:
    from common import make

    with pytest.raises(
        ValueError, match="module must make images or points for LatentLangevin, got one that makes text"
    ):
        LatentLangevin(MLE(LanguageModel((8, 6))))
    for callback in (SampleText(), TextMetrics()):
        with pytest.raises(TypeError, match="needs a model that makes text, got GAN, which has no vocabulary_size"):
            trainer(max_steps=1, callbacks=[callback]).fit(make("gan"), datamodule=Ring())
    with pytest.raises(ValueError, match="TextMetrics needs a datamodule of text, got Ring"):
        trainer(max_steps=1, callbacks=[TextMetrics()]).fit(MLE(LanguageModel((8, 6))), datamodule=Ring())


# ---------------------------------------------------------------------- what people do with it
@contextmanager
def output(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    capsys.readouterr()
    lines: list[str] = []
    yield lines
    lines += capsys.readouterr().out.splitlines()


def test_any_text_is_scored_once_cleaned_as_the_data_are(tmp_path: Path) -> None:
    """What a model of the data wrote is left as it is, blanks at its ends too."""
    data = PyDocText(length=16)
    made = data.decode(data.reference("test")[0][:40])
    assert any(line.endswith(" ") for line in made) and data.samples_of(made) == made
    prose = "The cat's 3 LIVES,\nsays a friend of mine:\n\nnine, or ten?  Who knows.\n" * 5
    (tmp_path / "prose.txt").write_text(prose)
    found = score_text(tmp_path / "prose.txt", data, ["copied", "self_bleu"])
    windows = data.samples_of(prose.splitlines())
    whole = " " + re.sub("[^a-z]+", " ", prose.lower())
    assert found["protocol"]["samples"] == len(windows) > 10 and found["protocol"]["lines"] == 20
    assert windows[:2] == ["the cat s lives ", "says a friend of"] and all(f" {window}" in whole for window in windows)
    place = 0
    for window in windows:  # one behind the other, none twice
        place = whole.index(f" {window}", place) + len(window)
    with pytest.raises(
        ValueError, match="samples must hold at least 2 windows of 16 letters and blanks, got a text of 10"
    ):
        score_text(["Some", "Words"], data)
    with pytest.raises(ValueError, match="samples must hold at least 2 windows"):
        data.samples_of(["one window and a half"])
    loud = ["A LOUD VOICE CRI", "ES IN THE NIGHTS"]  # of the length, but of other symbols
    assert data.samples_of(loud) == [text.lower() for text in loud]


def test_a_model_keeps_the_meaning_of_its_tokens(tmp_path: Path) -> None:
    """Symbols are numbered by frequency: another text may have as many, in another order."""
    lines = ["ab", "aab", "aaab", "ba", "aba", "baa"]
    data = []
    for name, swap in (("one", "ab"), ("other", "ba")):
        (tmp_path / name).write_text("\n".join(lines).translate(str.maketrans("ab", swap)))
        data.append(TextFile(str(tmp_path / name), length=4, batch_size=2, one_hot=False))
    same, other = data
    model = MLE(LanguageModel(same.shape, 4, 8))
    t = trainer(max_steps=1)
    t.fit(model, datamodule=same)
    t.save_checkpoint(path := tmp_path / "last.ckpt")
    told = (
        r"must have the symbols that the model was trained with, in their order, got 'b' where 'a' is \(token 2; 2 of 4"
    )
    again = MLE(LanguageModel(same.shape, 4, 8))
    begun = MLE(LanguageModel(same.shape, 4, 8), generator_checkpoint=str(path))
    known = load(path, generator=LanguageModel(same.shape, 4, 8))
    for call in (
        lambda: trainer(max_steps=2).fit(again, datamodule=other, ckpt_path=path),
        lambda: trainer(max_steps=2).fit(model, datamodule=other),
        lambda: trainer(max_steps=2).fit(begun, datamodule=other),
        lambda: trainer().test(known, datamodule=other),
        lambda: temperature_sweep(known, other, [1.0], 20),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    trainer(max_steps=2).fit(MLE(LanguageModel(same.shape, 4, 8)), datamodule=same, ckpt_path=path)
    with pytest.raises(ValueError, match=r"got no symbol where 'b' is \(token 1; 1 of 2 differ\)"):
        text.Vocabulary(("a", "b")).require(text.Vocabulary(("a",)), "data")


def test_when_a_model_takes_the_symbols_of_the_data(tmp_path: Path) -> None:
    """Not before its first update, and not from data that do not tell them as ours do."""
    for name in ("ab", "cd"):
        lines = "\n".join(["ab", "aab", "aaab", "ba", "aba", "baa"])
        (tmp_path / name).write_text(lines.translate(str.maketrans("ab", name)))
    wrong, right = (TextFile(str(tmp_path / name), length=4, batch_size=2, one_hot=False) for name in ("ab", "cd"))

    class Failing(lightning_callbacks.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            assert pl_module.vocabulary is wrong.vocabulary
            raise RuntimeError("of the user's")

    class Others(pl.LightningDataModule):
        vocabulary = ("a", "b")

        def train_dataloader(self) -> Any:
            return DataLoader(torch.randint(right.shape[1], (8, 4)), 4)

    model = MLE(LanguageModel(right.shape, 4, 8))
    with pytest.raises(RuntimeError, match="of the user's"):
        trainer(max_steps=1, callbacks=[Failing()]).fit(model, datamodule=wrong)
    with pytest.warns(UserWarning, match="has made no update"):
        trainer(max_steps=0).fit(model, datamodule=wrong)
    trainer(max_steps=1).fit(model, datamodule=right)
    trainer(max_steps=1).fit(model, datamodule=Others())
    trainer(max_steps=1).fit(model, Others().train_dataloader())
    assert model.vocabulary is right.vocabulary
    with pytest.raises(ValueError, match="the symbols that the model was trained with"):
        trainer(max_steps=1).fit(model, datamodule=wrong)
    assert model.vocabulary is right.vocabulary


def test_a_run_from_fit_to_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["--data", "MarkovText", "--data.one_hot", "false", "--model", "MLE", "--model.generator", "LanguageModel"]
    args += ["--trainer.max_steps", "20", "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--name", "run"]
    args += ["--trainer.callbacks+=TextMetrics", "--trainer.callbacks.num_samples=50"]
    args += ["--trainer.enable_progress_bar", "false", "--grid.every_n_steps", "10"]
    main(["fit", *args])
    run = tmp_path / "runs" / "run"
    shown = (run / "samples" / "latest.txt").read_text().splitlines()
    assert len(shown) == 64 and all(re.fullmatch("[a-f]{8}", line) for line in shown)
    assert not list((run / "samples").glob("*.png")) and (run / "samples" / "step_000010.txt").is_file()
    card = (run / "checkpoints" / "last.md").read_text()
    assert "\n".join(["```text", *shown[:10], "```"]) in card and "js-2/law" in card
    model = load(run)
    assert model.vocabulary is not None and model.vocabulary.decode(model.sample(64, seed=0)) == shown
    assert model.num_classes is None and model.vocabulary_size == 6
    main(["predict", "--ckpt_path", str(run), "--samples", "70"])
    main(["predict", "--ckpt_path", str(run), "--samples", "70", "--temperature", "1e-4"])
    cold = (run / "predictions-2" / "samples.txt").read_text().splitlines()
    own = torch.Generator().manual_seed(0)
    assert cold[:64] == model.vocabulary.decode(model.sample(64, None, own, temperature=1e-4)) and len({*cold}) < 4
    written = run / "predictions" / "samples.txt"
    assert len(written.read_text().splitlines()) == 70
    with output(capsys) as said:
        main(["score", "--metrics", "js", "distinct", "copied", "--samples", str(written), "--data", "MarkovText",
              "--out", "scores.json"])  # fmt: skip
    found = json.loads((tmp_path / "scores.json").read_text())
    assert "70 texts against first-order chain" in said[0] and said[0].endswith(" of train and 10,000 held out")
    assert found["protocol"]["samples"] == 70
    assert found["scores"] == score_text(written, MarkovText())["scores"]
    with pytest.raises(SystemExit, match="error: --num_real is for scores of images, got 5 with text"):
        main(["score", "--samples", str(written), "--data", "MarkovText", "--num_real", "5"])
    with output(capsys) as said:
        main(["sweep", "--ckpt_path", str(run), "--temperatures", "[0.5, 1]", "--samples", "60",
              "--metrics=[distinct,js]"])  # fmt: skip
    rows = list(csv.DictReader((run / "sweep.csv").open()))
    assert [row["temperature"] for row in rows] == ["0.5", "1"] and said[-1].endswith("sweep.csv")
    lines = landmarks(MarkovText(), 60, ["distinct", "js"])
    assert json.loads((run / "sweep.json").read_text())["landmarks"] == lines
    assert [line.partition(":")[0] for line in said[-3:-1]] == ["held-out text", "independent symbols"] == [*lines]
    curve = temperature_sweep(model, MarkovText(), [0.5, 1.0], 60)["curve"]
    assert [float(row["nll_gen"]) for row in rows] == pytest.approx([point["nll_gen"] for point in curve], rel=1e-6)
    for wrong, told in (
        (["predict", "--ckpt_path", str(run), "--temperature=-1"], "temperature must be a finite number > 0, got -1"),
        (["sweep", "--ckpt_path", str(run), "--temperatures", "0"], "temperature must be a finite number > 0, got 0.0"),
        (["sweep", "--ckpt_path", str(tmp_path)], "--ckpt_path must be a run or lie in one"),
        (["sweep", "--ckpt_path", str(run), "--out", "a.json"], "--out must be a CSV file, beside which the .json"),
        (["score", "--samples", "none.txt", "--data", "MarkovText"], "path must be a text file, got none.txt"),
    ):
        with pytest.raises(SystemExit, match=re.escape(told)):
            main(wrong)
    (tmp_path / "other.txt").write_text("abcdefab\nabcdexyz\n")
    with pytest.raises(SystemExit, match="samples, text 2: a text must be made of the 6 known symbols, got 'x'"):
        main(["score", "--samples", "other.txt", "--data", "MarkovText"])


# ---------------------------------------------------------------------- learning
def mle(updates: int) -> tuple[MLE, OracleText]:
    torch.manual_seed(0)
    data = OracleText(vocabulary_size=100, one_hot=False)
    model = MLE(LanguageModel(data.shape))
    trainer(max_steps=updates).fit(model, datamodule=data)
    return model, data


def test_a_users_own_grid_of_images_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["--data=MarkovText", "--data.one_hot=false", "--model=MLE", "--model.generator=LanguageModel"]
    args += ["--trainer.max_steps=1", "--trainer.accelerator=cpu", "--trainer.devices=1", "--name=run"]
    told = "SampleGrid needs a model that makes images or points, got MLE, whose samples are text."
    with pytest.raises(SystemExit, match=re.escape(told)):
        main(["fit", *args, "--trainer.callbacks+=SampleGrid", "--trainer.enable_progress_bar=false"])
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]
    with pytest.raises(SystemExit, match=re.escape(told.replace("SampleGrid", "GenerativeMetrics"))):
        main(["fit", *args, "--trainer.callbacks+=GenerativeMetrics", "--dry_run"])


@pytest.mark.slow
def test_four_epochs_on_the_oracle_and_the_sweep_that_passes_the_truth() -> None:
    """NLL_oracle alone ranks nothing: a mediocre model goes below the true text, made colder."""
    model, data = mle(4 * 156)
    held_out = data.reference("test")[0]
    assert held_out_nll(model, held_out) < 3.6 < math.log(100)
    truth = float(data.oracle.nll(held_out).mean())
    curve = {p["temperature"]: p for p in temperature_sweep(model, data, [0.4, 0.6, 0.8, 1.0])["curve"]}
    assert curve[0.4]["nll_oracle"] < truth < curve[0.6]["nll_oracle"] < curve[1.0]["nll_oracle"] < 4.6
    assert curve[0.4]["nll_gen"] > curve[0.6]["nll_gen"] > curve[1.0]["nll_gen"]
    assert curve[0.4]["distinct-2"] < curve[1.0]["distinct-2"]


@pytest.mark.slow
def test_without_what_was_written_before_the_oracle_is_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token by its place alone: what four epochs reach with all tokens before it (3.6) is out of reach."""
    monkeypatch.setattr("lightning_gans.networks.language.before", lambda tokens: torch.zeros_like(tokens))
    model, data = mle(4 * 156)
    assert held_out_nll(model, data.reference("test")[0]) > 3.8


@pytest.mark.slow
def test_seqgans_own_oracle() -> None:
    import os

    folder = os.environ.get("LIGHTNING_GANS_DATA")
    path = Path(folder or ".") / "text" / "seqgan_oracle.npz"
    if not folder or not path.is_file():
        pytest.skip("$LIGHTNING_GANS_DATA/text/seqgan_oracle.npz is not there")
    data = OracleText(path=str(path))
    x = data.reference("train")[0]
    with torch.no_grad():
        nll = torch.cat([data.oracle.nll(part).mean(1) for part in x.split(500)])
    assert float(nll.mean()) == pytest.approx(5.75, abs=0.02)
