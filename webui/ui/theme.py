"""The look: quiet greys, one accent, system fonts only."""

from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors, sizes

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = (
    "atelier.js",
    "pictures.js",
    "models_prompt.js",
    "models.js",
    "models_offers.js",
    "models_details.js",
    "downloads.js",
    "model_tools.js",
    "extensions_settings.js",
    "extensions_install.js",
    "extensions.js",
    "training.js",
    "training_upload.js",
    "training_grid.js",
    "training_crop.js",
    "training_mask.js",
    "training_photo.js",
    "training_captions.js",
    "training_assist.js",
    "training_photos.js",
    "training_settings_model.js",
    "training_settings_fields.js",
    "training_settings.js",
    "training_charts.js",
    "training_curves.js",
    "training_trial.js",
    "training_samples.js",
    "training_run.js",
    "training_compare.js",
    "training_runs.js",
)
"""In this order: the later ones use the earlier ones."""
STYLES = (
    "atelier.css",
    "models.css",
    "downloads.css",
    "model_tools.css",
    "extensions.css",
    "training.css",
    "training_settings.css",
    "training_run.css",
)
SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
SYSTEM_MONO_FONTS = ("ui-monospace", "SF Mono", "Consolas", "monospace")


def build_theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=colors.teal,
        secondary_hue=colors.teal,
        neutral_hue=colors.zinc,
        text_size=sizes.text_md,
        spacing_size=sizes.spacing_md,
        radius_size=sizes.radius_md,
        font=SYSTEM_FONTS,
        font_mono=SYSTEM_MONO_FONTS,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_300",
        block_title_text_size="*text_sm",
        block_title_text_weight="500",
        block_shadow="none",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_width="1px",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_large_text_size="*text_md",
        button_large_radius="*radius_md",
        button_large_padding="8px 16px",
        button_large_text_weight="500",
        button_transition="background-color 0.15s",
        slider_color="*primary_600",
        color_accent="*primary_600",
        layout_gap="12px",
        block_padding="*spacing_md *spacing_lg",
    )


def build_head() -> str:
    """The icon and our scripts, in the page itself: they run before the first component is there."""
    scripts = "".join(f"<script>{(ASSETS / name).read_text(encoding='utf-8')}</script>" for name in SCRIPTS)
    return f'<link rel="icon" href="data:,"><meta name="robots" content="noindex">{scripts}'
