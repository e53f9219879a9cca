//! What the engine tells to be counted: who feeds whom, and why that changes.

use crate::id::PeerId;

/// Something to be counted; nothing else has to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// A stripe is fed by another source from now on.
    Switched {
        /// The stripe.
        stripe: u64,
        /// The new source.
        to: PeerId,
        /// Why it is not the one before.
        reason: SwitchReason,
    },
    /// Another source of a stripe was tried beside the present one.
    Tried {
        /// The stripe.
        stripe: u64,
        /// Whether it brought more.
        is_faster: bool,
    },
    /// A receiver has subscribed to a stripe.
    Given {
        /// The receiver.
        peer: PeerId,
        /// The stripe.
        stripe: u64,
    },
    /// A receiver that is served a stripe shall find another source of it.
    Closed {
        /// The receiver.
        peer: PeerId,
        /// The stripe.
        stripe: u64,
    },
}

/// Why a stripe is fed by another source than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SwitchReason {
    /// It had none before.
    #[default]
    First,
    /// The connection to the one before is gone.
    Lost,
    /// The one before brought nothing for too long.
    Idle,
    /// The one before wanted to be rid of it.
    Closed,
    /// It brings more than the one before.
    Faster,
    /// It brings a live stream earlier than the one before.
    Earlier,
    /// A receiver gives back what was lost here, or has done so.
    GivenBack,
}

impl SwitchReason {
    /// Every reason, for metrics and tests.
    pub const ALL: [Self; 7] = [
        Self::First,
        Self::Lost,
        Self::Idle,
        Self::Closed,
        Self::Faster,
        Self::Earlier,
        Self::GivenBack,
    ];

    /// The reason as metrics write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Lost => "lost",
            Self::Idle => "idle",
            Self::Closed => "closed",
            Self::Faster => "faster",
            Self::Earlier => "earlier",
            Self::GivenBack => "given_back",
        }
    }
}
