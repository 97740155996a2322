"""Photos as the U-Net sees them: latents, masks, captions, sizes, by number; each encoded once, when it is needed."""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from webui.pipeline.conditioning import UNetInputs, edit_channels, inpaint_channels
from webui.pipeline.latents import FACTOR, LatentCodec, to_values
from webui.pipeline.model import Model
from webui.training.caching import TensorCache, Tensors, latent_key, weights_digest
from webui.training.config import TrainingConfig
from webui.training.data.captions import base_caption, caption_of, class_caption
from webui.training.data.holes import random_hole
from webui.training.data.prepared import Placed, Prepared, prepare
from webui.training.data.training_set import TrainingSet, sizes_of
from webui.training.order import Group
from webui.training.seeds import mixed
from webui.training.validation.photos import MeasuredPhoto

Report = Callable[[int, int], None]
Check = Callable[[], None]

NUM_HOLES = 8
"""Random masks per photo for networks that repaint: each takes an encoding, and half an epoch has seen few."""


class EncodedPhotos:
    """Those of the subject and of its class; what the loop and the measuring take batches from.

    `codec` is used only where something is not in `cache` yet.
    """

    def __init__(
        self,
        photos: Sequence[Placed],
        config: TrainingConfig,
        codec: LatentCodec,
        cache: TensorCache,
        inputs: UNetInputs,
        *,
        encoder: str = "",
    ) -> None:
        """`encoder`: the autoencoder's digest, worked out where it is not given."""
        self._photos = tuple(photos)
        self._config = config
        self._codec = codec
        self._cache = cache
        self._inputs = inputs
        self._encoder = encoder or weights_digest(codec.vae)
        self._masks = {
            i: hashlib.sha256(placed.photo.mask.read_bytes()).hexdigest()
            for i, placed in enumerate(self._photos)
            if placed.photo.mask is not None
        }

    def __len__(self) -> int:
        return len(self._photos)

    def groups(self) -> list[Group]:
        """One per size. Pictures of the class have their own, which together come as often as the subject's."""
        own, prior = (self._groups(is_prior) for is_prior in (False, True))
        factor = sum(group.weight for group in own) / max(sum(group.weight for group in prior), 1e-9)
        return [*own, *(Group(group.items, group.weight * factor if own else group.weight) for group in prior)]

    def name(self, item: int) -> str:
        return self._photos[item].photo.name

    def content(self, item: int) -> str:
        """The photo's hash."""
        return self._photos[item].photo.sha256

    def placed(self, item: int) -> Placed:
        return self._photos[item]

    def latent(self, item: int, *, flipped: bool) -> Tensor:
        """(C, h, w) float32."""
        placed = self._photos[item]
        key = latent_key(self.content(item), placed.area, placed.size, flipped=flipped, encoder=self._encoder)
        return self._cache.get(key, lambda: self._encoded(placed, flipped))["latent"]

    def mask(self, item: int, *, flipped: bool) -> Tensor | None:
        """(1, h, w) float32, data.unmasked_weight where the photo's mask is black, 1 where it is white."""
        placed, data = self._photos[item], self._config.data
        if not data.masks or not (placed.photo.mask or placed.photo.facts.has_alpha):
            return None
        cover = self._mask(item, flipped)["mask"]
        return data.unmasked_weight + (1.0 - data.unmasked_weight) * cover

    def caption(self, item: int, *, sample: int) -> str:
        config = self._config
        return caption_of(self.plain_caption(item), config.data, seed=config.schedule.seed, sample=sample)

    def plain_caption(self, item: int) -> str:
        """With nothing left out or moved."""
        photo, config = self._photos[item].photo, self._config
        captioned = class_caption if photo.is_prior else base_caption
        return captioned(photo.caption, config.data, config.subject)

    def prior_caption(self, item: int) -> str | None:
        photo, config = self._photos[item].photo, self._config
        if not config.data.prior_prediction or photo.is_prior:
            return None
        return class_caption(photo.caption, config.data, config.subject)

    def captions(self) -> frozenset[str]:
        """Those that come up as they are: whole, of the class alone where the base is held on to, and empty."""
        items = range(len(self))
        prior = (caption for i in items if (caption := self.prior_caption(i)) is not None)
        return frozenset({"", *map(self.plain_caption, items), *prior})

    def time_ids(self, item: int) -> Tensor | None:
        """Original height and width, crop's top and left, target height and width.

        Source: Podell et al. 2023, arXiv:2307.01952, section 2.2.
        """
        if self._inputs.num_time_ids != 6:
            return None
        placed = self._photos[item]
        width, height = placed.size
        return torch.tensor([*placed.photo.size[::-1], *placed.crop_top_left, height, width], dtype=torch.float32)

    def channels(self, item: int, *, sample: int, flipped: bool) -> Tensor | None:
        """(1 + C, h, w) for networks that repaint: every other time with the photo's own mask, if it has one."""
        if self._inputs.picture_channels == "edit":  # there are no pairs to learn from: it is shown nothing
            return edit_channels(self._codec, None, size=self._photos[item].size)[0].cpu()
        if self._inputs.picture_channels != "inpaint":
            return None
        number = mixed(self._config.schedule.seed, item, sample, 0x401E) % NUM_HOLES
        photo = self._photos[item].photo
        given = bool(photo.mask or photo.facts.has_alpha) and number % 2 == 0
        hole = "given" if given else f"hole {number}"
        key = self._key(item, flipped, f"{hole} {self._config.schedule.seed}")
        return self._cache.get(key, lambda: self._holed(item, number, given, flipped))["channels"]

    def image(self, item: int) -> Image.Image:
        """RGB, of the size it is trained in."""
        return Image.fromarray(prepare(self._photos[item], masks=False).pixels)

    def measured(self, items: Iterable[int] | None = None) -> list[MeasuredPhoto]:
        """What measuring takes: the photos of the subject, or `items`."""
        own = (i for i, placed in enumerate(self._photos) if not placed.photo.is_prior)
        return [
            MeasuredPhoto(
                name=self.name(item),
                sha256=self.content(item),
                image=self.image(item),
                latent=self.latent(item, flipped=False),
                caption=self.plain_caption(item),
                mask=self.mask(item, flipped=False),
                time_ids=self.time_ids(item),
                channels=self.channels(item, sample=0, flipped=False),
            )
            for item in (own if items is None else items)
        ]

    def weight(self, item: int) -> float:
        return self._config.data.prior_weight if self._photos[item].photo.is_prior else 1.0

    def encode_all(self, *, report: Report, check: Check) -> None:
        """All latents now, so that the autoencoder is not needed later, unless the network repaints.

        Raises UnreadableImage or StorageError as soon as a photo cannot be used.
        """
        flips = (False, True) if self._config.data.flip else (False,)
        for item in range(len(self)):
            for flipped in flips:
                check()
                self.latent(item, flipped=flipped)
                self.mask(item, flipped=flipped)
            report(item + 1, len(self))

    def _groups(self, is_prior: bool) -> list[Group]:
        items = [i for i, placed in enumerate(self._photos) if placed.photo.is_prior == is_prior]
        sizes = sizes_of([self._photos[i] for i in items])
        groups = []
        for places in sizes.values():
            repeated = [items[place] for place in places for _ in range(self._repeats(items[place]))]
            groups.append(Group(tuple(repeated), float(len(repeated))))
        return groups

    def _repeats(self, item: int) -> int:
        photo = self._photos[item].photo
        return photo.repeats if photo.is_prior else photo.repeats * self._config.data.repeats

    def _key(self, item: int, flipped: bool, what: str) -> str:
        placed = self._photos[item]
        key = latent_key(self.content(item), placed.area, placed.size, flipped=flipped, encoder=self._encoder)
        return f"{what} {self._masks.get(item, '')} of {key}"

    def _prepared(self, placed: Placed, flipped: bool, *, masks: bool) -> Prepared:
        prepared = prepare(placed, masks=masks)
        if not flipped:
            return prepared
        mask = None if prepared.mask is None else prepared.mask[:, ::-1].copy()
        return Prepared(pixels=prepared.pixels[:, ::-1].copy(), mask=mask)

    def _encoded(self, placed: Placed, flipped: bool) -> Tensors:
        image = Image.fromarray(self._prepared(placed, flipped, masks=False).pixels)
        with torch.no_grad():
            return {"latent": self._codec.encode_values(to_values(image))[0]}

    def _mask(self, item: int, flipped: bool) -> Tensors:
        def made() -> Tensors:
            placed = self._photos[item]
            mask = self._prepared(placed, flipped, masks=True).mask
            assert mask is not None
            return {"mask": _in_latents(mask)}

        return self._cache.get(self._key(item, flipped, "mask"), made)

    def _holed(self, item: int, number: int, given: bool, flipped: bool) -> Tensors:
        placed = self._photos[item]
        prepared = self._prepared(placed, flipped, masks=given)
        width, height = placed.size
        seed = mixed(self._config.schedule.seed, int(self.content(item)[:15], 16), number)
        if given and prepared.mask is not None:
            hole = (prepared.mask >= 0.5).astype(np.uint8) * 255
        else:
            hole = random_hole(width, height, seed=seed)
        image, mask = Image.fromarray(prepared.pixels), Image.fromarray(hole)
        with torch.no_grad():
            return {"channels": inpaint_channels(self._codec, image, mask, size=placed.size)[0]}


def encoded_set(
    found: TrainingSet, config: TrainingConfig, model: Model, cache: TensorCache
) -> tuple[EncodedPhotos, EncodedPhotos]:
    """(what is trained on: the subject's photos, then the class's; what was kept back)."""
    encoder = weights_digest(model.codec.vae)
    trained, held_out = (
        EncodedPhotos(photos, config, model.codec, cache, model.inputs, encoder=encoder)
        for photos in ((*found.train, *found.prior), found.held_out)
    )
    return trained, held_out


def _in_latents(mask: NDArray[np.float32]) -> Tensor:
    """(h, w) pixels -> (1, h / 8, w / 8): the mean over each latent's pixels."""
    return torch.nn.functional.avg_pool2d(torch.from_numpy(mask)[None], FACTOR)
