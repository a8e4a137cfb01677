//! What can be said of a graph without a checkpoint.
//!
//! Gets a graph and the kernels, returns diagnostics for ops, ports and constants that do not exist. Never resolves a
//! value's name, since that takes dims.

use crate::base::diag::Diagnostic;
use crate::base::span::Span;
use crate::graph::{Graph, Node};
use crate::kernel::{KernelDef, KernelLib};

/// Unknown ops, ports and constants of a graph, also in branches that no checkpoint at hand takes.
pub fn check_names(graph: &Graph, kernels: &KernelLib) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    nodes(&graph.ops, kernels, &mut diagnostics);
    graph.included.placed(diagnostics)
}

/// Kernels that none of the graphs uses, in any branch, and that are not among `others` either, as lints.
pub fn check_unused(graphs: &[Graph], kernels: &KernelLib, others: &[&str]) -> Vec<Diagnostic> {
    let is_other = |kernel: &KernelDef| others.contains(&kernel.name.as_str());
    let unused = |kernel: &&KernelDef| !is_other(kernel) && !graphs.iter().any(|graph| uses(&graph.ops, &kernel.name));
    let lint = |kernel: &KernelDef| {
        let span = Span { end: kernel.span.start + 1, ..kernel.span };
        Diagnostic::lint(span, format!("kernel `{}` is never used by the graphs checked", kernel.name))
    };
    kernels.iter().filter(unused).map(lint).collect()
}

fn uses(list: &[Node], name: &str) -> bool {
    list.iter().any(|node| match node {
        Node::Op { kernel, .. } => kernel.text == name,
        Node::ForEach { body, .. } => uses(body, name),
        Node::If { then, otherwise, .. } => uses(then, name) || uses(otherwise, name),
        Node::Map { .. } | Node::Let { .. } => false,
    })
}

fn nodes(list: &[Node], kernels: &KernelLib, diagnostics: &mut Vec<Diagnostic>) {
    for node in list {
        match node {
            Node::Op { kernel: name, args } => {
                if kernels.is_broken(&name.text) {
                    continue;
                }
                let Some(kernel) = kernels.get(&name.text) else {
                    let message = format!("unknown op `{}`", name.text);
                    let known = kernels.iter().map(|kernel| kernel.name.as_str());
                    diagnostics.push(Diagnostic::error(name.span, message).suggest(&name.text, known));
                    continue;
                };
                let ports = kernel.ports.iter().map(|port| port.name.text.as_str());
                let known: Vec<&str> = ports.chain(kernel.consts.iter().map(|c| c.name.text.as_str())).collect();
                for (arg, _) in args.iter().filter(|(arg, _)| !known.contains(&arg.text.as_str())) {
                    let message = format!("`{}` has no port or constant `{}`", kernel.name, arg.text);
                    diagnostics.push(Diagnostic::error(arg.span, message).suggest(&arg.text, known.iter().copied()));
                }
                for port in kernel.ports.iter().filter(|port| !args.iter().any(|(arg, _)| *arg == port.name)) {
                    let message = format!("port `{}` of `{}` is given nothing", port.name.text, kernel.name);
                    diagnostics.push(Diagnostic::error(name.span, message).also(port.name.span, "the port"));
                }
            }
            Node::ForEach { body, .. } => nodes(body, kernels, diagnostics),
            Node::If { then, otherwise, .. } => {
                nodes(then, kernels, diagnostics);
                nodes(otherwise, kernels, diagnostics);
            }
            Node::Map { .. } | Node::Let { .. } => {}
        }
    }
}
