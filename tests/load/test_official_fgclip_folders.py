"""Official folders of the first FG-CLIP, which call themselves CLIP: known for what they are, faults included."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import save_file
from transformers import CLIPModel

from fgclip2 import Embedder, FGClip2Embedder, FGClipModel, FGClipProcessor
from fgclip2.benchmarks.models import load_model, load_pair
from fgclip2.modeling.auto import find_family, read_model_type
from tests.checkpoints import read_tensors, write_json

TEXTS = ["A cat and a dog", "一只猫"]
OWN = ("text_filip_projection.weight", "position_embedding_ori.weight", "position_embedding_res.weight")


@pytest.fixture
def folder(official_fgclip_folder, tmp_path) -> Path:
    """A copy to change."""
    return shutil.copytree(official_fgclip_folder, tmp_path / "fg-clip")


@pytest.fixture(scope="module")
def expected(official_fgclip_folder) -> dict[str, np.ndarray]:
    """Vectors of `TEXTS` by role and of the photo, by the model and the processor that they belong to."""
    model, processor = (cls.from_pretrained(official_fgclip_folder) for cls in (FGClipModel, FGClipProcessor))
    with torch.no_grad():
        features = {
            role: model.get_text_features(**processor(text=TEXTS, walk_type=walk), walk_type=walk)
            for role, walk in (("caption", "short"), ("long_caption", "long"))
        }
    return {role: torch.nn.functional.normalize(rows, dim=-1).numpy() for role, rows in features.items()}


def assert_is_the_first_fg_clip(embedder: Embedder, expected: dict[str, np.ndarray]) -> None:
    assert type(embedder.model) is FGClipModel
    assert type(embedder.processor) is FGClipProcessor
    assert embedder.processor.image_processor.size == {"height": 40, "width": 40}
    assert embedder.model.config.text_config.eos_token_id == embedder.processor.tokenizer.eos_token_id == 519
    for role, vectors in expected.items():
        np.testing.assert_allclose(embedder.encode_texts(TEXTS, role=role), vectors, rtol=0, atol=1e-5)


def change_config(folder: Path, **fields: object) -> None:
    """Set fields of config.json, or with `None` remove them."""
    config = {**json.loads((folder / "config.json").read_text()), **fields}
    write_json(folder / "config.json", {name: value for name, value in config.items() if value is not None})


def make_stock_clip(folder: Path) -> None:
    """Take away all that the first FG-CLIP has beside CLIP, the names of its classes included."""
    weights = {name: tensor for name, tensor in read_tensors(folder).items() if not name.endswith(OWN)}
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("logit_scale_")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, architectures=["CLIPModel"], auto_map=None)


@pytest.mark.parametrize(
    "marks",
    [
        {"auto_map": None},  # named by `architectures` alone
        {"architectures": None},
        {"architectures": ["CLIPModel"], "auto_map": None},  # known by its weights
    ],
)
def test_embedder(marks, folder, expected, photo):
    change_config(folder, **marks)
    embedder = Embedder.from_pretrained(folder, device="cpu")
    assert_is_the_first_fg_clip(embedder, expected)
    assert repr(embedder) == f"Embedder({str(folder)!r}, FG-CLIP, D=20, cpu, float32)"
    # Squashed, not cut: the picture is wider than high.
    inputs = embedder.processor(images=[photo.resize((40, 40), 3)])
    with torch.no_grad():
        image = torch.nn.functional.normalize(embedder.model.get_image_features(**inputs), dim=-1)
    np.testing.assert_allclose(embedder.encode_images([photo]), image.numpy(), rtol=0, atol=1e-5)
    assert embedder.classify(photo, TEXTS).sum() == pytest.approx(1)


@pytest.mark.parametrize("load", [load_model, Embedder.from_pretrained])
def test_saved_by_this_package(load, official_fgclip_folder, expected, tmp_path):
    Embedder.from_pretrained(official_fgclip_folder, device="cpu").save_pretrained(tmp_path / "saved")
    assert read_model_type(tmp_path / "saved") == "fgclip"
    assert_is_the_first_fg_clip(load(tmp_path / "saved", device="cpu"), expected)


def test_shards_are_known_by_their_index(folder, expected):
    change_config(folder, architectures=None, auto_map=None)
    FGClipModel.from_pretrained(folder).save_pretrained(folder / "shards", max_shard_size="50KB")
    for path in (folder / "shards").glob("*.safetensors*"):
        path.rename(folder / path.name)
    (folder / "model.safetensors").unlink()
    assert_is_the_first_fg_clip(Embedder.from_pretrained(folder, device="cpu"), expected)


def drop_preprocessor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def drop_tokenizer_json(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    assert {"vocab.json", "merges.txt"} <= {path.name for path in folder.iterdir()}


def drop_vocabulary_files(folder: Path) -> None:
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()


def name_dtype_anew(folder: Path) -> None:
    change_config(folder, torch_dtype=None, dtype="float32")


def drop_dtype(folder: Path) -> None:
    change_config(folder, torch_dtype=None)


def write_towers_twice(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    change_config(folder, **{f"{name}_dict": config[name] for name in ("text_config", "vision_config")})


def end_token_of_the_vocabulary(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    change_config(folder, text_config={**config["text_config"], "eos_token_id": 519})


@pytest.mark.parametrize(
    "fault",
    [
        drop_preprocessor,
        drop_tokenizer_json,
        drop_vocabulary_files,
        name_dtype_anew,
        drop_dtype,
        write_towers_twice,
        end_token_of_the_vocabulary,
    ],
)
def test_folders_that_differ_give_the_same(fault, folder, expected):
    """`eos_token_id` is 2 in all but one, as in OpenAI's own configurations."""
    fault(folder)
    assert_is_the_first_fg_clip(Embedder.from_pretrained(folder, device="cpu"), expected)


def test_other_embedders_name_the_family(folder):
    with pytest.raises(ValueError, match=r"is a FG-CLIP checkpoint \(model type 'fgclip'\), which FGClip2Emb.* can't"):
        FGClip2Embedder.from_pretrained(folder)
    with pytest.raises(ValueError, match="is a FG-CLIP checkpoint, not one of transformers' own classes: use load_mod"):
        load_pair(folder)


def test_stock_clip_stays_stock_clip(folder):
    make_stock_clip(folder)
    assert find_family(folder) is None
    with pytest.raises(ValueError, match=r"has the model type 'clip', and this package has FG-CLIP 2 .*FG-CLIP \(fgcl"):
        Embedder.from_pretrained(folder)
    assert type(load_model(folder, "cpu").model) is CLIPModel


def test_an_adapter_of_it_is_merged(folder, official_fgclip_folder, expected, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(FGClipModel.from_pretrained(official_fgclip_folder), config)
    adapted.save_pretrained(tmp_path / "适配器")
    merged = Embedder(adapted.merge_and_unload(), FGClipProcessor.from_pretrained(folder), "cpu")
    embedder = Embedder.from_pretrained(tmp_path / "适配器", device="cpu")
    assert type(embedder.model) is FGClipModel
    for role, vectors in expected.items():
        found = embedder.encode_texts(TEXTS, role=role)
        np.testing.assert_allclose(found, merged.encode_texts(TEXTS, role=role), rtol=0, atol=1e-5)
        assert abs(found - vectors).max() > 1e-3


@pytest.fixture
def hub(folder, monkeypatch, tmp_path) -> list[tuple[str, int]]:
    """A hub on this machine that has `folder` as acme/fg-clip; which files it sent, and how many bytes of each."""
    sent: list[tuple[str, int]] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(head=True)

        def do_GET(self) -> None:
            self.answer(head=False)

        def answer(self, head: bool) -> None:
            file = folder / self.path.partition("/resolve/main/")[2]
            if not file.is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = file.read_bytes()
            asked = (self.headers.get("Range") or "").removeprefix("bytes=").partition("-")
            part = content[int(asked[0]) : int(asked[2]) + 1] if asked[2] else content
            self.send_response(206 if asked[2] else 200)
            self.send_header("ETag", f'"{file.name}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if not head:
                sent.append((file.name, len(part)))  # before whoever waits for it goes on
                self.wfile.write(part)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # which keeps its first address
    yield sent
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("is_stock_clip", [False, True])
def test_of_weights_on_the_hub_the_header_is_read(is_stock_clip, folder, hub):
    change_config(folder, architectures=["CLIPModel"], auto_map=None)
    if is_stock_clip:
        make_stock_clip(folder)
    size = (folder / "model.safetensors").stat().st_size
    assert size > 150_000
    assert read_model_type("acme/fg-clip") == ("clip" if is_stock_clip else "fgclip")
    fetched = {name: bytes_sent for name, bytes_sent in hub}
    assert fetched.keys() == {"config.json", "model.safetensors"}
    assert fetched["model.safetensors"] <= 100_001  # what the library asks for first


def test_of_shards_on_the_hub_the_index_is_read(folder, hub):
    change_config(folder, architectures=None, auto_map=None)
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {OWN[0]: "model-00001-of-00001.safetensors"}})
    assert read_model_type("acme/fg-clip") == "fgclip"
    assert [name for name, _ in hub] == ["config.json", "model.safetensors.index.json"]
