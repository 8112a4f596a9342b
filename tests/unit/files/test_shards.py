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
    with pytest.raises(FileNotFoundError, match=r"no such shard: .*a-2\.tar$"):
        shard_paths(f"{folder}/a-{{0..2}}.tar")


def test_an_empty_pattern_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="must name WebDataset shards"):
        shard_paths("")
