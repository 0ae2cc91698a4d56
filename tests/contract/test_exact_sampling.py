"""Exact under every sampling parameter: what is emitted follows the distribution the request asked for.

The transform is written a second time in `law.py`, in plain Python. Penalties and processors look at the history, so at
a drafted node they must see the drafted path as well: the law of the later tokens would be wrong otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foretoken.registry import METHODS, find
from foretoken.request import Request, Sampling
from tests.contract.adversaries import LookUp
from tests.contract.engine_law import engine_law
from tests.contract.law import exact_law
from tests.contract.methods import Choice, Setup, setups
from tests.contract.outcomes import distance
from tests.contract.table import TableModel, near, random_table


def no_repeats(history: Tensor, scores: Tensor) -> Tensor:
    """A user's processor: the last token may not come again, and the longer the text, the likelier token 0."""
    scores = scores.clone()
    scores[0, history[0, -1]] = -torch.inf
    scores[0, 0] += 0.2 * history.shape[1]
    return scores


def favour_last(history: Tensor, scores: Tensor) -> Tensor:
    """Another one: say again what was said last but one."""
    return scores.index_add(1, history[0, -2:-1], torch.ones(1, 1, dtype=scores.dtype))


SAMPLINGS = {
    "plain": Sampling(temperature=1.0),
    "warm": Sampling(temperature=1.7),
    "cold": Sampling(temperature=0.4),
    "top-k": Sampling(temperature=1.0, top_k=2),
    "top-p": Sampling(temperature=1.0, top_p=0.7),
    "min-p": Sampling(temperature=2.0, min_p=0.3),
    "all three": Sampling(temperature=1.5, top_k=3, top_p=0.8, min_p=0.1),
    "repetition": Sampling(temperature=1.0, repetition_penalty=1.8),
    "presence": Sampling(temperature=1.0, presence_penalty=0.9),
    "frequency": Sampling(temperature=1.0, frequency_penalty=-0.7),
    "bias": Sampling(temperature=1.0, logit_bias={0: 1.3, 2: -1.9}),
    "processor": Sampling(temperature=1.0, processors=(no_repeats,)),
    "everything": Sampling(1.3, 0.4, 0.3, {1: 0.5}, (no_repeats, favour_last), 0.8, 3, 0.95, 0.02),
}
FIXED, CHAIN = Choice(find("length", "fixed"), {"k": 2}), Choice(find("shape", "chain"))
DRAFTS = [Choice(find("draft", "model")), Choice(LookUp)]
OWN_TEMPERATURE = [Choice(find("draft", "model"), {"temperature": warmth}) for warmth in (0.0, 0.5)]
LOSSLESS = [Choice(find("accept", name)) for name in sorted(METHODS["accept"]) if find("accept", name).lossless]
SETUPS = list(setups(draft=DRAFTS, length=[FIXED], shape=[CHAIN], accept=LOSSLESS))
TARGET = random_table(11, 3)
DRAFT = near(TARGET, 12)
PROMPT = (2, 0, 1)


def request(setup: Setup, sampling: Sampling) -> Request:
    """Three tokens; at temperature 0 for rules that know nothing else."""
    return Request(PROMPT, replace(sampling, temperature=0.0) if setup.accept.type.greedy_only else sampling, 3)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_every_sampling_parameter_is_honoured(setup: Setup, sampling: str) -> None:
    asked = request(setup, SAMPLINGS[sampling])
    law = engine_law(setup, TableModel(TARGET), TableModel(DRAFT), asked)
    assert distance(law, exact_law(TARGET, asked)) < 1e-9


@pytest.mark.parametrize("sampling", ["plain", "all three", "everything"])
@pytest.mark.parametrize("setup", list(setups(draft=OWN_TEMPERATURE, length=[FIXED], accept=LOSSLESS)), ids=str)
def test_a_draft_with_a_temperature_of_its_own(setup: Setup, sampling: str) -> None:
    """The draft is drawn from another law than the request's, and says so: nothing changes but the speed."""
    asked = request(setup, SAMPLINGS[sampling])
    law = engine_law(setup, TableModel(TARGET), TableModel(DRAFT), asked)
    assert distance(law, exact_law(TARGET, asked)) < 1e-9


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_sampling_parameter_changes_something(sampling: str) -> None:
    """Otherwise the test above would prove nothing about it."""
    plain = exact_law(TARGET, Request(PROMPT, SAMPLINGS["plain"], 3))
    assert sampling == "plain" or distance(plain, exact_law(TARGET, Request(PROMPT, SAMPLINGS[sampling], 3))) > 0.02


@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_a_stop_token_and_a_processor(setup: Setup) -> None:
    """A processor is never asked what follows a stop token, and the law stays right before it."""

    def strict(history: Tensor, scores: Tensor) -> Tensor:
        assert 2 not in history[0, len(PROMPT) :].tolist(), "asked about what follows the end"
        return no_repeats(history, scores)

    asked = replace(request(setup, Sampling(temperature=1.0, processors=(strict,))), stop_token_ids=frozenset({2}))
    law = engine_law(setup, TableModel(TARGET), TableModel(DRAFT), asked)
    assert distance(law, exact_law(TARGET, asked)) < 1e-9


NEIGHBOURS = [
    Request((1,), Sampling(temperature=0.7, top_k=2, frequency_penalty=1.0), 2),
    Request((0, 2, 2, 1, 0), Sampling(), 4, stop_token_ids=frozenset({1})),
    Request((2, 1), Sampling(temperature=2.0, logit_bias={2: 3.0}, processors=(favour_last,)), 3),
]


@pytest.mark.parametrize("sampling", ["plain", "all three", "everything"])
@pytest.mark.parametrize("setup", [s for s in SETUPS if not s.accept.type.greedy_only], ids=str)
def test_neighbours_with_other_parameters_change_nothing(setup: Setup, sampling: str) -> None:
    asked = request(setup, SAMPLINGS[sampling])
    law = engine_law(setup, TableModel(TARGET), TableModel(DRAFT), asked, NEIGHBOURS, width=7)
    assert distance(law, exact_law(TARGET, asked)) < 1e-9
