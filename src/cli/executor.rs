//! Which executor runs a plan, and on which device.
//!
//! Gets what was asked for, returns an executor on an open device, or why there is none. What holds then: a choice that
//! was left to the program is explained on stderr. Never falls back from what was named.

use clap::ValueEnum;

use crate::cli::Failure;
use crate::exec::hal::{HalOptions, VulkanExecutor};
use crate::exec::reference::{ReferenceExecutor, ReferenceOptions, Sanitize};
use crate::exec::wgpu::{WgpuExecutor, WgpuOptions};
use crate::exec::{DeviceInfo, ExecError, Executor, Progress, Session, Weights};
use crate::plan::weights::StateLayout;

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecutorChoice {
    Auto,
    Hal,
    Wgpu,
    Reference,
}

/// What a sanitizer looks for.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SanitizeChoice {
    /// Accesses that are wrong whatever is computed
    Accesses,
    /// The first NaN or infinity that is stored, too
    Nan,
}

impl SanitizeChoice {
    pub(super) fn meant(self) -> Sanitize {
        Sanitize { not_finite: self == Self::Nan }
    }
}

/// The executor chosen.
pub(super) enum Chosen {
    Hal(VulkanExecutor),
    Wgpu(WgpuExecutor),
    Reference(ReferenceExecutor),
}

/// Opens the first device with `device` in its name; `Auto` is hal on a GPU, else wgpu, else the CPU.
pub(super) fn choose(
    choice: ExecutorChoice,
    device: Option<&str>,
    hal: &HalOptions,
    wgpu: &WgpuOptions,
    reference: &ReferenceOptions,
) -> Result<Chosen, Failure> {
    match choice {
        ExecutorChoice::Hal => Ok(Chosen::Hal(VulkanExecutor::new(hal, device)?)),
        ExecutorChoice::Wgpu => Ok(Chosen::Wgpu(WgpuExecutor::new(wgpu, device)?)),
        ExecutorChoice::Reference => Ok(Chosen::Reference(ReferenceExecutor::new(reference, device)?)),
        ExecutorChoice::Auto => match VulkanExecutor::new(hal, device) {
            Ok(executor) if executor.device().kind != "cpu" => {
                eprintln!("executor: hal on {} (a GPU)", executor.device().name);
                Ok(Chosen::Hal(executor))
            }
            found => match (WgpuExecutor::new(wgpu, device), ReferenceExecutor::new(reference, device)) {
                (Ok(executor), _) => {
                    let why = match found {
                        Ok(_) => "the Vulkan device found is no GPU",
                        Err(_) => "no Vulkan device for hal",
                    };
                    eprintln!("executor: wgpu on {} ({why})", executor.device().name);
                    Ok(Chosen::Wgpu(executor))
                }
                (Err(_), Ok(executor)) => {
                    eprintln!("executor: reference on {} (no device for hal or wgpu)", executor.device().name);
                    Ok(Chosen::Reference(executor))
                }
                (Err(error), Err(_)) => Err(error.into()),
            },
        },
    }
}

/// An executor whose sessions are of any kind.
trait AnyExecutor {
    fn info(&self) -> &DeviceInfo;
    fn open_any(&self, weights: &Weights<'_>, state: &StateLayout, progress: Progress<'_>) -> Opened;
}

type Opened = Result<Box<dyn Session>, ExecError>;

impl<E: Executor<Session: 'static>> AnyExecutor for E {
    fn info(&self) -> &DeviceInfo {
        self.device()
    }

    fn open_any(&self, weights: &Weights<'_>, state: &StateLayout, progress: Progress<'_>) -> Opened {
        Ok(Box::new(self.open(weights, state, progress)?))
    }
}

impl Chosen {
    fn any(&self) -> &dyn AnyExecutor {
        match self {
            Self::Hal(executor) => executor,
            Self::Wgpu(executor) => executor,
            Self::Reference(executor) => executor,
        }
    }
}

/// For those who run two of them side by side, of whichever kinds.
impl Executor for Chosen {
    type Session = Box<dyn Session>;

    fn device(&self) -> &DeviceInfo {
        self.any().info()
    }

    fn keep_pipelines(&mut self, bytes: Option<&[u8]>) {
        match self {
            Self::Hal(executor) => executor.keep_pipelines(bytes),
            Self::Wgpu(executor) => executor.keep_pipelines(bytes),
            Self::Reference(executor) => executor.keep_pipelines(bytes),
        }
    }

    fn kept_pipelines(&self) -> Option<Vec<u8>> {
        match self {
            Self::Hal(executor) => executor.kept_pipelines(),
            Self::Wgpu(executor) => executor.kept_pipelines(),
            Self::Reference(executor) => executor.kept_pipelines(),
        }
    }

    fn open(&self, weights: &Weights<'_>, state: &StateLayout, progress: Progress<'_>) -> Opened {
        self.any().open_any(weights, state, progress)
    }
}

/// Fails with what a sanitizer has found, if it found anything.
pub(super) fn check_findings(executor: &ReferenceExecutor) -> Result<(), Failure> {
    let (findings, omitted) = executor.findings();
    if findings.is_empty() {
        return Ok(());
    }
    let mut text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    let count = findings.len() as u64 + omitted;
    text += &format!("the sanitizer found {count} mistakes");
    text += &if omitted > 0 { format!(", {omitted} of them not shown\n") } else { "\n".to_owned() };
    Err(Failure::Diagnostics(text))
}
