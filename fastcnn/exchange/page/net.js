// A net from its description, and a forward pass through it.

// The bytes of an array, which were deflated and then written in base64.
async function bytesOf(base64) {
  const deflated = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A number of 16 bits: a sign, 5 bits of an exponent, 10 of a fraction.
function halfNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction) : sign * 2 ** -14 * fraction;
}

function numbersOf(bytes, type) {
  const view = new DataView(bytes.buffer);
  if (type === "float16") {
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) =>
      halfNumber(view.getUint16(2 * i, true)),
    );
  }
  if (type === "float64") {
    return Float64Array.from({ length: bytes.length / 8 }, (_, i) => view.getFloat64(8 * i, true));
  }
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

// Each array of a layer is written as [offset, length], and becomes a part of all weights.
async function readNet(description) {
  Numbers = description.dtype === "float64" ? Float64Array : Float32Array;
  const weights = numbersOf(await bytesOf(description.weights), description.type);
  const layers = description.layers.map((layer) => {
    const arrays = Object.entries(layer.arrays).map(([name, [offset, length]]) => [
      name,
      weights.subarray(offset, offset + length),
    ]);
    return { ...layer, ...Object.fromEntries(arrays) };
  });
  const { count, pixels, predictions, shown } = description.samples;
  const samples = {
    count,
    shown,
    pixels: await bytesOf(pixels),
    predictions: numbersOf(await bytesOf(predictions), description.dtype),
  };
  return { ...description, layers, samples, weights: null };
}

// Bytes as the net takes them: times a factor, minus a number, of all channels or of each. Product and
// difference are rounded to the net's dtype.
function scaled(bytes, shape, [factors, subtrahends]) {
  const rounded = Numbers === Float32Array ? Math.fround : (value) => value;
  const number = (byte, i) => {
    const c = i % shape[2];
    const product = rounded(byte * factors[c % factors.length]);
    return product - subtrahends[c % subtrahends.length];
  };
  return { shape, data: Numbers.from(bytes, number) };
}

// All values of the net: its input, and the result of each layer.
function forward(net, bytes) {
  const values = [scaled(bytes, net.input, net.scaling)];
  for (const layer of net.layers) {
    const inputs = layer.inputs.map((value) => values[value]);
    values.push(LAYERS[layer.kind](inputs, layer));
  }
  return values;
}

// What the net predicts, as probabilities. Scores become probabilities by a softmax.
function probabilitiesOf(predictions) {
  const isProbability = predictions.data.every((number) => number >= 0 && number <= 1);
  return isProbability ? predictions : softmax([predictions]);
}

// How far the net's predictions for its samples are from Python's. It takes about this many
// milliseconds at most, so a large net computes fewer samples.
function checkSamples(net, milliseconds = Infinity) {
  const { samples } = net;
  const size = product(net.input);
  const classes = net.classes.length;
  const result = { samples: 0, classes: 0, difference: 0, relative: 0 };
  const largest = (row) => row.indexOf(Math.max(...row));
  const start = performance.now();
  for (let i = 0; i < samples.count && performance.now() - start <= milliseconds; i++) {
    result.samples++;
    const values = forward(net, samples.pixels.subarray(i * size, (i + 1) * size));
    const own = values[net.output].data;
    const python = samples.predictions.subarray(i * classes, (i + 1) * classes);
    if (largest(own) === largest(python)) result.classes++;
    for (let j = 0; j < classes; j++) {
      if (Object.is(own[j], python[j])) continue;
      const difference = Math.abs(own[j] - python[j]);
      // Written so that NaN on one side counts as infinitely far.
      if (!(difference <= result.difference)) result.difference = difference || Infinity;
      const relative = difference / Math.abs(python[j]);
      if (!(relative <= result.relative)) result.relative = relative || Infinity;
    }
  }
  return result;
}
