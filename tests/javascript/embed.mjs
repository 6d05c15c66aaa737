// Loads a folder by transformers.js as its users do, and writes what comes out.
//
//     node embed.mjs FOLDER REQUEST.json OUTPUT.json
//
// The request has `texts`, `pictures` (paths), `labels` and `dtypes`; the output has the same by dtype: rows of vectors,
// and for each picture its labels from the best to the worst.
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";

import {
  AutoProcessor,
  AutoTokenizer,
  env,
  pipeline,
  RawImage,
  SiglipTextModel,
  SiglipVisionModel,
} from "@huggingface/transformers";

const [folder, request, output] = process.argv.slice(2);
const { texts, pictures, labels, dtypes } = JSON.parse(await readFile(request, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(path.resolve(folder));
const name = path.basename(folder);

const tokenizer = await AutoTokenizer.from_pretrained(name);
const processor = await AutoProcessor.from_pretrained(name);
const images = await Promise.all(pictures.map((picture) => RawImage.read(picture)));
const found = {};
for (const dtype of dtypes) {
  const textModel = await SiglipTextModel.from_pretrained(name, { dtype });
  const visionModel = await SiglipVisionModel.from_pretrained(name, { dtype });
  const ofTexts = await textModel(tokenizer(texts, { padding: "max_length", truncation: true }));
  const ofImages = await visionModel(await processor(images));
  const classify = await pipeline("zero-shot-image-classification", name, { dtype });
  const ranked = await classify(images, labels, { hypothesis_template: "{}" });
  found[dtype] = {
    texts: ofTexts.pooler_output.tolist(),
    images: ofImages.pooler_output.tolist(),
    ranked,
  };
}
await writeFile(output, JSON.stringify(found));
