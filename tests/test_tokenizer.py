"""Text pieces never split a character, add up to the tokenizer's own text, and end before a stop string."""

import random
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Raw
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from foretoken.errors import RequestError
from foretoken.tokenizer import CONTEXT, REPLACEMENT, TextPieces, Tokenizer

TEXTS = [
    "plain words, 3.14 and  two spaces\n\nand lines\n",
    "emoji 👩‍👩‍👧‍👦 with joiners, flags 🇮🇸, a thumb 👍🏽",
    "हिन्दी में लिखा हुआ पाठ",
    "漢字かな交じり文、한국어, ελληνικά",
    "e\u0301 combining, \u200bzero width, \N{REPLACEMENT CHARACTER} itself",
    " leading and trailing ",
]
WORDS = ["▁", "▁a", "▁the", "the", "b", "c", "ab", "an", "na", "▁ban", ".", "▁.", ",", "▁漢", "字", "\n", "é"]


def wrap(raw: Raw, **options: Any) -> Tokenizer:
    raw.add_special_tokens([AddedToken("</s>", special=True), AddedToken("<s>", special=True)])
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", bos_token="<s>", **options))


def byte_level() -> Tokenizer:
    """Every byte is a token, and so are some pairs that end inside a character."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("b", "c"), ("n", "a"), ("a", "n"), ("ð", "Ł"), ("a", "ð"), ("Ċ", "Ċ")]
    vocab = {token: index for index, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    raw = Raw(models.BPE(vocab=vocab, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return wrap(raw)


def byte_fallback() -> Tokenizer:
    """Llama 2 and Mistral: pieces with a mark for spaces, a byte for what is unknown, one leading space stripped."""
    raw = Raw(models.BPE(vocab={t: i for i, t in enumerate([*BYTES, *WORDS])}, merges=[], byte_fallback=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    raw.decoder = decoders.Sequence(steps)
    return wrap(raw)


def metaspace() -> Tokenizer:
    """T5: the space of whatever token comes first is stripped."""
    raw = Raw(models.Unigram([(token, -1.0) for token in WORDS], unk_id=0, byte_fallback=False))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return wrap(raw)


def word_piece() -> Tokenizer:
    """BERT: spaces appear between tokens, and the decoder tidies them up."""
    words = ["[UNK]", "a", "do", "n't", "##b", "##bc", ".", ",", "'", "##é", "not", "'s"]
    raw = Raw(models.WordPiece({t: i for i, t in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return wrap(raw, clean_up_tokenization_spaces=True)


def word_end() -> Tokenizer:
    """GPT-1 and CLIP: a mark at the end of words becomes a space, unless the text ends there."""
    words = ["a", "a</w>", "b", "bc</w>", ".</w>", "</w>"]
    raw = Raw(models.BPE(vocab={t: i for i, t in enumerate(words)}, merges=[], end_of_word_suffix="</w>"))
    raw.decoder = decoders.BPEDecoder()
    return wrap(raw)


def builtin() -> Tokenizer:
    return Tokenizer(AutoTokenizer.from_pretrained(str(files("foretoken") / "data/models/pair/target")))


BYTES = [f"<0x{value:02X}>" for value in range(256)]
KINDS = [builtin, byte_level, byte_fallback, metaspace, word_piece, word_end]


@pytest.fixture(params=KINDS, ids=[kind.__name__ for kind in KINDS])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return cache(request.param)()


def random_ids(tokenizer: Tokenizer, draw: random.Random) -> list[int]:
    """Tokens as a random model would emit them, with long runs of bytes and of special tokens now and then."""
    size = len(tokenizer.backend)
    few = draw.sample(range(size), 4)
    return [draw.choice(few) if draw.random() < 0.5 else draw.randrange(size) for _ in range(draw.randrange(1, 40))]


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int], cuts: random.Random, stop: Sequence[str] = ()) -> list[str]:
    """Pieces of a text whose tokens come in steps of random sizes; ends with the token that completes a stop string."""
    text = TextPieces(tokenizer.decode, stop, tokenizer.open_ids)
    pieces = []
    for index, token in enumerate(ids):
        stopped = text.push(token)
        if stopped or index == len(ids) - 1:
            pieces.append(text.take(final=True))
            break
        if cuts.random() < 0.5:
            pieces.append(text.take())
    assert text.take(final=True) == ""
    return pieces


def stopped_text(tokenizer: Tokenizer, ids: Sequence[int], stop: Sequence[str]) -> tuple[str, int]:
    """Text before the stop string that is complete first, and the tokens it takes: decode everything, every time."""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count])
        if found := [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]:
            return text[: min(found)[1]], count
    return tokenizer.decode(ids), len(ids)


def test_pieces_add_up_to_the_tokenizers_own_text(tokenizer: Tokenizer) -> None:
    draw = random.Random(0)
    for _ in range(150):
        ids = random_ids(tokenizer, draw)
        own = tokenizer.backend.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert "".join(pieces_of(tokenizer, ids, draw)) == tokenizer.decode(ids) == own


def test_ids_beyond_the_vocabulary_have_no_text(tokenizer: Tokenizer) -> None:
    """Padded embeddings let a model say them."""
    size = len(tokenizer.backend)
    draw = random.Random(4)
    ordinary = [i for i in range(size) if i not in tokenizer.open_ids]
    for _ in range(30):
        ids = [i for _ in range(4) for i in (draw.choice(ordinary), *[size + 1] * draw.randrange(14))]
        assert "".join(pieces_of(tokenizer, ids, draw)) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", [builtin, byte_level, byte_fallback], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("text", TEXTS)
def test_no_piece_splits_a_character(kind: Any, text: str) -> None:
    tokenizer = cache(kind)()
    ids = tokenizer.backend(text, add_special_tokens=False)["input_ids"]
    for seed in range(20):
        pieces = pieces_of(tokenizer, ids, random.Random(seed), ("never",) if seed % 2 else ())
        assert "".join(pieces) == text
        assert sum(piece.count(REPLACEMENT) for piece in pieces) == text.count(REPLACEMENT)


def test_stop_strings_end_the_text_where_decoding_everything_would(tokenizer: Tokenizer) -> None:
    draw = random.Random(1)
    hits = 0
    for _ in range(300):
        ids = random_ids(tokenizer, draw)
        text = tokenizer.decode(ids)
        starts = [draw.randrange(len(text) + 1) for _ in range(draw.randrange(1, 4))]
        stop = tuple(s for at in starts if (s := text[at : at + draw.randrange(1, 6)]))
        want, count = stopped_text(tokenizer, ids, stop)
        assert "".join(pieces_of(tokenizer, ids, draw, stop)) == want
        text_pieces = TextPieces(tokenizer.decode, stop, tokenizer.open_ids)
        assert [text_pieces.push(token) for token in ids[:count]] == [False] * (count - 1) + [text_pieces.stopped]
        hits += text_pieces.stopped
    assert hits > 100


@pytest.mark.parametrize(
    ("tokens", "stop", "text", "count"),
    [
        (["ab", "cd", "ef"], ["bc"], "a", 2),  # across a border
        (["abcdef"], ["cd"], "ab", 1),  # inside a token
        (["a", "b", "c"], ["ab", "abc"], "", 2),  # one is the beginning of the other
        (["abc"], ["ab", "abc"], "", 1),
        (["xabcd"], ["bc", "abcd"], "xa", 1),  # the one complete first, however the tokens are cut
        (["xa", "b", "cd"], ["bc", "abcd"], "xa", 3),
        (["x", "abc"], ["bc", "abc"], "x", 2),  # both complete at once: the longer one
        (["aa", "ab"], ["aab"], "a", 2),  # a false start inside a start
        (["a", "b", "a", "b", "d"], ["abd"], "ab", 5),
        (["a", "b"], ["abc"], "ab", 2),  # never complete: flushed at the end
        (["a", "b"], ["b"], "a", 2),  # complete with the last token
        (["a", "\n", "\n", "b"], ["\n\n"], "a", 3),
        (["a", "b"], ["zzz", "b"], "a", 2),
        (["aXbX"], ["X"], "a", 1),  # the first of two
    ],
)
def test_stop_string_table(tokens: list[str], stop: list[str], text: str, count: int) -> None:
    pieces = TextPieces(lambda ids: "".join(tokens[i] for i in ids), stop)
    taken, pushed = "", 0
    for token in range(len(tokens)):
        pushed += 1
        if pieces.push(token):
            break
        taken += pieces.take()
        assert text.startswith(taken), "text that belongs to a stop string was handed out"
    assert (taken + pieces.take(final=True), pushed) == (text, count)


def test_text_that_may_begin_a_stop_string_is_held_back() -> None:
    pieces = TextPieces(lambda ids: "".join("ab"[i] for i in ids), ["aab"])
    held = []
    for token in (0, 0, 0, 0):
        pieces.push(token)
        held.append(pieces.take())
    assert (held, pieces.take(final=True)) == (["", "", "a", "a"], "aa")


def test_a_stop_string_of_bytes_ends_the_text_at_its_last_byte() -> None:
    tokenizer = byte_fallback()
    newline, invalid = BYTES.index("<0x0A>"), BYTES.index("<0xFF>")
    text = TextPieces(tokenizer.decode, ["\n\n"], tokenizer.open_ids)
    assert [text.push(t) for t in (newline, newline)] == [False, True]
    # Without it the run stays open, since one wrong byte turns all of it into replacement characters.
    text = TextPieces(tokenizer.decode, (), tokenizer.open_ids)
    text.push(newline)
    assert text.take() == ""
    text.push(invalid)
    assert text.take(final=True) == 2 * REPLACEMENT == tokenizer.decode([newline, invalid])


def decoded_ids(tokenizer: Tokenizer, ids: Sequence[int], stop: Sequence[str] = ()) -> int:
    """How many ids were decoded in all, for text that is taken after every token."""
    decoded = 0

    def counting(ids: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return tokenizer.decode(ids)

    text = TextPieces(counting, stop, tokenizer.open_ids)
    taken = ""
    for token in ids:
        text.push(token)
        taken += text.take()
    assert taken + text.take(final=True) == tokenizer.decode(ids)
    return decoded


@pytest.mark.parametrize("stop", [(), ("zzz",)], ids=["no stop", "stop"])
def test_cost_per_token_does_not_grow_with_the_text(tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
    draw = random.Random(2)
    single = [i for i in range(len(tokenizer.backend)) if i not in tokenizer.open_ids]
    ids = [draw.randrange(len(tokenizer.backend)) if draw.random() < 0.3 else draw.choice(single) for _ in range(2000)]
    short, long = decoded_ids(tokenizer, ids[:500], stop), decoded_ids(tokenizer, ids, stop)
    assert short < 500 * 4 * CONTEXT
    assert long < 4.4 * short


@pytest.mark.parametrize("token", ["Ģ", "ð", "</s>"], ids=["stray byte", "unfinished character", "special token"])
def test_cost_does_not_grow_where_text_never_settles(token: str) -> None:
    tokenizer = byte_level()
    (repeated,) = tokenizer.backend.convert_tokens_to_ids([token])
    assert decoded_ids(tokenizer, [repeated] * 1000) < 1000 * 4 * CONTEXT


def test_special_tokens_are_left_out_of_text_but_shown_one_by_one() -> None:
    tokenizer = builtin()
    ids = tokenizer.backend("a<|endoftext|>b")["input_ids"]
    assert len(ids) == 3
    assert tokenizer.decode(ids) == "ab"
    assert [tokenizer.token(i) for i in ids] == ["a", "<|endoftext|>", "b"]
    assert {0, 1, 2} <= tokenizer.open_ids


# Prompts -------------------------------------------------------------------------------------------------------------


def test_strings_and_messages_go_through_the_template_and_raw_text_does_not() -> None:
    tokenizer = builtin()
    spelled = "<|user|>Hello\n<|assistant|>"
    raw = tokenizer.encode(spelled, raw=True)
    assert tokenizer.encode("Hello") == raw
    assert tokenizer.encode([{"role": "user", "content": "Hello"}]) == raw
    assert tokenizer.encode("Hello", raw=True) == tuple(tokenizer.backend("Hello")["input_ids"]) != raw
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    shown = "".join(tokenizer.token(i) for i in tokenizer.encode(turns))
    assert shown == "<|user|>a\n<|assistant|>b<|endoftext|><|user|>c\n<|assistant|>"


def test_without_a_template_strings_are_raw_and_messages_refused() -> None:
    tokenizer = byte_level()
    assert tokenizer.decode(tokenizer.encode("a b")) == "a b"
    with pytest.raises(RequestError, match="no chat template") as caught:
        tokenizer.encode([{"role": "user", "content": "Hello"}])
    assert caught.value.hint


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("prompt", ["", " \n\t", []], ids=["nothing", "spaces", "no messages"])
def test_empty_prompts_are_refused(prompt: Any, raw: bool) -> None:
    with pytest.raises(RequestError, match="the prompt is empty") as caught:
        builtin().encode(prompt, raw=raw)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("message", "match"),
    [
        ({"content": "Hello"}, "message 2 has no `role`"),
        ({"role": "user"}, "message 2 has no `content`"),
        ({"role": "user", "content": None}, "message 2 has no `content`"),
        ({"role": 1, "content": "Hello"}, "message 2 has no `role`"),
        ("Hello", "message 2 has no `role`"),
    ],
)
def test_incomplete_messages_are_refused(message: Any, match: str) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        builtin().encode([{"role": "user", "content": "Hello"}, message])
    assert "role" in str(caught.value.hint)


def test_what_a_template_refuses_is_a_request_error() -> None:
    tokenizer = byte_level()
    tokenizer.backend.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RequestError, match="roles must alternate") as caught:
        tokenizer.encode("Hello")
    assert caught.value.hint


# Vocabularies --------------------------------------------------------------------------------------------------------


def vocabulary(tokens: Sequence[str]) -> Tokenizer:
    raw = Raw(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token=tokens[0]))
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=raw))


def test_vocabularies_that_mean_the_same_have_no_conflict() -> None:
    tokens = [f"t{i}" for i in range(20)]
    assert vocabulary(tokens).conflict(vocabulary(tokens)) is None
    padded = vocabulary([*tokens, "pad0", "pad1"])
    assert vocabulary(tokens).conflict(padded) is None
    assert padded.conflict(vocabulary(tokens)) is None
    assert builtin().conflict(builtin()) is None


def test_one_moved_token_is_a_conflict_though_the_sizes_are_equal() -> None:
    tokens = [f"t{i}" for i in range(20)]
    moved = [*tokens[:5], tokens[6], tokens[5], *tokens[7:]]
    why = vocabulary(tokens).conflict(vocabulary(moved))
    assert why == "2 of 20 ids differ; id 5 is 't5' and 't6'"


def test_other_vocabularies_are_in_conflict() -> None:
    tokens = [f"t{i}" for i in range(20)]
    assert "20 of 20 ids differ" in str(vocabulary(tokens).conflict(vocabulary([t + "x" for t in tokens])))
    assert vocabulary(tokens).conflict(vocabulary(tokens[:10])) == "only 10 of 20 ids exist in both"
