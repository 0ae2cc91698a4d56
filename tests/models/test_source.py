"""Where checkpoints come from, and every way they can be unusable: each a ModelError with a hint."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import logging as library

from foretoken.errors import ModelError
from foretoken.models import source
from foretoken.models.source import BUILTIN, Checkpoint, pick_device, pick_dtype

from .drive import error, random_tokens, read_chain, vanilla
from .families import build, config

WEIGHTS = "model.safetensors"
TOKENIZER = Path(str(BUILTIN)) / "pair" / "draft"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of a tiny Llama."""
    folder = tmp_path_factory.mktemp("saved")
    build(config("llama", attention_bias=True)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refused(action: Callable[[], Any], what: str, hint: str) -> None:
    with pytest.raises(ModelError) as caught:
        action()
    assert what in str(caught.value)
    assert hint in str(caught.value.hint)
    assert caught.value.exit_code == 2


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(folder: Path) -> list[Path]:
    """Split the weights in two, as large checkpoints are."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = [f"model-{part}-of-2.safetensors" for part in (1, 2)]
    home = {key: names[index % 2] for index, key in enumerate(sorted(weights))}
    for name in names:
        save_file({key: weights[key] for key in weights if home[key] == name}, folder / name)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": home}))
    return [folder / name for name in names]


def test_a_folder_loads_and_computes_what_the_library_does(saved: Path) -> None:
    checkpoint = Checkpoint(str(saved), "target")
    assert checkpoint.max_length == 64
    assert checkpoint.stop_token_ids == {2}
    model = checkpoint.load("float32", "cpu", None, "torch")
    tokens = random_tokens(1, 6)
    expected = vanilla(build(config("llama", attention_bias=True)), tokens)
    assert error(read_chain(model, model.new_cache(1), tokens[None])[0], expected) < 1e-4


def test_shards_load_too(folder: Path) -> None:
    files = shard(folder)
    checkpoint = Checkpoint(str(folder), "target")
    assert checkpoint.weight_files == files
    checkpoint.load("float32", "cpu", None, "torch")


def test_the_home_folder_may_be_abbreviated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert Checkpoint("~/model", "target").path == folder


# What is wrong with a folder -> how to make it so, what the error says, what the hint says.
def _truncate(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])


def _bin_only(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def _lose_a_shard(folder: Path) -> None:
    shard(folder)[1].unlink()


def _break_the_index(folder: Path) -> None:
    shard(folder)
    (folder / f"{WEIGHTS}.index.json").write_text('{"weight_map": [')


SPOILED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json", "Hugging Face checkpoint"),
    "config cut short": (
        lambda f: (f / "config.json").write_text('{"model_type": "ll'),
        "cannot read the configuration of target",
        "transformers",
    ),
    "config of nothing": (lambda f: (f / "config.json").write_text("{}"), "cannot read the configuration", "transf"),
    "unknown type": (lambda f: edit(f / "config.json", model_type="novel"), "`novel`", "this version of transformers"),
    "impossible config": (lambda f: edit(f / "config.json", hidden_size="many"), "cannot read the config", "transf"),
    "code of its own": (
        lambda f: edit(f / "config.json", model_type="novel", auto_map={"AutoConfig": "novel.NovelConfig"}),
        "comes with Python code of its own",
        "--trust-remote-code",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "no model.safetensors", "model.safetensors.index.json"),
    "pickled weights": (_bin_only, "no model.safetensors", "save_pretrained"),
    "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), "is corrupt", "cut short"),
    "weights cut short": (_truncate, "is corrupt", "cut short"),
    "git lfs pointer": (lambda f: (f / WEIGHTS).write_text("version https://git-lfs"), "is corrupt", "Git LFS"),
    "a shard missing": (_lose_a_shard, "model-2-of-2.safetensors` is missing", "cut short"),
    "index cut short": (_break_the_index, "index.json", "download it again"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_spoiled_folder_is_found_before_weights_load(what: str, folder: Path) -> None:
    spoil, message, hint = SPOILED[what]
    spoil(folder)
    refused(lambda: Checkpoint(str(folder), "target"), message, hint)


# Weights and config.json that do not belong together -> changed settings, what the error says.
MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "weights missing": ({"num_hidden_layers": 3}, "missing: `model.layers.2."),
    "layers left over": ({"num_hidden_layers": 1}, "left over: `model.layers.1."),
    "biases left over": ({"attention_bias": False}, "left over: `model.layers.0.self_attn.k_proj.bias`"),
    "other shapes": ({"intermediate_size": 40}, "cannot load target"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_weights_must_fit_the_configuration(what: str, folder: Path) -> None:
    changes, message = MISFITS[what]
    edit(folder / "config.json", **changes)
    refused(lambda: Checkpoint(str(folder), "target").load("float32", "cpu", None, "torch"), message, "")


def test_weights_of_other_parts_may_be_there(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS) | {"v_head.summary.weight": torch.zeros(2)}, folder / WEIGHTS)
    Checkpoint(str(folder), "target").load("float32", "cpu", None, "torch")


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    build(config("llama", tie_word_embeddings=True)).save_pretrained(tmp_path)
    assert not any("lm_head" in key for key in load_file(tmp_path / WEIGHTS))
    Checkpoint(str(tmp_path), "target").load("float32", "cpu", None, "torch")


def test_the_fingerprint_is_that_of_the_weights(folder: Path) -> None:
    first = Checkpoint(str(folder), "target").fingerprint
    edit(folder / "config.json", max_position_embeddings=32)
    assert Checkpoint(str(folder), "draft").fingerprint == first
    weights = load_file(folder / WEIGHTS)
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, folder / WEIGHTS)
    assert Checkpoint(str(folder), "target").fingerprint != first


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    refused(lambda: Checkpoint(str(folder), "draft").tokenizer, "cannot read the tokenizer of draft", "tokenizer.json")


def test_unreadable_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").write_text("[")
    refused(lambda: Checkpoint(str(folder), "target").stop_token_ids, "generation_config.json", "repair or delete")


def test_stop_tokens_may_be_one_many_or_none(folder: Path) -> None:
    for given, expected in ((3, {3}), ([3, 4], {3, 4}), (None, {2})):
        edit(folder / "generation_config.json", eos_token_id=given)
        assert Checkpoint(str(folder), "target").stop_token_ids == expected
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", eos_token_id=None)
    assert Checkpoint(str(folder), "target").stop_token_ids == set()


def test_a_context_that_would_turn_old_keys_is_not_offered(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [2.0] * 4, "short_factor": [1.0] * 4}
    model = build(config("phi3", sliding_window=None, original_max_position_embeddings=16, rope_parameters=rope))
    model.save_pretrained(tmp_path)
    checkpoint = Checkpoint(str(tmp_path), "target")
    assert checkpoint.max_length == 16
    tokens = random_tokens(1, 17)
    short, long = vanilla(model, tokens[:16]), vanilla(model, tokens)[:16]
    assert error(short, long) > 0.01  # this is why


class TestLocations:
    """How a location is understood."""

    def test_built_in(self) -> None:
        for role in ("target", "draft"):
            assert Checkpoint("builtin:pair", role).path.name == role
        refused(lambda: Checkpoint("builtin:pear", "target"), "no built-in model `pear`", "did you mean `pair`?")
        refused(lambda: Checkpoint("builtin:", "target"), "no built-in model ``", "pair")

    @pytest.mark.parametrize("location", ["./none", "/none/at/all", "~/none", "a/b/c", "a/", "", " ", "my model"])
    def test_what_looks_like_a_path_is_never_asked_of_the_hub(
        self, location: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(source, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
        refused(lambda: Checkpoint(location, "target"), f"there is no folder `{location}`", "owner/name")

    def test_a_file(self, folder: Path) -> None:
        refused(lambda: Checkpoint(str(folder / WEIGHTS), "target"), "is a file", "folder it is in")

    @pytest.mark.parametrize("location", ["owner/name", "gpt2", "a-b.c/d_e-1.5B"])
    def test_hub_ids_download_only_what_is_needed(
        self, location: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[str, list[str]]] = []

        def download(name: str, allow_patterns: list[str]) -> str:
            asked.append((name, allow_patterns))
            return str(folder)

        monkeypatch.setattr(source, "snapshot_download", download)
        assert Checkpoint(location, "target").path == folder
        assert [name for name, _ in asked] == [location]
        assert "*.safetensors" in asked[0][1]
        assert not any("bin" in pattern for pattern in asked[0][1])

    @pytest.mark.parametrize(
        ("kind", "what", "hint"),
        [
            (LocalEntryNotFoundError, "it cannot be reached", "HF_HUB_OFFLINE"),
            (RepositoryNotFoundError, "it has no such model", "check the name"),
            (GatedRepoError, "from the hub", "hf auth login"),
            (OSError, "disk full", "local folder"),
        ],
    )
    def test_hub_errors(self, kind: type[Exception], what: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        raised = kind.__new__(kind, "disk full")

        def download(*_: object, **__: object) -> str:
            raise raised

        monkeypatch.setattr(source, "snapshot_download", download)
        refused(lambda: Checkpoint("owner/name", "draft"), "draft `owner/name`: it is no local folder", hint)
        refused(lambda: Checkpoint("owner/name", "draft"), what, hint)

    def test_offline_for_real(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        refused(lambda: Checkpoint("owner/name", "target"), "it cannot be reached", "HF_HUB_OFFLINE")
        refused(lambda: Checkpoint("pair", "target"), "target `pair`", "did you mean `builtin:pair`?")


class TestNumbersAndPlaces:
    """dtype and device."""

    def test_dtypes(self) -> None:
        cpu = torch.device("cpu")
        assert pick_dtype("bfloat16", cpu) is torch.bfloat16
        assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
        assert pick_dtype("auto", torch.device("cuda")) is torch.bfloat16
        refused(lambda: pick_dtype("float23", cpu), "unknown dtype `float23`", "did you mean `float32`?")

    @pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99", "cpu:x", ""])
    def test_devices_that_are_not_there(self, device: str) -> None:
        refused(lambda: pick_device(device), f"`{device}`", "--device auto")

    def test_devices(self) -> None:
        assert pick_device("cpu") == torch.device("cpu")
        assert pick_device("auto").type in ("cpu", "cuda")

    def test_the_model_is_where_and_what_was_asked(self, saved: Path) -> None:
        model = Checkpoint(str(saved), "target").load("bfloat16", "cpu", None, "torch")
        assert model.device == torch.device("cpu")
        assert {weight.dtype for weight in model.model.parameters()} == {torch.bfloat16}
        logits = read_chain(model, model.new_cache(1), random_tokens(1, 1, 2))
        assert logits.dtype == torch.float32

    def test_out_of_memory(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def exhausted(*_: object) -> None:
            raise torch.OutOfMemoryError

        monkeypatch.setattr(source, "adapt", exhausted)
        refused(
            lambda: Checkpoint(str(saved), "target").load(backend="torch"),
            "does not fit into the memory of `cpu`",
            "smaller",
        )


def test_loading_is_silent_and_leaves_the_library_as_it_was(
    saved: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    try:
        library.set_verbosity_info()
        library.enable_progress_bar()
        Checkpoint(str(saved), "target").load("float32", "cpu")
        assert library.get_verbosity() == library.INFO
        assert library.is_progress_bar_enabled()
    finally:
        library.set_verbosity(level)
        (library.enable_progress_bar if bars else library.disable_progress_bar)()
    assert capfd.readouterr() == ("", "")
