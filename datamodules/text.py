"""Text as sequences of tokens: the language reference that comes with Python, and files."""

from __future__ import annotations

import codecs
import hashlib
import importlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.datamodules.base import GANDataModule, Split
from lightning_gans.datamodules.memory import MemoryLoader
from lightning_gans.functional.text import Vocabulary, common, one_hot

LETTERS = " abcdefghijklmnopqrstuvwxyz"


class OneHot:
    """Makes float32 one-hot batches (N, T, V) of stored tokens, on their device: the one place where that is done.

    >>> OneHot(3)(torch.tensor([[0, 2]]), Generator()).tolist()
    [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
    """

    def __init__(self, size: int) -> None:
        checks.at_least_one(size=size)
        self.size = size

    def __call__(self, tokens: Tensor, generator: Generator) -> Tensor:
        """(N, T) int64 to (N, T, V)."""
        return one_hot(tokens, self.size)


class TextDataModule(GANDataModule):
    """Base of the data modules of text: int64 tokens in memory, one-hot batches (N, T, V) made on the training device.

    Attributes:
        vocabulary: the symbols.
        shape: (T, V), of a batch's items.
        one_hot: whether batches are one-hot; otherwise they are the tokens, (N, T) int64, which ``MLE`` takes too.
        source: what the text was, with its md5, for the protocol of scores.

    >>> class Two(TextDataModule):
    ...     vocabulary, shape = Vocabulary(("a", "b")), (3, 2)
    ...     def load(self, split):
    ...         return torch.tensor([[0, 1, 0], [1, 0, 1]]), None
    >>> data = Two(batch_size=2)
    >>> data.decode(data.reference()[0]), next(iter(data.train_dataloader())).shape
    (['aba', 'bab'], torch.Size([2, 3, 2]))
    """

    value_range = (0.0, 1.0)
    vocabulary: Vocabulary
    source: str = ""

    def __init__(self, batch_size: int = 64, one_hot: bool = True) -> None:
        super().__init__(batch_size)
        self.one_hot = one_hot
        self._splits: dict[str, tuple[Tensor, Tensor | None]] = {}

    def load(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """Tokens (N, T) int64 of a split, and the styles (N,) int64 that they are written in, where there are some."""
        raise NotImplementedError

    def reference(self, split: Split = "train") -> tuple[Tensor, Tensor | None]:
        """All tokens (N, T) int64 of a split, on the CPU, and their labels (N,) or None."""
        checks.one_of("split", split, ("train", "test"))
        if split not in self._splits:
            self._splits[split] = self.load(split)
        return self._splits[split]

    @property
    def num_items(self) -> int:
        """Number of training sequences."""
        return len(self.reference("train")[0])

    def decode(self, tokens: Tensor) -> list[str]:
        """Texts of tokens (N, T)."""
        return self.vocabulary.decode(tokens)

    def samples_of(self, texts: Sequence[str]) -> list[str]:
        """Texts, whoever wrote them, as the data have theirs, to be scored: here each by itself, cut to the length."""
        joiner, length = "" if self.vocabulary.level == "char" else " ", self.shape[0]
        return [joiner.join(self.vocabulary.split(text)[:length]) for text in texts]

    def _loader(self, split: Split, **options: Any) -> MemoryLoader:
        transform = OneHot(len(self.vocabulary)) if self.one_hot else None
        tokens, labels = self.reference(split)
        return MemoryLoader(tokens, labels, self.batch_size, transform=transform, device=self.device, **options)

    def train_dataloader(self) -> Any:
        """Shuffled batches on the training device."""
        return self._loader("train")

    def fixed_loader(self, split: Split) -> MemoryLoader:
        """A split in a fixed order: always the same batches."""
        return self._loader(split, shuffle=False, drop_last=False)

    def describe(self) -> str:
        """Sequences, length, alphabet and source in one line."""
        length, size = self.shape
        unit = "characters" if self.vocabulary.level == "char" else "words"
        styles = "" if self.num_classes is None else f", {self.num_classes} styles"
        return (
            f"{self.name}: {self.num_items:,} training sequences of {length} {unit}, {size} symbols{styles}; "
            f"{self.source}"
        )


class _Lines(TextDataModule):
    """Lines of text, of which some are held out, as padded sentences or as windows.

    ``long``: "truncate"; "words" for a window at each word; "windows" for further ones, so that all text is in one.
    """

    def set_lines(
        self,
        train: list[str],
        test: list[str],
        vocabulary: Vocabulary,
        length: int,
        long: str = "windows",
        styles: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Say what the data are, once, in the constructor; ``styles``: of each line, by split."""
        self.vocabulary, self.shape, self.long = vocabulary, (length, len(vocabulary)), long
        self._lines, self._styles = {"train": train, "test": test}, styles

    def load(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """Cut and encode the lines of a split, so that no window of one is in the other."""
        length, vocabulary = self.shape[0], self.vocabulary
        rows: list[Tensor] = []
        for line in self._lines[split]:
            found = [vocabulary.known.get(symbol, vocabulary.unknown) for symbol in vocabulary.split(line)]
            tokens = torch.tensor(found)  # none is None: a vocabulary without `unknown` has all symbols
            if len(tokens) <= length or self.long == "truncate":
                row = torch.full((1, length), vocabulary.pad or 0)
                row[0, : len(tokens)] = tokens[:length]
                rows.append(row)
                continue
            starts = torch.arange(len(tokens))
            if vocabulary.level == "char":  # at each word
                blank = tokens == vocabulary.known.get(" ", -1)
                starts = torch.cat([starts[:1], blank.nonzero()[:, 0] + 1])
            if self.long == "windows":
                starts = covering(starts, length, len(tokens))
            starts = starts[starts + length <= len(tokens)]
            rows.append(tokens.unfold(0, length, 1)[starts])
        if self._styles is None:
            return torch.cat(rows), None
        counts = torch.tensor([len(row) for row in rows])
        return torch.cat(rows), torch.tensor(self._styles[split]).repeat_interleave(counts)


def covering(starts: Tensor, length: int, n: int) -> Tensor:
    """Starts of windows in n symbols, with others where these are too far apart, and one that ends at the end.

    >>> covering(torch.tensor([0, 3, 14]), length=4, n=20).tolist()
    [0, 3, 7, 11, 14, 16]
    """
    ends = torch.cat([starts[1:], torch.tensor([n])])
    far = (ends - starts > length).nonzero()[:, 0]
    between = [torch.arange(int(starts[i]), int(ends[i]), length) for i in far]
    found = torch.cat([starts, *between, torch.tensor([n - length])]).unique()
    return found[found <= n - length]


def checked_length(length: int) -> int:
    """The length, if it is an integer >= 1."""
    checks.at_least_one(length=length)
    return length


class PyDocText(_Lines):
    """English that comes with Python: the language reference (``pydoc_data.topics``); nothing is downloaded.

    Its 79 topics or so, in lower case, each run of anything but letters one blank: 27 symbols, about 370,000
    characters. Windows of ``length`` characters begin at each word; those of the last tenth of the text are held out.
    The text differs between versions of Python, so its md5 is part of ``source``, and of each score's protocol.

    Args:
        length: characters of a window, T.
        batch_size: sequences per batch and process.
        path: a text file in place of the reference, for a Python that comes without it.
        one_hot: see `TextDataModule`.

    Raises:
        ValueError: for a length out of range, for a text shorter than ten windows, and without a text.

    >>> PyDocText(length=16).shape
    (16, 27)
    """

    name = "PyDocText"

    def __init__(self, length: int = 32, batch_size: int = 64, path: str | None = None, one_hot: bool = True) -> None:
        super().__init__(batch_size, one_hot)
        checked_length(length)
        if path is None:
            try:
                topics = importlib.import_module("pydoc_data.topics").topics
            except ImportError:
                raise ValueError(
                    "PyDocText needs pydoc_data, which this Python comes without: give the path of a text (path=)."
                ) from None
            text = " ".join(topics[name] for name in sorted(topics))
        else:
            text = read_text(path)
        text = letters(text)
        if len(text) < 10 * (length + 1):
            raise ValueError(
                f"length must be at most a tenth of the text's {len(text)} letters a-z and blanks, which are all that "
                f"PyDocText keeps (TextFile keeps any symbols), got {length}."
            )
        cut = text.rfind(" ", 0, math.floor(len(text) * 0.9))
        if cut <= length:
            raise ValueError(f"path must be a text of words, with blanks between them, got {path}.")
        self.source = f"{Path(path).name if path else 'pydoc_data.topics'}, md5 {md5(text)}"
        self.set_lines([text[:cut]], [text[cut + 1 :]], Vocabulary(tuple(LETTERS)), length, long="words")

    def samples_of(self, texts: Sequence[str]) -> list[str]:
        """As they are if each is ``length`` of the 27 symbols; else windows, none of which overlap, of the whole.

        Of all lines together, cleaned as the data are; each window begins at a word.

        Raises:
            ValueError: for fewer than two windows.

        >>> PyDocText(length=8).samples_of(["A text of 2 lines,", "and here the second."])
        ['a text o', 'lines an', 'here the']
        """
        length = self.shape[0]
        if all(len(text) == length and set(text) <= set(LETTERS) for text in texts):
            return list(texts)
        text, found, start = letters(" ".join(texts)), list[str](), 0
        while start + length <= len(text):
            found.append(text[start : start + length])
            start = (text.find(" ", start + length - 1) + 1) or len(text)
        if len(found) < 2:
            raise ValueError(
                f"samples must hold at least 2 windows of {length} letters and blanks, got a text of {len(text)}."
            )
        return found


def letters(text: str) -> str:
    """In lower case, each run of anything but letters one blank.

    >>> letters("It's 2 words!")
    'it s words'
    """
    return re.sub("[^a-z]+", " ", text.lower()).strip()


class TextFile(_Lines):
    """A UTF-8 file, one sentence a line; blank lines are left out.

    Sentences shorter than ``length`` are padded with a symbol of its own (token 0); the symbols are those of the
    training lines, the most frequent first, and others become one, unknown (token 1). The lines that are held out are
    the last ``test_share`` of the file; sequences of theirs that are among the training ones too are left out, and
    counted in `describe`. Several files are as many styles, whose numbers, in their order, are the labels.

    Args:
        path: the file, or one for each style.
        level: "char", or "word": what blanks part.
        length: symbols of a sequence, T.
        max_vocab: the most symbols that there may be, padding and unknown included.
        long: what becomes of lines longer than ``length``: "refuse"; "truncate"; or "windows" of that length, which
            begin at each word, anywhere in words that are longer, and where the last one ends with the line.
        rare: what becomes of symbols beyond ``max_vocab``: "refuse", or "unknown".
        test_share: share of the lines that is held out, in (0, 1).
        test_path: another file that is held out, in place of lines of this one; of several, as many.
        batch_size: sequences per batch and process.
        one_hot: see `TextDataModule`.

    Raises:
        ValueError: for a file that is not UTF-8, is empty, or has too long lines or too many symbols, for another
            number of files that are held out, and where nothing of a style is left to train on, or to hold out.
        FileNotFoundError: there is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "cats.txt").write_text("a cat\\nthe cat\\na dog\\n")
    ...     data = TextFile(f"{folder}/cats.txt", level="word", length=3, test_share=0.34)
    >>> data.shape, data.decode(data.reference()[0])
    ((3, 5), ['a cat', 'the cat'])
    """

    def __init__(
        self,
        path: list[str] | str,
        level: Literal["char", "word"] = "char",
        length: int = 32,
        max_vocab: int = 10_000,
        long: Literal["refuse", "truncate", "windows"] = "refuse",
        rare: Literal["refuse", "unknown"] = "refuse",
        test_share: float = 0.1,
        test_path: list[str] | str | None = None,
        batch_size: int = 64,
        one_hot: bool = True,
    ) -> None:
        super().__init__(batch_size, one_hot)
        checked_length(length)
        checks.at_least(3, max_vocab=max_vocab)
        checks.one_of("level", level, ("char", "word"))
        checks.one_of("long", long, ("refuse", "truncate", "windows"))
        checks.one_of("rare", rare, ("refuse", "unknown"))
        checks.inside(test_share=test_share)
        paths, held_out = _listed(path), [] if test_path is None else _listed(test_path)
        if not paths:
            raise ValueError("path must be a file, or one for each style, got none.")
        if test_path is not None and len(held_out) != len(paths):
            raise ValueError(f"test_path must be as many files as path, {len(paths)}, got {len(held_out)}.")
        plain = Vocabulary((), level)
        most = length if long == "refuse" else None
        found: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
        for style, file in enumerate(paths):
            lines = [(line, style) for line in _lines(file, plain, most)]
            cut = len(lines) if held_out else len(lines) - max(1, round(len(lines) * test_share))
            if not cut and len(paths) > 1:
                raise ValueError(
                    f"path must hold a line of each style to train on, got {len(lines)} in {file}, all of them held "
                    "out: give more lines, a smaller test_share, or a test_path."
                )
            found["train"] += lines[:cut]
            found["test"] += (
                [(line, style) for line in _lines(held_out[style], plain, most)] if held_out else lines[cut:]
            )
        train, test = ([line for line, _ in found[split]] for split in ("train", "test"))
        path = ", ".join(paths)
        if not train or set(test) <= set(train):
            others = len(set(test) - set(train))
            one = len({*train, *test}) < 2
            more = "" if held_out else ", or break the text into lines" if one else ", or a test_share"
            raise ValueError(
                f"path must hold lines to train on and others, which are none of these, to hold out, got {len(train)} "
                f"and {others} in {path}: give a test_path of other lines{more}."
            )
        self._repeated = ""
        marks = ("", "<unk>" if level == "word" else "\ufffd")
        symbols = [s for s in common(s for line in train for s in plain.split(line)) if s not in marks]
        if rare == "refuse" and len(symbols) + 2 > max_vocab:
            raise ValueError(
                f"max_vocab must be at least {len(symbols) + 2}, the symbols of {path} with padding and unknown, got "
                f"{max_vocab}: raise it, or give rare='unknown'."
            )
        self.name = Path(paths[0]).stem
        told = [f"{Path(file).name}, md5 {md5(read_text(file))}" for file in (*paths, *held_out)]
        self.source = ", ".join(told[: len(paths)]) + "".join(f", held out {file}" for file in told[len(paths) :])
        styles = {split: [style for _, style in rows] for split, rows in found.items()} if len(paths) > 1 else None
        self.num_classes = None if styles is None else len(paths)
        vocabulary = Vocabulary((*marks, *symbols[: max_vocab - 2]), level, pad=0, unknown=1)
        self.set_lines(train, test, vocabulary, length, long, styles)

    def load(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """As of any lines, but without held-out sequences that are among the training ones."""
        tokens, styles = super().load(split)
        if split == "train":
            return tokens, styles
        rows = [row.tobytes() for row in tokens.numpy()]
        known = set(rows).intersection(row.tobytes() for row in self.reference("train")[0].numpy())
        new = torch.tensor([row not in known for row in rows])
        for style in range(self.num_classes or 1):
            own = new if styles is None else new[styles == style]
            if not own.any():
                whose = "" if styles is None else f" of style {style}"
                raise ValueError(
                    f"held-out sequences{whose} must be others than the training ones, got {len(own)} that are all "
                    f"among these in {self.source}: give a test_path of other lines, or raise length."
                )
        if not new.all():
            left_out = f"{int((~new).sum()):,} of {len(new):,} held-out sequences"
            self._repeated = f"; {left_out}, which are among these, left out"
        return tokens[new], None if styles is None else styles[new]

    def describe(self) -> str:
        """Sequences, length, alphabet and source in one line, and what was not held out."""
        self.reference("test")
        return super().describe() + self._repeated


def _listed(path: list[str] | str) -> list[str]:
    return [str(path)] if isinstance(path, (str, Path)) else list(map(str, path))


def _lines(path: str, vocabulary: Vocabulary, most: int | None) -> list[str]:
    """Those of a file that are not blank, each of so many symbols at most."""
    lines = [line.strip() for line in lines_of(path)]
    for place, line in enumerate(lines):
        if most is not None and (got := len(vocabulary.split(line))) > most:
            raise ValueError(
                f"lines of {path} must have at most {most} symbols, got {got} in line {place + 1}: raise length, or "
                "give long='windows' (--data.long windows), which keeps all of them, or long='truncate'."
            )
    return [line for line in lines if line]


def read_text(path: str | Path, blank: bool = False) -> str:
    """The text of a UTF-8 file; ``blank``: it may be blank lines alone.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is something else, or empty, or cannot be read.
    """
    path = Path(path).expanduser()
    try:
        if not path.is_file():
            raise FileNotFoundError(f"path must be a text file, got {path}, which is none{checks.seen_from(path)}.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        other = ", not as UTF-16" * error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise ValueError(
            f"path must be a UTF-8 text, got {path}, whose byte {error.start} is none: save it as UTF-8{other}."
        ) from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"path {path} cannot be read ({error.strerror or error}).") from error
    if not (text if blank else text.strip()):
        raise ValueError(f"path must hold text, got {path}, which is empty.")
    return text


def lines_of(path: str | Path, blank: bool = False) -> list[str]:
    """The lines of `read_text`, as editors and ``wc`` count them: other separators of Unicode are part of a line."""
    return read_text(path, blank).removesuffix("\n").split("\n")


def md5(content: str | bytes) -> str:
    """Of bytes, of a text the UTF-8 ones."""
    content = content.encode() if isinstance(content, str) else content
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
