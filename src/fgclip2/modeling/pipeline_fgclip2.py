"""The zero-shot image classification pipeline of transformers, with this model's text length and its sigmoid."""

from typing import Any

from transformers.pipelines.zero_shot_image_classification import ZeroShotImageClassificationPipeline


class FGClip2ZeroShotImageClassificationPipeline(ZeroShotImageClassificationPipeline):
    """Score an image against labels: the model's probability that each label fits; they need not sum to 1.

    The plain pipeline pads texts to the longest and takes a softmax unless a model's type contains "siglip".
    """

    def _sanitize_parameters(self, tokenizer_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        # The plain pipeline takes tokenizer_kwargs and, in some releases, drops them.
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)
        if tokenizer_kwargs is not None:
            preprocess["tokenizer_kwargs"] = tokenizer_kwargs
        return preprocess, forward, postprocess

    def preprocess(self, image: Any, tokenizer_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        length = self.model.config.text_config.max_position_embeddings
        fixed = {"padding": "max_length", "max_length": length, "truncation": True}
        return super().preprocess(image, tokenizer_kwargs={**fixed, **(tokenizer_kwargs or {})}, **kwargs)

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:
        scores = model_outputs["logits"][0].float().sigmoid().tolist()
        labelled = sorted(zip(scores, model_outputs["candidate_labels"], strict=True), key=lambda pair: -pair[0])
        return [{"score": score, "label": label} for score, label in labelled]


__all__ = ["FGClip2ZeroShotImageClassificationPipeline"]
