// The transformer of hyla_repro/models/transformer.py, computed forwards with typed arrays: no library, no network, and
// what comes out is PyTorch's numbers up to the rounding of float32. Sums are in double precision.
//
// Letters as in the package: t tokens, q queries, k keys, h heads, d width of a head, m width of the model.
(() => {
  "use strict";
  const BASE = new URL(".", document.currentScript.src).href;
  const DTYPES = { F32: Float32Array };
  const models = {};

  // --- weights ---------------------------------------------------------------------------------------

  /** Return the tensors of a safetensors file: name to {shape, data}. */
  function readSafetensors(bytes) {
    const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    const tensors = {};
    for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
      if (name === "__metadata__") continue;
      if (!DTYPES[dtype]) throw new Error(`${name} is stored as ${dtype}: only ${Object.keys(DTYPES)} can be read`);
      tensors[name] = { shape, data: new DTYPES[dtype](bytes.buffer.slice(start + from, start + to)) };
    }
    return tensors;
  }

  function loadScript(address) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = address;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${address} cannot be read`));
      document.head.append(script);
    });
  }

  /** Return a model by name; its weights are a script, as a page from a disk may fetch nothing else. */
  function load(name) {
    models[name] ??= (async () => {
      await loadScript(`${BASE}${name}.js`);
      const bytes = Uint8Array.from(atob(hylaPlay.weights[name]), (letter) => letter.charCodeAt(0));
      delete hylaPlay.weights[name];
      const facts = hylaPlay.facts.models[name];
      const buckets = hylaPlay.facts.buckets[facts.config.n_positions];
      return { ...facts, name, buckets, tensors: readSafetensors(bytes) };
    })();
    return models[name];
  }

  // --- layers ----------------------------------------------------------------------------------------

  /** Return x W^T + b for rows from..to of W (out, in): (n, out). */
  function linear(x, n, weight, bias, from = 0, to = weight.shape[0]) {
    const wide = weight.shape[1], out = to - from, w = weight.data, y = new Float64Array(n * out);
    for (let o = 0; o < out; o++) {
      const row = w.subarray((from + o) * wide, (from + o + 1) * wide);
      let t = 0;
      // Four tokens at once: their sums do not wait for each other, which makes this twice as fast.
      for (; t + 3 < n; t += 4) {
        const a = t * wide, b = a + wide, c = b + wide, d = c + wide;
        let sumA = 0, sumB = 0, sumC = 0, sumD = 0;
        for (let i = 0; i < wide; i++) {
          const weight = row[i];
          sumA += weight * x[a + i];
          sumB += weight * x[b + i];
          sumC += weight * x[c + i];
          sumD += weight * x[d + i];
        }
        y[t * out + o] = sumA;
        y[(t + 1) * out + o] = sumB;
        y[(t + 2) * out + o] = sumC;
        y[(t + 3) * out + o] = sumD;
      }
      for (; t < n; t++) for (let i = 0; i < wide; i++) y[t * out + o] += row[i] * x[t * wide + i];
      if (bias) for (t = 0; t < n; t++) y[t * out + o] += bias.data[from + o];
    }
    return y;
  }

  function layerNorm(x, n, weight, bias) {
    const m = weight.shape[0], y = new Float64Array(n * m);
    for (let t = 0; t < n; t++) {
      let mean = 0, variance = 0;
      for (let i = 0; i < m; i++) mean += x[t * m + i] / m;
      for (let i = 0; i < m; i++) variance += (x[t * m + i] - mean) ** 2 / m;
      const scale = 1 / Math.sqrt(variance + 1e-6);
      for (let i = 0; i < m; i++) y[t * m + i] = (x[t * m + i] - mean) * scale * weight.data[i] + bias.data[i];
    }
    return y;
  }

  const gelu = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

  // Each takes the scores (h, q, k) to the latent code, in place.
  const NORMALIZERS = {
    none() {},
    softmax(scores, { h, q, k }) {
      for (let row = 0; row < h * q; row++) {
        const part = scores.subarray(row * k, (row + 1) * k), top = Math.max(...part);
        let total = 0;
        for (let i = 0; i < k; i++) total += part[i] = Math.exp(part[i] - top);
        for (let i = 0; i < k; i++) part[i] /= total;
      }
    },
    rms_head(scores, { h, q, k }) {
      for (let pair = 0; pair < q * k; pair++) {
        let square = 0;
        for (let i = 0; i < h; i++) square += scores[i * q * k + pair] ** 2 / h;
        const scale = 1 / Math.sqrt(square + 1e-6);
        for (let i = 0; i < h; i++) scores[i * q * k + pair] *= scale;
      }
    },
  };

  // Each takes the code (h, q, k) and the values (k, h d) to what the heads mix, (q, h d).
  const VALUE_NETWORKS = {
    linear(code, value, { h, q, k, d }) {
      const mixed = new Float64Array(q * h * d);
      for (let i = 0; i < h; i++) for (let a = 0; a < q; a++) for (let b = 0; b < k; b++) {
        const weight = code[(i * q + a) * k + b];
        for (let c = i * d; c < (i + 1) * d; c++) mixed[a * h * d + c] += weight * value[b * h * d + c];
      }
      return mixed;
    },
    hyper_relu(code, value, { h, q, k, d }) {
      const mixed = new Float64Array(q * h * d), hidden = new Float64Array(d);
      for (let a = 0; a < q; a++) for (let b = 0; b < k; b++) {
        hidden.fill(0);
        for (let i = 0; i < h; i++) {
          const weight = code[(i * q + a) * k + b];
          for (let c = 0; c < d; c++) hidden[c] += weight * value[b * h * d + i * d + c];
        }
        for (let i = 0; i < h; i++) {
          const weight = code[(i * q + a) * k + b];
          for (let c = 0; c < d; c++) mixed[a * h * d + i * d + c] += weight * Math.max(hidden[c], 0);
        }
      }
      return mixed;
    },
  };

  /** Return what the last q of k normed tokens attend to, and the code (h, q, k). */
  function attend(model, layer, normed, k, q) {
    const get = (name) => model.tensors[`blocks.${layer}.${name}`];
    const { n_heads: h, qk_dim, v_dim, d_model } = model.config;
    const weight = get("attention.in_proj_weight"), bias = get("attention.in_proj_bias"), wide = qk_dim / h;
    const query = linear(normed.subarray((k - q) * d_model), q, weight, bias, 0, qk_dim);
    const key = linear(normed, k, weight, bias, qk_dim, 2 * qk_dim);
    const value = linear(normed, k, weight, bias, 2 * qk_dim, 2 * qk_dim + v_dim);
    const table = get("position.table"), code = new Float64Array(h * q * k), sizes = { h, q, k, d: v_dim / h };
    for (let i = 0; i < h; i++) for (let a = 0; a < q; a++) for (let b = 0; b < k; b++) {
      let score = 0;
      for (let c = i * wide; c < (i + 1) * wide; c++) score += query[a * qk_dim + c] * key[b * qk_dim + c];
      const bucket = model.buckets[k - q + a][b];
      code[(i * q + a) * k + b] = score / Math.sqrt(wide) + table.data[i * table.shape[1] + bucket];
    }
    NORMALIZERS[model.normalizer](code, sizes);
    const mixed = VALUE_NETWORKS[model.value_network](code, value, sizes);
    return { mixed: linear(mixed, q, get("attention.out_proj.weight"), get("attention.out_proj.bias")), code };
  }

  /**
   * Return the outputs of the last tokens, (last, n_outputs), and the code of every layer, (h, q, k): for all queries,
   * but in the final layer for those that are read.
   */
  function forward(model, inputs, last) {
    const { n_layers, d_model, n_inputs } = model.config, get = (name) => model.tensors[name], codes = [];
    let n = inputs.length / n_inputs, x = linear(inputs, n, get("embedding.weight"), get("embedding.bias"));
    for (let layer = 0; layer < n_layers; layer++) {
      const block = (name) => get(`blocks.${layer}.${name}`), q = layer === n_layers - 1 ? last : n;
      const { mixed, code } = attend(model, layer, layerNorm(x, n, block("norm1.weight"), block("norm1.bias")), n, q);
      x = x.slice((n - q) * d_model);
      n = q;
      for (let i = 0; i < x.length; i++) x[i] += mixed[i];
      const normed = layerNorm(x, n, block("norm2.weight"), block("norm2.bias"));
      const up = linear(normed, n, block("feed_forward.up.weight"), block("feed_forward.up.bias")).map(gelu);
      const down = linear(up, n, block("feed_forward.down.weight"), block("feed_forward.down.bias"));
      for (let i = 0; i < x.length; i++) x[i] += down[i];
      codes.push(code);
    }
    const normed = layerNorm(x, n, get("norm.weight"), get("norm.bias"));
    return { outputs: linear(normed, n, get("read_out.weight"), get("read_out.bias")), codes };
  }

  Object.assign(hylaPlay, { load, forward });
})();
