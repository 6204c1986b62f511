"""Configuration files: `extends`, overrides from the command line, checks that name every mistake."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from foodgen.core import locations
from foodgen.core.aliases import read_keys
from foodgen.core.errors import ConfigError
from foodgen.core.registry import REGISTRY_OF_KEY, mistakes_in, shown, suggestion
from foodgen.core.settings import Part

Schema = TypeVar("Schema")
Tree = dict[str, Any]
DEEPEST = 3  # files that may stand above an experiment's own
UNREADABLE = (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError)  # whatever a file may hold
BUNDLED = locations.BUNDLED / "configs" if locations.BUNDLED else None


def load(arguments: Sequence[str], schema: type[Schema], fixed: Mapping[str, str] | None = None) -> Schema:
    """The configuration that `exp.config_path=FILE a.b=value ...` describes.

    arguments  the command line, without the script's name; it wins over the file
    schema     a dataclass of core/settings.py
    fixed      keys, or beginnings of keys, that the command line may not set, and why

    Raises ConfigError with a line for every mistake found.
    """
    for argument in arguments:
        for key, reason in (fixed or {}).items():
            if argument.split("=")[0] == key or argument.startswith(f"{key}."):
                raise ConfigError(f"{argument.split('=')[0]}: {reason}")
    overrides = _overrides(arguments)
    exp = overrides.get("exp")
    if not isinstance(exp, Mapping) or exp.get("config_path") is None:
        raise ConfigError("exp.config_path=FILE is missing")
    tree = merge(read_file(find_file(str(exp["config_path"]))), overrides)
    return check(merge(defaults(schema), tree), schema)


def find_file(name: str) -> Path:
    """The file of this path, or the bundled configuration of this name: "edm" or "small/edm". Raises ConfigError."""
    path = Path(name)
    if not _is_name(path):
        raise ConfigError(f"exp.config_path: {shown(name)} is no file's name")
    if path.exists() or path.suffix or BUNDLED is None:
        return locations.locate(path)
    bundled = (BUNDLED / path).with_suffix(".yaml")
    if not bundled.is_file():
        names = [found.relative_to(BUNDLED).with_suffix("").as_posix() for found in BUNDLED.rglob("*.yaml")]
        raise ConfigError(
            f"exp.config_path: {name} is neither a file nor a bundled configuration; {suggestion(name, names)}"
        )
    return bundled


def _is_name(path: Path) -> bool:
    """Whether there may be a file of this name."""
    try:
        path.exists()
    except (OSError, ValueError):  # too long, for one
        return False
    return True


def merge(parent: Mapping[str, Any], child: Mapping[str, Any]) -> Tree:
    """`child` over `parent`: mappings refine each other, unless the child names another part."""
    merged = dict(parent)
    for key, value in child.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and _is_same_part(old, value):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _is_same_part(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return new.get("name", old.get("name")) == old.get("name")


def read_file(path: Path, depth: int = 0) -> Tree:
    """A YAML file with the files that it `extends` beneath it, interpolations unresolved."""
    if depth > DEEPEST:
        raise ConfigError(f"{path}: 'extends' goes more than {DEEPEST} files deep")
    if not _is_name(path) or not path.is_file():
        raise ConfigError(f"exp.config_path: {_printable(str(path))} is not a file")
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except UNREADABLE as error:
        raise ConfigError(f"{path}: {_on_one_line(error)}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: a mapping of keys is expected")
    tree = read_keys({str(key): value for key, value in loaded.items()})
    above = tree.pop("extends", None)
    if above is None:
        return tree
    return merge(read_file(path.parent / str(above), depth + 1), tree)


def read_saved(path: Path) -> Tree:
    """The configuration in a checkpoint, an exported folder or a run. Raises ConfigError."""
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except UNREADABLE as error:
        raise ConfigError(f"{path}: {_on_one_line(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of keys is expected")
    return read_keys({str(key): value for key, value in tree.items()})


def defaults(schema: type) -> Tree:
    """The values that the run-level sections of `schema` have without any file."""
    tree: Tree = {}
    for section in dataclasses.fields(schema):
        if dataclasses.is_dataclass(section.type):
            tree[section.name] = defaults(section.type)  # type: ignore[arg-type]
        elif section.default is not dataclasses.MISSING and not _is_lazy(section.default):
            tree[section.name] = section.default
        elif _is_lazy(section.default):
            tree[section.name] = section.default.default_factory()  # type: ignore[union-attr]
    return tree


def check(tree: Mapping[str, Any], schema: type[Schema]) -> Schema:
    """The dataclass that `tree` fills, interpolations resolved. Raises ConfigError with a line for every mistake.

    Parts are checked as far as they can be without building them, those that a command does not use, too.
    """
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(dict(tree)), resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        key = getattr(error, "full_key", None) or "configuration"
        raise ConfigError(f"interpolation: {key}: {str(error).splitlines()[0]}") from None
    whole: Tree = {str(key): value for key, value in resolved.items()}  # type: ignore[union-attr]
    checked, lines = None, list[str]()
    try:
        checked = TypeAdapter(schema).validate_python(whole)
    except ValidationError as error:
        lines += _lines(error, whole, schema)
    lines += _mistakes_in_parts(whole, schema)
    if checked is None or lines:
        raise ConfigError("\n".join(lines))
    return checked


def _mistakes_in_parts(tree: Mapping[str, Any], schema: type) -> Iterator[str]:
    """A line for each mistake in the parts of a configuration, of those sections that hold parts at all."""
    for field in dataclasses.fields(schema):
        section = tree.get(field.name)
        if not isinstance(section, Mapping):
            continue
        if field.type == Part:
            if section or not _is_lazy(field.default):  # inference needs no objective
                yield from mistakes_in(field.name, section, field.name)
        elif field.name in REGISTRY_OF_KEY:
            for name, part in section.items():
                if isinstance(part, Mapping):
                    yield from mistakes_in(field.name, part, f"{field.name}.{name}")


def to_tree(config: Any) -> Tree:
    """A checked configuration as plain mappings, lists and values."""
    return dataclasses.asdict(config)


def to_yaml(config: Any) -> str:
    """A checked configuration as the YAML that reproduces it."""
    return OmegaConf.to_yaml(OmegaConf.create(to_tree(config)))


def difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """A line "key: old -> new" for each value that differs."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += difference(before, after, f"{path}{key}.")
        elif before != after:
            lines.append(f"{path}{key}: {before} -> {after}")
    return lines


def _overrides(arguments: Sequence[str]) -> Tree:
    tree: Tree = {}
    for argument in arguments:
        if "=" not in argument or argument.startswith("="):
            raise ConfigError(f"'{argument}': arguments are written key=value, such as train.steps=1000")
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([argument]), resolve=False)
        except (*UNREADABLE, IndexError, KeyError, TypeError) as error:
            raise ConfigError(f"{shown(argument)}: {_on_one_line(error)}") from None
        assert isinstance(parsed, dict)
        tree = merge(tree, {str(key): value for key, value in parsed.items()})
    return read_keys(tree)


def _is_lazy(default: Any) -> bool:
    return getattr(default, "default_factory", None) is not None


def _lines(error: ValidationError, tree: Mapping[str, Any], schema: type) -> Iterator[str]:
    """A readable line for each key that pydantic finds fault with."""
    found: dict[str, list[str]] = {}
    for problem in error.errors():
        *above, last = places = _places(problem, tree)
        key = ".".join(places)
        if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = schema
            for name in above:
                known = next(field.type for field in dataclasses.fields(known) if field.name == name)  # type: ignore
            end = suggestion(last, [field.name for field in dataclasses.fields(known)])
            message = f"unknown key; {end}"
        elif problem["type"] in ("missing", "missing_argument"):
            yield f"{key} is missing"
            continue
        else:
            message = f"{problem['msg'].removeprefix('Value error, ')} (got {shown(problem['input'])})"
        found.setdefault(key, []).append(message)
    for key, messages in found.items():
        if not any(other.startswith(f"{key}.") for other in found):  # else the other is what is meant
            yield f"{_printable(key)}: {'; or '.join(messages)}"


def _places(problem: Any, tree: Any) -> list[str]:
    """The keys on the way to what is wrong, without the members of unions that pydantic names beside them."""
    places, node = list[str](), tree
    for place in problem["loc"]:
        within = (isinstance(node, Mapping) and place in node) or (isinstance(node, list) and isinstance(place, int))
        if within:
            node = node[place]
        if within or problem["type"] in ("missing", "missing_argument"):
            places.append(str(place))
    return places or ["configuration"]


def _printable(text: str) -> str:
    return text if text.isprintable() else shown(text)


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
