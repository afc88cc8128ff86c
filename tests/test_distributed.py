"""Two ranks do what one process with the same global batch does. One pair of processes serves all tests."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from common import OTHERS, VARIANTS, make, state, trainer
from ranks import two_ranks
from ranks_worker import (
    IN_FLOAT32,
    REPEATED,
    SGD,
    STEPS,
    loader,
    main,
    permutes,
    predict,
    settle,
    train,
    weighs_samples,
    with_batch_norm,
)
from torch.utils.data import DataLoader

from lightning_gans import GANModule
from lightning_gans.compat.lightning import callbacks
from lightning_gans.engine import distributed
from lightning_gans.engine.connection import Connection
from lightning_gans.engine.distributed import GANDDPStrategy, _deaf
from lightning_gans.engine.first_batch import warn_of_same
from lightning_gans.functional import ranks

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ranks")
    two_ranks(main, folder)
    return torch.load(folder / "found.pt", weights_only=True)


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def parameters(module: GANModule) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in module.named_parameters()}


@pytest.mark.parametrize("name", VARIANTS)
def test_two_ranks_equal_one_process(found: dict[str, Any], name: str) -> None:
    """With statistics of the global batch in the networks, where a technique allows them."""
    start = with_batch_norm(name)
    one = train(with_batch_norm(name), loader(8), STEPS, strategy="auto")
    assert largest_difference(parameters(start), parameters(one)) > 1e-4  # it did train
    assert largest_difference(state(one), found[name]) < 1e-10


def test_the_smallest_weight_is_of_all_ranks(found: dict[str, Any]) -> None:
    one = train(with_batch_norm("robust_wgan"), loader(8), STEPS, strategy="auto")
    torch.testing.assert_close(one.values["w/smallest"], found["w/smallest"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", OTHERS)
def test_models_without_an_adversary(found: dict[str, Any], name: str) -> None:
    start, one = make(name).double(), train(make(name).double(), loader(8), STEPS, strategy="auto")
    assert largest_difference(parameters(start), parameters(one)) > 1e-4
    assert largest_difference(state(one), found[name]) < 1e-10


@pytest.mark.parametrize("name", REPEATED)
def test_gradients_that_are_taken_again_are_of_all_ranks(found: dict[str, Any], name: str) -> None:
    """By a closure that is called again after the weights have moved, and at the point of sharpness-aware ones."""
    once = train(make("wgan_gp", **SGD).double(), loader(8), STEPS, strategy="auto")
    one = train(make("wgan_gp", **REPEATED[name]).double(), loader(8), STEPS, strategy="auto")
    assert largest_difference(state(once), state(one)) > 1e-4  # it makes a difference
    assert largest_difference(state(one), found[name]) < 1e-10


@pytest.mark.parametrize("name", IN_FLOAT32)  # by SGD: Adam, which a classifier has, amplifies rounding
def test_two_ranks_equal_one_process_in_float32(found: dict[str, Any], name: str) -> None:
    start, data = state(make(name)), loader(8, torch.float32)
    one = state(train(make(name, **SGD), data, STEPS, strategy="auto"))
    assert largest_difference(start, one) > 1e-4
    assert largest_difference(one, found[f"{name} float32"]) < 1e-6


def test_rewards_are_permuted_over_all_ranks(found: dict[str, Any]) -> None:
    one = train(permutes(), loader(8), STEPS, strategy="auto")
    assert largest_difference(state(permutes()), state(one)) > 1e-4
    assert largest_difference(state(one), found["permuted"]) < 1e-10


def test_two_ranks_weigh_the_samples_as_one_process_does(found: dict[str, Any]) -> None:
    one = train(weighs_samples(), loader(8), STEPS, strategy="auto")
    assert float((one.sample_weights - 1).abs().max()) > 0.1  # type: ignore[union-attr, operator]
    assert largest_difference(state(one), found["weights of samples"]) < 1e-6  # the weights are float32


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_lightnings_own_strategies_train_the_same(found: dict[str, Any], strategy: str) -> None:
    one = state(train(make("wgan_gp").double(), loader(8), 5, strategy="auto"))
    assert largest_difference(one, found[strategy]) < 1e-10


def test_schedulers_see_the_means_of_all_ranks(found: dict[str, Any]) -> None:
    one = settle(8, "auto")
    assert len(one) == 4 * STEPS + 1  # of the score each value but the first, which is not there yet
    for rank in found["settled"]:
        assert rank == pytest.approx(one, rel=1e-9)


def test_ranks_predict_together_what_one_process_does(found: dict[str, Any]) -> None:
    one, (rank0, rank1) = predict(DataLoader(torch.arange(12), 3), "auto"), found["predicted"]
    assert len(torch.cat(one).unique(dim=0)) == 12
    for got, expected in zip((rank0[0], rank1[0], rank0[1], rank1[1]), one, strict=True):
        assert torch.equal(got, expected)
    one = predict([3, 2], "auto")  # the command line's own: rank 0 writes all of it
    for rank in found["numbers predicted"]:
        assert all(torch.equal(got, expected) for got, expected in zip(rank, one, strict=True))


def test_bytes_reduced_are_the_gradients_of_the_network_that_steps(found: dict[str, Any]) -> None:
    assert found["bytes"] == found["gradient_bytes"]


def test_resume_on_two_ranks_is_exact(found: dict[str, Any]) -> None:
    assert found["resume"] is True


def test_ranks_see_different_data(found: dict[str, Any]) -> None:
    assert found["orders_differ"] is True


def test_values_are_averaged_by_name(found: dict[str, Any]) -> None:
    """In whatever order each rank has noted them; one that another rank has not is told on all of them."""
    assert found["means"] == {"g/one": 1.0, "g/hundred": 100.0}
    assert "on all ranks when they are logged, got g/extra on rank 1 alone: note" in found["one more"]
    assert "got g/class0 on rank 0 alone, g/class1 on rank 1 alone: note" in found["another"]


def test_a_value_of_one_rank_is_told_before_it_is_waited_for(found: dict[str, Any]) -> None:
    """What is monitored is averaged in each update, where the ranks that lack it would not come."""
    assert all("got d/extra on rank 1 alone: note" in told for told in found["watched"])


def test_ranks_with_shares_of_different_length_end_an_epoch_together(found: dict[str, Any]) -> None:
    """Whether their lengths are known or not; the last rounds of a cycle may be of the next epoch."""
    one, other = found["ends"]
    assert one == other and all(equal for _, _, equal in one)
    assert [ends[:2] for ends in one] == 2 * [(18, 3), (8, 2), (4, 3), (8, 6)]


def test_drift_is_named(found: dict[str, Any]) -> None:
    assert found["no_drift"] is None
    assert found["drift"].startswith("discriminator.")


# ---------------------------------------------------------------------- the strategy
def test_random_numbers_go_on_where_ranks_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning begins them anew, behind the weights of the networks: noise and order were not one process's."""
    monkeypatch.setattr(GANDDPStrategy.__mro__[1], "setup_distributed", lambda self: torch.manual_seed(7))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    GANDDPStrategy().setup_distributed()
    assert torch.equal(torch.rand(3), expected)


def test_what_is_compared_is_reduced_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process goes through a set of names in an order of its own, and Lightning reduces one after the other."""
    names, seen, log = ("g/loss", "d/loss", "d/adversarial", "g/adversarial"), [], GANModule.log_dict
    logged = lambda self, values, **options: (seen.append([*values]), log(self, values, **options))[1]  # noqa: E731
    monkeypatch.setattr(GANModule, "log_dict", logged)
    stopping = [callbacks.EarlyStopping(name, patience=9) for name in names]
    train(make("gan"), loader(8, torch.float32), 1, "auto", callbacks=stopping)
    assert seen == [sorted(names)]


def test_a_stream_that_is_not_shared_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    x, match = torch.randn(4, 2, dtype=torch.bfloat16), "2 of the 2 ranks have the same first batch"
    told = pytest.warns(UserWarning, match=match)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for of_another, expected in ((lambda mark: mark, told), (lambda mark: mark + 1, nullcontext())):
        monkeypatch.setattr(distributed, "gather_objects", lambda mark, other=of_another: [mark, other(mark)])
        with expected:
            warn_of_same(x)
    monkeypatch.setattr(distributed, "gather_objects", lambda mark: [mark, mark])
    warn_of_same(x[:1].expand(4, 2))  # data of one point
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    monkeypatch.setattr(distributed, "gather_objects", lambda _: [1, 1, 2, 2])
    with pytest.warns(UserWarning, match="2 of the 4 ranks"):
        warn_of_same(x)


def test_a_rank_that_is_left_alone_with_objects_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(ranks, "rank_and_world", lambda: (1, 2))
    monkeypatch.setattr(torch.distributed, "all_gather_object", closed)
    with pytest.raises(RuntimeError, match=r"^Rank 1 of 2 lost contact.*\(Connection closed by peer\)$"):
        distributed.gather_objects(3)
    monkeypatch.setattr(torch.distributed, "all_reduce", closed)
    with pytest.raises(RuntimeError, match=r"^Rank 1 of 2 lost contact"):
        ranks.mean_over_ranks(torch.tensor(3.0))


@pytest.mark.parametrize("started", [True, False])
def test_a_process_that_was_started_for_a_fit_hands_back_the_average(started: bool) -> None:
    """``ddp_notebook`` and its like give the main process a state dict, and no more."""
    launcher = type("_MultiProcessingLauncher", (), {})() if started else None
    module, main_process = make("gan"), make("gan")
    module.label_counts = torch.tensor([3, 1])
    next(module.start_ema().parameters()).data += 1
    fitted: Any = trainer()
    fitted.strategy._launcher = launcher
    Connection().teardown(fitted, module, "fit")
    assert not main_process.load_state_dict(module.state_dict(), strict=False).unexpected_keys
    if started:
        assert torch.equal(main_process.sample(3, seed=0), module.sample(3, seed=0))
        assert torch.equal(main_process.label_counts, module.label_counts)
    assert (main_process.ema is not None) == started and not main_process.hands_back


def test_other_ranks_do_not_hear_the_terminal() -> None:
    """Rank 0 answers Ctrl-C for all: else each says so, and one that still imports a traceback."""
    seen: list[Any] = []

    class _SubprocessScriptLauncher:
        def launch(self, function: Any, *args: Any) -> Any:
            seen.append(signal.getsignal(signal.SIGINT))
            return function(*args)

    strategy, before = GANDDPStrategy(), signal.getsignal(signal.SIGINT)
    vars(strategy)["_launcher"] = found = _SubprocessScriptLauncher()
    for _ in range(2):
        assert strategy.launcher.launch(lambda x: seen.append(signal.getsignal(signal.SIGINT)) or x, 3) == 3
    assert seen == [signal.SIG_IGN, before] * 2 and signal.getsignal(signal.SIGINT) == before

    def fails(*args: Any) -> None:
        raise OSError

    vars(found)["launch"] = partial(_deaf, fails)
    with pytest.raises(OSError):
        strategy.launcher.launch(lambda: None)
    assert signal.getsignal(signal.SIGINT) == before
    vars(strategy)["_launcher"] = forked = type("_MultiProcessingLauncher", (), {"launch": fails})()
    assert strategy.launcher is forked and not vars(forked)  # what it launches is pickled


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits/exemplar_vae", "ring/primal_dual"])
def test_the_command_line_trains_the_same_on_two_ranks(tmp_path: Path, name: str) -> None:
    """With its bar on, and one line for what is told."""
    told = {}
    for devices in (1, 2):
        command = [sys.executable, str(ROOT / "train.py"), "fit", f"--config={name}", "--trainer.accelerator=cpu",
                   f"--trainer.devices={devices}", f"--data.batch_size={60 // devices}", "--trainer.max_steps=3",
                   "--trainer.log_every_n_steps=1", f"--name={devices}", f"--out={tmp_path}", "--trainer.callbacks=[]",
                   "--checkpoint.monitor=null"]  # fmt: skip
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=200)
        assert run.returncode == 0 and run.stdout.count("Run folder") == 1 and "Warning" not in run.stderr, run.stderr
        with (tmp_path / str(devices) / "metrics.csv").open() as file:
            told[devices] = [float(v) for row in csv.DictReader(file) for k, v in row.items() if v and "/loss" in k]
    assert len(told[1]) >= 3 and told[1] == pytest.approx(told[2], rel=1e-4)


@pytest.mark.slow
def test_rounds_of_adagan_are_weighed_by_one_of_two_ranks(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "boost", "--config=ring/ada_gan", "--trainer.accelerator=cpu",
               "--trainer.devices=2", "--trainer.max_steps=3", "--name=a", f"--out={tmp_path}"]  # fmt: skip
    for rounds in (2, 3):  # in one go, and on top of what is finished
        run = subprocess.run([*command, f"--rounds={rounds}"], capture_output=True, text=True, timeout=300,
                             env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
        assert run.returncode == 0, run.stderr[-2000:]
        assert run.stdout.count("AdaGAN: weighing") == 1 and run.stdout.count("Round 0 is finished") == (rounds == 3)
    assert {path.name for path in (tmp_path / "a").iterdir()} >= {f"round-{k}" for k in range(3)}
