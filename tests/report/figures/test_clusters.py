"""Embeddings in the plane."""

import numpy as np
import pytest

from bench.report.figures.clusters import Cloud, thinned


def test_the_silhouette_is_that_of_the_space_and_leaves_out_what_was_trained_on():
    values = np.array([[0, 0, 0], [0, 0, 1], [0, 4, 0], [0, 4, 1], [0, 0, 0.5]], np.float32)
    cloud = Cloud(values, np.array([0, 0, 1, 1, 2]))
    own, other = 1, (4 + 17**0.5) / 2  # mean distances to the own class and to the other one
    assert cloud.silhouette == pytest.approx((other - own) / other)


def test_the_plane_is_the_same_each_time_and_keeps_neighbours():
    random = np.random.RandomState(1)
    values = np.concatenate([random.normal(0, 1, (20, 5)), random.normal(30, 1, (20, 5))])
    cloud = Cloud(values.astype(np.float32), np.repeat([0, 1], 20))
    plane = cloud.plane()
    assert plane.tobytes() == cloud.plane().tobytes()
    middle = [plane[:20].mean(0), plane[20:].mean(0)]
    near = np.linalg.norm(plane[:, None] - np.stack(middle), axis=2).argmin(1)
    assert list(near) == list(cloud.group)


@pytest.mark.parametrize("values", [np.arange(12)[:, None], np.zeros((12, 3)), np.ones((12, 1))])
def test_embeddings_that_say_little_make_a_cloud_all_the_same(values):
    cloud = Cloud(values.astype(np.float32), np.repeat([0, 1], 6))
    assert np.isfinite(cloud.plane()).all()
    assert -1 <= cloud.silhouette <= 1


def test_of_many_images_some_are_drawn_evenly():
    many = Cloud(np.arange(1000, dtype=np.float32)[:, None], np.zeros(1000, int))
    few = thinned(many)
    assert len(few.values) == 400
    assert (few.values[0], few.values[-1]) == (0, 999)
    assert np.diff(few.values[:, 0]).max() <= 3
