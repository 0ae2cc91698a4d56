"""Byte-level BPE, trained on the texts that the models will learn, with the built-in pair's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from foretoken.train.corpus import shuffled
from foretoken.train.sizes import LONGEST
from foretoken.train.texts import Document

END, USER, ASSISTANT = "<|endoftext|>", "<|user|>", "<|assistant|>"
MOST_CHARS = 20_000_000  # more changes next to nothing


def train_tokenizer(documents: Sequence[Document], vocab_size: int, seed: int) -> Any:
    """A `transformers` tokenizer whose every text comes back as it was; digits are tokens of their own.

    Args:
        documents: what to learn words from; a sample serves where there is much.
        vocab_size: most tokens it may have.
        seed: of the sample.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytewise])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = shuffled(documents, seed, MOST_CHARS)
    made.train_from_iterator((part for one in sample for part in (one.prompt, one.text) if part), trainer)
    template = files("foretoken") / "data" / "models" / "pair" / "target" / "chat_template.jinja"
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=END,
        pad_token=END,
        chat_template=template.read_text(encoding="utf-8"),
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
    )
