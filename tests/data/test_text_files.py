"""Files of text that are cut, or that say they are larger than they are: ASE would wait, or fill the memory."""

import pytest

from bayesmol.data import read
from bayesmol.data.text_files import check_end, check_xyz
from bayesmol.data.trajectory_files import read_trajectories
from bayesmol.errors import FormatError

FRAME = "2\nProperties=species:S:1:pos:R:3 energy=-1\nH 0 0 0\nH 0 0 0.74\n"


@pytest.fixture
def written(tmp_path):
    def path(text):
        (tmp_path / "file.xyz").write_text(text, encoding="utf-8")
        return tmp_path / "file.xyz"

    return path


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("2\nP", "999999999999\nP", "999999999999 atoms"),
        ("2\nP", 5000 * "9" + "\nP", "atoms"),
        ("R:3", "R:9999999999993", "9999999999994 columns"),
        ("R:3", "R:" + 5000 * "9", "columns"),
        ("R:3", "R:3:forces:R:99", "103 columns"),
    ],
    ids=["atoms", "digits of atoms", "columns", "digits of columns", "sum of columns"],
)
@pytest.mark.parametrize("frame", [0, 2])
def test_a_huge_header_is_refused_before_anything_is_read(written, old, new, wanted, frame):
    path = written(frame * FRAME + FRAME.replace(old, new) + FRAME)
    for reader in (check_xyz, read, lambda file: read_trajectories(file, features=lambda x, _: x.flatten(1))):
        with pytest.raises(FormatError, match=wanted) as caught:
            reader(path)
        assert f"frame {frame}" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [FRAME, 3 * FRAME, "1\n\nHe 0 0 0\n", "1\na ratio of 3:999999\nHe 0 0 0\n", "1\n\nHe 0 0 0\nVEC1 5 0 0\n" + FRAME],
    ids=["extended", "several", "plain", "a comment", "vectors"],
)
def test_what_is_sound_passes(written, text):
    check_xyz(written(text))


def test_a_line_that_was_cut(written):
    check_end(written("1.0 2.0\n3.0 4.0"))
    with pytest.raises(FormatError, match="last line"):
        check_end(written("1.0 2.0\n3.0 4"))
