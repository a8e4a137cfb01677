//! Kernels: WGSL with a manifest, as data.
//!
//! Gets the texts of `NAME.ron` and `NAME.wgsl` ([`load`]), returns kernels whose ports, constants and accesses are
//! known. What holds then: every kernel's text parses and validates by itself, each port of the manifest is reached by
//! the text and each access is what naga's analysis found, never what somebody declared. [`compose`] writes the final
//! text for given storage formats and constants. Never knows which kernels there are or what they compute.

mod bounds;
pub mod compose;
pub mod lines;
mod load;
pub mod map;
pub mod merge;
pub mod reflect;
pub mod tune;
pub mod tuning;
mod unroll;

use crate::base::dtype::DType;
use crate::base::expr::Expr;
use crate::base::raw::{Name, Spanned};
use crate::base::span::{SourceId, Span};
use crate::kernel::tune::Tune;

pub use load::load;

/// All kernels, by name.
#[derive(Clone, Debug, Default)]
pub struct KernelLib {
    kernels: Vec<KernelDef>,
    /// Names of kernels that are there and have mistakes, which were reported.
    broken: Vec<String>,
    /// Functions that every map expression may call, if the library has such a file.
    pub map_prelude: Vec<Line>,
}

impl KernelLib {
    /// The kernel of this name.
    pub fn get(&self, name: &str) -> Option<&KernelDef> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// Whether a kernel of this name is there and has mistakes. Nothing more is to be said of ops that name it.
    pub fn is_broken(&self, name: &str) -> bool {
        self.broken.iter().any(|other| other == name)
    }

    /// Takes no author's word for the kernels that `is_trusted` does not name: they run with all checks.
    pub fn distrust(&mut self, is_trusted: &dyn Fn(&KernelDef) -> bool) {
        for kernel in &mut self.kernels {
            if !is_trusted(kernel) {
                kernel.unchecked = false;
                kernel.variants.iter_mut().for_each(|variant| variant.template.unchecked = false);
            }
        }
    }

    /// All kernels, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = &KernelDef> {
        self.kernels.iter()
    }
}

/// One kernel.
#[derive(Clone, Debug)]
pub struct KernelDef {
    /// Its name, which is that of its files.
    pub name: String,
    /// What it computes, for readers.
    pub doc: String,
    /// The whole manifest.
    pub span: Span,
    /// Whether its author vouches for every index that it computes, whatever its tensors hold: its texts then run
    /// without
    /// bounds checks, without bounds on loops, and without zeroing workgroup memory.
    pub unchecked: bool,
    /// Its ports, in the manifest's order.
    pub ports: Vec<PortDef>,
    /// Its constants, in the manifest's order.
    pub consts: Vec<ConstDef>,
    /// What must hold of its dims, its constants and the device, lest it computes something else, or nothing.
    pub needs: Vec<Spanned>,
    /// Its texts, of which the first whose guard holds is taken; the last has no guard. All of them access each port
    /// alike.
    pub variants: Vec<Variant>,
    /// What may be chosen for a device, if anything may.
    pub tune: Option<Tune>,
}

impl KernelDef {
    /// How the kernel accesses a port.
    pub fn access(&self, port: usize) -> Access {
        self.variants[0].template.ports[port].access
    }
}

/// A port: a tensor that the kernel reads or writes.
#[derive(Clone, Debug)]
pub struct PortDef {
    /// Its name, which is part of its accessors' names.
    pub name: Name,
    /// The element type of what it defines, or the one it insists on.
    pub dtype: Option<DType>,
    /// Its shape over the kernel's own dims.
    pub shape: Vec<Spanned>,
}

/// A constant: an `override` of the text.
#[derive(Clone, Debug)]
pub struct ConstDef {
    /// Its name.
    pub name: Name,
    /// Its value.
    pub value: ConstValue,
}

/// Where a constant's value comes from, unless an op gives it.
#[derive(Clone, Debug)]
pub enum ConstValue {
    /// Every op must give it.
    Required,
    /// This number.
    Number(f64),
    /// An expression over the kernel's dims and constants.
    Eval(Spanned),
}

/// One text of a kernel.
#[derive(Clone, Debug)]
pub struct Variant {
    /// When it may be taken: over the kernel's dims and constants, and what the device offers.
    pub when: Option<Spanned>,
    /// Workgroups in x, y, z, one to three of them; those left out are 1.
    pub dispatch: Vec<Spanned>,
    /// Whether the order in which it sums is the same for every size of a step and place in it; the variant without a
    /// guard's is.
    pub batch_invariant: bool,
    /// The text.
    pub template: Template,
}

/// Names that a guard may use besides dims and constants, for what the device offers.
pub const GUARD_FACTS: [&str; 7] = [
    "subgroups",
    "subgroup_size",
    "octets",
    "max_invocations",
    "max_storage_buffers",
    "workgroup_bytes",
    "cooperative_matrix",
];

/// The port and the element type of a guard's name `PORT_is_TYPE`, which is 1 if what is at the port is stored so.
pub(crate) fn format_fact(name: &str) -> Option<(&str, DType)> {
    let (port, dtype) = name.rsplit_once("_is_")?;
    let dtypes = [DType::F32, DType::F16, DType::Bf16, DType::U32];
    Some((port, dtypes.into_iter().find(|known| known.to_string() == dtype)?))
}

/// A kernel's text before storage formats and constants are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// The file.
    pub file: String,
    /// Its lines, imports spliced in.
    pub lines: Vec<Line>,
    /// The entry point.
    pub entry: String,
    /// How it reaches each port of its kernel.
    pub ports: Vec<PortUse>,
    /// Its constants: name and WGSL type.
    pub overrides: Vec<Override>,
    /// Whether it runs without checks: see [`KernelDef::unchecked`].
    pub unchecked: bool,
}

/// A constant as the text declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// Its name.
    pub name: String,
    /// `u32`, `i32`, `f32` or `bool`.
    pub ty: String,
    /// Its default, as written.
    pub default: Option<String>,
    /// Index of the line that declares it.
    pub line: usize,
}

/// One line of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The line, without its end.
    pub text: String,
    /// Where it comes from; nothing for lines that the compiler wrote.
    pub origin: Option<LineOrigin>,
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineOrigin {
    /// Which source.
    pub source: SourceId,
    /// Byte offset of the line's first character of the source.
    pub offset: u32,
    /// How many characters the compiler put before it.
    pub prefix: u32,
    /// The line's number in the source, from 1.
    pub number: u32,
}

/// How a text reaches a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// Widths of the `load_PORT…` accessors it calls, in elements, ascending: among 1, 2, 4 and 8.
    pub loads: Vec<u32>,
    /// Widths of the `store_PORT…` accessors it calls, in elements, ascending: among 1, 2 and 4.
    pub stores: Vec<u32>,
    /// Set if the text declares the port's storage itself.
    pub own: Option<OwnBinding>,
    /// What naga's analysis of the entry point found.
    pub access: Access,
}

/// A binding that the text declares itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnBinding {
    /// Its number in group 0.
    pub number: u32,
    /// Whether it is declared `read_write`.
    pub declared_write: bool,
}

/// What an entry point does with a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Access {
    /// Whether it reads.
    pub reads: bool,
    /// Whether it writes.
    pub writes: bool,
}

/// Names of WGSL that need subgroups and do not begin with the word.
const SUBGROUP_WORDS: [&str; 5] = ["num_subgroups", "quadBroadcast", "quadSwapX", "quadSwapY", "quadSwapDiagonal"];

/// Identifiers of a line, comments left out.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or("");
    code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// Whether a line has words that need subgroups.
fn uses_subgroups(line: &str) -> bool {
    words(line).any(|word| word.starts_with("subgroup") || SUBGROUP_WORDS.contains(&word))
}

/// Whether a line has words that need cooperative matrices.
fn uses_cooperative_matrices(line: &str) -> bool {
    words(line).any(|word| word.starts_with("coop") || word == "wgpu_cooperative_matrix")
}

/// Whether a line is the compiler's declaration of a binding of words of 64 bits.
fn uses_wide_words(line: &str) -> bool {
    line.starts_with("struct GraphcData") && words(line).any(|word| word == "u64")
}

/// What names begin with that the compiler writes into kernels, in any case.
const RESERVED_PREFIX: &str = "graphc";

/// Why a port, a constant or an operand cannot have this name, which becomes one of WGSL's.
pub(crate) fn unusable_name(name: &str) -> Option<String> {
    let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_word {
        return Some("expected letters, digits and `_`, a letter first".to_owned());
    }
    let is_reserved =
        name.get(..RESERVED_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX));
    let is_reserved = is_reserved || name == map::RESULT;
    is_reserved.then(|| format!("names that begin with `{RESERVED_PREFIX}`, and `{}`, are the compiler's", map::RESULT))
}

/// The first name in an expression that is not known, if any.
pub(crate) fn unknown_name<'a>(expr: &'a Expr, known: &dyn Fn(&str) -> bool) -> Option<&'a str> {
    expr.names().into_iter().find(|name| !known(name))
}
