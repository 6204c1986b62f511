"""The page in a real browser: generate, change a dish, walk between two, bad values, a killed server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

import train
from tests.conftest import ROOT
from tests.runs import run_of

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium"),
]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def models(tmp_path_factory, dishes):
    """Runs of a tiny denoiser and a tiny GAN."""
    folder = tmp_path_factory.mktemp("page")
    shared = [
        f"exp.exp_dir={folder / 'runs'}", f"data.input_train_dir={dishes / 'train'}",
        f"data.input_val_dir={dishes / 'test'}", "exp.use_wandb=false", "train.val_count=0",
    ]  # fmt: skip
    train.main([f"exp.config_path={ROOT / 'tests' / 'tiny.yaml'}", *shared])
    gan = ["dataset={name: folder}", "data.image_size=16", "data.train_batch_size=8", "train.steps=3"]
    train.main([f"exp.config_path={ROOT / 'configs' / 'small' / 'dcgan.yaml'}", "exp.run=gan", *gan, *shared])
    return folder


def start(folder, port=0):
    """A server, and the address it tells."""
    found = f"models=[{run_of(folder)},{run_of(folder, 'gan')}]"
    command = [sys.executable, "serve.py", "exp.config_path=configs/serve.yaml", found, f"port={port}"]
    server = subprocess.Popen(
        [*command, f"exp.exp_dir={folder / 'runs'}", "exp.device=cpu"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    line = server.stdout.readline()
    assert "the page is at http://127.0.0.1:" in line, line
    return server, line.split()[4]


@pytest.fixture(scope="module")
def served(models):
    server, url = start(models)
    yield url
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 0


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served, request):
    width, height = SIZES[getattr(request, "param", "desktop")]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(served)
    page.wait_for_selector("#generate")
    yield page
    page.close()


def wide(page):
    """Whether something is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1")


def sources(page, gallery="images"):
    return [image.get_attribute("src") for image in page.locator(f"#{gallery} .grid-container img").all()]


def generated(page):
    """Generate and wait until the images are others than before, and final; their addresses."""
    before = sources(page)
    page.click("#generate")
    for _ in range(200):
        page.wait_for_timeout(200)
        found = sources(page)
        if found and found != before and page.locator("#more").is_enabled():
            page.wait_for_timeout(300)
            if sources(page) == found and page.locator("#more").is_enabled():
                return found
    raise AssertionError("no images came")


def choose(page, label, value):
    page.get_by_label(label, exact=True).first.click()
    page.get_by_role("option", name=value, exact=True).click()


@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_dishes_are_generated_and_changed(page):
    first = generated(page)
    assert len(first) == 8
    assert not wide(page)
    inside = page.locator("#images").bounding_box()
    for image in page.locator("#images .grid-container img").all():  # none is cut off at the side
        box = image.bounding_box()
        assert inside["x"] <= box["x"] and box["x"] + box["width"] <= inside["x"] + inside["width"] + 1
    page.locator("#dishes input").click()
    page.get_by_role("option").nth(3).click()
    page.keyboard.press("Escape")
    second = generated(page)
    assert len(second) == 8 and set(second) != set(first)
    assert len(set(page.locator("#images .caption-label").all_inner_texts())) == 2


def test_images_carry_their_settings_and_have_more_like_them(page, tmp_path):
    address = generated(page)[2]
    (tmp_path / "image.png").write_bytes(urlopen(address).read())
    with Image.open(tmp_path / "image.png") as image:
        settings = json.loads(image.text["foodgen"])
    assert (settings["index"], settings["seed"], settings["count"]) == (2, 0, 8)
    assert settings["settings"]["steps"] >= 1
    page.locator("#images .grid-container button").nth(2).click()
    page.wait_for_selector("#images button[aria-label='Download']")
    page.click("#more")
    page.wait_for_selector("#like img", timeout=30_000)
    assert len(sources(page, "like")) == 6


def test_a_gan_has_other_settings(page):
    choose(page, "Model", "gan")
    page.get_by_text("Settings", exact=True).first.click()
    page.get_by_text("Truncation").first.wait_for(state="visible")
    assert not page.get_by_text("Steps", exact=True).first.is_visible()
    assert len(generated(page)) == 8


@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_a_slider_walks_between_two_dishes(page):
    page.get_by_role("tab", name="Between two").click()
    seen = set()
    for _ in range(2):
        page.locator("#position input[type=range]").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(1500)
        page.wait_for_selector("#between img", timeout=30_000)
        seen.add(page.locator("#between img").get_attribute("src"))
    assert len(seen) == 2
    assert not wide(page)


def test_a_bad_value_is_explained(page):
    page.locator("#seed input").fill("-5")
    page.click("#generate")
    page.get_by_text("less than minimum").or_(page.get_by_text("seed: -5")).first.wait_for(timeout=10_000)
    page.locator("#seed input").fill("5")
    page.locator("#dishes").get_by_label("Clear all").or_(page.locator("#dishes .remove-all")).first.click()
    page.click("#generate")
    page.get_by_text("dishes: choose at least one").first.wait_for(timeout=10_000)


@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_a_run_is_shown(page):
    page.get_by_role("tab", name="Runs").click()
    page.get_by_text("model/loss").first.wait_for(timeout=20_000)
    assert not wide(page)


def test_a_killed_server_can_be_started_again(models, browser):
    server, url = start(models)
    page = browser.new_page()
    page.goto(url)
    first = generated(page)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    again, same = start(models, int(url.rstrip("/").rsplit(":", 1)[1]))
    try:
        assert same == url
        page.goto(url)
        images = generated(page)
        assert [urlopen(address).read() for address in images] and len(images) == len(first)
    finally:
        page.close()
        again.kill()
        again.wait()


def status_of(url, body=None):
    headers = {"Content-Type": "application/json"}
    try:
        with urlopen(Request(url, data=body, headers=headers), timeout=30) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def test_nothing_outside_is_read_and_large_requests_are_refused(served):
    for path in ("/etc/passwd", str(ROOT / "README.md"), "../../../../etc/passwd", str(ROOT / "serve.py")):
        assert status_of(f"{served}gradio_api/file={path}") in (403, 404)
    assert status_of(f"{served}gradio_api/queue/join", b'{"data": ["' + b"x" * 200_000 + b'"]}') == 413
    assert status_of(f"{served}gradio_api/queue/join", b"{") in (400, 422)
    assert status_of(served) == 200


def test_many_requests_at_once_are_bounded(served):
    body = json.dumps({"data": [], "fn_index": 2, "session_hash": "many"}).encode()
    with ThreadPoolExecutor(50) as pool:
        codes = list(pool.map(lambda _: status_of(f"{served}gradio_api/queue/join", body), range(50)))
    assert all(code < 500 or code == 503 for code in codes)
    time.sleep(0.5)
    assert status_of(served) == 200
