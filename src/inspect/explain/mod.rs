//! Why a plan is as it is: one barrier, transition, value, buffer, command or level of it, explained.
//!
//! Gets a checked plan, also one from a file, and what somebody asks about; returns an [`Explanation`] as data, which
//! [`print()`] turns into text. What holds then: every command, line and place in it is one of the plan's; lines are
//! those that naga finds in the kernels' texts, and what would go wrong is what the [oracle](crate::inspect::oracle)
//! finds in a copy of the plan without the transition. Never looks at graphs, shaders or devices: the plan alone has to
//! do.

mod chain;
mod facts;
mod target;
mod text;

use serde::Serialize;

use crate::base::step::StepShape;
use crate::plan::CheckedPlan;

pub use target::Unknown;
pub use text::print;

/// Explains one thing of a plan: `b12` or `leave` a barrier, `b12.3` or `12.3` a transition, `d17` or its label a
/// command, `level 12` a level, `slot4` or `buf61` a buffer, a path such as `layer3.wkv` a value. A path that names
/// both a value and a command means the value; `op layer3.wkv` means the command.
///
/// # Errors
/// If the plan has no such thing: what there is instead.
pub fn explain(plan: &CheckedPlan, what: &str) -> Result<Explanation, Unknown> {
    let facts = facts::Facts::new(plan);
    let target = target::find(&facts, what)?;
    let subject = facts.subject(target);
    Ok(Explanation { graph: plan.graph.clone(), shape: plan.shape, subject })
}

/// What was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Name of the graph.
    pub graph: String,
    /// The numbers its plan is made for.
    pub shape: StepShape,
    /// What was asked about.
    pub subject: Subject,
}

/// What an explanation is about.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// All transitions before a level.
    Barrier(BarrierFacts),
    /// One of them.
    Transition(TransitionFacts),
    /// A value in a slot.
    Value(ValueFacts),
    /// A buffer.
    Buffer(BufferFacts),
    /// A dispatch or a copy.
    Command(CommandFacts),
    /// Commands of which none depends on another.
    Level(LevelFacts),
}

/// A barrier.
#[derive(Clone, Debug, Serialize)]
pub struct BarrierFacts {
    /// As in `b12`.
    pub name: String,
    /// Whether it is the one that ends the step.
    pub leaves: bool,
    /// Its transitions, without their chains: the barrier's is the same.
    pub transitions: Vec<TransitionFacts>,
    /// The commands that stand behind it; none behind the leaving one.
    pub commands: Vec<CommandName>,
    /// Why its level cannot come earlier.
    pub chain: Vec<Link>,
}

/// A transition.
#[derive(Clone, Debug, Serialize)]
pub struct TransitionFacts {
    /// As in `b12.3`; without the `b`, what `run --drop-transition` takes.
    pub name: String,
    /// Its buffer.
    pub buffer: BufferName,
    /// The usage before it.
    pub from: String,
    /// The usage behind it.
    pub to: String,
    /// `RAW`, `WAR`, `WAW`, or `RAR` for a change of usage alone.
    pub hazard: String,
    /// Who used the buffer since the transition before.
    pub before: Vec<Touch>,
    /// Who uses it until the next transition.
    pub after: Vec<Touch>,
    /// How many uses there are between the transitions around it of bytes that it does not concern.
    pub elsewhere: usize,
    /// The values that live where it is about, if the buffer is a slot.
    pub tenants: Vec<Tenant>,
    /// How many values the slot has.
    pub tenant_count: usize,
    /// Whether accesses right before and behind it conflict. If not, it changes the usage of other bytes of the buffer,
    /// and with them that of all.
    pub is_direct: bool,
    /// What nothing would order without it: the accesses right before and behind it, or else those nearest to it.
    pub without: Vec<Danger>,
    /// How many further pairs of accesses nothing would order.
    pub further: usize,
    /// Why the first command behind it cannot run earlier.
    pub chain: Vec<Link>,
}

/// A value in a slot.
#[derive(Clone, Debug, Serialize)]
pub struct ValueFacts {
    /// The value and its life.
    pub value: Tenant,
    /// Its slot.
    pub buffer: BufferName,
    /// Bytes of the slot.
    pub slot_bytes: u64,
    /// Who writes it.
    pub writers: Vec<Touch>,
    /// Who reads it.
    pub readers: Vec<Touch>,
    /// Who had any of its bytes before it.
    pub before: Option<Tenant>,
    /// Who has any of them after it.
    pub after: Option<Tenant>,
    /// Who lives beside it in the slot at the same time.
    pub beside: Vec<Tenant>,
    /// How many values share the slot, itself included.
    pub tenant_count: usize,
    /// The transitions of the slot while it lives there, and the one that ends its life.
    pub transitions: Vec<String>,
}

/// A buffer.
#[derive(Clone, Debug, Serialize)]
pub struct BufferFacts {
    /// The buffer.
    pub buffer: BufferName,
    /// Its size.
    pub size_bytes: u64,
    /// The usage in which it enters and leaves a step.
    pub rest: String,
    /// The name that was asked for, where that lies in the buffer.
    pub piece: Option<Piece>,
    /// The values that live in it, if it is a slot.
    pub tenants: Vec<Tenant>,
    /// Who uses it, in order.
    pub uses: Vec<Touch>,
    /// Its transitions.
    pub transitions: Vec<String>,
}

/// A weight or an input in its buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// Its name, as in `w.emb.weight`.
    pub name: String,
    /// First byte.
    pub offset_bytes: u64,
    /// Length.
    pub size_bytes: u64,
}

/// A dispatch or a copy.
#[derive(Clone, Debug, Serialize)]
pub struct CommandFacts {
    /// The command.
    pub command: CommandName,
    /// Workgroups in x, y, z; nothing for a copy.
    pub workgroups: Option<[u32; 3]>,
    /// What it touches, binding by binding.
    pub touches: Vec<BoundTo>,
    /// The transitions that stand before its level for a buffer of its own.
    pub transitions: Vec<String>,
    /// The commands of this step that it has to wait for, each with the reason.
    pub needs: Vec<Link>,
    /// Why it cannot run earlier.
    pub chain: Vec<Link>,
}

/// A binding of a command, or an end of a copy.
#[derive(Clone, Debug, Serialize)]
pub struct BoundTo {
    /// The buffer.
    pub buffer: BufferName,
    /// First byte.
    pub offset_bytes: u64,
    /// Length.
    pub size_bytes: u64,
    /// What happens there.
    pub port: PortLines,
}

/// A level.
#[derive(Clone, Debug, Serialize)]
pub struct LevelFacts {
    /// Its number.
    pub level: u32,
    /// Its commands.
    pub commands: Vec<CommandName>,
    /// The transitions before it.
    pub transitions: Vec<String>,
    /// The values alive in it.
    pub alive: Vec<Tenant>,
    /// Their bytes.
    pub alive_bytes: u64,
    /// Why it cannot come earlier.
    pub chain: Vec<Link>,
}

/// A buffer by its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BufferName {
    /// As in `buf61`.
    pub id: String,
    /// As in `slot4`.
    pub label: String,
    /// `weight`, `state`, `slot`, `input`, `host-write` or `host-read`.
    pub kind: &'static str,
}

/// A command by its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandName {
    /// As in `d17`; `copy` for a copy.
    pub name: String,
    /// As in `layer3.wkv`.
    pub label: String,
    /// Its level.
    pub level: u32,
    /// Its kernel; nothing for a copy.
    pub kernel: Option<String>,
    /// Its place in the graph, as `file:line:column`; nothing for a copy.
    pub place: Option<String>,
}

/// Which step a use belongs to, seen from the one that is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The step before.
    Before,
    /// The step itself.
    Now,
    /// The step after it.
    Next,
}

/// A use of a buffer.
#[derive(Clone, Debug, Serialize)]
pub struct Touch {
    /// In which step.
    pub when: When,
    /// Who; nothing if it is the host.
    pub command: Option<CommandName>,
    /// Whether it reads the buffer.
    pub reads: bool,
    /// Whether it writes it.
    pub writes: bool,
    /// Where it does so.
    pub ports: Vec<PortLines>,
}

/// How a kernel reaches a binding.
#[derive(Clone, Debug, Serialize)]
pub struct PortLines {
    /// The ports that are bound there, as in `offsets, places`.
    pub port: String,
    /// What lies there, if it has a path of its own.
    pub value: Option<String>,
    /// Whether it is read.
    pub reads: bool,
    /// Whether it is written.
    pub writes: bool,
    /// The lines that do it.
    pub lines: Vec<SourceLine>,
}

/// A line of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceLine {
    /// The author's file; nothing if the compiler wrote the line and no author's line is behind it.
    pub file: Option<String>,
    /// Its line there, from 1; in the kernel's complete text if there is no file.
    pub line: u32,
    /// The line itself.
    pub text: String,
    /// Whether it reads the binding.
    pub reads: bool,
    /// Whether it writes it.
    pub writes: bool,
}

/// A value that lives in a slot for some levels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tenant {
    /// Its path.
    pub path: String,
    /// Element type and shape, as in `f32[1, 256]`.
    pub shape: String,
    /// Its first byte in the slot.
    pub offset_bytes: u64,
    /// Its bytes.
    pub size_bytes: u64,
    /// The level that writes it.
    pub first_level: u32,
    /// The last level that uses it.
    pub last_level: u32,
}

/// Two accesses that nothing orders once a transition is gone.
#[derive(Clone, Debug, Serialize)]
pub struct Danger {
    /// `RAW`, `WAR` or `WAW`.
    pub hazard: String,
    /// Who comes first in the plan.
    pub first: String,
    /// Who comes second.
    pub second: String,
    /// What may go wrong, in words.
    pub words: String,
}

/// A member of a chain of commands, each of which depends on the one before.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// The command.
    pub command: CommandName,
    /// Why it has to wait for the one before it, as in "reads `emb`"; nothing for the first.
    pub because: Option<String>,
}
