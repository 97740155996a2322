"""The mesh is one closed skin with the outline as its only edge."""

from collections import Counter

import numpy as np
import pytest

from extensions.face_consistency import topology


def edges() -> Counter[frozenset[int]]:
    triangles = topology.mesh_triangles().tolist()
    return Counter(frozenset(pair) for a, b, c in triangles for pair in ((a, b), (b, c), (c, a)))


def test_every_point_belongs_to_the_mesh():
    assert set(topology.mesh_triangles().ravel().tolist()) == set(range(topology.NUM_POINTS))


def test_the_outline_is_the_only_edge_in_its_order():
    shared = edges()
    assert max(shared.values()) == 2
    around = zip(topology.OVAL, (*topology.OVAL[1:], topology.OVAL[0]), strict=True)
    assert {edge for edge, count in shared.items() if count == 1} == {frozenset(pair) for pair in around}


def test_the_mesh_has_no_hole():
    """Euler: points - edges + triangles is 1 for a disc."""
    assert topology.NUM_POINTS - len(edges()) + len(topology.mesh_triangles()) == 1


def test_a_frontal_face_shows_the_front_of_nearly_all_triangles(astronaut_face):
    corners = astronaut_face.points[topology.mesh_triangles()]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert np.mean(one[:, 0] * two[:, 1] > one[:, 1] * two[:, 0]) > 0.95


@pytest.mark.parametrize("name", ["BROW", "EYE", "CHEEK"])
def test_right_is_the_persons_right(astronaut_face, name):
    right, left = (astronaut_face.points[list(getattr(topology, f"{side}_{name}")), 0] for side in ("RIGHT", "LEFT"))
    assert right.max() < left.min()


def test_the_table_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        topology.mesh_triangles()[0, 0] = 1
