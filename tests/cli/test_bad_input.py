"""What cannot work is refused before anything is loaded: exit code 2, an error and a hint on stderr, stdout empty."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from foretoken.models.source import BUILTIN
from tests.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("no_weights")
PAIR = Path(str(BUILTIN / "pair"))

WORDS = {  # what is typed -> what the error says, what the hint says
    "generate Hi --length fixd": ("unknown length method `fixd`", "did you mean `fixed`?"),
    "generate Hi --accept rejektion": ("unknown accept method `rejektion`", "did you mean `rejection`?"),
    "generate Hi --shape chian": ("unknown shape method `chian`", "did you mean `chain`?"),
    "generate Hi --draft ngrm": ("unknown drafter `ngrm`", "none"),
    "generate Hi --draft blokwise:heads.safetensors": ("unknown drafter `blokwise`", "did you mean `blockwise`?"),
    "generate Hi --draft blockwise": ("needs what was trained for the target", "blockwise:FILE"),
    "generate Hi --draft blockwise:no.safetensors": ("there is no block of parallel heads at", "train blockwise"),
    "generate Hi --draft blockwise:a --draft.rescore best": ("rescore cannot be 'best'", "neural"),
    "generate Hi --draft falcon": ("needs what was trained for the target", "falcon:FILE"),
    "generate Hi --draft falcon:no.safetensors": ("there is no semi-autoregressive head at", "train falcon"),
    "generate Hi --draft pass:no.safetensors": ("there is no set of look-ahead embeddings at", "train pass"),
    "generate Hi --draft pass:a --length specdec++": ("needs hidden", "--length fixed"),
    "generate Hi --draft none:3": ("takes no options", "write `none`"),
    "bench --simulate --draft none": ("there is no draft model whose draws", "leave it out"),
    "train blockwise --data a.jsonl --out heads": ("option `--out` cannot be `heads`", "heads.safetensors"),
    "train blockwise --data a.jsonl --out h.safetensors": ("there is no file `a.jsonl`", "give .jsonl"),
    "train falcon --data a.jsonl --out h.safetensors --block 0": ("a block cannot have 0 tokens", "2 is what"),
    "train falcon --data a.jsonl --out h.safetensors --width 100": ("cannot be 100 wide", "a multiple of 64"),
    "train falcon --data a.jsonl --out h.safetensors --glance 2": ("shares are from 0 to 1", "--help"),
    "train pass --data a.jsonl --out h.safetensors --ahead 0": ("needs a look-ahead token", "--help"),
    "generate Hi --draft model": ("needs a draft model", "`--draft`"),
    "generate Hi --temprature 1": ("unknown option `--temprature`", "did you mean `--temperature`?"),
    "generate Hi -temperature 1": ("unknown option `-temperature`", "did you mean `--temperature`?"),
    "generate -5 + 3": ("unknown option `-5`", "put `--` before a prompt that starts with a dash"),
    "generate Hi there": ("unexpected argument `there`", "put the prompt in quotes"),
    "generate -- Hi --json": ("unexpected argument `--json`", "options go before `--`"),
    "bench --simulate --draft-costs here,fast": ("`fast` is no cost of a draft forward", "here,0.2,0.1,0.05"),
    "bench --simulate --draft-costs -1": ("`-1` is no cost of a draft forward", "here,0.2,0.1,0.05"),
    "bench --simulate --repetition-penalty 1.2": ("are not simulated", "leave them out"),
    "generate Hi --length.cots 0.3": ("`--length.cots`", "did you mean `--length.cost`?"),
    "generate Hi --lenght.k 3": ("unknown option `--lenght.k`", "did you mean `--length.k`?"),
    "generate Hi --length.k": ("option `--length.k` needs a value", "write `--length.k VALUE`"),
    "generate Hi --length fixed:-1": ("k cannot be -1", "at least 0"),
    "generate Hi --length fixed --length.k -1": ("k cannot be -1", "at least 0"),
    "generate Hi --length fixed --length.k=one": ("option `--length.k` cannot be 'one'", "a whole number"),
    "generate Hi --length fixed:2 --length.k 3": ("given twice", "write `fixed:2` or `--length.k 3`"),
    "generate Hi --draft.heads 3": ("`--draft.heads`", "--draft.temperature"),
    "generate Hi --option k": ("unknown option `k`", "--STATION.NAME"),
    "generate Hi --temperature warm": ("option `--temperature` cannot be 'warm'", "it takes a number"),
    "generate Hi --top-k=1.5": ("option `--top-k` cannot be '1.5'", "it takes a whole number"),
    "generate Hi --temperature": ("option `--temperature`", "`foretoken generate --help`"),
    "generate Hi --temperature -1": ("temperature cannot be -1.0", "0 takes the most likely token"),
    "generate Hi --temperature nan": ("temperature cannot be nan", "0 takes the most likely token"),
    "generate Hi --top-p 1.5": ("top_p cannot be 1.5", "(0, 1]"),
    "generate Hi --top-k -1": ("top_k cannot be -1", ""),
    "generate Hi --min-p 2": ("min_p cannot be 2.0", ""),
    "generate Hi --repetition-penalty 0": ("repetition_penalty cannot be 0", ""),
    "generate Hi --max-new-tokens 0": ("max_new_tokens cannot be 0", "at least one token"),
    "generate Hi --logit-bias x=1": ("option `--logit-bias` cannot be 'x=1'", "50=-100"),
    "generate Hi --logit-bias 99999=1": ("token id 99999", "from 0 to 4095"),
    "generate Hi --accept greedy --temperature 1": ("temperature 0 only", "--accept block"),
    "generate Hi --logprobs -1 --json": ("logprobs cannot be -1", ""),
    "generate Hi --logprobs 2": ("`--logprobs` without `--json`", "add `--json`"),
    "generate Hi --stream --json": ("`--stream` and `--json` cannot be combined", ""),
    "generate Hi --limit 3": ("`--limit` without `--prompts`", "add `--prompts FILE`"),
    "generate Hi --prompts p.jsonl": ("`PROMPT` and `--prompts` cannot be combined", "give one"),
    "generate --stream --prompts p.jsonl": ("`--stream` and `--prompts` cannot be combined", ""),
    "generate --prompts missing.jsonl": ("cannot read `missing.jsonl`", "JSON lines"),
    "generate --prompts - --limit 0": ("option `--limit` cannot be 0", "at least one"),
    "generate": ("the prompt is empty", "in quotes"),
    "generate Hi --target ./missing": ("there is no folder `./missing`", "check the path"),
    "generate Hi --target builtin:par": ("no built-in model `par`", "did you mean `pair`?"),
    "generate Hi --dtype float23": ("unknown dtype `float23`", "did you mean `float32`?"),
    "generate Hi --dtype int4": ("nothing is computed in int4", "`--quantization int4`"),
    "generate Hi --quantization int5": ("unknown quantization `int5`", "Known: fp8, int4, int8, none"),
    "generate Hi --draft int4 --quantization int4": ("would be the target itself", "compress the target less"),
    "generate Hi --device gpu9": ("cannot use device `gpu9`", "--device auto"),
    "chat Hi": ("unexpected argument `Hi`", "`foretoken chat --help`"),
    "chat --top-p 0": ("top_p cannot be 0", ""),
    "demo --repeat 0": ("option `--repeat` cannot be 0", "at least once"),
    "demo --max-new-tokens 0": ("max_new_tokens cannot be 0", ""),
    "bench --repeat 0": ("option `--repeat` cannot be 0", "at least once"),
    "bench --check --temperature 1": ("`--check`", "--temperature 0"),
    "bench --grow-target 4x,big": ("a target cannot grow `big`", "such as `4x,16x`"),
    "bench --grow-target 0x": ("a target cannot grow `0x`", "from 1x"),
    "bench --limit 0": ("option `--limit` cannot be 0", ""),
    "methods --json --markdown": ("`--json` and `--markdown` cannot be combined", "choose one"),
    "chta": ("unknown command `chta`", "did you mean `chat`?"),
    "--verzion": ("unknown option `--verzion`", "did you mean `--version`?"),
}


def check(run: Run, args: list[str], error: str, hint: str, stdin: str = "") -> None:
    result = run(*args, stdin=stdin)
    assert (result.code, result.out) == (2, "")
    found = re.fullmatch(r"error: ([^\n]+)\n\nhint: ([^\n]+)\n", result.err)
    assert found, result.err
    assert error in found[1]
    assert hint in found[2]


@pytest.mark.parametrize("typed", WORDS)
def test_what_is_typed(run: Run, typed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    check(run, typed.split(), *WORDS[typed])


def test_an_empty_prompt(run: Run) -> None:
    for args, stdin in ((["  "], ""), (["-"], "\n"), (["", "--raw"], " \n"), ([], "")):
        check(run, ["generate", *args], "the prompt is empty", "pipe it in", stdin)


def test_a_prompt_longer_than_the_context(run: Run) -> None:
    check(run, ["generate", "word " * 3000], "the model's context 2048", "at most 2047 tokens")


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ("", "no prompts"),
        ("{", "line 1 is not JSON"),
        ('{"prompt": "Hi"}\n\n{"answer": "Hi"}', "line 3 holds no prompt"),
        ('{"turns": []}', "line 1 holds no prompt"),
        ('{"prompt": 3}', "line 1 holds no prompt"),
        ('["Hi"]', "line 1 holds no prompt"),
    ],
)
def test_a_file_without_prompts(run: Run, rows: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(rows)
    check(run, ["generate", "--prompts", str(path)], error, "")
    check(run, ["generate", "--prompts", "-"], error, "", stdin=rows)


def test_a_draft_of_another_vocabulary(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "draft"
    shutil.copytree(PAIR / "draft", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    one, two = [token for token in vocab if len(token) > 4][:2]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    check(run, ["generate", "Hi", "--draft", str(folder)], "have different vocabularies", "--draft none")


def test_broken_weights(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "target"
    shutil.copytree(PAIR / "draft", folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    check(run, ["generate", "Hi", "--target", str(folder)], "is corrupt", "download it again")
    weights.unlink()
    check(
        run, ["generate", "Hi", "--target", str(folder)], "no model.safetensors", "give a folder that has the weights"
    )


def test_a_target_that_does_not_grow(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "target"
    shutil.copytree(PAIR / "target", folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "gemma"}))
    args = ["bench", "--target", str(folder), "--draft", "builtin:pair", "--grow-target", "4x", "--no-baseline"]
    check(run, args, "a `gemma` model, which does not grow", "llama")


def test_debug_shows_where_it_happened(run: Run) -> None:
    result = run("generate", "Hi", "--length", "fixd", "--debug")
    assert (result.code, result.out) == (2, "")
    assert "Traceback" in result.err
    assert "\nerror: unknown length method `fixd`\n\nhint: did you mean `fixed`?" in result.err
