//! The emulator: one thread that moves IP packets between the TUN devices of the hosts, each when
//! the topology says it is due.

use std::{
    io,
    net::Ipv4Addr,
    num::NonZeroU64,
    os::fd::{AsFd, BorrowedFd},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use distributary_tests::link::{
    LinkCounters, LinkSpec,
    topology::{Place, Topology},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    thread::{gettid, set_current_timer_slack},
};
use tun_rs::SyncDevice;

use crate::{
    clock::Clock,
    lateness::{Lateness, LatenessReport},
};

/// Longest wait without a look at whether to stop.
const IDLE: Duration = Duration::from_millis(5);
/// Packets read from one device before the others have their turn.
const READ_MAX: usize = 64;
/// Longest packet, and some room.
const PACKET_MAX: usize = 2_048;
/// Its priority among real-time threads, so that the hosts' processes do not delay their packets.
const PRIORITY: &str = "10";

/// What the emulator shares with the lab.
#[derive(Debug)]
struct Shared {
    clock: Clock,
    stop: AtomicBool,
    topology: Mutex<Topology<Vec<u8>>>,
    lateness: Mutex<Lateness>,
}

/// The running emulator; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Emulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// What the emulator did.
#[derive(Clone, Debug)]
pub(crate) struct EmulatorReport {
    pub(crate) links: Vec<(Place, LinkCounters)>,
    /// Packets dropped because too many were under way.
    pub(crate) overflow: u64,
    pub(crate) lateness: LatenessReport,
}

impl Emulator {
    /// Starts to carry packets between `devices`, whose hosts have the numbers of their places.
    pub(crate) fn start(
        clock: Clock,
        topology: Topology<Vec<u8>>,
        devices: Vec<SyncDevice>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            clock,
            stop: AtomicBool::new(false),
            topology: Mutex::new(topology),
            lateness: Mutex::default(),
        });
        let carried = Arc::clone(&shared);
        let carry = move || carry(&carried, &devices);
        let thread = thread::Builder::new().name("emulator".into()).spawn(carry)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Changes a link from now on.
    pub(crate) fn set(&self, place: Place, spec: &LinkSpec) {
        self.topology().set(place, spec);
    }

    pub(crate) fn report(&self) -> EmulatorReport {
        let topology = self.topology();
        EmulatorReport {
            links: topology.counters().collect(),
            overflow: topology.dropped(),
            lateness: lock(&self.shared.lateness).report(),
        }
    }

    fn topology(&self) -> std::sync::MutexGuard<'_, Topology<Vec<u8>>> {
        lock(&self.shared.topology)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn carry(shared: &Shared, devices: &[SyncDevice]) -> io::Result<()> {
    take_priority();
    let fds: Vec<BorrowedFd<'_>> = devices.iter().map(AsFd::as_fd).collect();
    let mut buffer = vec![0; PACKET_MAX];
    while !shared.stop.load(Ordering::Relaxed) {
        let next = deliver(shared, &fds)?;
        wait(shared, &fds, next)?;
        for (from, fd) in fds.iter().enumerate() {
            take(shared, from, *fd, &mut buffer)?;
        }
    }
    Ok(())
}

/// Real-time priority and exact timers, where the system grants them; lateness tells the rest.
fn take_priority() {
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    let thread = gettid().as_raw_nonzero().to_string();
    let _ = Command::new("chrt").args(["-f", "-p", PRIORITY, &thread]).output();
}

/// Hands over what is due; when the next packet is.
fn deliver(shared: &Shared, fds: &[BorrowedFd<'_>]) -> io::Result<Option<Duration>> {
    let mut topology = lock(&shared.topology);
    let mut lateness = lock(&shared.lateness);
    while let Some(mut packet) = topology.arrived(shared.clock.now()) {
        lateness.add(shared.clock.now().saturating_sub(packet.at));
        if let Some(bit) = packet.flipped_bit {
            flip(&mut packet.payload, bit);
        }
        if let Some(fd) = fds.get(packet.to) {
            match rustix::io::write(fd, &packet.payload) {
                // A full or downed device drops, and its counters tell.
                Ok(_) | Err(Errno::AGAIN | Errno::IO | Errno::INVAL | Errno::NOBUFS) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(topology.next_due())
}

fn flip(packet: &mut [u8], bit: u64) {
    let at = usize::try_from(bit / 8).unwrap_or(usize::MAX);
    if let Some(byte) = packet.get_mut(at) {
        *byte ^= 1 << (bit % 8);
    }
}

fn wait(shared: &Shared, fds: &[BorrowedFd<'_>], next: Option<Duration>) -> io::Result<()> {
    let left = next.map_or(IDLE, |at| at.saturating_sub(shared.clock.now())).min(IDLE);
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads what a host has sent.
fn take(shared: &Shared, from: usize, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<()> {
    for _ in 0..READ_MAX {
        let length = match rustix::io::read(fd, &mut *buffer) {
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let packet = buffer.get(..length).unwrap_or_default();
        if let Some(to) = receiver(packet) {
            let mut topology = lock(&shared.topology);
            topology.send(shared.clock.now(), from, to, length, packet.to_vec());
        }
    }
    Ok(())
}

/// The number of the host that an IPv4 packet is for.
fn receiver(packet: &[u8]) -> Option<usize> {
    let version = packet.first()? >> 4;
    let [a, b, high, low] = *packet.get(16..20)?.first_chunk()?;
    let address = Ipv4Addr::new(a, b, high, low);
    let ours = version == 4 && address.octets().starts_with(&[10, 77]);
    ours.then(|| usize::from(high) * 254 + usize::from(low).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_for_the_host_of_its_address() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 77, 0, 3]);
        assert_eq!(receiver(&packet), Some(2));
        packet[18..].copy_from_slice(&[1, 1]);
        assert_eq!(receiver(&packet), Some(254));
        packet[16] = 192;
        assert_eq!(receiver(&packet), None);
        assert_eq!(receiver(&packet[..19]), None);
        assert_eq!(receiver(&[]), None);
    }

    #[test]
    fn a_bit_is_flipped_and_one_behind_the_end_is_not() {
        let mut packet = [0, 0];
        flip(&mut packet, 9);
        assert_eq!(packet, [0, 2]);
        flip(&mut packet, 16);
        assert_eq!(packet, [0, 2]);
    }
}
