"""What the page asks of a model, and what it shows of runs, without a browser."""

import json

import pytest
from PIL import Image

from foodgen.core.errors import UserError
from foodgen.web import runs
from foodgen.web.requests import TEXT, Request, check, dishes_in_order, generate


class Plain:
    """A model of plain images, as bright as its steps have gone."""

    classes = ("apple_pie", "pizza", "sushi")

    def trajectory(self, classes, seed, count, **settings):
        for step in range(settings.get("steps", 3)):
            yield [Image.new("RGB", (8, 8), (step, seed, 0)) for _ in range(count)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "other"}, "model: there is no 'other'"),
        ({"dishes": ()}, "dishes: choose at least one"),
        ({"dishes": ("pizza", "../x")}, "dishes: this model does not know ../x"),
        ({"count": 17}, "images: 17 is not between 1, one a dish, and 16"),
        ({"dishes": ("pizza", "sushi"), "count": 1}, "images: 1 is not between 2"),
        ({"seed": -1}, "seed: -1 is not between 0 and"),
        ({"seed": 2**31}, "seed: 2147483648 is not"),
    ],
)
def test_what_cannot_be_is_refused(changed, message):
    request = Request(**({"model": "plain", "dishes": ("pizza",), "count": 4, "seed": 0} | changed))
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        check(request, {"plain": Plain()}, 16)


def test_images_come_step_by_step_and_carry_their_settings(tmp_path):
    request = Request("plain", ("sushi", "apple_pie"), 3, 7, {"steps": 4})
    assert dishes_in_order(request, Plain.classes) == ["apple_pie", "sushi", "sushi"]
    steps = list(generate(request, Plain()))
    assert [images[0][0].getpixel((0, 0))[0] for images in steps] == [0, 1, 2, 3, 3]
    assert [caption for _, caption in steps[-1]] == ["apple pie", "sushi", "sushi"]
    settings = json.loads(steps[-1][1][0].info[TEXT])
    assert settings == {
        "model": "plain", "dishes": ["sushi", "apple_pie"], "count": 3, "seed": 7, "settings": {"steps": 4},
        "dish": "sushi", "index": 1,
    }  # fmt: skip


def test_a_run_is_read_while_it_is_written(tmp_path):
    rows = [{"step": step, "images": 8 * step, "model/loss": 1 / step} for step in range(1, 2001)]
    (tmp_path / "one").mkdir()
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "one" / "metrics.jsonl").write_text(text + '\n{"step": 2001, "mod')
    assert runs.names(tmp_path) == ["one"]
    assert runs.rows_of(tmp_path, "one") == rows
    curve = runs.curve(rows, "model/loss")
    assert (curve["step"][0], curve["value"][0]) == (1.0, 1.0)
    assert 400 < len(curve["step"]) <= 1000
    assert runs.keys_of([*rows, {"step": 2001, "val/fid": 40.0}]) == ["model/loss", "val/fid"]
    for name in ("../one", "two", None):
        with pytest.raises(UserError, match="run: there is no"):
            runs.rows_of(tmp_path, name)


def test_the_newest_grid_is_shown(tmp_path):
    assert runs.newest_grid(tmp_path, "one") is None
    (tmp_path / "one" / "grids").mkdir(parents=True)
    for step in (10, 20):
        Image.new("RGB", (8, 8)).save(tmp_path / "one" / "grids" / f"step-{step:08d}.png")
    assert runs.newest_grid(tmp_path, "one").name == "step-00000020.png"
