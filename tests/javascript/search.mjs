// Opens the page in a headless Chromium, uses it as a visitor does, and prints what it shows, as JSON.
//
//     node search.mjs FOLDER REQUEST.json [SCREENSHOT.png]
//
// The request has `queries` to type, a `picture` to choose at the end, and the `executable` of Chromium. The output has
// `hits`, a list of { file, score } for each query, `own`, that of the picture, `languages`, the heading in either, and
// `outside` and `problems`: addresses asked for that are not the page's own, and errors; there should be none.
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import http from "node:http";
import path from "node:path";

import { chromium } from "playwright-core";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".webp": "image/webp",
};
const [folder, request, screenshot] = process.argv.slice(2);
const { queries, picture, executable } = JSON.parse(await readFile(request, "utf8"));

const server = http.createServer(async (incoming, outgoing) => {
  const { pathname } = new URL(incoming.url, "http://localhost");
  const file = path.join(folder, pathname === "/" ? "index.html" : decodeURIComponent(pathname));
  if (!(await stat(file).catch(() => null))?.isFile()) {
    outgoing.writeHead(404).end();
    return;
  }
  outgoing.writeHead(200, { "Content-Type": TYPES[path.extname(file)] ?? "application/octet-stream" });
  createReadStream(file).pipe(outgoing);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await chromium.launch({
  executablePath: executable,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
});
try {
  const page = await browser.newPage({ locale: "en-GB", viewport: { width: 960, height: 700 } });
  const outside = [];
  const problems = [];
  page.on("request", (asked) => {
    if (!/^(data|blob):/.test(asked.url()) && !asked.url().startsWith(origin)) outside.push(asked.url());
  });
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));

  // Waits until the page shows the answer to what was asked last, and returns its hits.
  const hitsOf = async (asked) => {
    const isOver = (about) => document.body.dataset.failed !== undefined || document.body.dataset.shown === about;
    await page.waitForFunction(isOver, asked, { timeout: 200_000 });
    const failed = await page.evaluate(() => document.body.dataset.failed);
    if (failed !== undefined) throw new Error([failed, ...problems].join("\n"));
    return page.$$eval("#hits li", (items) => items.map(({ dataset }) => ({ ...dataset, score: Number(dataset.score) })));
  };

  await page.goto(`${origin}/`);
  await hitsOf(""); // the model is there
  const languages = { en: await page.textContent("h1") };
  const hits = [];
  for (const query of queries) {
    await page.fill("#query", "");
    await page.locator("#query").pressSequentially(query);
    hits.push(await hitsOf(query));
  }
  await page.click("#language");
  languages.zh = await page.textContent("h1");
  if (screenshot) await page.screenshot({ path: screenshot });
  await page.setInputFiles("#picture", picture);
  const own = await hitsOf(path.basename(picture));
  console.log(JSON.stringify({ hits, own, languages, outside, problems }));
} finally {
  await browser.close();
  server.close();
}
