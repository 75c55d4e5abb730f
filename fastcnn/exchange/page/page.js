// The page: a board to draw on, the probabilities, and the maps of each layer.

const MOST_MAPS = 64; // of a layer
const MOST_OPEN = 12; // layers whose maps are shown at first
const MOST_BARS = 12; // classes that are shown in their order; of more, the likeliest
const MOST_PIXELS = 50000000;
const MOST_CANVAS = 4096; // the side of a picture that every browser's canvas holds
const CHECK = 2000; // milliseconds for the comparison with Python
const BOARD = 196; // pixels of its longer side, about, because more take longer to prepare
const SLOW = 50; // milliseconds of one update
const WARM = 20; // milliseconds of an update whose functions the browser has compiled
const MOST_WARMING = 1000; // milliseconds for them at most

const net = await readNet(JSON.parse(document.getElementById("net").textContent));
const [HEIGHT, WIDTH, CHANNELS] = net.input;
const isTurned = Boolean(net.preparation && net.preparation.transposed);
const element = (id) => document.getElementById(id);
const [board, seen] = [element("board"), element("seen")];
const pen = board.getContext("2d", { willReadFrequently: true });

const state = {
  picture: null, // RGBA pixels of an opened picture, until somebody draws on it
  sample: null, // bytes of a chosen sample, likewise
  isEmpty: true,
  isDown: false,
  isWaiting: false,
  last: null, // the pen's position
  milliseconds: 0,
};

function make(kind, className, text = "") {
  const result = document.createElement(kind);
  if (className) result.className = className;
  result.textContent = text;
  return result;
}

// --- the board ---------------------------------------------------------------------------------

// Sides for people, who see a transposed net's images upright.
const [UPRIGHT_HEIGHT, UPRIGHT_WIDTH] = isTurned ? [WIDTH, HEIGHT] : [HEIGHT, WIDTH];

function prepareBoard() {
  const scale = Math.max(1, Math.round(BOARD / Math.max(HEIGHT, WIDTH)));
  board.width = scale * UPRIGHT_WIDTH;
  board.height = scale * UPRIGHT_HEIGHT;
  element("colour-label").hidden = CHANNELS === 1;
  clear();
}

function clear() {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, board.width, board.height);
  Object.assign(state, { picture: null, sample: null, isEmpty: true, isDown: false });
  element("cursor").classList.remove("down");
  update();
}

function penColour() {
  if (CHANNELS > 1) return element("colour").value;
  const { data } = pen.getImageData(0, 0, 1, 1);
  return data[0] + data[1] + data[2] < 382 ? "white" : "black"; // of a chosen sample the paper is dark
}

function drawTo(x, y) {
  const [fromX, fromY] = state.last ?? [x, y];
  pen.strokeStyle = penColour();
  pen.lineWidth = (element("pen").valueAsNumber / 100) * board.width;
  pen.lineCap = "round";
  pen.beginPath();
  pen.moveTo(fromX, fromY);
  pen.lineTo(x, y);
  pen.stroke();
  Object.assign(state, { last: [x, y], picture: null, sample: null, isEmpty: false });
  askForUpdate();
}

function positionOf(event) {
  const box = board.getBoundingClientRect();
  return [
    ((event.clientX - box.left) / box.width) * board.width,
    ((event.clientY - box.top) / box.height) * board.height,
  ];
}

board.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  board.setPointerCapture(event.pointerId);
  element("cursor").hidden = true;
  Object.assign(state, { isDown: true, last: null });
  drawTo(...positionOf(event));
});

board.addEventListener("pointermove", (event) => {
  if (!state.isDown || !event.isPrimary || event.buttons === 0) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const one of events.length ? events : [event]) drawTo(...positionOf(one));
});

for (const name of ["pointerup", "pointercancel"]) {
  board.addEventListener(name, () => {
    Object.assign(state, { isDown: false, last: null });
    askForUpdate();
  });
}

// The keyboard moves a cursor; Space lowers and lifts the pen.
const STEPS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

board.addEventListener("keydown", (event) => {
  const cursor = element("cursor");
  const [x, y] = state.last ?? [board.width / 2, board.height / 2];
  if (event.key in STEPS) {
    const size = board.width / 28;
    const next = [
      Math.min(Math.max(x + STEPS[event.key][0] * size, 0), board.width),
      Math.min(Math.max(y + STEPS[event.key][1] * size, 0), board.height),
    ];
    if (state.isDown) drawTo(...next);
    state.last = next;
  } else if (event.key === " ") {
    state.isDown = !state.isDown;
    if (state.isDown) drawTo(x, y);
    else askForUpdate();
  } else if (event.key === "Delete" || event.key === "Backspace") {
    clear();
  } else {
    return;
  }
  event.preventDefault();
  const [left, top] = state.last ?? [x, y];
  cursor.hidden = false;
  cursor.classList.toggle("down", state.isDown);
  cursor.style.left = `${(100 * left) / board.width}%`;
  cursor.style.top = `${(100 * top) / board.height}%`;
});

board.addEventListener("blur", () => {
  element("cursor").hidden = true;
  state.isDown = false;
});

element("clear").addEventListener("click", clear);

// --- pictures and samples ----------------------------------------------------------------------

async function open(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return complain("This file is no picture that the browser can read.");
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    return complain(`The picture has more than ${counted(MOST_PIXELS)} pixels.`);
  }
  const share = Math.min(1, MOST_CANVAS / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * share));
  canvas.height = Math.max(1, Math.round(height * share));
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  clear();
  const fit = Math.min(board.width / width, board.height / height);
  const [left, top] = [(board.width - fit * width) / 2, (board.height - fit * height) / 2];
  pen.drawImage(bitmap, left, top, fit * width, fit * height);
  state.picture = context.getImageData(0, 0, canvas.width, canvas.height);
  state.isEmpty = false;
  return update();
}

element("file").addEventListener("change", (event) => {
  if (event.target.files.length) open(event.target.files[0]);
  event.target.value = "";
});

for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  });
}

// Bytes (H, W, C) of the net's input on a canvas, upright.
function paint(canvas, bytes) {
  let image = picture(HEIGHT, WIDTH, CHANNELS, bytes);
  if (isTurned) image = transposed(image);
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(image.width, image.height);
  for (let i = 0; i < image.width * image.height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = image.data[i * CHANNELS + (c % CHANNELS)];
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

function showSamples() {
  const { samples } = net;
  if (!samples.shown) return;
  const size = product(net.input);
  for (let i = 0; i < samples.count; i++) {
    const bytes = samples.pixels.subarray(i * size, (i + 1) * size);
    const button = make("button");
    const canvas = make("canvas");
    button.type = "button";
    button.setAttribute("aria-label", `Sample ${i + 1}`);
    paint(canvas, bytes);
    button.append(canvas);
    button.addEventListener("click", () => {
      clear();
      pen.imageSmoothingEnabled = false;
      pen.drawImage(canvas, 0, 0, board.width, board.height);
      pen.imageSmoothingEnabled = true;
      Object.assign(state, { sample: bytes, isEmpty: false });
      update();
    });
    element("samples").append(button);
  }
}

// --- results -----------------------------------------------------------------------------------

function complain(text) {
  element("answer").textContent = text;
}

function askForUpdate() {
  if (state.isWaiting) return;
  state.isWaiting = true;
  const now = () => {
    state.isWaiting = false;
    update();
  };
  // A slow net leaves the browser as much time as it takes, so that the pen can move.
  if (state.milliseconds < SLOW) requestAnimationFrame(now);
  else setTimeout(now, state.milliseconds);
}

// What the net gets: a sample's bytes, or the prepared picture or drawing; null for nothing.
function inputOfNet() {
  if (state.isEmpty) return { pixels: null, steps: [] };
  if (state.sample) return { pixels: state.sample, steps: ["a sample, as it is"] };
  const image = state.picture ?? pen.getImageData(0, 0, board.width, board.height);
  try {
    return prepare(image, net.input, net.preparation);
  } catch (error) {
    return { pixels: null, steps: [error.message] };
  }
}

function update() {
  const start = performance.now();
  const { pixels, steps } = inputOfNet();
  element("steps").replaceChildren(...steps.map((step) => make("li", "", step)));
  paint(seen, pixels ?? new Uint8Array(product(net.input)));
  if (pixels === null) {
    showProbabilities(null);
    showLayers(null);
  } else {
    const values = forward(net, pixels);
    showProbabilities(probabilitiesOf(values[net.output]).data);
    showLayers(values);
  }
  state.milliseconds = performance.now() - start;
  document.documentElement.dataset.milliseconds = state.milliseconds;
}

function showProbabilities(probabilities) {
  const bars = element("bars");
  if (probabilities === null) {
    bars.replaceChildren();
    complain("Nothing is drawn yet.");
    document.documentElement.dataset.class = "";
    return;
  }
  const order = Array.from(probabilities.keys());
  const best = order.reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));
  if (order.length > MOST_BARS) order.sort((a, b) => probabilities[b] - probabilities[a]).splice(MOST_BARS);
  const rows = order.map((index) => {
    const row = make("li", index === best ? "best" : "");
    const bar = make("span", "bar");
    const track = make("span", "track");
    bar.style.width = `${100 * probabilities[index]}%`;
    track.append(bar);
    const number = make("span", "number", percent(probabilities[index]));
    row.append(make("span", "name", net.classes[index]), track, number);
    return row;
  });
  bars.replaceChildren(...rows);
  const answer = `${net.classes[best]}, ${percent(probabilities[best])}`;
  if (element("answer").textContent !== answer) complain(answer);
  document.documentElement.dataset.class = best;
}

function percent(share) {
  return `${(100 * share).toFixed(2)} %`;
}

// --- layers ------------------------------------------------------------------------------------

function colourOf(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
}

let colours = null;

function readColours() {
  colours = ["--zero", "--positive", "--negative"].map(colourOf);
}

const views = net.layers.map((layer, i) => {
  const view = make("details");
  const title = make("summary");
  const sides = layer.shape.join("×");
  title.append(make("span", "label", layer.label), " ", make("span", "shape", sides), " ");
  title.append(make("span", "name", layer.name));
  view.append(title);
  view.open = i < MOST_OPEN;
  if (layer.kind === "reshape") {
    view.append(make("p", "hint", "The same numbers in another shape."));
    return { view, canvases: [] };
  }
  const maps = make("div", "maps");
  const isImage = layer.shape.length === 3;
  const [height, width, channels] = isImage ? layer.shape : rowsOf(product(layer.shape));
  const canvases = Array.from({ length: Math.min(channels, MOST_MAPS) }, (_, c) => {
    const canvas = make("canvas");
    Object.assign(canvas, { height, width });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", isImage ? `Channel ${c + 1} of ${channels}` : "All numbers");
    canvas.style.width = isImage ? "4.5rem" : `${width * (height === 1 ? 0.8 : 0.3)}rem`;
    return canvas;
  });
  maps.append(...canvases);
  view.append(maps);
  if (channels > MOST_MAPS) view.append(make("p", "hint", `${MOST_MAPS} of ${counted(channels)} channels`));
  view.addEventListener("toggle", () => view.open && askForUpdate());
  return { view, canvases, channels };
});

// A vector as rows of at most 64 numbers, of one channel.
function rowsOf(count) {
  return [Math.ceil(count / 64), Math.min(count, 64), 1];
}

function showLayers(values, canvasFor = (canvas) => canvas) {
  if (colours === null) readColours();
  views.forEach(({ view, canvases, channels }, i) => {
    if (!view.open || !canvases.length) return;
    const data = values === null ? null : values[i + 1].data;
    let largest = 0;
    if (data) for (const value of data) if (Math.abs(value) > largest) largest = Math.abs(value);
    canvases.forEach((canvas, c) => paintMap(canvasFor(canvas), data, c, channels, largest));
  });
}

function paintMap(canvas, data, channel, channels, largest) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    const value = data === null ? 0 : data[i * channels + channel];
    if (value === undefined) continue; // the last row of a vector may be shorter
    const share = largest ? value / largest : 0;
    const [zero, end] = [colours[0], colours[share < 0 ? 2 : 1]];
    for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = zero[k] + Math.abs(share) * (end[k] - zero[k]);
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colours = null;
  update();
});

// --- the comparison with Python ----------------------------------------------------------------

function compareWithPython() {
  const result = checkSamples(net, CHECK);
  const isSame = result.classes === result.samples && result.difference < net.tolerance;
  const far = result.difference === 0 ? "to the last digit" : `within ${result.difference.toExponential(1)}`;
  const pictures = result.samples === 1 ? "1 sample" : `${result.samples} samples`;
  element("check").textContent = isSame
    ? `This page computes what Python does: ${pictures}, the same classes, all outputs ${far}.`
    : `This page does not compute what Python does: of ${pictures}, ${result.classes} have the same class, and outputs agree ${far}.`;
  element("check").classList.toggle("failed", !isSame);
  document.documentElement.dataset.check = JSON.stringify(result);
}

// --- the first strokes -------------------------------------------------------------------------

// A browser compiles a function after it has run for some time, so the first updates would be slow.
// Updates of a board that nobody sees come before them: some in a row are fast, or time is up.
function warmUp() {
  const [unseen, spare] = [make("canvas"), make("canvas")];
  const unseenPen = unseen.getContext("2d", { willReadFrequently: true });
  const sized = ({ width, height }) => Object.assign(spare, { width, height });
  const end = performance.now() + MOST_WARMING;
  let [count, fast] = [0, 0];
  const round = () => {
    const start = performance.now();
    if (fast >= 5 || start > end || !state.isEmpty) {
      document.documentElement.dataset.warm = count;
      return;
    }
    Object.assign(unseen, { width: board.width, height: board.height }); // which clears it
    unseenPen.fillStyle = "white";
    unseenPen.fillRect(0, 0, unseen.width, unseen.height);
    unseenPen.lineWidth = 0.09 * unseen.width;
    unseenPen.beginPath();
    unseenPen.moveTo(unseen.width * (0.3 + 0.02 * (count % 10)), unseen.height * 0.2);
    unseenPen.lineTo(unseen.width * 0.5, unseen.height * (0.3 + 0.05 * (count % 10)));
    unseenPen.stroke();
    const image = unseenPen.getImageData(0, 0, unseen.width, unseen.height);
    const { pixels } = prepare(image, net.input, net.preparation);
    paint(spare, pixels);
    const values = forward(net, pixels);
    probabilitiesOf(values[net.output]);
    showLayers(values, sized);
    count++;
    fast = performance.now() - start < WARM ? fast + 1 : 0;
    setTimeout(round);
  };
  round();
}

element("layers").append(...views.map(({ view }) => view));
prepareBoard();
showSamples();
setTimeout(() => {
  compareWithPython();
  setTimeout(warmUp);
});

// For the console.
globalThis.fastcnn = { net, forward, prepare, probabilitiesOf, checkSamples, update };
