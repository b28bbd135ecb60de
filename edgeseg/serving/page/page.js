// The page of edgeseg serve: an image goes to /v1/segment, the class map comes back and is drawn over it.
// Names of files and classes come from strangers: they become text only (textContent), never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const state = { models: [], file: null, image: null, ids: null, width: 0, height: 0, areas: null, png: null, hidden: new Set(), run: 0 };

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

async function ask(path, options = {}) {
  const token = $("token").value.trim();
  const headers = { ...(options.headers || {}) };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  if (answer.status === 401) $("token-label").hidden = false;
  let text = `The server answered with status ${answer.status}.`;
  try {
    const { error } = await answer.json();
    text = `${error.what} ${error.hint}`.trim();
  } catch { /* not ours */ }
  throw new Error(text);
}

async function loadModels() {
  const before = $("model").value;
  state.models = (await (await ask("v1/models")).json()).models;
  $("model").replaceChildren(...state.models.map((model) => {
    const option = document.createElement("option");
    option.value = option.textContent = model.name;
    return option;
  }));
  if (state.models.some((model) => model.name === before)) $("model").value = before;
}

const chosen = () => state.models.find((model) => model.name === $("model").value);

async function segment(file) {
  const run = ++state.run;
  try {
    if (!chosen()) await loadModels();
    say(`Segmenting ${file.name} ...`);
    const image = await createImageBitmap(file).catch(() => { throw new Error(`${file.name} is no image that this browser can show.`); });
    const model = encodeURIComponent(chosen().name);
    const headers = { "Content-Type": file.type || "application/octet-stream" };
    const post = (format) => ask(`v1/segment?model=${model}&format=${format}`, { method: "POST", body: file, headers });
    const began = performance.now();
    const png = await (await post("png")).arrayBuffer();
    const ids = await decodeIds(png);
    const areas = await (await post("areas")).json();
    if (run !== state.run) return; // another image was chosen meanwhile
    if (ids.width !== image.width || ids.height !== image.height) throw new Error("The class map has another size than the image.");
    Object.assign(state, { file, image, png, areas, ids: ids.data, width: ids.width, height: ids.height });
    showLegend();
    draw();
    say(`${file.name}: ${ids.width}x${ids.height}, ${Math.round(performance.now() - began)} ms with the way to the server and back.`);
  } catch (error) {
    if (run === state.run) say(error.message, true);
  }
}

// Class ids of a PNG with a palette of 8 bits and without filters, as the server writes it: browsers give colors only.
async function decodeIds(buffer) {
  const view = new DataView(buffer);
  const parts = [];
  let width = 0, height = 0;
  for (let at = 8; at + 12 <= buffer.byteLength;) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...new Uint8Array(buffer, at + 4, 4));
    if (kind === "IHDR") [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (kind === "IDAT") parts.push(new Uint8Array(buffer, at + 8, length));
    at += 12 + length;
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(stream).arrayBuffer());
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) data.set(rows.subarray(y * (width + 1) + 1, (y + 1) * (width + 1)), y * width);
  return { width, height, data };
}

function draw() {
  const { image, ids, width, height, hidden } = state;
  const canvas = $("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const shown = new Map(chosen().classes.filter((row) => !hidden.has(row.name)).map((row) => [row.id, row.color]));
  const opacity = Math.round(255 * $("opacity").value / 100);
  const tint = new ImageData(width, height);
  for (let i = 0; i < ids.length; i++) {
    const color = shown.get(ids[i]);
    if (!color) continue;
    tint.data[4 * i] = color[0];
    tint.data[4 * i + 1] = color[1];
    tint.data[4 * i + 2] = color[2];
    tint.data[4 * i + 3] = opacity;
  }
  const layer = new OffscreenCanvas(width, height);
  layer.getContext("2d").putImageData(tint, 0, 0);
  context.drawImage(layer, 0, 0);
  canvas.hidden = false;
  const words = state.areas.classes.map((row) => `${row.name} ${percent(row.share)}`);
  canvas.setAttribute("aria-label", `Segmented image: ${words.join(", ")}`);
  $("opacity-shown").textContent = `${$("opacity").value} %`;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function showLegend() {
  const rows = [...state.areas.classes].sort((a, b) => b.share - a.share);
  $("legend").replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.id = `class-${row.id}`;
    box.checked = !state.hidden.has(row.name);
    box.addEventListener("change", () => {
      if (box.checked) state.hidden.delete(row.name); else state.hidden.add(row.name);
      draw();
    });
    const name = document.createElement("label");
    name.htmlFor = box.id;
    name.append(chip(row.color), row.name);
    for (const content of [box, name, percent(row.share)]) {
      const cell = document.createElement("td");
      cell.append(content);
      line.append(cell);
    }
    return line;
  }));
  $("panel").hidden = false;
  document.querySelector("main").classList.add("filled");
}

function chip(color) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 18;
  const context = canvas.getContext("2d");
  context.fillStyle = `rgb(${color.map(Number).join(",")})`;
  context.fillRect(0, 0, 18, 18);
  return canvas;
}

function setAll(shown) {
  state.hidden = new Set(shown ? [] : chosen().classes.map((row) => row.name));
  showLegend();
  draw();
}

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = state.file.name.replace(/\.[^.]*$/, "") + ending;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function saveJson() {
  try {
    const model = encodeURIComponent(chosen().name);
    const answer = await ask(`v1/segment?model=${model}&format=rle`, { method: "POST", body: state.file, headers: { "Content-Type": state.file.type || "application/octet-stream" } });
    save(await answer.blob(), ".json");
  } catch (error) {
    say(error.message, true);
  }
}

const again = () => { if (state.file) segment(state.file); };
$("file").addEventListener("change", (event) => { if (event.target.files[0]) segment(event.target.files[0]); event.target.value = ""; });
$("model").addEventListener("change", again);
$("token").addEventListener("change", () => loadModels().then(() => { say("Ready."); again(); }, (error) => say(error.message, true)));
$("opacity").addEventListener("input", draw);
$("all").addEventListener("click", () => setAll(true));
$("none").addEventListener("click", () => setAll(false));
$("save-png").addEventListener("click", () => save(new Blob([state.png], { type: "image/png" }), "-classes.png"));
$("save-picture").addEventListener("click", () => $("canvas").toBlob((blob) => save(blob, "-overlay.png")));
$("save-json").addEventListener("click", saveJson);
document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const file = [...event.dataTransfer.files][0];
  if (file) segment(file); else say("Drop an image file.", true);
});
document.addEventListener("paste", (event) => { const file = [...event.clipboardData.files][0]; if (file) segment(file); });
loadModels().catch((error) => say(error.message, true));
