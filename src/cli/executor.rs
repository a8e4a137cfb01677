//! Which executor runs a plan, and on which device.
//!
//! Gets what was asked for, returns an executor on an open device, or why there is none. What holds then: a choice that
//! was left to the program is explained on stderr. Never falls back from what was named.

use clap::ValueEnum;

use crate::cli::Failure;
use crate::exec::hal::{HalOptions, VulkanExecutor};
use crate::exec::wgpu::{WgpuExecutor, WgpuOptions};
use crate::exec::{DeviceInfo, ExecError, Executor, Progress, Session, Weights};
use crate::plan::weights::StateLayout;

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecutorChoice {
    Auto,
    Hal,
    Wgpu,
}

/// The executor chosen.
pub(super) enum Chosen {
    Hal(VulkanExecutor),
    Wgpu(WgpuExecutor),
}

/// Opens the first device with `device` in its name; `Auto` is hal on a GPU, else wgpu.
pub(super) fn choose(
    choice: ExecutorChoice,
    device: Option<&str>,
    hal: &HalOptions,
    wgpu: &WgpuOptions,
) -> Result<Chosen, Failure> {
    match choice {
        ExecutorChoice::Hal => Ok(Chosen::Hal(VulkanExecutor::new(hal, device)?)),
        ExecutorChoice::Wgpu => Ok(Chosen::Wgpu(WgpuExecutor::new(wgpu, device)?)),
        ExecutorChoice::Auto => match VulkanExecutor::new(hal, device) {
            Ok(executor) if executor.device().kind != "cpu" => {
                eprintln!("executor: hal on {} (a GPU)", executor.device().name);
                Ok(Chosen::Hal(executor))
            }
            found => {
                let executor = WgpuExecutor::new(wgpu, device)?;
                let why = match found {
                    Ok(_) => "the Vulkan device found is no GPU",
                    Err(_) => "no Vulkan device for hal",
                };
                eprintln!("executor: wgpu on {} ({why})", executor.device().name);
                Ok(Chosen::Wgpu(executor))
            }
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
        }
    }
}

/// For those who run two of them side by side, of whichever kinds.
impl Executor for Chosen {
    type Session = Box<dyn Session>;

    fn device(&self) -> &DeviceInfo {
        self.any().info()
    }

    fn open(&self, weights: &Weights<'_>, state: &StateLayout, progress: Progress<'_>) -> Opened {
        self.any().open_any(weights, state, progress)
    }
}
