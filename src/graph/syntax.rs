//! The grammar of a graph file, as serde sees it.
//!
//! Gets RON, returns the outermost structure with its parts still raw, so that each can be read, and complained about,
//! by itself. Unknown fields are refused. Never resolves a name.

use serde::Deserialize;

use crate::base::dtype::DType;
use crate::base::raw::{Entries, Raw};
use crate::base::role::{InputRole, OutputRole};

#[derive(Deserialize)]
#[serde(rename = "Graph", deny_unknown_fields)]
pub(super) struct GraphSyntax<'a> {
    #[serde(borrow)]
    pub name: Raw<'a>,
    #[serde(default)]
    pub doc: String,
    #[serde(borrow)]
    pub detect: Raw<'a>,
    #[serde(borrow, default)]
    pub settings: Entries<'a>,
    #[serde(borrow, default)]
    pub aliases: Entries<'a>,
    #[serde(borrow, default)]
    pub weights: Entries<'a>,
    #[serde(borrow, default)]
    pub layouts: Vec<Raw<'a>>,
    #[serde(borrow)]
    pub dims: Entries<'a>,
    #[serde(borrow, default)]
    pub state: Entries<'a>,
    #[serde(borrow)]
    pub inputs: Entries<'a>,
    #[serde(borrow)]
    pub outputs: Entries<'a>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub carry: Option<Raw<'a>>,
    #[serde(borrow)]
    pub ops: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
#[serde(rename = "Carry", deny_unknown_fields)]
pub(super) struct CarrySyntax<'a> {
    #[serde(borrow, default)]
    pub state: Entries<'a>,
    #[serde(borrow, default)]
    pub inputs: Entries<'a>,
    #[serde(borrow)]
    pub outputs: Entries<'a>,
}

#[derive(Deserialize)]
#[serde(rename = "Detect", deny_unknown_fields)]
pub(super) struct DetectSyntax<'a> {
    #[serde(borrow)]
    pub has: Vec<Raw<'a>>,
    #[serde(borrow, default)]
    pub lacks: Vec<Raw<'a>>,
    #[serde(borrow, default)]
    pub when: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
#[serde(rename = "Part", deny_unknown_fields)]
pub(super) struct PartSyntax<'a> {
    #[serde(default, rename = "doc")]
    pub _doc: String,
    #[serde(borrow, default)]
    pub takes: Vec<Raw<'a>>,
    #[serde(borrow)]
    pub ops: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
#[serde(rename = "Layout", deny_unknown_fields)]
pub(super) struct LayoutSyntax<'a> {
    #[serde(borrow)]
    pub name: Raw<'a>,
    #[serde(borrow, default)]
    pub transposed: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
pub(super) enum DimSyntax<'a> {
    Weight(#[serde(borrow)] Raw<'a>, u32),
    Count(#[serde(borrow)] Raw<'a>),
    Elements(#[serde(borrow)] Raw<'a>),
    Eval(#[serde(borrow)] Raw<'a>),
    Tokens,
    Sequences,
    Rows,
    Capacity,
    Draws,
}

#[derive(Deserialize)]
#[serde(rename = "State", deny_unknown_fields)]
pub(super) struct StateSyntax<'a> {
    pub dtype: DType,
    #[serde(borrow, default, deserialize_with = "given")]
    pub per: Option<Raw<'a>>,
    #[serde(borrow)]
    pub shape: Vec<Raw<'a>>,
    #[serde(borrow)]
    pub init: Raw<'a>,
}

/// What a state may be instead of a number; the number is for checkpoints without the weight.
#[derive(Deserialize)]
pub(super) enum InitSyntax<'a> {
    Weight(#[serde(borrow)] Raw<'a>, f32),
    Transposed(#[serde(borrow)] Raw<'a>, f32),
}

/// A field that may be left out, written without `Some(…)`.
fn given<'de: 'a, 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Raw<'a>>, D::Error> {
    Raw::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(rename = "Input")]
pub(super) struct InputSyntax<'a>(pub InputRole, #[serde(borrow)] pub Vec<Raw<'a>>);

#[derive(Deserialize)]
#[serde(rename = "Output")]
pub(super) struct OutputSyntax(pub OutputRole);

#[derive(Deserialize)]
pub(super) enum NodeSyntax<'a> {
    Op(#[serde(borrow)] Raw<'a>, #[serde(borrow)] Entries<'a>),
    Map(#[serde(borrow)] Raw<'a>, #[serde(borrow)] Entries<'a>, #[serde(borrow)] Raw<'a>),
    Let(#[serde(borrow)] Raw<'a>, #[serde(borrow)] Raw<'a>),
    ForEach(#[serde(borrow)] Raw<'a>, #[serde(borrow)] Raw<'a>, #[serde(borrow)] Vec<Raw<'a>>),
    If(#[serde(borrow)] Raw<'a>, #[serde(borrow)] Vec<Raw<'a>>, #[serde(borrow)] Vec<Raw<'a>>),
    Include(#[serde(borrow)] Raw<'a>, #[serde(borrow)] Entries<'a>),
}

#[derive(Deserialize)]
pub(super) enum ArgSyntax<'a> {
    #[serde(borrow)]
    Eval(Raw<'a>),
    #[serde(borrow)]
    Setting(Raw<'a>),
}
