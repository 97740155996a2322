"""From the settings to what is trained, on the live model."""

from collections.abc import Mapping

from torch import nn

from webui.library.families import AdapterBase
from webui.pipeline.sources import CheckpointSource
from webui.training.config import Network
from webui.training.networks.adapter import AdapterNetwork
from webui.training.networks.embedding import EmbeddingNetwork, NewEmbedding
from webui.training.networks.full import FullNetwork
from webui.training.networks.pivotal import PivotalNetwork
from webui.training.networks.trainable import Trainable


def attach(
    modules: Mapping[str, nn.Module],
    network: Network,
    base: AdapterBase,
    *,
    embedding: NewEmbedding | None = None,
    checkpoint: CheckpointSource | None = None,
) -> Trainable:
    """What `network` trains of `modules` ("unet", "text_encoder", "text_encoder_2"), ready to be trained.

    All else of them is frozen, until `detach`. First values come from torch's global generator on the processor, so
    they are the same on every device. `embedding` is for the methods that learn a word, `checkpoint` (what `modules`
    were loaded from) for `full`. Raises ValueError without one that is needed.
    """
    match network.method:
        case "full":
            if checkpoint is None:
                raise ValueError("Training the whole model needs the checkpoint that it came from.")
            return FullNetwork(modules, checkpoint, text_encoder=network.text_encoder)
        case "embedding":
            return EmbeddingNetwork(modules, _needed(embedding))
        case "pivotal":
            word = _needed(embedding)
            return PivotalNetwork(AdapterNetwork(modules, network, base), EmbeddingNetwork(modules, word))
        case _:
            return AdapterNetwork(modules, network, base)


def _needed(embedding: NewEmbedding | None) -> NewEmbedding:
    if embedding is None:
        raise ValueError("A new word needs its first vectors.")
    return embedding
