"""From the names in a prompt to the networks they mean: found, read, checked against the model before it is touched."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from webui.errors import AdapterMismatch, ModelNotFound, UnsupportedModel
from webui.library.catalog import ModelFile
from webui.library.index import Hashes
from webui.pipeline.adapters.deltas import is_low_rank
from webui.pipeline.adapters.embeddings import Embedding, EmbeddingTable, bundled_embedding, read_embedding
from webui.pipeline.adapters.hypernetworks import Hypernetwork, num_changed_attentions, read_hypernetwork
from webui.pipeline.adapters.opened import AdapterFiles
from webui.pipeline.adapters.stack import ActiveAdapter, AdapterStack
from webui.prompt.chunks import EmbeddingNames, KnownEmbedding
from webui.prompt.grammar import ParsedPrompt
from webui.prompt.tags import LoraTag

SHORT_HASH = 12
"""Characters of a hash, as the field writes them."""
NAMED_PROBLEMS = 3
"""Of a damaged file, that a note names."""


class Shelves(Protocol):
    """What is asked of the library."""

    def find_adapter(self, name: str) -> ModelFile: ...
    def find_hypernetwork(self, name: str) -> ModelFile: ...
    def embeddings(self) -> list[ModelFile]: ...
    def hashes_of(self, file: ModelFile) -> Hashes | None: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptedNetworks:
    """What the prompts name, as far as it is there. `notes` are for the user, `fields` for the picture's metadata."""

    adapters: tuple[ActiveAdapter, ...]
    embeddings: EmbeddingTable
    hypernetworks: tuple[tuple[Hypernetwork, float], ...]
    notes: tuple[str, ...]
    fields: Mapping[str, str]


def resolve_networks(
    prompt: ParsedPrompt, negative: ParsedPrompt, shelves: Shelves, files: AdapterFiles, stack: AdapterStack
) -> PromptedNetworks:
    """What is not there is left out with a note.

    Raises AdapterMismatch for a network that is for another kind of model, UnsupportedModel for one that is damaged.
    """
    return _Resolver(shelves, files, stack).resolve(prompt, negative)


class _Resolver:
    def __init__(self, shelves: Shelves, files: AdapterFiles, stack: AdapterStack) -> None:
        self._shelves = shelves
        self._files = files
        self._stack = stack
        self._notes: list[str] = []
        self._lora_hashes: dict[str, str] = {}
        self._lora_layers: dict[str, str] = {}

    def resolve(self, prompt: ParsedPrompt, negative: ParsedPrompt) -> PromptedNetworks:
        self._notes += [str(problem) for problem in (*prompt.problems, *negative.problems)]
        for name in (tag.name for tags in (negative.loras, negative.hypernets) for tag in tags):
            self._notes.append(f"'{name}' in the negative prompt was left out: networks are named in the prompt.")
        adapters = tuple(adapter for tag in prompt.loras if (adapter := self._adapter(tag)) is not None)
        embeddings, hashes = self._embeddings(adapters, prompt, negative)
        fields = {
            "Lora hashes": _listed(self._lora_hashes, ": "),
            "Lora layers": _listed(self._lora_layers, " "),
            "TI hashes": _listed(hashes, ": "),
        }
        return PromptedNetworks(
            adapters=adapters,
            embeddings=embeddings,
            hypernetworks=self._hypernetworks(prompt),
            notes=tuple(self._notes),
            fields={name: text for name, text in fields.items() if text},
        )

    def _adapter(self, tag: LoraTag) -> ActiveAdapter | None:
        try:
            found = self._shelves.find_adapter(tag.name)
        except ModelNotFound as error:
            self._notes.append(f"{error} The picture is made without it.")
            return None
        file, stamp = self._files.open(found.path)
        adapter = ActiveAdapter(tag=tag, file=file, key=stamp, base=found.facts.adapter_base)
        if problem := self._stack.problem_of_block_weights(tag):
            self._notes.append(f"LoRA '{tag.name}' was left out: {problem}.")
            return None
        match = self._stack.match(adapter)
        if match.num_matched < match.num_modules:
            missing = match.num_modules - match.num_matched
            self._notes.append(
                f"LoRA '{tag.name}': {match.num_matched} of {match.num_modules} layers matched; "
                f"{missing} are not in this checkpoint or damaged."
            )
        if file.problems:
            more = len(file.problems) - NAMED_PROBLEMS
            said = "; ".join(file.problems[:NAMED_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
            self._notes.append(f"LoRA '{tag.name}': {said}.")
        if tag.max_rank is not None and not any(is_low_rank(group) for group in file.groups.values()):
            self._notes.append(f"LoRA '{tag.name}' is of a type without a rank that dyn= could limit.")
        if short_hash := self._short_hash(found, of_data=True):
            self._lora_hashes[tag.name] = short_hash
        self._lora_layers[tag.name] = f"{match.num_matched}/{match.num_modules}"
        return adapter

    def _hypernetworks(self, prompt: ParsedPrompt) -> tuple[tuple[Hypernetwork, float], ...]:
        found = []
        for tag in prompt.hypernets:
            try:
                hypernetwork = read_hypernetwork(self._shelves.find_hypernetwork(tag.name).path)
            except ModelNotFound as error:
                self._notes.append(f"{error} The picture is made without it.")
                continue
            if not num_changed_attentions(self._stack.module("unet"), hypernetwork):
                widths = ", ".join(map(str, hypernetwork.networks))
                raise AdapterMismatch(
                    f"Hypernetwork '{tag.name}' does not fit this checkpoint: it is for attentions of width {widths}.",
                    hint=f"Choose a checkpoint that it was made for, or remove <hypernet:{tag.name}:...>.",
                )
            if tag.weight != 0:
                found.append((hypernetwork, tag.weight))
        return tuple(found)

    def _embeddings(
        self, adapters: tuple[ActiveAdapter, ...], *prompts: ParsedPrompt
    ) -> tuple[EmbeddingTable, dict[str, str]]:
        """Those that the prompts name, and the hashes of their files. A file goes before one that a LoRA brings."""
        on_disk = {file.name: file for file in self._shelves.embeddings()}
        bundled = {name: (adapter, parts) for adapter in adapters for name, parts in adapter.file.embeddings.items()}
        known = EmbeddingNames({name: KnownEmbedding(name, 1) for name in (*on_disk, *bundled)})
        used = {
            part.key
            for prompt in prompts
            for section in prompt.sections
            for piece in section
            for part in known.split(piece.text)
            if isinstance(part, KnownEmbedding)
        }
        widths = self._stack.text_widths()
        fitting: list[Embedding] = []
        hashes: dict[str, str] = {}
        for name in sorted(used):
            try:
                if name in on_disk:
                    embedding = read_embedding(on_disk[name].path, name)
                else:
                    adapter, parts = bundled[name]
                    embedding = bundled_embedding(adapter.file.path, name, str(adapter.key), parts)
            except UnsupportedModel as error:
                self._notes.append(f"'{name}' was left as text: {error.reason}.")
                continue
            if problem := embedding.problem_with(widths):
                self._notes.append(f"'{name}' was left as text: {problem}.")
                continue
            fitting.append(embedding)
            if name in on_disk and (short_hash := self._short_hash(on_disk[name])):
                hashes[name] = short_hash
        return EmbeddingTable(fitting, tuple(widths)), hashes

    def _short_hash(self, file: ModelFile, *, of_data: bool = False) -> str:
        """Of the whole file, or of the weights alone: that stays the same when only the metadata is changed.

        "" while it is not known: no picture waits for it.
        """
        hashes = self._shelves.hashes_of(file)
        if hashes is None:
            return ""
        return ((hashes.data_sha256 if of_data else "") or hashes.sha256)[:SHORT_HASH]


def _listed(entries: Mapping[str, str], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in entries.items())
