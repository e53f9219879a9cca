//! Close and reset codes, and the protocol's name. Numbers are never reused.

/// The protocol and its major version, as negotiated by ALPN.
pub const ALPN: &[u8] = b"distributary/1";

/// Why a connection or a stream is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Both sides have said what they had to say.
    Done = 0,
    /// The role stops.
    Stopping = 1,
    /// The peer's bytes break the protocol.
    Malformed = 2,
    /// The peer's role or identity does not allow this.
    Refused = 3,
    /// A newer connection of the same peer takes the place of this one.
    Replaced = 4,
    /// The peer sent more than it had credit for, or content that does not verify.
    Fault = 5,
    /// The job is unknown, cancelled or closed.
    NoJob = 6,
    /// A named limit is reached.
    Busy = 7,
    /// This side has failed.
    Internal = 8,
}

impl Code {
    const ALL: [Self; 9] = [
        Self::Done,
        Self::Stopping,
        Self::Malformed,
        Self::Refused,
        Self::Replaced,
        Self::Fault,
        Self::NoJob,
        Self::Busy,
        Self::Internal,
    ];

    /// The code's number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The code with a number, if it is known.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }
}
