//! What a graph may reach in a step of any size: the weights that it uses.
//!
//! Gets a graph, kernels and the dims of one step; returns the same for every step of the graph on a checkpoint, since
//! a session holds the weights once for steps of all kinds. Where a condition or a count depends on the kind of a step,
//! both branches and every round count. What holds then: each weight that some step uses and the checkpoint has is
//! among those found. Never reports: what is wrong with a graph is found when it is built.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::expr::Expr;
use crate::checkpoint::Index;
use crate::graph::{Arg, DimKind, Graph, Layout, Node};
use crate::kernel::KernelLib;
use crate::model::WeightTensor;
use crate::model::build::{MAX_OPS, substitute};
use crate::model::dims::Dims;
use crate::model::weights::{find, is_transposable, logical_shape};

/// What steps may reach.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    /// The weights, by name.
    pub(super) weights: BTreeMap<String, Use>,
    /// Whether all of the graph was looked at: there is a bound on unrolling.
    pub(super) is_complete: bool,
}

/// How a weight is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// Its name with `{}` for the layer's number.
    pattern: String,
    /// The layer's number, if the name has one.
    index: Option<u64>,
    /// Whether a kernel may reach it through a binding of its text's own, which begins at the weight.
    bound_alone: bool,
}

/// Looks at all branches that a step may take.
pub(super) fn reach(graph: &Graph, lib: &KernelLib, index: &Index, dims: &Dims<'_>) -> Reach {
    let found = Reach { weights: BTreeMap::new(), is_complete: true };
    let step_dims = step_dims(graph);
    // A name with a number beyond the number of tensors is no tensor's, or one of a gap, before which the graph fails.
    let most_rounds = index.names().count() as u64;
    let alone = bound_alone(graph, lib);
    let mut walk = Walk { dims, alone, step_dims, most_rounds, variables: Vec::new(), left: MAX_OPS, found };
    walk.nodes(&graph.ops);
    walk.found
}

impl Reach {
    /// The weights that the checkpoint has, as a session holds them, in the order of their names.
    pub(super) fn tensors(&self, graph: &Graph, index: &Index, layout: &Layout) -> Vec<WeightTensor> {
        let tensor = |(name, used): (&String, &Use)| {
            let (shape, transpose) = logical_shape(graph, index, layout, name)?;
            let (stored, info) = find(graph, index, name)?;
            let dtype = *info.dtype.as_ref().ok()?;
            let count = shape.iter().try_fold(1_u64, |count, extent| count.checked_mul(*extent))?;
            // What cannot be read is refused where it is used.
            (count > 0 && is_transposable(graph, index, layout, name)).then(|| WeightTensor {
                tensor: stored.into_owned(),
                pattern: used.pattern.clone(),
                index: used.index,
                dtype,
                count,
                matrix: if let [.., rows, columns] = shape[..] { Some((rows, columns)) } else { None },
                transpose,
                bound_alone: used.bound_alone,
            })
        };
        self.weights.iter().filter_map(tensor).collect()
    }
}

/// Names of the dims whose value depends on the size of a step, or on whether it draws.
fn step_dims(graph: &Graph) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    // Each round finds the dims that depend on those found before it: a chain is no longer than there are dims.
    loop {
        let before = found.len();
        for dim in &graph.dims {
            let depends = match &dim.kind {
                DimKind::Tokens | DimKind::Sequences | DimKind::Rows | DimKind::Draws => true,
                DimKind::Eval(spanned) => depends_on(&spanned.expr, &found, &[]),
                DimKind::Weight { .. } | DimKind::Count { .. } | DimKind::Elements { .. } | DimKind::Capacity => false,
            };
            if depends {
                found.insert(dim.name.text.as_str());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Whether an expression asks for one of these dims; loop variables come first.
fn depends_on(expr: &Expr, dims: &BTreeSet<&str>, variables: &[(String, u64)]) -> bool {
    let is_variable = |name: &str| variables.iter().any(|(variable, _)| variable == name);
    expr.names().into_iter().any(|name| dims.contains(name) && !is_variable(name))
}

/// Names of weights, as the graph spells them, at ports that a text binds by itself, in any branch and any variant of
/// the kernel.
fn bound_alone(graph: &Graph, lib: &KernelLib) -> BTreeSet<String> {
    let (mut lets, mut ops) = (Vec::new(), Vec::new());
    collect(&graph.ops, &mut lets, &mut ops);
    // What each further name may stand for. Such a name may get a further one: rounds go on as long as they find more,
    // of which there is an end, since none is ever taken away.
    let mut roots: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut finds_more = true;
    while std::mem::take(&mut finds_more) {
        for (name, value) in &lets {
            let is_weight = value.starts_with("w.");
            let found =
                if is_weight { BTreeSet::from([*value]) } else { roots.get(value).cloned().unwrap_or_default() };
            let known = roots.entry(name).or_default();
            finds_more |= !found.is_subset(known);
            known.extend(found);
        }
    }
    let mut alone = BTreeSet::new();
    for (kernel, args) in ops {
        let Some(kernel) = lib.get(kernel) else { continue };
        for (at, port) in kernel.ports.iter().enumerate() {
            let given = args.iter().find(|(name, _)| *name == port.name).map(|(_, arg)| arg);
            if let Some(Arg::Tensor(given)) = given
                && kernel.variants.iter().any(|variant| variant.template.ports[at].own.is_some())
            {
                let further = roots.get(given.text.as_str()).into_iter().flatten().copied();
                alone.extend(further.chain([given.text.as_str()]).map(str::to_owned));
            }
        }
    }
    alone
}

/// Every further name with what it stands for, and every op, branches and loops as they are written.
fn collect<'g>(
    nodes: &'g [Node],
    lets: &mut Vec<(&'g str, &'g str)>,
    ops: &mut Vec<(&'g str, &'g [(crate::base::raw::Name, Arg)])>,
) {
    for node in nodes {
        match node {
            Node::Op { kernel, args } => ops.push((&kernel.text, args)),
            Node::Map { .. } => {}
            Node::Let { name, value } => lets.push((&name.text, &value.text)),
            Node::ForEach { body, .. } => collect(body, lets, ops),
            Node::If { then, otherwise, .. } => {
                collect(then, lets, ops);
                collect(otherwise, lets, ops);
            }
        }
    }
}

/// Unrolls the graph and notes every weight.
struct Walk<'a> {
    dims: &'a Dims<'a>,
    alone: BTreeSet<String>,
    step_dims: BTreeSet<&'a str>,
    most_rounds: u64,
    variables: Vec<(String, u64)>,
    /// Counts down nodes and rounds of loops.
    left: usize,
    found: Reach,
}

impl<'a> Walk<'a> {
    /// Whether there is room for one node or round more.
    fn goes_on(&mut self) -> bool {
        self.found.is_complete = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.found.is_complete
    }

    fn nodes(&mut self, nodes: &'a [Node]) {
        for node in nodes {
            if !self.goes_on() {
                return;
            }
            match node {
                Node::Op { args, .. } => {
                    for (_, arg) in args {
                        if let Arg::Tensor(name) = arg {
                            self.name(&name.text);
                        }
                    }
                }
                Node::Map { args, .. } => args.iter().for_each(|(_, name)| self.name(&name.text)),
                Node::Let { value, .. } => self.name(&value.text),
                Node::ForEach { variable, count, body } => {
                    let rounds = match depends_on(&count.expr, &self.step_dims, &self.variables) {
                        true => self.most_rounds,
                        false => self.dims.eval(count, &self.variables).unwrap_or(0).clamp(0, MAX_OPS as i64) as u64,
                    };
                    for at in 0..rounds {
                        if !self.goes_on() {
                            return;
                        }
                        self.variables.push((variable.text.clone(), at));
                        self.nodes(body);
                        self.variables.pop();
                    }
                }
                Node::If { condition, then, otherwise } => {
                    let depends = depends_on(&condition.expr, &self.step_dims, &self.variables);
                    let taken = !depends && self.dims.eval(condition, &self.variables).is_ok_and(|value| value != 0);
                    if depends || taken {
                        self.nodes(then);
                    }
                    if !taken {
                        self.nodes(otherwise);
                    }
                }
            }
        }
    }

    fn name(&mut self, name: &str) {
        let Some(weight) = name.strip_prefix("w.") else { return };
        let (full, pattern, index) = substitute(weight, &self.variables);
        let used = self.found.weights.entry(full).or_insert(Use { pattern, index, bound_alone: false });
        used.bound_alone |= self.alone.contains(name);
    }
}
