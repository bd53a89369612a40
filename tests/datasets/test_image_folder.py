import numpy as np
import pytest
import torch
from PIL import Image

from snnsl_plugin.datasets.image_folder import image_folder
from snnsl_plugin.errors import BadData, BadOption, MissingData


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path / "root"))


def write_tree(folder, parts=(("train", 10), ("test", 3)), classes=("cat", "dog"), side=8):
    random = np.random.default_rng(0)
    for part, count in parts:
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i:03}.png")
    return folder


def test_pixels_and_labels_are_those_of_the_files(tmp_path):
    folder = write_tree(tmp_path / "mine")
    splits = image_folder(root=str(folder), size=8, normalize=False, validation=0.2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 6)
    assert splits.classes == ["cat", "dog"]
    assert splits.shape == (3, 8, 8)
    for part in (splits.train, splits.validation, splits.test):
        for i in range(len(part)):
            x, y = part[i]
            file = part.files[i]
            assert splits.classes[y] == file.parent.name
            expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
            assert torch.equal(x, expected)


def test_training_and_validation_share_no_file(tmp_path):
    splits = image_folder(root=str(write_tree(tmp_path / "mine")), size=8)
    assert not set(splits.train.files) & set(splits.validation.files)


def test_the_training_pictures_are_normalised_to_mean_zero_and_deviation_one(tmp_path):
    splits = image_folder(root=str(write_tree(tmp_path / "mine")), size=8)
    x, _ = splits.train.batch(torch.arange(len(splits.train)))
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert splits.test.mean == splits.train.mean == splits.validation.mean


def test_a_validation_folder_is_taken_as_it_is(tmp_path):
    folder = write_tree(tmp_path / "mine", (("train", 5), ("validation", 2), ("test", 3)))
    splits = image_folder(root=str(folder), size=8)
    assert (len(splits.train), len(splits.validation)) == (10, 4)
    with pytest.raises(BadOption, match="has a validation folder"):
        image_folder(root=str(folder), size=8, per_class=2)


def test_pictures_are_resized_and_made_grey(tmp_path):
    splits = image_folder(root=str(write_tree(tmp_path / "mine", side=12)), size=6, grayscale=True)
    assert splits.shape == (1, 6, 6)


def test_resizing_to_half_agrees_with_torchvision(tmp_path):
    from torchvision.transforms.v2 import functional

    splits = image_folder(root=str(write_tree(tmp_path / "mine", side=16)), size=8, normalize=False)
    picture = Image.open(splits.test.files[0])
    expected = functional.pil_to_tensor(functional.resize(picture, [8, 8], antialias=True))
    assert torch.equal(splits.test.images[0], expected)


def test_a_broken_picture_is_named_and_can_be_skipped_but_is_counted(tmp_path):
    folder = write_tree(tmp_path / "mine")
    broken = folder / "train" / "dog" / "003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(BadData, match=r"dog/003\.png cannot be decoded .*skip_broken: true"):
        image_folder(root=str(folder), size=8)
    splits = image_folder(root=str(folder), size=8, skip_broken=True)
    assert splits.skipped == 1
    assert len(splits.train) + len(splits.validation) == 19
    assert broken not in {*splits.train.files, *splits.validation.files}
    again = image_folder(root=str(folder), size=8, skip_broken=True)  # from the cache
    assert again.skipped == 1
    assert torch.equal(again.train.images, splits.train.images)


def test_a_file_that_is_no_picture_is_not_passed_over_in_silence(tmp_path):
    folder = write_tree(tmp_path / "mine")
    (folder / "test" / "cat" / "notes.txt").write_text("not a picture")
    with pytest.raises(BadData, match=r"notes\.txt"):
        image_folder(root=str(folder), size=8)
    (folder / "test" / "cat" / "notes.txt").rename(folder / "test" / "cat" / ".hidden")
    assert len(image_folder(root=str(folder), size=8).test) == 6


def test_missing_data_names_the_folder_the_layout_and_what_was_found(tmp_path):
    with pytest.raises(MissingData, match=r"0 class folders in train/ in .*nowhere.*train/<class>"):
        image_folder(root=str(tmp_path / "nowhere"), size=8)
    folder = write_tree(tmp_path / "no_test", (("train", 3),))
    with pytest.raises(MissingData, match="no class folders in test/"):
        image_folder(root=str(folder), size=8)
    folder = write_tree(tmp_path / "empty_class")
    for file in (folder / "test" / "cat").iterdir():
        file.unlink()
    with pytest.raises(MissingData, match="no pictures of class 'cat' in test/"):
        image_folder(root=str(folder), size=8)


def test_a_test_class_that_training_does_not_know_is_refused(tmp_path):
    folder = write_tree(tmp_path / "mine")
    (folder / "test" / "emu").mkdir()
    with pytest.raises(BadData, match="class 'emu'"):
        image_folder(root=str(folder), size=8)


def test_classes_are_chosen_by_name_or_number_and_a_typo_is_corrected(tmp_path):
    folder = write_tree(tmp_path / "mine", classes=("ant", "bee", "cat"))
    assert image_folder(root=str(folder), size=8, classes=["cat", "ant"]).classes == ["ant", "cat"]
    assert image_folder(root=str(folder), size=8, classes=2).classes == ["ant", "bee"]
    with pytest.raises(BadOption, match=r"unknown class 'catt'.*did you mean 'cat'"):
        image_folder(root=str(folder), size=8, classes=["catt", "ant"])
    for wrong in (1, 4, ["ant"], ["ant", "ant"]):
        with pytest.raises(BadOption, match="classes is"):
            image_folder(root=str(folder), size=8, classes=wrong)


def test_a_size_below_one_is_refused(tmp_path):
    with pytest.raises(BadOption, match="size is 0"):
        image_folder(root=str(tmp_path), size=0)
