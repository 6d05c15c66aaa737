"""The losses of the first stage: a sigmoid loss with several positives, and class proxies that get it started."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgclip2.modeling.modeling_fgclip2 import FGClip2Model, pool_regions

PROXY_SCALE = 20.0


def multi_positive_sigmoid_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    is_positive: Tensor,
    is_counted: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
) -> Tensor:
    """SigLIP's loss where an image may belong to several texts and a text to several images.

    Args:
        image_embeds: Shape (I, D), L2-normalised.
        text_embeds: Shape (T, D), L2-normalised.
        is_positive: Boolean, shape (I, T).
        is_counted: Boolean, shape (I, T); false for pairs of which it is not known what they are.
        logit_scale, logit_bias: The model's parameters, shape (1,), the scale as a logarithm.

    Returns:
        The sum over pairs, divided by I.
    """
    with torch.autocast(image_embeds.device.type, enabled=False):
        logits = image_embeds @ text_embeds.T * logit_scale.exp() + logit_bias  # (I, T)
    losses = -F.logsigmoid(torch.where(is_positive, logits, -logits))
    return (losses * is_counted).sum() / len(image_embeds)


def unit(embeds: Tensor) -> Tensor:
    """L2-normalised, and in float32 where the model computes in bfloat16: three digits are too few for the losses."""
    return F.normalize(embeds.float(), dim=-1)


class Trainee(nn.Module):
    """The model with one learnt vector per training concept, which images, regions and texts are classified by.

    The sigmoid loss alone learns only its bias for hundreds of steps; the proxies give a class signal from the first
    step on, and are thrown away in the end.
    """

    def __init__(self, model: FGClip2Model, num_concepts: int, weights: dict[str, float], region_images: int):
        super().__init__()
        self.model = model
        self.proxies = nn.Parameter(torch.randn(num_concepts, model.config.vision_config.hidden_size))
        self.weights = weights
        self.region_images = region_images

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Named losses of a batch of [`TrainingBatches`], unweighted, and their weighted sum `loss`."""
        texts = self.encode_texts(batch)
        losses = self.single_losses(batch, texts)
        if "scene_pixels" in batch:
            losses.update(self.scene_losses(batch, texts))
        losses["loss"] = sum(self.weights[name] * loss for name, loss in losses.items())
        return losses

    def encode_texts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Encode the same tokens for the walks short and box, which differ in their last layer only."""
        pooled = self.model.text_model(batch["input_ids"], walk_type="box").pooler_output  # (T, text width)
        return {
            "short": unit(self.model.text_model.head(pooled)),
            "box": unit(self.model.boxtext_head(pooled)),
        }

    def single_losses(self, batch: dict[str, Tensor], texts: dict[str, Tensor]) -> dict[str, Tensor]:
        vision = self.model.vision_model(batch["pixels"])
        images = unit(vision.pooler_output)
        some = self.region_images
        regions = self.encode_regions(vision.last_hidden_state[:some], batch["pixels"], batch["boxes"][:some, None])
        regions, concepts = regions.flatten(0, 1), batch["concepts"]
        return {
            "global": self.contrast(images, texts["short"], batch["is_positive"], batch["is_counted"]),
            "proxy": (self.classify(images, concepts) + self.classify_texts(texts["short"], batch)) / 2,
            "region": self.contrast(regions, texts["box"], batch["is_positive"][:some], batch["is_counted"][:some]),
            "region_proxy": (self.classify(regions, concepts[:some]) + self.classify_texts(texts["box"], batch)) / 2,
        }

    def scene_losses(self, batch: dict[str, Tensor], texts: dict[str, Tensor]) -> dict[str, Tensor]:
        vision = self.model.vision_model(batch["scene_pixels"])
        regions = self.encode_regions(vision.last_hidden_state, batch["scene_pixels"], batch["scene_boxes"])
        regions, concepts = regions[batch["scene_valid"]], batch["scene_concepts"][batch["scene_valid"]]  # (K, D), (K,)
        captions = unit(self.model.get_text_features(batch["caption_ids"], walk_type="long"))
        scenes = unit(vision.pooler_output)
        own = torch.eye(len(captions), dtype=torch.bool)
        return {
            "scene": self.contrast(regions, texts["box"], batch["scene_is_positive"], batch["scene_is_counted"]),
            "scene_proxy": self.classify(regions, concepts),
            "long": self.contrast(scenes, captions, own, torch.ones_like(own)),
        }

    def encode_regions(self, hidden_states: Tensor, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Region features, L2-normalised: patches (B, N, D), pictures (B', 3, H, W), boxes (B, R, 4) in pixels."""
        dense = self.model.dense_feature_head(hidden_states)
        patch = self.model.config.vision_config.patch_size
        grid = torch.tensor([[pixels.shape[2] // patch, pixels.shape[3] // patch]]).expand(len(dense), -1)
        return unit(pool_regions(dense, grid, boxes / patch))

    def contrast(self, images: Tensor, texts: Tensor, is_positive: Tensor, is_counted: Tensor) -> Tensor:
        scale, bias = self.model.logit_scale, self.model.logit_bias
        return multi_positive_sigmoid_loss(images, texts, is_positive, is_counted, scale, bias)

    def classify(self, embeds: Tensor, concepts: Tensor) -> Tensor:
        with torch.autocast(embeds.device.type, enabled=False):
            return F.cross_entropy(PROXY_SCALE * embeds @ F.normalize(self.proxies, dim=-1).T, concepts)

    def classify_texts(self, texts: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Keywords belong to several concepts, so only names are classified."""
        return self.classify(texts[batch["text_is_name"]], batch["text_concepts"][batch["text_is_name"]])
