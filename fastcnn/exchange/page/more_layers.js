// The layers that fewer nets have. They are on the page of a net that has one of them.

// Each pixel of x is added to the pixels of y that a convolution back from y to x would read. So
// the relation of rows is that of conv2d with x and y exchanged. w is (KH, KW, OC / groups, IC).
function conv2dTranspose([x], layer) {
  const [H, W, IC] = x.shape;
  const [OH, OW, OC] = layer.shape;
  const [KH, KW] = layer.kernel;
  const [inputs, outputs] = [IC / layer.groups, OC / layer.groups];
  const sums = new Float64Array(OH * OW * OC);
  for (let ih = 0; ih < H; ih++) {
    for (let iw = 0; iw < W; iw++) {
      for (let kh = 0; kh < KH; kh++) {
        const oh = ih * layer.stride[0] - layer.padding[0] + kh * layer.dilation[0];
        if (oh < 0 || oh >= OH) continue;
        for (let kw = 0; kw < KW; kw++) {
          const ow = iw * layer.stride[1] - layer.padding[1] + kw * layer.dilation[1];
          if (ow < 0 || ow >= OW) continue;
          for (let oc = 0; oc < OC; oc++) {
            const first = Math.floor(oc / outputs) * inputs;
            const row = ((kh * KW + kw) * outputs + (oc % outputs)) * IC;
            let sum = 0;
            for (let ic = first; ic < first + inputs; ic++) {
              sum += x.data[(ih * W + iw) * IC + ic] * layer.w[row + ic];
            }
            sums[(oh * OW + ow) * OC + oc] += sum;
          }
        }
      }
    }
  }
  const y = zeros(layer.shape);
  for (let i = 0; i < sums.length; i++) y.data[i] = sums[i] + (layer.b ? layer.b[i % OC] : 0);
  return activated(y, layer.activation);
}

function prelu([x], layer) {
  const channels = x.shape[x.shape.length - 1];
  const y = zeros(x.shape);
  for (let i = 0; i < x.data.length; i++) {
    y.data[i] = x.data[i] > 0 ? x.data[i] : layer.slope[i % channels] * x.data[i];
  }
  return y;
}

// --- normalisation -----------------------------------------------------------------------------

// Write the numbers of x at these positions to y, with mean 0 and variance 1, then scaled.
function normalise(x, y, positions, layer, parameterOf) {
  let [sum, squares] = [0, 0];
  for (const i of positions) sum += x.data[i];
  const mean = sum / positions.length;
  for (const i of positions) squares += (x.data[i] - mean) ** 2;
  const deviation = Math.sqrt(squares / positions.length + layer.epsilon);
  for (const i of positions) {
    const p = parameterOf(i);
    const scaled = ((x.data[i] - mean) / deviation) * (layer.gamma ? layer.gamma[p] : 1);
    y.data[i] = scaled + (layer.beta ? layer.beta[p] : 0);
  }
}

// Rows of `features` numbers, each normalised by itself.
function layerNorm([x], layer) {
  const y = zeros(x.shape);
  for (let first = 0; first < x.data.length; first += layer.features) {
    const row = Int32Array.from({ length: layer.features }, (_, i) => first + i);
    normalise(x, y, row, layer, (i) => i - first);
  }
  return y;
}

// Neighbouring channels make a group, which is normalised over all pixels.
function groupNorm([x], layer) {
  const channels = x.shape[x.shape.length - 1];
  const size = channels / layer.groups;
  const pixels = x.data.length / channels;
  const y = zeros(x.shape);
  for (let first = 0; first < channels; first += size) {
    const positions = Int32Array.from(
      { length: pixels * size },
      (_, i) => Math.floor(i / size) * channels + first + (i % size),
    );
    normalise(x, y, positions, layer, (i) => i % channels);
  }
  return y;
}

// x / (bias + alpha / window * Σ x²) ** beta, summed over the channels around each one.
function lrn([x], layer) {
  const channels = x.shape[x.shape.length - 1];
  const before = Math.floor((layer.window - 1) / 2);
  const y = zeros(x.shape);
  for (let i = 0; i < x.data.length; i++) {
    const c = i % channels;
    let squares = 0;
    for (let j = Math.max(c - before, 0); j < Math.min(c - before + layer.window, channels); j++) {
      squares += x.data[i - c + j] ** 2;
    }
    y.data[i] = x.data[i] / (layer.bias + (layer.alpha / layer.window) * squares) ** layer.beta;
  }
  return y;
}

// --- shapes ------------------------------------------------------------------------------------

// Where a walk through `shape` in row-major order passes, if a step along axis i moves by steps[i].
function walk(shape, steps) {
  let positions = new Int32Array(1);
  shape.forEach((side, axis) => {
    const next = new Int32Array(positions.length * side);
    for (let i = 0; i < next.length; i++) {
      next[i] = positions[Math.floor(i / side)] + (i % side) * steps[axis];
    }
    positions = next;
  });
  return positions;
}

// For each axis the distance of neighbours in row-major order.
function distances(shape) {
  return shape.map((_, axis) => product(shape.slice(axis + 1)));
}

// x, seen in the shape `view`, with its axes in another order: axis i of the result is axes[i].
function permute([x], layer) {
  const all = distances(layer.view);
  const sides = layer.axes.map((axis) => layer.view[axis]);
  const positions = walk(sides, layer.axes.map((axis) => all[axis]));
  return { shape: layer.shape, data: Numbers.from(positions, (i) => x.data[i]) };
}

// Zeros around an image, or an image without its borders: `top` and `left` may be negative.
function pad([x], layer) {
  const [H, W, C] = x.shape;
  const y = zeros(layer.shape);
  const [OH, OW] = layer.shape;
  for (let oh = 0; oh < OH; oh++) {
    for (let ow = 0; ow < OW; ow++) {
      const [ih, iw] = [oh - layer.top, ow - layer.left];
      if (ih < 0 || ih >= H || iw < 0 || iw >= W) continue;
      const pixel = x.data.subarray((ih * W + iw) * C, (ih * W + iw + 1) * C);
      y.data.set(pixel, (oh * OW + ow) * C);
    }
  }
  return y;
}

// Row `oh` of the result is a weighted sum of consecutive rows of x, which begin with first[oh] and
// whose weights begin at starts[oh]; columns likewise.
function resize([x], layer) {
  const [, W, C] = x.shape;
  const [OH, OW] = layer.shape;
  const { rows, columns } = layer;
  const y = zeros(layer.shape);
  const sums = new Float64Array(C);
  for (let oh = 0; oh < OH; oh++) {
    for (let ow = 0; ow < OW; ow++) {
      sums.fill(0);
      for (let i = rows.starts[oh]; i < rows.starts[oh + 1]; i++) {
        const ih = rows.first[oh] + i - rows.starts[oh];
        for (let j = columns.starts[ow]; j < columns.starts[ow + 1]; j++) {
          const iw = columns.first[ow] + j - columns.starts[ow];
          const weight = rows.weights[i] * columns.weights[j];
          for (let c = 0; c < C; c++) sums[c] += weight * x.data[(ih * W + iw) * C + c];
        }
      }
      y.data.set(sums, (oh * OW + ow) * C);
    }
  }
  return y;
}

// --- several inputs ----------------------------------------------------------------------------

// The steps along the axes of `shape` in a tensor whose axes are equal, or 1 and repeated.
function repeated(tensor, shape) {
  return distances(tensor.shape).map((step, axis) => (tensor.shape[axis] === shape[axis] ? step : 0));
}

function merge(combine) {
  return (inputs, layer) => {
    let result = inputs[0];
    for (const other of inputs.slice(1)) {
      const shape = result.shape.map((side, axis) => Math.max(side, other.shape[axis]));
      const [left, right] = [result, other].map((one) => walk(shape, repeated(one, shape)));
      const y = zeros(shape);
      for (let i = 0; i < y.data.length; i++) {
        y.data[i] = combine(result.data[left[i]], other.data[right[i]]);
      }
      result = y;
    }
    return activated(layer.share ? elementwise(result, (sum) => sum * layer.share) : result, layer.activation);
  };
}

function concatenate(inputs, layer) {
  const y = zeros(layer.shape);
  const blocks = product(layer.shape.slice(0, layer.axis));
  const length = y.data.length / blocks;
  let offset = 0;
  for (const x of inputs) {
    const part = x.data.length / blocks;
    for (let block = 0; block < blocks; block++) {
      y.data.set(x.data.subarray(block * part, (block + 1) * part), block * length + offset);
    }
    offset += part;
  }
  return y;
}

Object.assign(LAYERS, {
  add: merge((a, b) => a + b),
  concatenate,
  conv2d_transpose: conv2dTranspose,
  group_norm: groupNorm,
  layer_norm: layerNorm,
  lrn,
  maximum: merge(Math.max),
  multiply: merge((a, b) => a * b),
  pad,
  permute,
  prelu,
  resize,
  subtract: merge((a, b) => a - b),
});
