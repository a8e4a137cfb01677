//! What barriers do to a range, one rule a test. That the whole is what the layer does, only the layer can say:
//! `tests/verify.rs` asks it.

use super::{Range, Stages, State, accesses, stages};
use crate::plan::reasons::Hazard;
use crate::plan::usage::Usage;

const SHADER: Stages = Stages::SHADER;
const TRANSFER: Stages = Stages::TRANSFER;

/// A range after these accesses and nothing else.
fn after(usages: &[Usage]) -> State {
    let mut state = State::default();
    usages.iter().for_each(|usage| state.access(*usage));
    state
}

impl State {
    /// After a call with one transition, of this buffer.
    fn own(mut self, from: Usage, to: Usage) -> Self {
        self.barrier(stages(from), stages(to), std::iter::once((accesses(from), accesses(to))));
        self
    }

    /// After a call with transitions of other buffers alone.
    fn other(mut self, before: Stages, after: Stages) -> Self {
        self.barrier(before, after, std::iter::empty());
        self
    }

    /// In the next submission.
    fn submitted(mut self) -> Self {
        self.wait();
        self
    }
}

#[test]
fn a_read_needs_a_memory_dependency_of_its_own_buffer() {
    let written = after(&[Usage::STORAGE_WRITE]);
    let hazard = Some(Hazard::ReadAfterWrite);
    assert_eq!(written.hazard(Usage::STORAGE_READ), hazard);
    assert_eq!(written.other(SHADER, SHADER).hazard(Usage::STORAGE_READ), hazard);
    assert_eq!(written.own(Usage::STORAGE_WRITE, Usage::STORAGE_READ).hazard(Usage::STORAGE_READ), None);
    assert_eq!(written.own(Usage::STORAGE_WRITE, Usage::COPY_SRC).hazard(Usage::STORAGE_READ), hazard);
    assert_eq!(written.own(Usage::STORAGE_READ, Usage::STORAGE_READ).hazard(Usage::STORAGE_READ), hazard);
    assert_eq!(written.own(Usage::COPY_DST, Usage::STORAGE_READ).hazard(Usage::STORAGE_READ), hazard);
}

#[test]
fn wider_masks_are_no_hazards() {
    let written = after(&[Usage::STORAGE_WRITE]);
    let wide = Usage::STORAGE_READ.union(Usage::COPY_SRC);
    assert_eq!(written.own(Usage::STORAGE_WRITE, wide).hazard(Usage::STORAGE_READ), None);
    assert_eq!(written.own(Usage::STORAGE_WRITE, Usage::STORAGE_WRITE).hazard(Usage::STORAGE_READ), None);
}

#[test]
fn a_write_after_a_read_needs_no_more_than_a_neighbours_execution_dependency() {
    let read = after(&[Usage::STORAGE_READ]);
    assert_eq!(read.hazard(Usage::STORAGE_WRITE), Some(Hazard::WriteAfterRead));
    assert_eq!(read.other(SHADER, SHADER).hazard(Usage::STORAGE_WRITE), None);
    assert_eq!(read.other(TRANSFER, SHADER).hazard(Usage::STORAGE_WRITE), Some(Hazard::WriteAfterRead));
    assert_eq!(read.other(SHADER, TRANSFER).hazard(Usage::STORAGE_WRITE), Some(Hazard::WriteAfterRead));
    assert_eq!(read.other(SHADER, TRANSFER).other(TRANSFER, SHADER).hazard(Usage::STORAGE_WRITE), None, "a chain");
}

#[test]
fn reads_after_each_other_are_carried_along() {
    let first = after(&[Usage::STORAGE_READ]).other(SHADER, TRANSFER);
    let mut both = first;
    both.access(Usage::COPY_SRC);
    assert_eq!(both.hazard(Usage::COPY_DST), Some(Hazard::WriteAfterRead), "of the copy");
    // The barrier after the copy orders the dispatch before the copy, too.
    assert_eq!(both.other(TRANSFER, SHADER).hazard(Usage::STORAGE_WRITE), None);
}

#[test]
fn barriers_go_on_from_where_earlier_ones_led() {
    let made = after(&[Usage::COPY_DST]).own(Usage::COPY_DST, Usage::STORAGE_READ);
    // From a usage that it never was in, yet from a stage that the chain has reached.
    assert_eq!(made.own(Usage::STORAGE_READ, Usage::COPY_SRC).hazard(Usage::COPY_SRC), None);
    assert_eq!(made.own(Usage::COPY_SRC, Usage::COPY_SRC).hazard(Usage::COPY_SRC), Some(Hazard::ReadAfterWrite));
    assert_eq!(after(&[Usage::STORAGE_WRITE, Usage::STORAGE_WRITE]).hazard(Usage::STORAGE_WRITE), WAW);
}

const WAW: Option<Hazard> = Some(Hazard::WriteAfterWrite);

#[test]
fn submissions_order_and_make_nothing_visible() {
    assert_eq!(after(&[Usage::STORAGE_READ]).submitted().hazard(Usage::STORAGE_WRITE), None);
    let written = after(&[Usage::STORAGE_WRITE]).submitted();
    assert_eq!(written.hazard(Usage::STORAGE_READ), Some(Hazard::ReadAfterWrite));
    assert_eq!(written.hazard(Usage::COPY_DST), WAW);
    // Whatever the transition is from: every stage is in the chain.
    assert_eq!(written.own(Usage::COPY_SRC, Usage::STORAGE_READ).hazard(Usage::STORAGE_READ), None);
}

#[test]
fn only_what_a_step_does_first_meets_the_step_before() {
    let before = after(&[Usage::STORAGE_WRITE]).submitted();
    let mut range = Range::new(before);
    assert_eq!(range.access(Usage::STORAGE_READ), Some(Hazard::ReadAfterWrite));
    assert_eq!(range.access(Usage::STORAGE_READ), None, "the second read in a stage");
    assert_eq!(range.access(Usage::STORAGE_WRITE), None, "the same write, after a read");
    assert_eq!(range.access(Usage::COPY_SRC), None, "after a write");
    assert_eq!(Range::new(before).access(Usage::STORAGE_WRITE), WAW);
}
