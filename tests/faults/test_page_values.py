"""The page without a browser: whatever its inputs hold is bounded, and refused in one line; images tell no paths."""

import io
import json
import math
import os

import pytest
from PIL import Image

from foodgen.core.errors import UserError
from foodgen.web import runs
from foodgen.web.requests import TEXT, Request, check, generate, sign

gr = pytest.importorskip("gradio")
from foodgen.web.page import Page  # noqa: E402

HOME = "/home/someone/secret"
CLASSES = ["apple_pie", "pizza", "sushi"]
OWN = (3.0, 0.2, 5.0, 4, 0.7)  # guidance, interval, steps, truncation


class Model:
    """Plain images; a model that has every setting of the page."""

    classes = CLASSES
    settings = {"guidance": 3.0, "interval": [0.2, 5.0], "steps": 4, "truncation": 0.7}  # noqa: RUF012

    def trajectory(self, classes, seed, count, **settings):
        for _ in range(settings["steps"]):
            yield [Image.new("RGB", (8, 8)) for _ in range(count)]

    def interpolate(self, classes, seeds, positions, **settings):
        return [Image.new("RGB", (8, 8)) for _ in positions]

    def variations(self, name, seed, index, count, strength, **settings):
        return [Image.new("RGB", (8, 8)) for _ in range(count)]


@pytest.fixture
def page(tmp_path):
    return Page({f"{HOME}/edm": Model(), "checkpoints/gan": Model()}, tmp_path, 16)


def one_line(call):
    """What the page says to a refused request."""
    with pytest.raises((gr.Error, UserError)) as raised:
        result = call()
        list(result) if hasattr(result, "__next__") else None
    text = str(getattr(raised.value, "message", raised.value))
    assert text.isprintable() and 0 < len(text) < 200, text
    return text


def generation(page, **changes):
    given = {"model": f"{HOME}/edm", "names": ["pizza"], "count": 4, "seed": 0} | changes
    settings = given.pop("settings", OWN)
    return page._generate(*given.values(), *settings)


NO_NUMBERS = ["4", "x" * 10**5, [], [4], {}, {"a": 1}, True, float("nan"), object()]
OUTSIDE = [-1, float("inf"), float("-inf"), 1e308, -1e308, 10**400, 10**5000, -(10**5000)]


@pytest.mark.parametrize("value", [*NO_NUMBERS, *OUTSIDE, 0, 17, 2.5, None], ids=lambda value: type(value).__name__)
def test_a_count_that_cannot_be_is_refused(page, value):
    assert one_line(lambda: generation(page, count=value)).startswith("images: ")


@pytest.mark.parametrize("value", [*NO_NUMBERS, *OUTSIDE, 0.5, 2**31], ids=lambda value: type(value).__name__)
def test_a_seed_that_cannot_be_is_refused(page, value):
    assert one_line(lambda: generation(page, seed=value)).startswith("seed: ")
    call = lambda: page._between(f"{HOME}/edm", "pizza", 0, "sushi", value, 0.5, *OWN)  # noqa: E731
    assert one_line(call).startswith("seed: ")


@pytest.mark.parametrize(("place", "name"), enumerate(["guidance", "interval", "interval", "steps", "truncation"]))
@pytest.mark.parametrize("value", [*NO_NUMBERS, *OUTSIDE, None], ids=lambda value: type(value).__name__)
def test_settings_that_cannot_be_are_refused_before_a_model_works(page, place, name, value, monkeypatch):
    monkeypatch.setattr(Model, "trajectory", lambda *_, **__: pytest.fail("the model works"))
    settings = [*OWN[:place], value, *OWN[place + 1 :]]
    assert one_line(lambda: generation(page, settings=settings)).startswith(f"{name}: ")


@pytest.mark.parametrize(("shown", "expected"), [(100.0, [0.2, None]), (5.0, [0.2, 5.0]), (2e5, [0.2, 2e5])])
def test_an_interval_without_an_end_stays_without_one(page, shown, expected, monkeypatch):
    """DDPM's linear schedule starts at a noise level of 157, which the shown 100 would leave out."""
    seen = []
    trajectory = Model.trajectory
    monkeypatch.setattr(
        Model, "trajectory", lambda *given, **settings: seen.append(settings) or trajectory(*given, **settings)
    )
    list(generation(page, settings=(3.0, 0.2, shown, 4, 0.7)))
    assert seen[0]["interval"] == expected


def test_more_steps_than_the_slider_has_are_refused(page):
    assert one_line(lambda: generation(page, settings=(3.0, 0.2, 5.0, 10**9, 0.7))).startswith(
        "steps: 1000000000 is not"
    )


@pytest.mark.parametrize(
    "names",
    [3, "pizza", {"a": 1}, [1], [None], [["pizza"]], ["../x"], ["pizza\n" * 9], ["x" * 10**6], [], None, [math.nan]],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_dishes_that_cannot_be_are_refused(page, names):
    assert one_line(lambda: generation(page, names=names)).startswith("dishes: ")


def test_a_huge_list_of_dishes_is_refused_at_once(page):
    assert one_line(lambda: generation(page, names=["pizza"] * 10**6)).startswith("images: 1000000 is not between")


MODELS = ["other", "../edm", f"{HOME}/../edm", "/etc/passwd", "", None, 3, ["edm"], {}, "x" * 10**5, "a\0b", "a\nb"]


@pytest.mark.parametrize("name", MODELS, ids=lambda value: type(value).__name__)
def test_a_model_that_is_not_offered_is_refused(page, name):
    """A name is looked up among those offered and is never a path."""
    for call in (
        lambda: generation(page, model=name),
        lambda: page._between(name, "pizza", 0, "sushi", 1, 0.5, *OWN),
        lambda: page._of_model(name),
        lambda: page._more(Request(name, ("pizza",), 4, 0), 0),
        lambda: check(Request(name, ("pizza",), 4, 0), page.models, 16),
    ):
        assert one_line(call).startswith("model: there is no ")


@pytest.mark.parametrize("position", [*NO_NUMBERS, *OUTSIDE, 1.01, None], ids=lambda value: type(value).__name__)
def test_a_position_that_cannot_be_is_refused(page, position):
    call = lambda: page._between(f"{HOME}/edm", "pizza", 0, "sushi", 1, position, *OWN)  # noqa: E731
    assert one_line(call).startswith("how far on the way: ")


@pytest.mark.parametrize("index", [-1, 4, 10**9, None, "0", [0], 0.5, float("nan")])
def test_an_image_that_is_not_there_has_no_variations(page, index):
    assert one_line(lambda: page._more(Request(f"{HOME}/edm", ("pizza",), 4, 0), index)) == "choose an image first"
    assert one_line(lambda: page._more(index, 0)) == "choose an image first"


@pytest.mark.parametrize("path", [f"{HOME}/edm", "../secret/edm", "~/secret/edm", f"{HOME}/edm/", "edm"])
def test_images_tell_the_models_name_and_no_path(path, tmp_path):
    """In generated ones, between two, variations, and in the PNG files."""
    page = Page({path: Model()}, tmp_path, 16)
    steps = [*generation(page, model=path)]
    images = [image for image, _ in steps[-1][0]]
    images.append(page._between(path, "pizza", 0, "sushi", 1, 0.5, *OWN))
    images += [image for image, _ in page._more(steps[-1][1], 1)["value"]]
    assert len(images) == 4 + 1 + 6
    for image in images:
        settings = json.loads(image.info[TEXT])
        assert settings["model"] == "edm"
        assert "/" not in image.info[TEXT] and "secret" not in image.info[TEXT]
        whole = io.BytesIO()
        image.save(whole, "PNG")
        assert b"secret" not in whole.getvalue()


def test_a_hubs_name_is_kept_in_images():
    image = Image.new("RGB", (8, 8))
    sign(image, {"model": "hub:me/food"})
    assert json.loads(image.info[TEXT])["model"] == "hub:me/food"


NAMES = ["../one", "../../etc", "/etc", ".", "..", "one/../one", "one/", "", None, 3, ["one"], "x" * 10**4, "a\0b"]


@pytest.mark.parametrize("name", NAMES, ids=lambda value: type(value).__name__)
def test_a_run_that_is_not_in_the_folder_is_not_read(page, tmp_path, name):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path.parent / "metrics.jsonl").write_text('{"step": 1, "secret": 2.0}\n')
    assert one_line(lambda: runs.rows_of(tmp_path, name)).startswith("run: there is no")
    shown = page._run(name, None, None)  # the page shows a run that there is
    assert shown[0]["value"] == "one"
    assert "secret" not in str(shown)


ROWS = [
    '{"step": "x", "loss": 1}', '{"step": null, "loss": 1}', '{"loss": 1}', '{"step": 1, "loss": NaN}',
    '{"step": 2, "loss": Infinity}', '{"step": 1e999, "loss": 1}', '{"step": 1, "loss": [1, 2]}', "[]", "3", "{",
    "[" * 10**5, '{"step": ' + "9" * 400 + ', "loss": ' + "9" * 400 + "}", '{"step": 3, "loss": true}', "\ufffd",
    '{"step": ' + "9" * 5000 + "}", '{"step": {"a": 1}, "loss": "1"}', '{"step": 4, "loss": 0.5}',
]  # fmt: skip


def test_malformed_rows_of_a_run_are_left_out(page, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "metrics.jsonl").write_text("\n".join(ROWS) + "\n")
    rows = runs.rows_of(tmp_path, "one")
    assert runs.keys_of(rows) == ["loss"]
    points = runs.curve(rows, "loss")
    assert (points["step"][-1], points["value"][-1]) == (4.0, 0.5)
    assert all(math.isfinite(step) for step in points["step"])
    assert page._run("one", "loss", ["x"])[0]["value"] == "one"


@pytest.mark.parametrize("content", [b"", b"no PNG", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_a_broken_grid_is_not_shown(page, tmp_path, content):
    (tmp_path / "one" / "grids").mkdir(parents=True)
    (tmp_path / "one" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "one" / "grids" / "step-1.png").write_bytes(content)
    assert page._run("one", None, None)[5] is None


def test_a_run_that_goes_while_it_is_looked_at_is_left_out(page, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "grids").mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "one" / "metrics.jsonl").unlink()
    (tmp_path / "one" / "metrics.jsonl").symlink_to("gone")
    (tmp_path / "three").mkdir()
    os.mkfifo(tmp_path / "three" / "metrics.jsonl")  # reading it would wait
    (tmp_path / "two" / "grids" / "step-2.png").symlink_to("gone")
    assert runs.names(tmp_path) == ["two"]
    assert runs.newest_grid(tmp_path, "two") is None
    assert page._run("one", None, None)[0]["value"] == "two"


def test_what_is_good_passes(page):
    """The bounds refuse nothing that the page offers."""
    for count, settings in ((1, (0, 0, 0, 1, 0)), (16, (8, 100.0, 1000, 100, 1)), (2.0, OWN)):
        shown = [*generation(page, count=count, seed=2**31 - 1, settings=settings)][-1][0]
        assert len(shown) == count
    request = Request(f"{HOME}/edm", ("pizza",), 2, 0, {"steps": 2})
    assert len(list(generate(request, check(request, page.models, 16)))) == 3
