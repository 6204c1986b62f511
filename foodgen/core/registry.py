"""ClassRegistry: names to classes, and configuration nodes to connected objects."""

import difflib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from foodgen.core.errors import ConfigError, UserError

Registered = TypeVar("Registered", bound=type)


@cache
def import_parts() -> None:
    """Import every module of foodgen once, so that all parts have registered themselves."""
    package = importlib.import_module("foodgen")
    for module in pkgutil.walk_packages(package.__path__, prefix="foodgen."):
        if not module.name.startswith("foodgen.web."):  # holds no part, and wants Gradio, which not everybody has
            importlib.import_module(module.name)


def suggestion(wrong: str, right: Iterable[str]) -> str:
    """The end of an error message: the nearest right spelling, or all there are."""
    right = sorted(right)
    near = difflib.get_close_matches(wrong, right, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(right) or 'none'}"


class ClassRegistry(dict[str, type]):
    """A dictionary of names to classes, filled by the decorator `add_to_registry`.

    kind  of its classes, for error messages

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
    path = path or key
    arguments = dict(node)
    if not isinstance(arguments.get("name"), str):
        raise ConfigError(f"{path}.name, a word, is missing; {suggestion('', REGISTRY_OF_KEY[key])}")
    try:
        cls = REGISTRY_OF_KEY[key][arguments.pop("name")]
    except ConfigError as error:
        raise ConfigError(f"{path}.name: {error}") from None
    parameters = inspect.signature(cls).parameters
    for argument in arguments:
        if argument not in parameters:
            raise ConfigError(
                f"{path}.{argument}: {node['name']} has no such argument; {suggestion(str(argument), parameters)}"
            )
    arguments = {name: _built(name, value, f"{path}.{name}", injected) for name, value in arguments.items()}
    arguments = {name: injected[name] for name in parameters if name in injected} | arguments
    missing = [
        name for name, parameter in parameters.items() if parameter.default is parameter.empty and name not in arguments
    ]
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is missing; signature: {node['name']}{inspect.signature(cls)}")
    arguments = _checked(cls, arguments, path)
    try:
        return cls(**arguments)
    except UserError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _built(key: str, value: Any, path: str, injected: Mapping[str, Any]) -> Any:
    if key in REGISTRY_OF_KEY and isinstance(value, Mapping) and "name" in value:
        return build(key, value, path, **injected)
    if key not in COLLECTIONS or value is None:
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: parts are expected, each under a label (got {value!r})")
    parts = {label: part for label, part in value.items() if part is not None}
    for label, part in parts.items():
        if not isinstance(part, Mapping):
            raise ConfigError(f"{path}.{label}: a part is expected, or null to leave it out (got {part!r})")
    return {label: build(key, part, f"{path}.{label}", **injected) for label, part in parts.items()}


def _checked(cls: type, arguments: dict[str, Any], path: str) -> dict[str, Any]:
    """The arguments, converted to the types that the constructor annotates."""
    hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    checked = {}
    for name, value in arguments.items():
        adapter: TypeAdapter[Any] = TypeAdapter(
            hints.get(name, Any), config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        )
        if isinstance(value, bool) and hints.get(name) in (int, float):
            raise ConfigError(f"{path}.{name}: a number is expected (got {value!r})")
        try:
            checked[name] = adapter.validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]
            if problem["type"] == "is_instance_of":  # a part of another kind
                kind = problem["ctx"]["class"]
                raise ConfigError(f"{path}.{name}: {type(value).__name__} is not a {kind}") from None
            raise ConfigError(f"{path}.{name}: {problem['msg']} (got {value!r})") from None
    return checked
