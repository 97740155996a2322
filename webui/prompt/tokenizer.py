"""CLIP's byte-level BPE tokenizer, read from a checkpoint's `vocab.json` and `merges.txt`.

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
        """`folder` holds vocab.json and merges.txt. Raises UnsupportedModel if they are missing or damaged."""
        try:
            model = BPE.from_file(
                str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token=END, end_of_word_suffix="</w>"
            )
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

    def _id_of(self, folder: Path, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise UnsupportedModel(folder, f"its vocabulary has no {token}")
        return int(token_id)
