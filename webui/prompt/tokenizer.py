"""CLIP's byte-level BPE tokenizer, read from a checkpoint's `vocab.json` and `merges.txt`, or from merges alone.

Gives bare token ids, without start and end marks and without any limit on length. Source: Radford et al. 2021
(arXiv:2103.00020), in the file format of the CLIP release.
"""

from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from webui.errors import UnsupportedModel

START = "<|startoftext|>"
END = "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """`start_id` and `end_id` frame every chunk; `pad_id` fills it up; `comma_id` is None if there is no such token."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds merges.txt and, where ids are in another order than CLIP's own, vocab.json.

        Raises UnsupportedModel if they are missing or damaged.
        """
        try:
            model = _bpe(folder)
        except Exception as error:  # the library raises bare Exception
            raise UnsupportedModel(folder, f"its vocabulary cannot be read ({error})") from error
        self._tokenizer = Tokenizer(model)
        self._tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self.start_id = self._id_of(folder, START)
        self.end_id = self._id_of(folder, END)
        self.comma_id: int | None = self._tokenizer.token_to_id(",</w>")

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, any length."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def vocabulary(self) -> dict[str, int]:
        """Token -> id."""
        return dict(self._tokenizer.get_vocab())

    def _id_of(self, folder: Path, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise UnsupportedModel(folder, f"its vocabulary has no {token}")
        return int(token_id)


def _bpe(folder: Path) -> BPE:
    options = {"unk_token": END, "end_of_word_suffix": "</w>"}
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if vocabulary.is_file():
        return BPE.from_file(str(vocabulary), str(merges), **options)
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = [(left, right) for left, right in (line.split() for line in lines if not line.startswith("#version"))]
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in pairs), START, END]
    return BPE({token: number for number, token in enumerate(tokens)}, pairs, **options)


def _byte_letters() -> list[str]:
    """The printable stand-ins of the 256 bytes, in the order of CLIP's ids (Radford et al. 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in plain] + [chr(256 + number) for number in range(256 - len(plain))]
