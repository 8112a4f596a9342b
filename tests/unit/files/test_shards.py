"""Which files a pattern of shards names."""

import pytest

from megatron_trace.files.shards import shard_paths


@pytest.fixture
def folder(tmp_path):
    for name in ("a-1.tar", "a-0.tar", "b-0.tar"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("b-0.tar", ["b-0.tar"]),
        ("a-*.tar", ["a-0.tar", "a-1.tar"]),
        ("a-{0..1}.tar", ["a-0.tar", "a-1.tar"]),
        ("{b,a}-*.tar", ["b-0.tar", "a-0.tar", "a-1.tar"]),
    ],
)
def test_globs_are_sorted_and_braces_keep_their_order(folder, pattern, names) -> None:
    assert shard_paths(f"{folder}/{pattern}") == [f"{folder}/{name}" for name in names]


def test_one_part_of_the_braces_that_matches_nothing_is_an_error_that_names_it(folder) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*a-2\.tar$"):
        shard_paths(f"{folder}/a-{{0..2}}.tar")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "braces",
    ["{0..99999999}", "{-9999999..9999999..2}", "{0..9999}{0..9999}", f"{{0..{'9' * 5000}}}"],
)
def test_braces_without_measure_are_refused_at_once(folder, braces) -> None:
    with pytest.raises(FileNotFoundError, match=r"more than 1,000,000 files|integer string"):
        shard_paths(f"{folder}/a-{braces}.tar")


@pytest.mark.timeout(20)
def test_every_part_of_long_braces_is_looked_at_only_until_one_is_missing(folder) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*/aaaaaa"):
        shard_paths(f"{folder}/{'{a,b}' * 40}.tar")


def test_an_empty_pattern_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="must name data files"):
        shard_paths("")
