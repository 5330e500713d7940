"""Embeddings: the components that are kept of a method's features, and their file."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import MethodError
from bench.execution.contract import project
from bench.store.embeddings import COMPONENTS, SCHEMA, Embeddings, embeddings_bytes, read_embeddings
from tests.fixtures.runs import EMBEDDED, noise

names = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=9)


def files(n):
    return tuple(f"{i}.png" for i in range(n))


def distances(values):
    return np.linalg.norm(values[:, None].astype(float) - values[None], axis=2)


# Principal components


@pytest.mark.parametrize(("n", "d"), [(6, 3), (6, 40), (2, 1), (90, 7)])
def test_where_all_components_fit_distances_stay(n, d):
    features = noise(n, d)
    found = project(files(n), features)
    assert found.values.shape == (n, min(n - 1, d))  # centred: n - 1 directions at most
    assert found.kept == pytest.approx(1.0)
    assert distances(found.values) == pytest.approx(distances(features), abs=1e-4)
    assert found.values.mean(axis=0) == pytest.approx(0, abs=1e-5)


def test_of_many_components_the_largest_are_kept_and_their_share_is_told():
    spread = 0.9 ** np.arange(80)
    features = np.random.RandomState(0).normal(size=(120, 80)) * spread
    found = project(files(120), features)
    assert found.values.shape == (120, COMPONENTS)
    assert found.values.dtype == np.float32
    variances = found.values.astype(float).var(axis=0)
    assert (np.diff(variances) <= 0).all()
    assert found.kept == pytest.approx(variances.sum() / features.var(axis=0).sum())
    assert 0.9 < found.kept < 1
    exact = np.sort(np.linalg.eigvalsh(np.cov(features.T, bias=True)))[::-1]
    assert variances == pytest.approx(exact[:COMPONENTS], rel=1e-5)


def test_the_sign_of_a_component_does_not_depend_on_the_sign_that_the_svd_finds(monkeypatch):
    real = np.linalg.svd
    one = project(files(9), noise(9, 5))

    def turned(*arguments, **more):
        left, sizes, loadings = real(*arguments, **more)
        return -left, sizes, -loadings

    monkeypatch.setattr(np.linalg, "svd", turned)
    assert project(files(9), noise(9, 5)).values.tobytes() == one.values.tobytes()
    line = np.outer(np.arange(5.0), [1.0, -3.0])  # the larger loading falls along it
    assert (np.diff(project(files(5), line).values[:, 0]) < 0).all()


@pytest.mark.parametrize("features", [np.zeros((4, 3)), np.full((4, 3), 7.25), np.ones((1, 3))])
def test_features_without_variance_are_one_component_of_zeros(features):
    found = project(files(len(features)), features)
    assert found.values.tolist() == [[0.0]] * len(features)
    assert found.kept == 1.0


def test_what_is_zero_but_for_rounding_is_no_component():
    flat = np.outer(np.arange(30.0), np.linspace(0.1, 1, 20)) / 3
    assert project(files(30), flat).values.shape == (30, 1)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_any_float_will_do_and_the_features_stay_as_they_are(kind):
    features = noise(6, 4).astype(kind)
    before = features.copy()
    assert project(files(6), features).values.shape == (6, 4)
    assert (features == before).all()


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (None, "an array of floats, not NoneType"),
        ([[1.0]] * 5, "an array of floats, not list"),
        (np.ones((5, 2), int), "an array of floats, not int64"),
        (np.ma.ones((5, 2)), "an array of floats, not MaskedArray"),
        (np.ones(5), r"shape \(5, D\), not \(5,\)"),
        (np.ones((5, 2, 2)), r"shape \(5, D\), not \(5, 2, 2\)"),
        (np.ones((4, 2)), r"shape \(5, D\), not \(4, 2\)"),
        (np.ones((5, 0)), r"shape \(5, D\), not \(5, 0\)"),
        (np.array([[1.0, np.nan]] * 2 + [[np.inf, 1.0]] + [[1.0, 1.0]] * 2), "3 of 5 rows"),
        (np.array([[1e308], [-1e308], [1e308], [1e308], [1e308]]) * 1.7, "too large"),
        (np.array([[1e60], [0.0], [0.0], [0.0], [0.0]]), "too large for float32"),
    ],
)
def test_what_is_no_features_is_a_broken_contract(features, said):
    with pytest.raises(MethodError, match=said):
        project(files(5), features)


# The file


@given(st.lists(names, min_size=1, max_size=9, unique=True), st.integers(1, 60), st.integers(0, 99))
def test_embeddings_that_are_written_are_read_back(file, dimensions, seed):
    features = np.random.RandomState(seed).normal(size=(len(file), dimensions))
    made = project(file, features)
    read = read_embeddings(embeddings_bytes(made))
    assert (read.file, read.kept) == (tuple(file), made.kept)
    assert read.values.dtype == np.float32
    assert read.values.shape == made.values.shape
    assert read.values.tobytes() == made.values.tobytes()
    part = pa.concat_tables([EMBEDDED.table(), made.table()]).slice(5)
    assert Embeddings.from_table(part).values.tobytes() == made.values.tobytes()


def with_column(name, values, kind):
    place = SCHEMA.get_field_index(name)
    return EMBEDDED.table().set_column(place, name, pa.array(values, kind))


LISTS = pa.list_(pa.float32())


@pytest.mark.parametrize(
    "table",
    [
        pa.table({}),
        EMBEDDED.table().drop_columns("kept"),
        EMBEDDED.table().append_column("more", pa.array([1] * 5)),
        EMBEDDED.table().slice(0, 0),
        with_column("values", [[1.0]] * 5, pa.list_(pa.float64())),
        with_column("values", [[1.0]] * 4 + [None], LISTS),
        with_column("values", [[1.0]] * 4 + [[None]], LISTS),
        with_column("values", [[1.0]] * 4 + [[1.0, 2.0]], LISTS),
        with_column("values", [[1.0]] * 4 + [[np.nan]], LISTS),
        with_column("values", [[]] * 5, LISTS),
        with_column("file", ["a"] * 4 + [None], pa.string()),
        with_column("kept", [0.5] * 4 + [0.6], pa.float64()),
        with_column("kept", [1.5] * 5, pa.float64()),
        with_column("kept", [np.nan] * 5, pa.float64()),
    ],
)
def test_a_table_of_another_form_is_an_error(table):
    with pytest.raises(ValueError, match="embeddings"):
        Embeddings.from_table(table)


def test_what_is_no_file_of_embeddings_raises_nothing_but_value_error():
    whole = embeddings_bytes(EMBEDDED)
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError, match="does not read"):
            read_embeddings(whole[:length])
