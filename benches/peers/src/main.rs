//! graphc and web-rwkv on the same checkpoint and the same device, in turns.
//!
//! Gets the binaries `graphc` and `make_model` and the size of a published model; makes a random checkpoint of that
//! size, runs both programs on it, round after round, and prints tokens per second and their ratios. What holds then:
//! both were measured by the host's clock with nothing else of this program running; both decode greedily from the same
//! first token, the host waiting for each token's logits; a round of one follows a round of the other at once, so that
//! whatever else the machine did is in both; each has run a round before that is not counted. Never compares texts.

mod web;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Compare graphc with web-rwkv: tokens per second of decoding and of prefill
#[derive(Parser, Debug)]
#[command(max_term_width = 100)]
struct Cli {
    /// Sizes of published models, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "0.1b")]
    shape: Vec<Size>,
    /// Run this checkpoint, of safetensors in f16, instead of random ones
    #[arg(long, value_name = "FILE", conflicts_with = "shape")]
    weights: Option<PathBuf>,
    /// The program `graphc`, built with --release
    #[arg(long, value_name = "PATH", default_value = "../../target/release/graphc")]
    graphc: PathBuf,
    /// The example `make_model`, built with --release
    #[arg(long, value_name = "PATH", default_value = "../../target/release/examples/make_model")]
    make_model: PathBuf,
    /// Where random checkpoints are kept; one that is there is used again
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// Flags for `graphc bench`, as in --flag=--executor=wgpu (may be repeated)
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    flag: Vec<String>,
    /// Use the first Vulkan device with this in its name [default: the first one found]
    #[arg(long, value_name = "SUBSTRING")]
    device: Option<String>,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    prefill: u32,
    /// Tokens to decode in a round
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    decode: u32,
    /// Tokens that web-rwkv takes in one step of a prompt
    #[arg(long, default_value_t = 128)]
    chunk: usize,
    /// Rounds of each, of which one more is run before
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Sizes of published RWKV-7 models.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    #[value(name = "0.1b")]
    B0_1,
    #[value(name = "0.4b")]
    B0_4,
    #[value(name = "1.5b")]
    B1_5,
    #[value(name = "2.9b")]
    B2_9,
}

impl Size {
    /// Name, layers, heads of 64 channels, ranks of the low-rank products w, a, v, g.
    const fn shape(self) -> (&'static str, u32, u32, &'static str) {
        match self {
            Self::B0_1 => ("0.1b", 12, 12, "64,64,32,128"),
            Self::B0_4 => ("0.4b", 24, 16, "64,64,32,128"),
            Self::B1_5 => ("1.5b", 24, 32, "96,96,64,256"),
            Self::B2_9 => ("2.9b", 32, 40, "96,96,64,320"),
        }
    }
}

/// Tokens per second of one round of one program.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rates {
    /// Of the prompt, until the last token's logits are on the host.
    prefill: f64,
    /// Of decoding, the host waiting for each token.
    decode: f64,
}

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}

/// One figure of both programs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Compared {
    graphc: Spread,
    web_rwkv: Spread,
    /// graphc's by web-rwkv's, round by round.
    ratio: Spread,
}

impl Compared {
    fn of(rounds: &[(Rates, Rates)], figure: impl Fn(&Rates) -> f64) -> Self {
        let both = || rounds.iter().map(|(ours, theirs)| (figure(ours), figure(theirs)));
        Self {
            graphc: Spread::of(both().map(|(ours, _)| ours)),
            web_rwkv: Spread::of(both().map(|(_, theirs)| theirs)),
            ratio: Spread::of(both().map(|(ours, theirs)| ours / theirs)),
        }
    }
}

/// What was measured on one checkpoint.
#[derive(Clone, Debug, Serialize)]
struct Report {
    model: String,
    /// The device as each of them names it.
    device_graphc: String,
    device_web_rwkv: String,
    executor: String,
    prefill_tokens: u32,
    decode_tokens: u32,
    prefill: Compared,
    decode: Compared,
    /// graphc's and web-rwkv's, round by round.
    rounds: Vec<(Rates, Rates)>,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let models = match &cli.weights {
        Some(path) => vec![(path.display().to_string(), path.clone())],
        None => cli.shape.iter().map(|size| made(cli, *size)).collect::<Result<_, _>>()?,
    };
    let mut reports = Vec::new();
    for (name, path) in &models {
        let report = compare(cli, name, path)?;
        if !cli.json {
            print!("{}", table(&report));
        }
        reports.push(report);
    }
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    Ok(())
}

/// The random checkpoint of a size, made unless it is there.
fn made(cli: &Cli, size: Size) -> Result<(String, PathBuf), Failure> {
    let (name, layers, heads, ranks) = size.shape();
    let path = cli.models.join(format!("rwkv7-{name}.safetensors"));
    if !path.is_file() {
        std::fs::create_dir_all(&cli.models)?;
        // Under another name first: what is half written is not found next time.
        let unfinished = path.with_extension("unfinished");
        let mut command = Command::new(&cli.make_model);
        command.arg(&unfinished).args(["--layers", &layers.to_string(), "--heads", &heads.to_string()]);
        command.args(["--head-size", "64", "--vocab", "65536", "--ranks", ranks, "--dtype", "f16"]);
        output_of(&mut command)?;
        std::fs::rename(&unfinished, &path)?;
    }
    Ok((name.to_owned(), path))
}

/// What a program printed, having ended well.
fn output_of(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let program = command.get_program().display().to_string();
    let output = command.output().map_err(|error| format!("cannot run `{program}`: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("`{program}`, {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// Runs both in turns.
fn compare(cli: &Cli, name: &str, path: &Path) -> Result<Report, Failure> {
    let mut theirs = web::Model::open(path, cli.device.as_deref(), cli.chunk)?;
    let mut rounds = Vec::new();
    let mut found = (String::new(), String::new());
    for round in 0..=cli.rounds {
        let ours = graphc(cli, path)?;
        let rates = Rates { prefill: theirs.prefill(cli.prefill)?, decode: theirs.decode(cli.decode)? };
        if !cli.json {
            eprintln!(
                "{name}, round {round} of {}: graphc {:.1}, web-rwkv {:.1}",
                cli.rounds, ours.0.decode, rates.decode
            );
        }
        if round > 0 {
            rounds.push((ours.0, rates));
        }
        found = (ours.1, ours.2);
    }
    Ok(Report {
        model: name.to_owned(),
        device_graphc: found.0,
        device_web_rwkv: theirs.device().to_owned(),
        executor: found.1,
        prefill_tokens: cli.prefill,
        decode_tokens: cli.decode,
        prefill: Compared::of(&rounds, |rates| rates.prefill),
        decode: Compared::of(&rounds, |rates| rates.decode),
        rounds,
    })
}

/// A round of graphc, which runs one before that it does not count; with the names of its device and executor.
fn graphc(cli: &Cli, path: &Path) -> Result<(Rates, String, String), Failure> {
    let mut command = Command::new(&cli.graphc);
    command.args(["bench", "--format", "json", "--rounds", "1", "--weights"]).arg(path);
    command.args(["--prefill", &cli.prefill.to_string(), "--decode", &cli.decode.to_string()]);
    if let Some(device) = &cli.device {
        command.args(["--device", device]);
    }
    command.args(&cli.flag);
    let report: serde_json::Value = serde_json::from_slice(&output_of(&mut command)?)?;
    let number = |field: &str| report[field].as_f64().ok_or(format!("`graphc bench` gives no `{field}`"));
    let text = |field: &str| report[field].as_str().unwrap_or("unknown").to_owned();
    let rates = Rates { prefill: number("prefill_tokens_per_s")?, decode: number("decode_tokens_per_s")? };
    Ok((rates, text("device"), text("executor")))
}

/// The report for readers.
fn table(report: &Report) -> String {
    let line = |what: String, compared: &Compared| {
        let Compared { graphc, web_rwkv, ratio } = compared;
        format!(
            "{what:<14}{:>10.1}{:>12.1}{:>9.2} ({:.2} to {:.2})\n",
            graphc.median, web_rwkv.median, ratio.median, ratio.min, ratio.max
        )
    };
    let Report { model, device_graphc, executor, rounds, .. } = report;
    let mut out = format!("{model}, {device_graphc}, graphc on {executor}, {} rounds, tokens/s\n", rounds.len());
    out += &format!("{:<14}{:>10}{:>12}{:>9} (least to most)\n", "", "graphc", "web-rwkv", "ratio");
    out += &line(format!("prefill {}", report.prefill_tokens), &report.prefill);
    out += &line(format!("decode {}", report.decode_tokens), &report.decode);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let rates = |decode| Rates { prefill: 1.0, decode };
        let rounds = [(rates(10.0), rates(5.0)), (rates(30.0), rates(10.0)), (rates(8.0), rates(8.0))];
        let compared = Compared::of(&rounds, |rates| rates.decode);
        assert_eq!((compared.ratio.min, compared.ratio.median, compared.ratio.max), (1.0, 2.0, 3.0));
        assert_eq!((compared.graphc.median, compared.web_rwkv.median), (10.0, 8.0));
    }
}
