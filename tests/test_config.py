"""Options, registry and errors: nothing is ignored, and every refusal says what to do."""

import dataclasses
import re
import traceback
import typing
from dataclasses import dataclass
from typing import Any

import pytest

import foretoken.errors
from foretoken.accept.base import AcceptanceRule
from foretoken.config import READERS, Method, fill, option_names
from foretoken.draft.base import Drafter
from foretoken.errors import ConfigError, ForetokenError, did_you_mean
from foretoken.length.base import LengthPolicy
from foretoken.registry import METHODS, find
from foretoken.shape.base import TreeShape

BASES = {"draft": Drafter, "length": LengthPolicy, "shape": TreeShape, "accept": AcceptanceRule}
ENTRIES = [(station, name) for station, names in METHODS.items() for name in names]


@dataclass(frozen=True, slots=True)
class Options:
    """One option of each kind."""

    num_steps: int = 3
    threshold: float = 0.5
    adaptive: bool = False
    name: str = "x"
    top_k: int | None = None
    limit: float | None = 2.0
    label: str | None = None

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise ConfigError(f"num_steps cannot be {self.num_steps}", hint="0 or more")


def filled(**options: str) -> Options:
    result = fill(Options, options, "length method `test`", "--length.")
    assert isinstance(result, Options)
    return result


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("num_steps", "7", 7),
        ("num-steps", "7", 7),
        ("threshold", "0.25", 0.25),
        ("threshold", "1", 1.0),
        ("threshold", "1e-3", 0.001),
        ("adaptive", "true", True),
        ("adaptive", "Yes", True),
        ("adaptive", "1", True),
        ("adaptive", "on", True),
        ("adaptive", "FALSE", False),
        ("adaptive", "no", False),
        ("adaptive", "0", False),
        ("adaptive", "off", False),
        ("name", "none", "none"),
        ("name", "", ""),
        ("top_k", "4", 4),
        ("top-k", "none", None),
        ("limit", "None", None),
        ("limit", "0.5", 0.5),
        ("label", "a b", "a b"),
        ("label", "none", None),
    ],
)
def test_values_are_read_as_the_fields_type(name: str, text: str, value: Any) -> None:
    result = getattr(filled(**{name: text}), name.replace("-", "_"))
    assert result == value
    assert type(result) is type(value)


def test_without_options_the_defaults_hold() -> None:
    assert filled() == Options()


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("num_steps", "many", "it takes a whole number"),
        ("num_steps", "4.0", "it takes a whole number"),
        ("num_steps", "", "it takes a whole number"),
        ("num_steps", "none", "it takes a whole number"),
        ("threshold", "half", "it takes a number"),
        ("top_k", "nothing", "it takes a whole number"),
        ("adaptive", "maybe", "it takes true or false"),
        ("adaptive", "", "it takes true or false"),
    ],
)
def test_values_that_cannot_be_read_are_refused(name: str, text: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"option `--length.{name}` cannot be {text!r}")) as caught:
        filled(**{name: text})
    assert caught.value.hint == hint


def test_values_out_of_range_are_refused_by_the_config_itself() -> None:
    with pytest.raises(ConfigError, match="num_steps cannot be -1"):
        filled(num_steps="-1")


def test_unknown_options_are_refused_with_the_closest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown option `--length\.treshold` for length method `test`") as caught:
        filled(treshold="0.5")
    assert str(caught.value.hint).startswith("did you mean `--length.threshold`? Known: --length.adaptive, ")


# Methods -------------------------------------------------------------------------------------------------------------


def test_a_method_is_its_name_or_its_name_and_its_first_option() -> None:
    assert Method.parse("length", "fixed").config().k == 4
    assert Method.parse("length", "fixed:7").config().k == 7
    assert Method.parse("length", "confidence:0.6", {"most": "9"}).options == {"threshold": "0.6", "most": "9"}
    assert Method.parse("length", "fixed:7").type is find("length", "fixed")


@pytest.mark.parametrize("text", ["", "two", "1.5"])
def test_the_value_after_the_colon_is_checked(text: str) -> None:
    with pytest.raises(ConfigError, match=r"option `--length\.k` cannot be"):
        Method.parse("length", f"fixed:{text}").config()


def test_a_value_for_a_method_without_options_is_refused() -> None:
    with pytest.raises(ConfigError, match="accept method `rejection` takes no options") as caught:
        Method.parse("accept", "rejection:3")
    assert caught.value.hint == "write `rejection`"
    with pytest.raises(ConfigError, match=r"unknown option `--accept\.k`") as caught:
        Method("accept", "rejection", {"k": "3"}).config()
    assert caught.value.hint == "known: none"


def test_an_option_given_twice_is_refused_unless_both_say_the_same() -> None:
    with pytest.raises(ConfigError, match="option `k` of length method `fixed` is given twice") as caught:
        Method.parse("length", "fixed:3", {"k": "4"})
    assert caught.value.hint == "write `fixed:3` or `--length.k 4`"
    assert Method.parse("length", "fixed:3", {"k": "3"}).config().k == 3


def test_unknown_methods_are_refused_with_the_closest_known_one() -> None:
    for parse in (Method("length", "fixd").config, lambda: Method.parse("length", "fixd:3")):
        with pytest.raises(ConfigError, match="unknown length method `fixd`") as caught:
            parse()
        assert str(caught.value.hint).startswith("did you mean `fixed`? Known: ")
    with pytest.raises(ConfigError, match="unknown accept method `xyzzy`") as caught:
        find("accept", "xyzzy")
    assert caught.value.hint == "known: " + ", ".join(sorted(METHODS["accept"]))


# Registry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("station", "name"), ENTRIES)
def test_every_entry_imports_and_keeps_to_its_station(station: str, name: str) -> None:
    method = find(station, name)
    assert issubclass(method, BASES[station])
    assert re.fullmatch(r"[a-z][a-z0-9+-]*", name)
    module, _, _ = METHODS[station][name].partition(":")
    assert module.startswith(f"foretoken.{station}.")
    assert method.__doc__, "the class says what the method does"


@pytest.mark.parametrize(("station", "name"), ENTRIES)
def test_every_option_can_be_written_as_text_and_is_explained(station: str, name: str) -> None:
    config = find(station, name).Config
    types = typing.get_type_hints(config)
    for f, option in zip(dataclasses.fields(config), option_names(find(station, name)), strict=True):
        assert any(kind in READERS for kind in typing.get_args(types[f.name]) or (types[f.name],))
        assert re.search(rf"^ +{f.name}: ", config.__doc__ or "", re.MULTILINE), f"{option} is not explained"
    defaults = {f.name: str(f.default) for f in dataclasses.fields(config)}
    assert Method(station, name, defaults).config() == config()


def test_entries_are_sorted() -> None:
    for names in METHODS.values():
        assert list(names) == sorted(names)


# Errors --------------------------------------------------------------------------------------------------------------


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = re.findall(r"^[├└─ ]*(\w+Error) .*?(?:\(exit code (\d)\))?$", foretoken.errors.__doc__ or "", re.MULTILINE)
    classes = {
        name: value
        for name, value in vars(foretoken.errors).items()
        if isinstance(value, type) and issubclass(value, ForetokenError)
    }
    assert [name for name, _ in drawn] == list(classes)
    for name, exit_code in drawn[1:]:
        assert classes[name].__bases__ == (ForetokenError,)
        assert classes[name].exit_code == int(exit_code)


def test_the_hint_shows_in_a_traceback() -> None:
    error = ConfigError("something is wrong", hint="do this")
    shown = traceback.format_exception(error)
    assert shown == ["foretoken.errors.ConfigError: something is wrong\n", "hint: do this\n"]
    assert str(error) == "something is wrong"
    assert error.hint == "do this"
    bare = ForetokenError("something is wrong")
    assert bare.hint is None
    assert not hasattr(bare, "__notes__")


def test_did_you_mean() -> None:
    assert did_you_mean("fixd", ["fixed", "heuristic"]) == "did you mean `fixed`? Known: fixed, heuristic"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zzz", []) == "known: none"
