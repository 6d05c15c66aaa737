// Opens the page in a headless Chromium, uses it as a visitor does, and prints what it shows, as JSON.
//
//     node search.mjs FOLDER REQUEST.json [SCREENSHOT.png]
//
// The request has `queries` to type, of which the screenshot shows the last, `pictures` to choose, `noPicture`, a file
// that is none, and the `executable` of Chromium. The output has
// - `hits` and `own`: lists of { file, score }, for each query and each picture;
// - `byKeyboard`: the `hits` after Enter on the first hit of the last picture, `focus`, the element that then has it, and
//   `chosen`, what the field of files has;
// - `searched`: what was searched for while an input method wrote a text;
// - `failures`: { status, hits }, their number, of the page `withoutVectors` and of the file that is `noPicture`;
// - `languages`: the heading in either;
// - `outside` and `problems`: addresses asked for that are not the page's own, and errors; there should be none.
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
const { queries, pictures, noPicture, executable } = JSON.parse(await readFile(request, "utf8"));

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
  const own = [];
  for (const picture of pictures) {
    await page.setInputFiles("#picture", picture);
    own.push(await hitsOf(path.basename(picture)));
  }

  const name = await page.locator("#hits img").first().getAttribute("alt");
  await page.locator("#hits button").first().focus();
  await page.keyboard.press("Enter");
  const byKeyboard = {
    hits: await hitsOf(name),
    focus: await page.evaluate(() => document.activeElement.tagName),
    chosen: await page.inputValue("#picture"),
  };

  await page.evaluate(() => {
    globalThis.searched = [];
    const note = () => globalThis.searched.push(document.body.dataset.shown);
    new MutationObserver(note).observe(document.body, { attributeFilter: ["data-shown"] });
  });
  const inputMethod = await page.context().newCDPSession(page);
  await page.focus("#query");
  for (const text of ["x", "xiao", "xiao'fang'che"]) {
    const end = text.length;
    await inputMethod.send("Input.imeSetComposition", { text, selectionStart: end, selectionEnd: end });
    await page.waitForTimeout(300); // a search would be over
  }
  await inputMethod.send("Input.insertText", { text: "消防车" });
  await hitsOf("消防车");
  const searched = await page.evaluate(() => globalThis.searched);

  const failureOf = async (opened) => {
    await opened.waitForFunction(() => document.body.dataset.failed !== undefined, null, { timeout: 200_000 });
    return { status: await opened.textContent("#status"), hits: await opened.locator("#hits li").count() };
  };
  await page.setInputFiles("#picture", noPicture);
  const failures = { noPicture: await failureOf(page) };
  const broken = await browser.newPage({ locale: "en-GB" });
  await broken.route("**/vectors.bin", (route) => route.fulfill({ status: 404, body: "<!doctype html>" }));
  await broken.goto(`${origin}/`);
  failures.withoutVectors = await failureOf(broken);
  console.log(JSON.stringify({ hits, own, byKeyboard, searched, failures, languages, outside, problems }));
} finally {
  await browser.close();
  server.close();
}
