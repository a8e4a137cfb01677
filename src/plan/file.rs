//! Plans as files: versioned RON that holds everything a step needs but weights and inputs.
//!
//! Gets a checked plan, returns text; gets text, returns a plan that is not yet checked. What holds then: the text has
//! this program's plan version. Never trusts the text further: [`check`](crate::plan::check::check) does the rest, and
//! [`digest`] shows what no check can, such as another formula in a kernel.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::plan::{PLAN_VERSION, Plan};

/// First line of a plan file, for people and for telling plans from graphs.
pub const HEADER: &str = "// graphc plan";

/// A plan and whose weights it was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "PlanFile", deny_unknown_fields)]
pub struct PlanFile {
    /// [`PLAN_VERSION`] of the program that wrote it.
    pub version: u32,
    /// The program that wrote it, for people.
    pub made_by: String,
    /// [`Checkpoint::fingerprint`](crate::checkpoint::Checkpoint::fingerprint) of the weights.
    pub model: String,
    /// [`digest`] of the rest when it was made.
    pub digest: String,
    /// The plan.
    pub plan: Plan,
}

/// A name for a plan and the weights it is for: the first 64 bits of a SHA-256 over all that a file holds of both, not
/// over its layout and comments. It shows accidents; who means to change a file can write the digest that goes with it.
pub fn digest(plan: &Plan, model: &str) -> String {
    let body = ron::to_string(&(model, plan)).expect("plans hold nothing that RON cannot");
    Sha256::digest(body).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The part of a file that says whether the rest can be understood.
#[derive(Deserialize)]
#[serde(rename = "PlanFile")]
struct Version {
    version: u32,
}

/// A plan as the text of a file. Equal plans give equal texts.
pub fn to_text(plan: &Plan, model: &str) -> String {
    let file = PlanFile {
        version: PLAN_VERSION,
        made_by: concat!("graphc ", env!("CARGO_PKG_VERSION")).to_owned(),
        model: model.to_owned(),
        digest: digest(plan, model),
        plan: plan.clone(),
    };
    let pretty = ron::ser::PrettyConfig::new().depth_limit(5).compact_arrays(true);
    let body = ron::ser::to_string_pretty(&file, pretty).expect("plans hold nothing that RON cannot");
    format!("{HEADER}\n{body}\n")
}

/// The plan in the text of a file.
///
/// # Errors
/// If the text is no plan file, or one of another version: what is wrong and where, as `line:column`.
pub fn from_text(text: &str) -> Result<PlanFile, String> {
    let place =
        |error: ron::error::SpannedError| format!("{}:{}: {}", error.span.start.line, error.span.start.col, error.code);
    let found: Version = ron::from_str(text).map_err(place)?;
    if found.version != PLAN_VERSION {
        return Err(format!("it has plan version {}, this program reads version {PLAN_VERSION}", found.version));
    }
    ron::from_str(text).map_err(place)
}
