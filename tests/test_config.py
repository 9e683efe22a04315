"""Configs are data: what is accepted, what is refused, and with which words."""

import dataclasses
from typing import Literal

import ml_collections
import pytest

from mirage_jax import config


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 8
    rate: float = 1e-3
    solver: Literal["unipc", "euler"] = "unipc"
    enabled: bool = True


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    maybe: Inner | None = None
    patch: tuple[int, int, int] = (1, 2, 2)
    stages: tuple[Inner, ...] = ()
    dropout: float | None = None
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    shape: int | tuple[int, ...] = 1

    def __post_init__(self):
        if self.inner.width % self.patch[1]:
            raise ValueError(f"width {self.inner.width} is no multiple of {self.patch[1]}")


FULL = {
    "name": "tiny",
    "inner": {"width": 4, "rate": 1, "solver": "euler", "enabled": False},
    "maybe": {"width": 2},
    "patch": [1, 4, 4],
    "stages": [{"width": 1}, {"width": 2}],
    "dropout": 0.5,
    "weights": {"depth": 2},
    "shape": [3, 4],
}


def test_nested_mappings_become_frozen_dataclasses_with_tuples_and_floats():
    built = config.from_dict(Outer, FULL)
    assert built == Outer(
        name="tiny",
        inner=Inner(width=4, rate=1.0, solver="euler", enabled=False),
        maybe=Inner(width=2),
        patch=(1, 4, 4),
        stages=(Inner(width=1), Inner(width=2)),
        dropout=0.5,
        weights={"depth": 2.0},
        shape=(3, 4),
    )
    assert isinstance(built.inner.rate, float)


@pytest.mark.parametrize("mapping", [FULL, {"name": "defaults"}])
def test_to_dict_and_from_dict_are_inverse(mapping):
    built = config.from_dict(Outer, mapping)
    assert config.from_dict(Outer, config.to_dict(built)) == built


def test_a_config_dict_with_references_is_accepted():
    values = ml_collections.ConfigDict({"name": "tiny", "inner": {"width": 6}})
    values.maybe = {"width": values.inner.get_ref("width")}
    assert config.from_dict(Outer, values).maybe == Inner(width=6)


def test_an_instance_passes_through():
    built = Outer(name="tiny")
    assert config.from_dict(Outer, built) is built
    assert config.from_dict(Outer, {"name": "tiny", "inner": Inner(width=2)}).inner.width == 2


def test_dataclasses_replace_checks_the_rules_again():
    with pytest.raises(ValueError, match="no multiple of 2"):
        dataclasses.replace(Outer(name="tiny"), inner=Inner(width=3))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"inner": {"widht": 4}}, ValueError, "'inner.widht'; did you mean 'width'"),
        ({"stages": [{}, {"solve": "euler"}]}, ValueError, "'stages[1].solve'"),
        ({"zzz": 1}, ValueError, "Valid keys: name, inner"),
        ({"inner": {"solver": "eular"}}, ValueError, "did you mean 'euler'"),
        ({"inner": {"width": 4.0}}, TypeError, "'inner.width' is 4.0 of kind float, expected int"),
        ({"inner": {"width": True}}, TypeError, "kind bool, expected int"),
        ({"inner": {"rate": "1e-3"}}, TypeError, "kind str, expected float"),
        ({"inner": {"rate": False}}, TypeError, "kind bool, expected float"),
        ({"inner": {"enabled": 1}}, TypeError, "kind int, expected bool"),
        ({"inner": 3}, TypeError, "expected a mapping"),
        ({"inner": None}, TypeError, "expected a mapping"),
        ({"patch": [1, 2]}, ValueError, "'patch' has 2 entries, expected 3"),
        ({"patch": "122"}, TypeError, "expected list or tuple"),
        ({"shape": "3"}, TypeError, "expected int or tuple"),
        ({"inner": {"width": 3}}, ValueError, "no multiple of 2"),
    ],
)
def test_a_wrong_value_is_refused_naming_key_value_and_cure(changes, error, words):
    with pytest.raises(error) as caught:
        config.from_dict(Outer, {"name": "tiny", **changes})
    assert words in str(caught.value)


def test_missing_keys_without_default_are_named():
    with pytest.raises(ValueError, match="missing name"):
        config.from_dict(Outer, {})


def test_to_dict_refuses_what_is_no_dataclass_instance():
    with pytest.raises(TypeError, match="expected a dataclass instance"):
        config.to_dict({"name": "tiny"})


@dataclasses.dataclass(frozen=True)
class Other:
    depth: int = 1
    width: int = 1


@dataclasses.dataclass(frozen=True)
class Either:
    part: Inner | Other | None = None


def test_of_two_dataclasses_the_one_that_knows_more_of_the_keys_is_meant():
    assert config.from_dict(Either, {"part": {"depth": 2, "width": 3}}).part == Other(2, 3)
    assert config.from_dict(Either, {"part": {"width": 3}}).part == Inner(width=3)
    assert config.from_dict(Either, {"part": None}).part is None
    for built in (Either(Other(2, 3)), Either(Inner(width=3))):
        assert config.from_dict(Either, config.to_dict(built)) == built
    with pytest.raises(ValueError, match="unknown key 'part.dpeth'; did you mean 'depth'"):
        config.from_dict(Either, {"part": {"dpeth": 2, "depth": 3}})
