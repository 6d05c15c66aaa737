"""The full objective written as plainly as it can be, from its formulas: what the package's step is measured against.

Every slot of a batch is encoded, whether an image has a box there or not; short captions, long captions, box texts and
hard negatives go through the text tower one after another; heads, dense features and boxes are looped over; masks are
floats of N x N. It computes with the parameters of an [`FGClip2ForTraining`], so values and gradients can be compared.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgclip2.training import FGClip2ForTraining

END_OF_TEXT = 1


def padded_batch(batch: dict[str, Tensor], slots: int = 4, pad_hard_negatives: bool = True) -> dict[str, Tensor]:
    """A batch of the package's collator as a plain collator has it.

    Args:
        batch: Arguments of [`FGClip2ForTraining.forward`].
        slots: Boxes per image; an image's boxes come first, empty boxes with empty texts behind.
        pad_hard_negatives: Lay the texts of hard negatives out in slots too, not only those of boxes.

    Returns:
        `pixel_values`, `pixel_attention_mask`, `spatial_shapes`, `short_input_ids` and `long_input_ids` as they are;
        `region_boxes` (B, slots, 4), `region_counts` (B,), `region_input_ids` (B * slots, 64) and the same for `hard`,
        whose ids are (B * slots, 1 + N, 64), or (H, 1 + N, 64) without padding.
    """
    padded = {name: batch[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}
    padded.update({name: batch[name] for name in ("short_input_ids", "long_input_ids")})
    images = len(batch["pixel_values"])
    for kind in ("region", "hard"):
        index, ids = batch[f"{kind}_index"], batch[f"{kind}_input_ids"]
        boxes, counts = torch.zeros(images, slots, 4), torch.zeros(images, dtype=torch.int64)
        slot_ids = torch.zeros(images, slots, *ids.shape[1:], dtype=ids.dtype)
        slot_ids[..., 0] = END_OF_TEXT
        for (image, box), text in zip(index.tolist(), ids, strict=True):
            boxes[image, counts[image]] = batch["boxes"][image, box]
            slot_ids[image, counts[image]] = text
            counts[image] += 1
        padded[f"{kind}_boxes"], padded[f"{kind}_counts"] = boxes, counts
        padded[f"{kind}_input_ids"] = slot_ids.flatten(0, 1) if kind == "region" or pad_hard_negatives else ids
    return padded


def reference_loss(model: FGClip2ForTraining, batch: dict[str, Tensor], margin: float = 0.0) -> Tensor:
    """The released objective on one process.

    Args:
        model: Whose parameters to use.
        batch: Of [`padded_batch`].
        margin: Of the rank loss.

    Returns:
        Scalar.
    """
    patches = encode_patches(model, batch)
    images = normalise(pool_images(model, patches, batch["pixel_attention_mask"]))
    short = normalise(encode_texts(model, batch["short_input_ids"], "short"))
    long = normalise(encode_texts(model, batch["long_input_ids"], "long"))
    region_texts = normalise(encode_texts(model, batch["region_input_ids"], "box"))
    hard_ids = batch["hard_input_ids"]
    hard_texts = normalise(encode_texts(model, hard_ids.flatten(0, 1), "box")).unflatten(0, hard_ids.shape[:2])
    dense = dense_features(model, patches, batch["pixel_attention_mask"])
    regions = pool_boxes(dense, batch["spatial_shapes"], batch["region_boxes"], batch["region_counts"])
    hard_regions = pool_boxes(dense, batch["spatial_shapes"], batch["hard_boxes"], batch["hard_counts"])

    region_texts = region_texts[_is_filled(batch["region_counts"], len(region_texts))]
    if len(hard_texts) != len(hard_regions):
        hard_texts = hard_texts[_is_filled(batch["hard_counts"], len(hard_texts))]
    total = sigmoid(images, short, model.logit_scale, model.logit_bias)
    total = total + sigmoid(images, long, model.logit_scale, model.logit_bias)
    total = total + 0.2 * contrastive(normalise(regions), region_texts, model.logit_scale_finegraind)
    total = total + 0.1 * intra_modal(region_texts)
    return total + 0.5 * hard_negatives(normalise(hard_regions), hard_texts, model.logit_scale_hardneg, margin)


def _is_filled(counts: Tensor, rows: int) -> Tensor:
    slots = rows // len(counts)
    return (torch.arange(slots) < counts[:, None]).flatten()


# ---------------------------------------------------------------------------------------------------------------------
# Towers
# ---------------------------------------------------------------------------------------------------------------------


def encode_patches(model: FGClip2ForTraining, batch: dict[str, Tensor]) -> Tensor:
    """The vision tower; (B, N, D)."""
    tower, valid = model.vision_model, batch["pixel_attention_mask"].bool()
    hidden = tower.embeddings.patch_embedding(batch["pixel_values"])
    table = tower.embeddings.position_embedding.weight
    table = table.unflatten(0, (tower.embeddings.grid_size,) * 2).permute(2, 0, 1)[None]  # (1, D, G, G)
    positions = []
    for height, width in batch["spatial_shapes"].tolist():
        grid = F.interpolate(table, (height, width), mode="bilinear", antialias=True)[0].flatten(1).T
        positions.append(torch.cat([grid, grid[:1].expand(hidden.shape[1] - len(grid), -1)]))
    mask = float_mask(valid)[:, None]  # (B, 1, N, N)
    return tower.post_layernorm(encode(tower, hidden + torch.stack(positions), mask))


def encode_texts(model: FGClip2ForTraining, input_ids: Tensor, walk_type: str) -> Tensor:
    """The text tower and the head of the walk; (T, L) -> (T, D)."""
    tower, embeddings = model.text_model, model.text_model.embeddings
    if walk_type == "long":
        first, rest = embeddings.position_embedding_ori.weight, embeddings.position_embedding_res.weight
        positions = torch.cat([first[: embeddings.keep_len], rest[embeddings.keep_len :]])
    else:
        positions = embeddings.position_embedding.weight[: input_ids.shape[1]]
    hidden = encode(tower, embeddings.token_embedding(input_ids) + positions, None)
    pooled = tower.final_layer_norm(hidden)[:, -1]
    head = {"short": tower.head, "long": model.longtext_head, "box": model.boxtext_head}[walk_type]
    return torch.stack([head(text) for text in pooled])


def encode(tower: nn.Module, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The encoder of a tower; (B, N, D) -> (B, N, D)."""
    for layer in tower.encoder.layers:
        normed, attention = layer.layer_norm1(hidden), layer.self_attn
        query, key, value = (
            projection(normed).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, mask)
        hidden = hidden + attention.out_proj(mixed.transpose(1, 2).flatten(2))
        hidden = hidden + feed_forward(layer.mlp, layer.layer_norm2(hidden))
    return hidden


def feed_forward(mlp: nn.Module, hidden: Tensor) -> Tensor:
    return mlp.fc2(F.gelu(mlp.fc1(hidden), approximate="tanh"))


def float_mask(valid: Tensor) -> Tensor:
    """(B, N) of valid keys -> additive (B, N, N)."""
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(*valid.shape, valid.shape[1]).masked_fill(~valid[:, None], lowest)


# ---------------------------------------------------------------------------------------------------------------------
# Heads and boxes
# ---------------------------------------------------------------------------------------------------------------------


def pool_images(model: FGClip2ForTraining, patches: Tensor, valid: Tensor) -> Tensor:
    """Global features, image by image; (B, N, D) -> (B, D)."""
    head = model.vision_model.head
    masks = float_mask(valid.bool())[:, :1].repeat_interleave(head.attention.num_heads, 0)  # (B * heads, 1, N)
    return torch.stack([one_head(head, head.probe[0], *pair) for pair in _per_image(patches, masks)])[:, 0]


def dense_features(model: FGClip2ForTraining, patches: Tensor, valid: Tensor) -> Tensor:
    """Features of every patch, image by image; (B, N, D) -> (B, N, D)."""
    head = model.dense_feature_head
    masks = float_mask(valid.bool()).repeat_interleave(head.attention.num_heads, 0)  # (B * heads, N, N)
    return torch.stack([one_head(head, image, image, mask) for image, mask in _per_image(patches, masks)])


def _per_image(patches: Tensor, masks: Tensor) -> zip:
    return zip(patches, masks.chunk(len(patches)), strict=True)


def one_head(head: nn.Module, query: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """A pooling head on one image; queries (Q, D), patches (N, D), mask (heads, Q, N) -> (Q, D)."""
    weights, biases = head.attention.in_proj_weight.chunk(3), head.attention.in_proj_bias.chunk(3)
    query, key, value = (
        F.linear(rows, weight, bias).unflatten(-1, (head.attention.num_heads, -1)).transpose(0, 1)
        for rows, weight, bias in zip((query, image, image), weights, biases, strict=True)
    )
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1]) + mask
    attended = head.attention.out_proj((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))
    return attended + feed_forward(head.mlp, head.layernorm(attended))


def pool_boxes(dense: Tensor, spatial_shapes: Tensor, boxes: Tensor, counts: Tensor) -> Tensor:
    """RoIAlign of one cell, box by box: (B, N, D) maps and (B, R, 4) fractions -> (sum of counts, D)."""
    pooled = []
    for rows, (height, width), image_boxes, count in zip(
        dense, spatial_shapes.tolist(), boxes, counts.tolist(), strict=True
    ):
        grid = rows[: height * width].T.unflatten(1, (height, width))  # (D, h, w)
        pooled += [pool_box(grid, box) for box in image_boxes[:count]]
    return torch.stack(pooled) if pooled else dense.new_zeros(0, dense.shape[-1])


def pool_box(grid: Tensor, box: Tensor) -> Tensor:
    """Mean of the samples of a box inside its image; (D, h, w) -> (D,)."""
    _, height, width = grid.shape
    x1, y1, x2, y2 = box * torch.tensor([width, height, width, height]) - 0.5
    columns, rows = sample_points(x1, x2, width), sample_points(y1, y2, height)
    points = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]  # (1, rows, columns, 2)
    return F.grid_sample(grid[None], points, padding_mode="border", align_corners=True).mean((2, 3))[0]


def sample_points(start: Tensor, end: Tensor, size: int) -> Tensor:
    """About one point per cell of an interval; -1 is the first cell and 1 the last, as `F.grid_sample` has it."""
    count = math.ceil(end - start)
    cells = start + (torch.arange(count) + 0.5) * (end - start) / count
    return 2 * cells / (size - 1) - 1


# ---------------------------------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------------------------------


def normalise(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def sigmoid(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Logits of all pairs, labels of 1 and -1."""
    labels = 2 * torch.eye(len(images)) - 1
    return -F.logsigmoid(labels * (scale.exp() * images @ texts.T + bias)).sum() / len(images)


def contrastive(regions: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    logits = scale.exp() * regions @ texts.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def intra_modal(texts: Tensor) -> Tensor:
    similarities = texts @ texts.T
    similarities = similarities * (1 - torch.eye(len(texts))) * (similarities <= 0.95)
    return similarities.topk(10).values.exp().sum(1).log().mean()


def hard_negatives(regions: Tensor, texts: Tensor, scale: Tensor, margin: float) -> Tensor:
    """Regions (H, D) and texts (H, 1 + N, D), the true one first."""
    positives, negatives = texts[:, 0], texts[:, 1:].flatten(0, 1)
    target = torch.arange(len(regions))
    over_texts = F.cross_entropy(scale.exp() * regions @ torch.cat([positives, negatives]).T, target)
    contrast = (over_texts + F.cross_entropy(scale.exp() * positives @ regions.T, target)) / 2
    pairs, ranks = [], []
    for region, own in zip(regions, texts, strict=True):
        logits = scale.exp() * own @ region  # (1 + N,)
        pairs.append(F.cross_entropy(logits[None], target[:1]))
        ranks.append((margin + logits[1:] - logits[0]).clamp(min=0))
    return 0.6 * contrast + 3 * torch.stack(pairs).mean() + 0.4 * torch.stack(ranks).mean()
