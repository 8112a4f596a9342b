"""A GGUF file becomes an HF folder; without one, or without its reader, it is one line."""

import sys
from pathlib import Path
from typing import Any

import convert_gguf_to_hf
import pytest


def error(monkeypatch: Any, *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        convert_gguf_to_hf.main()
    return str(caught.value)


def test_what_cannot_be_converted_is_one_line(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(convert_gguf_to_hf, "find_spec", lambda name: object())
    lacking = error(monkeypatch, "--gguf", tmp_path / "none.gguf", "--out", tmp_path / "out")
    assert lacking == f"error: --gguf = {tmp_path}/none.gguf: no such file"
    (tmp_path / "a.gguf").touch()
    there = error(monkeypatch, "--gguf", tmp_path / "a.gguf", "--out", tmp_path)
    assert there == f"error: --out = {tmp_path}: exists already; name a new folder"


def test_a_missing_reader_is_named(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(convert_gguf_to_hf, "find_spec", lambda name: None)
    line = error(monkeypatch, "--gguf", tmp_path / "a.gguf", "--out", tmp_path / "out")
    assert line == "error: transformers reads GGUF files with gguf: pip install gguf"
