// A picture as the input of a net, as fastcnn/data/pictures.py and drawings.py do it in Python.
//
// The same pixels give the same bytes. Steps and doubts are reported in the same words.

const FLAT = 12; // grey levels; a picture with less contrast shows nothing
const LARGE = 1024; // a picture is reduced until its sides are at most this
const [BLACK, LIGHT, FILLED] = [4, 64, 0.9];
const [UNEVEN, PAPER_SIDE, WINDOW, DARKEST_PAPER] = [25, 192, 0.45, 20];
const [FRAME_SHARE, FRAME_CONTRAST] = [8, 50];
const [DUST, FAR_DUST, FAR, LARGE_PIECE, ROUND, SECOND] = [0.015, 0.03, 0.15, 0.15, 0.85, 0.3];
const MOST_RUNS = 60000;
const MNIST = { box: 20 / 28, centre: "mass", background: "dark", edges: "pad", transposed: false };
const PHOTOGRAPHS = { box: null, centre: "mass", background: null, edges: "crop", transposed: false };

const english = new Intl.NumberFormat("en-US");

function counted(number) {
  return english.format(number);
}

// Bytes (H, W, C) for a net of this input shape, from an image of RGBA bytes.
function prepare(image, shape, preparation) {
  const steps = [`${counted(image.width)}×${counted(image.height)} pixels`];
  let source = decoded(image);
  if (Math.max(source.height, source.width) > LARGE) {
    source = reducedOnAnything(source, Math.ceil(Math.max(source.height, source.width) / LARGE));
  }
  let how = preparation;
  if (how === null && shape[2] === 1 && fillsItsFrame(source)) {
    how = { ...PHOTOGRAPHS, background: "dark", edges: "pad" };
    steps.push("taken whole: it is light on dark and fills its height or its width");
  } else if (how === null) {
    how = shape[2] === 1 ? MNIST : PHOTOGRAPHS;
  }
  const sides = how.transposed ? [shape[1], shape[0], shape[2]] : shape;
  let pixels = (how.box === null ? whole : digit)(source, sides, how, steps);
  if (how.transposed) {
    pixels = transposed(pixels);
    steps.push("rows and columns exchanged, as in the training");
  }
  return { pixels: pixels.data, steps };
}

// RGBA bytes as grey where all colours are grey, as RGB where all is opaque.
function decoded({ height, width, data }) {
  let [isGrey, isOpaque] = [true, true];
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) isGrey = false;
    if (data[i + 3] !== 255) isOpaque = false;
  }
  if (!isOpaque) return picture(height, width, 4, new Uint8Array(data));
  const channels = isGrey ? 1 : 3;
  const result = new Uint8Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < channels; c++) result[i * channels + c] = data[4 * i + c];
  }
  return picture(height, width, channels, result);
}

// Whether something light on dark reaches from one border almost to the opposite one.
function fillsItsFrame(image) {
  const grey = greyOf(onPaper(image, 255));
  const { height, width, data } = grey;
  if (Math.min(height, width) < 2) return false;
  const corners = [0, width - 1, (height - 1) * width, height * width - 1];
  if (surroundings(grey) > BLACK || corners.some((corner) => data[corner] > BLACK)) return false;
  const share = (isCounted) => data.reduce((sum, value) => sum + isCounted(value), 0) / data.length;
  const light = share((value) => value > LIGHT);
  if (light < 0.2 || light > 0.7 || share((value) => value <= BLACK) < 0.2) return false;
  const [rows, columns] = marked(grey, LIGHT);
  return rows[1] - rows[0] + 1 >= FILLED * height || columns[1] - columns[0] + 1 >= FILLED * width;
}

// The first and last rows, and columns, that have a value above `least`.
function marked(image, least) {
  const [rows, columns] = [[Infinity, -1], [Infinity, -1]];
  for (let y = 0; y < image.height; y++) {
    for (let x = 0; x < image.width; x++) {
      if (!(image.data[y * image.width + x] > least)) continue;
      rows[0] = Math.min(rows[0], y);
      rows[1] = y;
      columns[0] = Math.min(columns[0], x);
      columns[1] = Math.max(columns[1], x);
    }
  }
  return [rows, columns];
}

// --- whole pictures ----------------------------------------------------------------------------

function whole(source, [height, width, channels], how, steps) {
  const isDark = how.background === "dark";
  let image = source;
  if (image.channels === 4) {
    steps.push(`on ${isDark ? "black" : "white"}, where it is transparent`);
    image = onPaper(image, isDark ? 0 : 255);
  }
  if (channels === 1 && image.channels !== 1) steps.push("colours taken as grey");
  if (channels === 1) image = greyOf(image);
  const level = surroundings(greyOf(image));
  if (how.background !== null && level < 127.5 !== isDark) {
    steps.push(`inverted: it was on a ${isDark ? "light" : "dark"} background`);
    image = inverted(image);
  }
  if (image.height === height && image.width === width) {
    steps.push("taken as it is: of the net's size");
  } else if (how.edges === "crop") {
    image = fitted(image, height, width);
    steps.push(`middle cut out and scaled to ${width}×${height}`);
  } else {
    image = padded(image, height, width, steps);
  }
  const data = new Uint8Array(height * width * channels);
  for (let i = 0; i < data.length; i++) {
    data[i] = image.data[Math.floor(i / channels) * image.channels + (i % channels) % image.channels];
  }
  const means = Float64Array.from({ length: height * width }, (_, i) => {
    const pixel = data.subarray(i * channels, (i + 1) * channels);
    return pixel.reduce((sum, value) => sum + value, 0) / channels;
  });
  const [low, high] = range(means);
  if (high - low < 1) throw new Error("This shows nothing: all of its pixels are alike.");
  return picture(height, width, channels, data);
}

// The middle of the picture, cut out in these proportions and scaled.
function fitted(image, height, width) {
  const [ratio, wanted] = [image.width / image.height, width / height];
  let [cutWidth, cutHeight] = [image.width, image.height];
  if (ratio > wanted) cutWidth = wanted * image.height;
  else if (ratio < wanted) cutHeight = image.width / wanted;
  const [left, top] = [(image.width - cutWidth) * 0.5, (image.height - cutHeight) * 0.5];
  if (image.height === height && image.width === width) return image;
  return resized(image, height, width, BICUBIC, [left, top, left + cutWidth, top + cutHeight]);
}

// The whole picture in its proportions, with its background on the rest of the area.
function padded(image, height, width, steps) {
  const factor = Math.min(height / image.height, width / image.width);
  const [h, w] = [image.height, image.width].map((side) => Math.max(1, round(side * factor)));
  const scaledImage = shrunk(image, h, w);
  steps.push(`scaled to ${w}×${h}`);
  if (h === height && w === width) return scaledImage;
  const { channels } = image;
  const borders = bordersOf(image);
  const data = new Uint8Array(height * width * channels);
  for (let c = 0; c < channels; c++) {
    const fill = round(median(borders.filter((_, i) => i % channels === c)));
    for (let i = c; i < data.length; i += channels) data[i] = fill;
  }
  const [top, left] = [Math.floor((height - h) / 2), Math.floor((width - w) / 2)];
  for (let y = 0; y < h; y++) {
    const row = scaledImage.data.subarray(y * w * channels, (y + 1) * w * channels);
    data.set(row, ((top + y) * width + left) * channels);
  }
  steps.push(`filled up to ${width}×${height} with its background`);
  return picture(height, width, channels, data);
}

// A picture in another size; one that is much larger is reduced by whole factors before.
function shrunk(image, height, width) {
  if (image.height === height && image.width === width) return image;
  const across = Math.trunc(image.width / width / 3) || 1;
  const down = Math.trunc(image.height / height / 3) || 1;
  if (across === 1 && down === 1) return resized(image, height, width, BICUBIC);
  const box = [0, 0, image.width / across, image.height / down];
  return resized(reduced(image, down, across), height, width, BICUBIC, box);
}

// --- drawings ----------------------------------------------------------------------------------

// The drawing, cropped, scaled into the box and centred.
function digit(source, [height, width, channels], how, steps) {
  const isLightPaper = how.background === "light";
  let grey = brightness(source, steps);
  const [low, high] = range(grey.data);
  if (high - low < FLAT) throw new Error("This shows nothing: all of its pixels are nearly alike.");
  const level = median(bordersOf(grey));
  let pixels;
  if (grey.height === height && grey.width === width && (level === 0 || level === 255)) {
    if ((level === 255) !== isLightPaper) {
      steps.push(`inverted: it was ${isLightPaper ? "light on dark" : "dark on light"}`);
      grey = inverted(grey);
    }
    steps.push(`taken as it is: of the net's size, ${isLightPaper ? "dark on white" : "light on black"}`);
    pixels = new Uint8Array(grey.data);
  } else {
    grey = withoutFrame(grey, steps);
    const [least, most] = range(grey.data);
    const isDarkOnLight = background(grey) > (least + most) / 2;
    if (isDarkOnLight && !isLightPaper) steps.push("inverted: it was dark on light");
    const light = findDrawing(lightOnDark(grey, isDarkOnLight, steps), steps);
    if (light.height !== grey.height || light.width !== grey.width) {
      const size = `${counted(light.width)}×${counted(light.height)}`;
      steps.push(`cropped to the ${size} pixels that are drawn on`);
    }
    const drawing = scaledToBox(light, Math.max(1, round(how.box * Math.min(height, width))));
    if (drawing.height !== light.height || drawing.width !== light.width) {
      const isMnist = Object.keys(MNIST).every((name) => how[name] === MNIST[name]);
      const name = isMnist ? "MNIST" : "the training";
      steps.push(`scaled to ${drawing.width}×${drawing.height}, as in ${name}`);
    }
    const isByMass = how.centre === "mass";
    steps.push(`centred ${isByMass ? "by mass" : "by its box"} in ${width}×${height}`);
    pixels = place(drawing, height, width, isByMass);
    if (isLightPaper) {
      pixels = mapped(pixels, (value) => 255 - value);
      if (!isDarkOnLight) steps.push("inverted: it was light on dark");
    }
  }
  const data = Uint8Array.from({ length: pixels.length * channels }, (_, i) => pixels[Math.floor(i / channels)]);
  return picture(height, width, channels, data);
}

// Brightness from 0 to 255. Transparent pixels become white, or black around white lines.
function brightness(image, steps) {
  const bytes = greyOf(image);
  const grey = { ...bytes, data: new Float64Array(bytes.data) };
  if (image.channels === 3) steps.push("colours taken as grey");
  if (image.channels === 4) {
    const opacity = Float64Array.from(grey.data, (_, i) => image.data[4 * i + 3] / 255);
    const visible = grey.data.filter((_, i) => opacity[i] > 0.5);
    const mean = visible.reduce((sum, value) => sum + value, 0) / visible.length;
    const paper = visible.length && mean > 127 ? 0 : 255;
    steps.push(`on ${paper ? "white" : "black"}, where it is transparent`);
    grey.data = mapped(grey.data, (value, i) => opacity[i] * value + (1 - opacity[i]) * paper);
  }
  return grey;
}

// The picture without lines of one colour along all four borders, if the inside differs.
function withoutFrame(grey, steps) {
  const turned = transposed(grey);
  const sides = [[grey, false], [grey, true], [turned, false], [turned, true]];
  const cuts = [];
  for (const [image, isFromEnd] of sides) {
    const margin = Math.floor(image.width / FRAME_SHARE);
    const count = Math.floor(image.height / FRAME_SHARE);
    const lineAt = (i) => (isFromEnd ? image.height - 1 - i : i);
    const inside = (i) => rowOf(image, lineAt(i)).subarray(margin, image.width - margin);
    if (!count || image.width <= 2 * margin) return grey;
    const first = isFromEnd ? image.height - 2 * count : count;
    const page = median(cut(image, first, first + count, 0, image.width).data);
    const isFrame = (i) => {
      const [low, value, high] = [10, 50, 90].map((percent) => percentile(inside(i), percent));
      return Math.abs(value - page) > FRAME_CONTRAST && high - low < FRAME_CONTRAST;
    };
    let width = 0;
    while (width < count && isFrame(width)) width++;
    if (width === 0 || width === count) return grey; // there is no frame, or it has no inner end
    // The line between frame and page may be a mixture of both.
    const next = percentile(inside(width), 50);
    cuts.push(width + (Math.abs(next - page) > FRAME_CONTRAST / 4 ? 1 : 0));
  }
  const [top, bottom, left, right] = cuts;
  const result = cut(grey, top, grey.height - bottom, left, grey.width - right);
  const [low, high] = range(result.data);
  if (high - low < FLAT) return grey;
  steps.push("removed a frame along the border");
  return result;
}

// The brightness of the background: the median of the medians of the borders and of everything.
// The lines farther in decide where all of them are light and the borders are dark, or the reverse.
function background(grey) {
  const { height, width } = grey;
  const [rows, columns] = [Math.floor(height / FRAME_SHARE), Math.floor(width / FRAME_SHARE)];
  const all = median(grey.data);
  const levelsAt = (row, column) => [
    median(rowOf(grey, row)),
    median(rowOf(grey, height - 1 - row)),
    median(columnOf(grey, column)),
    median(columnOf(grey, width - 1 - column)),
    all,
  ];
  const level = median(levelsAt(0, 0));
  const levels = levelsAt(rows, columns);
  const [least, most] = range(grey.data);
  const middle = (least + most) / 2;
  if (levels.every((one) => one > middle !== level > middle)) return median(levels);
  return level;
}

// The brightness of corners and borders, for a picture that its subject may fill.
function surroundings(grey) {
  const { height, width } = grey;
  const [rows, columns] = [height, width].map((side) => Math.max(1, Math.floor(side / 10)));
  const parts = [
    cut(grey, 0, rows, 0, columns),
    cut(grey, 0, rows, width - columns, width),
    cut(grey, height - rows, height, 0, columns),
    cut(grey, height - rows, height, width - columns, width),
  ];
  return median([...parts.map((part) => median(part.data)), median(bordersOf(grey))]);
}

// The difference of each pixel from the paper, 0 to 255, for a drawing of this polarity.
function lightOnDark(grey, isDarkOnLight, steps) {
  const paper = paperOf(grey, isDarkOnLight);
  let light;
  if (percentile(paper, 98) - percentile(paper, 2) <= UNEVEN) {
    const level = background(grey);
    light = mapped(grey.data, (value) => Math.max(isDarkOnLight ? level - value : value - level, 0));
  } else {
    steps.push("evened out a shadow or a gradient over the page");
    light = mapped(grey.data, (value, i) => {
      if (!isDarkOnLight) return Math.max(value - paper[i], 0);
      return paper[i] > DARKEST_PAPER ? Math.max(1 - value / paper[i], 0) : 0;
    });
    const usual = median(light); // the closing puts noise on one side of the paper
    light = mapped(light, (value) => Math.max(value - usual, 0));
  }
  const most = range(light)[1];
  const factor = most ? 255 / most : 0;
  return { ...grey, data: mapped(light, (value) => value * factor) };
}

// The page without the drawing, by a closing (bright paper) or an opening (dark paper).
function paperOf(grey, isBright) {
  const factor = Math.ceil(Math.max(grey.height, grey.width) / PAPER_SIDE);
  const small = factor === 1 ? grey : reduced({ ...grey, data: mapped(grey.data, Math.fround) }, factor);
  const window = Math.max(3, round(WINDOW * Math.min(small.height, small.width)));
  const negative = (image) => ({ ...image, data: mapped(image.data, (value) => -value) });
  const signed = isBright ? small : negative(small);
  const closed = negative(dilated(negative(dilated(signed, window)), window));
  return resized(isBright ? closed : negative(closed), grey.height, grey.width, BILINEAR).data;
}

// The maximum over a square window about each pixel; pixels beyond the border do not count.
function dilated(image, window) {
  const alongColumns = transposed(dilatedRows(transposed(image), window));
  return dilatedRows(alongColumns, window);
}

// Blocks of the window's length: a window is the end of one block and the beginning of the next,
// so its maximum is that of two running maxima. Source: M. van Herk, "A fast algorithm for local
// minimum and maximum filters on rectangular and octagonal kernels", 1992.
function dilatedRows(image, window) {
  const { height, width } = image;
  const before = Math.floor(window / 2);
  const length = Math.ceil((width + window) / window) * window;
  const line = new Float64Array(length);
  const [forward, backward] = [new Float64Array(length), new Float64Array(length)];
  const data = new Float64Array(image.data.length);
  for (let y = 0; y < height; y++) {
    line.fill(-Infinity);
    line.set(image.data.subarray(y * width, (y + 1) * width), before);
    for (let i = 0; i < length; i++) {
      forward[i] = i % window ? Math.max(forward[i - 1], line[i]) : line[i];
      const j = length - 1 - i;
      backward[j] = (j + 1) % window ? Math.max(backward[j + 1], line[j]) : line[j];
    }
    for (let x = 0; x < width; x++) {
      data[y * width + x] = Math.max(backward[x], forward[x + window - 1]);
    }
  }
  return { ...image, data };
}

// The threshold with the greatest variance between the pixels below and above it.
// Source: N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979.
function otsu(light) {
  const counts = new Float64Array(256);
  for (const value of light) counts[Math.floor(value)]++;
  const total = counts.reduce((sum, count, i) => sum + count * (i + 0.5), 0);
  let [below, sum, best, threshold] = [0, 0, -1, 0];
  counts.forEach((count, i) => {
    below += count;
    sum += count * (i + 0.5);
    const above = light.length - below;
    const between = below * above * (sum / below - (total - sum) / above) ** 2;
    if (between > best) [best, threshold] = [between, i + 1];
  });
  return threshold;
}

// The drawing, cropped to its pixels, without specks and without pieces at the border.
function findDrawing(image, steps) {
  const threshold = otsu(image.data);
  let [light, mask] = [image, mapped(image.data, (value) => (value > threshold / 2 ? 1 : 0))];
  let { pieces, labels } = piecesOf(mask, light);
  if (pieces.some((piece) => crosses(piece, light)) && !hasInside(pieces, light)) {
    const darker = mapped(image.data, (value) => (value > threshold ? 1 : 0));
    const others = piecesOf(darker, light);
    if (hasInside(others.pieces, light)) {
      steps.push("in doubt: removed fainter lines from border to border");
      ({ pieces, labels } = others);
      mask = darker;
      const near = dilated({ ...light, data: darker }, 3).data;
      light = { ...light, data: mapped(light.data, (value, i) => (near[i] > 0 ? value : 0)) };
    }
  }
  if (pieces.length > 1) {
    const drawing = piecesOfDrawing(pieces, light, steps);
    const names = new Set(drawing.map((piece) => piece.label));
    mask = mapped(mask, (_, i) => (names.has(labels[i]) ? 1 : 0));
    light = { ...light, data: mapped(light.data, (value, i) => (mask[i] || !labels[i] ? value : 0)) };
    doubt(drawing, light, steps);
  }
  const [rows, columns] = marked({ ...light, data: mask }, 0);
  return cut(light, rows[0], rows[1] + 1, columns[0], columns[1] + 1);
}

// --- pieces of a drawing -----------------------------------------------------------------------

function sideOf(piece) {
  return Math.max(piece.bottom - piece.top, piece.right - piece.left) + 1;
}

// Pixels between the boxes of two pieces, along the axis with the larger gap.
function gap(piece, other) {
  const rows = Math.max(piece.top, other.top) - Math.min(piece.bottom, other.bottom);
  const columns = Math.max(piece.left, other.left) - Math.min(piece.right, other.right);
  return Math.max(rows, columns, 0);
}

// Whether a piece touches the border, or surrounds nearly all of the picture.
function touches(piece, { height, width }) {
  const isRound =
    piece.bottom - piece.top + 1 > ROUND * height && piece.right - piece.left + 1 > ROUND * width;
  const isAtEnd = piece.bottom === height - 1 || piece.right === width - 1;
  return piece.top === 0 || piece.left === 0 || isAtEnd || isRound;
}

// Whether a piece reaches from one border to the opposite one.
function crosses(piece, { height, width }) {
  const isDown = piece.top === 0 && piece.bottom === height - 1;
  return isDown || (piece.left === 0 && piece.right === width - 1);
}

// Whether some piece is large enough for a drawing and touches no border.
function hasInside(pieces, image) {
  const least = LARGE_PIECE * Math.min(image.height, image.width);
  return pieces.some((piece) => sideOf(piece) >= least && !touches(piece, image));
}

function piecesOfDrawing(all, image, steps) {
  let pieces = all;
  if (hasInside(pieces, image) && pieces.some((piece) => touches(piece, image))) {
    steps.push("removed what lies along the border");
    pieces = pieces.filter((piece) => !touches(piece, image));
  }
  const largest = pieces.reduce((a, b) => (b.mass > a.mass ? b : a));
  const result = pieces.filter((piece) => {
    const isNear = gap(piece, largest) <= FAR * sideOf(largest);
    return piece.mass >= (isNear ? DUST : FAR_DUST) * largest.mass;
  });
  const specks = pieces.length - result.length;
  if (specks) steps.push(specks === 1 ? "removed a speck" : `removed ${counted(specks)} specks`);
  return result;
}

// A doubt for several drawings side by side, or a line across the page.
function doubt(pieces, image, steps) {
  const largest = Math.max(...pieces.map((piece) => piece.mass));
  const main = pieces.filter((piece) => piece.mass >= SECOND * largest).sort((a, b) => a.left - b.left);
  let [end, apart] = [-Infinity, 0];
  for (const piece of main) {
    if (piece.left > end) apart++;
    end = Math.max(end, piece.right);
  }
  if (pieces.some((piece) => crosses(piece, image))) {
    steps.push("in doubt: what is drawn reaches from border to border");
  }
  if (apart > 1) steps.push(`in doubt: ${apart} drawings stand side by side, and are taken as one`);
}

// Pieces of pixels that touch, also at corners, and the label of each pixel, from 1. Rows are cut
// into runs, and runs that touch in adjoining rows are joined. There are no pieces where there are
// too many runs, as on noise.
function piecesOf(mask, light) {
  const { height, width } = light;
  const runs = [];
  const starts = [];
  for (let row = 0; row < height; row++) {
    starts.push(runs.length);
    for (let x = 0; x < width; x++) {
      if (!mask[row * width + x]) continue;
      const left = x;
      while (x + 1 < width && mask[row * width + x + 1]) x++;
      runs.push({ row, left, right: x });
    }
  }
  starts.push(runs.length);
  const labels = new Int32Array(mask.length);
  if (runs.length > MOST_RUNS) return { pieces: [], labels };
  const parent = runs.map((_, i) => i);
  const root = (i) => {
    while (parent[i] !== i) i = parent[i] = parent[parent[i]];
    return i;
  };
  for (let row = 1; row < height; row++) {
    let above = starts[row - 1];
    for (let i = starts[row]; i < starts[row + 1]; i++) {
      while (above < starts[row] && runs[above].right < runs[i].left - 1) above++;
      for (let j = above; j < starts[row] && runs[j].left <= runs[i].right + 1; j++) {
        parent[root(i)] = root(j);
      }
    }
  }
  const roots = runs.map((_, i) => root(i));
  const names = [...new Set(roots)].sort((a, b) => a - b);
  const labelOf = new Map(names.map((name, i) => [name, i + 1]));
  const pieces = names.map((_, i) => {
    return { label: i + 1, mass: 0, top: height, bottom: -1, left: width, right: -1 };
  });
  runs.forEach(({ row, left, right }, i) => {
    const label = labelOf.get(roots[i]);
    const piece = pieces[label - 1];
    labels.fill(label, row * width + left, row * width + right + 1);
    for (let x = left; x <= right; x++) piece.mass += light.data[row * width + x];
    piece.top = Math.min(piece.top, row);
    piece.bottom = Math.max(piece.bottom, row);
    piece.left = Math.min(piece.left, left);
    piece.right = Math.max(piece.right, right);
  });
  return { pieces, labels };
}

// --- scaling and placing -----------------------------------------------------------------------

// The drawing with a longer side of `box`; its brightest pixel becomes 255.
function scaledToBox(light, box) {
  const factor = box / Math.max(light.height, light.width);
  const [height, width] = [light.height, light.width].map((side) => Math.max(1, round(side * factor)));
  if (height === light.height && width === light.width) return light;
  const image = resized(light, height, width, BICUBIC);
  const data = mapped(image.data, (value) => Math.min(Math.max(value, 0), 255));
  const brightest = 255 / Math.max(range(data)[1], 1);
  return { ...image, data: mapped(data, (value) => value * brightest) };
}

// Bytes (height, width): the drawing on black, with its centre of mass or of its box in the middle.
function place(drawing, height, width, isByMass) {
  let mass = 0;
  const moments = [0, 0];
  drawing.data.forEach((value, i) => {
    mass += value;
    moments[0] += value * Math.floor(i / drawing.width);
    moments[1] += value * (i % drawing.width);
  });
  const [top, left] = [[drawing.height, height], [drawing.width, width]].map(([own, side], axis) => {
    const centre = isByMass ? moments[axis] / mass : own / 2;
    return Math.min(Math.max(nearest(side / 2 - centre), 0), side - own);
  });
  const result = new Uint8Array(height * width);
  drawing.data.forEach((value, i) => {
    const [y, x] = [Math.floor(i / drawing.width), i % drawing.width];
    result[(top + y) * width + left + x] = round(value);
  });
  return result;
}

// The nearest integer. A billionth beside the middle counts as the middle, because the order in
// which the centre of mass is added moves it by less.
function nearest(number) {
  return round(Math.round(number * 1e9) / 1e9);
}
