"""All combinations of methods that fit each other, from the registry and from the adversaries of this folder."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

import torch

from foretoken.engine import Engine, check_fit
from foretoken.errors import ConfigError
from foretoken.models.acceptance_head import AcceptanceHead, HeadShape
from foretoken.models.base import LanguageModel
from foretoken.models.block_heads import BlockHeads, BlockShape
from foretoken.models.disco_classifier import DiscoClassifier
from foretoken.models.falcon import FalconHead, FalconShape
from foretoken.models.lookahead import LookAhead, LookAheadShape
from foretoken.models.ngram import NGram
from foretoken.registry import METHODS, find
from foretoken.rng import RngFactory, SeededRng
from foretoken.types import Drawn
from tests.contract import adversaries

# Options worth a run of their own, beside the defaults that every method gets. A method need not be listed.
OPTIONS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("draft", "blockwise"): [{"rescore": "none"}, {"rescore": "ngram"}],
    ("draft", "model"): [{"temperature": 2.0}],
    ("length", "bandit"): [{"algorithm": "exp3", "most": 2}],
    ("length", "confidence"): [{"threshold": 0.7, "adaptive": True}],
    ("length", "fixed"): [{"k": 0}, {"k": 1}],
    ("length", "heuristic"): [{"start": 1, "most": 2}],
    ("length", "proxy"): [{"signal": "entropy", "threshold": 0.4}],
    ("length", "specdec++"): [{"newest": True, "threshold": 0.8}],
}

ADVERSARIES: dict[str, list[type[Any]]] = {
    "draft": [adversaries.LookUp, adversaries.TwoGuesses, adversaries.Relayed],
    "length": [adversaries.StopAfterZero, adversaries.Parity, adversaries.HiddenDigest, adversaries.Moody],
    "shape": [adversaries.Twins],
    "accept": [],
}


@dataclass(frozen=True)
class Choice:
    """One method with its options."""

    type: type[Any]
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return self.type.__name__ + (f"({options})" if options else "")

    def make(self, *args: Any) -> Any:
        """A fresh instance."""
        return self.type(self.type.Config(**self.options), *args)


@dataclass(frozen=True)
class Setup:
    """One method per station."""

    draft: Choice
    length: Choice
    shape: Choice
    accept: Choice

    def __str__(self) -> str:
        return "-".join(str(choice) for choice in (self.draft, self.length, self.shape, self.accept))

    def pairs(self) -> set[tuple[str, str]]:
        """Which two choices meet in it, by name."""
        return set(combinations((str(choice) for choice in (self.draft, self.length, self.shape, self.accept)), 2))

    def engine(
        self, target: LanguageModel, draft: LanguageModel, rng: RngFactory = SeededRng, **options: Any
    ) -> Engine:
        """An engine with fresh methods."""
        inside = self.draft.type.trained
        model = untrained(inside, target) if inside else draft if self.draft.type.uses_model else None
        drafter = self.draft.make(model)
        kind = getattr(self.length.type, "trained", None)
        trained = [untrained(kind, draft)] if kind else []
        return Engine(
            target, drafter, self.length.make(*trained), self.shape.make(), self.accept.make(), rng=rng, **options
        )


def untrained(kind: type[Any], model: LanguageModel) -> Any:
    """What would be trained for a model, with random weights: exactness must not depend on what it says."""
    torch.manual_seed(0)
    made = {
        AcceptanceHead: lambda: AcceptanceHead(HeadShape(model.hidden_size, depth=1)),
        BlockHeads: lambda: block_heads(model),
        DiscoClassifier: DiscoClassifier,
        FalconHead: lambda: falcon_head(model),
        # Any token makes a target say something, so that the models of these tests need no more than they have.
        LookAhead: lambda: LookAhead(LookAheadShape(model.hidden_size, first=0, count=2)),
    }
    net = made[kind]().requires_grad_(False).to(model.device)
    for weights in net.parameters():  # a fresh head repeats the draft's probability, whatever the state is
        weights.copy_(torch.randn_like(weights))
    return net


def block_heads(model: LanguageModel) -> BlockHeads:
    """Heads whose laws are far from the target's, and an n-gram model that has seen some pairs and triples."""
    text = torch.randint(model.vocab_size, (40,), generator=torch.Generator().manual_seed(1))
    ngram = NGram.count([text[:25], text[25:]], model.vocab_size, order=3, least=1)
    shape = BlockShape(model.hidden_size, model.vocab_size, 3, 4, 3, tuple(ngram.sizes), "neural", 0.7, 2)
    net = BlockHeads(shape)
    net.ngram.load_state_dict(ngram.state_dict())
    net.output.copy_(torch.randn(net.output.shape))
    return net.double()  # the models of these tests are, and rounding must not show


def falcon_head(model: LanguageModel) -> FalconHead:
    """A head whose laws are far from the target's, in blocks of two."""
    net = FalconHead(FalconShape(model.hidden_size, model.vocab_size, block=2, width=6))
    net.output.copy_(torch.randn(net.output.shape))
    return net.double()  # as above


def choices(station: str) -> list[Choice]:
    """Every registered method of a station with all its listed options, and the adversaries."""
    registered = [
        Choice(find(station, name), options)
        for name in sorted(METHODS[station])
        for options in [{}, *OPTIONS.get((station, name), [])]
    ]
    return registered + [Choice(type_) for type_ in ADVERSARIES[station]]


def rules() -> list[type[Any]]:
    """Every registered acceptance rule."""
    return [find("accept", name) for name in sorted(METHODS["accept"])]


def setups(**only: Sequence[Choice]) -> Iterator[Setup]:
    """All combinations that fit; `only` narrows a station to some choices."""
    stations = ("draft", "length", "shape", "accept")
    for combination in product(*(only.get(station) or choices(station) for station in stations)):
        try:
            check_fit(*(choice.type for choice in combination))
        except ConfigError:
            continue
        yield Setup(*combination)


@functools.cache
def pairwise(**only: tuple[Choice, ...]) -> list[Setup]:
    """Few combinations in which any two choices that can meet do meet; for laws that need no full product."""
    everything = {setup: setup.pairs() for setup in setups(**only)}
    missing = set().union(*everything.values())
    chosen = []
    while missing:
        best = max(everything, key=lambda setup: len(everything[setup] & missing))
        chosen.append(best)
        missing -= everything[best]
    return chosen


def draft_types(rule: type[Any]) -> list[Drawn]:
    """What a rule claims to judge exactly, in a fixed order."""
    return [drawn for drawn in Drawn if drawn in rule.handles]
