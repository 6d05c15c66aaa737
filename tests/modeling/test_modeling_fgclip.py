"""FG-CLIP, the first version, beyond parity: loading, lengths, walks, wrong inputs, attention, presets."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fgclip2 import FGClipConfig, FGClipModel, FGClipTextModel, FGClipVisionModel
from fgclip2.modeling.interface import RegionEncoder
from tests import golden_of_v1
from tests.golden_of_v1 import GOLDEN_V1

INPUTS, OUTPUTS = golden_of_v1.inputs(), golden_of_v1.outputs()
PIXELS = INPUTS["pixel_values"]
OFFICIAL = GOLDEN_V1 / "model"
# What releases of transformers before 4.20 wrote for each tower.
OTHER_SETTINGS = {
    "_name_or_path": "",
    "architectures": None,
    "bad_words_ids": None,
    "dropout": 0.0,
    "is_decoder": False,
    "length_penalty": 1.0,
    "output_hidden_states": False,
    "pruned_heads": {},
    "return_dict": True,
    "tie_word_embeddings": True,
    "top_k": 50,
    "torchscript": False,
    "transformers_version": "4.16.0.dev0",
    "use_bfloat16": False,
}
PARTS = ("ori", "res")  # of the long position table


@pytest.fixture(scope="module")
def model() -> FGClipModel:
    """The tiny official checkpoint; don't change it."""
    return FGClipModel.from_pretrained(OFFICIAL).eval()


@pytest.fixture(autouse=True)
def _no_gradients(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


def folder_with(config: dict, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if weights is None:
        shutil.copyfile(OFFICIAL / "model.safetensors", folder / "model.safetensors")
    else:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def official_config(**text_settings: object) -> dict:
    config = json.loads((OFFICIAL / "config.json").read_text())
    config["text_config"].update(text_settings)
    return config


def assert_gives_the_golden_features(model: FGClipModel) -> None:
    for walk in ("short", "long"):
        features = model.get_text_features(INPUTS[f"input_ids_{walk}"])
        torch.testing.assert_close(features, OUTPUTS[f"text_features_{walk}.ids_{walk}"], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(model.get_image_features(PIXELS), OUTPUTS["image_features"], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("name", "count", "tensors"), [("base", 150_136_835, 403), ("large", 428_914_947, 595)])
def test_parameter_counts_of_the_presets(name, count, tensors):
    with torch.device("meta"):
        model = FGClipModel(FGClipConfig.from_preset(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert len(model.state_dict()) == tensors
    assert not list(model.buffers())


def test_unknown_preset():
    with pytest.raises(ValueError, match="`name` must be one of 'base', 'large', got 'so400m'"):
        FGClipConfig.from_preset("so400m")


def test_the_model_offers_what_the_package_asks_of_a_family(model):
    assert isinstance(model, RegionEncoder)
    assert (model.embedding_size, model.score_function) == (20, "softmax")
    assert model.get_score_scale_and_bias() == (pytest.approx(torch.tensor(3.2).exp().item()), 0.0)
    for role, walk in (("caption", "short"), ("long_caption", "long"), ("region_phrase", "box")):
        ids = INPUTS["input_ids_short"]
        assert torch.equal(model.get_role_features(role, ids), model.get_text_features(ids, walk_type=walk))


class TestLoading:
    def test_official_folder_without_a_warning(self, caplog, recwarn):
        FGClipModel.from_pretrained(OFFICIAL)
        assert not caplog.text
        assert not list(recwarn)

    @pytest.mark.parametrize(
        "fault",
        [
            {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1},  # as in OpenAI's first configurations
            {"eos_token_id": None},
        ],
    )
    def test_special_tokens_of_the_official_code_win(self, fault, tmp_path):
        model = FGClipModel.from_pretrained(folder_with(official_config(**fault), tmp_path)).eval()
        assert model.config.text_config.eos_token_id == 511
        assert_gives_the_golden_features(model)

    def test_special_tokens_of_clip_are_not_read_from_the_file(self):
        config = FGClipConfig.from_dict({"model_type": "clip", "text_config": {"eos_token_id": 2, "bos_token_id": 0}})
        text = config.text_config
        assert (text.bos_token_id, text.eos_token_id, text.pad_token_id) == (49406, 49407, 49407)

    def test_own_special_tokens_are_kept(self):
        config = FGClipConfig(text_config={"vocab_size": 300, "eos_token_id": 2})
        assert FGClipConfig.from_dict(config.to_dict()).text_config.eos_token_id == 2

    def test_configurations_as_openai_wrote_them(self, tmp_path):
        config = official_config()
        for name in ("text_config", "vision_config"):
            config[f"{name}_dict"] = config[name]
            config[name] = {**config[name], **OTHER_SETTINGS, "num_hidden_layers": 7}
        assert_gives_the_golden_features(FGClipModel.from_pretrained(folder_with(config, tmp_path)).eval())

    @pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
    def test_either_name_of_the_data_type(self, name, tmp_path):
        config = official_config()
        del config["torch_dtype"]
        folder = folder_with({**config, name: "bfloat16"}, tmp_path)
        model = FGClipModel.from_pretrained(folder, dtype="auto").eval()
        assert model.dtype == torch.bfloat16
        features = model.get_image_features(PIXELS)
        assert torch.cosine_similarity(features.float(), OUTPUTS["image_features"]).min() > 0.999

    def test_weights_that_name_positions(self, tmp_path, caplog):
        """Releases of transformers before 4.31 stored them."""
        weights = load_file(OFFICIAL / "model.safetensors")
        weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        assert_gives_the_golden_features(FGClipModel.from_pretrained(folder_with(official_config(), tmp_path, weights)))
        assert "position_ids" not in caplog.text

    def test_stock_clip_is_refused(self, tmp_path):
        weights = load_file(OFFICIAL / "model.safetensors")
        for name in ("text_filip_projection", *(f"text_model.embeddings.position_embedding_{part}" for part in PARTS)):
            del weights[f"{name}.weight"]
        folder = folder_with(official_config(), tmp_path, weights)
        for model_class, lacking in ((FGClipModel, "text_filip_projection"), (FGClipTextModel, "embeddings.position")):
            with pytest.raises(ValueError, match=f"no checkpoint of {model_class.__name__}, as it lacks {lacking}"):
                model_class.from_pretrained(folder)

    def test_saved_and_loaded_again_to_the_bit(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        assert (config["model_type"], config["architectures"]) == ("fgclip", ["FGClipModel"])
        assert "auto_map" not in config
        again = FGClipModel.from_pretrained(tmp_path).eval()
        assert again.config.text_config.to_dict() == model.config.text_config.to_dict()
        assert again.config.vision_config.to_dict() == model.config.vision_config.to_dict()
        for (name, tensor), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(tensor, other), name
        assert torch.equal(model.get_image_features(PIXELS), again.get_image_features(PIXELS))

    def test_towers_alone(self, model, caplog):
        text, vision = FGClipTextModel.from_pretrained(OFFICIAL), FGClipVisionModel.from_pretrained(OFFICIAL)
        ids = INPUTS["input_ids_long"]
        assert torch.equal(text(ids).pooler_output, model.text_model(ids).pooler_output)
        assert torch.equal(vision(PIXELS).pooler_output, model.vision_model(PIXELS).pooler_output)
        assert not caplog.text


class TestTexts:
    @pytest.mark.parametrize("walk", ["short", "long", "box"])
    def test_padding_and_what_stands_there_change_nothing(self, model, walk):
        ids = INPUTS[f"input_ids_{walk}"]
        padded = model.get_text_features(ids, walk_type=walk)
        ends = (ids == 511).int().argmax(1)
        assert len(set(ends.tolist())) > 1
        for row, end in enumerate(ends.tolist()):
            alone = model.get_text_features(ids[row : row + 1, : end + 1], walk_type=walk)
            torch.testing.assert_close(alone[0], padded[row], rtol=2e-6, atol=2e-6)
        noise = torch.where(torch.arange(ids.shape[1]) > ends[:, None], 7, ids)
        torch.testing.assert_close(model.get_text_features(noise, walk_type=walk), padded, rtol=2e-6, atol=2e-6)

    def test_walk_follows_the_length(self, model):
        ids = INPUTS["input_ids_long"]
        by_length = {length: model.get_text_features(ids[:, :length]) for length in (77, 78)}
        assert torch.equal(by_length[77], model.get_text_features(ids[:, :77], walk_type="short"))
        assert torch.equal(by_length[78], model.get_text_features(ids[:, :78], walk_type="long"))
        long = model.get_text_features(ids[:, :77], walk_type="long")
        assert not torch.allclose(by_length[77], long, atol=1e-3)

    def test_forward_without_a_walk_has_the_short_head(self, model):
        ids = INPUTS["input_ids_long"]
        short = model.get_text_features(ids[:, :77], walk_type="short")
        mixed = model.text_projection(model.text_model(ids[:, :78], walk_type="long").pooler_output)  # as officially
        for length, features in ((77, short), (78, mixed)):
            expected = torch.nn.functional.normalize(features, dim=-1)
            torch.testing.assert_close(model(input_ids=ids[:, :length]).text_embeds, expected)
        expected = torch.nn.functional.normalize(model.get_text_features(ids, walk_type="long"), dim=-1)
        torch.testing.assert_close(model(input_ids=ids, walk_type="long").text_embeds, expected)

    def test_mask_hides_tokens(self, model):
        """Of a text whose first token is masked, the features are not those of the text."""
        ids = INPUTS["input_ids_short"][:2]
        mask = torch.ones_like(ids)
        mask[0, 1] = 0
        plain, masked = model.get_text_features(ids), model.get_text_features(ids, mask)
        assert not torch.allclose(plain[0], masked[0], atol=1e-3)
        torch.testing.assert_close(plain[1], masked[1], rtol=1e-4, atol=2e-5)

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    def test_padding_in_front_is_hidden(self, implementation):
        model = FGClipModel.from_pretrained(OFFICIAL, attn_implementation=implementation).eval()
        ids = INPUTS["input_ids_varlen"]
        mask = torch.ones_like(ids)
        mask[:, :3] = 0
        features = model.get_text_features(ids, mask)
        assert features.isfinite().all()
        other = model.get_text_features(torch.where(mask.bool(), ids, 7), mask)
        torch.testing.assert_close(other, features, rtol=1e-4, atol=2e-5)

    def test_wrong_calls(self, model):
        ids = torch.ones(1, 249, dtype=torch.long)
        with pytest.raises(ValueError, match=r"takes 1 to 248: truncate to max_length=248$"):
            model.get_text_features(ids)
        with pytest.raises(ValueError, match="takes 1 to 77: truncate to max_length=77, or use walk_type='long'"):
            model.get_text_features(ids[:, :78], walk_type="box")
        with pytest.raises(ValueError, match="must be one of 'short', 'long', 'box' or None, got 'medium'"):
            model.get_text_features(ids[:, :9], walk_type="medium")
        with pytest.raises(
            ValueError, match="pass walk_type='long', or walk_short_pos and use_bbox as in the official"
        ):
            model.get_text_features(ids[:, :9], walk_type="long", walk_short_pos=False)
        with pytest.raises(ValueError, match=r"allowed: \(texts, tokens\)"):
            model.get_text_features(ids[0])
        with pytest.raises(ValueError, match="pass input_ids, pixel_values or both"):
            model()
        with pytest.raises(ValueError, match=r"as many texts as images, but \(texts, images\) is \(4, 2\)"):
            model(input_ids=INPUTS["input_ids_short"], pixel_values=PIXELS[:2], return_loss=True)


class TestImages:
    def test_wrong_calls(self, model):
        for size in ("tall", "square_large"):
            with pytest.raises(ValueError, match=r"not 40x40: .*or pass interpolate_pos_encoding=True"):
                model.get_image_features(INPUTS[f"pixel_values_{size}"])
        with pytest.raises(ValueError, match="44x40; sides must be multiples of 8"):
            model.get_image_dense_feature(torch.zeros(1, 3, 44, 40), interpolate_pos_encoding=True)
        with pytest.raises(ValueError, match=r"allowed: \(images, channels, height, width\)"):
            model.get_image_features(PIXELS[0])

    def test_wrong_boxes(self, model):
        with pytest.raises(ValueError, match="pass region_infos"):
            model.get_image_region_features(PIXELS)
        with pytest.raises(ValueError, match="4 images, but region_infos has 1 and image_sizes 4"):
            model.get_image_region_features(PIXELS, image_sizes=[(9, 9)] * 4, region_infos=[[]])
        with pytest.raises(ValueError, match=r"box_info has shape \(2, 4\); allowed: \(boxes, 5\)"):
            model.get_image_box_roi_features(PIXELS, torch.zeros(2, 4))
        with pytest.raises(ValueError, match=r"names the images \[4\], but there are 4"):
            model.get_image_box_roi_features(PIXELS, torch.tensor([[4.0, 0, 0, 1, 1]]))
        with pytest.raises(ValueError, match="has 1 entries for 4 images"):
            model.get_image_box_roi_features(PIXELS, [torch.zeros(1, 4)])

    def test_no_boxes(self, model):
        assert model.get_image_box_roi_features(PIXELS, [torch.zeros(0, 4)] * 4).shape == (0, 20)
        assert model.get_image_box_roi_features(PIXELS, torch.zeros(0, 5)).shape == (0, 20)
        regions = model.get_image_region_features(PIXELS, image_sizes=[(9, 9)] * 4, region_infos=[[]] * 4)
        assert [tuple(features.shape) for features in regions] == [(0, 20)] * 4

    def test_boxes_of_several_images_keep_their_order(self, model):
        boxes = [INPUTS[f"region_boxes_grid_{index}"] for index in range(4)]
        rows = [torch.cat([torch.full((len(part), 1), index), part], 1) for index, part in enumerate(boxes)]
        order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
        shuffled = model.get_image_box_roi_features(PIXELS, torch.cat(rows)[order])
        assert torch.equal(shuffled, model.get_image_box_roi_features(PIXELS, boxes)[order])


def test_eager_attention_equals_sdpa():
    outputs = []
    for implementation in ("eager", "sdpa"):
        model = FGClipModel.from_pretrained(OFFICIAL, attn_implementation=implementation).eval()
        assert model.text_model.encoder.layers[0].self_attn.config._attn_implementation == implementation
        ids, mask = INPUTS["input_ids_long"], INPUTS["attention_mask_long"]
        outputs.append((model.get_image_features(PIXELS), model.get_text_features(ids, mask), model(ids).text_embeds))
    for eager, sdpa in zip(*outputs, strict=True):
        torch.testing.assert_close(eager, sdpa, rtol=1e-4, atol=2e-5)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = FGClipModel.from_pretrained(OFFICIAL).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        loss = model(INPUTS["input_ids_short"], PIXELS, walk_type="short", return_loss=True).loss
        (loss + model.get_image_dense_feature(PIXELS).square().mean()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-6)


def test_initial_weights():
    torch.manual_seed(0)
    config = FGClipConfig.from_pretrained(OFFICIAL)
    model = FGClipModel(config).eval()
    assert model.logit_scale_hardneg.item() == pytest.approx(2.6592)
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
    tables = model.text_model.embeddings
    assert 0.015 < tables.position_embedding_res.weight.std() < 0.025
    assert model.get_image_features(PIXELS).shape == (4, 20)
