"""Names to classes, nodes to objects, mistakes to messages."""

import pytest

from foodgen.core.errors import ConfigError
from foodgen.core.registry import REGISTRY_OF_KEY, ClassRegistry, build, processes, samplers


@pytest.fixture
def shapes(monkeypatch):
    registry = ClassRegistry("shape")
    monkeypatch.setitem(REGISTRY_OF_KEY, "shape", registry)

    @registry.add_to_registry(name="point")
    class Point:
        def __init__(self, a: int = 1, b: float = 0.0):
            if a < 0:
                raise ValueError(f"a: {a} is below 0")
            self.a, self.b = a, b

    @registry.add_to_registry(name="box")
    class Box:
        def __init__(self, shape: object, size: int, sides: tuple[int, ...] = ()):
            self.shape, self.size, self.sides = shape, size, sides

    return registry


def test_the_decorator_fills_a_dictionary(shapes):
    assert shapes["point"](b=2).b == 2
    assert set(shapes) == {"point", "box"}
    assert isinstance(shapes, dict)


def test_a_name_is_taken_once(shapes):
    with pytest.raises(ValueError, match="twice"):
        shapes.add_to_registry(name="point")(int)


def test_parts_are_found_without_being_listed():
    assert processes["edm"].__name__ == "EDM"
    assert samplers["heun"].__name__ == "Heun"


def test_builds_inside_out(shapes):
    box = build("shape", {"name": "box", "sides": [1, 2], "shape": {"name": "point", "a": 3}}, size=7)
    assert (box.shape.a, box.size, box.sides) == (3, 7, (1, 2))


def test_a_given_argument_beats_the_ambient_one(shapes):
    assert build("shape", {"name": "point", "a": 3}, a=9).a == 3


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "pont"}, r"shape\.name: no shape is named 'pont'; did you mean 'point'"),
        ({"a": 1}, r"shape\.name, a word, is missing"),
        ({"name": "point", "aa": 1}, r"shape\.aa: point has no such argument; did you mean 'a'|there are: a, b"),
        ({"name": "point", "a": "many"}, r"shape\.a: .*integer.*'many'"),
        ({"name": "point", "b": float("nan")}, r"shape\.b: .*finite"),
        ({"name": "point", "a": -1}, r"shape: a: -1 is below 0"),
        ({"name": "box", "shape": {"name": "point"}}, r"shape\.size is missing; signature: box\("),
        ({"name": "box", "size": 1, "shape": {"name": "point", "a": "x"}}, r"shape\.shape\.a: "),
    ],
)
def test_mistakes_are_named_with_their_place(shapes, node, message):
    with pytest.raises(ConfigError, match=message):
        build("shape", node)
