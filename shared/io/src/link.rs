//! One connection to one peer: control frames, job streams and requests, and their end.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use certs::peer::PeerIdentity;
use quinn::{Connection, RecvStream, SendDatagramError, SendStream, VarInt};
use shared::budget::Budget;
use shared::control::{Channel, Outgoing, Pace, Path, Receipt, Via};
use shared::id::{JobId, Name, PeerId, Role};
use shared::limit;
use shared::time::Time;
use shared::turns::Claim;
use shared::wire::code::Code;
use shared::wire::codec::DecodeError;
use shared::wire::frame::{Frame, FrameReader, datagram_frames, put_frame};
use shared::wire::message::{
    self, Acks, Answer, Assign, Beat, Envelope, FrameType, Offer, Query, Reconcile, Report,
    StateKind, View, Want,
};
use shared::wire::request::{RefusalKind, Request};
use shared::wire::rights;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::clock::Clock;
use crate::job::Relays;
use crate::request::{Replies, RequestError, read_request};
use crate::send_budget::{Need, SendBudget, TUNE_EVERY};
use crate::stream_room::StreamRoom;
use crate::telemetry::PeerContent;
use crate::transport::Terms;
use crate::turns::{LinkTurns, Turn};
use crate::{intake, telemetry};

/// States that wait for the role to take them up. A peer that sends more is not answered
/// and sends again.
const APPLY_QUEUE: usize = 256;
/// Writes that wait for the control stream; a peer that lets it fill up does not read.
const STREAM_QUEUE: usize = 1_024;

/// What a role does about what its peers say. Frames reach it only if [`rights`] allow them.
pub trait Conduct: fmt::Debug + Send + Sync + 'static {
    /// The role of this process.
    fn role(&self) -> Role;
    /// The jobs that offers, wants and job streams are about.
    fn relays(&self) -> &Relays;
    /// The links of this process; a link puts itself in and takes itself out.
    fn links(&self) -> &Links;
    /// A peer is there, greeted; nothing that it says is read before the future ends. What an
    /// earlier link to it had agreed on is undone.
    fn up(&self, link: Arc<Link>) -> Taken<'_>;
    /// A peer is gone, its link's tasks have ended, and no newer link has taken its place.
    fn down(&self, link: Arc<Link>) -> Taken<'_>;
    /// A peer offers a job. A role that must judge first who it is does so here.
    fn offered(&self, link: &Arc<Link>, job: JobId, offer: Offer) {
        self.relays().offered(link, job, offer);
    }
    /// A peer wants a job. A role that must judge first who it is does so here.
    fn wanted(&self, link: &Arc<Link>, job: JobId, want: Want) {
        self.relays().wanted(link, job, want);
    }
    /// The base assigns a job. Taken up when the future ends.
    fn assign(&self, _link: Arc<Link>, _job: JobId, _assign: Assign) -> Taken<'_> {
        Box::pin(std::future::ready(()))
    }
    /// The base tells who else has a job.
    fn view(&self, _link: &Arc<Link>, _job: JobId, _view: View) {}
    /// Whether the node of this name is to have a job that is here.
    fn shares_a_job_with(&self, _node: &Name) -> bool {
        false
    }
    /// A node reports on a job. Taken up when the future ends.
    fn report(&self, _link: Arc<Link>, _job: JobId, _report: Report) -> Taken<'_> {
        Box::pin(std::future::ready(()))
    }
    /// The jobs that a peer knows.
    fn reconcile(&self, _link: Arc<Link>, _reconcile: Reconcile) -> Taken<'_> {
        Box::pin(std::future::ready(()))
    }
    /// The base asks how far a job is.
    fn query(&self, _link: &Arc<Link>, _query: Query) {}
    /// A node answers.
    fn answer(&self, _link: Arc<Link>, _answer: Answer) -> Taken<'_> {
        Box::pin(std::future::ready(()))
    }
    /// A peer says that it is there.
    fn beat(&self, _link: &Arc<Link>, _beat: Beat) {}
    /// A peer requests something.
    fn request(&self, _link: Arc<Link>, _request: Request, _replies: Replies) -> Taken<'_> {
        Box::pin(std::future::ready(()))
    }
}

/// The future of a message that is being taken up.
pub type Taken<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What a peer did wrong: it ends its connection.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Bytes that are not what they should be.
    #[error("malformed frame")]
    Malformed(#[from] DecodeError),
    /// A frame or stream that its role may not send.
    #[error("a {sender} may not send {what} to a {receiver}")]
    Forbidden {
        /// The peer's role.
        sender: Role,
        /// The own role.
        receiver: Role,
        /// What it sent.
        what: String,
    },
}

/// One connection to one peer.
#[derive(Debug)]
pub struct Link {
    peer: PeerId,
    identity: PeerIdentity,
    connection: Connection,
    clock: Clock,
    channel: Mutex<Channel>,
    wake: Notify,
    /// Whose turn it is to write to its job stream.
    writing: Arc<LinkTurns>,
    heard: AtomicU64,
    /// Memory of what has arrived of records that are not whole, on all job streams.
    waiting: AtomicUsize,
    /// Made with the first content.
    content: OnceLock<PeerContent>,
    stream_out: mpsc::Sender<Vec<u8>>,
    tasks: TaskTracker,
    /// Where its tasks run, whichever thread begins them.
    runtime: Handle,
    over: CancellationToken,
    farewell: Notify,
}

/// The halves of a link's control stream, after both sides have greeted each other.
#[derive(Debug)]
pub struct ControlStream {
    /// To the peer.
    pub send: SendStream,
    /// From the peer.
    pub recv: RecvStream,
    /// What was read behind the greeting.
    pub frames: FrameReader,
}

/// The link's own ends of its queues, held by [`Link::run`].
#[derive(Debug)]
pub struct LinkQueues {
    stream: mpsc::Receiver<Vec<u8>>,
}

impl Link {
    /// A link over a connection on which both sides have greeted each other. `term` is the
    /// own epoch or incarnation; `beat` turns beats on. Its tasks run where this is called.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(
        peer: PeerId,
        identity: PeerIdentity,
        connection: Connection,
        clock: Clock,
        term: u64,
        beat: Option<u64>,
    ) -> (Arc<Self>, LinkQueues) {
        let (stream_out, stream) = mpsc::channel(STREAM_QUEUE);
        let mut channel = Channel::new(term);
        channel.set_beat(beat);
        channel.connected(clock.now());
        let link = Self {
            peer,
            identity,
            connection,
            clock,
            channel: Mutex::new(channel),
            wake: Notify::new(),
            writing: Arc::default(),
            heard: AtomicU64::new(clock.now().as_micros()),
            waiting: AtomicUsize::new(0),
            content: OnceLock::new(),
            stream_out,
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            over: CancellationToken::new(),
            farewell: Notify::new(),
        };
        (Arc::new(link), LinkQueues { stream })
    }

    /// The peer.
    pub const fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// What the peer's certificate says.
    pub const fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// The connection.
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The counters of content to and from the peer.
    pub(crate) fn content(&self) -> &PeerContent {
        self.content.get_or_init(|| PeerContent::of(&self.peer, self.identity.role))
    }

    /// Waits for the turn to write a piece to a job stream, given up one that it `has`; it ends
    /// when what is given is dropped.
    pub(crate) async fn turn(&self, claim: Claim, has: Option<Turn>) -> Turn {
        self.writing.turn(claim, has).await
    }

    /// When the peer was last heard.
    pub fn heard(&self) -> Time {
        Time::from_micros(self.heard.load(Ordering::Relaxed))
    }

    /// Sets the newest state of a kind about a job; see [`Channel::set`].
    pub fn set_state(&self, kind: StateKind, job: JobId, body: Vec<u8>, pace: Pace) {
        let set = self.channel().set(self.clock.now(), kind, job, body, pace);
        if let Err(error) = set {
            tracing::warn!(peer = %self.peer, %job, ?kind, %error, "a state cannot be told");
        }
        self.wake.notify_one();
    }

    /// Takes a state out of the outbox.
    pub fn forget_state(&self, kind: StateKind, job: JobId) {
        self.channel().forget(kind, job);
    }

    /// Sends a frame that is no state by the control stream.
    pub fn send_frame(&self, kind: FrameType, body: &[u8]) {
        let mut frame = Vec::with_capacity(body.len() + 4);
        put_frame(&mut frame, kind as u8, body);
        self.queue_stream(frame);
    }

    /// Runs `task` as the link's own: it is cancelled with the link. Any thread may call this.
    pub fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let guard = PanicGuard(Arc::clone(self));
        let over = self.over.clone();
        let task = async move {
            let _guard = guard;
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = task => {}
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Ends the connection at once.
    pub fn close(&self, code: Code, reason: &str) {
        self.connection.close(VarInt::from_u32(code.number()), reason.as_bytes());
    }

    /// Ends the connection because the peer is at fault.
    pub fn fault(&self, code: Code, reason: &str) {
        tracing::warn!(peer = %self.peer, reason, "closing the connection: the peer is at fault");
        self.close(code, reason);
    }

    /// Waits until the peer has acknowledged every state, says goodbye, waits for the answer
    /// and closes: what was said last is not lost. Gives up after `patience`.
    pub async fn farewell(&self, code: Code, patience: Duration) {
        let settle = async {
            while !self.channel().settled() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.send_frame(FrameType::Goodbye, &[]);
            self.farewell.notified().await;
        };
        tokio::select! {
            _ = tokio::time::timeout(patience, settle) => {}
            () = self.over.cancelled() => {}
        }
        self.close(code, "goodbye");
    }

    /// Resolves when the link has ended.
    pub async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// Runs the link until its connection ends, and says why it did.
    ///
    /// # Cancellation
    /// Dropping the future leaves the link's tasks to its drop; close the connection first.
    pub async fn run(
        self: Arc<Self>,
        control: ControlStream,
        queues: LinkQueues,
        conduct: Arc<dyn Conduct>,
    ) -> String {
        telemetry::connections(self.identity.role, 1);
        if let Some(old) = conduct.links().put_in(&self, conduct.relays()) {
            old.close(Code::Replaced, "a newer connection takes the place of this one");
        }
        conduct.up(Arc::clone(&self)).await;
        self.start_tasks(control, queues, &conduct);
        let why = self.connection.closed().await.to_string();
        self.over.cancel();
        self.channel().disconnected();
        self.tasks.close();
        self.tasks.wait().await;
        if conduct.links().take_out(&self, conduct.relays()) {
            conduct.down(Arc::clone(&self)).await;
        }
        telemetry::connections(self.identity.role, -1);
        why
    }

    fn start_tasks(
        self: &Arc<Self>,
        control: ControlStream,
        queues: LinkQueues,
        conduct: &Arc<dyn Conduct>,
    ) {
        let (apply, applying) = mpsc::channel(APPLY_QUEUE);
        self.spawn(write_stream(control.send, queues.stream));
        self.spawn(Arc::clone(self).talk(Arc::clone(conduct)));
        self.spawn(apply_states(Arc::clone(self), Arc::clone(conduct), applying));
        let reading = Arc::clone(self).read_stream(
            control.recv,
            control.frames,
            Arc::clone(conduct),
            apply.clone(),
        );
        self.spawn(reading);
        self.spawn(Arc::clone(self).read_datagrams(Arc::clone(conduct), apply));
        self.spawn(Arc::clone(self).accept_job_streams(Arc::clone(conduct)));
        self.spawn(Arc::clone(self).accept_requests(Arc::clone(conduct)));
    }

    /// A job stream has `now` bytes waiting where it had `before`; gives what all of them have.
    pub(crate) fn count_waiting(&self, before: usize, now: usize) -> usize {
        self.waiting.fetch_add(now, Ordering::Relaxed);
        self.waiting.fetch_sub(before, Ordering::Relaxed) - before
    }

    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue_stream(&self, bytes: Vec<u8>) {
        if self.stream_out.try_send(bytes).is_err() && !self.over.is_cancelled() {
            self.close(Code::Busy, "the control stream is not read");
        }
    }

    /// Sends what the channel has to say, and keeps the send window in step.
    async fn talk(self: Arc<Self>, conduct: Arc<dyn Conduct>) {
        let mut tune = tokio::time::interval(TUNE_EVERY);
        tune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut need = Need::default();
        loop {
            let mut out = Vec::new();
            let path = Path {
                rtt: self.connection.rtt(),
                datagram_max: self.connection.max_datagram_size().unwrap_or(0),
            };
            let wake_at = {
                let mut channel = self.channel();
                channel.poll(self.clock.now(), path, &mut out);
                channel.next_wake()
            };
            out.into_iter().for_each(|outgoing| self.send_outgoing(outgoing));
            let wake_at = wake_at.unwrap_or(self.clock.now() + Duration::from_secs(3_600));
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(self.clock.instant(wake_at)) => {}
                _ = tune.tick() => self.tune(&mut need, conduct.links()),
            }
        }
    }

    fn tune(&self, need: &mut Need, links: &Links) {
        let (now, id) = (self.clock.now(), self.connection.stable_id() as u64);
        let need = need.look(&self.connection.stats());
        self.channel().set_uplink(links.access.carries_bps().unwrap_or(0));
        let window = links.sending.window(now, id, need, links.budget.sending());
        self.connection.set_send_window(window);
    }

    fn send_outgoing(&self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Stream(bytes) => self.queue_stream(bytes),
            Outgoing::Datagram(bytes) => {
                let datagram = Bytes::from(bytes);
                match self.connection.send_datagram(datagram.clone()) {
                    Ok(()) | Err(SendDatagramError::ConnectionLost(_)) => {}
                    Err(
                        SendDatagramError::TooLarge
                        | SendDatagramError::Disabled
                        | SendDatagramError::UnsupportedByPeer,
                    ) => self.queue_stream(datagram.to_vec()),
                }
            }
        }
    }

    async fn read_stream(
        self: Arc<Self>,
        mut recv: RecvStream,
        mut frames: FrameReader,
        conduct: Arc<dyn Conduct>,
        apply: mpsc::Sender<Box<Application>>,
    ) {
        loop {
            loop {
                match frames.next(limit::FRAME_LEN_MAX) {
                    Ok(Some(frame)) => self.take(&frame, Via::Stream, &conduct, &apply),
                    Ok(None) => break,
                    Err(error) => return self.fault(Code::Malformed, &error.to_string()),
                }
            }
            match recv.read_chunk(limit::FRAME_LEN_MAX, true).await {
                Ok(Some(chunk)) => frames.push(&chunk.bytes),
                Ok(None) => return self.close(Code::Done, "the control stream has ended"),
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "control stream");
                    return self.close(Code::Done, "the control stream was reset");
                }
            }
        }
    }

    async fn read_datagrams(
        self: Arc<Self>,
        conduct: Arc<dyn Conduct>,
        apply: mpsc::Sender<Box<Application>>,
    ) {
        while let Ok(datagram) = self.connection.read_datagram().await {
            match datagram_frames(&datagram) {
                Ok(frames) => {
                    for frame in frames {
                        self.take(&frame, Via::Datagram, &conduct, &apply);
                    }
                }
                Err(error) => return self.fault(Code::Malformed, &error.to_string()),
            }
        }
    }

    fn take(
        self: &Arc<Self>,
        frame: &Frame,
        via: Via,
        conduct: &Arc<dyn Conduct>,
        apply: &mpsc::Sender<Box<Application>>,
    ) {
        self.heard.store(self.clock.now().as_micros(), Ordering::Relaxed);
        // An unknown type is a newer version's: skipped, as its framing allows.
        let Some(kind) = FrameType::from_byte(frame.kind) else { return };
        if let Err(fault) = self.take_known(kind, &frame.body, via, conduct, apply) {
            let code = match fault {
                Fault::Malformed(_) => Code::Malformed,
                Fault::Forbidden { .. } => Code::Refused,
            };
            self.fault(code, &chain(&fault));
        }
    }

    fn take_known(
        self: &Arc<Self>,
        kind: FrameType,
        body: &Bytes,
        via: Via,
        conduct: &Arc<dyn Conduct>,
        apply: &mpsc::Sender<Box<Application>>,
    ) -> Result<(), Fault> {
        let (sender, receiver) = (self.identity.role, conduct.role());
        if !rights::may_send(sender, kind, receiver) {
            return Err(Fault::Forbidden { sender, receiver, what: format!("{kind:?}") });
        }
        if let Some(state) = kind.state() {
            return self.take_state(state, &message::decode(body)?, via, conduct, apply);
        }
        match kind {
            FrameType::Acks => {
                let acks: Acks = message::decode(body)?;
                self.channel().acked(self.clock.now(), &acks);
                self.wake.notify_one();
            }
            FrameType::Beat => conduct.beat(self, message::decode(body)?),
            FrameType::Reconcile => {
                let reconcile: Reconcile = message::decode(body)?;
                if apply.try_send(Box::new(Application::Reconcile(reconcile))).is_err() {
                    self.close(Code::Busy, "more than can be taken up");
                }
            }
            FrameType::Query => conduct.query(self, message::decode(body)?),
            FrameType::Answer => {
                let answer: Answer = message::decode(body)?;
                if apply.try_send(Box::new(Application::Answer(answer))).is_err() {
                    tracing::debug!(peer = %self.peer, "an answer was dropped: the queue is full");
                }
            }
            FrameType::Goodbye => self.send_frame(FrameType::GoodbyeAck, &[]),
            FrameType::GoodbyeAck => self.farewell.notify_one(),
            // Greetings come once, before the link; requests have their own streams; states
            // were taken above.
            FrameType::Hello
            | FrameType::Welcome
            | FrameType::Request
            | FrameType::Reply
            | FrameType::Assign
            | FrameType::Offer
            | FrameType::Want
            | FrameType::Report
            | FrameType::View => {
                return Err(Fault::Forbidden { sender, receiver, what: format!("{kind:?} here") });
            }
        }
        Ok(())
    }

    fn take_state(
        self: &Arc<Self>,
        kind: StateKind,
        envelope: &Envelope,
        via: Via,
        conduct: &Arc<dyn Conduct>,
        apply: &mpsc::Sender<Box<Application>>,
    ) -> Result<(), Fault> {
        let (job, stamp, now) = (envelope.job, envelope.stamp, self.clock.now());
        // What the role takes up needs a place in the queue first: a state that was judged
        // new and then dropped would never be taken up.
        let Ok(place) = apply.try_reserve() else { return Ok(()) };
        let receipt = self.channel().receive(now, via, kind, envelope);
        self.wake.notify_one();
        if !matches!(receipt, Receipt::New) {
            return Ok(());
        }
        match kind {
            StateKind::Assign => {
                let assign = message::decode::<Assign>(&envelope.body)?;
                place.send(Box::new(Application::Assign(job, stamp, assign)));
            }
            StateKind::Report => {
                let report = message::decode::<Report>(&envelope.body)?;
                place.send(Box::new(Application::Report(job, stamp, report)));
            }
            StateKind::Offer => {
                let offer = message::decode::<Offer>(&envelope.body)?;
                telemetry::offer_received(self.identity.role);
                conduct.offered(self, job, offer);
                self.accept(kind, job, stamp);
            }
            StateKind::View => {
                let view = message::decode::<View>(&envelope.body)?;
                conduct.view(self, job, view);
                self.accept(kind, job, stamp);
            }
            StateKind::Want => {
                let want = message::decode::<Want>(&envelope.body)?;
                conduct.wanted(self, job, want);
                self.accept(kind, job, stamp);
            }
        }
        Ok(())
    }

    fn accept(&self, kind: StateKind, job: JobId, stamp: message::Stamp) {
        self.channel().accept(self.clock.now(), kind, job, stamp);
        self.wake.notify_one();
    }

    async fn accept_job_streams(self: Arc<Self>, conduct: Arc<dyn Conduct>) {
        let mut room = StreamRoom::new();
        while let Ok(stream) = self.connection.accept_uni().await {
            let (sender, receiver) = (self.identity.role, conduct.role());
            if !rights::may_feed(sender, receiver) {
                let what = "a job stream".to_owned();
                let fault = Fault::Forbidden { sender, receiver, what };
                return self.fault(Code::Refused, &fault.to_string());
            }
            let (place, allowed) = room.take();
            if let Some(allowed) = allowed {
                self.connection.set_max_concurrent_uni_streams(VarInt::from_u32(allowed));
            }
            let intake = intake::run(Arc::clone(&self), stream, Arc::clone(&conduct));
            self.spawn(async move {
                intake.await;
                drop(place);
            });
        }
    }

    async fn accept_requests(self: Arc<Self>, conduct: Arc<dyn Conduct>) {
        while let Ok((send, recv)) = self.connection.accept_bi().await {
            let (link, conduct) = (Arc::clone(&self), Arc::clone(&conduct));
            self.spawn(async move {
                match read_request(recv, link.identity.role).await {
                    Ok(request) => conduct.request(link, request, Replies::new(send)).await,
                    Err(error @ RequestError::Forbidden(_)) => {
                        let refusing =
                            Replies::new(send).refuse(RefusalKind::Rights, error.to_string());
                        if let Err(error) = refusing.await {
                            tracing::debug!(%error, "the asker is gone");
                        }
                    }
                    Err(error) => link.fault(error.code(), &error.to_string()),
                }
            });
        }
    }
}

/// A state or answer that waits for the role to take it up, in the order of arrival. Boxed, since
/// a queue takes memory for 32 at a time, at once on each connection.
#[derive(Debug)]
enum Application {
    Assign(JobId, message::Stamp, Assign),
    Report(JobId, message::Stamp, Report),
    Answer(Answer),
    Reconcile(Reconcile),
}

async fn apply_states(
    link: Arc<Link>,
    conduct: Arc<dyn Conduct>,
    mut queue: mpsc::Receiver<Box<Application>>,
) {
    while let Some(application) = queue.recv().await {
        let taker = Arc::clone(&link);
        match *application {
            Application::Assign(job, stamp, assign) => {
                conduct.assign(taker, job, assign).await;
                link.accept(StateKind::Assign, job, stamp);
            }
            Application::Report(job, stamp, report) => {
                conduct.report(taker, job, report).await;
                link.accept(StateKind::Report, job, stamp);
            }
            Application::Answer(answer) => conduct.answer(taker, answer).await,
            Application::Reconcile(reconcile) => conduct.reconcile(taker, reconcile).await,
        }
    }
}

async fn write_stream(mut send: SendStream, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        if let Err(error) = send.write_chunk(bytes.into()).await {
            tracing::debug!(%error, "control stream");
            return;
        }
    }
}

/// Ends the link when one of its tasks panics: a half-working link would be worse.
struct PanicGuard(Arc<Link>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(peer = %self.0.peer, "a task of this connection has panicked");
            self.0.close(Code::Internal, "a task has panicked");
        }
    }
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The links of a process, by peer.
#[derive(Debug, Default)]
pub struct Links {
    budget: Budget,
    access: Arc<Access>,
    sending: SendBudget,
    links: Mutex<BTreeMap<PeerId, Arc<Link>>>,
    /// Held while a link comes or goes and the jobs hear of it: what an old link had agreed on
    /// is undone before the next one to the same peer can agree on anything.
    change: Mutex<()>,
}

impl Links {
    /// No links yet; what they may hold together is a share of the budget of `terms`.
    pub fn new(terms: &Terms) -> Self {
        let (budget, access) = (terms.budget, Arc::clone(&terms.access));
        Self { budget, access, ..Self::default() }
    }

    /// The access link that the links share.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The memory that the links share with the jobs.
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// Puts a link in; the one that it replaces is returned.
    fn put_in(&self, link: &Arc<Link>, relays: &Relays) -> Option<Arc<Link>> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.lock().insert(link.peer.clone(), Arc::clone(link));
        if old.is_some() {
            relays.peer_lost(&link.peer);
        }
        old
    }

    /// Takes a link out, unless another one has taken its place.
    fn take_out(&self, link: &Arc<Link>, relays: &Relays) -> bool {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.sending.forget(link.connection.stable_id() as u64);
        let present = self.get(&link.peer).is_some_and(|present| Arc::ptr_eq(&present, link));
        if present {
            self.lock().remove(&link.peer);
            relays.peer_lost(&link.peer);
        }
        present
    }

    /// The link to a peer.
    pub fn get(&self, peer: &PeerId) -> Option<Arc<Link>> {
        self.lock().get(peer).cloned()
    }

    /// How many links there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All links.
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
