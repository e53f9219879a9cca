//! Hostile bytes taken apart: what a target needs beside the bytes it decodes.

/// Takes values off the front of bytes; what is not there is 0 or empty.
#[derive(Debug)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(super) fn short(&mut self) -> u16 {
        u16::from(self.byte()) | u16::from(self.byte()) << 8
    }

    /// Up to `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length and so many bytes.
    pub(super) fn part(&mut self) -> &'a [u8] {
        let len = usize::from(self.short());
        self.take(len)
    }

    pub(super) const fn rest(self) -> &'a [u8] {
        self.0
    }
}
