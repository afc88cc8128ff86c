"""``GenerativeModule``: how any model is trained, from the data over a cycle of steps to the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gans import checks
from lightning_gans.compat.lightning import pl
from lightning_gans.engine import logbook, resume, rng
from lightning_gans.engine.batch import Batch, Terms, to_device
from lightning_gans.engine.connection import check_connected, connect, step_optimizer
from lightning_gans.engine.first_batch import check_data, check_not_lazy
from lightning_gans.engine.hooks import keep_hooks
from lightning_gans.engine.monitors import release
from lightning_gans.engine.own_code import check_player, parameters_to_train
from lightning_gans.engine.player import Player
from lightning_gans.engine.progress import Progress
from lightning_gans.engine.run import LOOK_EVERY, Run
from lightning_gans.engine.sampling import Sampling
from lightning_gans.engine.step import TermsOf
from lightning_gans.functional import draw
from lightning_gans.functional.columns import Names, check_names, columns, left_out
from lightning_gans.functional.conditional import takes_labels
from lightning_gans.functional.double_backward.input_gradient import DoubleBackward, chosen


class GenerativeModule(Sampling):
    """A model whose players take turns to minimise terms; subclasses say who plays and what is minimised.

    One ``training_step`` is one update of the player ``counted``, with whatever updates of others belong to it;
    Lightning's ``global_step`` counts those. Any loader works that yields ``x``, ``(x, labels)`` or
    ``(x, labels, weights)``, where labels and weights may be None, or a dictionary; what else is in a batch is left
    out, and told once.

    A subclass sets ``players`` and defines :meth:`terms`; :meth:`cycle` where its players do not simply step one after
    the other on the same batch; and what makes samples (``made_by``, or :meth:`decode`).

    Args:
        double_backward: how penalties on the input gradient are differentiated, all of them exactly: sparse, linear,
            compiled or plain (see ``functional.double_backward``).
        cuda_graphs: on a GPU, record the gradients of each player's step as a CUDA graph, one per batch size, and
            replay it, with fused Adam's update where nobody hooks into it, counts or clips it. Terms must not hold
            Python numbers that change from step to step, nor wait for the GPU. No effect elsewhere.
        columns: which keys or places in a batch are ``real``, ``labels`` and ``weights``, such as
            ``{"real": "image", "labels": "digit"}``; None for the order above, and the usual keys.

    Logged:
        <player>/loss: what a player minimises: the sum of its terms, each of which is logged with its weight; of
            accumulated batches the mean.
        <player>/grad_norm: the norm of its gradient before it is clipped, if it is to be clipped.
        time/images_seen: training samples that all ranks have seen, repetitions counted.

    Attributes:
        players: by name, in the order of their optimizers.
        counted: the player whose updates are ``global_step``.
        g_steps: its updates in a cycle.
        values: last value of everything that is logged, detached and on the device.
        betas: beta1, beta2 of the default optimizer.
        annealed: networks, or parts of some, that go by the number of updates: when a cycle begins, ``at_update(step)``
            of each moves its buffers, and returns tensors by the names that they are logged under.
        reads_tokens: real samples may be tokens of text, (N, T) int64.
        needs_index: batches are to tell the number of each item in the data (``Batch.index``).
    """

    counted, g_steps = "g", 1
    betas: tuple[float, float] = (0.9, 0.999)
    reads_tokens = needs_index = False

    def __init__(
        self, *, double_backward: DoubleBackward = "sparse", cuda_graphs: bool = False, columns: Names | None = None
    ) -> None:
        super().__init__()
        check_names(columns)
        checks.one_of("double_backward", double_backward, get_args(DoubleBackward))
        self.automatic_optimization = False
        resume.keep_plain_hyperparameters(self)
        self.double_backward: DoubleBackward = double_backward
        self.cuda_graphs, self.conditional, self.columns = cuda_graphs, False, columns
        self.players: dict[str, Player] = {}
        self.progress = Progress()
        self.values = self.progress.values
        self.run = cast(Run, None)  # of the fit that is under way
        self.annealed: list[Any] = []
        self._resumed: Mapping[str, Any] | None = None

    def play(self, *players: Player) -> None:
        """Let these take part, behind those that do already; the constructor of a subclass calls it.

        Raises:
            ValueError: for a second player of a name, or one whose networks are not there yet.
        """
        for player in players:
            check_player(self, player)
            self.players[player.name] = player
        self.progress.begin(self.players)
        nets = [net for name in self.players for net in self.networks(name)]
        check_not_lazy(nets)
        self.conditional = any(takes_labels(net) for net in nets)

    # ------------------------------------------------------------------ what a model defines
    def terms(self, player: str, batch: Batch) -> Terms:
        """Terms whose sum the player minimises, logged as ``<player>/<name>``."""
        raise NotImplementedError

    def cycle(self) -> None:
        """One update of each player that is due, on the same data."""
        batches = self.take(self.players[self.counted].accumulate)
        for name in [name for name in self.players if self.due(name)]:  # asked before any of them steps
            self.minimise(name, partial(self.terms, name), batches)
        self.used(batches)
        self.progress.end_cycle()

    def batches_needed(self) -> tuple[int, int]:
        """Batches for the update that comes, and for the one behind it."""
        return (self.players[self.counted].accumulate,) * 2

    def check_first_batch(self, batch: Batch) -> None:
        """Raise one sentence for data that the networks cannot be trained on."""
        check_data(batch, self._named(), self.vocabulary_size if self.reads_tokens else None)

    def _named(self) -> dict[str, nn.Module]:
        names = [self.made_by, *[name for player in self.players.values() for name in player.networks]]
        return {name: getattr(self, name) for name in names}

    def default_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """The paper's optimizer, used where no factory is given: Adam with ``betas``."""
        from lightning_gans.optim.adam import Adam  # not by an import of the library (see `optim`)

        return Adam(parameters, lr=lr, betas=self.betas, fused=self._may_fuse())

    # ------------------------------------------------------------------ what it can ask for
    def networks(self, player: str) -> list[nn.Module]:
        """The networks of a player."""
        return [cast(nn.Module, getattr(self, attribute)) for attribute in self.players[player].networks]

    def due(self, player: str) -> bool:
        """Whether a player steps in this cycle; the same before and after the counted one's updates in it."""
        cycles = (self.global_step - self.progress.done[self.counted]) // self.g_steps
        return cycles % self.players[player].every == 0

    def note(self, **values: Tensor | float) -> None:
        """Have numbers logged beside the terms; ``d_name`` becomes ``d/name``, ``g_name`` ``g/name``."""
        for key, value in values.items():
            number = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
            self.values[key.replace("_", "/", 1)] = number

    def tell(self, diagnostics: Callable[[], Mapping[str, Tensor]]) -> None:
        """As :meth:`note`, for what takes time: it is computed only in updates whose values are logged or compared."""
        if self.run is None or self.run.tells(self.g_steps):  # D's values stand for a whole cycle
            self.note(**diagnostics())

    def draw_noise(self, n: int) -> Tensor:
        """Standard normal noise for ``n`` samples, (n, *noise_shape)."""
        run = self.run
        if run.world == 1:
            return torch.randn((n, *run.noise_shape), generator=run.noise, device=run.noise.device, dtype=run.dtype)
        return draw.normal(n, *run.noise_shape, generator=run.noise, device=run.noise.device, dtype=run.dtype)

    def take(self, n: int) -> list[Batch]:
        """The next ``n`` batches, with fresh noise; :meth:`used` says that they are not needed any more."""
        batches: list[Batch] = []
        for i in range(n):
            batches.append(self._as_batch(self.run.stream.pending[i]))
        return batches

    def used(self, batches: Sequence[Batch]) -> None:
        """Count batches; only now, since until here they are part of a checkpoint."""
        for batch in batches:
            self.progress.images_seen += len(batch.real) * self.run.world
            self.run.stream.pending.popleft()

    def minimise(self, player: str, terms: TermsOf, batches: Sequence[Batch], key: tuple[Any, ...] = ()) -> None:
        """One optimizer step of a player on the mean over ``batches`` of the sum of ``terms``; see `Step.compute`.

        A player that is not :meth:`due` in this cycle makes no step. All but the counted player's steps go past
        Lightning's counter.
        """
        step = self.run.steps[player]
        if step.always or player == self.counted or self.due(player):
            self.run.stepping = step
            step.compute(terms, batches, key)
            step_optimizer(self.trainer, self, step, player == self.counted)
            self.progress.updates[player] += 1
            torch.clear_autocast_cache()  # Lightning 2.4 keeps weights as they were cast first in a cycle
        self.progress.done[player] += 1

    # ------------------------------------------------------------------ one update
    def training_step(self, dataloader_iter: Iterator[Any]) -> None:
        """One update of the counted player, on batches of its own."""
        if self.run is None:
            self.begin()
        if not self.run.stream.fill(dataloader_iter, *self.batches_needed()):
            return  # the epoch ended inside the cycle; the next one goes on with it
        if first := not self.run.steps:
            self.run.prepare(self.players, self.networks, self.optimizers(), self.progress)
        for net in () if any(self.progress.done.values()) else self.annealed:
            self.values.update(net.at_update(self.global_step))
        before = chosen.set(self.double_backward)
        try:
            self.cycle()
        finally:
            chosen.reset(before)
        if first:  # a name that one rank alone has, and that is monitored, would leave it waiting for the others
            logbook.require_alike(self.run.monitors.names & self.values.keys(), self.device)
        trainer: Any = self.trainer
        if trainer.lr_scheduler_configs:
            self.step_schedulers("step")
        if trainer.global_step % (trainer.log_every_n_steps or LOOK_EVERY) == 0:
            self._publish(logbook.means(self.values, self.device), trainer)
        if names := self.run.monitors.names & self.values.keys():
            monitored: dict[str, Any] = {name: self.values[name] for name in sorted(names)}  # alike on all ranks
            self.log_dict(monitored, logger=False, batch_size=1, sync_dist=self.run.world > 1)

    def step_schedulers(self, interval: str) -> None:
        """Step the schedulers that are due at the end of an update ("step") or of an epoch ("epoch").

        That of a player which begins later waits for its first update.
        """
        waiting = {f"lr/{name}" for name, updates in self.progress.updates.items() if not updates}
        logbook.step_schedulers(self.trainer, interval, self.values, self.counted, self.run, waiting)

    def _publish(self, values: dict[str, float], trainer: Any) -> None:
        self.run.require_finite(values, trainer)
        if not trainer.log_every_n_steps:
            return
        self.run.monitors.check(trainer, values, last=False)
        shown = {f"{name}/loss" for name in ("d", "g", *(self.players if len(self.players) < 3 else ()))}
        logbook.show(values, trainer)
        trainer.progress_bar_metrics.update({name: value for name, value in values.items() if name in shown})
        for logger in trainer.loggers:  # directly: the x-axis is the number of updates
            logger.log_metrics({**values, "time/images_seen": float(self.images_seen)}, step=trainer.global_step)

    def _as_batch(self, raw: Any) -> Batch:
        run = self.run
        raw = run.precision.convert_input(raw)
        if run.transfer is not None:
            raw = run.transfer(raw)
        parts: Sequence[Any] = columns(raw, self.columns)
        for part in parts:
            if torch.is_tensor(part) and part.device != run.noise.device:
                parts = [to_device(p, run.noise.device) for p in parts]
                break
        real, labels, weights, index = parts
        if not self.conditional:
            labels = None
        elif labels is not None:
            self.progress.labels.append(labels)
        batch = Batch(real, labels, weights, self.draw_noise(len(real)), run.noise, index)
        if not run.looked:
            with rng.untouched():
                self.check_first_batch(batch)
                run.look(self._named(), batch)
            if unused := left_out(raw, self.columns):
                pl.utilities.rank_zero_warn(f"Of each batch {', '.join(unused)} is left out (see columns=).")
        elif self.conditional or weights is not None or len(real) < 2:
            run.check_later(columns(raw, self.columns), len(real))
        return batch

    # ------------------------------------------------------------------ optimizers
    def configure_callbacks(self) -> list[Any]:
        """What connects this module to its trainer; an override adds to it."""
        return [connect(self)]

    def configure_optimizers(self) -> Any:
        """The optimizers of ``players`` in their order, and their schedulers."""
        optimizers: list[Optimizer] = []
        schedulers: list[dict[str, Any]] = []
        for name, player in self.players.items():
            parameters = parameters_to_train(player, self.networks(name))
            make = player.optimizer or partial(self.default_optimizer, lr=player.lr)
            optimizers.append(make(parameters))
            if player.scheduler is not None:
                schedulers.append(
                    {"scheduler": player.scheduler(optimizers[-1]), "interval": "step", "name": f"lr/{name}"}
                )
        return optimizers, schedulers

    def _may_fuse(self) -> bool:
        """Fused Adam is faster, but unscales gradients by itself, after they would have been clipped."""
        try:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        except RuntimeError:  # no trainer yet
            return False
        return scaler is None and self.device.type in ("cpu", "cuda")

    # ------------------------------------------------------------------ start, stop and resume
    @property
    def last_batch(self) -> Batch | None:
        """Batch of the last step of the counted player, on the training device."""
        return self.progress.batches.get(self.counted)

    @property
    def images_seen(self) -> int:
        """Real samples that all ranks have trained on, repetitions counted."""
        return self.progress.images_seen

    def begin(self) -> None:
        """Prepare a fit: seed the noise (equally on all ranks), or go on from the checkpoint."""
        check_connected(self.trainer, self)
        seed = self.trainer.strategy.broadcast(int(torch.randint(2**62, ())))
        goes_on = self.global_step and self.run is not None and self.run.strategy is self.trainer.strategy
        self.progress.begin(self.players, anew=not goes_on)
        self.run = Run(self.trainer, self.device, seed, self.noise_shape, self.noise_dtype, self.cuda_graphs)
        if self._resumed is not None:
            resume.restore(self._resumed, self.progress, self.run.stream, self.run.noise)
            self.run.load_state_dict(self._resumed)
        self._resumed, self.run.began = None, sum(self.progress.updates.values())

    def save_state(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out: random numbers, the place in the data and the cycle, averaged weights."""
        checkpoint |= resume.readable(checkpoint) | self.sampling_state() | resume.origin(self)  # for `load` and `card`
        resume.set_apart(self, checkpoint)
        if (data := resume.data_name(self.trainer)) is not None:
            checkpoint["data"] = data
        if self.run is not None:
            checkpoint["engine"] = resume.save(self.progress, self.run.stream, self.run.noise) | self.run.state_dict()

    def load_state(self, checkpoint: Mapping[str, Any], fitting: bool = False, other_data: bool = False) -> None:
        """Take averaged weights now, and the rest when ``fit`` starts from this checkpoint."""
        self.load_sampling_state(checkpoint)
        state = checkpoint.get("engine", checkpoint.get("gan")) if fitting else None
        self._resumed = None if state is None else {**state, "other_data": other_data}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Of weights alone, which callbacks are not asked to add to."""
        if "class_path" not in checkpoint:
            self.save_state(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The averaged weights, where there is no trainer that would ask `Connection`."""
        if self._resumed is None:
            self.load_state(checkpoint)

    def __init_subclass__(cls, **options: Any) -> None:
        """People override the two hooks above, and those of a technique, without ``super()``."""
        super().__init_subclass__(**options)
        keep_hooks(cls, GenerativeModule)

    def __getstate__(self) -> dict[str, Any]:
        """Without the fit that is under way: a copy begins one of its own."""
        return release({**super().__getstate__(), "run": None, "_rounded": {}})
