"""How the page looks: system fonts; three colours that colour-blind readers tell apart, light and dark."""

from __future__ import annotations

from typing import Any

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "sans-serif")


def theme(gr: Any) -> Any:
    """The plain theme of gradio without web fonts, its greys and blues dark enough to read."""
    mono = ("ui-monospace", "Menlo", "Consolas", "monospace")
    return gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=mono).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        slider_color="*primary_700",
        slider_color_dark="*primary_400",
    )


CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0 !important; }
.lape-top h1 { font-size: 1.6rem; font-weight: 700; margin: 0 0 .15rem; letter-spacing: -.01em; }
.lape-top p { margin: 0; max-width: 100ch; color: var(--body-text-color-subdued); }
.lape-presets { flex-wrap: wrap; gap: .4rem; }
.lape-presets button { flex: 0 0 auto; width: auto; min-width: 0 !important; white-space: nowrap; padding: .3rem .7rem; }

.lape {
  --source: #b4500a; --target: #0068a8; --other: #007a5a; --line: #d8dee8; --card: #fff; --soft: #475569;
  --text: #0f172a; color: var(--text); }
.dark .lape {
  --source: #ff9a4d; --target: #5cb8f5; --other: #4ad3a8; --line: #334155; --card: #111827; --soft: #cbd5e1; --text: #f1f5f9; }
.lape-source { --of: var(--source); --dash: 5 3; }
.lape-target { --of: var(--target); --dash: none; }
.lape-other { --of: var(--other); --dash: 2 2; }

.lape-status { color: var(--soft); min-height: 1.5em; padding: .5rem 0; }
.lape-alert { border: 1px solid #b91c1c; border-left-width: 6px; border-radius: 8px; padding: .7rem .9rem;
  background: #fef2f2; color: #7f1d1d; font-weight: 500; }
.dark .lape-alert { background: #2a0f12; color: #fecaca; border-color: #f87171; }

.lape-heading { margin-bottom: .75rem; }
.lape-answers p { margin: 0; }
.lape-prompt { font-size: 1.05rem; font-weight: 600; overflow-wrap: anywhere; white-space: pre-wrap; }
.lape-how, .lape-scale { font-size: .875rem; color: var(--soft); }
.lape-ends { white-space: nowrap; }
.lape-ramp { display: inline-block; width: 6rem; height: .8em; margin: 0 .4rem; vertical-align: -.05em; border-radius: 3px;
  border: 1px solid var(--line); background: linear-gradient(to right, transparent, color-mix(in srgb, var(--of) 55%, transparent)); }

.lape-two { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem; }
.lape-card { border: 1px solid var(--line); border-radius: 12px; background: var(--card); padding: .9rem 1rem 1rem;
  display: flex; flex-direction: column; gap: .6rem; }
.lape-card header { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: .25rem 1rem; }
.lape-card h2 { font-size: 1rem; font-weight: 700; margin: 0; color: var(--text); }
.lape-told { font-size: .875rem; color: var(--soft); }
.lape-told i { display: inline-block; width: .65em; height: .65em; border-radius: 50%; background: var(--of); margin-right: .4em; }
.lape-text { font-size: 1.08rem; line-height: 1.85; white-space: pre-wrap; overflow-wrap: anywhere; min-height: 7rem; flex: 1; color: var(--text); }
.lape-text span[style] { background: color-mix(in srgb, var(--of) calc(var(--share) * 55%), transparent); border-radius: 3px;
  padding: .12em 0; box-decoration-break: clone; -webkit-box-decoration-break: clone; }
.lape-empty { color: var(--soft) !important; }

.lape-chart { margin: .6rem 0 0; display: grid; grid-template-columns: 3.2rem minmax(0, 1fr); grid-template-rows: 8.5rem auto; }
.lape-waiting { min-height: 10rem; }
.lape-chart svg { width: 100%; height: 100%; grid-column: 2; overflow: visible; }
.lape-axis { display: flex; flex-direction: column; justify-content: space-between; text-align: right; padding-right: .5rem;
  margin: -.55rem 0; font-size: .75rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.lape-chart figcaption { grid-column: 2; font-size: .75rem; color: var(--soft); margin-top: .25rem; text-align: center; }
.lape-answers svg line, .lape-answers svg polyline { vector-effect: non-scaling-stroke; fill: none; }
.lape-grid { stroke: var(--line); stroke-width: 1; }
.lape-line { stroke: var(--of); stroke-width: 2.25; stroke-dasharray: var(--dash); stroke-linejoin: round; }
.lape-usual { stroke: var(--of, var(--soft)); stroke-width: 1.25; stroke-dasharray: 1 4; }
.lape-band { fill: color-mix(in srgb, var(--soft) 22%, transparent); }
.lape-legend { list-style: none; padding: 0; margin: .8rem 0 0; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; font-size: .85rem; color: var(--soft); }
.lape-legend svg { display: inline-block; width: 30px; height: 8px; margin-right: .5rem; vertical-align: middle; }

.lape-numbers { margin-top: .9rem; font-size: .875rem; }
.lape-numbers summary { cursor: pointer; color: var(--text); }
.lape-scroll { max-height: 22rem; overflow: auto; margin-top: .5rem; }
.lape-scroll table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.lape-scroll caption { text-align: left; padding-bottom: .3rem; color: var(--soft); }
.lape-scroll th, .lape-scroll td { padding: .15rem .5rem; text-align: right; border: 0; border-bottom: 1px solid var(--line); color: var(--text); }
.lape-scroll th:first-child { text-align: left; font-weight: 500; }

@media (max-width: 720px) { .lape-two { grid-template-columns: minmax(0, 1fr); } .lape-text { min-height: 3rem; } }
@media (prefers-reduced-motion: reduce) { * { transition: none !important; animation: none !important; } }
"""
