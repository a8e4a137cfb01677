//! What looks at plans and sessions from outside.
//!
//! Gets executors, compilers and checkpoints, returns figures about them. What holds then: nothing that runs was
//! changed to be looked at. Never decides anything that running depends on.

pub mod bench;
pub mod bisect;
pub mod budget;
pub mod diff;
pub mod dot;
pub mod explain;
pub mod oracle;
pub mod profile;
pub mod traffic;
pub mod tune;
pub mod values;
pub mod verify;
pub mod view;
