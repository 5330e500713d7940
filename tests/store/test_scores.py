"""The scores of a run: their digest, their metrics, their file."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from bench.store.scores import SCHEMA, Scores, read_scores, write_scores
from tests.fixtures.runs import (
    CLOSE,
    FAR,
    SCORES,
    flip,
)

names = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=9)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def made(draw):
    """Any scores that a run may have, with both classes among those that count."""
    n = draw(st.integers(2, 12))
    labels = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    roles = draw(st.lists(st.sampled_from(["test", "test", "drawn"]), min_size=n, max_size=n))
    counted = {label for label, role in zip(labels, roles, strict=True) if role == "test"}
    assume(len(counted) == 2)
    values = st.one_of(numbers, st.sampled_from([0.0, 0.5, 1.0]))  # so that there are ties
    return Scores(
        file=tuple(draw(st.lists(names, min_size=n, max_size=n, unique=True))),
        label=np.array(labels),
        defect=tuple("hole" if label else "good" for label in labels),
        role=tuple(roles),
        score=np.array(draw(st.lists(values, min_size=n, max_size=n)), np.float32),
    )


def equal(one, other):
    return (
        (one.file, one.defect, one.role) == (other.file, other.defect, other.role)
        and one.label.tolist() == other.label.tolist()
        and one.score.tobytes() == other.score.tobytes()
    )


# The digest


def test_the_digest_is_that_of_the_names_and_the_little_endian_scores():
    """Pinned: it is what finds out that two machines did not give the same bits."""
    assert SCORES.digest() == "cf929c53dc5a9f6847a89cdd3a2a2a1ef0ace775f34b1ee92802dacc927576cc"
    big_endian = replace(SCORES, score=SCORES.score.astype(">f4"))
    assert big_endian.digest() == SCORES.digest()


@given(made(), st.data())
def test_the_digest_changes_with_every_name_and_every_score(scores, data):
    place = data.draw(st.integers(0, len(scores.file) - 1))
    bits = scores.score.copy()
    bits.view(np.uint32)[place] ^= 1 << data.draw(st.integers(0, 31))
    assert replace(scores, score=bits).digest() != scores.digest()
    renamed = list(scores.file)
    renamed[place] = data.draw(names.filter(lambda n: n != scores.file[place]))
    assert replace(scores, file=tuple(renamed)).digest() != scores.digest()


@given(made(), st.randoms(use_true_random=False))
def test_the_digest_depends_on_the_order(scores, random):
    order = list(range(len(scores.file)))
    random.shuffle(order)
    assume(order != sorted(order))
    shuffled = replace(
        scores, file=tuple(scores.file[i] for i in order), score=scores.score[np.array(order)]
    )
    assert shuffled.digest() != scores.digest()


# The metrics


@given(made())
def test_the_metrics_are_those_of_scikit_learn(scores):
    counted = np.array([role == "test" for role in scores.role])
    found = scores.metrics(full=True)
    assert found.keys() == {"auroc", "ap", "auroc_full", "ap_full"}
    for suffix, of in (("", counted), ("_full", np.ones_like(counted))):
        label, score = scores.label[of], scores.score[of]
        assert found[f"auroc{suffix}"] == pytest.approx(roc_auc_score(label, score))
        assert found[f"ap{suffix}"] == pytest.approx(average_precision_score(label, score))
    assert scores.metrics(full=False) == {k: found[k] for k in ("auroc", "ap")}


def test_images_that_do_not_count_change_no_metric():
    drawn = replace(SCORES, score=np.array([0.1, 0.4, 0.35, 0.8, -9], np.float32))
    assert drawn.metrics(full=False) == SCORES.metrics(full=False)
    assert SCORES.metrics(full=False) == {"auroc": 0.75, "ap": pytest.approx(5 / 6)}
    assert SCORES.metrics(full=True)["auroc_full"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    "changes",
    [
        {"label": np.zeros(5, bool)},
        {"label": np.ones(5, bool)},
        {"role": ("test", "test", "drawn", "drawn", "drawn")},
        {"role": ("drawn",) * 5},
    ],
    ids=["all normal", "all anomalous", "no anomaly that counts", "none that counts"],
)
def test_metrics_of_one_class_are_an_error(changes):
    with pytest.raises(ValueError, match="both classes"):
        replace(SCORES, **changes).metrics(full=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_metrics_of_scores_that_are_not_finite_are_an_error(value):
    with pytest.raises(ValueError, match="not finite"):
        replace(SCORES, score=np.array([0, 1, 2, 3, value], np.float32)).metrics(full=True)


# The gap


def test_the_gap_is_the_largest_difference_of_one_image():
    assert SCORES.gap(SCORES) == 0.0
    assert SCORES.gap(FAR) == FAR.gap(SCORES) == pytest.approx(0.8)
    assert 0 < SCORES.gap(CLOSE) < 1e-6
    huge = replace(SCORES, score=np.full(5, 3e38, np.float32))
    assert huge.gap(replace(SCORES, score=-huge.score)) == pytest.approx(6e38)


def test_there_is_no_gap_between_other_images():
    assert SCORES.gap(replace(SCORES, file=("x", *SCORES.file[1:]))) is None
    fewer = Scores(
        SCORES.file[:2], SCORES.label[:2], SCORES.defect[:2], SCORES.role[:2], SCORES.score[:2]
    )
    assert SCORES.gap(fewer) is None


# The file


@given(made())
def test_scores_that_are_written_are_read_back(scores):
    assert equal(Scores.from_table(scores.table()), scores)
    sink = pa.BufferOutputStream()
    pq.write_table(scores.table(), sink)
    read = Scores.from_table(pq.ParquetFile(pa.BufferReader(sink.getvalue())).read())
    assert equal(read, scores)
    assert read.digest() == scores.digest()


def test_scores_are_read_from_a_file(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(path, SCORES)
    assert equal(read_scores(path), SCORES)


def with_column(name, values, kind):
    place = SCHEMA.get_field_index(name)
    return SCORES.table().set_column(place, name, pa.array(values, kind))


@pytest.mark.parametrize(
    "table",
    [
        pa.table({}),
        pa.table({"file": ["a"], "score": [1.0]}),
        SCORES.table().drop_columns("role"),
        SCORES.table().append_column("more", pa.array([1] * 5)),
        SCORES.table().select(["score", "file", "label", "defect", "role"]),
        SCORES.table().rename_columns(["file", "label", "defect", "role", "scores"]),
        with_column("score", [0.5] * 5, pa.float64()),
        with_column("label", [1] * 5, pa.int64()),
        with_column("label", [True] * 5, pa.bool_()),
        with_column("file", [b"a"] * 5, pa.binary()),
        with_column("score", [0.5, None, 0.5, 0.5, 0.5], pa.float32()),
        with_column("file", [None] * 5, pa.string()),
        with_column("label", [0, 1, 0, 1, None], pa.int8()),
        with_column("role", ["test"] * 4 + [None], pa.string()),
    ],
    ids=lambda t: " ".join(f"{f.name}:{f.type}" for f in t.schema),
)
def test_a_table_of_another_form_is_an_error(tmp_path, table):
    with pytest.raises(ValueError, match="scores have columns"):
        Scores.from_table(table)
    pq.write_table(table, tmp_path / "scores.parquet")
    with pytest.raises(ValueError, match="scores have columns"):
        read_scores(tmp_path / "scores.parquet")


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_that_is_none_is_an_error(label):
    with pytest.raises(ValueError):  # noqa: PT011
        Scores.from_table(with_column("label", [0, 1, 0, 1, label], pa.int8()))


def test_every_truncated_file_is_an_error(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(path, SCORES)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"scores.parquet does not read"):
            read_scores(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    for path in (tmp_path / "nowhere.parquet", tmp_path):
        with pytest.raises(ValueError, match="does not read"):
            read_scores(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "scores.parquet"
    write_scores(path, SCORES)
    return path, path.read_bytes()


@given(st.data())
def test_a_flipped_bit_raises_nothing_but_value_error(written, data):
    path, whole = written
    flip(path, data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7)))
    try:
        read_scores(path).digest()
    except ValueError:
        pass
    finally:
        path.write_bytes(whole)
