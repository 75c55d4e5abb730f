// The layers of a net, forward: what fastcnn's engine "naive" says in Python, in JavaScript.
//
// A tensor is { shape, data }. Its data is a typed array in row-major order, and images are
// (H, W, C). A layer function takes a list of tensors and the layer's description, and returns a
// tensor of the layer's shape. Sums run in float64, because JavaScript's numbers are float64, and
// each result is rounded to the net's dtype once.

// The class of all tensors' data: Float32Array, or Float64Array for a net of float64.
let Numbers = Float32Array;

function product(shape) {
  return shape.reduce((count, side) => count * side, 1);
}

function zeros(shape) {
  return { shape, data: new Numbers(product(shape)) };
}

function elementwise(x, value) {
  const y = zeros(x.shape);
  for (let i = 0; i < x.data.length; i++) y.data[i] = value(x.data[i]);
  return y;
}

function activated(y, activation) {
  if (activation === "relu") {
    for (let i = 0; i < y.data.length; i++) if (y.data[i] < 0) y.data[i] = 0;
  }
  return y;
}

// --- convolutions and dense layers -------------------------------------------------------------

// Output row `oh` and filter row `kh` meet at input row oh * stride - padding + kh * dilation. Rows
// outside of the image are padding, and add nothing. w is (KH, KW, IC / groups, OC).
function conv2d([x], layer) {
  const [H, W, IC] = x.shape;
  const [OH, OW, OC] = layer.shape;
  const [KH, KW] = layer.kernel;
  const [inputs, outputs] = [IC / layer.groups, OC / layer.groups]; // of one group
  const y = zeros(layer.shape);
  const sums = new Float64Array(OC);
  for (let oh = 0; oh < OH; oh++) {
    for (let ow = 0; ow < OW; ow++) {
      sums.fill(0);
      for (let kh = 0; kh < KH; kh++) {
        const ih = oh * layer.stride[0] - layer.padding[0] + kh * layer.dilation[0];
        if (ih < 0 || ih >= H) continue;
        for (let kw = 0; kw < KW; kw++) {
          const iw = ow * layer.stride[1] - layer.padding[1] + kw * layer.dilation[1];
          if (iw < 0 || iw >= W) continue;
          for (let group = 0; group < layer.groups; group++) {
            const [first, end] = [group * outputs, (group + 1) * outputs];
            for (let c = 0; c < inputs; c++) {
              const value = x.data[(ih * W + iw) * IC + group * inputs + c];
              const row = ((kh * KW + kw) * inputs + c) * OC;
              for (let oc = first; oc < end; oc++) sums[oc] += value * layer.w[row + oc];
            }
          }
        }
      }
      const pixel = (oh * OW + ow) * OC;
      for (let oc = 0; oc < OC; oc++) y.data[pixel + oc] = sums[oc] + (layer.b ? layer.b[oc] : 0);
    }
  }
  return activated(y, layer.activation);
}

// x @ w + b, with w (features, units).
function dense([x], layer) {
  const units = layer.shape[0];
  const sums = new Float64Array(units);
  for (let feature = 0; feature < x.data.length; feature++) {
    const value = x.data[feature];
    for (let unit = 0; unit < units; unit++) sums[unit] += value * layer.w[feature * units + unit];
  }
  const y = zeros(layer.shape);
  for (let unit = 0; unit < units; unit++) y.data[unit] = sums[unit] + (layer.b ? layer.b[unit] : 0);
  return activated(y, layer.activation);
}

// --- pooling -----------------------------------------------------------------------------------

// Padding never wins and does not count in a mean. NaN wins. `windows` are the numbers of windows
// down and across; layer.shape is (windows down, windows across, C), or (C,) for the whole image.
function pool(start, add, finish) {
  return ([x], layer) => {
    const [H, W, C] = x.shape;
    const [OH, OW] = layer.windows;
    const y = zeros(layer.shape);
    for (let oh = 0; oh < OH; oh++) {
      for (let ow = 0; ow < OW; ow++) {
        for (let c = 0; c < C; c++) {
          let [result, count] = [start, 0];
          for (let kh = 0; kh < layer.kernel[0]; kh++) {
            const ih = oh * layer.stride[0] - layer.padding[0] + kh;
            if (ih < 0 || ih >= H) continue;
            for (let kw = 0; kw < layer.kernel[1]; kw++) {
              const iw = ow * layer.stride[1] - layer.padding[1] + kw;
              if (iw < 0 || iw >= W) continue;
              result = add(result, x.data[(ih * W + iw) * C + c]);
              count++;
            }
          }
          y.data[(oh * OW + ow) * C + c] = finish(result, count);
        }
      }
    }
    return y;
  };
}

const maxPool = pool(-Infinity, Math.max, (result) => result);
const minPool = pool(Infinity, Math.min, (result) => result);
const avgPool = pool(0, (sum, value) => sum + value, (sum, count) => sum / count);

// --- activations -------------------------------------------------------------------------------

function sigmoid(x) {
  const e = Math.exp(-Math.abs(x)); // at most 1, so that nothing overflows
  return (x < 0 ? e : 1) / (1 + e);
}

// The probability that a standard normal number is at most x. Near 0 it is a series, elsewhere a
// continued fraction. Source: G. Marsaglia, "Evaluating the Normal Distribution", 2004.
function normalProbability(x) {
  const density = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  if (Math.abs(x) < 3) {
    let [sum, term] = [x, x];
    for (let i = 3; Math.abs(term) > 1e-17 * Math.abs(sum); i += 2) sum += term *= (x * x) / i;
    return 0.5 + density * sum;
  }
  let fraction = Math.abs(x);
  for (let i = 60; i > 0; i--) fraction = Math.abs(x) + i / fraction;
  return x < 0 ? density / fraction : 1 - density / fraction;
}

// A share of x: the product with 0 at -Infinity would be NaN, where the limit is 0.
function shareOf(x, share) {
  return x === -Infinity ? 0 : x * share;
}

function gelu(x, approximate) {
  const w = Math.sqrt(8 / Math.PI) * (x + 0.044715 * x * x * x);
  return shareOf(x, approximate ? sigmoid(w) : normalProbability(x));
}

const ACTIVATIONS = {
  relu: (x, layer) => Math.min(Math.max(x, 0), layer.top ?? Infinity),
  leaky_relu: (x, layer) => (x > 0 ? x : layer.slope * x),
  tanh: Math.tanh,
  sigmoid,
  elu: (x, layer) => (x > 0 ? x : layer.alpha * Math.expm1(x)),
  hard_sigmoid: (x, layer) => Math.min(Math.max(layer.slope * x + layer.offset, 0), 1),
  hard_swish: (x) => shareOf(x, Math.min(Math.max(x / 6 + 0.5, 0), 1)),
  swish: (x) => shareOf(x, sigmoid(x)),
  gelu: (x, layer) => gelu(x, layer.approximate),
  softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
};

function activation([x], layer) {
  return elementwise(x, (number) => ACTIVATIONS[layer.function](number, layer));
}

// exp(x) / Σ exp(x) over the last axis. The maximum is subtracted first, so nothing overflows.
function softmax([x]) {
  const classes = x.shape[x.shape.length - 1];
  const y = zeros(x.shape);
  for (let first = 0; first < x.data.length; first += classes) {
    const row = Array.from(x.data.subarray(first, first + classes));
    const most = row.reduce((a, b) => Math.max(a, b));
    const exponentials = row.map((score) => Math.exp(score - most));
    const sum = exponentials.reduce((a, b) => a + b);
    exponentials.forEach((e, i) => (y.data[first + i] = e / sum));
  }
  return y;
}

// --- normalisation -----------------------------------------------------------------------------

function batchNorm([x], layer) {
  const channels = x.shape[x.shape.length - 1];
  const y = zeros(x.shape);
  for (let i = 0; i < x.data.length; i++) {
    const c = i % channels;
    const normal = (x.data[i] - layer.mean[c]) / Math.sqrt(layer.variance[c] + layer.epsilon);
    y.data[i] = layer.gamma[c] * normal + layer.beta[c];
  }
  return y;
}

function reshape([x], layer) {
  return { shape: layer.shape, data: x.data };
}

const LAYERS = {
  activation,
  avg_pool: avgPool,
  batch_norm: batchNorm,
  conv2d,
  dense,
  max_pool: maxPool,
  min_pool: minPool,
  reshape,
  softmax,
};
