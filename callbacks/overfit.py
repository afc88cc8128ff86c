"""Does the discriminator know its training samples by heart?"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.callbacks.probe import EveryNSteps, log_metrics, scores, untouched
from lightning_gans.compat.lightning import datamodule_of, pl
from lightning_gans.engine.contract import Critic
from lightning_gans.functional.columns import Names, columns

Samples = tuple[Tensor, Tensor | None]


def accuracies(train: Tensor, held_out: Tensor, fake: Tensor, threshold: float | None = None) -> Tensor:
    """Shares (3,) of training reals and held-out reals scored above the threshold, and of fakes scored below it.

    Args:
        train: (N,) scores of training samples.
        held_out: (M,) scores of real samples that were never trained on.
        fake: (K,) scores of generated samples.
        threshold: None means midway between the mean scores of ``train`` and ``fake``.
    """
    limit = midway(train, fake) if threshold is None else threshold
    right = (train > limit, held_out > limit, fake < limit)
    return torch.stack([answers.float().mean() for answers in right])


def midway(train: Tensor, fake: Tensor) -> Tensor:
    """Between the mean scores of training samples and of fakes."""
    return (train.mean() + fake.mean()) / 2


class OverfitAlarm(EveryNSteps):
    """Compares the discriminator's accuracy on training samples with that on held-out ones.

    Logged, and there for ``ModelCheckpoint`` and ``EarlyStopping`` to monitor: ``d/accuracy_train``,
    ``d/accuracy_heldout``: share of training and of held-out reals taken for real; ``d/accuracy_fake``: share of the
    last batch's fakes taken for fake; ``d/overfit_gap``: the first minus the second; ``d/distance``: how far D's
    weights are from where training began, |w - w_0| / |w_0|, since to learn noise by heart takes a long way
    (arXiv:1903.11680), for which checkpoints keep w_0. A discriminator that has memorised
    its data tells training samples from equally real held-out ones, and what it teaches is to copy. D is in evaluation
    mode. Training samples are the first of ``datamodule.reference("train")``, without augmentation; without a
    ``reference``, the last batch. Held-out ones come from ``datamodule.val_dataloader()``.

    Args:
        every_n_steps: generator updates between checks.
        num_samples: training samples and held-out samples to compare, at most.
        threshold: score above which a sample counts as real: 0 for a discriminator whose scores are logits; None means
            midway between the mean score of training samples and that of fakes, which also suits critics, whose scores
            have no zero. (With None the accuracies are relative; the gap is what to look at.)
        max_gap: a warning is due when the gap is above this ...
        patience: ... for so many checks in a row. It is given once.

    Raises:
        TypeError: before training starts, for a model without a discriminator.
        ValueError: before training starts, if there are no held-out samples.

    >>> callback = OverfitAlarm(max_gap=0.1)  # for pl.Trainer(callbacks=[callback])
    >>> train, held_out, fake = torch.tensor([3.0, 2.0]), torch.tensor([2.5, -1.0]), torch.tensor([-2.0, -3.0])
    >>> accuracies(train, held_out, fake).tolist()  # a gap of 0.5, of which it warns
    [1.0, 0.5, 1.0]
    """

    needs = Critic

    def __init__(
        self,
        every_n_steps: int = 500,
        num_samples: int = 512,
        threshold: float | None = None,
        max_gap: float = 0.1,
        patience: int = 3,
    ) -> None:
        super().__init__(every_n_steps)
        checks.at_least_one(num_samples=num_samples, patience=patience)
        checks.finite(**checks.given(threshold=threshold))
        checks.share(max_gap=max_gap)
        self.num_samples, self.threshold, self.max_gap, self.patience = num_samples, threshold, max_gap, patience
        self.train: Samples | None = None
        self.held_out: Samples | None = None
        self.checks_above = 0
        self.warned = False
        self.start: list[Tensor] = []  # D's weights where training began

    def check(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """There must be held-out samples."""
        _held_out_loader(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the samples to compare; a new training is warned of anew."""
        super().on_train_start(trainer, pl_module)
        if pl_module.global_step == 0:
            self.checks_above, self.warned = 0, False
        if pl_module.global_step == 0 or not self.start:
            self.start = [p.detach().clone() for p in _weights(pl_module)]
        datamodule = datamodule_of(trainer)
        self.train = None
        with untouched(pl_module):
            self.held_out = _collect(_held_out_loader(trainer), self.num_samples, getattr(pl_module, "columns", None))
            if getattr(datamodule, "vocabulary", None) is not None:  # whose items are tokens
                self.train = _collect([datamodule.fixed_loader("train")], self.num_samples, None)
            elif hasattr(datamodule, "reference"):
                items, labels = datamodule.reference("train")
                low, high = getattr(datamodule, "value_range", None) or (-1.0, 1.0)
                items = items[: self.num_samples]
                real = items.float() / 255 * (high - low) + low if items.dtype == torch.uint8 else items
                self.train = (real, None if labels is None else labels[: self.num_samples])

    @torch.no_grad()
    def act(self, trainer: pl.Trainer, module: Critic, step: int) -> None:
        """Score, log, and warn if the gap has stayed."""
        last, fake = module.last_batch, module.last_fake
        if last is None or fake is None or self.held_out is None:
            return
        train = self.train or (last.real, last.labels)
        trained, held_out = _score(module, *train), _score(module, *self.held_out)
        faked, threshold = _score(module, fake, last.labels), self.threshold
        if threshold is None:  # of the fakes of all ranks
            threshold = float(trainer.strategy.reduce(midway(trained, faked), reduce_op="mean"))
        shares = accuracies(trained, held_out, faked, threshold)
        on_train, on_held_out, on_fake = trainer.strategy.reduce(shares, reduce_op="mean").tolist()
        gap = on_train - on_held_out
        values = {
            "d/accuracy_train": on_train,
            "d/accuracy_heldout": on_held_out,
            "d/accuracy_fake": on_fake,
            "d/overfit_gap": gap,
            "d/distance": self.distance(module),
        }
        trainer.lightning_module.log_dict(values, logger=False, batch_size=1)
        log_metrics(trainer, values, step)
        self.checks_above = self.checks_above + 1 if gap > self.max_gap else 0
        if self.checks_above >= self.patience and not self.warned:
            self.warned = True
            pl.utilities.rank_zero_warn(
                f"OverfitAlarm: after {step} generator updates the discriminator takes {on_train:.0%} of training "
                f"samples for real, but {on_held_out:.0%} of held-out ones (gap above {self.max_gap:.0%} for "
                f"{self.patience} checks in a row): it memorises; more data, augmentation or an earlier stop help."
            )

    def distance(self, module: Any) -> float:
        """|w - w_0| / |w_0|."""
        begun = [w.to(p.device) for w, p in zip(self.start, _weights(module), strict=True)]
        moved = torch.cat([(p.double() - w.double()).flatten() for p, w in zip(_weights(module), begun)]).norm()
        return float(moved / torch.cat([w.double().flatten() for w in begun]).norm().clamp_min(1e-12))

    def state_dict(self) -> dict[str, Any]:
        """So that a resumed training does not begin to count again, nor warn twice, and knows where it began."""
        return {"checks_above": self.checks_above, "warned": self.warned, "start": self.start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.checks_above, self.warned = state_dict["checks_above"], state_dict["warned"]
        self.start = list(state_dict.get("start", ()))


def _weights(module: Any) -> list[Tensor]:
    return list(module.discriminator.parameters())


def _held_out_loader(trainer: pl.Trainer) -> Any:
    datamodule = datamodule_of(trainer)
    loader = trainer.val_dataloaders if datamodule is None else datamodule.val_dataloader()
    if loader is None:
        raise ValueError("OverfitAlarm needs held-out samples: give a datamodule with a val_dataloader.")
    return loader


def _collect(loader: Iterable[Any], n: int, names: Names | None) -> Samples:
    reals, labels, count = [], [], 0
    for batch in chain.from_iterable(loader if isinstance(loader, (list, tuple)) else [loader]):
        real, label, *_ = columns(batch, names)
        reals.append(real.cpu())
        if isinstance(label, Tensor):
            labels.append(label.cpu())
        if (count := count + len(real)) >= n:
            break
    if not reals:
        raise ValueError("OverfitAlarm needs held-out samples, and the val_dataloader is empty.")
    return torch.cat(reals)[:n], torch.cat(labels)[:n] if labels else None


def _score(module: Critic, x: Tensor, labels: Tensor | None, chunk: int = 256) -> Tensor:
    like = next(module.discriminator.parameters())
    parts = [
        scores(module, part.to(like), None if labels is None else labels[i * chunk : (i + 1) * chunk])
        for i, part in enumerate(x.split(chunk))
    ]
    return torch.cat(parts).float()
