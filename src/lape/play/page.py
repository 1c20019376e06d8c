"""One thought, the page, in gradio: what can be set, the two answers, and the same in Python. It listens on this machine only, loads nothing
from anywhere else, and says so to the browser, which then refuses to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lape.errors import LapeError
from lape.extras import need
from lape.model.load import ModelOptions
from lape.play.asking import METHODS, Asked
from lape.play.code import snippet
from lape.play.form import FIRST, HOW, NEW, PENALTY, RATE, SHADES, STRENGTH, Span, asked_of, shade_of, values_of
from lape.play.names import name_of, short_name
from lape.play.presets import Preset, presets_for
from lape.play.server import HOST, Guard, guarding
from lape.play.session import Answers, Session
from lape.play.shading import EMPTY, alert, header, page, status
from lape.play.style import CSS, theme

EVERY = 0.1
"""Seconds between two looks at an answer while it is written."""
AT_ONCE = 4
"""Prompts answered at the same time. Others wait: the more there are, the slower each is written."""


@dataclass(frozen=True)
class Place:
    """Where the model and its run come from, as they were named."""

    model: str
    run: str
    loading: ModelOptions = field(default_factory=ModelOptions)


def gradio() -> Any:
    """The package. Raises OptionError where it is missing."""
    need("play", "The page", "gradio")
    import gradio

    return gradio


def serve(session: Session, place: Place, port: int, *, browser: bool = False) -> Any:
    """Serve the page on 127.0.0.1 from threads of its own. What comes back ends with `.close()`; `.block_thread()` waits for Ctrl-C."""
    blocks = build(session, place)
    calls = {number: len(call.inputs) for number, call in blocks.fns.items()}
    blocks.queue(default_concurrency_limit=1).launch(
        server_name=HOST,
        server_port=port,
        share=False,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        app_kwargs={"lifespan": guarding(calls)},
        theme=theme(gradio()),
        css=CSS,
    )
    if not isinstance(blocks.app.middleware_stack, Guard):
        blocks.close(verbose=False)
        raise RuntimeError(
            "The page's server started without its protection against other pages. Another version of gradio may help: pip install -U gradio"
        )
    return blocks


def build(session: Session, place: Place) -> Any:
    """The page, not served yet."""
    gr = gradio()
    named = [(name_of(language), language) for language in session.stats.languages]
    presets = presets_for(session.stats.languages)
    # without analytics gradio asks nobody for its newest version either
    with gr.Blocks(title="lape play", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(header(session.stats, place.model, place.run), js_on_load=None)
        buttons = _buttons(gr, presets)
        button, controls = _controls(gr, session, presets, named)
        with gr.Row(equal_height=True):
            with gr.Column(scale=3, min_width=280):
                said = gr.HTML(status("Ask something, or choose an example."), js_on_load=None)
            with gr.Column(scale=2, min_width=280):
                shade = gr.Dropdown(
                    [*((name, key) for key, name in SHADES.items()), *named],
                    value="target",
                    label="Shade tokens by the neurons of",
                    filterable=False,
                    elem_id="shade",
                )
        shown = gr.HTML(EMPTY, js_on_load=None)
        with gr.Accordion("The same in Python", open=False):
            code = gr.Code(
                "", interactive=False, label="Steered answer, as a program", wrap_lines=True, show_line_numbers=False
            )
        last = gr.State(None)
        quietly: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "preprocess": False}
        asking: dict[str, Any] = {
            "fn": partial(_written, session, place),
            "inputs": [*controls, shade],
            "outputs": [said, shown, code, last],
            "concurrency_id": "model",
            "concurrency_limit": AT_ONCE,
            **quietly,
        }
        button.click(**asking)
        controls[0].submit(**asking)
        for example, preset in zip(buttons, presets, strict=True):
            values = values_of(preset.asked, session.stats)
            example.click(lambda values=values: values, None, controls, **quietly).then(**asking)
        shade.change(partial(_reshaded, session), [last, shade], [said, shown], **quietly)
    return blocks


def _controls(gr: Any, session: Session, presets: Sequence[Preset], named: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The button and the form, in the order of `values_of`, filled in with the first example that fits."""
    languages = session.stats.languages
    first = presets[0].asked if presets else Asked("", languages[0], languages[-1])
    prompt, source, target, method, rate, strength, how, span, new, penalty, bare = values_of(first, session.stats)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            text = gr.Textbox(
                prompt, label="Prompt", lines=3, max_lines=8, placeholder="A question, in the language chosen below"
            )
            with gr.Row():
                of = gr.Dropdown(named, value=source, label="From: the prompt's language", filterable=False)
                to = gr.Dropdown(named, value=target, label="To: the language to steer to", filterable=False)
            button = gr.Button("Ask twice", variant="primary")
        with gr.Column(scale=2, min_width=300):
            ways = gr.Dropdown(
                [(f"{name}: {detector.about}", name) for name, detector in METHODS.items()],
                value=method,
                label="Method: how neurons are chosen",
                filterable=False,
            )
            power = _slider(gr, STRENGTH, strength)
            share = _slider(gr, RATE, rate)
    with gr.Accordion("More settings", open=False), gr.Row():
        act = gr.Dropdown(
            list(HOW),
            value=how,
            label="What is done: source's neurons off (off+); target's set, added to or scaled",
            filterable=False,
            min_width=220,
        )
        begun = _slider(gr, FIRST, span, min_width=220)
        most = _slider(gr, NEW, new, min_width=220)
        again = _slider(gr, PENALTY, penalty, min_width=220)
        plain = gr.Checkbox(bare, label="Continue the text as it is, instead of asking it as a question", min_width=220)
    return button, [text, of, to, ways, share, power, act, begun, most, again, plain]


def _slider(gr: Any, span: Span, value: float, **how: Any) -> Any:
    return gr.Slider(span.low, span.high, value, step=span.step, label=span.label, **how)


def _buttons(gr: Any, presets: Sequence[Preset]) -> list[Any]:
    """One for each example."""
    if not presets:
        return []
    with gr.Row(elem_classes="lape-presets"):
        return [gr.Button(preset.name, size="sm", min_width=60) for preset in presets]


def _written(session: Session, place: Place, *values: Any) -> Iterator[tuple[Any, ...]]:
    """What is going on, answers, program and what is kept for shading anew; again and again while answers are written."""
    skip = gradio().skip()
    *form, shade = values
    looked = 0.0
    yield status("Waiting for the model …"), skip, skip, skip
    try:
        asked, shade = asked_of(form, session.stats.languages), shade_of(shade, session.stats.languages)
        for answers in session.answers(asked):
            if answers.done:
                program = snippet(asked, session.stats, place.model, place.run, place.loading, session.system)
                yield status(_done(answers)), page(answers, shade), program, answers
            elif time.monotonic() - looked > EVERY:
                looked = time.monotonic()
                yield status(_writing(answers)), page(answers, shade), skip, skip
    except LapeError as error:
        yield alert(str(error)), skip, skip, skip


def _reshaded(session: Session, answers: Answers | None, shade: object) -> tuple[Any, Any]:
    """What is said, and the answers shaded anew."""
    skip = gradio().skip()
    try:
        shade = shade_of(shade, session.stats.languages)
    except LapeError as error:
        return alert(str(error)), skip
    return skip, skip if answers is None else page(answers, shade)


def _writing(answers: Answers) -> str:
    return "Writing the steered answer …" if answers.steered.tokens else "Writing the unsteered answer …"


def _done(answers: Answers) -> str:
    told = (
        short_name(answer.language) if answer.language else "not identified"
        for answer in (answers.unsteered, answers.steered)
    )
    return "Both answers are written. Their languages: " + ", ".join(told) + "."
