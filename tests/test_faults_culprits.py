"""Who is blamed: a failure is told of the network, option or file that it is due to, before work is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from common import critic, make, trainer
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset

from lightning_gans import GAN, MLE, SNGAN, SRNGAN, PrimalDualGAN, RobustWGAN
from lightning_gans.cli import main
from lightning_gans.cli.mistakes import ASK_FOR_TYPES, sentence_of
from lightning_gans.datamodules import Resampled, Ring
from lightning_gans.functional import score
from lightning_gans.functional.robust import robust_weights
from lightning_gans.runs.atomic import check_writable
from lightning_gans.tools import export, push_to_hub
from lightning_gans.wrappers import spectral_norm, weight_norm
from lightning_gans.wrappers.spectral_norm import normalised_layers

X = torch.randn(33, 2)


def loader(batch_size: int = 8, items: int = 32, **options: Any) -> DataLoader:
    return DataLoader(TensorDataset(X[:items]), batch_size, **options)


def generator() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


class Failing(nn.Module):
    """A generator that fails at something else than the length of its noise."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.body, self.error = generator(), error

    def forward(self, z: Tensor) -> Tensor:
        if self.training:
            raise self.error
        return self.body(z)


# ---------------------------------------------------------------------- networks
def test_only_a_wrong_shape_is_blamed_on_latent_dim() -> None:
    with pytest.raises(ValueError, match=r"The generator failed on noise of shape \(8, 3\) \(no kernel image\)\."):
        trainer(max_steps=1).fit(GAN(Failing(RuntimeError("no kernel image")), critic(), 3), loader())
    with pytest.raises(ValueError, match=r"latent_dim=4 must be the length of the noise"):
        trainer(max_steps=1).fit(GAN(generator(), critic(), 4), loader())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. If reserved but unallocated ..."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_out_of_memory_is_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        trainer(max_steps=1).fit(GAN(Failing(error), critic(), 3), loader())
    told = sentence_of(caught.value)
    assert told is not None and "allocate" in told and "If reserved" not in told
    assert told.startswith("The memory must hold a batch") and told.endswith("Lower --data.batch_size.")


def test_the_network_that_returns_a_wrong_shape_is_named() -> None:
    module = RobustWGAN(generator(), critic(), 3, weight_network=nn.Linear(2, 2), w_start=0, rho=0.1)
    with pytest.raises(ValueError, match=r"weight_network must return scores of shape \(8,\), got \(8, 2\)"):
        trainer(max_steps=1).fit(module, loader())
    with pytest.raises(ValueError, match=r"discriminator must return scores"):
        score(nn.Linear(2, 3), X)


def test_a_batch_of_one_has_no_distances() -> None:
    with pytest.raises(ValueError, match=r"batch_size must be at least 2 with relative=True, .* got 1"):
        trainer(max_steps=1).fit(PrimalDualGAN(generator(), critic(), 3), loader(1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_robust_weights_of_no_number(bad: float) -> None:
    with pytest.raises(ValueError, match="values must be finite numbers, got 1 that are not"):
        robust_weights(torch.tensor([0.0, bad, 1.0]), 0.1)


# ---------------------------------------------------------------------- a batch of one, and BatchNorm
def normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def test_a_last_batch_of_one_is_told_before_training() -> None:
    module = GAN(normed(), critic(), 3)
    with pytest.raises(
        ValueError, match=r"BatchNorm of the generator, got a last one of 1 \(33 items by 8\): .*drop_l"
    ):
        trainer(max_epochs=1).fit(module, loader(items=33))
    assert module.progress.updates["g"] == 0
    for fine in (loader(items=33, drop_last=True), loader(items=32)):
        trainer(max_steps=5).fit(GAN(normed(), critic(), 3), fine)
    trainer(max_steps=5).fit(GAN(generator(), critic(), 3), loader(items=33))  # no BatchNorm


def test_one_that_could_not_be_known_is_told_when_it_comes() -> None:
    batches: Any = DataLoader([X[:8], X[:1]], batch_size=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="BatchNorm of the generator, got one of 1: give the loader drop_last=True"):
        trainer(max_steps=2).fit(GAN(normed(), critic(), 3), batches)
    with pytest.raises(ValueError, match=r"The generator failed on noise of shape \(1, 3\) .*more than 1 value"):
        trainer(max_steps=1).fit(GAN(normed(), critic(), 3), loader(1))


# ---------------------------------------------------------------------- Lightning's options
@pytest.mark.parametrize(
    ("option", "value", "names"),
    [
        ("gradient_clip_val", 1.0, "clip_grad_d or clip_grad_g"),
        ("accumulate_grad_batches", 2, "accumulate_d or accumulate_g"),
    ],
)
def test_options_that_each_player_has(option: str, value: Any, names: str) -> None:
    module, fit = GAN(generator(), critic(), 3), trainer(max_steps=1, **{option: value})
    with pytest.raises(ValueError, match=rf"{option} of the Trainer must be .* got {value}: give {names} to the model"):
        fit.fit(module, loader())
    fit.predict(module, [2])  # these are options of training


@pytest.mark.parametrize(
    ("name", "option", "value", "words"),
    [
        ("prc_gan_clip", "accumulate_grad_batches", 2, "give accumulate_d or accumulate_g to the model"),
        ("prc_gan_clip", "gradient_clip_val", 1.0, "give clip_grad_d or clip_grad_g or clip_grad_c to the model"),
        ("vae", "accumulate_grad_batches", 2, "give accumulate_vae to the model"),
        ("ddpm", "gradient_clip_val", 1.0, "give clip_grad_denoiser to the model"),
    ],
)
def test_only_arguments_that_the_class_takes_are_named(name: str, option: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"got {value}: {words}\.$"):
        trainer(max_steps=1, **{option: value}).fit(make(name), loader())


def test_a_class_that_takes_no_such_argument_is_told_of_its_players() -> None:
    class Fixed(GAN):
        def __init__(self, lr: float = 0.1) -> None:
            super().__init__(generator(), critic(), 3, lr_g=lr)

    with pytest.raises(ValueError, match=r"got 1.0: its players have clip_grad of their own\.$"):
        trainer(max_steps=1, gradient_clip_val=1.0).fit(Fixed(), loader())
    trainer(max_steps=1, gradient_clip_val=0).fit(Fixed(), loader())  # which is off


# ---------------------------------------------------------------------- spectral norms of other code
class Theirs(nn.Linear):
    """A layer as other repositories write it: a vector u, and a weight that is divided when it is used."""

    def __init__(self, inputs: int, outputs: int, name: str) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer(name, torch.randn(1, outputs))


def norms() -> dict[str, Any]:
    return {
        "torch": parametrizations.spectral_norm,
        "torch's older": torch.nn.utils.spectral_norm,
        "sn_u": lambda layer: Theirs(layer.in_features, layer.out_features, "sn_u"),
        "u0": lambda layer: Theirs(layer.in_features, layer.out_features, "u0"),
    }


@pytest.mark.parametrize("code", norms())
def test_a_critic_that_is_normalised_stays_as_it_is(code: str, recwarn: pytest.WarningsRecorder) -> None:
    wrap, first, last = norms()[code], nn.Linear(2, 8), nn.Linear(8, 1)
    net = nn.Sequential(wrap(first), nn.ReLU(), wrap(last))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert normalised_layers(net) == ["0", "2"]
    SNGAN(generator(), net, 3)
    assert not [w for w in recwarn if "stays as it is" in str(w.message)]
    with pytest.raises(ValueError, match="got a spectral norm of other code"):
        SRNGAN(generator(), net, 3)
    half = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), wrap(nn.Linear(8, 1)))
    with pytest.warns(UserWarning, match="normalised already, but not in 0"):
        SNGAN(generator(), half, 3)
    with pytest.raises(ValueError, match=r"network must be one without spectral norm, got one that has it .* '2'"):
        spectral_norm(half)
    assert not hasattr(half[0], "parametrizations")  # no layer was touched
    if issubclass(type(net[0]), Theirs):
        with pytest.raises(ValueError, match="network must be one without normalised weights, got one in layer '0'"):
            weight_norm(net)
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "u"),
    [
        (nn.Linear(4, 8), torch.ones(2, 2)),  # no vector
        (nn.Linear(4, 8), torch.ones(5)),  # as long as no axis of the weight
        (nn.Bilinear(4, 4, 8), torch.ones(8)),  # no layer that can be normalised
    ],
)
def test_a_u_may_be_something_else(layer: nn.Module, u: Tensor) -> None:
    layer.register_buffer("weight_u", u)
    assert not normalised_layers(layer)


def test_a_layer_whose_weight_is_computed_is_told_before_any_is_touched() -> None:
    net = nn.Sequential(nn.Linear(2, 8), torch.nn.utils.weight_norm(nn.Linear(8, 1)))
    with pytest.raises(ValueError, match="network must have plain weights, got a computed one in '1'"):
        spectral_norm(net)
    assert not hasattr(net[0], "parametrizations")
    assert not normalised_layers(nn.Sequential(nn.Linear(2, 8), parametrizations.weight_norm(nn.Linear(8, 1))))


# ---------------------------------------------------------------------- files, before work is lost
def test_a_place_that_takes_no_file_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path, words in ((tmp_path, "got the folder"), (tmp_path / "file" / "a.json", f"but {tmp_path / 'file'} takes")):
        with pytest.raises(ValueError, match=rf"--out must be .*{words}"):
            check_writable("--out", path)
    check_writable("--out", tmp_path / "new" / "folder" / "a.json")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="takes none"):
        check_writable("--out", tmp_path / "a.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_score_and_export_look_at_out_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.pt2").mkdir()
    for args in (
        ["score", "--samples=none", "--data=Digits", "--out=folder.pt2"],
        ["export", "--ckpt_path=none", "--out=folder.pt2"],
    ):
        with pytest.raises(SystemExit, match=r"error: --out must be the name of a file, got the folder folder.pt2"):
            main(args)
    with pytest.raises(ValueError, match="path must be the name of a file, got the folder"):
        export(GAN(generator(), critic(), 3), "folder.pt2")


def test_data_in_double_precision_name_their_cure() -> None:
    """As NumPy makes them."""
    words = "failed on real samples .* of torch.float64, while its parameters are torch.float32: have the data in that"
    with pytest.raises(ValueError, match=words):
        trainer(max_steps=1).fit(GAN(generator(), critic(), 3), DataLoader(torch.randn(8, 2).double(), 4))


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        ("cut", [], r"samples cut: b\.png cannot be read \(no picture of a known kind\)"),
        ("empty", [], r"samples empty: b\.png cannot be read \(no picture of a known kind\)"),
        ("broken.npz", [], r"samples broken\.npz must be a sound \.npz file of numbers, got another or a truncated"),
        ("cut", ["--batch_size=0"], "batch_size must be an integer >= 1, got 0"),
        ("cut", ["--metrics=[fad]"], "metrics must be some of fid, is, kid, prdc, uniformity, got fad"),
        ("cut", ["--kid_subset_size=1"], "kid_subset_size must be an integer >= 2, got 1"),
        ("cut", ["--device=abacus"], r"device must be one that torch has here, got 'abacus' \(Expected one of cpu"),
        ("cut", ["--device=cuda"], "device must be 'cpu' where there is no CUDA, got 'cuda'"),
    ],
)
def test_a_score_of_what_cannot_be_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: str, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for folder in ("cut", "empty"):
        Path(folder).mkdir()
        Image.new("L", (8, 8)).save(f"{folder}/a.png")
        whole = Path(folder, "a.png").read_bytes()
        Path(folder, "b.png").write_bytes(whole[: len(whole) // 2] if folder == "cut" else b"")
    Path("broken.npz").write_bytes(b"PK no archive")
    with pytest.raises(SystemExit, match=f"error: .*{words}"):
        main(["score", "--samples", samples, "--data=Digits", *options])


def test_probabilities_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(given: Any) -> Any:
        return Resampled(Ring(batch_size=8), given).train_dataloader()

    with pytest.raises(FileNotFoundError, match=r"probabilities nope\.pt does not exist"):
        batches("nope.pt")
    (tmp_path / "text.pt").write_text("no tensor")
    with pytest.raises(ValueError, match=r"text\.pt must be a tensor by torch\.save, got another file"):
        batches(str(tmp_path / "text.pt"))
    torch.save({"p": 1}, tmp_path / "dict.pt")
    with pytest.raises(ValueError, match=r"probabilities must be a tensor .*, got dict"):
        batches(str(tmp_path / "dict.pt"))
    torch.save(torch.ones(10_000), tmp_path / "p.pt")
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (tmp_path / "p.pt", "~/p.pt"):
        assert bool((batches(given).probabilities == 1).all())


# ---------------------------------------------------------------------- the Hub
@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    fit = trainer(max_steps=1)
    fit.fit(GAN(generator(), critic(), 3), loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def test_without_a_network_the_hub_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_repo(*args: Any, **kwargs: Any) -> None:
        class ConnectError(Exception):
            pass

        raise ConnectError("[Errno -2] Name or service not known\nmore")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    words = r"The Hub must be within reach and take 'me/gan', got ConnectError: .*service not known\. Log in by"
    with pytest.raises(ConnectionError, match=words):
        push_to_hub(checkpoint, "me/gan")


def test_what_would_be_published_in_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gan"
    assert push_to_hub(checkpoint, "me/gan", folder=folder) == str(folder)
    assert {p.name for p in folder.iterdir()} == {"README.md", "checkpoints"}
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: lightning_gans\ntags: [")
    with pytest.raises(ValueError, match=r"folder must be a new one, got .*gan, which is there already"):
        push_to_hub(checkpoint, "me/gan", folder=folder)


def test_types_that_are_refused_are_told_without_a_traceback() -> None:
    root = Path(__file__).parent.parent / "lightning_gans"
    refusing = {
        ".".join(("lightning_gans", *path.relative_to(root).with_suffix("").parts))
        for path in root.rglob("*.py")
        if "raise TypeError(" in path.read_text()
    }
    assert refusing <= {*ASK_FOR_TYPES}
    with pytest.raises(TypeError) as caught:
        MLE(nn.Linear(2, 2))
    assert sentence_of(caught.value) == "generator must be a language model, got Linear without length."


def test_a_file_that_other_code_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        (tmp_path / "lost.csv").read_text()
    assert sentence_of(error.value) == f"{tmp_path / 'lost.csv'} cannot be used: no such file or directory."


def test_sizes_below_one_of_a_users_own_network() -> None:
    with pytest.raises(RuntimeError) as error:
        nn.Linear(-1, 2)
    assert str(sentence_of(error.value)).startswith("Networks must have sizes >= 1, got another (Trying to create")
