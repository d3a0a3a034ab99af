import pytest
from contact_sheet import contact_sheet, main
from PIL import Image


def test_pictures_stand_in_rows_with_their_colours():
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    sheet = contact_sheet(pictures, ["one", "two", "three"], columns=2, cell=50)
    assert sheet.size == (2 * 62 + 12, 2 * 78 + 12)
    assert sheet.getpixel((37, 37)) == (255, 0, 0)
    assert sheet.getpixel((99, 37)) == (0, 128, 0)
    assert sheet.getpixel((37, 115)) == (0, 0, 255)


def test_captions_are_drawn_and_cut_to_the_width():
    picture = Image.new("RGB", (64, 64))
    without = contact_sheet([picture], None, cell=60)
    short, long = (contact_sheet([picture], [text], cell=60) for text in ("a", "a" * 500))
    assert without.height < short.height
    assert short.size == long.size
    assert short.tobytes() != long.tobytes()
    assert {long.getpixel((x, 80)) for x in range(70, 84)} == {(246, 246, 244)}


def test_wide_pictures_keep_their_shape():
    sheet = contact_sheet([Image.new("RGB", (100, 50), "red")], cell=100)
    reds = [y for y in range(sheet.height) if sheet.getpixel((62, y)) == (255, 0, 0)]
    assert len(reds) == 50


@pytest.mark.parametrize("captions", [["one"], ["one", "two", "three"]])
def test_a_wrong_number_of_captions_is_refused(captions):
    with pytest.raises(ValueError, match="captions for 2 pictures"):
        contact_sheet([Image.new("RGB", (8, 8))] * 2, captions)


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_the_script_writes_a_sheet(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    output = tmp_path / "sheet.png"
    monkeypatch.setattr("sys.argv", ["contact_sheet", str(tmp_path / "a.png"), "-o", str(output)])
    main()
    with Image.open(output) as sheet:
        assert sheet.size == (152, 168)
