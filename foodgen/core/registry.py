"""ClassRegistry: names to classes, and configuration nodes to connected objects."""

import difflib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from foodgen.core.errors import ConfigError, UserError

Registered = TypeVar("Registered", bound=type)
LARGEST = 1e9  # that a number in a part may be, of either sign: no sensible one is larger
LONGEST = 120  # characters of a value in a message


@cache
def import_parts() -> None:
    """Import every module of foodgen once, so that all parts have registered themselves.

    A module whose package is not installed is left out.
    """
    package = importlib.import_module("foodgen")
    for module in pkgutil.walk_packages(package.__path__, prefix="foodgen."):
        if module.name.startswith("foodgen.web."):  # holds no part, and Gradio takes long to load
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "foodgen").split(".")[0] == "foodgen":
                raise


def suggestion(wrong: str, right: Iterable[str]) -> str:
    """The end of an error message: the nearest right spelling, or all there are."""
    right = sorted(right)
    near = difflib.get_close_matches(wrong, right, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(right) or 'none'}"


def shown(value: Any) -> str:
    """A value in a message, on one line and cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no number of so many digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class ClassRegistry(dict[str, type]):
    """Names to classes, filled by the decorator `add_to_registry`; `kind` is theirs in messages.

    The first look-up that misses imports the whole package, so that nothing is listed twice.
    """

    def __init__(self, kind: str = "part") -> None:
        super().__init__()
        self.kind = kind

    def add_to_registry(self, name: str) -> Callable[[Registered], Registered]:
        """Decorate a class to be found under `name`. Raises ValueError if the name is taken."""

        def add(cls: Registered) -> Registered:
            if name in self:
                raise ValueError(f"{self.kind} '{name}' is registered twice: {self[name]} and {cls}")
            self[name] = cls
            return cls

        return add

    def __missing__(self, name: str) -> type:
        import_parts()
        if name not in self:
            raise ConfigError(f"no {self.kind} is named '{name}'; {suggestion(str(name), self)}")
        return self[name]


models = ClassRegistry("model")
processes = ClassRegistry("process")
objectives = ClassRegistry("objective")
samplers = ClassRegistry("sampler")
guidances = ClassRegistry("guidance")
codecs = ClassRegistry("codec")
datasets = ClassRegistry("dataset")
metrics = ClassRegistry("metric")
spaces = ClassRegistry("feature space")
collectors = ClassRegistry("gatherer")
figures = ClassRegistry("figure")
tables = ClassRegistry("table")
augmentations = ClassRegistry("augmentation")
optimizers = ClassRegistry("optimizer")
schedules = ClassRegistry("schedule")
averages = ClassRegistry("average")
gan_losses = ClassRegistry("GAN loss")
penalties = ClassRegistry("penalty")
discriminator_augmentations = ClassRegistry("augmentation of the discriminator")
trackers = ClassRegistry("tracker")

# The key under which a part stands in a configuration says in which registry its name is looked up.
REGISTRY_OF_KEY: dict[str, ClassRegistry] = {
    "model": models,
    "network": models,
    "process": processes,
    "objective": objectives,
    "sampler": samplers,
    "guidance": guidances,
    "codec": codecs,
    "dataset": datasets,
    "metric": metrics,
    "spaces": spaces,
    "gather": collectors,
    "figures": figures,
    "tables": tables,
    "augment": augmentations,
    "optimizer": optimizers,
    "optimizers": optimizers,
    "schedule": schedules,
    "ema": averages,
    "discriminator": models,
    "generator": models,
    "features": models,
    "loss": gan_losses,
    "penalties": penalties,
    "augmentation": discriminator_augmentations,
    "guidances": guidances,
    "trackers": trackers,
}
COLLECTIONS = {"penalties", "guidances"}  # keys that hold several parts, each under a label; null leaves one out


def build(key: str, node: Mapping[str, Any], path: str = "", **injected: Any) -> Any:
    """Build the part that `node` describes, and the parts inside it first.

    key       the part's key, which chooses the registry ("network", "sampler", ...)
    node      `name` and the constructor's arguments
    path      where the node stands in the configuration, for messages
    injected  values for constructor arguments of these names, at any depth, that no node gives

    Raises ConfigError for an unknown name or argument, a missing one, or a wrong type or value.
    """
    lines = [*mistakes_in(key, node, path or key)]
    if lines:
        raise ConfigError("\n".join(lines))
    return _build(key, node, path or key, injected)


def mistakes_in(key: str, node: Any, path: str) -> Iterator[str]:
    """A line for each mistake in a part, and in the parts inside it, that shows without building anything."""
    import_parts()
    registry = REGISTRY_OF_KEY[key]
    if not isinstance(node, Mapping):
        yield f"{path}: a part is expected, or null to leave it out (got {shown(node)})"
        return
    name = node.get("name")
    if name is None:
        yield f"{path}.name, a word, is missing; {suggestion('', registry)}"
    elif not isinstance(name, str):
        yield f"{path}.name: a word is expected (got {shown(name)}); {suggestion('', registry)}"
    elif name not in registry:
        yield f"{path}.name: no {registry.kind} is named '{name}'; {suggestion(name, registry)}"
    else:
        parameters = inspect.signature(registry[name]).parameters
        for argument, value in node.items():
            where = f"{path}.{argument}"
            if argument == "name":
                continue
            if argument not in parameters:
                yield f"{where}: {name} has no such argument; {suggestion(str(argument), parameters)}"
            else:
                yield from _mistakes_of_argument(registry[name], argument, value, where)


def _mistakes_of_argument(cls: type, name: str, value: Any, path: str) -> Iterator[str]:
    if name in COLLECTIONS and value is not None:
        if not isinstance(value, Mapping):
            yield f"{path}: parts are expected, each under a label (got {shown(value)})"
            return
        parts = {f"{path}.{label}": part for label, part in value.items() if part is not None}
    elif _is_part(name, value):
        parts = {path: value}
    else:
        try:
            _converted(cls, name, value, path)
        except ConfigError as error:
            yield str(error)
        return
    wanted = [kind for kind in _leaves(_hints(cls).get(name, Any)) if isinstance(kind, type)]
    for where, part in parts.items():
        lines = [*mistakes_in(name, part, where)]
        yield from lines
        made = None if lines else REGISTRY_OF_KEY[name][part["name"]]
        if made and Any not in wanted and not issubclass(made, tuple(wanted)):
            yield f"{where}: {made.__name__} is not a {' or '.join(kind.__name__ for kind in wanted)}"


def _is_part(key: str, value: Any) -> bool:
    return key in REGISTRY_OF_KEY and key not in COLLECTIONS and isinstance(value, Mapping)


def _build(key: str, node: Mapping[str, Any], path: str, injected: Mapping[str, Any]) -> Any:
    """The part of a node without mistakes."""
    cls = REGISTRY_OF_KEY[key][node["name"]]
    parameters = inspect.signature(cls).parameters
    arguments = {
        name: _built(name, value, f"{path}.{name}", injected) for name, value in node.items() if name != "name"
    }
    arguments = {name: injected[name] for name in parameters if name in injected} | arguments
    missing = [
        name for name, parameter in parameters.items() if parameter.default is parameter.empty and name not in arguments
    ]
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is missing; signature: {node['name']}({_signature(cls)})")
    arguments = {name: _converted(cls, name, value, f"{path}.{name}") for name, value in arguments.items()}
    try:
        return cls(**arguments)
    except UserError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (RuntimeError, ArithmeticError, MemoryError) as error:  # torch's word on sizes that cannot be
        problem = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{path}: {node['name']} cannot be built of these arguments ({problem})") from error


def _signature(cls: type) -> str:
    bare = (one.replace(annotation=one.empty) for one in inspect.signature(cls).parameters.values())
    return ", ".join(map(str, bare))


def _built(key: str, value: Any, path: str, injected: Mapping[str, Any]) -> Any:
    if _is_part(key, value):
        return _build(key, value, path, injected)
    if key not in COLLECTIONS or value is None:
        return value
    parts = {label: part for label, part in value.items() if part is not None}
    return {label: _build(key, part, f"{path}.{label}", injected) for label, part in parts.items()}


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]


@cache
def _adapter(cls: type, name: str) -> TypeAdapter[Any]:
    settings = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    return TypeAdapter(_hints(cls).get(name, Any), config=settings)


def _converted(cls: type, name: str, value: Any, path: str) -> Any:
    """An argument, converted to the type that the constructor annotates. Raises ConfigError."""
    hint, within = _hints(cls).get(name, Any), [*_values_in(value)]
    leaves = {*_leaves(hint)}
    if leaves & {int, float} and bool not in leaves and any(isinstance(one, bool) for one in within):
        raise ConfigError(f"{path}: a number is expected (got {shown(value)})")
    if any(isinstance(one, int | float) and abs(one) > LARGEST for one in within):
        raise ConfigError(f"{path}: numbers go up to {LARGEST:g} (got {shown(value)})")
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise ConfigError(f"{path}: is empty (got {shown(value)})")
    try:
        return _adapter(cls, name).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "is_instance_of":  # a part of another kind
            kind = problem["ctx"]["class"]
            raise ConfigError(f"{path}: {type(value).__name__} is not a {kind}") from None
        raise ConfigError(f"{path}: {problem['msg']} (got {shown(value)})") from None


def _leaves(hint: Any) -> Iterator[Any]:
    """The types that an annotation is composed of."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if not arguments:
        yield hint
    elif origin is typing.Annotated:
        yield from _leaves(arguments[0])
    elif origin is Callable:
        yield origin
    elif origin is typing.Literal:
        yield from {type(value) for value in arguments}
    else:
        for argument in arguments:
            yield from _leaves(argument)


def _values_in(value: Any) -> Iterator[Any]:
    """A value, or those that a list or a mapping holds, at any depth."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _values_in(one)
    else:
        yield value
