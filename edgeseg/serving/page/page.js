// The page of edgeseg serve: images and frames go to /v1/segment, class maps come back and are drawn over them.
// Names of files, classes and streams come from strangers: they become text only (textContent), never markup.
import { confidence, decode, models, post, segment, streams } from "./api.js";
import { draw, showLegend } from "./view.js";
import { CLIP_FPS, clip, webcam } from "./video.js";

const $ = (id) => document.getElementById(id);
// shot: {name, blob, image, results} that is shown; frames: those of a clip, each {blob, pngs};
// run: a number that everything started before compares, to see whether something else was started since.
const state = { models: [], shot: null, frames: [], hidden: new Set(), run: 0, playing: 0 };

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

function fill(select, names, first) {
  const before = select.value;
  select.replaceChildren(...(first ? [["", first]] : []).concat(names.map((name) => [name, name])).map(([value, text]) => {
    const option = document.createElement("option");
    [option.value, option.textContent] = [value, text];
    return option;
  }));
  if ([...select.options].some((option) => option.value === before)) select.value = before;
}

async function load() {
  state.models = await models();
  const names = state.models.map((model) => model.name);
  fill($("model"), names);
  fill($("compare"), names, "nothing");
  $("compare-label").hidden = names.length < 2;
  state.streams = await streams();
  fill($("live"), state.streams.map((stream) => stream.name), "off");
  $("live-label").hidden = !state.streams.length;
}

const named = (name) => state.models.find((model) => model.name === name);
const chosen = () => [named($("model").value), named($("compare").value)].filter(Boolean);
const wantsConfidence = () => document.querySelector("[name=view]:checked").value === "confidence";

// The shot of an image or frame through every chosen model.
async function take(blob, name) {
  if (!state.models.length) await load();
  const image = await createImageBitmap(blob).catch(() => { throw new Error(`${name} is no image that this browser can show.`); });
  const results = [];
  for (const model of chosen()) {
    const result = await segment(blob, model);
    if (wantsConfidence()) result.sure = await confidence(blob, model);
    results.push(result);
  }
  if (results[0].width !== image.width || results[0].height !== image.height) throw new Error("The class map has another size than the image.");
  return { name, blob, image, results };
}

function show(shot) {
  state.shot = shot;
  const names = shot.results.map((result) => result.model.name);
  $("split-label").hidden = names.length < 2;
  [$("left-name").textContent, $("right-name").textContent] = [names[0], names[1] || ""];
  $("invitation").hidden = true;
  showLegend(shot, state.hidden, redraw);
  redraw();
}

function redraw() {
  if (state.shot) draw(state.shot, state.hidden);
}

// Everything that goes on ends, and the number of what starts now comes back.
function begin() {
  clearTimeout(state.playing);
  state.playing = 0;
  state.frames = [];
  $("play").textContent = "Play";
  $("player").hidden = true;
  $("webcam").setAttribute("aria-pressed", "false");
  $("stream").removeAttribute("src");
  $("stream").hidden = true;
  $("live").value = "";
  return ++state.run;
}

async function guarded(run, work) {
  try {
    await work();
  } catch (error) {
    if (run === state.run) say(error.message, true);
  }
}

const open = (file) => file.type.startsWith("video/") ? openClip(file) : openImage(file);

function openImage(file) {
  const run = begin();
  return guarded(run, async () => {
    say(`Segmenting ${file.name} ...`);
    const began = performance.now();
    const shot = await take(file, file.name);
    if (run !== state.run) return; // another image was chosen meanwhile
    show(shot);
    const { width, height } = shot.image;
    say(`${file.name}: ${width}x${height}, ${Math.round(performance.now() - began)} ms with the way to the server and back.`);
  });
}

function openClip(file) {
  const run = begin();
  return guarded(run, async () => {
    say(`Reading ${file.name} ...`);
    const going = () => run === state.run && !state.stopped;
    state.stopped = false;
    await clip(file, going, async (blob, index, count) => {
      const shot = await take(blob, file.name);
      if (!going()) return;
      state.frames.push({ blob, models: shot.results.map((result) => result.model), pngs: shot.results.map((result) => result.png) });
      show(shot);
      showFrame(index);
      $("player").hidden = $("stop").hidden = false;
      say(`${file.name}: frame ${index + 1} of ${count} ...`);
    });
    if (run !== state.run) return;
    $("stop").hidden = true;
    say(`${file.name}: ${state.frames.length} frames, ${CLIP_FPS} of each second. Play shows them again.`);
  });
}

function showFrame(index) {
  $("frame").max = state.frames.length - 1;
  $("frame").value = index;
  $("frame-shown").textContent = `${index + 1} of ${state.frames.length}`;
}

async function seek(index) {
  const { run } = state;
  const { blob, models: used, pngs } = state.frames[index];
  const image = await createImageBitmap(blob);
  const results = await Promise.all(pngs.map(async (png, i) => ({ model: used[i], png, ...await decode(png) })));
  if (wantsConfidence()) for (const result of results) result.sure = await confidence(blob, result.model);
  if (run !== state.run) return;
  show({ name: state.shot.name, blob, image, results });
  showFrame(index);
}

function play() {
  if (state.playing) {
    clearTimeout(state.playing);
    state.playing = 0;
    $("play").textContent = "Play";
    return;
  }
  if (!state.frames.length) return;
  let index = Number($("frame").value) >= state.frames.length - 1 ? 0 : Number($("frame").value);
  $("play").textContent = "Pause";
  const step = async () => {
    await seek(index);
    if (!state.playing) return;
    if (++index >= state.frames.length) play(); else state.playing = setTimeout(step, 1000 / CLIP_FPS);
  };
  state.playing = setTimeout(step, 0);
}

function toggleWebcam() {
  const on = $("webcam").getAttribute("aria-pressed") === "true";
  const run = begin();
  if (on) { say("The webcam is off."); return undefined; }
  $("webcam").setAttribute("aria-pressed", "true");
  return guarded(run, async () => {
    let before = performance.now();
    try {
      await webcam(() => run === state.run, async (blob) => {
        const shot = await take(blob, "webcam.jpg");
        if (run !== state.run) return;
        show(shot);
        const now = performance.now();
        say(`Webcam: ${(1000 / (now - before)).toFixed(1)} frames a second.`);
        before = now;
      });
    } finally {
      if (run === state.run) $("webcam").setAttribute("aria-pressed", "false");
    }
  });
}

function showLive() {
  const name = $("live").value;
  begin();
  const stream = state.streams.find((one) => one.name === name);
  $("canvas").hidden = Boolean(stream) || !state.shot;
  if (!stream) { say("The live view is off."); return; }
  $("live").value = name;
  $("invitation").hidden = true;
  $("stream").alt = `Live view of ${stream.name}`;
  $("stream").hidden = false;
  $("stream").src = stream.url;
  say(`Live: ${stream.name}`);
}

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = state.shot.name.replace(/\.[^.]*$/, "") + ending;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function saveJson() {
  const { shot } = state;
  await guarded(state.run, async () => save(await (await post(shot.blob, shot.results[0].model.name, "rle")).blob(), ".json"));
}

// The image that is shown, again: other models, or another view of it.
async function again() {
  const { shot, run } = state;
  if (!shot || $("webcam").getAttribute("aria-pressed") === "true") return;
  await guarded(run, async () => {
    if (wantsConfidence() || chosen().some((model, i) => shot.results[i]?.model !== model) || chosen().length !== shot.results.length) {
      const fresh = await take(shot.blob, shot.name);
      if (run === state.run && state.shot === shot) show(fresh);
    } else {
      for (const result of shot.results) delete result.sure;
      redraw();
    }
  });
}

function setAll(shown) {
  const names = state.shot.results.flatMap((result) => result.model.classes.map((row) => row.name));
  state.hidden = new Set(shown ? [] : names);
  showLegend(state.shot, state.hidden, redraw);
  redraw();
}

function dragSplit(event) {
  if (state.shot?.results.length !== 2 || !event.buttons) return;
  const box = $("canvas").getBoundingClientRect();
  $("split").value = 100 * (event.clientX - box.left) / box.width;
  redraw();
}

const on = (id, kind, work) => $(id).addEventListener(kind, work);
on("file", "change", (event) => { if (event.target.files[0]) open(event.target.files[0]); event.target.value = ""; });
on("model", "change", again);
on("compare", "change", again);
on("token", "change", () => load().then(() => { say("Ready."); again(); }, (error) => say(error.message, true)));
on("opacity", "input", redraw);
on("split", "input", redraw);
on("canvas", "pointerdown", dragSplit);
on("canvas", "pointermove", dragSplit);
on("webcam", "click", toggleWebcam);
on("live", "change", showLive);
on("stream", "error", () => { if ($("stream").hasAttribute("src")) say("The live stream cannot be shown: it does not run, or does not allow this page.", true); });
on("play", "click", play);
on("stop", "click", () => { state.stopped = true; });
on("frame", "input", (event) => { if (state.playing) play(); seek(Number(event.target.value)); });
on("all", "click", () => setAll(true));
on("none", "click", () => setAll(false));
on("save-png", "click", () => save(new Blob([state.shot.results[0].png], { type: "image/png" }), "-classes.png"));
on("save-picture", "click", () => $("canvas").toBlob((blob) => save(blob, "-overlay.png")));
on("save-json", "click", saveJson);
for (const radio of document.querySelectorAll("[name=view]")) radio.addEventListener("change", again);
document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const file = [...event.dataTransfer.files][0];
  if (file) open(file); else say("Drop an image or a clip.", true);
});
document.addEventListener("paste", (event) => { const file = [...event.clipboardData.files][0]; if (file) open(file); });
load().catch((error) => say(error.message, true));
