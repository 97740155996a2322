"""The commented file, what is said about wrong ones, and the presets that it is made of."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import InvalidRequest, StorageError
from webui.training.config import Data, Method, TrainingConfig
from webui.training.config_file import config_text, parse_config, read_config
from webui.training.presets import BASES, METHODS, PRESETS, preset_config

words = st.text(max_size=20)


@given(
    trigger=words,
    caption=words,
    rate=st.floats(1e-12, 10),
    holdout=st.none() | st.integers(0, 9),
    weights=st.lists(st.floats(0, 2), min_size=1, max_size=3),
    prompts=st.lists(words, max_size=3),
)
def test_what_is_written_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, rate: float, weights: list[float], prompts: list[str], **data: Any
) -> None:
    config = TrainingConfig.model_validate(
        {
            "name": "a run",
            "data": {"photos": "/photos", **data},
            "optimizer": {"rate": rate},
            "validation": {"weights": weights, "prompts": prompts},
        }
    )
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(config_text(config), encoding="utf-8")
    assert read_config(path) == config


def test_every_setting_is_in_the_file_with_its_meaning() -> None:
    text = config_text(TrainingConfig(name="x", data=Data(photos=Path("photos"))))
    for section, field in TrainingConfig.model_fields.items():
        model: Any = field.annotation
        for name, inner in getattr(model, "model_fields", {}).items():
            assert f"\n{name} = " in text or f"\n# {name} =" in text, f"{section}.{name}"
            assert " ".join((inner.description or "").split()) in " ".join(text.replace("\n# ", " ").split())
    assert "# Learning rate of the U-Net's part. More than 0.0 and at most 10.0. Default 0.0001.\nrate = 0.0001" in text
    assert max(map(len, text.splitlines())) <= 120


def test_photos_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('name = "x"\n[data]\nphotos = "my photos"\n')
    assert read_config(path).data.photos == tmp_path / "my photos"


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ('name = "x"', "data", "data: Field required"),
        ('name = "x"\n[data]\nphotos = "p"\nresolution = 100', "data.resolution", "multiple of 8, not 100"),
        ('name = "x"\n[data]\nphotos = "p"\n[optimizer]\nrte = 1', "optimizer.rte", "Did you mean rate"),
        (
            'name = "x"\n[data]\nphotos = "p"\n[optimizer]\nrate = 20',
            "optimizer.rate",
            "less than or equal to 10, not 20",
        ),
        ('name = "x"\n[data]\nphotos = "p"\n[optimizer]\nrate = nan', "optimizer.rate", "finite number"),
        ('name = "x"\n[data]\nphotos = "p"\n[network]\nmethod = "pivotal"', "config", "needs data.trigger"),
        ('name = "../x"\n[data]\nphotos = "p"', "name", "pattern"),
        ("name = ", "config", "no valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_field(tmp_path: Path, text: str, field: str, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=words) as caught:
        read_config(path)
    assert caught.value.field == field


def test_no_file_and_no_text_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="--new"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "picture.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InvalidRequest, match="no text"):
        read_config(tmp_path / "picture.toml")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("adapter_base", BASES)
def test_every_preset_makes_a_config_for_every_base(preset: str, adapter_base: Any) -> None:
    for method in (*METHODS, "lora", "lokr", "pivotal"):
        config = preset_config(
            preset,
            name="mia",
            photos=Path("photos"),
            base="model",
            adapter_base=adapter_base,
            native_size=512,
            method=method,  # type: ignore[arg-type]
            trigger="mia",
            class_word="woman",
        )
        assert config.network.method == method
        assert config.data.class_word == "woman"
        assert parse_config(config.model_dump()) == config


def test_larger_presets_learn_more_and_longer() -> None:
    def made(preset: str, method: Method = "lora") -> TrainingConfig:
        paths = {"name": "x", "photos": Path("p"), "base": "b", "native_size": 512, "trigger": "t"}
        return preset_config(preset, adapter_base="sd1", method=method, **paths)  # type: ignore[arg-type]

    sizes = [made(f"person-{size}") for size in ("small", "normal", "large")]
    assert [each.network.rank for each in sizes] == sorted({each.network.rank for each in sizes})
    assert [each.schedule.num_steps for each in sizes] == sorted({each.schedule.num_steps for each in sizes})
    assert not made("person-small").data.flip, "faces are not symmetric"
    assert made("person-small", "full").optimizer.rate < made("person-small").optimizer.rate / 10
    with pytest.raises(InvalidRequest, match="person-small"):
        made("dog-small")
