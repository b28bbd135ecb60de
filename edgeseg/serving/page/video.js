// Frames of a clip or a webcam as JPEG, one after another: the next one is taken when the one before has its answer.

export const CLIP_FPS = 5; // frames of a clip that are segmented
export const MOST_FRAMES = 600; // whose JPEG and class map are kept to play them
const WIDEST = 960; // pixels; larger frames are made smaller before they are sent
const QUALITY = 0.9;

async function picture(video) {
  const scale = Math.min(1, WIDEST / video.videoWidth);
  const canvas = new OffscreenCanvas(Math.round(video.videoWidth * scale), Math.round(video.videoHeight * scale));
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
}

const event = (target, name, failed) => new Promise((resolve, reject) => {
  target.addEventListener(name, resolve, { once: true });
  target.addEventListener("error", () => reject(new Error(failed)), { once: true });
});

// each(jpeg, index, count) for every frame; ends early once going() is false.
export async function clip(file, going, each) {
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  video.preload = "auto";
  const loaded = event(video, "loadeddata", `${file.name} is no image or clip that this browser can show.`);
  video.src = URL.createObjectURL(file);
  try {
    await loaded;
    if (!Number.isFinite(video.duration)) await toTheEnd(video); // files of recorders do not say
    const count = Math.max(1, Math.min(MOST_FRAMES, Math.floor(video.duration * CLIP_FPS)));
    for (let i = 0; i < count && going(); i++) {
      const sought = event(video, "seeked", `${file.name} cannot be read further.`);
      video.currentTime = (i + 0.5) * Math.min(1 / CLIP_FPS, video.duration / count);
      await sought;
      await each(await picture(video), i, count);
    }
  } finally {
    URL.revokeObjectURL(video.src);
    video.removeAttribute("src");
  }
}

async function toTheEnd(video) {
  const known = event(video, "durationchange", "The clip cannot be read.");
  video.currentTime = 1e9;
  await known;
}

// each(jpeg) while going(); the camera is released at the end, whatever happens.
export async function webcam(going, each) {
  if (!navigator.mediaDevices) throw new Error("Browsers give a webcam to pages of https:// or of localhost only.");
  const wanted = { video: { facingMode: "environment", width: { ideal: 1280 } } };
  const media = await navigator.mediaDevices.getUserMedia(wanted).catch((error) => {
    throw new Error(`There is no webcam for this page: ${error.message}.`);
  });
  const video = document.createElement("video");
  try {
    video.muted = video.playsInline = true;
    video.srcObject = media;
    await video.play();
    while (going()) await each(await picture(video));
  } finally {
    for (const track of media.getTracks()) track.stop();
  }
}
