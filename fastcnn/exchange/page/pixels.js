// What Pillow and NumPy do with pixels, to the same numbers: scaling, reducing, ranks.
//
// A picture is { height, width, channels, data }. Bytes are a Uint8Array; brightness that is no
// integer is a Float64Array, and Pillow rounds it to float32 when it scales.

function picture(height, width, channels, data) {
  return { height, width, channels, data };
}

// New numbers from each number and its position; a typed array's own map takes several times as long.
function mapped(numbers, value) {
  const result = new numbers.constructor(numbers.length);
  for (let i = 0; i < result.length; i++) result[i] = value(numbers[i], i);
  return result;
}

// --- ranks -------------------------------------------------------------------------------------

// The k-th smallest number (from 0), by Hoare's quickselect. It reorders its argument.
function select(numbers, k) {
  let [low, high] = [0, numbers.length - 1];
  while (low < high) {
    const pivot = numbers[(low + high) >> 1];
    let [i, j] = [low, high];
    while (i <= j) {
      while (numbers[i] < pivot) i++;
      while (numbers[j] > pivot) j--;
      if (i <= j) {
        const number = numbers[i];
        numbers[i++] = numbers[j];
        numbers[j--] = number;
      }
    }
    if (k <= j) high = j;
    else if (k >= i) low = i;
    else break;
  }
  return numbers[k];
}

function median(numbers) {
  const copy = new Float64Array(numbers);
  const middle = copy.length >> 1;
  const upper = select(copy, middle);
  if (copy.length % 2) return upper;
  let lower = -Infinity; // the largest of those that are now before the upper one
  for (let i = 0; i < middle; i++) if (copy[i] > lower) lower = copy[i];
  return (lower + upper) / 2;
}

// The number below which `percent` of them lie, between the two nearest ones.
function percentile(numbers, percent) {
  const copy = new Float64Array(numbers);
  const position = (percent / 100) * (copy.length - 1);
  const below = Math.floor(position);
  const [share, first] = [position - below, select(copy, below)];
  const second = select(copy, Math.min(below + 1, copy.length - 1));
  const way = second - first;
  return share >= 0.5 ? second - way * (1 - share) : first + way * share;
}

function range(numbers) {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < numbers.length; i++) {
    if (numbers[i] < low) low = numbers[i];
    if (numbers[i] > high) high = numbers[i];
  }
  return [low, high];
}

// Python's rounding: of two nearest integers the even one.
function round(number) {
  const below = Math.floor(number);
  const rest = number - below;
  if (rest === 0.5) return below % 2 ? below + 1 : below;
  return rest < 0.5 ? below : below + 1;
}

// --- parts of a picture of one channel ---------------------------------------------------------

// The part between rows `top` and `bottom`, columns `left` and `right`, without the last ones.
function cut(image, top, bottom, left, right) {
  const [height, width, channels] = [bottom - top, right - left, image.channels];
  const data = new image.data.constructor(height * width * channels);
  for (let row = 0; row < height; row++) {
    const start = ((top + row) * image.width + left) * channels;
    data.set(image.data.subarray(start, start + width * channels), row * width * channels);
  }
  return picture(height, width, channels, data);
}

function rowOf(image, row) {
  return cut(image, row, row + 1, 0, image.width).data;
}

function columnOf(image, column) {
  return cut(image, 0, image.height, column, column + 1).data;
}

// The first and last rows and columns, one after the other.
function bordersOf(image) {
  const { height, width } = image;
  const parts = [rowOf(image, 0), rowOf(image, height - 1), columnOf(image, 0), columnOf(image, width - 1)];
  return parts.flatMap((part) => [...part]);
}

function transposed(image) {
  const { height, width, channels } = image;
  const data = new image.data.constructor(image.data.length);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (let c = 0; c < channels; c++) {
        data[(column * height + row) * channels + c] = image.data[(row * width + column) * channels + c];
      }
    }
  }
  return picture(width, height, channels, data);
}

// --- colours -----------------------------------------------------------------------------------

// Bytes as grey, with the weights of ITU-R 601-2 in 16 bits.
function greyOf(image) {
  if (image.channels === 1) return image;
  const data = new Uint8Array(image.height * image.width);
  for (let i = 0; i < data.length; i++) {
    const [r, g, b] = image.data.subarray(i * image.channels, i * image.channels + 3);
    data[i] = (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16;
  }
  return picture(image.height, image.width, 1, data);
}

// A picture with transparency on paper of one brightness, as RGB. The products are divided by 255
// in integers, with 7 bits of fraction.
function onPaper(image, paper) {
  if (image.channels !== 4) return image;
  const data = new Uint8Array(3 * image.height * image.width);
  for (let i = 0; i < image.height * image.width; i++) {
    const opacity = image.data[4 * i + 3];
    for (let c = 0; c < 3; c++) {
      const sum = (image.data[4 * i + c] * opacity + paper * (255 - opacity)) * 128 + (128 << 7);
      data[3 * i + c] = (((sum >> 8) + sum) >> 8) >> 7;
    }
  }
  return picture(image.height, image.width, 3, data);
}

function inverted(image) {
  return { ...image, data: mapped(image.data, (value) => 255 - value) };
}

// --- scaling -----------------------------------------------------------------------------------

function triangle(x) {
  return Math.max(1 - Math.abs(x), 0);
}

// Source: R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.
function cubic(x) {
  const [a, d] = [-0.5, Math.abs(x)];
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

const BILINEAR = { weight: triangle, support: 1 };
const BICUBIC = { weight: cubic, support: 2 };

// For each of `count` results the first pixel that it reads of `size`, and the pixels' weights. The
// results divide the range from `start` to `end`; where they are fewer than the pixels, the filter
// is as much wider.
function weightsOf(size, start, end, count, filter) {
  const scale = Math.fround(Math.fround(end) - Math.fround(start)) / count;
  const width = Math.max(scale, 1);
  const reach = filter.support * width;
  return Array.from({ length: count }, (_, i) => {
    const centre = Math.fround(start) + (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const last = Math.min(Math.trunc(centre + reach + 0.5), size);
    const weights = new Float64Array(last - first);
    let sum = 0;
    for (let j = 0; j < weights.length; j++) {
      weights[j] = filter.weight((j + first - centre + 0.5) * (1 / width));
      sum += weights[j];
    }
    return { first, weights: sum ? weights.map((weight) => weight / sum) : weights };
  });
}

// One pass along rows (axis 1) or columns (axis 0). Bytes are added in integers, with weights of 22
// bits. The picture is seen as (outer, side, inner), with the axis in the middle.
function scaledAlong(image, axis, weights) {
  const { height, width, channels, data: source } = image;
  const isBytes = source instanceof Uint8Array;
  const [outer, side, inner] = axis ? [height, width, channels] : [1, height, width * channels];
  const data = new source.constructor(outer * weights.length * inner);
  for (let i = 0; i < weights.length; i++) {
    const { first } = weights[i];
    const row = isBytes
      ? weights[i].weights.map((weight) => Math.trunc(weight * 2 ** 22 + (weight < 0 ? -0.5 : 0.5)))
      : weights[i].weights;
    for (let o = 0; o < outer; o++) {
      for (let k = 0; k < inner; k++) {
        let sum = isBytes ? 2 ** 21 : 0;
        let from = (o * side + first) * inner + k;
        for (let j = 0; j < row.length; j++, from += inner) sum += source[from] * row[j];
        const value = isBytes ? Math.min(Math.max(Math.floor(sum / 2 ** 22), 0), 255) : Math.fround(sum);
        data[(o * weights.length + i) * inner + k] = value;
      }
    }
  }
  return axis
    ? picture(height, weights.length, channels, data)
    : picture(weights.length, width, channels, data);
}

// The part `box` (left, top, right, bottom) of a picture in another size.
function resized(image, height, width, filter, box = [0, 0, image.width, image.height]) {
  let result = image;
  if (!(result.data instanceof Uint8Array)) result = { ...result, data: mapped(result.data, Math.fround) };
  if (width !== image.width || box[0] !== 0 || box[2] !== width) {
    result = scaledAlong(result, 1, weightsOf(image.width, box[0], box[2], width, filter));
  }
  if (height !== image.height || box[1] !== 0 || box[3] !== height) {
    result = scaledAlong(result, 0, weightsOf(image.height, box[1], box[3], height, filter));
  }
  return result;
}

// A picture whose pixels are the means of boxes; boxes at the right and lower end may be smaller.
function reduced(image, down, across = down) {
  const { channels } = image;
  const isBytes = image.data instanceof Uint8Array;
  const [height, width] = [Math.ceil(image.height / down), Math.ceil(image.width / across)];
  const data = new image.data.constructor(height * width * channels);
  for (let y = 0; y < height; y++) {
    const bottom = Math.min((y + 1) * down, image.height);
    for (let x = 0; x < width; x++) {
      const right = Math.min((x + 1) * across, image.width);
      const count = (bottom - y * down) * (right - x * across);
      const share = Math.floor(2 ** 32 / (256 * count)); // 1 / count in 24 bits
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let i = y * down; i < bottom; i++) {
          for (let j = x * across; j < right; j++) sum += image.data[(i * image.width + j) * channels + c];
        }
        const mean = isBytes
          ? Math.floor(((sum + Math.floor(count / 2)) * share) / 2 ** 24)
          : Math.fround(sum * (1 / count));
        data[(y * width + x) * channels + c] = mean;
      }
    }
  }
  return picture(height, width, channels, data);
}

// The same for a picture with transparency: colours are multiplied by their opacity before.
function reducedOnAnything(image, factor) {
  if (image.channels !== 4) return reduced(image, factor);
  const weighted = { ...image, data: image.data.slice() };
  for (let i = 0; i < weighted.data.length; i++) {
    if (i % 4 === 3) continue;
    const sum = image.data[i] * image.data[i - (i % 4) + 3] + 128;
    weighted.data[i] = ((sum >> 8) + sum) >> 8;
  }
  const result = reduced(weighted, factor);
  for (let i = 0; i < result.data.length; i++) {
    const opacity = result.data[i - (i % 4) + 3];
    if (i % 4 === 3 || opacity === 0 || opacity === 255) continue;
    result.data[i] = Math.min(Math.floor((255 * result.data[i]) / opacity), 255);
  }
  return result;
}
