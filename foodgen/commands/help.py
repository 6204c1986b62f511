"""Help texts: the keys of a configuration, and the registered parts, from the code itself."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from foodgen.core import registry
from foodgen.core.errors import ConfigError
from foodgen.core.registry import ClassRegistry, import_parts, suggestion


def describe_keys(schema: type) -> str:
    """A line for each key of a schema of core/settings.py: its type, default and meaning."""
    return "\n".join(_lines(schema, ""))


def _lines(schema: Any, prefix: str) -> Iterator[str]:
    for name, field in schema.__pydantic_fields__.items():
        kind = field.annotation
        if dataclasses.is_dataclass(kind):
            yield from _lines(kind, f"{prefix}{name}.")
            continue
        default = "" if field.is_required() else f" = {_shown(field.get_default(call_default_factory=True))}"
        yield f"{prefix}{name}: {_type_name(kind)}{default}  ({_meaning(schema, name)})"


def _meaning(schema: type, name: str) -> str:
    """The text under the key; a schema that extends another has it only there."""
    known = [vars(base)["__pydantic_fields__"] for base in schema.__mro__ if "__pydantic_fields__" in vars(base)]
    return next((fields[name].description for fields in known if name in fields and fields[name].description), "")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _type_name(get_args(kind)[0])
    if kind is type(None):
        return "null"
    if get_origin(kind) in (dict, Mapping):
        return "mapping"
    if get_origin(kind) is list:
        return f"list of {_type_name(get_args(kind)[0])}"
    if get_args(kind):
        return " or ".join(
            _type_name(one) if isinstance(one, type) or get_origin(one) else str(one) for one in get_args(kind)
        )
    return str(getattr(kind, "__name__", kind))


def registries() -> dict[str, ClassRegistry]:
    """All registries, by the names of core/registry.py."""
    return {name: value for name, value in vars(registry).items() if isinstance(value, ClassRegistry)}


def describe_parts(names: Sequence[str]) -> str:
    """The parts of the registries of these names, or of all, each with the first line of its docstring."""
    import_parts()
    known = registries()
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no kind of part '{name}'; {suggestion(name, known)}")
    lines = []
    for kind in names or known:
        lines.append(f"{kind}:")
        for name, part in sorted(known[kind].items()):
            lines.append(f"  {name}: {(inspect.getdoc(part) or '').splitlines()[0]}")
    return "\n".join(lines)
