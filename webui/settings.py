"""What differs per machine, frozen. What changes per picture is a field of the request.

Priority: command line, `WEBUI_*` environment variables, `webui.toml` in the data directory, defaults.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from webui.errors import InvalidRequest

CHECKOUT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Frozen settings of one running program."""

    model_config = SettingsConfigDict(env_prefix="WEBUI_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address to serve on.")
    port: int = Field(default=7860, ge=0, le=65535, description="Port to serve on; 0 takes a free one.")
    data_dir: Path = Field(default=CHECKOUT, description="Models, outputs, database and settings live beneath it.")
    browser: bool = Field(default=True, description="Open the page in the browser at the start.")
    user: str = Field(default="", description="Name to log in with; empty: no login.")
    password: SecretStr = Field(default=SecretStr(""), description="Password that belongs to `user`.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="Where models run.")
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = Field(default="auto", description="Precision of the networks.")
    cache_gb: float = Field(
        default=0.0, ge=0, description="Memory for networks that are kept loaded, in GB; 0: half the machine's."
    )
    device_memory_gb: float = Field(
        default=0.0, ge=0, description="The most that networks may use of a CUDA device, in GB; 0: what is free."
    )
    max_image_pixels: int = Field(default=64_000_000, gt=0, description="Largest picture that may be opened.")
    downloads: bool = Field(default=True, description="Whether the page may fetch models from the network.")
    tools: bool = Field(
        default=True, description="Whether the page may make models of models, which takes disk and processor."
    )
    training: bool = Field(default=True, description="Whether the page may train, which takes the device for hours.")
    private_downloads: bool = Field(
        default=False, description="Fetch models also by plain http, and from this machine and private networks."
    )
    download_proxy: str = Field(
        default="",
        repr=False,
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="HTTP proxy to fetch models through, such as http://proxy:3128 or http://user:password@proxy:3128.",
    )
    extensions: bool = Field(default=True, description="Whether extensions are loaded.")
    extension_installs: bool = Field(
        default=True,
        description="Whether the page may install extensions; it never may when it serves other machines.",
    )
    extension_load_s: float = Field(
        default=20.0, gt=0, description="The longest that loading an extension may take, in seconds."
    )
    extension_hook_s: float = Field(
        default=5.0,
        gt=0,
        description="The longest that an extension's hook may hold a generation up, in seconds; the third time counts.",
    )
    hf_endpoint: str = Field(
        default="https://huggingface.co",
        validation_alias=AliasChoices("webui_hf_endpoint", "hf_endpoint"),
        description="Hugging Face, or a mirror of it.",
    )
    hf_token: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("webui_hf_token", "hf_token"),
        description="Token for gated and private models of Hugging Face.",
    )
    civitai_endpoint: str = Field(default="https://civitai.com", description="Civitai, or a mirror of it.")
    civitai_token: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("webui_civitai_token", "civitai_token", "civitai_api_token"),
        description="API token for models of Civitai that ask for a login.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = {**env_settings(), **init_settings()}
        toml = Path(str(given.get("data_dir", CHECKOUT))).expanduser() / "webui.toml"
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml)

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def extensions_dir(self) -> Path:
        """The user's extensions."""
        return self.data_dir / "extensions"

    @property
    def outputs_dir(self) -> Path:
        return self.data_dir / "outputs"

    @property
    def inputs_dir(self) -> Path:
        """Pictures and masks of queued jobs, by content hash."""
        return self.data_dir / "inputs"

    @property
    def training_dir(self) -> Path:
        """Training runs, a folder each."""
        return self.data_dir / "training"

    @property
    def photos_dir(self) -> Path:
        """Photo sets to train on, a folder each."""
        return self.data_dir / "photos"

    @property
    def cache_dir(self) -> Path:
        return self.data_dir / "cache"

    @property
    def database(self) -> Path:
        return self.data_dir / "webui.db"


def load_settings(**given: Any) -> Settings:
    """Settings with `given` (the command line) on top. Raises InvalidRequest that names the setting and its source."""
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "webui.toml"
        raise InvalidRequest(
            name,
            f"Setting '{name}' cannot be {first.get('input')!r}: {first['msg']}.",
            hint="It comes from the command line, a WEBUI_* environment variable or webui.toml.",
        ) from error
    return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().resolve()})
