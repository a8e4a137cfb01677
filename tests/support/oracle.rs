//! RWKV-7 in float64, one token at a time.
//!
//! Gets a checkpoint and tokens, returns the logits after every token, the state, and every step of a token by name.
//! What then holds: it is the formula of the RWKV-7 paper, written for reading and checked against stored reference
//! values by `tests/oracle.rs`. Never shares code with the library beyond reading the file, never batches tokens and is
//! never fast.

use std::collections::BTreeMap;

use graphc::checkpoint::Checkpoint;

use super::models::Layout;

/// Group norm epsilon of every published model: training divides by 8 before a norm of epsilon 1e-5.
pub const GROUP_NORM_EPS: f64 = 64e-5;
/// Layer norm epsilon.
pub const LAYER_NORM_EPS: f64 = 1e-5;
/// Least norm by which the removal key is divided.
pub const L2_NORM_EPS: f64 = 1e-12;

/// A model, ready to run.
#[derive(Debug)]
pub struct Rwkv7 {
    /// Heads of a block.
    pub heads: usize,
    /// Channels of a head.
    pub head_size: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Group norm epsilon, [`GROUP_NORM_EPS`] unless changed.
    pub group_norm_eps: f64,
    emb: Matrix,
    ln0: Norm,
    blocks: Vec<Block>,
    ln_out: Norm,
    head: Matrix,
}

/// What a sequence leaves behind; all zero before its first token.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// One per block.
    pub layers: Vec<LayerState>,
}

/// The state of one block.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerState {
    /// Last `ln1` output, `[C]`.
    pub att_x: Vec<f64>,
    /// Last `ln2` output, `[C]`.
    pub ffn_x: Vec<f64>,
    /// Recurrent matrix `[head, value channel, key channel]`.
    pub att_s: Vec<f64>,
}

impl LayerState {
    /// The parts by their names in the reference files.
    pub fn parts(&self) -> [(&'static str, &[f64]); 3] {
        [("att_x", &self.att_x), ("ffn_x", &self.ffn_x), ("att_s", &self.att_s)]
    }
}

/// Every step of one token by its name in the reference files, such as `0.xr`, `before.0.att_s` and `logits`.
pub type Trace = BTreeMap<String, Vec<f64>>;

impl Rwkv7 {
    /// Reads a model.
    ///
    /// # Panics
    /// If a tensor is missing or its shape does not fit, which is also how the wrong `layout` shows.
    pub fn load(file: &Checkpoint, layout: Layout) -> Self {
        let r_k = &file.index().get("blocks.0.att.r_k").expect("an RWKV-7 model").shape;
        let [heads, head_size] = r_k[..] else { panic!("`r_k` is [H, N], not {r_k:?}") };
        let (heads, head_size) = (heads as usize, head_size as usize);
        let load = Loader { file, layout, width: heads * head_size };
        let head = load.matrix("head.weight");
        let mut blocks = Vec::new();
        while file.index().get(&format!("blocks.{}.ln1.weight", blocks.len())).is_some() {
            blocks.push(load.block(blocks.len()));
        }
        Self {
            heads,
            head_size,
            vocab: head.rows,
            group_norm_eps: GROUP_NORM_EPS,
            emb: load.matrix("emb.weight"),
            ln0: load.norm("blocks.0.ln0"),
            blocks,
            ln_out: load.norm("ln_out"),
            head,
        }
    }

    /// Embedding width.
    pub fn width(&self) -> usize {
        self.heads * self.head_size
    }

    /// The state before the first token.
    pub fn new_state(&self) -> State {
        let layer = LayerState {
            att_x: vec![0.0; self.width()],
            ffn_x: vec![0.0; self.width()],
            att_s: vec![0.0; self.width() * self.head_size],
        };
        State { layers: vec![layer; self.blocks.len()] }
    }

    /// Runs tokens and returns the logits after each.
    pub fn run(&self, state: &mut State, tokens: &[u32]) -> Vec<Vec<f64>> {
        tokens.iter().map(|token| self.step(state, *token, &mut |_, _| ())).collect()
    }

    /// Runs one token and returns all its steps, in every block, with the state before and after.
    pub fn trace(&self, state: &mut State, token: u32) -> Trace {
        let mut trace = Trace::new();
        let keep_state = |when: &str, state: &State, trace: &mut Trace| {
            for (layer, state) in state.layers.iter().enumerate() {
                for (name, part) in state.parts() {
                    trace.insert(format!("{when}.{layer}.{name}"), part.to_vec());
                }
            }
        };
        keep_state("before", state, &mut trace);
        self.step(state, token, &mut |name, values| {
            let earlier = trace.insert(name.to_owned(), values.to_vec());
            assert!(earlier.is_none(), "step `{name}` occurs once");
        });
        keep_state("after", state, &mut trace);
        trace
    }

    /// Runs one token, shows every step to `see`, and returns the logits.
    pub fn step(&self, state: &mut State, token: u32, see: &mut dyn FnMut(&str, &[f64])) -> Vec<f64> {
        let emb = self.emb.row(token as usize);
        see("emb", &emb);
        let mut x = self.ln0.layer(&emb);
        let mut v_first = None;
        for (layer, (block, state)) in self.blocks.iter().zip(&mut state.layers).enumerate() {
            let mut see = |name: &str, values: &[f64]| see(&format!("{layer}.{name}"), values);
            see("x_in", &x);

            let h = block.ln1.layer(&x);
            see("ln1", &h);
            let out = self.attend(&block.att, &h, state, &mut v_first, &mut see);
            see("att_out", &out);
            x = zip(&x, &out, |x, out| x + out);
            state.att_x = h;
            see("x_att", &x);

            let m = block.ln2.layer(&x);
            see("ln2", &m);
            let out = block.ffn.forward(&m, &state.ffn_x, &mut see);
            see("ffn_out", &out);
            x = zip(&x, &out, |x, out| x + out);
            state.ffn_x = m;
            see("x_out", &x);
        }
        let logits = self.head.times(&self.ln_out.layer(&x));
        see("logits", &logits);
        logits
    }

    /// Time mix of one block; `v_first` passes block 0's value on to the other blocks of the same token.
    fn attend(
        &self,
        att: &Attention,
        h: &[f64],
        state: &mut LayerState,
        v_first: &mut Option<Vec<f64>>,
        see: &mut dyn FnMut(&str, &[f64]),
    ) -> Vec<f64> {
        let mut mixed = |name: &str, mix: &[f64]| {
            let x = token_shift(h, &state.att_x, mix);
            see(name, &x);
            x
        };
        let (xr, xw, xk) = (mixed("xr", &att.x_r), mixed("xw", &att.x_w), mixed("xk", &att.x_k));
        let (xv, xa, xg) = (mixed("xv", &att.x_v), mixed("xa", &att.x_a), mixed("xg", &att.x_g));

        let r = att.receptance.times(&xr);
        see("r", &r);
        let w_raw = zip(&att.w0, &att.w.apply(&xw, f64::tanh), |bias, x| bias + x);
        see("w_raw", &w_raw);
        let w = map(&w_raw, |x| (-(-0.5f64).exp() * sigmoid(x)).exp());
        see("w", &w);
        let k_raw = att.key.times(&xk);
        see("k_raw", &k_raw);
        let a = zip(&att.a0, &att.a.apply(&xa, |x| x), |bias, x| sigmoid(bias + x));
        see("a", &a);
        let g = att.g.apply(&xg, sigmoid);
        see("g", &g);
        // From the key before the learning rate scales it.
        let kk = self.normalised(&zip(&k_raw, &att.k_k, |k, scale| k * scale));
        see("kk", &kk);
        let k = zip(&k_raw, &zip(&a, &att.k_a, |a, k_a| 1.0 + (a - 1.0) * k_a), |k, scale| k * scale);
        see("k", &k);
        let v = att.value(&xv, v_first, see);
        see("v", &v);

        let y = self.recur(&mut state.att_s, &Step { r: &r, w: &w, k: &k, v: &v, kk: &kk, a: &a });
        see("wkv", &y);
        let gn = self.group_norm(&y, &att.ln_x);
        see("gn", &gn);
        let bonus = self.bonus(&r, &k, &att.r_k, &v);
        see("bonus", &bonus);
        // The bonus comes after the norm and before the gate.
        let gate = zip(&zip(&gn, &bonus, |gn, bonus| gn + bonus), &g, |x, g| x * g);
        see("gate", &gate);
        att.output.times(&gate)
    }

    /// Updates the recurrent matrix and reads it, in this order: `S <- S diag(w) - (S kk) (kk a)^T + v k^T`, `y = S r`.
    fn recur(&self, s: &mut [f64], step: &Step<'_>) -> Vec<f64> {
        let n = self.head_size;
        let mut y = vec![0.0; self.width()];
        for (row_index, row) in s.chunks_exact_mut(n).enumerate() {
            // Row `i` of head `h`, the value channel, is row `h * n + i` of all heads together.
            let keys = row_index / n * n..row_index / n * n + n;
            let removed: f64 = -dot(row, &step.kk[keys.clone()]);
            for (cell, j) in row.iter_mut().zip(keys.clone()) {
                *cell = *cell * step.w[j] + removed * (step.kk[j] * step.a[j]) + step.v[row_index] * step.k[j];
            }
            y[row_index] = dot(row, &step.r[keys]);
        }
        y
    }

    /// Each head divided by its length.
    fn normalised(&self, x: &[f64]) -> Vec<f64> {
        x.chunks_exact(self.head_size)
            .flat_map(|head| {
                let length = dot(head, head).sqrt().max(L2_NORM_EPS);
                head.iter().map(move |x| x / length)
            })
            .collect()
    }

    /// The value, weighted by how well receptance and key of this very token agree.
    fn bonus(&self, r: &[f64], k: &[f64], r_k: &[f64], v: &[f64]) -> Vec<f64> {
        let agreement = zip(&zip(r, k, |r, k| r * k), r_k, |x, r_k| x * r_k);
        let sums: Vec<f64> = agreement.chunks_exact(self.head_size).map(|head| head.iter().sum()).collect();
        v.iter().enumerate().map(|(at, v)| sums[at / self.head_size] * v).collect()
    }

    fn group_norm(&self, y: &[f64], norm: &Norm) -> Vec<f64> {
        let standard: Vec<f64> =
            y.chunks_exact(self.head_size).flat_map(|head| standardised(head, self.group_norm_eps)).collect();
        norm.affine(&standard)
    }
}

/// What one token puts into the recurrence, each `[C]`.
struct Step<'a> {
    r: &'a [f64],
    w: &'a [f64],
    k: &'a [f64],
    v: &'a [f64],
    kk: &'a [f64],
    a: &'a [f64],
}

#[derive(Debug)]
struct Block {
    ln1: Norm,
    att: Attention,
    ln2: Norm,
    ffn: Ffn,
}

#[derive(Debug)]
struct Attention {
    x_r: Vec<f64>,
    x_w: Vec<f64>,
    x_k: Vec<f64>,
    x_v: Vec<f64>,
    x_a: Vec<f64>,
    x_g: Vec<f64>,
    w0: Vec<f64>,
    w: Adapter,
    a0: Vec<f64>,
    a: Adapter,
    g: Adapter,
    /// Nothing in block 0, where these tensors take no part even if the file has them.
    value_mix: Option<(Vec<f64>, Adapter)>,
    k_k: Vec<f64>,
    k_a: Vec<f64>,
    r_k: Vec<f64>,
    receptance: Matrix,
    key: Matrix,
    value: Matrix,
    output: Matrix,
    ln_x: Norm,
}

impl Attention {
    /// The value, in all blocks but the first drawn towards that of block 0.
    fn value(&self, xv: &[f64], v_first: &mut Option<Vec<f64>>, see: &mut dyn FnMut(&str, &[f64])) -> Vec<f64> {
        let v_raw = self.value.times(xv);
        see("v_raw", &v_raw);
        let Some((v0, adapter)) = &self.value_mix else {
            *v_first = Some(v_raw.clone());
            return v_raw;
        };
        let v_first = v_first.as_ref().expect("block 0 comes first");
        let v_mix = zip(v0, &adapter.apply(xv, |x| x), |bias, x| sigmoid(bias + x));
        see("v_mix", &v_mix);
        let towards = zip(v_first, &v_raw, |first, v| first - v);
        zip(&v_raw, &zip(&towards, &v_mix, |towards, mix| towards * mix), |v, change| v + change)
    }
}

#[derive(Debug)]
struct Ffn {
    x_k: Vec<f64>,
    key: Matrix,
    value: Matrix,
}

impl Ffn {
    fn forward(&self, m: &[f64], previous: &[f64], see: &mut dyn FnMut(&str, &[f64])) -> Vec<f64> {
        let xk = token_shift(m, previous, &self.x_k);
        see("ffn_xk", &xk);
        let key = map(&self.key.times(&xk), |x| x.max(0.0) * x.max(0.0));
        see("ffn_key", &key);
        let value = self.value.times(&key);
        see("ffn_value", &value);
        value
    }
}

/// Two low-rank matrices.
#[derive(Debug)]
struct Adapter {
    down: Matrix,
    up: Matrix,
}

impl Adapter {
    fn apply(&self, x: &[f64], between: impl Fn(f64) -> f64) -> Vec<f64> {
        self.up.times(&map(&self.down.times(x), between))
    }
}

/// `[out, in]`. Elements stay `f32`, which holds every stored type exactly, and are widened where they are used.
#[derive(Debug)]
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn times(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(x.len(), self.columns, "the vector fits the matrix");
        let product = |row: &[f32]| row.iter().zip(x).map(|(weight, x)| f64::from(*weight) * x).sum();
        self.values.chunks_exact(self.columns).map(product).collect()
    }

    fn row(&self, row: usize) -> Vec<f64> {
        self.values[row * self.columns..(row + 1) * self.columns].iter().copied().map(f64::from).collect()
    }
}

#[derive(Debug)]
struct Norm {
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Norm {
    fn layer(&self, x: &[f64]) -> Vec<f64> {
        self.affine(&standardised(x, LAYER_NORM_EPS).collect::<Vec<_>>())
    }

    fn affine(&self, x: &[f64]) -> Vec<f64> {
        zip(&zip(x, &self.weight, |x, weight| x * weight), &self.bias, |x, bias| x + bias)
    }
}

/// Reads tensors and asserts that their shapes fit.
struct Loader<'a> {
    file: &'a Checkpoint,
    layout: Layout,
    width: usize,
}

impl Loader<'_> {
    fn block(&self, layer: usize) -> Block {
        let att = |name: &str| format!("blocks.{layer}.att.{name}");
        let vector = |name: &str| self.vector(&att(name));
        let value_mix = (layer > 0).then(|| (vector("v0"), self.adapter(&att("v"))));
        let attention = Attention {
            x_r: vector("x_r"),
            x_w: vector("x_w"),
            x_k: vector("x_k"),
            x_v: vector("x_v"),
            x_a: vector("x_a"),
            x_g: vector("x_g"),
            w0: vector("w0"),
            w: self.adapter(&att("w")),
            a0: vector("a0"),
            a: self.adapter(&att("a")),
            g: self.adapter(&att("g")),
            value_mix,
            k_k: vector("k_k"),
            k_a: vector("k_a"),
            r_k: vector("r_k"),
            receptance: self.matrix(&att("receptance.weight")),
            key: self.matrix(&att("key.weight")),
            value: self.matrix(&att("value.weight")),
            output: self.matrix(&att("output.weight")),
            ln_x: self.norm(&att("ln_x")),
        };
        let ffn = Ffn {
            x_k: self.vector(&format!("blocks.{layer}.ffn.x_k")),
            key: self.matrix(&format!("blocks.{layer}.ffn.key.weight")),
            value: self.matrix(&format!("blocks.{layer}.ffn.value.weight")),
        };
        let norm = |name: &str| self.norm(&format!("blocks.{layer}.{name}"));
        Block { ln1: norm("ln1"), att: attention, ln2: norm("ln2"), ffn }
    }

    fn norm(&self, name: &str) -> Norm {
        Norm { weight: self.vector(&format!("{name}.weight")), bias: self.vector(&format!("{name}.bias")) }
    }

    /// `C` elements, whatever the axes of one around them.
    fn vector(&self, name: &str) -> Vec<f64> {
        let tensor = self.file.tensor(name).unwrap_or_else(|| panic!("`{name}` is missing"));
        assert_eq!(tensor.count(), self.width, "`{name}` has an element for each channel");
        tensor.to_f32().into_iter().map(f64::from).collect()
    }

    fn matrix(&self, name: &str) -> Matrix {
        let tensor = self.file.tensor(name).unwrap_or_else(|| panic!("`{name}` is missing"));
        let [rows, columns] = tensor.shape[..] else { panic!("`{name}` is no matrix: {:?}", tensor.shape) };
        Matrix { rows: rows as usize, columns: columns as usize, values: tensor.to_f32() }
    }

    /// The matrices `<name>1` and `<name>2`, turned to `[out, in]`.
    fn adapter(&self, name: &str) -> Adapter {
        let [down, up] = ["1", "2"].map(|suffix| {
            let stored = self.matrix(&format!("{name}{suffix}"));
            match self.layout {
                Layout::Converted => stored,
                Layout::Raw => transposed(&stored),
            }
        });
        let shapes = [down.rows, down.columns, up.rows, up.columns];
        assert_eq!(shapes, [down.rows, self.width, self.width, down.rows], "`{name}1`, `{name}2` as {:?}", self.layout);
        Adapter { down, up }
    }
}

fn transposed(matrix: &Matrix) -> Matrix {
    let Matrix { rows, columns, values } = matrix;
    let values = (0..rows * columns).map(|at| values[at % rows * columns + at / rows]).collect();
    Matrix { rows: *columns, columns: *rows, values }
}

/// The current token's vector, drawn towards the previous token's.
fn token_shift(now: &[f64], previous: &[f64], mix: &[f64]) -> Vec<f64> {
    let difference = zip(previous, now, |previous, now| previous - now);
    zip(now, &zip(&difference, mix, |difference, mix| difference * mix), |now, change| now + change)
}

/// Shifted and scaled to mean 0 and, up to `eps`, population variance 1.
pub(super) fn standardised(x: &[f64], eps: f64) -> impl Iterator<Item = f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / x.len() as f64;
    x.iter().map(move |x| (x - mean) / (variance + eps).sqrt())
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn map(x: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    x.iter().map(|x| f(*x)).collect()
}

pub(super) fn zip(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}
