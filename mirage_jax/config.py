"""Turns plain nested mappings into frozen dataclasses, and back.

Configuration files return plain values (dicts or `ml_collections.ConfigDict`); components own
frozen dataclasses and check their own cross-field facts in `__post_init__`. This module is the only
bridge between the two. It rejects unknown keys (naming the nearest valid one) and values of the
wrong kind, turns lists into tuples, and never guesses: a string is not a number and a bool is not
an int.

Nothing here imports JAX, so a bad configuration is reported before a device is touched.

Read next: `configs/` for the files, `mirage_jax/train/config.py` for the whole-world config.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any


def from_dict[T](cls: type[T], mapping: Any, path: str = "") -> T:
    """Builds a (nested) dataclass from a mapping.

    Args:
        cls: dataclass type. Fields may be bool, int, float, str, `Literal`, `X | None`, unions,
            `tuple[...]`, `dict[str, ...]`, `Any` or other dataclasses.
        mapping: dict, `ConfigDict`, or an instance of `cls` (returned unchanged). Missing keys take
            the field's default.
        path: where `mapping` sits in the whole configuration; used in messages only.

    Returns:
        An instance of `cls`.

    Raises:
        ValueError: an unknown key, a missing key without default, a value outside a `Literal`, or a
            rule of the dataclass's own that does not hold.
        TypeError: a value of the wrong kind.
    """
    if isinstance(mapping, cls):
        return mapping
    values = _as_mapping(mapping, f"{cls.__name__} at '{path}'" if path else cls.__name__)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ValueError(_unknown_key_message(_join(path, str(key)), str(key), list(fields)))
    hints = typing.get_type_hints(cls)
    arguments = {
        key: _convert(value, hints[key], _join(path, key)) for key, value in values.items()
    }
    missing = [n for n, f in fields.items() if n not in arguments and not _has_default(f)]
    if missing:
        raise ValueError(
            f"config for {cls.__name__}: missing {', '.join(_join(path, m) for m in missing)}; "
            "these keys have no default, so give them a value"
        )
    return cls(**arguments)


def to_dict(config: Any) -> dict[str, Any]:
    """Turns a (nested) dataclass into plain dicts, lists and scalars that JSON can hold.

    Args:
        config: a dataclass instance.

    Returns:
        A new dict; `from_dict(type(config), to_dict(config)) == config`.

    Raises:
        TypeError: `config` is not a dataclass instance.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"to_dict: got {type(config).__name__}, expected a dataclass instance")
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _as_mapping(value: Any, where: str) -> dict[str, Any]:
    if hasattr(value, "to_dict") and not isinstance(value, Mapping):
        value = value.to_dict()  # ConfigDict, resolved field references included
    if not isinstance(value, Mapping):
        raise TypeError(
            f"config for {where}: got {type(value).__name__} ({value!r}), expected a mapping of "
            "field names to values"
        )
    return dict(value)


def _has_default(field: dataclasses.Field) -> bool:
    return (
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _unknown_key_message(path: str, key: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else "remove it"
    return f"config: unknown key '{path}'; {hint} Valid keys: {', '.join(valid)}"


def _convert(value: Any, hint: Any, path: str) -> Any:
    """Checks one value against its annotation; the only place where kinds are decided."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), path)
    if origin is typing.Literal:
        return _convert_literal(value, typing.get_args(hint), path)
    if origin is tuple or hint is tuple:
        return _convert_tuple(value, typing.get_args(hint), path)
    if origin is dict or hint is dict:
        return _convert_mapping(value, typing.get_args(hint), path)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value, path)
    return _convert_scalar(value, hint, path)


def _convert_scalar(value: Any, hint: Any, path: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and is_number:
        return float(value)
    if hint is int and isinstance(value, bool):
        raise _wrong_kind(value, hint, path)
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise _wrong_kind(value, hint, path)


def _convert_literal(value: Any, allowed: tuple[Any, ...], path: str) -> Any:
    if any(value == a and type(value) is type(a) for a in allowed):
        return value
    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    choices = ", ".join(repr(a) for a in allowed)
    raise ValueError(f"config: '{path}' is {value!r}, expected one of {choices}{hint}")


def _convert_union(value: Any, choices: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    concrete = [c for c in choices if c is not type(None)]
    concrete = _meant_by_keys(value, concrete)
    if len(concrete) == 1:
        return _convert(value, concrete[0], path)
    for choice in concrete:
        try:
            return _convert(value, choice, path)
        except (TypeError, ValueError):
            continue
    raise _wrong_kind(value, " or ".join(_name(c) for c in choices), path)


def _meant_by_keys(value: Any, choices: list[Any]) -> list[Any]:
    """Of several dataclasses, keep the one that knows most of a mapping's keys.

    The first wins a tie. Its own complaints about the mapping then reach the user.
    """
    if not (isinstance(value, Mapping) or hasattr(value, "to_dict")):
        return choices
    classes = [c for c in choices if isinstance(c, type) and dataclasses.is_dataclass(c)]
    if not classes:
        return choices
    keys = set(_as_mapping(value, "union"))
    return [max(classes, key=lambda c: len(keys & {f.name for f in dataclasses.fields(c)}))]


def _convert_tuple(value: Any, parts: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise _wrong_kind(value, "list or tuple", path)
    if not parts:
        return tuple(value)
    if len(parts) == 2 and parts[1] is Ellipsis:
        return tuple(_convert(v, parts[0], f"{path}[{i}]") for i, v in enumerate(value))
    if len(parts) != len(value):
        raise ValueError(f"config: '{path}' has {len(value)} entries, expected {len(parts)}")
    pairs = zip(value, parts, strict=True)
    return tuple(_convert(v, p, f"{path}[{i}]") for i, (v, p) in enumerate(pairs))


def _convert_mapping(value: Any, parts: tuple[Any, ...], path: str) -> dict[str, Any]:
    mapping = _as_mapping(value, f"'{path}'")
    kind = parts[1] if parts else Any
    return {k: _convert(v, kind, _join(path, str(k))) for k, v in mapping.items()}


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


def _wrong_kind(value: Any, expected: Any, path: str) -> TypeError:
    return TypeError(
        f"config: '{path}' is {value!r} of kind {type(value).__name__}, expected "
        f"{expected if isinstance(expected, str) else _name(expected)}"
    )
