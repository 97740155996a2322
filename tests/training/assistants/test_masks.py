"""Masks: networks are fed as their makers feed them, and what they think becomes a mask that one would have drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.assistant_files import write_masker
from tests.training.assistants.conftest import disc_picture, noisy_picture
from webui.library.onnx_file import read_graph
from webui.settings import CHECKOUT
from webui.training.assistants.maskers import FAMILIES, NetworkMasker, family_of, pixels_for, soft_of
from webui.training.assistants.masks import Outline, UselessMask, mask_of, outlined, without_specks

SHARP = Outline(grow=0, feather=0)


def disc(size: tuple[int, int] = (240, 200)) -> NDArray[np.bool_]:
    return np.asarray(disc_picture(size=size))[:, :, 0] > 180


def overlap(mask: NDArray[np.uint8], wanted: NDArray[np.bool_]) -> float:
    seen = mask >= 128
    return float((seen & wanted).sum() / (seen | wanted).sum())


@pytest.mark.parametrize(
    ("name", "dims", "num_outputs", "logits"),
    [
        ("u2net", (1, 3, 320, 320), 7, False),
        ("model", ("batch", 3, 320, 320), 7, False),
        ("isnet-general-use", (1, 3, 1024, 1024), 1, False),
        ("BiRefNet-general-lite", (1, 3, 1024, 1024), 1, True),
        ("modnet_photographic", (None, 3, None, None), 1, False),
    ],
)
def test_the_subject_of_a_picture_is_masked_in_its_own_size(
    name: str, dims: tuple[int | str | None, ...], num_outputs: int, logits: bool, tmp_path: Path
) -> None:
    path = write_masker(tmp_path / f"{name}.onnx", dims=dims, num_outputs=num_outputs, logits=logits)
    graph = read_graph(path)
    family = family_of(name, graph)
    assert family is not None
    soft = NetworkMasker(path, graph, family).mask(disc_picture())
    assert soft.shape == (200, 240) and soft.dtype == np.float32
    assert overlap(mask_of(soft, SHARP), disc()) > 0.97


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_family_is_fed_as_its_maker_feeds_it(family) -> None:
    image = noisy_picture(2, (64, 48))
    got = pixels_for(image, (64, 48), family)
    raw = np.asarray(image, np.float64)
    white = raw.max() if family.name == "U2-Net" else 255.0
    wanted = (raw / white - np.array(family.mean)) / np.array(family.std)
    assert got.shape == (1, 3, 48, 64)
    assert np.abs(got[0].transpose(1, 2, 0) - wanted).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("BiRefNet_lite", "BiRefNet"),
        ("RMBG-2.0", "BiRefNet"),
        ("RMBG-1.4/model", "IS-Net"),
        ("isnet-anime", "IS-Net of anime-segmentation"),
        ("isnet-general-use", "IS-Net"),
        ("u2net_human_seg", "U2-Net"),
        ("silueta", "U2-Net"),
        ("modnet", "MODNet"),
        ("something", None),
    ],
)
def test_the_family_is_told_by_the_name(name: str, family: str | None, tmp_path: Path) -> None:
    graph = read_graph(write_masker(tmp_path / "x.onnx", dims=(1, 3, 512, 512), num_outputs=1))
    found = family_of(name, graph)
    assert (found.name if found else None) == family


def test_a_map_of_logits_is_made_probabilities_and_one_of_probabilities_stays() -> None:
    birefnet = FAMILIES[0]
    logits = np.array([[-4.0, 0.0, 4.0]], np.float32)
    assert np.allclose(soft_of(logits, birefnet), 1 / (1 + np.exp(-logits)))
    likely = np.array([[0.1, 0.5, 0.9]], np.float32)
    assert np.array_equal(soft_of(likely, birefnet), likely)


def test_specks_go_small_holes_are_filled_and_a_second_subject_stays() -> None:
    binary = np.zeros((200, 300), np.uint8)
    cv2.circle(binary, (80, 100), 50, 1, -1)
    cv2.circle(binary, (230, 100), 25, 1, -1)
    wanted = binary.copy()
    cv2.circle(wanted, (80, 100), 12, 0, -1)  # an arm akimbo: large enough to be meant
    binary = wanted.copy()
    binary[60:62, 80:82] = 0
    binary[5:10, 5:10] = 1
    assert np.array_equal(without_specks(binary), wanted)


def test_the_edge_is_grown_and_feathered_in_percent_of_the_longer_side() -> None:
    soft = np.zeros((500, 1000), np.float32)
    soft[:, 400:600] = 1
    row = mask_of(soft, Outline(grow=2, feather=4))[250]
    # The edge is at 400 and moves 20 px out; the ramp is 40 px wide about it.
    assert list(row[[358, 421, 500]]) == [0, 255, 255]
    assert 120 <= row[380] <= 136 and (np.diff(row[340:440].astype(int)) >= 0).all()
    shrunk = mask_of(soft, Outline(grow=-2, feather=0))[250] > 0
    assert list(np.flatnonzero(shrunk)[[0, -1]]) == [420, 579]


def test_neither_grown_nor_feathered_it_stays_as_it_is() -> None:
    binary = disc().astype(np.uint8)
    assert np.array_equal(outlined(binary, grow_px=0, feather_px=0), binary * 255)


@pytest.mark.parametrize(("value", "told"), [(0.0, "0.0% of it: nothing was found"), (1.0, "no background was found")])
def test_a_mask_of_nothing_or_of_everything_is_refused(value: float, told: str) -> None:
    with pytest.raises(UselessMask, match=told):
        mask_of(np.full((60, 80), value, np.float32), Outline())


def test_people_are_masked_by_what_ships(tmp_path: Path) -> None:
    from skimage import data

    from extensions.face_consistency.analysis import Models
    from extensions.face_consistency.detection import find_faces
    from webui.plugins.host import PluginHost
    from webui.settings import load_settings

    portrait = data.astronaut()
    host = PluginHost(load_settings(data_dir=tmp_path))
    host.load(only={"face_consistency"})
    try:
        (people,) = host.subject_maskers()
        mask = mask_of(people.mask(portrait), SHARP) >= 128
    finally:
        host.close()
    (face,) = find_faces(portrait, models=Models(CHECKOUT / "extensions" / "face_consistency" / "models"))
    left, top, right, bottom = (round(edge) for edge in face.box)
    assert mask[top:bottom, left:right].mean() > 0.95, "the face is hers"
    assert mask[300:, 150:350].mean() > 0.95, "so is the suit"
    assert mask[:100, :100].mean() < 0.1 and mask[:200, 400:].mean() < 0.1, "flag and shuttle are not"
