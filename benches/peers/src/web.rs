//! web-rwkv, as its own benchmark runs it.
//!
//! Gets a checkpoint, a device and how much to run; returns tokens per second. What holds then: every run begins in the
//! initial state, as graphc's does, and the logits of every token decoded were on the host. It is spared the softmax on
//! the device that its own benchmark runs for each token, since graphc is not asked for one either.

use std::path::Path;
use std::time::Instant;

use half::f16;
use memmap2::Mmap;
use safetensors::SafeTensors;
use web_rwkv::context::ContextBuilder;
use web_rwkv::runtime::infer::{Rnn, RnnInput, RnnInputBatch, RnnOption};
use web_rwkv::runtime::loader::Loader;
use web_rwkv::runtime::model::{Bundle as _, ContextAutoLimits, ModelBuilder, State as _};
use web_rwkv::runtime::{TokioRuntime, v7};

use crate::Failure;

/// Takes the state back to before the first token.
type Reset = Box<dyn Fn() -> Result<(), Failure>>;

/// A model on a device.
pub struct Model {
    tokio: tokio::runtime::Runtime,
    runtime: TokioRuntime<Rnn>,
    reset: Reset,
    vocabulary: usize,
    chunk: usize,
    device: String,
}

impl Model {
    /// Loads a checkpoint of f16 onto the first Vulkan device with `device` in its name.
    pub fn open(path: &Path, device: Option<&str>, chunk: usize) -> Result<Self, Failure> {
        let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let file = std::fs::File::open(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        // SAFETY: the file is not written while this program runs; it is mapped until the weights are on the device.
        let bytes = unsafe { Mmap::map(&file) }?;
        let (name, runtime, reset, vocabulary) = tokio.block_on(async {
            let tensors = SafeTensors::deserialize(&bytes)?;
            let info = Loader::info(&tensors)?;
            let instance = wgpu::Instance::default();
            let adapters = instance.enumerate_adapters(wgpu::Backends::VULKAN).await;
            let wanted = |adapter: &wgpu::Adapter| device.is_none_or(|part| adapter.get_info().name.contains(part));
            let adapter = adapters.into_iter().find(wanted).ok_or("no such Vulkan device")?;
            let name = adapter.get_info().name;
            let context = ContextBuilder::new(adapter).auto_limits(&info).build().await?;
            let model = ModelBuilder::new(&context, tensors).build_v7().await?;
            let bundle = v7::Bundle::<f16>::new(model, 1);
            let state = bundle.state();
            let reset: Reset = Box::new(move || Ok(state.load(state.init(), 0)?));
            let runtime = TokioRuntime::new(bundle).await;
            Ok::<_, Failure>((name, runtime, reset, info.num_vocab))
        })?;
        Ok(Self { tokio, runtime, reset, vocabulary, chunk, device: name })
    }

    /// The device's name.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Runs a prompt; tokens per second until the last one's logits are on the host.
    pub fn prefill(&mut self, count: u32) -> Result<f64, Failure> {
        (self.reset)()?;
        let tokens: Vec<u32> = (0..count).map(|token| token % self.vocabulary as u32).collect();
        let began = Instant::now();
        self.run(self.input(tokens))?;
        Ok(f64::from(count) / began.elapsed().as_secs_f64())
    }

    /// Decodes greedily from token 0; tokens per second.
    pub fn decode(&mut self, count: u32) -> Result<f64, Failure> {
        (self.reset)()?;
        let mut input = self.input(vec![0]);
        let began = Instant::now();
        for _ in 0..count {
            let (rest, logits) = self.run(input)?;
            input = rest;
            let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
            input.batches[0].push(best.map_or(0, |(token, _)| token as u32));
        }
        Ok(f64::from(count) / began.elapsed().as_secs_f64())
    }

    fn input(&self, tokens: Vec<u32>) -> RnnInput {
        RnnInput::new(vec![RnnInputBatch::new(tokens, RnnOption::Last)], self.chunk)
    }

    /// Runs all tokens of an input, chunk by chunk; returns what is to be gone on with, and the last one's logits.
    fn run(&self, mut input: RnnInput) -> Result<(RnnInput, Vec<f32>), Failure> {
        self.tokio.block_on(async {
            loop {
                let (rest, output) = self.runtime.infer(input).await?;
                input = rest;
                let logits = output[0].0.to_vec();
                if !logits.is_empty() {
                    return Ok((input, logits));
                }
            }
        })
    }
}
