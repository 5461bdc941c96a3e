"""RAN's list files: five line formats read back, every defect named with file and row, lists found where they lie."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data import ran
from bench.data.base import MARKER
from bench.data.classes import ORDERS
from bench.errors import UserError

PUBLISHED = {  # lines, images
    ("ferplus", "occlusion"): (605, 605),
    ("ferplus", "pose30"): (1170, 1170),
    ("ferplus", "pose45"): (633, 633),
    ("rafdb", "occlusion"): (735, 734),
    ("rafdb", "pose30"): (1247, 1247),
    ("rafdb", "pose45"): (558, 558),
    ("affectnet", "occlusion"): (683, 683),
    ("affectnet", "pose30"): (1949, 1944),
    ("affectnet", "pose45"): (985, 983),
}
Face = tuple[str, int, int]  # name, class number, type of occlusion
Place = tuple[str, str]  # dataset, subset


def line(form: ran.Form, face: Face) -> str:
    """A line of a list, written from the description of the format and not from its pattern."""
    name, number, kind = face
    return {
        "jianfei_occlusion_list.txt": f"{number}_{name}.png 8 {kind}",
        "pose_30_ferplus_list.txt": f"{number}/{name}.jpg",
        "pose_45_ferplus_list.txt": f"{number}/{name}.jpg",
        "rafdb_occlusion_list.txt": f"{name}_aligned {number} {kind}",
        "val_raf_db_list.txt": f"{number}/{name}_aligned.jpg",
        "val_raf_db_list_45.txt": f"{number}/{name}_aligned.jpg",
        "occlusion_affectnet_list.txt": f"val/{number}/{name}/",
        "pose_30_affectnet_list.txt": f"{number}/{name}.jpg",
        "pose_45_affectnet_list.txt": f"{number}/{name}/8.jpg",
    }[form.file]


def face(form: ran.Form, number: int, label: int = 0, kind: int = 1) -> Face:
    """The face with a number, named as the list's dataset names them."""
    name = {"ferplus": f"fer{number:07d}", "raf": f"test_{number:04d}", "affectnet": f"{number:056x}"}[form.order]
    return name, label, kind


def write(folder: Path, form: ran.Form, faces: list[Face], text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / form.file
    path.write_text(text or "".join(line(form, face) + "\n" for face in faces), encoding="utf-8")
    return path


OCCLUDED = ran.FORMS["ferplus", "occlusion"]
TURNED = ran.FORMS["rafdb", "pose30"]


# --- published lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PUBLISHED, ids="-".join)
def test_published_lists(ran_lists: Path, place: tuple[str, str]) -> None:
    path, listed = ran.read(*place, [ran_lists])
    once = ran.cleaned(listed)
    assert (len(listed), len(once)) == PUBLISHED[place]
    assert path.parent.name == ran.FORMS[place].folder
    assert {one.label for one in listed} == set(ORDERS[ran.FORMS[place].order])
    assert len({one.name for one in once}) == len(once)


def test_published_lists_fit_each_other(ran_lists: Path) -> None:
    found = {place: {one.name for one in ran.read(*place, [ran_lists])[1]} for place in PUBLISHED}
    for dataset in ("ferplus", "rafdb", "affectnet"):
        assert found[dataset, "pose45"] < found[dataset, "pose30"]
    assert len(found["ferplus", "occlusion"] & found["ferplus", "pose30"]) == 205
    repeated = Counter(one.name for one in ran.read("rafdb", "occlusion", [ran_lists])[1]).most_common(1)
    assert repeated == [("test_2464.jpg", 2)]


def test_published_types_of_occlusion(ran_lists: Path) -> None:
    for dataset, kinds in (("ferplus", {0, 1, 2, 3}), ("rafdb", {1, 2, 3, 4}), ("affectnet", {None})):
        assert {one.occlusion for one in ran.read(dataset, "occlusion", [ran_lists])[1]} == kinds


def test_the_file_that_rans_readme_links_for_45_degrees_is_refused(ran_lists: Path, tmp_path: Path) -> None:
    text = (ran_lists / "FERplus_dir" / "pose_30_ferplus_list.txt").read_text()
    (tmp_path / "pose_45_ferplus_list.txt").write_text(text)
    with pytest.raises(UserError, match=r"pose_45_ferplus_list\.txt holds the 30-degree list") as error:
        ran.read("ferplus", "pose45", [tmp_path])
    assert "README links both lists" in error.value.hint


@pytest.mark.parametrize("place", PUBLISHED, ids="-".join)
def test_a_list_with_other_images_is_not_the_published_one(ran_lists: Path, tmp_path: Path, place: Place) -> None:
    """As many images of each class, one of them another; and the published lines in another order, which are it."""
    form = ran.FORMS[place]
    path, listed = ran.read(*place, [ran_lists])
    lines = path.read_text().split()
    (tmp_path / form.file).write_text("\n".join(reversed(path.read_text().splitlines())))
    assert ran.digest(ran.read(*place, [tmp_path])[1]) == ran.PUBLISHED[place]
    name = listed[-1].name.removesuffix(form.suffix)
    other = name[:-1] + next(c for c in "0123456789" if name[:-1] + c not in " ".join(lines))
    (tmp_path / form.file).write_text(path.read_text().replace(name, other))
    with pytest.raises(UserError, match=rf"{form.file} is not RAN's published list") as error:
        ran.read(*place, [tmp_path])
    assert str(tmp_path) in error.value.message
    assert ran.REPOSITORY in error.value.hint
    assert len(ran.read(*place, [tmp_path], published=False)[1]) == len(listed)


def test_a_list_of_labels_or_repeats_that_changed_is_not_the_published_one(ran_lists: Path, tmp_path: Path) -> None:
    form = ran.FORMS["rafdb", "occlusion"]
    lines = (ran_lists / form.folder / form.file).read_text().splitlines()
    first, *others = lines
    for changed in ([first.replace("aligned 3", "aligned 4"), *others], [*lines, first], others):
        (tmp_path / form.file).write_text("\n".join(changed))
        with pytest.raises(UserError, match="is not RAN's published list"):
            ran.read("rafdb", "occlusion", [tmp_path])


# --- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ran.FORMS, ids="-".join)
@given(data=st.data())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, str], data: st.DataObject
) -> None:
    form = ran.FORMS[place]
    order = ORDERS[form.order]
    number, label, kind = st.integers(0, 9999), st.integers(0, len(order) - 1), st.integers(0, 4)
    labels = data.draw(st.dictionaries(number, label, min_size=1, max_size=6))
    picked = data.draw(st.lists(st.tuples(st.sampled_from(sorted(labels)), kind), min_size=1, max_size=12))
    faces = [face(form, number, labels[number], kind) for number, kind in picked]
    end = data.draw(st.sampled_from(["\n", "\r\n", " \n", "\n\n"]))
    start = data.draw(st.sampled_from(["", "\ufeff", "\n"]))
    path = tmp_path_factory.getbasetemp() / f"{'-'.join(place)}.txt"
    path.write_bytes(
        (start + end.join(line(form, one) for one in faces) + data.draw(st.sampled_from(["", end]))).encode()
    )
    found = ran.read_list(path, form)
    assert [one.name.removesuffix(form.suffix) for one in found] == [name for name, _, _ in faces]
    assert [one.label for one in found] == [order[number] for _, number, _ in faces]
    if "occlusion" in form.line.groupindex:
        assert [one.occlusion for one in found] == [kind for _, _, kind in faces]
    assert [one.row for one in found] == sorted({one.row for one in found})
    assert [one.name for one in ran.cleaned(found)] == list(dict.fromkeys(one.name for one in found))


@pytest.mark.parametrize("place", ran.FORMS, ids="-".join)
@given(data=st.data())
def test_a_changed_line_is_another_face_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, str], data: st.DataObject
) -> None:
    """No slip of the pen can be read as the face that was written."""
    form = ran.FORMS[place]
    right = line(form, face(form, 17, 3, 2))
    at = data.draw(st.integers(0, len(right) - 1))
    sign = data.draw(st.characters(codec="utf-8", exclude_characters="\n\r" + right[at]))
    wrong = data.draw(st.sampled_from([right[:at] + sign + right[at + 1 :], right[:at] + right[at + 1 :]]))
    path = tmp_path_factory.getbasetemp() / f"{'-'.join(place)}-wrong.txt"
    path.write_bytes((line(form, face(form, 1)) + "\n" + wrong + "\n").encode())
    message, found = "", None
    try:
        found = ran.read_list(path, form)[1]
    except UserError as error:
        message = error.message
    if found is None:
        assert message.startswith(f"{path}, row 2: ")
    elif wrong.strip() != right:
        read = (found.name.removesuffix(form.suffix), ORDERS[form.order].index(found.label))
        assert read != face(form, 17, 3)[:2] or found.occlusion not in (2, None)


def test_repeats_are_kept_in_order(tmp_path: Path) -> None:
    form = ran.FORMS["rafdb", "occlusion"]
    path = write(tmp_path, form, [face(form, 5, 1, 2), face(form, 3), face(form, 5, 1, 4)])
    listed = ran.read_list(path, form)
    assert [(one.row, one.name, one.occlusion) for one in listed] == [
        (1, "test_0005.jpg", 2), (2, "test_0003.jpg", 1), (3, "test_0005.jpg", 4),
    ]  # fmt: skip
    assert [one.row for one in ran.cleaned(listed)] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0_fer0000001.png 8 0\n9_fer0000002.png 8 0\n", r"row 2: class '9' is not one of 0 to 7"),
        ("0_fer0000001.png 8 0\n\n1_fer0000001.png 8 0\n", r"row 3: fer0000001.png is happiness here and neutral fur"),
        ("0_fer0000001.png 7 0\n", r"row 1: '0_fer0000001.png 7 0' is not of the form '1_fer0034656.png 8 0'"),
        ("<!DOCTYPE html>\n", r"row 1: '<!DOCTYPE html>' is not of the form"),
        ("\n \n", r"is empty"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, OCCLUDED, [], text)
    with pytest.raises(UserError, match=message) as error:
        ran.read_list(path, OCCLUDED)
    assert str(path) in error.value.message
    assert ran.REPOSITORY in error.value.hint


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / OCCLUDED.file).write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="cannot be read as a list"):
        ran.read("ferplus", "occlusion", [tmp_path])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("3 7\n0\n4\n2\n", ""),
        ("3 7\r\n0\r\n4\r\n2", ""),
        ("2 7\n0\n4\n2\n", r"label\.txt has the header '2 7' and 3 labels; val_raf_db_list\.txt has 3 lines"),
        ("3 7\n0\n4\n", r"has the header '3 7' and 2 labels"),
        ("3 7\n0\n4\n5\n", r"label\.txt, row 4: class 5, but val_raf_db_list\.txt, row 3, says disgust"),
        ("3 7\n0\n4\nx\n", r"label\.txt, row 4: class 'x' is not one of 0 to 6"),
        ("", r"has the header '' and 0 labels"),
    ],
)
def test_label_files_are_checked_against_their_list(tmp_path: Path, labels: str, message: str) -> None:
    path = write(tmp_path, TURNED, [face(TURNED, 1, 0), face(TURNED, 2, 4), face(TURNED, 3, 2)])
    (tmp_path / TURNED.labels).write_text(labels)
    if not message:
        assert [one.label for one in ran.read_list(path, TURNED)] == ["surprise", "sadness", "disgust"]
        return
    with pytest.raises(UserError, match=message):
        ran.read_list(path, TURNED)


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def made_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of a few made-up lines pass for RAN's."""
    monkeypatch.setattr(ran, "check_published", lambda *given: None)


@pytest.mark.usefixtures("made_lists")
@pytest.mark.parametrize("place", ["", "FERplus_dir", "lists", "a/FERplus_dir", "a/b", "a/b/FERplus_dir"])
def test_lists_are_found_up_to_two_folders_deep(tmp_path: Path, place: str) -> None:
    path = write(tmp_path / place, OCCLUDED, [face(OCCLUDED, 1)])
    assert ran.read("ferplus", "occlusion", [tmp_path])[0] == path


def test_a_missing_list_says_where_it_was_looked_for_and_what_to_get(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "c", OCCLUDED, [face(OCCLUDED, 1)])  # too deep
    write(tmp_path / ".git", OCCLUDED, [face(OCCLUDED, 1)])
    with pytest.raises(UserError, match=r"jianfei_occlusion_list\.txt is not under ") as error:
        ran.read("ferplus", "occlusion", [tmp_path, tmp_path])
    assert error.value.message.count(str(tmp_path)) == 1
    assert "FERplus_dir of github.com/kaiwang960112" in error.value.hint


@pytest.mark.usefixtures("made_lists")
def test_folders_of_many_files_are_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ran, "MANY", 5)
    path = write(tmp_path / "images" / "lists", OCCLUDED, [face(OCCLUDED, 1)])
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").touch()
    assert ran.read("ferplus", "occlusion", [tmp_path])[0] == path
    for number in range(9):
        (tmp_path / "images" / f"{number}.png").touch()
        (tmp_path / f"{number}.txt").touch()  # a data root may hold anything
    with pytest.raises(UserError, match="is not under"):
        ran.read("ferplus", "occlusion", [tmp_path])


@pytest.mark.usefixtures("made_lists")
def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    path = write(tmp_path, OCCLUDED, [face(OCCLUDED, 1)])
    assert ran.read("ferplus", "occlusion", [tmp_path])[0] == path


@pytest.mark.usefixtures("made_lists")
def test_two_copies_must_agree(tmp_path: Path) -> None:
    first = write(tmp_path / "a", OCCLUDED, [face(OCCLUDED, 1)])
    second = write(tmp_path / "b", OCCLUDED, [], "0_fer0000001.png 8 1\r\n")  # the same but for the line's end
    assert ran.read("ferplus", "occlusion", [tmp_path])[0] == first
    write(tmp_path / "b", OCCLUDED, [face(OCCLUDED, 2)])
    with pytest.raises(UserError, match="are different lists") as error:
        ran.read("ferplus", "occlusion", [tmp_path])
    assert str(first) in error.value.message
    assert str(second) in error.value.message


@pytest.mark.parametrize("dataset", ["ferplus", "rafdb", "affectnet"])
def test_one_list_under_both_angles_is_refused(tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wide, narrow = ran.FORMS[dataset, "pose30"], ran.FORMS[dataset, "pose45"]
    listed = ran.read_list(write(tmp_path, wide, [face(wide, 1), face(wide, 2)]), wide)
    monkeypatch.setitem(ran.PUBLISHED, (dataset, "pose30"), ran.digest(listed))
    monkeypatch.setitem(ran.PUBLISHED, (dataset, "pose45"), ran.digest(listed[1:]))
    assert len(ran.read(dataset, "pose30", [tmp_path])[1]) == 2
    write(tmp_path / narrow.folder, narrow, [face(narrow, 2), face(narrow, 1)])
    with pytest.raises(UserError, match="holds the 30-degree list"):
        ran.read(dataset, "pose45", [tmp_path])
    write(tmp_path / narrow.folder, narrow, [face(narrow, 2)])
    assert len(ran.read(dataset, "pose45", [tmp_path])[1]) == 1


@pytest.mark.usefixtures("made_lists")
def test_lists_of_synthetic_trees_are_their_own(tmp_path: Path) -> None:
    """Beside a synthetic tree RAN's list is the other one; and the tree's is no list of RAN's."""
    inside = write(tmp_path / "made", OCCLUDED, [face(OCCLUDED, 1)])
    (tmp_path / "made" / MARKER).touch()
    with pytest.raises(UserError, match="is not under"):
        ran.read("ferplus", "occlusion", [tmp_path, tmp_path / "made"])
    assert ran.read("ferplus", "occlusion", [tmp_path / "made"], published=False)[0] == inside
    path = write(tmp_path / "lists", OCCLUDED, [face(OCCLUDED, 2)])
    assert ran.read("ferplus", "occlusion", [tmp_path])[0] == path
