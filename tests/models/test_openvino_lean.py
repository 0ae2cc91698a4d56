"""Graphs with fewer operations say what they said before."""

from typing import Any

import numpy as np
import pytest
import torch

from .drive import keep, random_tokens, read_chain
from .families import converted

ov = pytest.importorskip("openvino", reason="needs the extra `openvino`")
lean = pytest.importorskip("foretoken.models.openvino_lean")


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model._graph.get_ordered_ops()]


def test_inputs_are_short() -> None:
    for name in ("llama", "opt"):
        types = {node.get_element_type() for node in converted(name, "none")[1]._graph.get_parameters()}
        assert ov.Type.i64 not in types


def test_waves_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, at every position; where tables are too large they are computed as before."""
    tabled = converted("llama", "none")[1]
    assert not {"Cos", "Sin"} & set(kinds(tabled))
    monkeypatch.setattr(lean, "TABLES", 1)
    converted.cache_clear()
    computed = converted("llama", "none")[1]
    assert {"Cos", "Sin"} <= set(kinds(computed))
    tokens = random_tokens(1, 1, tabled.max_length)
    found = []
    for model in (tabled, computed):
        cache = model.new_cache(1)
        logits = [read_chain(model, cache, tokens[:, :-1])]
        keep(cache, tokens.shape[1] - 1)
        found.append(torch.cat([*logits, read_chain(model, cache, tokens[:, -1:])], 1))
    assert torch.equal(*found)
    converted.cache_clear()


def test_waves_that_depend_on_more_than_positions_are_left_alone() -> None:
    op = ov.opset13
    positions, other = (op.parameter([-1, 1], np.int32, name=name) for name in ("positions", "other"))
    both = op.convert(op.add(positions, other), "f32")
    graph = ov.Model([op.sin(both), op.cos(op.convert(positions, "f32"))], [positions, other])
    lean.tabulate(graph, 8)
    assert {"Cos", "Sin"} <= {node.get_type_name() for node in graph.get_ordered_ops()}
