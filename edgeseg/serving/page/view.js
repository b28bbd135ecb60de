// The picture: an image with the classes of one model over it, or of two, left and right of a line.

const $ = (id) => document.getElementById(id);
const UNSURE = [220, 30, 30];

// shot: {image, results: [{model, ids, width, height, sure}]}; hidden: names of classes that are not shown.
export function draw(shot, hidden) {
  const canvas = $("canvas");
  const { image, results } = shot;
  const { width, height } = results[0];
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  const line = results.length > 1 ? Math.round(width * $("split").value / 100) : width;
  part(context, tint(results[0], hidden), 0, line);
  if (results.length > 1) {
    part(context, tint(results[1], hidden), line, width);
    context.fillStyle = "#fff";
    context.fillRect(line - 1, 0, Math.max(2, width / 400), height);
  }
  canvas.hidden = false;
  $("opacity-shown").textContent = `${$("opacity").value} %`;
}

function part(context, layer, from, to) {
  if (to > from) context.drawImage(layer, from, 0, to - from, layer.height, from, 0, to - from, layer.height);
}

// The colors of a class map, or red where the model is unsure, as a layer to draw over the image.
function tint({ model, ids, width, height, sure }, hidden) {
  const opacity = $("opacity").value / 100;
  const pixels = new Uint32Array(ids.length); // 0xAABBGGRR: browsers run on little-endian machines
  const rgba = ([red, green, blue], alpha) => (Math.round(alpha) << 24 | blue << 16 | green << 8 | red) >>> 0;
  const colors = new Uint32Array(256);
  if (sure) {
    for (let i = 0; i < 256; i++) colors[i] = rgba(UNSURE, opacity * (255 - i));
  } else {
    for (const row of model.classes) if (!hidden.has(row.name)) colors[row.id] = rgba(row.color, opacity * 255);
  }
  const values = sure || ids;
  for (let i = 0; i < values.length; i++) pixels[i] = colors[values[i]];
  const layer = new OffscreenCanvas(width, height);
  layer.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  return layer;
}

// [{id, name, color, share}] of a class map, the largest first.
export function areas({ model, ids }) {
  const counts = new Map();
  for (const id of ids) counts.set(id, (counts.get(id) || 0) + 1);
  return model.classes.map((row) => ({ ...row, share: (counts.get(row.id) || 0) / ids.length }))
    .filter((row) => row.share > 0).sort((a, b) => b.share - a.share);
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

export function showLegend(shot, hidden, changed) {
  const [first, second] = shot.results.map(areas);
  const other = new Map((second || []).map((row) => [row.name, row.share]));
  const missing = (second || []).filter((row) => !first.some((known) => known.name === row.name));
  const focused = document.activeElement && document.activeElement.id;
  $("legend").replaceChildren(...[...first, ...missing.map((row) => ({ ...row, share: 0 }))].map((row, i) => {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.id = `class-${i}`;
    box.checked = !hidden.has(row.name);
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(row.name); else hidden.add(row.name);
      changed();
    });
    const name = document.createElement("label");
    name.htmlFor = box.id;
    name.append(chip(row.color), row.name);
    const area = percent(row.share) + (second ? ` | ${percent(other.get(row.name) || 0)}` : "");
    const line = document.createElement("tr");
    for (const content of [box, name, area]) {
      const cell = document.createElement("td");
      cell.append(content);
      line.append(cell);
    }
    return line;
  }));
  if (focused && focused.startsWith("class-") && $(focused)) $(focused).focus();
  $("canvas").setAttribute("aria-label", `Segmented image: ${first.map((row) => `${row.name} ${percent(row.share)}`).join(", ")}`);
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
