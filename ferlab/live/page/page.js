"use strict";
// The page of the live demo. It shows the camera, a picture or a video, sends frames to the server,
// one at a time, and draws the faces of each answer over the newest frame.

const STREAM_SIDE = 640;   // largest width of a frame that is sent, pixels
const PICTURE_SIDE = 2000; // largest side of a picture that is sent, pixels
const QUALITY = 0.85;      // of JPEG frames
const CSV_ROWS = 200000;   // kept in memory; the oldest are dropped
const RECONNECT_MS = [500, 1000, 2000, 5000];

const $ = (id) => document.getElementById(id);
const video = $("video"), image = $("image"), overlay = $("overlay"), stage = $("stage");
const scratch = document.createElement("canvas");

let settings = null;       // the server's first message: class names, colours, threshold
let source = null;         // {kind, media}: what is shown
let socket = null;         // the connection for the source
let sent = null;           // {at, width, height}: the frame whose answer has not come
let answer = null;         // the newest answer
let answers = [];          // times of the answers of the last two seconds
let rows = [];             // rows of the CSV
let frames = 0, lastTime = -1, attempts = 0, waiting = false;
let stops = 0;             // calls of stop: a source that opens after a later one is dropped

function say(text, fault = false) {
  $("status").textContent = text;
  $("status").classList.toggle("fault", fault);
}

// -- the connection -------------------------------------------------------------------------

function address(kind) {
  const url = new URL("faces", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.search = location.search; // has the token
  url.searchParams.set("kind", kind);
  return url;
}

function connect() {
  const mine = new WebSocket(address(source ? source.kind : "camera"));
  mine.binaryType = "arraybuffer";
  if (socket) socket.close();
  socket = mine;
  sent = null; lastTime = -1;
  mine.onmessage = (event) => { if (mine === socket) receive(JSON.parse(event.data)); };
  mine.onclose = (event) => {
    if (mine !== socket) return;
    socket = sent = null;
    if (event.code === 1008) return; // the server said why
    const wait = RECONNECT_MS[Math.min(attempts++, RECONNECT_MS.length - 1)];
    answer = null; draw();
    say("The connection to the server is lost; connecting again.", true);
    setTimeout(() => { if (!socket) connect(); }, wait);
  };
}

function receive(message) {
  if (message.error) {
    answer = null; draw();
    say(message.error, true);
    return;
  }
  if (message.class_names) {
    settings = message; attempts = 0;
    $("threshold").textContent = `${Math.round(100 * settings.min_confidence)} %`;
    $("model").textContent = `Model: ${settings.model}`;
    say(source ? "Connected." : "Connected. Nothing is sent yet.");
    sendNext();
    return;
  }
  if (!source || !sent) return; // stopped while the answer was on its way
  const now = performance.now();
  answer = { ...message, sent };
  answers.push(now);
  answers = answers.filter((at) => now - at < 2000);
  if (source.kind !== "image") {
    const span = (now - answers[0]) / 1000;
    const rate = span > 0 ? `${((answers.length - 1) / span).toFixed(0)} results/s` : "";
    $("speed").textContent = `${rate}  ${(now - sent.at).toFixed(0)} ms`;
  }
  sent = null;
  record(message);
  describe(message.faces);
  draw();
  sendNext();
}

// -- frames -----------------------------------------------------------------------------------

function sendNext() {
  if (!source || !settings || sent || waiting || !socket || socket.readyState !== 1) return;
  if (source.kind === "image") {
    if (lastTime < 0) send();
    return;
  }
  waiting = true;
  const ready = () => { waiting = false; send(); };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(ready);
  else requestAnimationFrame(ready);
}

function send() {
  if (!source || sent || !socket || socket.readyState !== 1) return;
  const { kind, media } = source;
  const [width, height] = size(media);
  const time = kind === "camera" ? performance.now() / 1000 : kind === "image" ? 0 : media.currentTime;
  if (!width || time <= lastTime) {
    if (width && time < lastTime) connect(); // the video was moved back or repeats: new tracks
    else setTimeout(sendNext, 15);
    return;
  }
  const limit = kind === "image" ? PICTURE_SIDE / Math.max(width, height) : STREAM_SIDE / width;
  const scale = Math.min(1, limit);
  scratch.width = Math.max(1, Math.round(width * scale));
  scratch.height = Math.max(1, Math.round(height * scale));
  scratch.getContext("2d").drawImage(media, 0, 0, scratch.width, scratch.height);
  const mine = socket;
  sent = { at: performance.now(), width: scratch.width, height: scratch.height };
  lastTime = time;
  scratch.toBlob(async (blob) => {
    const bytes = new Uint8Array(8 + blob.size);
    new DataView(bytes.buffer).setFloat64(0, time, true);
    bytes.set(new Uint8Array(await blob.arrayBuffer()), 8);
    if (mine === socket && source && mine.readyState === 1) mine.send(bytes);
  }, "image/jpeg", QUALITY);
}

function size(media) {
  return media === video ? [video.videoWidth, video.videoHeight]
    : [image.naturalWidth, image.naturalHeight];
}

// -- sources ----------------------------------------------------------------------------------

function stop() {
  stops += 1;
  if (video.srcObject) release(video.srcObject);
  for (const media of [video, image]) {
    if (media.src.startsWith("blob:")) URL.revokeObjectURL(media.src);
    media.hidden = true;
  }
  video.pause();
  video.srcObject = null;
  video.removeAttribute("src");
  source = answer = null; answers = [];
  $("stop").disabled = true;
  $("hint").hidden = false;
  $("speed").textContent = $("faces").textContent = "";
  draw();
}

function release(stream) {
  for (const track of stream.getTracks()) track.stop();
}

function start(kind, media) {
  source = { kind, media };
  const [width, height] = size(media);
  stage.style.setProperty("--ratio", width / height);
  media.hidden = false;
  $("hint").hidden = true;
  $("stop").disabled = false;
  setMirror(kind === "camera");
  rows = []; frames = 0;
  $("csv").disabled = true;
  say("Waiting for the first result.");
  connect();
}

async function startCamera() {
  stop();
  if (!navigator.mediaDevices) {
    say("Browsers give a camera only to https pages and to localhost. Open the page as localhost, "
      + "or start the server with --certificate and --key. Pictures and videos work here.", true);
    return;
  }
  say("The browser asks for the camera.");
  const mine = stops;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 720 } },
    });
    if (mine !== stops) return release(stream);
    video.srcObject = stream;
    await video.play();
    if (mine !== stops) return;
  } catch (error) {
    if (mine !== stops) return;
    const reasons = {
      NotAllowedError: "The camera is denied. Allow it in the browser's address bar, then press Camera.",
      NotFoundError: "There is no camera. Connect one, then press Camera, or choose a picture.",
      NotReadableError: "Another program uses the camera. Close it, then press Camera.",
    };
    stop();
    say(reasons[error.name] || `The camera does not start: ${error.message}`, true);
    return;
  }
  video.srcObject.getVideoTracks()[0].onended = () => {
    stop();
    say("The camera was disconnected.", true);
  };
  start("camera", video);
}

async function startFile(file) {
  if (!file) return;
  stop();
  const mine = stops, isVideo = file.type.startsWith("video/");
  const media = isVideo ? video : image;
  media.src = URL.createObjectURL(file);
  try {
    if (isVideo) await video.play();
    else await image.decode();
  } catch {
    if (mine !== stops) return;
    stop();
    say(`This browser cannot show ${file.name}: it is no picture or video that it knows.`, true);
    return;
  }
  if (mine === stops) start(isVideo ? "video" : "image", media);
}

// -- what is shown ------------------------------------------------------------------------------

function setMirror(on) {
  $("mirror").setAttribute("aria-pressed", on);
  for (const media of [video, image]) media.classList.toggle("mirrored", on);
  draw();
}

const pressed = (id) => $(id).getAttribute("aria-pressed") === "true";

function describe(faces) {
  if (!faces.length) say("There is no face in the image.");
  else say(faces.length === 1 ? "1 face" : `${faces.length} faces`);
  $("faces").textContent = faces.map(text).join(", ");
}

function text(face) {
  const sure = face.expression !== settings.unsure;
  return `${face.id} ${face.expression}` + (sure ? ` ${Math.round(100 * face.confidence)} %` : "?");
}

function colour(name) {
  return settings.colours[settings.class_names.indexOf(name)] || "#bebebe";
}

function draw() {
  const density = window.devicePixelRatio || 1;
  overlay.width = overlay.clientWidth * density;
  overlay.height = overlay.clientHeight * density;
  if (!answer) return;
  const context = overlay.getContext("2d");
  context.scale(density, density);
  const ratio = overlay.clientWidth / answer.sent.width;
  const shown = answer.faces.map((face) => {
    let [x, y, w, h] = face.box.map((number) => number * ratio);
    if (pressed("mirror")) x = overlay.clientWidth - x - w;
    return { face, x, y, w, h };
  });
  const boxes = shown.map(({ x, y, w, h }) => [x, y, w, h]), labels = [];
  for (const { face, x, y, w, h } of shown) {
    context.lineWidth = 5; context.strokeStyle = "#141414"; context.strokeRect(x, y, w, h);
    context.lineWidth = 2.5; context.strokeStyle = colour(face.expression);
    context.strokeRect(x, y, w, h);
    labels.push(label(context, face, x, y, w, h, labels));
  }
  if (!pressed("bars")) return;
  const taken = [...boxes, ...labels];
  for (const { face, x, y, w, h } of shown) {
    const area = bars(context, face, x, y, w, h, taken);
    if (area) taken.push(area);
  }
}

// Draws a face's label above, below or in its box, where it covers no other label.
function label(context, face, x, y, w, h, labels) {
  const size = Math.min(20, Math.max(13, w / 9));
  context.font = `600 ${size}px system-ui, Arial, sans-serif`;
  const width = context.measureText(text(face)).width + size, height = 1.6 * size;
  const left = Math.max(0, Math.min(x - 1, overlay.clientWidth - width));
  const spots = [y - height, y + h, y].filter((up) => up >= 0 && up + height <= overlay.clientHeight);
  const free = spots.find((up) => !labels.some((other) => overlaps([left, up, width, height], other)));
  const top = free ?? spots[0] ?? 0;
  context.fillStyle = colour(face.expression);
  context.fillRect(left, top, width, height);
  context.fillStyle = "#141414";
  context.textBaseline = "middle";
  context.fillText(text(face), left + size / 2, top + height / 2);
  return [left, top, width, height];
}

function overlaps(a, b) {
  return a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3];
}

// Draws a face's probabilities beside or below its box; nothing where there is no room.
function bars(context, face, x, y, w, h, taken) {
  const names = settings.class_names;
  const row = Math.min(24, Math.max(13, h / names.length)), size = 0.68 * row;
  context.font = `${size}px system-ui, Arial, sans-serif`;
  const column = Math.max(...names.map((name) => context.measureText(name).width));
  const length = 4 * row, width = column + length + 1.5 * row, height = names.length * row + 8;
  const top = Math.max(0, Math.min(y, overlay.clientHeight - height));
  const spots = [[x + w + 6, top], [x - width - 6, top], [x, y + h + 6], [x, y + h + 6 + 2 * row]];
  const area = spots.map(([left, up]) => [left, up, width, height]).find((spot) =>
    spot[0] >= 0 && spot[1] >= 0 && spot[0] + width <= overlay.clientWidth
    && spot[1] + height <= overlay.clientHeight && !taken.some((other) => overlaps(spot, other)));
  if (!area) return null;
  context.fillStyle = "rgba(0, 0, 0, 0.65)";
  context.fillRect(...area);
  context.textBaseline = "middle";
  const best = Math.max(...face.probs);
  names.forEach((name, index) => {
    const middle = area[1] + 4 + (index + 0.5) * row;
    context.fillStyle = face.probs[index] === best ? "#ffffff" : "#c8c8c8";
    context.fillText(name, area[0] + row / 2, middle);
    context.fillStyle = settings.colours[index];
    context.fillRect(area[0] + column + row, middle - 0.32 * row,
      Math.max(1, length * face.probs[index]), 0.64 * row);
  });
  return area;
}

// -- the CSV ------------------------------------------------------------------------------------

function record(message) {
  const scale = size(source.media)[0] / answer.sent.width;
  for (const face of message.faces.filter((each) => each.found)) {
    rows.push([frames, message.time_s.toFixed(3), face.id,
      ...face.box.map((number) => Math.round(number * scale)), face.expression,
      face.confidence.toFixed(4), ...face.probs.map((prob) => prob.toFixed(4))].join(","));
  }
  if (rows.length > CSV_ROWS) rows = rows.slice(-CSV_ROWS);
  frames += 1;
  $("csv").disabled = rows.length === 0;
}

function download() {
  const columns = ["frame", "time_s", "face_id", "x", "y", "w", "h", "expression", "confidence"];
  const lines = [[...columns, ...settings.class_names].join(","), ...rows, ""];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n")], { type: "text/csv" }));
  link.download = "faces.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

// -- controls -----------------------------------------------------------------------------------

$("camera").onclick = startCamera;
$("open").onclick = () => $("file").click();
$("file").onchange = () => { startFile($("file").files[0]); $("file").value = ""; };
$("stop").onclick = () => { stop(); say("Stopped. Nothing is sent."); };
$("mirror").onclick = () => setMirror(!pressed("mirror"));
$("bars").onclick = () => { $("bars").setAttribute("aria-pressed", !pressed("bars")); draw(); };
$("csv").onclick = download;
window.onresize = draw;
document.ondragover = (event) => { event.preventDefault(); stage.classList.add("drop"); };
document.ondragleave = () => stage.classList.remove("drop");
document.ondrop = (event) => {
  event.preventDefault();
  stage.classList.remove("drop");
  startFile(event.dataTransfer.files[0]);
};
connect();
