//! Numbers that no checkpoint tells, given from outside.
//!
//! Gets a graph and values by name, returns the graph with them in place of its own. What holds then: every name is one
//! of the graph's settings and every value a finite number. All that is made of the graph has them in its kernels'
//! texts, so plans differ where they do. Never adds a setting.

use std::fmt;

use crate::base::diag::nearest;
use crate::graph::Graph;

/// Why a value cannot be given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingError {
    /// The graph has no such setting.
    Unknown {
        /// What was asked for.
        name: String,
        /// The graph.
        graph: String,
        /// The settings that it has, with their values.
        known: Vec<(String, String)>,
    },
    /// The value is no finite number of the kernels' element type.
    Value {
        /// The setting.
        name: String,
        /// What it was given.
        value: String,
    },
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, graph, known } if known.is_empty() => {
                write!(f, "`{graph}` has no setting `{name}`, nor any other")
            }
            Self::Unknown { name, graph, known } => {
                write!(f, "`{graph}` has no setting `{name}`")?;
                if let Some(near) = nearest(name, known.iter().map(|(name, _)| name.as_str())) {
                    write!(f, ", did you mean `{near}`?")?;
                }
                let known: Vec<String> = known.iter().map(|(name, value)| format!("`{name}` = {value}")).collect();
                write!(f, "; it has {}", known.join(", "))
            }
            Self::Value { name, value } => write!(f, "setting `{name}` is {value}, expected a finite f32"),
        }
    }
}

impl std::error::Error for SettingError {}

/// The graph with other values for some of its settings; of two for one setting, the last.
///
/// # Errors
/// If the graph has no such setting, or a value is no finite number.
pub fn with_settings(graph: &Graph, values: &[(String, f64)]) -> Result<Graph, SettingError> {
    let mut graph = graph.clone();
    for (name, value) in values {
        if !(*value as f32).is_finite() {
            return Err(SettingError::Value { name: name.clone(), value: value.to_string() });
        }
        let Some(setting) = graph.settings.iter_mut().find(|setting| setting.name.text == *name) else {
            let known = graph.settings.iter().map(|one| (one.name.text.clone(), format!("{:?}", one.value))).collect();
            return Err(SettingError::Unknown { name: name.clone(), graph: graph.name.text.clone(), known });
        };
        setting.value = *value;
    }
    Ok(graph)
}
