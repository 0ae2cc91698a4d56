"""Files of small nets: they come back as they were, and are refused beside another model or when broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from foretoken.errors import ModelError
from foretoken.models.block_heads import BlockHeads, BlockShape
from foretoken.models.bound import BoundNet
from foretoken.models.falcon import FalconHead, FalconShape
from foretoken.models.lookahead import LookAhead, LookAheadShape
from foretoken.models.ngram import NGram


def heads() -> BlockHeads:
    ngram = NGram.count([torch.tensor([0, 1, 2, 1, 2, 1])], 3, 3)
    net = BlockHeads(BlockShape(4, 3, 2, 5, 6, tuple(ngram.sizes), "ngram", 0.5, 2), "mine", {"a": 1})
    net.ngram.load_state_dict(ngram.state_dict())
    return net


NETS = [
    heads,
    lambda: FalconHead(FalconShape(4, 3, 2, 6), "mine", {"a": 1}),
    lambda: LookAhead(LookAheadShape(4, 3, 2), "mine", {"a": 1}),
]


@pytest.mark.parametrize("make", NETS)
def test_a_file_gives_back_what_was_saved(make: type[BoundNet], tmp_path: Path) -> None:
    net, path = make(), tmp_path / "net.safetensors"  # type: ignore[call-arg]
    net.save(path)
    again = type(net).load(path, "mine")
    assert (again.shape, again.card) == (net.shape, net.card)
    assert json.loads((tmp_path / "net.card.json").read_text()) == {"a": 1}
    for name, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


@pytest.mark.parametrize("make", NETS)
def test_what_does_not_belong_is_refused(make: type[BoundNet], tmp_path: Path) -> None:
    net, path = make(), tmp_path / "net.safetensors"  # type: ignore[call-arg]
    with pytest.raises(ModelError, match="there is no") as missing:
        type(net).load(path, "mine")
    assert net.command in str(missing.value.hint)
    net.save(path)
    with pytest.raises(ModelError, match="another target model"):
        type(net).load(path, "yours")
    other = NETS[NETS.index(make) - 1]()
    with pytest.raises(ModelError, match=f"is no {type(other).title}"):
        type(other).load(path, "mine")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ModelError, match="is no "):
        type(net).load(path, "mine")
