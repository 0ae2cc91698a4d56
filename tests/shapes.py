"""Hold what docstrings say about tensors against the tensors themselves.

A line `name: [B, N] int64. ...` describes an argument or an attribute, a line `[B, N] bool. ...` what is returned.
Letters stand for one size within one call (or one instance), `...` for any axes, `float` for any floating dtype,
`1+A` is worked out, and `or None` allows None.
"""

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor

LINE = re.compile(r"^ *(?:(\w+): )?\[([^]]+)\] (\w+(?: or \w+)*)", re.MULTILINE)
Lines = list[tuple[str, str, str]]
Sizes = dict[str, Any]


def lines(documented: Any) -> Lines:
    """Shape lines of a docstring: (name or "", axes, dtypes)."""
    return LINE.findall(inspect.getdoc(documented) or "")


def check(value: Any, axes: str, kinds: str, sizes: Sizes) -> None:
    """Assert that a tensor is what its line says; letters seen for the first time are added to `sizes`."""
    allowed = kinds.split(" or ")
    if value is None:
        assert "None" in allowed, f"None, but documented as {kinds}"
        return
    dtype = str(value.dtype).removeprefix("torch.")
    assert dtype in allowed or ("float" in allowed and value.is_floating_point()), f"{dtype}, documented as {kinds}"
    names, shape = axes.split(", "), list(value.shape)
    if "..." in names:
        at, free = names.index("..."), len(shape) - len(names) + 1
        right = sizes.setdefault("...", shape[at : at + free]) == shape[at : at + free]
        assert right, f"{list(value.shape)}, documented as [{axes}] where {sizes}"
        del shape[at : at + free], names[at]
    assert len(names) == len(shape), f"{list(value.shape)}, documented as [{axes}]"
    for axis, size in zip(names, shape, strict=True):
        letters = re.findall(r"[a-zA-Z_]\w*", axis)
        for letter in letters:
            if letter not in sizes:
                low, high = (eval(axis, {}, {**sizes, letter: n}) for n in (0, 1))
                sizes[letter] = (size - low) // (high - low)
        right = eval(axis, {}, sizes) == size and all(sizes[letter] >= 0 for letter in letters)
        assert right, f"{list(value.shape)}, documented as [{axes}] where {sizes}"


def check_instance(instance: Any, sizes: Sizes) -> None:
    """Check the documented attributes of a dataclass instance."""
    for name, axes, kinds in lines(type(instance)) if is_dataclass(instance) else ():
        check(getattr(instance, name), axes, kinds, sizes)


def checked(function: Callable[..., Any], documented: Any = None) -> Callable[..., Any]:
    """The same function, checking every call against its docstring, or against that of `documented`."""
    signature, described = inspect.signature(function), lines(documented or function)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        sizes: Sizes = {name: value for name, value in given.items() if type(value) is int}
        for value in given.values():
            check_instance(value, sizes)
        for name, axes, kinds in described:
            if name in given:
                check(given[name], axes, kinds, sizes)
        result = function(*args, **options)
        parts = result if isinstance(result, tuple) else (result,)
        returned = [(axes, kinds) for name, axes, kinds in described if not name]
        for value, (axes, kinds) in zip([part for part in parts if isinstance(part, Tensor)], returned, strict=False):
            check(value, axes, kinds, sizes)
        for part in parts:
            check_instance(part, {})
        return result

    return call
