"""The shape lines and examples in docstrings are true, on the calls of real generations."""

import doctest
import functools
import inspect
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface

import foretoken
from foretoken.config import DEFAULTS
from foretoken.errors import ConfigError
from foretoken.models.base import KVCache, LanguageModel
from foretoken.models.cache import TensorCache
from foretoken.models.hf import ATTENTION, HFModel, TreeMask
from foretoken.models.static import StaticModel
from foretoken.models.static_cache import StaticCache
from foretoken.registry import METHODS, find
from foretoken.request import Sampling
from foretoken.rng import Rng, SeededRng
from foretoken.types import Continuation, Draft, Drawn, Scores
from foretoken.verify import ancestors
from tests import shapes
from tests.contract.methods import Choice, Setup, choices
from tests.shapes import check_instance, checked, lines

PROTOCOLS = {
    HFModel: LanguageModel,
    TensorCache: KVCache,
    StaticModel: LanguageModel,
    StaticCache: KVCache,
    SeededRng: Rng,
}
CALLED = {
    "torch": {"TensorCache.begin", "TensorCache.write", "HFModel.forward", "tree_attention"},
    "graphs": {"StaticCache.begin", "StaticModel.forward", "StaticModel.chain", "choose"},
    "openvino": {"OpenVINOModel.forward"},
}
HAS_OPENVINO = find_spec("openvino") is not None
if HAS_OPENVINO:
    from foretoken.models.openvino import OpenVINOModel
    from foretoken.models.paged import PagedCache

    PROTOCOLS |= {OpenVINOModel: LanguageModel, PagedCache: KVCache}


def modules() -> list[ModuleType]:
    """Every module of the package that a generation can run through."""
    found = (m.name for m in pkgutil.walk_packages(foretoken.__path__, "foretoken."))
    apart = ("foretoken.cli", "foretoken.bench", "foretoken.train", "foretoken.serve", "foretoken.data")
    missing = [] if HAS_OPENVINO else ["foretoken.models.openvino", "foretoken.models.paged"]
    missing += [] if find_spec("triton") else ["foretoken.models.byte_kernel"]
    return [import_module(name) for name in found if not name.startswith((*apart, *missing))]


def documented(owner: type, name: str) -> Any:
    """What describes a method: its own docstring, or that of the class or protocol it follows."""
    places = [*owner.__mro__, *PROTOCOLS.get(owner, object).__mro__]
    return next((vars(place)[name] for place in places if name in vars(place) and lines(vars(place)[name])), None)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Check every call of every function with a shape line; names those called, and the classes that came by."""
    seen: set[str] = set()

    def watch(function: Callable[..., Any], description: Any) -> Callable[..., Any]:
        wrapped = checked(function, description)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            seen.add(function.__qualname__)
            return wrapped(*args, **options)

        return call

    def seeing(instance: Any, sizes: shapes.Sizes) -> None:
        check_instance(instance, sizes)
        seen.add(type(instance).__name__)

    monkeypatch.setattr(shapes, "check_instance", seeing)
    homes = [m for name, m in sys.modules.items() if name.startswith("foretoken")]
    for module in modules():
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) and value.__module__ == module.__name__ and lines(value):
                wrapper = watch(value, value)
                for home in homes:
                    if vars(home).get(name) is value:
                        monkeypatch.setattr(home, name, wrapper)
                if AttentionInterface().get(ATTENTION) is value:
                    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, wrapper)
            elif inspect.isclass(value) and value.__module__ == module.__name__:
                for method, function in list(vars(value).items()):
                    description = documented(value, method)
                    if isinstance(function, property) and description:
                        monkeypatch.setattr(value, method, property(watch(function.fget, description)))
                    elif inspect.isfunction(function) and description:
                        monkeypatch.setattr(value, method, watch(function, description))
    return seen


def test_every_shape_line_names_types_of_numbers() -> None:
    """Whether a function is called does not decide whether its line can be read."""
    known = {"bfloat16", "bool", "float", "float32", "float64", "int8", "int32", "int64", "uint8", "None"}
    wrong = []
    for module in modules():
        for owner in [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]:
            inside = vars(owner).values() if inspect.isclass(owner) else ()
            for one in (owner, *(getattr(part, "fget", part) for part in inside)):
                described = lines(one) if inspect.isfunction(one) or inspect.isclass(one) else []
                wrong += [(one.__qualname__, line) for line in described if set(line[2].split(" or ")) - known]
    assert not wrong


@pytest.mark.parametrize("backend", CALLED)
def test_shape_lines_hold_in_generations_with_every_method(backend: str, watched: set[str]) -> None:
    if backend == "openvino" and not HAS_OPENVINO:
        pytest.skip("needs the extra `openvino`")
    model = foretoken.load("builtin:pair", dtype="float32", backend=backend)
    prompts = ["What is 2 + 3?", "Name a colour, and say why you like it."]
    warm = Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.1)
    for length, shape, accept in product(*(METHODS[station] for station in ("length", "shape", "accept"))):
        try:
            using = model.using(length=length, shape=shape, accept=accept)
        except ConfigError:
            continue
        sampling = [Sampling(), Sampling() if find("accept", accept).greedy_only else warm]
        using.generate(prompts, sampling, max_new_tokens=5, seed=1, ignore_eos=True)
    model.using(draft="none").generate(prompts, warm, max_new_tokens=2, seed=1)
    model.using(length="fixed").generate(prompts, Sampling(temperature=0.8), max_new_tokens=5, seed=1, ignore_eos=True)
    for inside in (choice for choice in choices("draft") if choice.type.trained):
        rest = (Choice(find(station, DEFAULTS[station])) for station in ("length", "shape", "accept"))
        engine = Setup(inside, *rest).engine(*model.models)
        engine.start([model.request(prompt, warm, max_new_tokens=5, seed=1) for prompt in prompts])
        while engine.batch.rows:
            engine.step()
    assert watched >= {"Draft", "Frontier", "Scores", "Verdict", "Batch.roots"}
    assert watched >= {"Global.score", "Local.score", "lattice", "onward"}
    assert watched >= {"BlockHeads.head", "BlockHeads.read", "BlockHeads.expect", "NGram.forward"}
    assert watched >= {"FalconHead.read", "FalconHead.keys", "FalconHead.speak", "rotated"}
    assert watched >= {"ancestors", "distribution", "warp", "_likeliest"}
    assert watched >= {"after", "chain_law", "chain_law_at", "residual"}
    assert watched >= {"SeededRng.along", "SeededRng.guess", "SeededRng.numbers", "winners", "draw", *CALLED[backend]}
    for name in METHODS["accept"]:
        if not find("accept", name).greedy_only:  # on chains that one is `AcceptanceRule.match`
            rule = find("accept", name).__name__
            assert {f"{rule}.accept", f"{rule}.settle"} & watched


def test_shape_lines_hold_in_masks(watched: set[str]) -> None:
    mask = torch.ones(2, 3, 4, dtype=torch.bool).tril(1)
    tree = TreeMask(torch.tensor([5, 3]), torch.arange(4).expand(2, 4) + 3, mask, 9, torch.float32)
    for window in (None, 2):
        assert tree.additive(window, 2) is not None
    assert "TreeMask.additive" in watched


# The checker itself --------------------------------------------------------------------------------------------------


def describing(docstring: str) -> Callable[..., Any]:
    """`ancestors` with another docstring."""

    def function(parents: Tensor) -> Tensor:
        return ancestors(parents)

    function.__doc__ = docstring
    return checked(function)


@pytest.mark.parametrize(
    ("argument", "result"),
    [
        ("parents: [B, N] int64.", "[B, N, N] int64."),  # dtype
        ("parents: [B, N] int32.", "[B, N, N] bool."),
        ("parents: [B, N] float.", "[B, N, N] bool."),
        ("parents: [N, B] int64.", "[B, N, N] bool."),  # axes
        ("parents: [B, N] int64.", "[B, B, N] bool."),
        ("parents: [B, N] int64.", "[B, N] bool."),
        ("parents: [B, N] int64.", "[B, 1+N, N] bool."),
        ("parents: [B, N] int64.", "[B, N+P, N-1] bool."),
        ("parents: [B, 2*N] int64.", "[B, N, N] bool."),
        ("parents: [..., N] int64.", "[..., N] bool."),
        ("parents: [B, N, N, ...] int64.", "[B, N, N] bool."),
    ],
)
def test_planted_mistakes_are_caught(argument: str, result: str) -> None:
    wrong = describing(f"Args:\n    {argument} What.\n\nReturns:\n    {result} What.")
    with pytest.raises(AssertionError, match="documented as"):
        wrong(torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("argument", "result"),
    [
        ("parents: [B, N] int64.", "[B, N, N] bool."),
        ("parents: [..., N] int64.", "[..., N, N] bool."),
        ("parents: [B, ...] int64 or None.", "[B, ..., N] bool or float."),
        ("parents: [B, 1+A] int64.", "[B, A+1, N] bool."),
        ("parents: [2, N-1] int64.", "[B, N-1, N-1] bool."),
    ],
)
def test_right_lines_pass(argument: str, result: str) -> None:
    right = describing(f"Args:\n    {argument} What.\n\nReturns:\n    {result} What.")
    assert right(torch.zeros(2, 3, dtype=torch.int64)).shape == (2, 3, 3)


def test_mistakes_in_instances_are_caught() -> None:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    sizes = [1, 1]
    good = Draft(ids, ids, sizes, None, Drawn.POINT, None, sizes)
    check_instance(good, {})
    for bad in (
        Draft(ids.float(), ids, sizes, None, Drawn.POINT, None, sizes),
        Draft(ids, ids[:, :2], sizes, None, Drawn.POINT, None, sizes),
        Draft(ids, ids, sizes, torch.zeros(2, 4, 5), Drawn.IID, None, sizes),
        Continuation(ids, ids, None, None, None),
        Scores(torch.zeros(2, 3, 4, dtype=torch.bfloat16), None),
    ):
        with pytest.raises(AssertionError, match="documented as"):
            check_instance(bad, {})


# Examples ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [m for m in modules() if ">>>" in inspect.getsource(m)], ids=lambda m: m.__name__)
def test_examples_in_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
