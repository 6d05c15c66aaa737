// Searches the pictures of this page by a text, by one of them, or by a picture of the visitor, all in the browser.
import { Tokenizer } from "./tokenizers.min.mjs";
import * as ort from "./ort.wasm.bundle.min.mjs";

const SHOWN = 12;
const TEXTS = {
  en: {
    title: "Search pictures in Chinese and English",
    about: "The embedded checkpoint of fgclip2 runs in this browser: what you type, and pictures that you choose, stay here.",
    placeholder: "a red apple, 消防车, something to drink …",
    own: "Or search by a picture of your own:",
    loading: "Loading the model …",
    found: (count, milliseconds) => `${count} pictures compared in ${milliseconds} ms`,
    failed: "It does not work here: ",
    sources: "Sources and licences of the pictures:",
    other: "中文",
  },
  zh: {
    title: "用中文和英文搜索图片",
    about: "fgclip2 的内置检查点就在这个浏览器里运行：输入的文字和选择的图片都不会离开这里。",
    placeholder: "红苹果、fire engine、喝的东西……",
    own: "或者用自己的图片搜索：",
    loading: "正在加载模型……",
    found: (count, milliseconds) => `与 ${count} 张图片比较，用时 ${milliseconds} 毫秒`,
    failed: "在这里无法运行：",
    sources: "图片的来源和许可：",
    other: "English",
  },
};

const byId = (id) => document.getElementById(id);
const file = (name) => new URL(name, import.meta.url).href;

async function get(name) {
  const response = await fetch(file(name));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

const json = async (name) => (await get(name)).json();

let language = (new URLSearchParams(location.search).get("lang") ?? navigator.language).startsWith("zh") ? "zh" : "en";
let describeStatus = (texts) => texts.loading; // what the status line says, in either language
let ranked = []; // the hits on the page: { picture, row, score }

function show() {
  const texts = TEXTS[language];
  document.documentElement.lang = language;
  document.title = texts.title;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = texts[element.dataset.text];
  }
  byId("language").textContent = texts.other;
  byId("language").lang = language === "zh" ? "en" : "zh";
  byId("query").placeholder = texts.placeholder;
  byId("query").ariaLabel = texts.title;
  byId("status").textContent = describeStatus(texts);
  const hadFocus = byId("hits").contains(document.activeElement);
  byId("hits").replaceChildren(...ranked.map(hit));
  if (hadFocus) byId("hits").querySelector("button")?.focus(); // for who uses the keyboard
}

function hit({ picture, row, score }) {
  const name = language === "zh" ? picture.name_zh : picture.name_en;
  const image = Object.assign(new Image(), { src: file(picture.file), alt: name });
  const button = document.createElement("button");
  button.type = "button";
  button.title = picture.attribution;
  button.append(image);
  button.addEventListener("click", () => {
    byId("query").value = "";
    byId("picture").value = "";
    search(name, async ({ vectorOf }) => vectorOf(row));
  });
  const number = document.createElement("div");
  number.className = "score";
  number.textContent = score.toFixed(2);
  const item = document.createElement("li");
  item.dataset.file = picture.file;
  item.dataset.score = score;
  item.append(button, name, number);
  return item;
}

async function load() {
  ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
  ort.env.wasm.wasmPaths = { wasm: file("ort-wasm-simd-threaded.wasm") };
  const [settings, pictures, vocabulary, buffer] = await Promise.all([
    json("settings.json"),
    json("pictures.json"),
    json("tokenizer.json"),
    get("vectors.bin").then((response) => response.arrayBuffer()),
  ]);
  const tokenizer = new Tokenizer(vocabulary, {});
  const textTower = await ort.InferenceSession.create(file("text.onnx"));
  const imageTower = await ort.InferenceSession.create(file("image.onnx"));
  const vectors = new Float32Array(buffer); // one row of settings.size values for each picture

  return {
    pictures,
    vectorOf: (row) => vectors.subarray(row * settings.size, (row + 1) * settings.size),
    async encodeText(text) {
      const ids = new BigInt64Array(settings.length).fill(BigInt(settings.pad_id));
      // The graph ends a text itself that is cut here.
      ids.set(tokenizer.encode(text.toLowerCase()).ids.slice(0, settings.length).map(BigInt));
      const outputs = await textTower.run({ input_ids: new ort.Tensor("int64", ids, [1, settings.length]) });
      return outputs.embedding.data;
    },
    async encodeImage(blob) {
      const side = settings.side;
      const context = new OffscreenCanvas(side, side).getContext("2d");
      context.fillStyle = "white"; // under what is transparent
      context.fillRect(0, 0, side, side);
      context.imageSmoothingQuality = "high"; // the default skips pixels of large pictures
      const bitmap = await createImageBitmap(blob);
      context.drawImage(bitmap, 0, 0, side, side);
      bitmap.close();
      const { data } = context.getImageData(0, 0, side, side); // red, green, blue, alpha of each pixel
      const pixels = Float32Array.from({ length: 3 * side * side }, (_, index) => {
        const channel = Math.floor(index / (side * side));
        return (data[4 * (index % (side * side)) + channel] / 255 - settings.mean[channel]) / settings.std[channel];
      });
      const outputs = await imageTower.run({ pixel_values: new ort.Tensor("float32", pixels, [1, 3, side, side]) });
      return outputs.embedding.data;
    },
  };
}

const model = load();
let latest = 0; // number of the last search that was asked for
let turn = model; // searches run one after the other: a session takes one input at a time

// Shows the pictures nearest to what `encode` makes of the model; `about` says what was searched for.
function search(about, encode) {
  const number = ++latest;
  turn = turn
    .then(async () => {
      if (number !== latest) return; // something was typed in the meantime
      const { pictures, vectorOf } = await model;
      const start = performance.now();
      const query = await encode(await model);
      const scored = query && pictures.map((picture, row) => {
        const score = vectorOf(row).reduce((sum, value, index) => sum + value * query[index], 0);
        return { picture, row, score };
      });
      if (number !== latest) return;
      ranked = scored ? scored.sort((one, other) => other.score - one.score).slice(0, SHOWN) : [];
      const milliseconds = Math.round(performance.now() - start);
      describeStatus = (texts) => (scored ? texts.found(pictures.length, milliseconds) : "");
      show();
      document.body.dataset.shown = about; // for tests, which wait for it
    })
    .catch((error) => {
      if (number !== latest) return;
      ranked = [];
      describeStatus = (texts) => texts.failed + error.message;
      show();
      document.body.dataset.failed = error.message; // for tests, too
    });
}

const searchText = () => {
  const text = byId("query").value.trim();
  search(text, async ({ encodeText }) => (text ? encodeText(text) : null));
};
byId("query").addEventListener("input", ({ isComposing }) => {
  byId("picture").value = ""; // so that the same file can be chosen again
  if (!isComposing) searchText(); // what an input method composes is no text yet
});
byId("query").addEventListener("compositionend", searchText);
byId("picture").addEventListener("change", ({ target }) => {
  const [picture] = target.files;
  byId("query").value = "";
  if (picture) search(picture.name, ({ encodeImage }) => encodeImage(picture));
});
byId("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  show();
});
show();
searchText(); // also what a browser has kept in the field
