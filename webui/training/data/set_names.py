"""Names of photo sets and of files in them: such that every system can keep them, and none leads elsewhere."""

import re
import unicodedata

from webui.errors import InvalidRequest

MOST_LETTERS = 60
MOST_BYTES = 120
"""Of a name in UTF-8; file systems take 255, and suffixes are added."""
NUMBER_LETTERS = 6
"""For " (12)" behind a name that is taken."""
RESERVED = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"}
)
"""What Windows takes for devices, with any suffix."""
JOINERS = "\u200c\u200d"
"""Not seen themselves, but Persian and many emoji are written with them."""
_OF_ADDRESSES = re.compile("[#%]")
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')


def set_name(text: str) -> str:
    """The name of a folder. Raises InvalidRequest."""
    name = unicodedata.normalize("NFC", text).strip()
    if reason := _why_not(name):
        raise InvalidRequest(
            "name", f"A photo set cannot be called '{name[:80]}': {reason}.", hint="Choose another name."
        )
    return name


def _why_not(name: str) -> str:
    if not name:
        return "it has no letters"
    if len(name) > MOST_LETTERS or len(name.encode(errors="replace")) > MOST_BYTES:
        return f"it has more than {MOST_LETTERS} letters"
    if found := _FORBIDDEN.search(name) or _OF_ADDRESSES.search(name):
        return f"'{found[0]}' cannot be in it"
    if not all(_is_plain(letter) for letter in name):
        return "it has letters that cannot be seen"
    if name[0] in ".~":
        return f"it begins with '{name[0]}'"
    if name[-1] == ".":
        return "it ends with '.'"
    if is_reserved(name):
        return "Windows keeps this name for itself"
    return ""


def similar_name(text: str) -> str:
    """The name of a folder that is nearest to `text`, with room for a number behind it."""
    plain = _OF_ADDRESSES.sub("_", re.sub(r"[/\\\s]+", " ", unicodedata.normalize("NFC", text)))
    name = _part(plain)[: MOST_LETTERS - NUMBER_LETTERS].encode()[: MOST_BYTES - NUMBER_LETTERS]
    return name.decode(errors="ignore").rstrip(" .") or "photos"


def is_reserved(name: str) -> bool:
    return name.partition(".")[0].rstrip().lower() in RESERVED


def file_name(text: str) -> str:
    """`text`, a path within a set as some other system has it, with what cannot be kept replaced.

    Folders stay, as "/". "" if nothing is left.
    """
    parts = [_part(part) for part in unicodedata.normalize("NFC", text).replace("\\", "/").split("/")]
    if any(part in (".", "..") for part in text.replace("\\", "/").split("/")):
        parts = parts[-1:]
    return "/".join(part for part in parts if part)


def _part(text: str) -> str:
    plain = "".join(letter if _is_plain(letter) else "_" for letter in _FORBIDDEN.sub("_", text))
    plain = plain.lstrip(" .~").rstrip(" .")
    if is_reserved(plain):
        plain = f"_{plain}"
    stem, dot, end = plain.rpartition(".")
    stem, suffix = (stem, dot + end) if dot and len(end) <= 10 else (plain, "")
    stem = stem.encode()[: MOST_BYTES - len(suffix.encode())].decode(errors="ignore").rstrip(" .")
    return f"{stem}{suffix}"


def _is_plain(letter: str) -> bool:
    return letter in JOINERS or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
