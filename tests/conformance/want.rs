//! What a result may be, by the accuracy that WGSL promises.
//!
//! Gets what the specification's rule gives for one component, says whether a word that was found is allowed. What
//! holds then: the interpreter is held to the rule itself, rounded once or as the library of functions does; drivers to
//! section "Floating Point Accuracy", and to nothing where an operand or the result is no finite number. Never asks an
//! executor.

/// What a result may be.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    /// This word.
    Word(u32),
    /// This float; a driver may give the other zero.
    Exact(f32),
    /// This float; a driver may round the other way.
    Rounded(f32),
    /// Within four units in the last place of the first number; a driver within the second of it.
    Near(f64, f64),
    /// Within the second number of the first, whoever computes it.
    Close(f64, f64),
    /// This float; a driver within the number of it.
    Kept(f32, f64),
    /// This float, of which the specification says nothing: what the interpreter does.
    Open(f32),
    /// This word, as `Open`.
    OpenWord(u32),
}

/// Half a unit in the last place of a float, twice.
pub fn ulp(value: f64) -> f64 {
    let exponent = if value == 0.0 { -126.0 } else { value.abs().log2().floor().clamp(-126.0, 127.0) };
    (exponent - 23.0).exp2()
}

fn is_same(found: f32, expected: f32) -> bool {
    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan()
}

impl Want {
    /// Whether the interpreter may give this.
    pub fn allows(self, found: u32) -> bool {
        let float = f32::from_bits(found);
        match self {
            Self::Word(word) | Self::OpenWord(word) => word == found,
            Self::Exact(value) | Self::Rounded(value) | Self::Kept(value, _) | Self::Open(value) => {
                is_same(float, value)
            }
            Self::Close(value, tolerance) => (f64::from(float) - value).abs() <= tolerance,
            Self::Near(value, _) => {
                let rounded = value as f32;
                is_same(float, rounded) || rounded.is_finite() && (f64::from(float) - value).abs() <= 4.0 * ulp(value)
            }
        }
    }

    /// Whether a driver may give this.
    pub fn allows_driver(self, found: u32) -> bool {
        let (value, tolerance) = match self {
            Self::Word(word) => return word == found,
            Self::Open(_) | Self::OpenWord(_) => return true,
            Self::Exact(value) => (f64::from(value), 0.0),
            Self::Rounded(value) => (f64::from(value), ulp(f64::from(value))),
            Self::Near(value, tolerance) | Self::Close(value, tolerance) => (value, tolerance),
            Self::Kept(value, tolerance) => (f64::from(value), tolerance),
        };
        // Nothing is said of results that are no finite numbers, or may have been rounded to one that is none.
        let is_finite = value.abs() + tolerance <= f64::from(f32::MAX);
        // Results below the least normal number may be flushed to zero.
        let least = f64::from(f32::MIN_POSITIVE);
        let flushed = if value.abs() < least { least } else { 0.0 };
        let difference = (f64::from(f32::from_bits(found)) - value).abs();
        !is_finite || difference <= tolerance.max(flushed)
    }
}
