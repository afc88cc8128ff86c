"""``Batch`` and ``GANModule``: the D/G alternation. The only file that knows manual optimization."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Any, Literal, cast, get_args

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_gans import checks
from lightning_gans.compat.lightning import pl
from lightning_gans.engine import distributed, rng
from lightning_gans.engine.graphs import StepGraphs
from lightning_gans.engine.stream import NO_BATCH, DataStream
from lightning_gans.functional import draw
from lightning_gans.functional.conditional import conditional_call, score, takes_labels
from lightning_gans.functional.double_backward.input_gradient import DoubleBackward, double_backward, no_autocast
from lightning_gans.functional.modes import evaluating
from lightning_gans.regularizers import Regularizer

Terms = Mapping[str, Tensor]
OptimizerFactory = Callable[[Iterable], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]
# Lightning warns of what this class does on purpose: it takes whole cycles of batches, and has no validation loop.
for _message in (
    "dataloader_iter",
    "have no `validation_step`",
    "already saved during checkpointing",
    "manual optimization and every_n_train_steps",
    "your dataloader is not resumable",
):
    warnings.filterwarnings("ignore", message=f".*{_message}.*")
PLAYERS = {"d": "discriminator", "g": "generator", "c": "classifier", "w": "weight_network"}
_TENSORS = ("real", "labels", "weights", "z")  # of a Batch
_LARGE = 2**14  # elements of a batch
_PLAIN = (int, float, str, bool, type(None))


@dataclass(frozen=True)
class Batch:
    """What one discriminator or generator step sees.

    Attributes:
        real: (N, ...) real samples, in the range that the datamodule declares.
        labels: (N,) int64 class of each sample, or None. In a generator step they are the labels of ``z``.
        weights: (N,) importance weight of each real sample, mean 1 in expectation; None means all one.
        z: (M, latent_dim) standard normal noise; M = N, or ``g_batch_factor * N`` in a generator step.
        generator: source of every per-sample draw (give it to ``functional.draw``); None means the global one.
    """

    real: Tensor
    labels: Tensor | None
    weights: Tensor | None
    z: Tensor
    generator: torch.Generator | None = None


@dataclass
class _Cycle:
    """What changes from step to step: in an object of its own, since assigning to a module is slow."""

    d_done: int = 0  # discriminator updates of the cycle that is under way
    g_done: int = 0  # its generator updates
    stepping: str = "d"
    labels: list[Tensor] = field(default_factory=list)  # of the cycle's real batches
    pair: tuple[Tensor, ...] = ()  # the real and fake samples that are scored together
    pair_scores: tuple[Tensor, ...] | None = None
    held: list[Batch] = field(default_factory=list)  # the batches of a CUDA graph
    kept: dict[str, Tensor] = field(default_factory=dict)  # what a technique keeps until the cycle ends
    last_batch: Batch | None = None
    last_fake: Tensor | None = None
    images_seen: int = 0


class GANModule(pl.LightningModule):
    """Cycles of ``d_steps`` discriminator and ``g_steps`` generator updates; subclasses say what is minimised.

    One ``training_step`` is one generator update, the cycle's first one together with the discriminator updates before
    it; Lightning's ``global_step`` counts generator updates. Any loader works that yields ``x``, ``(x, labels)`` or
    ``(x, labels, weights)``, where labels and weights may be None.

    Override levels, smallest first: :meth:`discriminator_terms` and :meth:`generator_terms`;
    :meth:`after_discriminator_step`, :meth:`before_generator_step`, :meth:`generator_batch`; :meth:`minimise`;
    ``training_step``. A third network takes part by its letter (``PLAYERS``) in ``players`` and its ``lr_<letter>``.

    Args:
        generator: maps noise (N, latent_dim) [, labels (N,)] to samples (N, ...).
        discriminator: maps samples [, labels (N,)] to raw scores (N,), high for real. No sigmoid.
        latent_dim: length of z.
        regularizers: terms added to the discriminator's loss (``lightning_gans.regularizers``).
        d_steps: discriminator updates per cycle, >= 1.
        g_steps: generator updates per cycle, >= 1.
        g_batch_factor: the generator step draws this many times the batch size of fakes, >= 1.
        order: ``d_first``, or ``g_first`` where the generator steps before the discriminator in a cycle.
        lr_g: learning rate of the generator's default optimizer.
        lr_d: learning rate of the discriminator's default optimizer.
        betas: beta1, beta2 of the default optimizer (Adam).
        optimizer_g: makes the generator's optimizer of its parameters; replaces the default, lr_g and betas.
        optimizer_d: the same for the discriminator.
        scheduler_g: makes a learning rate scheduler of the generator's optimizer; it steps once per generator update.
        scheduler_d: the same for the discriminator, also once per generator update.
        clip_grad_g: largest norm of the generator's gradient; longer ones are scaled down (after unscaling).
        clip_grad_d: the same for the discriminator.
        double_backward: how penalties on the input gradient are differentiated, all of them exactly: sparse, linear,
            compiled or plain (see ``functional.double_backward``).
        cuda_graphs: on a GPU, record the gradients of each player's step as a CUDA graph, one per batch size, and
            replay it. Terms must not hold Python numbers that change from step to step, nor wait for the GPU. The
            optimizer's update and all callbacks run as ever. No effect elsewhere.
        accumulate_g: noise batches whose mean gradient makes one generator update.
        accumulate_d: data batches whose mean gradient makes one discriminator update.

    Raises:
        ValueError: for settings out of range, and for BatchNorm in a discriminator with a per-sample penalty.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        regularizers: Sequence[Regularizer] = (),
        d_steps: int = 1,
        g_steps: int = 1,
        g_batch_factor: int = 1,
        order: Literal["d_first", "g_first"] = "d_first",
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        optimizer_g: OptimizerFactory | None = None,
        optimizer_d: OptimizerFactory | None = None,
        scheduler_g: SchedulerFactory | None = None,
        scheduler_d: SchedulerFactory | None = None,
        clip_grad_g: float | None = None,
        clip_grad_d: float | None = None,
        double_backward: DoubleBackward = "sparse",
        cuda_graphs: bool = False,
        accumulate_g: int = 1,
        accumulate_d: int = 1,
    ) -> None:
        super().__init__()
        checks.at_least_one(latent_dim=latent_dim, d_steps=d_steps, g_steps=g_steps, g_batch_factor=g_batch_factor)
        checks.at_least_one(accumulate_g=accumulate_g, accumulate_d=accumulate_d)
        checks.positive(
            **{k: v for k, v in (("clip_grad_g", clip_grad_g), ("clip_grad_d", clip_grad_d)) if v is not None}
        )
        checks.one_of("order", order, ("d_first", "g_first"))
        checks.one_of("double_backward", double_backward, get_args(DoubleBackward))
        if order == "g_first" and g_steps > 1:
            raise ValueError(f"g_steps: expected 1 with order='g_first', got {g_steps}.")
        self.automatic_optimization = False
        self._save_plain_hyperparameters()
        self.generator, self.discriminator = generator, discriminator
        self.latent_dim, self.g_batch_factor, self.order = latent_dim, g_batch_factor, order
        self.d_steps, self.g_steps = d_steps, g_steps
        self.double_backward: DoubleBackward = double_backward
        self.cuda_graphs = cuda_graphs
        self._graphs: StepGraphs | None = None
        self.players: tuple[str, ...] = ("d", "g")
        self.g_batches = 0  # real batches that each generator update takes for before_generator_step
        self.lr_g, self.lr_d, self.betas = lr_g, lr_d, (betas[0], betas[1])
        self._factories = {"d": (optimizer_d, scheduler_d), "g": (optimizer_g, scheduler_g)}
        self._clip = {"d": clip_grad_d, "g": clip_grad_g}
        self._accumulate = {"d": accumulate_d, "g": accumulate_g}
        self.regularizers = list(regularizers)
        checks.regularizers(self.regularizers, discriminator)
        checks.discriminator_output(discriminator)
        self.conditional = takes_labels(generator) or takes_labels(discriminator)
        self.values: dict[str, Tensor] = {}  # last value of everything that is logged, detached and on the device
        self._cycle = _Cycle()
        self._slot: dict[str, nn.Module] = {}  # the EMA generator: a dict, so that it is no submodule
        self._resume: dict[str, Any] | None = None
        self._stream = DataStream(seed=0)
        self._rng: torch.Generator | None = None
        self._checked = False
        self._plain_transfer = False
        self._joint = False
        self._buffered: dict[str, bool] = {}  # which players have buffers; looking takes long beside a small net's step

    # ------------------------------------------------------------------ what a technique defines
    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """Terms whose sum the discriminator minimises, logged as ``d/<name>``; ``fake`` is detached."""
        raise NotImplementedError

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """Terms whose sum the generator minimises, logged as ``g/<name>``; ``fake`` carries the generator's graph."""
        raise NotImplementedError

    def after_discriminator_step(self) -> None:
        """Called after each discriminator update (weight clipping lives here)."""

    def before_generator_step(self, batches: Sequence[Batch]) -> None:
        """Called before each generator update with ``g_batches`` fresh real batches (further players step here)."""

    def generator_batch(self, last: Batch) -> Batch:
        """The batch of a generator step, given the last discriminator step's: fresh noise, labels as in the data."""
        n, labels = self.g_batch_factor * len(last.real), last.labels
        if labels is not None and self.g_batch_factor > 1:  # the cycle's labels have the data's class frequencies
            pool = distributed.interleave(torch.cat(self._cycle.labels or [labels]))
            labels = pool[(draw.uniform(n, generator=self._rng, device=pool.device) * len(pool)).long()]
        return Batch(last.real, labels, last.weights, self._noise(n), self._rng)

    def player(self, name: str) -> nn.Module:
        """The network that ``name`` in ``players`` stands for."""
        return cast(nn.Module, getattr(self, PLAYERS[name]))

    def default_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """The paper's optimizer, used where no factory is given: Adam with ``betas``."""
        return torch.optim.Adam(parameters, lr=lr, betas=self.betas, fused=self._may_fuse())

    def score(self, x: Tensor, batch: Batch) -> Tensor:
        """Scores (N,) of ``x`` by the discriminator, with the batch's labels if it takes them.

        In a discriminator step the real and the fake samples are scored in one pass, by the first of the two calls,
        where that makes no difference: without buffers, and if it made none on the first batch of the run. (On a CPU
        small batches only: large ones are faster apart.)
        """
        pair, labels = self._cycle.pair, batch.labels
        which = [i for i, samples in enumerate(pair) if samples is x]
        if not which or not torch.is_grad_enabled():
            return score(self.discriminator, x, labels)
        if self._cycle.pair_scores is None:
            both = score(self.discriminator, torch.cat(pair), None if labels is None else torch.cat([labels, labels]))
            self._cycle.pair_scores = both.chunk(2)
        return self._cycle.pair_scores[which[0]]

    def note(self, **values: Tensor) -> None:
        """Have diagnostics logged beside the terms; ``d_name`` becomes ``d/name``, ``g_name`` ``g/name``."""
        self.values.update({key.replace("_", "/", 1): value.detach() for key, value in values.items()})

    @property
    def last_batch(self) -> Batch | None:
        """Batch of the last discriminator step, on the training device."""
        return self._cycle.last_batch

    @property
    def last_fake(self) -> Tensor | None:
        """Detached fakes of the last discriminator step."""
        return self._cycle.last_fake

    @property
    def kept(self) -> dict[str, Tensor]:
        """What a technique keeps from one generator update of a cycle to the next; emptied when the cycle ends.

        It is per rank and part of the checkpoint.
        """
        return self._cycle.kept

    @property
    def images_seen(self) -> int:
        """Real samples that all ranks have trained on, repetitions counted."""
        return self._cycle.images_seen

    # ------------------------------------------------------------------ one cycle
    def training_step(self, dataloader_iter: Iterator[Any]) -> None:
        """One generator update; the first of a cycle with its discriminator updates, each on batches of its own."""
        cycle, pending, size = self._cycle, self._stream.pending, self._accumulate["d"]
        whole = self.d_steps * size + self.g_batches
        following = whole if cycle.g_done + 1 == self.g_steps else self.g_batches
        if not self._stream.fill(dataloader_iter, whole - cycle.d_done * size, following):
            return  # the epoch ended inside the cycle; the next one goes on with it
        if self.order == "g_first" and cycle.d_done == 0:
            self._generator_step(self._as_batch(pending[0]))
        while cycle.d_done < self.d_steps:
            batches = [self._as_batch(pending[i]) for i in range(size)]
            self._discriminator_step(batches)
            self._used(batches)
            cycle.d_done += 1
        if self.order == "d_first":
            batches = [self._as_batch(pending[i]) for i in range(self.g_batches)]
            self.before_generator_step(batches)
            self._used(batches)
            assert cycle.last_batch is not None
            self._generator_step(cycle.last_batch)
        cycle.g_done += 1
        if cycle.g_done == self.g_steps:
            cycle.d_done = cycle.g_done = 0
            cycle.labels.clear()
            cycle.kept.clear()
        self._after_generator_update()

    def _discriminator_step(self, batches: Sequence[Batch]) -> None:
        def terms(batch: Batch) -> Terms:
            with torch.no_grad(), kept_buffers(self.generator) if self._buffered["g"] else nullcontext():
                fake = self(batch.z, batch.labels)
            cycle = self._cycle
            cycle.last_batch, cycle.last_fake = batch, fake
            cycle.pair, cycle.pair_scores = ((batch.real, fake) if self._joint else ()), None
            try:
                adversarial = self.discriminator_terms(batch, fake)
            finally:
                cycle.pair, cycle.pair_scores = (), None
            named = {r.name: r.weight * r(self.discriminator, batch, fake) for r in self.regularizers}
            return {**adversarial, **named}

        held = self._held("d", batches)
        self.minimise("d", [partial(terms, batch) for batch in held])
        self._cycle.last_batch = held[-1]  # a replayed step runs no Python that would say so
        self.after_discriminator_step()

    def _used(self, batches: Sequence[Batch]) -> None:
        self._cycle.images_seen += sum(len(batch.real) for batch in batches) * distributed.world_size()
        for _ in batches:  # only now: until here they are part of a checkpoint
            self._stream.pending.popleft()

    def _generator_step(self, last: Batch) -> None:
        def terms(batch: Batch) -> Terms:
            return self.generator_terms(batch, self(batch.z, batch.labels))

        batches = self._held("g", [self.generator_batch(last) for _ in range(self._accumulate["g"])])
        with ExitStack() as others:
            for name in self.players:
                if name != "g":
                    others.enter_context(frozen(self.player(name), buffers=self._buffered[name]))
            self.minimise("g", [partial(terms, batch) for batch in batches])

    def minimise(self, player: str, terms: Sequence[Callable[[], Terms]]) -> None:
        """One optimizer step of ``player`` on the mean over ``terms`` of their sums; the other networks are left alone.

        Gradients are asked for the player's parameters only and averaged over ranks as one flat buffer. All but the
        generator's steps go past Lightning's counter, so that ``trainer.global_step`` counts generator updates.
        """
        optimizer = cast(list[Any], self.optimizers())[self.players.index(player)]
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        compute = partial(self._gradients, player, terms, parameters, scaler)
        total, loss = self._replayed(player, compute) if self._cycle.held else compute()
        gradients = iter(distributed.average([g for g in total if g is not None]))
        for p, g in zip(parameters, total):
            p.grad = None if g is None else like(next(gradients), p)
        self._cycle.stepping = player
        if player == "g":
            optimizer.step(lambda: loss)
        else:
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: loss, model=self)
        torch.clear_autocast_cache()  # Lightning 2.4 keeps weights as they were cast first in a cycle

    def _gradients(
        self, player: str, terms: Sequence[Callable[[], Terms]], parameters: Sequence[nn.Parameter], scaler: Any
    ) -> tuple[list[Tensor | None], Tensor]:
        total: list[Tensor | None] = [None] * len(parameters)
        for evaluate in terms:
            with double_backward(self.double_backward):
                values = evaluate()
            loss = reduce(torch.add, values.values())
            self.values.update({f"{player}/{name}": value.detach() for name, value in values.items()})
            self.values[f"{player}/loss"] = loss.detach()
            share = loss / len(terms) if len(terms) > 1 else loss
            with no_autocast(self.device.type):  # else the double backward of a penalty would be cast down again
                new = torch.autograd.grad(scaler.scale(share) if scaler else share, parameters, allow_unused=True)
            total = [b if a is None else a if b is None else a + b for a, b in zip(total, new)]
        return total, loss

    def _replayed(self, player: str, compute: Callable[[], Any]) -> Any:
        """What ``compute`` gives and leaves behind, by a CUDA graph once there is one for batches of this shape."""
        assert self._graphs is not None
        cycle, before = self._cycle, self.values

        def recorded() -> Any:
            self.values = {}
            return compute(), self.values, cycle.last_fake

        key = (player, *(b.real.shape for b in cycle.held), *(v.shape for v in cycle.kept.values()))
        found, values, cycle.last_fake = self._graphs.run(key, recorded)
        cycle.held = []
        self.values = {**before, **values}
        return found

    def _held(self, player: str, batches: Sequence[Batch]) -> list[Batch]:
        """The batches and what the cycle keeps, for a CUDA graph in the places where it looks for them."""
        if self._graphs is None:
            return list(batches)
        cycle, hold = self._cycle, self._graphs.hold
        cycle.kept = {name: cast(Tensor, hold(name, value)) for name, value in cycle.kept.items()}
        cycle.held = []
        for i, b in enumerate(batches):
            tensors: dict[str, Any] = {name: hold((player, i, name), getattr(b, name)) for name in _TENSORS}
            cycle.held.append(replace(b, **tensors))
        return cycle.held

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient of the network that steps; Lightning has unscaled it by now."""
        player = self._cycle.stepping
        if (largest := self._clip[player]) is not None:
            norm = nn.utils.clip_grad_norm_(self.player(player).parameters(), largest)
            self.values[f"{player}/grad_norm"] = norm.detach()

    # ------------------------------------------------------------------ batches and noise
    def _as_batch(self, raw: Any) -> Batch:
        raw = self.trainer.precision_plugin.convert_input(raw)
        if not self._plain_transfer:
            raw = self.trainer.strategy.batch_to_device(raw)
        parts = (*raw, None, None)[:3] if isinstance(raw, (tuple, list)) else (raw, None, None)
        real, labels, weights = (p.to(self.device, non_blocking=True) if torch.is_tensor(p) else p for p in parts)
        if not self.conditional:
            labels = None
        elif labels is not None:
            self._cycle.labels.append(labels)
        batch = Batch(real, labels, weights, self._noise(len(real)), self._rng)
        if not self._checked:
            with rng.untouched(), frozen(self.generator), frozen(self.discriminator):
                checks.batch(self, batch)
                pays = self.device.type != "cpu" or batch.real.numel() < _LARGE
                self._joint = pays and not self._buffered["d"] and checks.scores_each_alone(self, batch)
            self._checked = True
        return batch

    def _noise(self, n: int) -> Tensor:
        dtype = next(self.generator.parameters()).dtype
        return draw.normal(n, self.latent_dim, generator=self._rng, device=self.device, dtype=dtype)

    # ------------------------------------------------------------------ samples
    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The generator's output for noise ``z`` (N, latent_dim), with labels if it takes them."""
        return conditional_call(self.generator, z, labels)

    @property
    def num_classes(self) -> int | None:
        """Number of classes the generator can be asked for; None if it takes no labels."""
        return getattr(self.generator, "num_classes", None) if takes_labels(self.generator) else None

    @property
    def log_ratio(self) -> nn.Module | None:
        """The network whose output tends to log p_data / p_generated, if the technique trains one (see samplers)."""
        return None

    @property
    def ema(self) -> nn.Module | None:
        """Generator with averaged weights, if :meth:`start_ema` was called; no submodule of this module."""
        return self._slot.get("ema")

    def start_ema(self) -> nn.Module:
        """Begin an averaged generator at the present weights, or return the one that is there (see callbacks.EMA)."""
        if "ema" not in self._slot:
            self._slot["ema"] = copy.deepcopy(self.generator).eval().requires_grad_(False)
        return self._slot["ema"].to(self.device)

    def latents(
        self,
        n: int,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        seed: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What :meth:`sample` makes its samples of: z (n, latent_dim), and labels (n,) or None; arguments as there."""
        checks.at_least_one(n=n)
        if seed is not None:
            if generator is not None:
                raise ValueError(f"seed must be None where a generator is given, got {seed!r}.")
            generator = torch.Generator().manual_seed(seed)
        parameter = next(self._sampling().parameters())
        z = torch.randn(n, self.latent_dim, generator=generator, dtype=parameter.dtype).to(parameter.device)
        if labels is None and self.num_classes is not None:
            labels = torch.randint(self.num_classes, (n,), generator=generator)
        checks.sample_labels(labels, n, self.num_classes)
        return z, None if labels is None else labels.to(parameter.device)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """``n`` samples (n, ...) in evaluation mode, by the EMA generator if there is one.

        Args:
            n: number of samples, >= 1.
            labels: (n,) classes; drawn uniformly for a conditional generator if not given.
            generator: source of the noise (CPU); the global one if not given.
            seed: of a source of its own, in place of ``generator``: the same number, the same samples.

        Raises:
            ValueError: if ``labels`` has another length than n, or the generator takes none; for a seed and a source.
        """
        z, labels = self.latents(n, labels, generator, seed)
        with evaluating(net := self._sampling()):
            return conditional_call(net, z, labels)

    def _sampling(self) -> nn.Module:
        """The generator that samples are made by, on this module's device."""
        return self.generator if self.ema is None else self.start_ema()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """As many samples as ``batch`` says or holds; batch ``i`` always gets the same noise."""
        n = batch if isinstance(batch, int) else len(batch[0] if isinstance(batch, (tuple, list)) else batch)
        return self.sample(n, generator=torch.Generator().manual_seed(batch_idx))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing to do per batch: scores are computed by callbacks (``GenerativeMetrics``)."""

    # ------------------------------------------------------------------ optimizers
    def configure_optimizers(self) -> Any:
        """The optimizers of ``players`` in their order (discriminator, generator), and their schedulers."""
        optimizers: list[Optimizer] = []
        schedulers: list[dict[str, Any]] = []
        for player in self.players:
            parameters = [p for p in self.player(player).parameters() if p.requires_grad]
            make, schedule = self._factories[player]
            default = partial(self.default_optimizer, lr=getattr(self, f"lr_{player}"))
            optimizers.append((make or default)(parameters))
            if schedule is not None:
                schedulers.append({"scheduler": schedule(optimizers[-1]), "interval": "step", "name": f"lr/{player}"})
        return optimizers, schedulers

    # ------------------------------------------------------------------ schedulers and logging
    def _after_generator_update(self) -> None:
        trainer: Any = self.trainer
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(float(self.values[f"{config.name[-1]}/loss"]))
            else:
                config.scheduler.step()
        step = trainer.global_step
        if trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0:
            names = list(self.values)
            now = torch.stack([self.values[name].to(self.device, torch.float32).reshape(()) for name in names])
            means = distributed.average([now])[0]
            values = dict(zip(names, means.tolist()))
            bar: dict[str, Any] = {name: values[name] for name in ("d/loss", "g/loss") if name in values}
            rest: dict[str, Any] = {name: value for name, value in values.items() if name not in bar}
            self.log_dict(bar, prog_bar=True, logger=False, batch_size=1)
            self.log_dict(rest, logger=False, batch_size=1)
            for logger in trainer.loggers:  # directly: the x-axis is the number of generator updates
                logger.log_metrics({**values, "time/images_seen": float(self.images_seen)}, step=step)

    # ------------------------------------------------------------------ start, stop and resume
    def on_fit_start(self) -> None:
        """Seed the noise (equally on all ranks), or go on from the checkpoint."""
        seed = self.trainer.strategy.broadcast(int(torch.randint(2**62, ())))
        self._rng = torch.Generator(self.device).manual_seed(seed)
        self._stream, self._cycle, self._checked = DataStream(seed), _Cycle(), False
        self._graphs = StepGraphs(self.device, [self._rng]) if self.cuda_graphs else None
        if self.cuda_graphs and self.device.type != "cuda":
            pl.utilities.rank_zero_warn(f"cuda_graphs has no effect on {self.device.type}.")
        self._buffered = {name: any(True for _ in self.player(name).buffers()) for name in self.players}
        self._plain_transfer = not any(
            getattr(type(owner), hook) is not getattr(base, hook)
            for owner, base in ((self, pl.LightningModule), (self._datamodule(), pl.LightningDataModule))
            if owner is not None
            for hook in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
        )
        if self._resume is not None:
            self._restore(self._resume)
        self._resume = None

    def on_fit_end(self) -> None:
        """Lightning ends silently where there is nothing to train on."""
        if self.trainer.num_training_batches == 0 and self.trainer.limit_train_batches != 0:
            raise ValueError(NO_BATCH)

    def on_train_epoch_start(self) -> None:
        """Lightning is about to open the next epoch's iterator."""
        self._stream.enter_loader_random_state(self.trainer.train_dataloader)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out: random numbers, the place in the data and the cycle, EMA weights."""
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"  # for `load`
        if (data := self._datamodule()) is not None:
            checkpoint["data"] = str(getattr(data, "name", None) or type(data).__name__)
        if self.ema is not None:
            checkpoint["ema"] = self.ema.state_dict()
        if self._rng is not None:
            cycle = self._cycle
            rank_state: dict[str, Any] = {
                "random": rng.capture(),
                "stream": self._stream.state_dict(),
                "labels": cycle.labels,
            }
            if cycle.d_done == self.d_steps and cycle.last_batch is not None:  # the generator goes on from this batch
                last = [getattr(cycle.last_batch, name) for name in _TENSORS]
                rank_state |= {"last": last, "fake": cycle.last_fake, "kept": cycle.kept, "values": self.values}
            rank_state = apply_to_collection(rank_state, Tensor, lambda t: t.cpu())
            checkpoint["gan"] = {
                "ranks": distributed.gather_objects(rank_state),
                "noise": self._rng.get_state(),
                "device": self.device.type,
                "d_done": self._cycle.d_done,
                "g_done": self._cycle.g_done,
                "images_seen": self._cycle.images_seen,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the EMA weights now, and the rest when ``fit`` starts from this checkpoint."""
        self._slot.clear()
        if "ema" in checkpoint:
            self.start_ema().load_state_dict(checkpoint["ema"])
        try:
            fitting = self.trainer.state.fn == "fit"
        except RuntimeError:  # loaded without a trainer: nothing will be resumed
            fitting = False
        self._resume = checkpoint.get("gan") if fitting else None

    def _restore(self, state: dict[str, Any]) -> None:
        assert self._rng is not None
        self._cycle.images_seen = state["images_seen"]
        was, now = ((len(state["ranks"]), state["device"]), (distributed.world_size(), self.device.type))
        if was != now:
            pl.utilities.rank_zero_warn(
                f"The checkpoint was written by {was[0]} process(es) on {was[1]} and is resumed by {now[0]} on {now[1]}"
                ": weights and optimizers go on exactly, data order and noise start afresh."
            )
            return
        self._cycle.d_done, self._cycle.g_done = state["d_done"], state["g_done"]
        mine = state["ranks"][distributed.rank()]
        self._rng.set_state(state["noise"])
        self._stream.load_state_dict(mine["stream"], mine["random"])
        parts = [mine["labels"], mine.get("last"), mine.get("fake"), mine.get("kept", {}), mine.get("values", {})]
        parts = apply_to_collection(parts, Tensor, lambda t: t.to(self.device))
        self._cycle.labels, last, self._cycle.last_fake, self._cycle.kept, self.values = parts
        if last is not None:
            self._cycle.last_batch = Batch(**dict(zip(_TENSORS, last)), generator=self._rng)

    def _datamodule(self) -> Any:
        return getattr(self.trainer, "datamodule", None)

    def _may_fuse(self) -> bool:
        """Fused Adam is faster, but unscales gradients by itself, after they would have been clipped."""
        try:
            return getattr(self.trainer.precision_plugin, "scaler", None) is None and self.device.type in (
                "cpu",
                "cuda",
            )
        except RuntimeError:  # no trainer yet
            return False

    def _save_plain_hyperparameters(self) -> None:
        """``save_hyperparameters()`` without live objects.

        From the CLI the nets arrive as class paths and are kept, so that ``load_from_checkpoint(path)`` rebuilds them.
        """
        self.save_hyperparameters()
        live = [name for name, value in self.hparams.items() if not _is_plain(value)]
        for name in live:
            self.hparams.pop(name)
        if live:
            self.save_hyperparameters(ignore=live)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(v) for v in value)
    return isinstance(value, _PLAIN)


def like(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in the memory layout of its parameter: fused optimizers read both element by element as they lie."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


@contextmanager
def frozen(network: nn.Module, buffers: bool = True) -> Iterator[None]:
    """Let a network take part in the other's step: its parameters need no gradient, its buffers come back unchanged.

    Buffers are BatchNorm's averages, power iteration vectors and the like; `buffers` says whether there are any.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        with kept_buffers(network) if buffers else nullcontext():
            yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Let a network run with copies of its buffers, and give it the originals back, unchanged."""
    if next(network.buffers(), None) is None:
        yield
        return
    buffers = [(m, name, b) for m in network.modules() for name, b in m.named_buffers(recurse=False)]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
