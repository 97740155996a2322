"""Captions: templates, what is put in and left out from step to step, and what an editor does to many at once.

Pure functions, but for reading and writing a file.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from webui.errors import StorageError
from webui.library.whole_files import write_whole
from webui.training.config import Data, Subject
from webui.training.seeds import mixed

CAPTION_SUFFIXES = (".txt", ".caption")
"""In the order in which they are looked for."""
TEMPLATES: dict[Subject, tuple[str, str]] = {
    "person": ("photo of {trigger} {class}", "photo of {class}"),
    "object": ("photo of {trigger} {class}", "photo of {class}"),
    "style": ("picture in the style of {trigger}", "picture"),
}
"""What is said of a photo that nothing is said of: of the subject, and of pictures of its class."""

_DROPPED, _TAGS = 0x1CA, 0x7A6


def base_caption(caption: str | None, data: Data, subject: Subject) -> str:
    """What is said of a photo of the subject before anything is left out; always with the trigger word if one is set.

    `{trigger}` and `{class}` are filled in. A caption without the trigger gets it before the class word, or else at
    its beginning.
    """
    text = caption or data.caption or (TEMPLATES[subject][0] if data.trigger or data.class_word else "")
    return with_trigger(filled(text, data.trigger, data.class_word), data.trigger, data.class_word)


def class_caption(caption: str | None, data: Data, subject: Subject) -> str:
    """What is said of a picture of the class: the same without the trigger."""
    text = caption or data.caption or (TEMPLATES[subject][1] if data.class_word or subject == "style" else "")
    return _tidied(_word(data.trigger).sub("", filled(text, "", data.class_word))) if data.trigger else (
        filled(text, "", data.class_word)
    )  # fmt: skip


def filled(template: str, trigger: str, class_word: str) -> str:
    return _tidied(template.replace("{trigger}", trigger).replace("{class}", class_word))


def with_trigger(caption: str, trigger: str, class_word: str) -> str:
    """`caption` with `trigger` in it: before the class word where that stands, or else in front."""
    if not trigger or _word(trigger).search(caption):
        return caption
    if class_word and _word(class_word).search(caption):
        return _word(class_word).sub(lambda found: f"{trigger} {found[0]}", caption, count=1)
    return f"{trigger}, {caption}" if caption else trigger


def caption_of(caption: str, data: Data, *, seed: int, sample: int) -> str:
    """What the model is told in sample `sample` of the run: `caption`, or nothing, or some of its tags in some order.

    Captions are left out by themselves in data.caption_dropout of the samples. Otherwise the first data.keep_tags
    tags stay, each other one is left out in data.tag_dropout of the samples, and those that are left are shuffled.
    """
    if random.Random(mixed(seed, sample, _DROPPED)).random() < data.caption_dropout:
        return ""
    if not (data.shuffle_tags or data.tag_dropout):
        return caption
    tags = tags_of(caption)
    kept, rest = tags[: data.keep_tags], tags[data.keep_tags :]
    chance = random.Random(mixed(seed, sample, _TAGS))
    rest = [tag for tag in rest if chance.random() >= data.tag_dropout]
    if data.shuffle_tags:
        chance.shuffle(rest)
    return ", ".join([*kept, *rest])


def tags_of(caption: str) -> list[str]:
    """The parts between commas, without blanks around them."""
    return [tag for tag in (part.strip() for part in caption.split(",")) if tag]


def tag_counts(captions: Iterable[str | None]) -> Counter[str]:
    """In how many captions each tag is, most frequent first."""
    counts = Counter(tag for caption in captions for tag in dict.fromkeys(tags_of(caption or "")))
    return Counter(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))


def replaced(caption: str, find: str, replacement: str, *, whole_words: bool = True) -> str:
    """`find` in any case replaced; with `whole_words` never inside of a longer word."""
    if not find:
        return caption
    pattern = _word(find) if whole_words else re.compile(re.escape(find), re.IGNORECASE)
    return _tidied(pattern.sub(lambda _: replacement, caption))


def prefixed(caption: str, prefix: str) -> str:
    """`prefix` in front as a tag, unless it stands there already."""
    prefix = prefix.strip().rstrip(",")
    if not prefix or caption == prefix or caption.startswith(f"{prefix},"):
        return caption
    return f"{prefix}, {caption}" if caption else prefix


def without_tag(caption: str, tag: str) -> str:
    return ", ".join(each for each in tags_of(caption) if each.casefold() != tag.strip().casefold())


def tag_replaced(caption: str, tag: str, replacement: str) -> str:
    """Each tag that is `tag`, in any case, replaced; a tag that is there already is not put in again."""
    wanted, found = tag.strip().casefold(), tags_of(caption)
    if wanted not in (each.casefold() for each in found):
        return caption
    new = [replacement.strip() if each.casefold() == wanted else each for each in found]
    return ", ".join(dict.fromkeys(each for each in new if each))


def read_caption(path: Path) -> str:
    """One line: the file's lines one after the other. UTF-8, UTF-16 with its mark, or else Windows-1252."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    return joined_lines(text.split("\n"))


def joined_lines(lines: Sequence[str]) -> str:
    """Lines without an end of their own are tags, one a line."""
    stripped = [line.strip() for line in lines if line.strip()]
    parts = [line if line[-1] in ",.;:!?" else f"{line}," for line in stripped[:-1]]
    return _tidied(" ".join([*parts, *stripped[-1:]]).replace("\0", ""))


def write_caption(photo: Path, caption: str) -> Path:
    """Beside the photo, as the .txt of its name; an empty one too. Raises StorageError."""
    path = photo.with_suffix(CAPTION_SUFFIXES[0])
    try:
        write_whole(path, (f"{caption}\n" if caption else "").encode())
    except OSError as error:
        raise StorageError(
            f"The caption of '{photo.name}' could not be written to {photo.parent}: {error.strerror or error}.",
            hint="Check that the folder can be written to and the disk has room.",
        ) from error
    return path


def _word(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)


def _tidied(text: str) -> str:
    """Without double blanks and tags that became empty."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(\s*,)+", ",", text)
    return text.strip(" ,")
