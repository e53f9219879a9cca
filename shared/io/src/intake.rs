//! The byte mover in: from one peer's job stream to whole records.
//!
//! A job stream is always read, and read unordered: back-pressure is credit. What arrives
//! is placed into its record at once, so a lost packet holds up nothing but its own record.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, VarInt};
use shared::id::JobId;
use shared::manifest::PageBytes;
use shared::relay::Landing;
use shared::wire::code::Code;
use shared::wire::codec::DecodeError;
use shared::wire::record::{Piece, RecordError, RecordId, RecordKind, RecordReader};

use crate::job::{Arrival, Job};
use crate::link::{Conduct, Link, chain};
use crate::telemetry;

/// Bytes that wait for the record that names the job: one initial window's worth.
const PARKED_BYTES_MAX: usize = 1024 * 1024;
/// What a record that is under way takes beside its bytes, about.
const RECORD_COST: usize = 128;
/// Pages that may be under way at a time on one stream.
const PAGES_UNDER_WAY_MAX: usize = 64;
/// The most that one read takes out of quinn.
const READ_LEN: usize = 64 * 1024;

/// Why a job stream is given up.
#[derive(Debug, thiserror::Error)]
enum IntakeError {
    #[error("reading the stream")]
    Read(#[from] ReadError),
    #[error("the stream's records")]
    Record(#[from] RecordError),
    #[error("a page")]
    Page(#[from] DecodeError),
    #[error("chunk {0} beyond credit")]
    BeyondCredit(u64),
    #[error("pieces of one record disagree on its length")]
    Length,
    #[error("more than {PARKED_BYTES_MAX} bytes before the record that names the job")]
    Unnamed,
    #[error("more than {PAGES_UNDER_WAY_MAX} pages under way")]
    Pages,
    #[error("a record of {found} bytes, chunks of this job have at most {most}")]
    Chunk { found: u32, most: u32 },
    #[error("a second record that names a job")]
    Renamed,
    #[error("{0} bytes of records that are not whole")]
    Waiting(usize),
    #[error("a page of a kind that this peer may not send")]
    PageKind,
    #[error("the same records again and again")]
    Flood,
    /// Not a fault: the job is gone here.
    #[error("no such job")]
    NoJob,
}

/// Reads a job stream to its end.
pub(crate) async fn run(link: Arc<Link>, mut stream: RecvStream, conduct: Arc<dyn Conduct>) {
    let (records, parked) = (BTreeMap::new(), Vec::new());
    let mut intake =
        Intake { link, records, filling: 0, job: None, parked, parked_bytes: 0, waiting: 0 };
    let result = intake.read(&mut stream, conduct.as_ref()).await;
    let link = &intake.link;
    match result {
        Ok(()) => {}
        Err(IntakeError::NoJob) => {
            // The stream may have been reset by the peer at the same time.
            stream.stop(VarInt::from_u32(Code::NoJob.number())).ok();
        }
        Err(IntakeError::Read(error)) => {
            tracing::debug!(peer = %link.peer(), %error, "job stream");
        }
        Err(error) => link.fault(Code::Fault, &chain(&error)),
    }
}

struct Intake {
    link: Arc<Link>,
    records: BTreeMap<(RecordKind, u64), Partial>,
    /// Memory of the records under way.
    filling: usize,
    job: Option<Arc<Job>>,
    parked: Vec<Piece>,
    parked_bytes: usize,
    /// What the link counts of this stream.
    waiting: usize,
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.link.count_waiting(self.waiting, 0);
    }
}

/// A record of which not all has arrived.
enum Partial {
    Filling {
        bytes: BytesMut,
        left: usize,
    },
    /// Held already, or not wanted: its bytes are counted and dropped.
    Dropping {
        left: usize,
    },
}

impl Partial {
    /// The memory that it takes, about.
    fn cost(&self) -> usize {
        match self {
            Self::Filling { bytes, .. } => bytes.len() + RECORD_COST,
            Self::Dropping { .. } => RECORD_COST,
        }
    }
}

impl Intake {
    async fn read(
        &mut self,
        stream: &mut RecvStream,
        conduct: &dyn Conduct,
    ) -> Result<(), IntakeError> {
        let mut reader = RecordReader::new();
        let mut pieces = Vec::new();
        let mut rest = None;
        loop {
            let over = self.job.as_ref().map(|job| job.over().clone());
            let gone = async {
                match over {
                    Some(over) => over.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            let next = async {
                if let Some(until) = rest {
                    tokio::time::sleep_until(until).await;
                }
                stream.read_chunk(READ_LEN, false).await
            };
            let chunk = tokio::select! {
                biased;
                () = gone => return Err(IntakeError::NoJob),
                chunk = next => chunk?,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            rest = conduct.links().access().received(chunk.bytes.len() as u64);
            reader.push(chunk.offset, chunk.bytes, |piece| pieces.push(piece))?;
            for piece in pieces.drain(..) {
                self.place(piece, conduct)?;
            }
            let waiting = reader.waiting() + self.filling + self.parked_bytes;
            let all = self.link.count_waiting(self.waiting, waiting);
            self.waiting = waiting;
            // All job streams of one connection: twice what credit lets jobs have on their way.
            if all as u64 > 2 * conduct.links().budget().inbound() {
                return Err(IntakeError::Waiting(all));
            }
        }
    }

    fn place(&mut self, piece: Piece, conduct: &dyn Conduct) -> Result<(), IntakeError> {
        if let Some(job) = self.job.clone() {
            return self.place_in(&job, piece);
        }
        if piece.record.kind == RecordKind::Job {
            if piece.record.number != 0 {
                return Err(IntakeError::Renamed);
            }
            if let Some(whole) = self.fill(&piece, || Ok(true))? {
                let id = whole.as_ref().try_into().map(JobId).unwrap_or(JobId([0; 16]));
                let job = conduct.relays().get(id).ok_or(IntakeError::NoJob)?;
                self.job = Some(Arc::clone(&job));
                self.parked_bytes = 0;
                return std::mem::take(&mut self.parked)
                    .into_iter()
                    .try_for_each(|piece| self.place_in(&job, piece));
            }
            return Ok(());
        }
        self.parked_bytes += piece.bytes.len() + RECORD_COST;
        // A copy: what arrived is a slice of a larger buffer.
        self.parked.push(Piece { bytes: Bytes::copy_from_slice(&piece.bytes), ..piece });
        if self.parked_bytes > PARKED_BYTES_MAX { Err(IntakeError::Unnamed) } else { Ok(()) }
    }

    fn place_in(&mut self, job: &Arc<Job>, piece: Piece) -> Result<(), IntakeError> {
        let RecordId { kind, number, .. } = piece.record;
        // Pages come last in the order of kinds, and there are few of them.
        let pages = self.records.range((RecordKind::Page, 0)..).count();
        let link = Arc::clone(&self.link);
        let whole = self.fill(&piece, || match kind {
            RecordKind::Job => Err(IntakeError::Renamed),
            RecordKind::Draft if !job.takes_drafts_of(&link) => Err(IntakeError::PageKind),
            RecordKind::Page | RecordKind::PageInPlace if job.takes_drafts_of(&link) => {
                Err(IntakeError::PageKind)
            }
            RecordKind::Page | RecordKind::Draft | RecordKind::PageInPlace
                if pages >= PAGES_UNDER_WAY_MAX =>
            {
                Err(IntakeError::Pages)
            }
            RecordKind::Page | RecordKind::Draft | RecordKind::PageInPlace => Ok(true),
            RecordKind::Chunk if piece.record.total > job.object().chunk_max => {
                let (found, most) = (piece.record.total, job.object().chunk_max);
                Err(IntakeError::Chunk { found, most })
            }
            RecordKind::Chunk => match job.landing(&link, number) {
                Landing::Wanted => Ok(true),
                Landing::BeyondCredit => Err(IntakeError::BeyondCredit(number)),
                Landing::Duplicate => {
                    telemetry::duplicate(u64::from(piece.record.total));
                    Ok(false)
                }
            },
        })?;
        let Some(whole) = whole else { return Ok(()) };
        let from = Some(link);
        let arrival = match kind {
            RecordKind::Chunk => Arrival::Chunk(number, whole, from),
            RecordKind::Page | RecordKind::Draft | RecordKind::PageInPlace => Arrival::Page {
                bytes: PageBytes::from_record(whole, kind != RecordKind::Draft)?,
                in_place: kind == RecordKind::PageInPlace,
                from,
            },
            RecordKind::Job => return Ok(()),
        };
        if job.arrived(arrival) { Ok(()) } else { Err(IntakeError::Flood) }
    }

    /// Puts a piece into its record and returns the record if it is whole now. `admit` is
    /// asked once per record whether to keep it.
    fn fill(
        &mut self,
        piece: &Piece,
        admit: impl FnOnce() -> Result<bool, IntakeError>,
    ) -> Result<Option<Bytes>, IntakeError> {
        let key = (piece.record.kind, piece.record.number);
        let total = piece.record.total as usize;
        let offset = piece.offset as usize;
        // The usual case for small records: whole in one piece, no copy.
        if piece.bytes.len() == total && !self.records.contains_key(&key) {
            return Ok(admit()?.then(|| piece.bytes.clone()));
        }
        let partial = match self.records.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let partial = match admit()? {
                    true => Partial::Filling { bytes: BytesMut::zeroed(total), left: total },
                    false => Partial::Dropping { left: total },
                };
                self.filling += partial.cost();
                entry.insert(partial)
            }
        };
        let left = match partial {
            Partial::Dropping { left } => {
                *left = left.saturating_sub(piece.bytes.len());
                *left
            }
            Partial::Filling { bytes, left } => {
                let place = bytes.get_mut(offset..offset + piece.bytes.len());
                place.ok_or(IntakeError::Length)?.copy_from_slice(&piece.bytes);
                *left = left.saturating_sub(piece.bytes.len());
                *left
            }
        };
        if left > 0 {
            return Ok(None);
        }
        let whole = self.records.remove(&key);
        self.filling -= whole.as_ref().map_or(0, Partial::cost);
        Ok(match whole {
            Some(Partial::Filling { bytes, .. }) => Some(bytes.freeze()),
            Some(Partial::Dropping { .. }) | None => None,
        })
    }
}
