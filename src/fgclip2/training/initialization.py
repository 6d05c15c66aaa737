"""Starting weights of FG-CLIP 2 from those of SigLIP 2 (FG-CLIP 2, section 3; the released training script)."""

import torch
from torch import Tensor

from ..modeling.modeling_fgclip2 import FGClip2Model

STRETCH = 4


def stretch_position_embedding(table: Tensor, keep_len: int = 20) -> Tensor:
    """Stretch a position table to longer texts: leading rows stay, the others are interpolated to four times as many.

    Args:
        table: Float, shape (N, D).
        keep_len: Leading rows that are copied; at least two rows in all, and one to stretch.

    Returns:
        Shape (4 N - 3 keep_len, D): 196 rows from 64. The last steps continue the slope of the last two rows.

    Raises:
        ValueError: The table has too few rows.
    """
    if len(table) < max(2, keep_len + 1):
        raise ValueError(f"the position table has {len(table)} rows; allowed: at least {max(2, keep_len + 1)}")
    kept, rest = table[:keep_len], table[keep_len:]
    slopes = torch.cat([rest[1:] - rest[:-1], table[-1:] - table[-2:-1]])  # (R, D)
    steps = torch.arange(STRETCH, device=table.device, dtype=table.dtype) / STRETCH
    stretched = rest[:, None] + steps[:, None] * slopes[:, None]  # (R, 4, D)
    return torch.cat([kept, stretched.flatten(0, 1)])


@torch.no_grad()
def initialize_heads_from_siglip2(model: FGClip2Model) -> None:
    """Fill, in place, what SigLIP 2 does not have from what it has.

    The long position tables become the stretched short one, the long and box heads the short text head, and the dense
    head the vision tower's pooling head.

    Raises:
        ValueError: The stretched table does not have the model's `longtext_len` rows.
    """
    embeddings = model.text_model.embeddings
    # 20 rows whatever config.keep_len says, as in the released script.
    stretched = stretch_position_embedding(embeddings.position_embedding.weight)
    if stretched.shape != embeddings.position_embedding_ori.weight.shape:
        raise ValueError(
            f"{len(embeddings.position_embedding.weight)} short positions stretch to {len(stretched)} long ones, but "
            f"text_config.longtext_len is {len(embeddings.position_embedding_ori.weight)}"
        )
    embeddings.position_embedding_ori.weight.copy_(stretched)
    embeddings.position_embedding_res.weight.copy_(stretched)
    for head in (model.longtext_head, model.boxtext_head):
        head.load_state_dict(model.text_model.head.state_dict())
    model.dense_feature_head.load_state_dict(model.vision_model.head.state_dict())
