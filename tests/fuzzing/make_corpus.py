"""Make the corpus: small files of each kind, whole and of every form that is read.

python -m tests.fuzzing.make_corpus
"""

import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fgclip2 import FGClip2Embedder
from fgclip2.data import read_finehard, write_shards
from fgclip2.search import ImageIndex
from fgclip2.search.store import MANIFEST
from tests.data.samples import item, items, region, write_images, write_json
from tests.fuzzing.targets import CORPUS

_DETECTION = {"image_id": 42, "category_id": 1, "bbox": [1, 1, 3, 4], "score": 0.5}
_INSTANCES = {
    "images": [{"id": 1, "file_name": "000042.png", "width": 8, "height": 8}],
    "categories": [{"id": 1, "name": "猫"}],
    "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 4]}],
}


def make_images(folder: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(colors)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(folder / "000042.png")
    for suffix in ("jpg", "webp", "gif", "bmp", "tif", "jp2", "ppm"):
        picture.save(folder / f"a.{suffix}")
    picture.save(folder / "turned.jpg", exif=exif)
    picture.convert("P").save(folder / "palette.png", transparency=0)
    Image.fromarray(colors[..., 0].astype(np.uint16) * 257).save(folder / "grey16.png")
    picture.save(folder / "animation.gif", save_all=True, append_images=[picture.rotate(90)])
    (folder / "program.ps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(8 8) show\n")


def make_boxes(folder: Path) -> None:
    write_json(folder / "plain.json", [[1, 1, 3, 4], [0.5, 0, 8, 8, 0.9]])
    write_json(folder / "detections.json", [_DETECTION, {**_DETECTION, "image_id": "000042"}])
    write_json(folder / "instances.json", _INSTANCES)
    write_json(folder / "huge.json", [[0, 0, 10**400, 3]])
    write_json(folder / "huge_detection.json", [{**_DETECTION, "bbox": [0, 0, 10**400, 3]}])
    (folder / "yolo.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.5 0.5 1 1 0.9\n")


def make_records(folder: Path) -> None:
    write_json(folder / "list.json", items(2))
    (folder / "lines.jsonl").write_text("\n".join(json.dumps(row) for row in items(2)), encoding="utf-8")
    write_json(folder / "few.json", [item("zh", bbox_info=[region("zh", short_expr_negs=["梨"])]), {"f_path": "../a"}])
    (folder / "pairs.csv").write_text(
        'image,caption,language\n0.png,"一只猫, ""黑""",zh\n1.png,a dog,\n', encoding="utf-8"
    )
    (folder / "open_clip.tsv").write_text("filepath\ttitle\n0.png\t猫\n1.png\ta dog\n", encoding="utf-8")
    (folder / "bom.csv").write_bytes(b"\xef\xbb\xbfimage,caption\r\n0.png,cat\r\n")
    (folder / "nested.jsonl").write_text('{"f_path": "0.png", "caption": ' + "[" * 2000 + "]" * 2000 + "}\n{}")


def make_shards(folder: Path, scratch: Path) -> None:
    records = read_finehard(write_json(scratch / "a.json", items(2)), write_images(scratch / "images", 2))
    write_shards(records, scratch / "shards")
    shutil.copy(scratch / "shards" / "000000.tar", folder / "finehard.tar")
    with tarfile.open(folder / "texts.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (("a/0.jpg", b"no image"), ("a/0.txt", "黑猫".encode()), (f"{'长' * 50}.txt", b"cat")):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    for path in folder.iterdir():  # without most of the zeros at their end
        content = path.read_bytes().rstrip(b"\0")
        path.write_bytes(content + bytes(-len(content) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE))


def make_index(folder: Path, scratch: Path) -> None:
    images = write_images(scratch / "indexed", 2)
    ImageIndex.build(images, FGClip2Embedder.from_pretrained(device="cpu"), show_progress_bar=False)
    for path in (images / ".fgclip2_index").iterdir():
        if path.name == MANIFEST or path.suffix == ".safetensors":
            shutil.copy(path, folder)


def main() -> None:
    shutil.rmtree(CORPUS, ignore_errors=True)
    folders = {name: CORPUS / name for name in ("image", "boxes", "records", "shard", "manifest", "index")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        make_images(folders["image"])
        make_boxes(folders["boxes"])
        make_records(folders["records"])
        make_shards(folders["shard"], Path(scratch))
        make_index(folders["index"], Path(scratch))
        shutil.copy(Path(scratch) / "shards" / "index.json", folders["manifest"] / "shards.json")
    shutil.copy(folders["index"] / MANIFEST, folders["manifest"] / "images.json")


if __name__ == "__main__":
    main()
