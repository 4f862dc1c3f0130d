"""One dataclass definition serves the command line, the checkpoint and the documentation."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar

from trajplan.errors import ConfigError, did_you_mean

C = TypeVar("C")
V = TypeVar("V")

# What a value must be, by the name of the function that reads it.
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "int or none": "a whole number, or none",
    "float or none": "a number, or none",
}


def option(default: Any, help: str, group: str = "", was: str = "") -> Any:
    """A dataclass field of a setting.

    Args:
        default: its value where none is given.
        help: the sentence that `--help` and the documentation print.
        group: under which they print it.
        was: its name in earlier versions, still read by `from_dict` and as a flag that `--help` does not show.
    """
    return dataclasses.field(default=default, metadata={"help": help, "group": group, "was": was})


def add_arguments(parser: argparse.ArgumentParser, config_class: type, title: str) -> None:
    """Add one `--field-name` per field of `config_class`; only those given on the command line are set."""
    groups: dict[str, Any] = {}
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        help = f"{field.metadata['help']} (default: {_show(field.default)})".replace("%", "%%")
        keywords: dict[str, Any] = {"default": argparse.SUPPRESS, "help": help}
        inner, optional = _unwrap(hints[field.name])
        if inner is bool:
            keywords["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(inner) is Literal:
            keywords["choices"] = typing.get_args(inner)
        else:
            keywords |= {"type": _parser(inner, optional), "metavar": inner.__name__.upper()}
        name = field.metadata.get("group", "")
        if name not in groups:
            groups[name] = parser.add_argument_group(f"{name} {title}".strip())
        groups[name].add_argument("--" + field.name.replace("_", "-"), **keywords)
        if was := field.metadata.get("was"):
            hidden = keywords | {"dest": field.name, "help": argparse.SUPPRESS}
            groups[name].add_argument("--" + was.replace("_", "-"), **hidden)


def given(args: argparse.Namespace, config_class: type) -> dict[str, Any]:
    """The fields of `config_class` that the command line set."""
    names = [field.name for field in dataclasses.fields(config_class)]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def parse_value(config_class: type, name: str, text: str) -> Any:
    """The value of a field from what a person typed: as `--field-name` takes it, a switch as true or false."""
    hint = typing.get_type_hints(config_class)[name]
    inner, optional = _unwrap(hint)
    if inner is bool:
        require(text.lower() in ("true", "false"), name, repr(text), "be true or false")
        return text.lower() == "true"
    if typing.get_origin(inner) is Literal:
        return _checked(name, text, hint)
    parse = _parser(inner, optional)
    try:
        return parse(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}; it must be {KINDS[parse.__name__]}.") from None


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as a JSON-able dictionary."""
    return dataclasses.asdict(config)


def from_dict(config_class: type[C], values: Mapping[str, Any]) -> C:
    """A config from a dictionary."""
    values = renamed(values, config_class)
    known = [field.name for field in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        hint = did_you_mean(unknown[0], known) or f"it has {', '.join(known)}."
        raise ConfigError(f"{config_class.__name__} has no setting {', '.join(map(repr, unknown))}; {hint}")
    hints = typing.get_type_hints(config_class)
    return config_class(**{name: _checked(name, value, hints[name]) for name, value in values.items()})


def renamed(values: Mapping[str, V], *config_classes: type) -> dict[str, V]:
    """The values under today's names: those that earlier versions called otherwise (`option(was=...)`) among them."""
    fields = (field for config_class in config_classes for field in dataclasses.fields(config_class))
    today = {field.metadata.get("was"): field.name for field in fields}
    return {today.get(name, name): value for name, value in values.items()}


def require(holds: bool, name: str, value: object, must: str) -> None:
    """Refuse a setting."""
    if not holds:
        raise ConfigError(f"{name} is {value}; it must {must}.")


def changes(now: Any, before: Any, free: Collection[str] = ()) -> list[str]:
    """How a config differs from another of its class, as phrases `name is X and was Y`; names in `free` may differ."""
    names = [field.name for field in dataclasses.fields(now) if field.name not in free]
    changed = [name for name in names if getattr(now, name) != getattr(before, name)]
    return [f"{name} is {getattr(now, name)} and was {getattr(before, name)}" for name in changed]


def _checked(name: str, value: Any, hint: Any) -> Any:
    inner, optional = _unwrap(hint)
    if value is None and optional:
        return None
    if typing.get_origin(inner) is Literal:
        require(value in typing.get_args(inner), name, repr(value), f"be among {', '.join(typing.get_args(inner))}")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if inner is int and number and float(value).is_integer():
        return int(value)
    require(number if inner is float else type(value) is inner, name, repr(value), f"be of type {inner.__name__}")
    return value


def _unwrap(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(inner) == 1:
            return inner[0], True
        raise TypeError(f"a config field of type {hint} has no command-line form")
    return hint, False


def _parser(inner: type, optional: bool) -> Any:
    def parse(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        return inner(text)

    parse.__name__ = f"{inner.__name__}{' or none' if optional else ''}"
    return parse


def _show(default: Any) -> str:
    return "none" if default is None else str(default)
