//! How long planning takes, by the depth of a model.
//!
//! Gets numbers of layers; writes a random RWKV-7 of each depth to a temporary file, compiles it for a step of one
//! token, and prints the time of each stage, the least of several runs, and the whole by op. What then holds: nothing
//! but planning was timed. Never runs a plan.
//!
//! ```sh
//! cargo run --release --example plan_cost -- 8 32 128 512 1000
//! ```

#[path = "../tests/support/models.rs"]
mod models;

use std::time::{Duration, Instant};

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::model::Request;
use graphc::plan::lower;
use graphc::{graph, kernel, model, plan, schedule, sources};
use models::{Format, Shape, write_model};

/// Runs of which the fastest counts.
const RUNS: u32 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let depths: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let depths = if depths.is_empty() { vec![8, 32, 128] } else { depths };
    println!("| layers | ops | levels | transitions | build | schedule | lower | check | all | a thousand ops |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for layers in depths {
        println!("{}", row(layers)?);
    }
    Ok(())
}

/// The line of a depth.
fn row(layers: usize) -> Result<String, Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("graphc-plan-cost-{}.safetensors", std::process::id()));
    let (heads, head_size, vocab) = (1, 16, 64);
    let ranks = (8, 8, 8, 8);
    let shape = Shape {
        layers,
        heads,
        head_size,
        ffn: 64,
        vocab,
        rank_w: ranks.0,
        rank_a: ranks.1,
        rank_v: ranks.2,
        rank_g: ranks.3,
    };
    write_model(&path, &shape, 1, &Format::converted(DType::F16))?;
    let checkpoint = Checkpoint::open(&path);
    std::fs::remove_file(&path)?;
    let checkpoint = checkpoint?;
    let mut texts = SourceMap::new();
    let (kernels, _) = kernel::load(&mut texts, &sources::shaders(None)?);
    let (path, text) =
        sources::graphs(None)?.into_iter().find(|(path, _)| path == "rwkv7.ron").ok_or("no such graph")?;
    let source = texts.add(path, text);
    let graph = graph::parse(&texts, source).map_err(|wrong| format!("{wrong:?}"))?;
    let limits = Limits::vulkan();
    let shape = StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 };
    let request =
        Request { shape, limits: &limits, keep: &[], batch_invariant: false, draws: false, tuning: None, copies: true };
    let mut least = [Duration::MAX; 4];
    let mut line = String::new();
    for _ in 0..RUNS {
        let mut began = Instant::now();
        let mut lap = |stage: usize| {
            least[stage] = least[stage].min(began.elapsed());
            began = Instant::now();
        };
        let wrong = |wrong| format!("{wrong:?}");
        let (model, _) = model::build(&graph, &kernels, &texts, checkpoint.index(), &request).map_err(wrong)?;
        lap(0);
        let schedule = schedule::build(&model).map_err(wrong)?;
        lap(1);
        let layout = lower::lay_out(&model, &[], &[]);
        let rests = lower::state_rests(&model, &schedule);
        let plan = lower::lower(&model, &schedule, &texts, &limits, &layout, &rests).map_err(wrong)?;
        lap(2);
        let plan = plan::check::check(plan).map_err(|errors| format!("{errors:?}"))?;
        lap(3);
        let summary = plan.summary();
        let all: Duration = least.iter().sum();
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        let times: Vec<String> = least.iter().map(|time| ms(*time)).collect();
        let ops = model.ops.len();
        line = format!(
            "| {layers} | {ops} | {} | {} | {} | {} | {} |",
            summary.levels,
            summary.transitions,
            times.join(" | "),
            ms(all),
            ms(all * 1000 / ops as u32)
        );
    }
    Ok(line)
}
