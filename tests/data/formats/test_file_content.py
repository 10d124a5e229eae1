"""Text files of any size."""

from pathlib import Path

import pytest
from upath import UPath

from yolo_dist.data.formats import file_content
from yolo_dist.data.formats.file_content import text_chunks
from yolo_dist.errors import AnnotationError, DataError

TEXT = "é😀x" * 5


@pytest.mark.parametrize("chunk", [1, 2, 3, 64])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_comes_whole_whatever_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, mark: bytes
) -> None:
    monkeypatch.setattr(file_content, "CHUNK_BYTES", chunk)
    (tmp_path / "a.txt").write_bytes(mark + TEXT.encode())
    assert "".join(text_chunks(UPath(tmp_path), "a.txt")) == TEXT


@pytest.mark.parametrize("chunk", [1, 3, 64])
@pytest.mark.parametrize("wrong", [b"\xff", b"\xc3"], ids=["no character", "cut in a character"])
def test_a_byte_that_is_not_text_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, wrong: bytes
) -> None:
    monkeypatch.setattr(file_content, "CHUNK_BYTES", chunk)
    (tmp_path / "a.txt").write_bytes("aé".encode() + wrong)
    with pytest.raises(AnnotationError, match=r"a\.txt: byte 3 is not UTF-8 text"):
        list(text_chunks(UPath(tmp_path), "a.txt"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt: no such file"):
        list(text_chunks(UPath(tmp_path), "a.txt"))
