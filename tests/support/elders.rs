//! RWKV-4 to 6 in float64, one token at a time.
//!
//! Gets a checkpoint and tokens, returns the logits after every token and the state. What then holds: it is the formula
//! of each version, written for reading, in one place, and checked against stored reference values for those versions
//! that have any. Never shares code with the library beyond reading the file, and is never fast.

use std::collections::BTreeMap;

use graphc::checkpoint::Checkpoint;

use super::models::{Format, Layout, Version};
use super::oracle::{GROUP_NORM_EPS, LAYER_NORM_EPS, map, sigmoid, standardised, zip};

/// A model, ready to run.
#[derive(Debug)]
pub struct Elder {
    version: Version,
    /// Group norm epsilon, that of published models unless changed.
    pub group_norm_eps: f64,
    heads: usize,
    layers: usize,
    /// By the names of the usual conversion.
    tensors: BTreeMap<String, Vec<f64>>,
}

/// What a sequence leaves behind: the parts of each block by their names in the reference files.
pub type State = Vec<BTreeMap<&'static str, Vec<f64>>>;

impl Elder {
    /// Reads a model.
    pub fn load(file: &Checkpoint, version: Version, format: &Format) -> Self {
        let mut tensors = BTreeMap::new();
        let mut heads = 1;
        for stored in file.index().names() {
            let tensor = file.tensor(stored).expect("it is there");
            let name = stored.replace("time_maa_", "time_mix_").replace("time_faaaa", "time_first");
            if name == "blocks.0.att.time_first" {
                heads = tensor.shape[0] as usize;
            }
            let mut values: Vec<f64> = tensor.to_f32().into_iter().map(f64::from).collect();
            let is_low_rank = name.ends_with("_w1") || name.ends_with("_w2");
            if is_low_rank && format.layout == Layout::Raw {
                let [.., rows, columns] = tensor.shape[..] else { panic!("`{stored}` is no matrix") };
                values = turned(&values, rows as usize, columns as usize);
            }
            tensors.insert(name, values);
        }
        let layers = (0..).take_while(|layer| tensors.contains_key(&format!("blocks.{layer}.ln1.weight"))).count();
        Self { version, group_norm_eps: GROUP_NORM_EPS, heads, layers, tensors }
    }

    /// The state before the first token.
    pub fn new_state(&self) -> State {
        let width = self.get("ln_out.weight").len();
        let zeros = || vec![0.0; width];
        let mut layer = BTreeMap::from([("att_x", zeros()), ("ffn_x", zeros())]);
        match self.version {
            Version::V4 => layer.extend([("att_aa", zeros()), ("att_bb", zeros()), ("att_pp", vec![-1e30; width])]),
            _ => layer.extend([("att_s", vec![0.0; width * width / self.heads])]),
        }
        vec![layer; self.layers]
    }

    /// Runs tokens and returns the logits after each.
    pub fn run(&self, state: &mut State, tokens: &[u32]) -> Vec<Vec<f64>> {
        tokens.iter().map(|token| self.step(state, *token as usize)).collect()
    }

    fn step(&self, state: &mut State, token: usize) -> Vec<f64> {
        let width = self.get("ln_out.weight").len();
        let mut x = self.norm("blocks.0.ln0", &self.get("emb.weight")[token * width..(token + 1) * width]);
        for (layer, state) in state.iter_mut().enumerate() {
            let name = |rest: &str| format!("blocks.{layer}.{rest}");
            let h = self.norm(&name("ln1"), &x);
            let out = if self.version == Version::V4 {
                self.average(layer, &h, state)
            } else {
                self.attend(layer, &h, state)
            };
            x = zip(&x, &self.times(&name("att.output.weight"), &out), |x, out| x + out);
            state.insert("att_x", h);
            let m = self.norm(&name("ln2"), &x);
            let mixed = |mix: &str| self.mixed(&name(&format!("ffn.time_mix_{mix}")), &m, &state["ffn_x"]);
            let k = map(&self.times(&name("ffn.key.weight"), &mixed("k")), |k| k.max(0.0).powi(2));
            let r = map(&self.times(&name("ffn.receptance.weight"), &mixed("r")), sigmoid);
            let out = zip(&r, &self.times(&name("ffn.value.weight"), &k), |r, value| r * value);
            x = zip(&x, &out, |x, out| x + out);
            state.insert("ffn_x", m);
        }
        self.times("head.weight", &self.norm("ln_out", &x))
    }

    /// RWKV-4: a weighted mean of all values so far, with sums that are kept relative to the largest exponent.
    fn average(&self, layer: usize, h: &[f64], state: &mut BTreeMap<&'static str, Vec<f64>>) -> Vec<f64> {
        let name = |rest: &str| format!("blocks.{layer}.att.{rest}");
        let mixed = |mix: &str| self.mixed(&name(&format!("time_mix_{mix}")), h, &state["att_x"]);
        let r = map(&self.times(&name("receptance.weight"), &mixed("r")), sigmoid);
        let k = self.times(&name("key.weight"), &mixed("k"));
        let v = self.times(&name("value.weight"), &mixed("v"));
        let (decay, first) = (self.get(&name("time_decay")), self.get(&name("time_first")));
        let mut out = Vec::new();
        for c in 0..h.len() {
            let (aa, bb, pp) = (state["att_aa"][c], state["att_bb"][c], state["att_pp"][c]);
            let largest = pp.max(first[c] + k[c]);
            let (past, own) = ((pp - largest).exp(), (first[c] + k[c] - largest).exp());
            out.push(r[c] * (past * aa + own * v[c]) / (past * bb + own));
            let faded = pp - decay[c].exp();
            let largest = faded.max(k[c]);
            let (past, own) = ((faded - largest).exp(), (k[c] - largest).exp());
            for (part, value) in [("att_aa", past * aa + own * v[c]), ("att_bb", past * bb + own), ("att_pp", largest)]
            {
                state.get_mut(part).expect("a part of the state")[c] = value;
            }
        }
        out
    }

    /// RWKV-5 and 6: a matrix a head.
    fn attend(&self, layer: usize, h: &[f64], state: &mut BTreeMap<&'static str, Vec<f64>>) -> Vec<f64> {
        let name = |rest: &str| format!("blocks.{layer}.att.{rest}");
        let inputs = self.inputs(layer, h, &state["att_x"]);
        let project = |matrix: &str, mix: &str| self.times(&name(matrix), &inputs[mix]);
        let (r, k, v) = (project("receptance.weight", "r"), project("key.weight", "k"), project("value.weight", "v"));
        let n = h.len() / self.heads;
        let stored = self.get(&name("time_decay")).to_vec();
        let log_decay = if self.version == Version::V6 {
            let low = map(&self.times(&name("time_decay_w1"), &inputs["w"]), f64::tanh);
            zip(&stored, &self.times(&name("time_decay_w2"), &low), |decay, change| decay + change)
        } else {
            self.widened(&stored, n)
        };
        let w = map(&log_decay, |decay| (-decay.exp()).exp());
        let first = self.widened(self.get(&name("time_first")), n);
        let u = if self.version == Version::V5_0 { map(&first, f64::exp) } else { first };
        let s = state.get_mut("att_s").expect("a part of the state");
        let mut y = vec![0.0; h.len()];
        for head in 0..self.heads {
            for i in head * n..(head + 1) * n {
                for j in 0..n {
                    let (cell, kv) = (&mut s[i * n + j], k[i] * v[head * n + j]);
                    y[head * n + j] += r[i] * (*cell + u[i] * kv);
                    *cell = w[i] * *cell + kv;
                }
            }
        }
        let standard: Vec<f64> = y.chunks_exact(n).flat_map(|head| standardised(head, self.group_norm_eps)).collect();
        let normed = self.affine(&name("ln_x"), &standard);
        if self.version == Version::V5_0 {
            return normed;
        }
        zip(&normed, &project("gate.weight", "g"), |x, g| x * g * sigmoid(g))
    }

    /// What receptance, key and so on are computed from, by their letters.
    fn inputs(&self, layer: usize, h: &[f64], previous: &[f64]) -> BTreeMap<&'static str, Vec<f64>> {
        let name = |rest: &str| format!("blocks.{layer}.att.{rest}");
        let letters: &[&'static str] = match self.version {
            Version::V5_0 => &["k", "v", "r"],
            Version::V6 => &["w", "k", "v", "r", "g"],
            _ => &["k", "v", "r", "g"],
        };
        if self.version != Version::V6 {
            let mixed =
                |letter: &&'static str| (*letter, self.mixed(&name(&format!("time_mix_{letter}")), h, previous));
            return letters.iter().map(mixed).collect();
        }
        let low = map(&self.times(&name("time_mix_w1"), &self.mixed(&name("time_mix_x"), h, previous)), f64::tanh);
        let (rank, up) = (low.len() / 5, self.get(&name("time_mix_w2")));
        let mixed = |(nth, letter): (usize, &&'static str)| {
            let matrix = &up[nth * h.len() * rank..(nth + 1) * h.len() * rank];
            let change = product(matrix, &low[nth * rank..(nth + 1) * rank]);
            let mix = zip(self.get(&name(&format!("time_mix_{letter}"))), &change, |mix, change| mix + change);
            let towards = zip(previous, h, |previous, h| previous - h);
            (*letter, zip(h, &zip(&towards, &mix, |towards, mix| towards * mix), |h, change| h + change))
        };
        letters.iter().enumerate().map(mixed).collect()
    }

    /// A token's vector and the one before it. Up to RWKV-5 the mix is the share of the token, in RWKV-6 of the other.
    fn mixed(&self, mix: &str, now: &[f64], previous: &[f64]) -> Vec<f64> {
        let own = |mix: f64| if self.version == Version::V6 { 1.0 - mix } else { mix };
        let own = map(self.get(mix), own);
        let mixed = |((now, previous), own): ((&f64, &f64), &f64)| now * own + previous * (1.0 - own);
        now.iter().zip(previous).zip(&own).map(mixed).collect()
    }

    /// A number a head, or one a channel, as one a channel.
    fn widened(&self, values: &[f64], head_size: usize) -> Vec<f64> {
        if values.len() > self.heads || head_size == 1 {
            return values.to_vec();
        }
        values.iter().flat_map(|value| std::iter::repeat_n(*value, head_size)).collect()
    }

    fn get(&self, name: &str) -> &[f64] {
        self.tensors.get(name).unwrap_or_else(|| panic!("`{name}` is missing"))
    }

    fn times(&self, name: &str, x: &[f64]) -> Vec<f64> {
        product(self.get(name), x)
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        self.affine(name, &standardised(x, LAYER_NORM_EPS).collect::<Vec<_>>())
    }

    fn affine(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let scaled = zip(x, self.get(&format!("{name}.weight")), |x, weight| x * weight);
        zip(&scaled, self.get(&format!("{name}.bias")), |x, bias| x + bias)
    }
}

/// A matrix `[out, in]` times a vector.
fn product(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    assert!(matrix.len().is_multiple_of(x.len()), "the vector fits the matrix");
    matrix.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(weight, x)| weight * x).sum()).collect()
}

/// Every matrix of a list, rows for columns.
fn turned(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let turn = |matrix: &[f64]| -> Vec<f64> {
        (0..rows * columns).map(|at| matrix[at % rows * columns + at / rows]).collect()
    };
    values.chunks_exact(rows * columns).flat_map(turn).collect()
}
