// What the page asks the server for.

const $ = (id) => document.getElementById(id);

export async function ask(path, options = {}) {
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

export const models = async () => (await (await ask("v1/models")).json()).models;
export const streams = async () => (await (await ask("v1/streams")).json()).streams;

export function post(blob, model, format) {
  const headers = { "Content-Type": blob.type || "application/octet-stream" };
  return ask(`v1/segment?model=${encodeURIComponent(model)}&format=${format}`, { method: "POST", body: blob, headers });
}

// {model, png, ids, width, height}: the class map of an image, as a PNG and as an id for each pixel.
export async function segment(blob, model) {
  const png = await (await post(blob, model.name, "png")).arrayBuffer();
  return { model, png, ...await decode(png) };
}

// {width, height, ids} of a PNG with a palette of 8 bits and without filters, as the server writes it: browsers give
// colors only.
export async function decode(buffer) {
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
  const ids = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) ids.set(rows.subarray(y * (width + 1) + 1, (y + 1) * (width + 1)), y * width);
  return { width, height, ids };
}

// How sure the model is of each pixel, 0 to 255.
export async function confidence(blob, model) {
  const image = await createImageBitmap(await (await post(blob, model.name, "confidence")).blob());
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  return Uint8Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]);
}
