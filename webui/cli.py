"""The command line: serve (the default), generate, extensions' own commands. Importing it imports no torch."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import webui
from webui.errors import ExtensionError, WebUIError
from webui.plugins.command_names import command_names

if TYPE_CHECKING:
    from webui.generation.events import ImageReady
    from webui.training.assistants.catalog import Kind

PROGRAM = "launch.py"
HELP = ("-h", "--help")

GENERATE_OPTIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "--checkpoint": ("checkpoint", "name of the checkpoint (default: the starter model)"),
        "--prompt": ("prompt", "what the picture should show"),
        "--negative-prompt": ("negative_prompt", "what it should not show"),
        "--width": ("width", "pixels, a multiple of 8 (default: the checkpoint's own size, or the picture's)"),
        "--height": ("height", "as --width"),
        "--batch-count": ("num_batches", "how many batches (1)"),
        "--batch-size": ("batch_size", "pictures per batch (1)"),
        "--seed": ("seed", "first seed; random if not given"),
        "--sampler": ("sampler", 'sampling method ("Euler a")'),
        "--schedule": ("schedule", "schedule type (Automatic)"),
        "--steps": ("num_inference_steps", "sampling steps (default: the checkpoint's own, mostly 20)"),
        "--cfg-scale": (
            "guidance_scale",
            "how strictly to follow the prompt (default: the checkpoint's own, mostly 7)",
        ),
        "--image-cfg-scale": (
            "image_guidance_scale",
            "how closely to follow the picture, for instruct-pix2pix checkpoints (1.5)",
        ),
        "--vae": ("vae", "Automatic, None (the checkpoint's own) or the name of a file in models/vae (Automatic)"),
        "--eta": ("eta", "fresh noise per step, for samplers that add some"),
        "--clip-skip": ("clip_skip", "layers of the text encoder to leave out (0)"),
        "--strength": ("strength", "denoising strength, 0 keeps the picture, 1 ignores it (0.75)"),
        "--resize-mode": ("resize_mode", "stretch, crop or fill (stretch)"),
        "--mask-blur": ("mask_blur_px", "pixels (4)"),
        "--mask-area": ("mask_area", "whole or masked (whole)"),
        "--mask-padding": ("mask_padding_px", "pixels around the mask, for --mask-area masked (32)"),
        "--masked-content": ("mask_content", '"original", "fill", "latent noise" or "latent nothing" (original)'),
        "--format": ("image_format", "png, jpeg or webp (png)"),
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code. Errors of ours are one clear line; Ctrl+C is no error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        more = _commands_of_extensions(given)
        given = _with_default_command(given, more)
        options = _parser(given, more).parse_args(given)
        return int(options.run(options) or 0)
    except WebUIError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def command_table() -> Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]]:
    """Command of the program itself -> (its line of help, what adds its options)."""
    return _COMMANDS


def _commands_of_extensions(arguments: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """Command -> (its line of help, id of the extension); looked up only where one may be meant. Imports none."""
    if not arguments or arguments[0] in _COMMANDS or (arguments[0].startswith("-") and arguments[0] not in HELP):
        return {}
    checkout = Path(webui.__file__).resolve().parent.parent
    data_dir = _data_dir(arguments) or checkout
    return command_names([checkout / "extensions", data_dir / "extensions"], data_dir / "extensions.json")


def _data_dir(arguments: Sequence[str]) -> Path | None:
    """As the settings will have it, which take too long to import for a line of help."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--data-dir")
    given = early.parse_known_args(list(arguments))[0].data_dir or os.environ.get("WEBUI_DATA_DIR")
    return Path(given).expanduser() if given else None


def _with_default_command(arguments: list[str], more: Mapping[str, tuple[str, str]]) -> list[str]:
    """`serve` where no command is named: `launch.py --port 8000`."""
    if arguments and (arguments[0] in _COMMANDS or arguments[0] in more or arguments[0] in (*HELP, "--version")):
        return arguments
    return ["serve", *arguments]


def _parser(arguments: Sequence[str], more: Mapping[str, tuple[str, str]]) -> argparse.ArgumentParser:
    """Knows all commands by name, and the options of the one that was chosen: others' need not be imported."""
    chosen = arguments[0]
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Atelier: a browser studio for Stable Diffusion.",
        epilog="Without a command the browser page is served. `launch.py test` runs the tests.",
    )
    parser.add_argument("--version", action="version", version=f"Atelier {webui.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (summary, add_options) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        _add_common_options(command)
        if name == chosen:
            add_options(command)
    for name, (summary, id) in more.items():
        command = commands.add_parser(name, help=summary, description=summary)
        _add_common_options(command)
        if name == chosen:
            _extension_command(command, name, id, _data_dir(arguments))
    return parser


def _extension_command(parser: argparse.ArgumentParser, name: str, id: str, data_dir: Path | None) -> None:
    """Loads the extension `id`, which adds the options of its command."""
    from webui.app import build_command_context
    from webui.plugins.host import PluginHost
    from webui.plugins.loading import failure
    from webui.settings import load_settings

    host = PluginHost(load_settings(data_dir=data_dir))
    host.load(only={id})
    command = host.command(name, id)
    folder = host.extension(id).folder

    def run(options: argparse.Namespace) -> int:
        try:
            return int(command.run(options, build_command_context(_settings_of(options), host)) or 0)
        except WebUIError:
            raise
        except Exception as error:
            logging.exception("The command '%s' failed.", name)
            raise ExtensionError(f"The extension '{id}' failed: {failure(error, folder)}") from error
        finally:
            host.close()

    try:
        command.add_options(parser)
    except Exception as error:
        logging.exception("The command '%s' failed.", name)
        raise ExtensionError(f"The extension '{id}' failed: {failure(error, folder)}") from error
    parser.set_defaults(run=run)


def _add_common_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data-dir", type=Path, help="models, outputs, database and settings live beneath it")
    command.add_argument("--device", help="auto, cpu, cuda or mps")
    command.add_argument("--dtype", help="auto, fp32, fp16 or bf16")


def _settings_of(options: argparse.Namespace, *names: str) -> Any:
    from webui.settings import load_settings

    common = ("data_dir", "device", "dtype")
    return load_settings(**{name: getattr(options, name) for name in (*common, *names)})


def _serve_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", help="address to serve on (127.0.0.1)")
    command.add_argument("--port", type=int, help="port to serve on (7860); 0 takes a free one")
    command.add_argument(
        "--browser", action=argparse.BooleanOptionalAction, default=None, help="open the page in the browser (on)"
    )
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    from webui.app import serve

    serve(_settings_of(options, "host", "port", "browser"))


def _generate_options(command: argparse.ArgumentParser) -> None:
    for option, (field, text) in GENERATE_OPTIONS.items():
        command.add_argument(option, dest=field, help=text, metavar=option[2:].replace("-", "_").upper())
    command.add_argument("--init", type=Path, help="picture to start from (img2img)")
    command.add_argument("--mask", type=Path, help="white where the picture may change (inpaint); needs --init")
    command.add_argument("--mask-inverted", action="store_true", help="change what the mask leaves out")
    command.add_argument(
        "--with",
        dest="steps",
        action="append",
        default=[],
        metavar="ID",
        help="send the pictures through this extension",
    )
    command.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="ID.FIELD=VALUE",
        help="as --with ID, with a setting of its own; pictures are paths, several values have commas between them",
    )
    command.add_argument("--output", type=Path, help="folder for the pictures (default: outputs in the data folder)")
    command.add_argument("--json", action="store_true", help="print one JSON line per picture")
    command.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> None:
    from webui.app import build_generator, build_host, prepare_data_dir
    from webui.command_generate import CommandReport, request_from_options
    from webui.command_steps import with_steps
    from webui.images.store import HeldPictures, ImageStore
    from webui.jobs.cancel import CancelToken
    from webui.services import build_library, with_seed

    settings = _settings_of(options)
    library = build_library(settings)
    given = {field: getattr(options, field) for field, _ in GENERATE_OPTIONS.values()}
    request = request_from_options(
        {key: value for key, value in given.items() if value is not None} | {"mask_inverted": options.mask_inverted},
        init=options.init,
        mask=options.mask,
        checkpoints=library.checkpoints(),
        max_pixels=settings.max_image_pixels,
    )
    if options.output is None:
        prepare_data_dir(settings)
    store, pictures = ImageStore(options.output or settings.outputs_dir), HeldPictures()
    report = CommandReport(sys.stderr)
    with closing(build_host(settings)) as host:
        asked = with_steps(
            request,
            options.steps,
            options.assignments,
            additions=host,
            pictures=pictures,
            max_pixels=settings.max_image_pixels,
        )
        generator = build_generator(settings, library, store, host, pictures)
        for ready in generator.generate(with_seed(asked), report=report, cancel=CancelToken(), previews=False):
            print(json.dumps(_told(ready)) if options.json else ready.path)


def _told(ready: "ImageReady") -> dict[str, Any]:
    """`details` only of a picture of which a step had some."""
    told: dict[str, Any] = {"path": ready.path, "seed": ready.seed}
    return told | ({"details": ready.details} if ready.details else {})


def _train_options(command: argparse.ArgumentParser) -> None:
    from webui.command_train import add_train_options

    add_train_options(command)
    command.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from webui.app import build_picking, build_training
    from webui.command_train import pick_from_file, train_from_file, write_new_config
    from webui.services import build_library

    settings = _settings_of(options)
    if options.new:
        with closing(build_library(settings)) as library:
            print(write_new_config(options, library))
        return 0
    if options.pick is not None:
        return pick_from_file(options.config, settings.training_dir, build_picking(settings), options.pick, sys.stderr)
    train = build_training(settings)
    return train_from_file(options.config, settings.training_dir, train, resume=options.resume, stream=sys.stderr)


def _training_run_options(command: argparse.ArgumentParser) -> None:
    from webui.command_train import add_watched_option

    command.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder with the run's config.toml")
    add_watched_option(command)
    command.set_defaults(run=_training_run)


def _training_run(options: argparse.Namespace) -> int:
    from webui.app import build_training
    from webui.command_train import train_folder
    from webui.training.folders import RunFolder

    train = build_training(_settings_of(options))
    return train_folder(RunFolder(options.run_dir), train, stream=sys.stdout, watched=options.watched)


def _training_pick_options(command: argparse.ArgumentParser) -> None:
    from webui.command_train import add_pick_options

    add_pick_options(command)
    command.set_defaults(run=_training_pick)


def _training_pick(options: argparse.Namespace) -> int:
    from webui.app import build_picking
    from webui.command_train import pick_in_folder
    from webui.training.folders import RunFolder
    from webui.training.process import end_with_parent

    pick = build_picking(_settings_of(options))
    if options.watched:
        end_with_parent(RunFolder(options.run_dir))
    return pick_in_folder(RunFolder(options.run_dir), pick, options.step, options.weight, stream=sys.stdout)


def _caption_options(command: argparse.ArgumentParser) -> None:
    from webui.command_assist import add_caption_options

    add_caption_options(command)
    command.set_defaults(run=lambda options: _assist(options, "captions"))


def _mask_options(command: argparse.ArgumentParser) -> None:
    from webui.command_assist import add_mask_options

    add_mask_options(command)
    command.set_defaults(run=lambda options: _assist(options, "masks"))


def _assist(options: argparse.Namespace, kind: "Kind") -> int:
    from webui.app import build_host
    from webui.command_assist import assist_folder, list_assistants, request_of
    from webui.services import models_dirs
    from webui.training.assistants.catalog import Assistants

    settings = _settings_of(options)
    request = None if options.list else request_of(options, kind)
    with closing(build_host(settings)) as host:
        assistants = Assistants(models_dirs(settings), host.subject_maskers)
        if request is not None:
            return assist_folder(options.folder, request, assistants, as_json=options.json)
        list_assistants(assistants, kind, sys.stdout)
        return 0


BENCHMARKS = MappingProxyType(
    {"pictures": "against_diffusers.py", "models": "models.py", "faces": "faces.py", "training": "training.py"}
)
WITH_CASES = ("pictures", "training")


def _bench_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "what",
        nargs="?",
        choices=tuple(BENCHMARKS),
        default="pictures",
        help="pictures, loading and adapters, faces, or training",
    )
    command.add_argument("--case", default="all", help="of pictures and training: starter, sd15 or all (all)")
    command.add_argument("--rounds", type=int, default=3, help="how often each is timed (3)")
    command.add_argument("--out", type=Path, help="of faces: folder for its pictures (none are written)")
    command.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> None:
    benchmarks = Path(__file__).resolve().parent.parent / "tests" / "benchmarks"
    if not benchmarks.is_dir():
        raise WebUIError("The benchmarks are not part of an installed package.", hint="Run them from the checkout.")
    arguments = ["--rounds", str(options.rounds), *(["--case", options.case] if options.what in WITH_CASES else [])]
    arguments += ["--out", str(options.out)] if options.what == "faces" and options.out else []
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(benchmarks / BENCHMARKS[options.what]), *arguments])


def _inspect_options(command: argparse.ArgumentParser) -> None:
    things = command.add_subparsers(title="what to inspect", metavar="THING", required=True)
    summary = "what a model file or diffusers folder is: family, precision, rank, hashes, problems"
    model = things.add_parser("model", help=summary, description=f"Prints as JSON {summary}.")
    model.add_argument("file", type=Path, metavar="FILE")
    model.set_defaults(run=_inspect_model)


def _inspect_model(options: argparse.Namespace) -> None:
    from webui.command_inspect import inspect_model

    print(json.dumps(inspect_model(options.file), indent=2, ensure_ascii=False))


def _models_options(command: argparse.ArgumentParser) -> None:
    from webui.command_models import add_actions

    add_actions(command)


def _extensions_options(command: argparse.ArgumentParser) -> None:
    from webui.command_extensions import add_actions

    add_actions(command)


_COMMANDS = MappingProxyType(
    {
        "serve": ("serve the browser page (the default)", _serve_options),
        "generate": ("make pictures without a browser", _generate_options),
        "train": ("train an adapter on photos, or write a config for it", _train_options),
        "training-run": ("run the training of one folder, telling lines of JSON", _training_run_options),
        "training-pick": ("take another candidate of a run, telling lines of JSON", _training_pick_options),
        "caption": ("write captions for photos to train on", _caption_options),
        "mask": ("make masks of photos to train on: what is the subject, what background", _mask_options),
        "inspect": ("say what a model file is, as JSON", _inspect_options),
        "models": ("get, list, convert and merge models", _models_options),
        "extensions": ("list and check extensions, switch them on and off", _extensions_options),
        "bench": ("measure speed side by side with diffusers and peft, or how faces come out", _bench_options),
    }
)
