"""Images with a class for each pixel, from a folder of images and one of masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..base import Problem
from ..image_files import ImageFile, check_inside
from ..tasks.segmentation import SegmentationData, check_masks
from ._caption_files import find_file
from ._files import check_usable, existing_root, image_files
from .classification import Names, read_class_names

_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2")
_NAMES = ("classes.json", "classes.txt")
_ORIGIN = "whoever made the masks: names in the order of values"


def read_segmentation_folder(
    folder: str | Path, images: str | Path | None = None, *, follow_links: bool = False
) -> SegmentationData:
    """Read a folder with `images/`, `masks/` (or zip archives of these names) and `classes.json` or `classes.txt`.

    Args:
        folder: The folder.
        images: Where the images are, if elsewhere.
        follow_links: Take what links lead to outside `folder` and `images` too.

    Raises:
        ValueError: As `read_segmentation` and `check_masks`, which opens all images and masks; or a link leads out.
    """
    names = find_file(folder, _NAMES, _ORIGIN)
    places = {}
    for name in ("images", "masks"):
        place, archive = Path(folder, name), Path(folder, f"{name}.zip")
        places[name] = place if place.exists() or not archive.exists() else archive
        if name == "masks" or images is None:
            check_inside(places[name], Path(folder), follow_links)
    data = read_segmentation(images or places["images"], places["masks"], names, follow_links=follow_links)
    return check_masks(data)


def read_segmentation(
    images: str | Path,
    masks: str | Path,
    names: Names | str | Path,
    ignored: int | None = 255,
    *,
    follow_links: bool = False,
) -> SegmentationData:
    """Pair images and masks that have the same name but for the suffix, in whatever subfolders.

    A mask's value is the index of a class. So ADE20K's 150 classes (0 in its own masks is none, 1 the first class) and
    Pascal VOC's 20 (0 is the background) are first converted, as open-vocabulary methods do: one less, 255 for none.
    No owner publishes this layout as such: it is the one that such conversions write.

    Args:
        images, masks: Folders, or zip archives of them. Masks are lossless: 8 or 16 bits of grey, or a palette.
        names: Language -> names in the order of the masks' values, or a file of them, as `read_class_names` reads.
        ignored: The value of pixels that don't count; None: all count.
        follow_links: Take what links lead to outside the folders too.

    Returns:
        The pairs in the order of the images' paths; images and masks without a partner are its problems. Masks are not
        opened: `check_masks` does.

    Raises:
        ValueError: There is no such folder or file, no pair, or names are by folder.
    """
    all_names = read_class_names(names)
    if any(isinstance(of_language, Mapping) for of_language in all_names.values()):
        raise ValueError("names must be a list in the order of the masks' values, but they are by folder")
    problems: list[Problem] = []
    images_by_stem = _by_stem(existing_root(images), (), problems, follow_links)
    masks_by_stem = _by_stem(existing_root(masks), _LOSSY, problems, follow_links)
    for stem, image in images_by_stem.items():
        if stem not in masks_by_stem:
            problems.append(Problem(str(image), f"the image has no mask, which would be {stem}.png in {masks}"))
    for stem, mask in masks_by_stem.items():
        if stem not in images_by_stem:
            problems.append(Problem(str(mask), f"the mask has no image, which would be named {stem} in {images}"))
    paired = [stem for stem in images_by_stem if stem in masks_by_stem]
    check_usable(len(paired), images, problems)
    return SegmentationData(
        images=[images_by_stem[stem] for stem in paired],
        masks=[masks_by_stem[stem] for stem in paired],
        names={language: list(of_language) for language, of_language in all_names.items()},
        ignored=ignored,
        problems=problems,
    )


def _by_stem(root: Path, refused: tuple[str, ...], problems: list[Problem], follow_links: bool) -> dict[str, ImageFile]:
    """Return the images by their paths within the folder or archive, without suffix."""
    found: dict[str, ImageFile] = {}
    for path, image in image_files(root, problems, follow_links=follow_links).items():
        stem = path.with_suffix("").as_posix()
        if path.suffix.lower() in refused:
            problems.append(Problem(str(image), "the mask is compressed with loss; it must be .png or .tif"))
        elif stem in found:
            problems.append(Problem(str(image), f"the name is that of {found[stem]} too; it must be there once"))
        else:
            found[stem] = image
    return found
