"""How the page looks: system fonts; three colours that colour-blind readers tell apart, light and dark. The rest is in `page.css`."""

from __future__ import annotations

from importlib.resources import files as resources
from typing import Any

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "sans-serif")
CSS = (resources("lape.play") / "page.css").read_text(encoding="utf-8")
_SHADES = {
    "body_background_fill": ("neutral_50", "neutral_950"),
    "button_primary_background_fill": ("primary_700", "primary_700"),
    "button_primary_background_fill_hover": ("primary_800", "primary_800"),
    "block_label_text_color": ("neutral_700", "neutral_200"),
    "block_title_text_color": ("neutral_800", "neutral_100"),
    "block_info_text_color": ("neutral_600", "neutral_300"),
    "input_placeholder_color": ("neutral_500", "neutral_400"),
    "body_text_color_subdued": ("neutral_600", "neutral_300"),
    "slider_color": ("primary_700", "primary_400"),
}
"""What gradio colours -> its shade on a light page and on a dark one."""


def theme(gr: Any) -> Any:
    """The plain theme of gradio without web fonts, its greys and blues dark enough to read."""
    mono = ("ui-monospace", "Menlo", "Consolas", "monospace")
    shades = {
        f"{name}{mode}": f"*{shade}"
        for name, both in _SHADES.items()
        for mode, shade in zip(("", "_dark"), both, strict=True)
    }
    plain = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=mono)
    return plain.set(button_primary_text_color="white", button_primary_text_color_dark="white", **shades)
