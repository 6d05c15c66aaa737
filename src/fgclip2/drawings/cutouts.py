"""Cut-outs: each artist's drawing of each concept, rendered once to 96 x 96 RGBA and kept as plain numpy files.

Layout of the cache, per artist: `cutouts/<artist>.npy` (N, 96, 96, 4) uint8 with straight alpha, readable by memory
map, and `cutouts/<artist>.ids.npy` (N,) int64, the rows of the concept table. An artist may have drawn a concept more
than once, or not at all.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from .._imports import require
from ..checks import check_choice
from ..files import decode_json, replacing
from ..modeling.inputs import open_image
from .concepts import Concept, ConceptTable
from .sources import ARTWORK, fetch, read_members
from .splits import artists

CUTOUT_SIZE = 96
MIN_COVERAGE = 0.01  # of the square; anything emptier is a blank or failed drawing

_RENDERS = "fluent-emoji-3d"  # the one package of pixel renders; the others are Iconify sets of SVG bodies
_RENDER_PATH = re.compile(r"package/assets/([0-9a-f-]+)\.webp")
# Sets that list their icons by code point. Their names, old ones included, also find the drawings of sets that don't.
_SETS_WITH_CODE_POINTS = ("noto", "twemoji", "openmoji", "fluent-emoji-flat")
# FxEmoji's own names, where they follow neither CLDR nor Unicode (its "dog" is the face): icon -> today's CLDR name.
_FXEMOJI_NAMES = {
    "dog": "dog face",
    "dogside": "dog",
    "cat": "cat face",
    "catside": "cat",
    "tiger": "tiger face",
    "tigerside": "tiger",
    "leopardside": "leopard",
    "pig": "pig face",
    "pigside": "pig",
    "pigsnout": "pig nose",
    "mouse": "mouse face",
    "mouseside": "mouse",
    "bunny": "rabbit face",
    "bunnyside": "rabbit",
    "hampster": "hamster",
    "dragonhead": "dragon face",
    "dragonside": "dragon",
    "frontfacingchick": "front-facing baby chick",
    "spurtingwhale": "spouting whale",
    "bouquetofflowers": "bouquet",
    "evergreen": "evergreen tree",
    "fallingleaf": "fallen leaf",
    "leaffluttering": "leaf fluttering in wind",
    "chilipepper": "hot pepper",
    "acorn": "chestnut",
    "fishcakeswirl": "fish cake with swirl",
    "forkknife": "fork and knife with plate",
    "americasglobe": "globe showing Americas",
    "asiaaustraliaglobe": "globe showing Asia-Australia",
    "europeafricaglobe": "globe showing Europe-Africa",
    "meridianglobe": "globe with meridians",
    "silhouetteohjapan": "map of Japan",
    "snowmountains": "snow-capped mountain",
    "beachumbrella": "beach with umbrella",
    "constructionsign": "construction",
    "toykotower": "Tokyo tower",
    "highspeedtrainbulletnose": "bullet train",
    "racecar": "racing car",
    "hourglassflowingsand": "hourglass not done",
    "manltepiececlock": "mantelpiece clock",
    "waningbibbousmoon": "waning gibbous moon",
    "sunrays": "sun",
    "star": "glowing star",
    "raincloud": "cloud with rain",
    "snowcloud": "cloud with snow",
    "stormcloud": "cloud with lightning",
    "umbrella": "closed umbrella",
    "bolt": "high voltage",
    "wave": "water wave",
    "confetti": "confetti ball",
    "present": "wrapped gift",
    "reminder": "reminder ribbon",
    "tennisball": "tennis",
    "mahjong": "mahjong red dragon",
    "tie": "necktie",
    "mansshirt": "t-shirt",
    "womansshirt": "woman’s clothes",
    "pinkwallet": "purse",
    "makeupbag": "clutch bag",
    "mensshoe": "man’s shoe",
    "mensrunner": "running shoe",
    "heels": "high-heeled shoe",
    "sandals": "woman’s sandal",
    "boot": "woman’s boot",
    "gem": "gem stone",
    "speakercancellation": "muted speaker",
    "speakeronesoundwave": "speaker medium volume",
    "speaker3soundwaves": "speaker high volume",
    "bellcancellation": "bell with slash",
    "studiomic": "studio microphone",
    "controlknob": "control knobs",
    "keyboard": "musical keyboard",
    "cellphone": "mobile phone",
    "phonerightarrowleft": "mobile phone with arrow",
    "telephonereceiver2": "telephone receiver",
    "wiredkeyboard": "keyboard",
    "floppydisk2": "floppy disk",
    "handheldvideocamera": "video camera",
    "videocasette": "videocassette",
    "leftmagnifyingglass": "magnifying glass tilted left",
    "rightmagnifyingglass": "magnifying glass tilted right",
    "notebookdecorativecover": "notebook with decorative cover",
    "bookmarktab": "bookmark tabs",
    "banknoteyen": "yen banknote",
    "banknotedollar": "dollar banknote",
    "banknoteeuro": "euro banknote",
    "banknotepound": "pound banknote",
    "chartupwardstrend": "chart increasing",
    "chartdownwardstrend": "chart decreasing",
    "chartupwardstrendyen": "chart increasing with yen",
    "envelopedownarrowabove": "envelope with arrow",
    "outbox": "outbox tray",
    "closedmailboxraised": "closed mailbox with raised flag",
    "closedmailboxlowered": "closed mailbox with lowered flag",
    "openmailboxraised": "open mailbox with raised flag",
    "openmailboxlowered": "open mailbox with lowered flag",
    "lowerleftpen": "pen",
    "folder": "file folder",
    "openfolder": "open file folder",
    "lockandkey": "locked with key",
}
# Not what their names say, seen by eye: a flag of Turkey, a face with sunglasses, a black square.
_MISLEADING_ICONS = {"streamline": {"turkey"}, "fxemoji": {"sunglasses", "tramcar"}}
_VARIANT_NUMBER = re.compile(r"-\d$")  # several drawings of one concept: bird-1, bird-2


@dataclass(frozen=True)
class IconSet:
    """An Iconify set: SVG bodies by name, other names for them, and code points where the set lists them."""

    icons: Mapping[str, Mapping[str, Any]]
    aliases: Mapping[str, Mapping[str, Any]]
    names_by_key: Mapping[str, str]  # concept key -> icon or alias name
    size: tuple[int, int]  # default width and height of an icon's view box

    def svg(self, name: str) -> str:
        """Return the drawing as a square SVG document; a body wider than high is centred by the renderer."""
        icon = self.icons[self.aliases.get(name, {}).get("parent", name)]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width, height = icon.get("width", self.size[0]), icon.get("height", self.size[1])
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{CUTOUT_SIZE}" height="{CUTOUT_SIZE}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
        )

    def render(self, name: str) -> Image.Image:
        """Return the drawing as an RGBA image of `CUTOUT_SIZE` squared; an alias may mirror its parent."""
        image = render_svg(self.svg(name))
        return ImageOps.mirror(image) if self.aliases.get(name, {}).get("hFlip") else image


def build_cutouts(cache: Path, table: ConceptTable) -> dict[str, int]:
    """Fetch all artists' packages and render what is not in the cache yet.

    Returns:
        Artist -> number of cut-outs.
    """
    folder = cache / "cutouts"
    folder.mkdir(parents=True, exist_ok=True)
    archives = {artist: fetch(source, cache) for artist, source in ARTWORK.items()}
    sets = {
        artist: read_icon_set(archives[artist], _MISLEADING_ICONS.get(artist, set()))
        for artist in ARTWORK
        if artist != _RENDERS
    }
    known_names = names_of_concepts(table, [sets[artist] for artist in _SETS_WITH_CODE_POINTS])
    counts = {}
    for artist, archive in archives.items():
        if not (folder / f"{artist}.npy").exists():
            drawings: Iterable[tuple[int, Image.Image]]
            if artist == _RENDERS:
                drawings = rendered_drawings(table, read_members(archive, lambda path: path.endswith(".webp")))
            else:
                own_names = _FXEMOJI_NAMES if artist == "fxemoji" else {}
                drawings = icon_drawings(sets[artist], match_icons(table, sets[artist], known_names, own_names))
            write_cutouts(folder, artist, tqdm(drawings, desc=artist, unit=" drawings"))
        counts[artist] = len(np.load(folder / f"{artist}.ids.npy"))
    return counts


def load_cutouts(cache: Path, artist: str) -> tuple[np.ndarray, np.ndarray]:
    """Load all drawings of one artist.

    Args:
        cache: The folder that was built.
        artist: A name of `splits.ARTIST_SPLITS`.

    Returns:
        concept_ids (N,) int64, and rgba (N, 96, 96, 4) uint8 with straight alpha, as a read-only memory map.

    Raises:
        ValueError: There is no such artist.
        FileNotFoundError: The cache was not built; the message has the command.
    """
    check_choice("artist", artist, ARTWORK)
    path = Path(cache) / "cutouts" / f"{artist}.npy"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run: python -m fgclip2.drawings --cache {cache}")
    return np.load(path.with_suffix(".ids.npy")), np.load(path, mmap_mode="r")


def load_training_cutouts(cache: Path, table: ConceptTable) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Load what may be trained on: the drawings by training artists of things that are not held out, in memory.

    Returns:
        Artist -> (concept_ids, rgba) as `load_cutouts` gives them.
    """
    selected = {}
    for artist in artists("train"):
        concept_ids, rgba = load_cutouts(cache, artist)
        keep = np.isin(concept_ids, table.train_ids)
        selected[artist] = (concept_ids[keep], rgba[keep])
    return selected


def read_icon_set(archive: Path, skip: Collection[str] = ()) -> IconSet:
    """Read an Iconify package, without the icons named in `skip`."""
    files = ("package/icons.json", "package/chars.json")
    members = {path: decode_json(content) for path, content in read_members(archive, files.__contains__)}
    icons = members["package/icons.json"]
    return IconSet(
        icons={name: icon for name, icon in icons["icons"].items() if name not in skip},
        aliases=icons.get("aliases", {}),
        names_by_key={_plain_key(code): name for code, name in members.get("package/chars.json", {}).items()},
        size=(icons.get("width", 16), icons.get("height", 16)),
    )


def names_of_concepts(table: Iterable[Concept], sets: Sequence[IconSet]) -> dict[str, list[str]]:
    """Return squashed names, today's first, by which a set without code points may call each concept.

    Args:
        table: The concepts.
        sets: Icon sets with code points; their names for the concept and their aliases for that name are taken.

    Returns:
        Concept key -> names: CLDR, the sets', and the character's own Unicode name, which never changes.
    """
    aliases: list[dict[str, list[str]]] = []
    for icon_set in sets:
        by_parent: dict[str, list[str]] = {}
        for alias, entry in icon_set.aliases.items():
            by_parent.setdefault(entry["parent"], []).append(alias)
        aliases.append(by_parent)
    names: dict[str, list[str]] = {}
    for concept in table:
        known = [concept.name_en]
        for icon_set, other_names in zip(sets, aliases, strict=True):
            name = icon_set.names_by_key.get(concept.key)
            if name is not None:
                parent = icon_set.aliases.get(name, {}).get("parent", name)
                known += [name, parent, *other_names.get(parent, ())]
        if "-" not in concept.key:
            known.append(unicodedata.name(chr(int(concept.key, 16)), concept.name_en))
        names[concept.key] = list(dict.fromkeys(_squash(name) for name in known))
    return names


def match_icons(
    table: ConceptTable,
    icon_set: IconSet,
    names: Mapping[str, Sequence[str]],
    own_names: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[int, str]]:
    """Find a set's icons of the concepts, by code point where the set has them and by name elsewhere.

    An icon is given to one concept only: to the one whose current name it has before one whose former name it has,
    and by its own name before its aliases.

    Args:
        table: The concepts.
        icon_set: The set.
        names: What `names_of_concepts` gives.
        own_names: Icon -> English concept name, for icons named in the set's own way; these go first.

    Returns:
        (concept id, icon name) pairs in order of concepts.
    """
    if icon_set.names_by_key:
        keys = [concept.key for concept in table]
        return [(i, icon_set.names_by_key[key]) for i, key in enumerate(keys) if key in icon_set.names_by_key]
    ids = {concept.name_en: concept_id for concept_id, concept in enumerate(table)}
    owner = {icon: ids[name] for icon, name in own_names.items() if name in ids}
    parents = {icon: icon for icon in icon_set.icons}
    aliases = {alias: alias if entry.get("hFlip") else entry["parent"] for alias, entry in icon_set.aliases.items()}
    for parent_by_name in (parents, aliases):
        by_squashed: dict[str, list[str]] = {}
        for name, icon in parent_by_name.items():
            by_squashed.setdefault(_squash(_VARIANT_NUMBER.sub("", name)), []).append(icon)
        for rank in range(max(map(len, names.values()))):  # all current names first, then all second names, and so on
            taken = set(owner.values())
            for concept_id, concept in enumerate(table):
                known = names[concept.key]
                if rank < len(known) and concept_id not in taken:
                    for icon in by_squashed.get(known[rank], ()):
                        owner.setdefault(icon, concept_id)
    return sorted((concept_id, icon) for icon, concept_id in owner.items())


def icon_drawings(icon_set: IconSet, matches: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Image.Image]]:
    """Render matched icons."""
    for concept_id, name in matches:
        yield concept_id, icon_set.render(name)


def rendered_drawings(
    table: Iterable[Concept], files: Iterable[tuple[str, bytes]]
) -> Iterator[tuple[int, Image.Image]]:
    """Decode the webp renders, whose file names are code points."""
    ids = {concept.key: concept_id for concept_id, concept in enumerate(table)}
    for path, content in files:
        match = _RENDER_PATH.fullmatch(path)
        key = _plain_key(match[1]) if match else None
        if key in ids:
            image = open_image(content).convert("RGBA")
            yield ids[key], image.resize((CUTOUT_SIZE, CUTOUT_SIZE), Image.Resampling.LANCZOS)


def render_svg(svg: str, width: int | None = None) -> Image.Image:
    """Rasterise an SVG document to RGBA, at its own size or at the given width.

    Raises:
        ValueError: The document is not valid SVG.
    """
    # System fonts would make drawings with text differ from machine to machine.
    png = require("resvg_py", "data").svg_to_bytes(svg_string=svg, width=width, dpi=96, skip_system_fonts=True)
    return open_image(bytes(png)).convert("RGBA")


def write_cutouts(folder: Path, artist: str, drawings: Iterable[tuple[int, Image.Image]]) -> None:
    """Write one artist's two files; blank drawings are left out."""
    ids, images = [], []
    for concept_id, image in drawings:
        pixels = np.asarray(image)
        if (pixels[..., 3] > 127).mean() >= MIN_COVERAGE:
            ids.append(concept_id)
            images.append(pixels)
    order = np.argsort(ids, kind="stable")
    np.save(folder / f"{artist}.ids.npy", np.array(ids, dtype=np.int64)[order])
    # There only when complete, so an interrupted build resumes. An open file: `np.save` would add ".npy" to a name.
    with replacing(folder / f"{artist}.npy") as unfinished, unfinished.open("wb") as file:
        np.save(file, np.stack(images)[order])


def alpha_box(rgba: np.ndarray, threshold: int = 127) -> tuple[int, int, int, int]:
    """Return the smallest box (x1, y1, x2, y2), x2 and y2 exclusive, around what is more opaque than `threshold`.

    Args:
        rgba: (H, W, 4) uint8.
        threshold: Alpha from 0 to 255.

    Raises:
        ValueError: Nothing is.
    """
    opaque = rgba[..., 3] > threshold
    if not opaque.any():
        raise ValueError(f"no pixel has alpha above {threshold}")
    columns, rows = np.flatnonzero(opaque.any(axis=0)), np.flatnonzero(opaque.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _plain_key(code: str) -> str:
    """Drop variation selectors: `2764-fe0f` -> `2764`."""
    return "-".join(part.lstrip("0") for part in code.lower().split("-") if part not in ("fe0f", "fe0e"))


def _squash(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
