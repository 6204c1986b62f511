"""The page: generate dishes, walk between two of them, watch runs. On Gradio."""

import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from PIL import Image

from foodgen.core.errors import ConfigError, UserError
from foodgen.web import runs, values
from foodgen.web.requests import Pictures, Request, check, dishes_in_order, generate, model_of, readable, sign
from foodgen.web.values import MOST_SEED, MOST_STEPS

STYLE = """
.pictures img { object-fit: contain !important; width: 100%; height: 100%; image-rendering: auto; }
.pictures .grid-wrap { max-height: none !important; }
@media (max-width: 640px) { .pictures .grid-container { grid-template-columns: repeat(2, 1fr) !important; } }
.caption-label { font-size: 0.8rem; }
footer { display: none !important; }
"""
ABOUT = "# foodgen\n{count} dishes that nobody has cooked: choose some, and a model makes photos of them out of noise."
CHOOSE = "Choose an image to enlarge it, to download it as a PNG with its settings, or to make more like it."
INTERVAL_END = 100.0  # shown for an interval without an end
VARIATIONS, REFRESH = 6, 5.0  # images like a chosen one; seconds between two looks at a run
MOST_BYTES = 100_000  # of a request
Shown = list[tuple[Image.Image, str]]


@contextmanager
def explained() -> Iterator[None]:
    """A user's mistake becomes a message on the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


class Page:
    """The page's parts and what they do.

    models       by name
    folder       of runs
    most_images  of one request
    """

    def __init__(self, models: Mapping[str, Pictures], folder: Path, most_images: int) -> None:
        self.models, self.folder, self.most_images = models, folder, most_images
        self.first = next(iter(models))

    def build(self) -> gr.Blocks:
        """The whole page."""
        classes = self.models[self.first].classes
        with gr.Blocks(title="foodgen", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
            gr.Markdown(ABOUT.format(count=len(classes)))
            with gr.Tab("Generate") as generated:
                self._generate_tab()
            with gr.Tab("Between two") as between:
                self._between_tab(between)
            with gr.Tab("Runs") as watched:
                timer = self._runs_tab(watched)
            for tab in (generated, between):
                tab.select(lambda: gr.Timer(active=False), None, timer)
        return blocks

    # Generate

    def _generate_tab(self) -> None:
        dishes = self._dishes(self.first)
        request, chosen = gr.State(), gr.State(0)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                model = self._model_choice()
                names = gr.Dropdown(dishes, value=[dishes[0][1]], multiselect=True, label="Dishes", elem_id="dishes")
                count = gr.Slider(1, self.most_images, min(8, self.most_images), step=1, label="Images")
                with gr.Row():
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MOST_SEED, elem_id="seed")
                    dice = gr.Button("Another seed", min_width=100)
                settings = self._settings(self.first)
                go = gr.Button("Generate", variant="primary", elem_id="generate")
            with gr.Column(scale=2, min_width=300):
                gr.Markdown(CHOOSE)
                gallery = self._gallery("images")
                more = gr.Button(f"{VARIATIONS} more like the chosen one", elem_id="more", interactive=False)
                like = self._gallery("like", visible=False)
        model.change(self._of_model, model, [names, *settings])
        dice.click(lambda: random.randrange(2**31), None, seed)
        inputs = [model, names, count, seed, *settings]
        gr.on([go.click, seed.submit], self._generate, inputs, [gallery, request, more, like], concurrency_id="model")
        gallery.select(_index, None, chosen)
        more.click(self._more, [request, chosen], like, concurrency_id="model")

    def _generate(
        self, model: str, names: list[str], count: float, seed: float, *settings: Any
    ) -> Iterator[tuple[Any, ...]]:
        """The images after each step, then the request, so that more can be made like one of them."""
        with explained():
            dishes = values.dishes_of(names)
            count = max(values.whole("images", count, 1, self.most_images), len(dishes))
            request = Request(model, dishes, count, values.seed(seed), self._chosen(model, settings))
            for shown in generate(request, check(request, self.models, self.most_images)):
                yield shown, request, gr.update(interactive=False), gr.update(visible=False)
        yield shown, request, gr.update(interactive=True), gr.update(visible=False)

    def _more(self, request: Request | None, index: int) -> Any:
        """Images like image `index` of a request."""
        with explained():
            if not isinstance(request, Request) or index not in range(request.count):
                raise UserError("choose an image first")
            model = check(request, self.models, self.most_images)
            dish = dishes_in_order(request, model.classes)[int(index)]
            images = model.variations(dish, request.seed, index, VARIATIONS, 0.3, **request.settings)
            for number, image in enumerate(images):
                sign(image, asdict(request) | {"dish": dish, "index": index, "variation": number, "strength": 0.3})
        return gr.update(value=[(image, readable(dish)) for image in images], visible=True)

    # Between two

    def _between_tab(self, tab: gr.Tab) -> None:
        dishes = self._dishes(self.first)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                model = self._model_choice()
                ends: list[Any] = []
                for place, dish, seed in (("From", dishes[0], 0), ("To", dishes[-1], 1)):
                    with gr.Row():
                        ends.append(gr.Dropdown(dishes, value=dish[1], label=place, min_width=140))
                        ends.append(gr.Number(seed, label="Seed", precision=0, minimum=0, maximum=MOST_SEED))
                position = gr.Slider(0, 1, 0.5, step=0.05, label="How far on the way", elem_id="position")
                settings = self._settings(self.first)
            with gr.Column(scale=2, min_width=300):
                image = gr.Image(
                    label="Between", format="png", type="pil", interactive=False, height=400,
                    elem_id="between", elem_classes="pictures", buttons=["download", "fullscreen"],
                )  # fmt: skip
        model.change(self._of_model, model, [ends[0], *settings]).then(
            lambda name: gr.update(choices=self._dishes(name)), model, ends[2]
        )
        inputs = [model, *ends, position, *settings]
        changes = [tab.select, position.change, *(end.change for end in ends), *(one.change for one in settings)]
        gr.on(changes, self._between, inputs, image, trigger_mode="always_last", concurrency_id="model",
              show_progress="hidden")  # fmt: skip

    def _between(
        self, model: str, first: str, seed: float, second: str, other: float, position: float, *settings: Any
    ) -> Image.Image:
        """One image on the way."""
        with explained():
            seeds = (values.seed(seed), values.seed(other))
            position = values.number("how far on the way", position, 0, 1)
            request = Request(model, values.dishes_of([first, second]), 2, seeds[0], self._chosen(model, settings))
            pictures = check(request, self.models, max(2, self.most_images))
            (image,) = pictures.interpolate((first, second), seeds, [position], **request.settings)
            sign(image, asdict(request) | {"other_seed": seeds[1], "position": position})
        return image

    # Runs

    def _runs_tab(self, tab: gr.Tab) -> gr.Timer:
        """The tab, which is brought up to date while it is looked at; what does so."""
        found = runs.names(self.folder)
        with gr.Row():
            name = gr.Dropdown(found, value=found[0] if found else None, label=f"Run in {self.folder}", scale=2)
            keys = [gr.Dropdown([], label="Curve", allow_custom_value=True, scale=1) for _ in range(2)]
        with gr.Row():
            plots = [gr.LinePlot(x="step", y="value", height=280, show_label=False, min_width=300) for _ in range(2)]
        grid = gr.Image(label="The newest grid", interactive=False, type="pil", format="png", elem_id="grid")
        table = gr.Dataframe(label="The last rows", interactive=False, wrap=True)
        outputs = [name, *keys, *plots, grid, table]
        timer = gr.Timer(REFRESH, active=False)
        tab.select(lambda: gr.Timer(active=True), None, timer)
        gr.on([tab.select, name.change, *(key.input for key in keys), timer.tick], self._run, [name, *keys], outputs,
              trigger_mode="always_last", concurrency_id="runs", concurrency_limit=4,
              show_progress="hidden")  # fmt: skip
        return timer

    def _run(self, name: str | None, *keys: str | None) -> list[Any]:
        """A run as it stands."""
        found = runs.names(self.folder)
        name = name if name in found else found[0] if found else None
        if name is None:
            return [gr.update(choices=[], value=None), *[gr.skip() for _ in range(6)]]
        with explained():
            rows = runs.rows_of(self.folder, name)
        known = runs.keys_of(rows)
        chosen = [key if key in known else None for key in keys]  # whatever a request says
        for index, _ in enumerate(chosen):
            free = [key for key in known if key not in chosen]
            chosen[index] = chosen[index] or (free[0] if free else None)
        curves = [pd.DataFrame(runs.curve(rows, key or "")) for key in chosen]
        plots = [gr.LinePlot(curve, y_title=key) for curve, key in zip(curves, chosen, strict=True)]
        grid = runs.newest_grid(self.folder, name)
        table = pd.DataFrame(list(reversed(rows[-runs.LAST :])))
        return [
            gr.update(choices=found, value=name),
            *[gr.update(choices=known, value=key) for key in chosen],
            *plots,
            runs.read_grid(grid),
            table.dropna(axis=1, how="all").round(4) if len(table) else table,
        ]

    # what the tabs share

    def _model_choice(self) -> gr.Dropdown:
        names = [(Path(name).name or name, name) for name in self.models]
        return gr.Dropdown(names, value=self.first, label="Model", visible=len(names) > 1)

    def _dishes(self, model: str) -> list[tuple[str, str]]:
        return [(readable(name), name) for name in self.models[model].classes]

    def _settings(self, model: str) -> list[Any]:
        """Guidance, the noise levels that are guided, steps, truncation; of those, what the model has is shown."""
        guidance, low, high, steps, truncation = self._values(model)
        with gr.Accordion("Settings", open=False):
            return [
                _shown(gr.Slider, guidance, 0, 8, step=0.1, label="Guidance scale"),
                _shown(gr.Number, low, minimum=0, label="Guide above noise level"),
                _shown(gr.Number, high, minimum=0, label="and below"),
                _shown(gr.Slider, steps, 1, MOST_STEPS, step=1, label="Steps"),
                _shown(gr.Slider, truncation, 0, 1, step=0.05, label="Truncation: towards 0 typical, alike"),
            ]

    def _values(self, model: str) -> list[float | None]:
        """The model's own settings, in the order of the page's; None for those that it does not have."""
        own = self.models[model].settings
        low, high = own.get("interval") or (None, None)
        if "interval" in own and high is None:
            high = INTERVAL_END
        return [own.get("guidance"), low, high, own.get("steps"), own.get("truncation")]

    def _of_model(self, model: str) -> list[Any]:
        """The dishes and the settings of a model that has been chosen."""
        with explained():
            model_of(model, self.models)
        settings = [
            gr.update(visible=False) if value is None else gr.update(visible=True, value=value)
            for value in self._values(model)
        ]
        return [gr.update(choices=self._dishes(model)), *settings]

    def _chosen(self, model: str, settings: tuple[Any, ...]) -> dict[str, Any]:
        """Those of the page's settings that the model has. Raises UserError if there is no such model."""
        own = model_of(model, self.models).settings
        scale, low, high, steps, truncation = settings
        end = values.number("interval", high) if "interval" in own else None
        interval = [low, None if end == INTERVAL_END else end]  # some samplers start at a higher level still
        given: dict[str, Any] = {"guidance": scale, "interval": interval, "truncation": truncation}
        if "steps" in own:
            given["steps"] = values.whole("steps", steps, 1, MOST_STEPS)
        return {name: value for name, value in given.items() if name in own}

    def _gallery(self, name: str, visible: bool = True) -> gr.Gallery:
        return gr.Gallery(
            show_label=False, format="png", columns=4, object_fit="contain", height="auto", interactive=False,
            elem_id=name, elem_classes="pictures", visible=visible, buttons=["download", "fullscreen"],
        )  # fmt: skip


def _index(event: gr.SelectData) -> int:
    """The chosen image's place; -1, which is none, for what is no place."""
    return event.index if isinstance(event.index, int) else -1


def _shown(component: Any, value: float | None, *arguments: Any, **more: Any) -> Any:
    """A component with a value; hidden, at its least one, where there is none."""
    least = arguments[0] if arguments else more["minimum"]
    return component(*arguments, value=least if value is None else value, visible=value is not None, **more)


def build(models: Mapping[str, Pictures], folder: Path, most_images: int) -> gr.Blocks:
    """The page of some models, and of the runs in a folder."""
    return Page(models, folder, most_images).build()


def launch(blocks: gr.Blocks, host: str, port: int, most_waiting: int) -> int:
    """Serve until interrupted. Raises ConfigError if the port is taken."""
    port = port or _free_port(host)
    try:
        _, url, _ = blocks.queue(max_size=most_waiting, default_concurrency_limit=1, api_open=False).launch(
            server_name=host, server_port=port, share=False, quiet=True, show_error=True, prevent_thread_lock=True,
            max_file_size="1kb", footer_links=[], css=STYLE, theme=gr.themes.Soft(), ssr_mode=False,
            app_kwargs={"max_body_size": MOST_BYTES},
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"port: {port} of {host} cannot be listened at ({error})") from None
    print(f"the page is at {url} until you press Ctrl-C", flush=True)
    blocks.block_thread()
    return 0


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
