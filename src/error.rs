//! What the caller must do about an error. Every module's error enum has a `kind()` that says it.

/// Classes of errors by the action they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Try again with backoff, for ever; visible in `sluice status`. Never a dead letter.
    Transient,
    /// The same input fails the same way every time: keep it as a dead letter and go on.
    Poison,
    /// Another owner has taken over: drop the work, it is theirs now.
    Fenced,
    /// Configuration or usage: say what to mend, exit code 2.
    Invalid,
    /// A broken assumption or an operator's decision is needed: stop this topic partition loudly.
    Halt,
}

impl ErrorKind {
    /// Value of the `kind` label of `sluice_errors_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Poison => "poison",
            Self::Fenced => "fenced",
            Self::Invalid => "invalid",
            Self::Halt => "halt",
        }
    }
}

/// Prints an error with everything below it, once, where it is handled: `a: b: c`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let message = inner.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = inner.source();
    }
    text
}
