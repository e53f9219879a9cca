//! What clients, operators and nodes ask of the base, and what they are told.

use std::sync::Arc;

use ring::signature::KeyPair as _;
use shared::id::{JobId, Name, Role};
use shared::job::{Dimensions, JobObject, Quorum, ServerList, SignedJob, chunk_len, stripe_count};
use shared::table::{Effect, Input, NewJob, TableError};
use shared::view::{Event, EventBody, NodeInfo, NodeState, rfc3339};
use shared::wire::request::{JobRef, Refusal, RefusalKind, Reply, Request};
use shared::wire::rights::may_request;

use super::watch::{WATCHERS_MAX, Watcher};
use super::{Jobs, Stopped, Turn, nodes};
use crate::ledger::Write;

/// Bytes that stay free on the base's disk when a job is made: ledger, journals and pages.
pub const DISK_RESERVE: u64 = 64 * 1024 * 1024;

/// Who asks, as the certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The role.
    pub role: Role,
    /// The name.
    pub name: Name,
}

impl Asker {
    /// Whose jobs it may see; `None` for all.
    fn sees(&self) -> Option<&Name> {
        (self.role != Role::Operator).then_some(&self.name)
    }
}

/// What a request comes to.
#[derive(Debug)]
pub enum Answer {
    /// One reply.
    Reply(Reply),
    /// Events until the job is closed.
    Watch(Watcher),
    /// An open job that its client goes on with, and the first of its pages that is wanted.
    Resume(Box<SignedJob>, u32),
}

impl Jobs {
    /// Answers a request. What is told is durable.
    ///
    /// # Errors
    /// [`Stopped`] if the base stops or cannot write its ledger.
    pub async fn handle(&self, asker: &Asker, request: Request) -> Result<Answer, Stopped> {
        if !may_request(asker.role, &request) {
            let text = format!("a {} may not ask for this of a base", asker.role);
            return Ok(refused(RefusalKind::Rights, text));
        }
        match request {
            Request::Create { key, dimensions } => self.create(asker, key, *dimensions).await,
            Request::Jobs => {
                let views = self.run(|turn| turn.table().views(asker.sees())).await?;
                Ok(Answer::Reply(Reply::Jobs(views)))
            }
            Request::Job(job) => {
                let session = self.session();
                let view = |turn: &mut Turn<'_>, id| {
                    let mut view =
                        turn.table().view(id).ok_or(TableError::UnknownJob(JobRef::Id(id)))?;
                    if view.closed_at.is_none() {
                        view.reason = view.reason.or_else(|| session.waits_for(id));
                    }
                    Ok(Reply::Job(Box::new(view)))
                };
                self.on_job(asker, job, view).await.map(answer)
            }
            Request::Watch(job) => self.watch(asker, job).await,
            Request::Cancel(job) => {
                let reason = format!("cancelled by {}", asker.name);
                let cancel = |turn: &mut Turn<'_>, id| {
                    turn.act(|table, now, wall, fx| table.cancel(now, wall, (id, &reason), fx))?;
                    Ok(Reply::Done)
                };
                self.on_job(asker, job, cancel).await.map(answer)
            }
            Request::Remove(job) => {
                let reason = format!("removed by {}", asker.name);
                let remove = |turn: &mut Turn<'_>, id| {
                    turn.act(|table, now, wall, fx| table.remove(now, wall, (id, &reason), fx))?;
                    Ok(Reply::Done)
                };
                self.on_job(asker, job, remove).await.map(answer)
            }
            Request::Fail { job, reason } => {
                let fail = |turn: &mut Turn<'_>, id| {
                    turn.act(|table, now, wall, fx| table.fail(now, wall, (id, &reason), fx))?;
                    Ok(Reply::Done)
                };
                self.on_job(asker, JobRef::Id(job), fail).await.map(answer)
            }
            Request::Nodes => self.nodes().await,
            Request::ForgetNode(name) => self.forget(name).await,
            Request::LabelNode { node, labels } => self.label(node, labels).await,
            Request::Servers { job, hash } => self.servers(asker, job, hash).await,
            Request::Resume { dimensions, pages } => self.resume(asker, &dimensions, pages).await,
        }
    }

    async fn create(
        &self,
        asker: &Asker,
        key: [u8; 16],
        dimensions: Dimensions,
    ) -> Result<Answer, Stopped> {
        if let Err(text) = dimensions.check() {
            return Ok(refused(RefusalKind::Cannot, text));
        }
        let chance = self.chance()?;
        let made = self.run(|turn| self.make(turn, asker, (key, dimensions, &chance)));
        Ok(match made.await? {
            Ok(object) => Answer::Reply(Reply::Created(Box::new(object))),
            Err(text) => refused(RefusalKind::Cannot, text),
        })
    }

    async fn resume(
        &self,
        asker: &Asker,
        dimensions: &Dimensions,
        pages: u32,
    ) -> Result<Answer, Stopped> {
        let begun = self.run(|turn| {
            let id = turn.table().begun(&asker.name, dimensions)?;
            Ok::<_, TableError>(id.and_then(|id| turn.table().object(id).cloned()))
        });
        Ok(match begun.await? {
            Ok(Some(object)) => Answer::Resume(Box::new(object), pages),
            Ok(None) => {
                let name = dimensions.name.as_ref().map(Name::as_str).unwrap_or_default();
                refused(RefusalKind::NotOpen, format!("no job {name} of yours is open"))
            }
            Err(error) => refused(RefusalKind::Cannot, error.to_string()),
        })
    }

    fn make(
        &self,
        turn: &mut Turn<'_>,
        asker: &Asker,
        (key, dimensions, chance): ([u8; 16], Dimensions, &[u8; 10]),
    ) -> Result<SignedJob, String> {
        if let Some(id) = turn.table().by_key(&asker.name, &key) {
            return turn.table().object(id).cloned().ok_or_else(|| format!("job {id} is gone"));
        }
        let servers = turn.nodes().select(&dimensions.to)?;
        check_quorum(dimensions.quorum, servers.names().len())?;
        check_rate(dimensions.rate_bps)?;
        self.check_room(dimensions.size)?;
        let wall_ms = turn.wall_ms();
        let id = uuid::Builder::from_unix_timestamp_millis(wall_ms, chance).into_uuid();
        let id = JobId(id.into_bytes());
        let name = dimensions.name.clone().map_or_else(|| made_up_name(id), Ok)?;
        let object = self.sign(id, (&name, &asker.name), &dimensions, &servers, wall_ms)?;
        let new = NewJob {
            id,
            client: asker.name.clone(),
            key,
            name,
            dimensions,
            object: object.clone(),
            servers: Arc::new(servers),
        };
        let created = turn.act(|table, now, wall, fx| table.create(now, wall, new, fx));
        created.map(|_| object).map_err(|error| error.to_string())
    }

    /// Refuses content that is known to find no room here.
    fn check_room(&self, size: Option<u64>) -> Result<(), String> {
        let (needed, free) =
            (size.unwrap_or(0).saturating_add(DISK_RESERVE), self.session().free_space());
        if needed > free {
            return Err(format!(
                "the base's disk is too small: {needed} bytes are needed with the reserve, {free} \
                 are free; make room there or push less"
            ));
        }
        Ok(())
    }

    fn sign(
        &self,
        id: JobId,
        (name, tenant): (&Name, &Name),
        dimensions: &Dimensions,
        servers: &ServerList,
        wall_ms: u64,
    ) -> Result<SignedJob, String> {
        let page_key = self.key().public_key().as_ref().try_into();
        let nodes = servers.names().len();
        let object = JobObject {
            id,
            name: name.clone(),
            tenant: tenant.clone(),
            kind: dimensions.kind,
            size: dimensions.size,
            created_at_ms: wall_ms,
            deadline_s: dimensions.deadline_s,
            stripes: stripe_count(dimensions.kind, nodes),
            chunk_max: chunk_len(dimensions.kind, dimensions.size),
            priority: dimensions.priority,
            rate_bps: dimensions.rate_bps,
            keep: dimensions.keep,
            page_key: page_key.map_err(|_length| "the base's key is not Ed25519".to_owned())?,
            servers: u32::try_from(nodes).unwrap_or(u32::MAX),
            servers_hash: servers.hash(),
        };
        Ok(object.sign(self.key()))
    }

    /// Runs `act` on the job that `wanted` means to the asker, also if it is in the ledger only.
    async fn on_job<R: Send>(
        &self,
        asker: &Asker,
        wanted: JobRef,
        act: impl Fn(&mut Turn<'_>, JobId) -> Result<R, TableError>,
    ) -> Result<Result<R, Refusal>, Stopped> {
        let sees = asker.sees();
        let tried = self.run(|turn| act_on(turn, &wanted, sees, &act)).await?;
        let unknown = match tried {
            Err(error @ TableError::UnknownJob(_)) => error,
            other => return Ok(other.map_err(|error| cannot(error.to_string()))),
        };
        let row = match self.ledger().find(wanted.clone(), sees.cloned()).await {
            Ok(Some(row)) if !row.status.removed => row,
            Ok(_) => return Ok(Err(cannot(unknown.to_string()))),
            Err(error) => {
                tracing::warn!(job = %wanted, error = %error, "a job of the ledger cannot be read");
                return Ok(Err(cannot(format!("the ledger's record of job {wanted} is damaged"))));
            }
        };
        let tried = self.run(|turn| {
            turn.readmit(row);
            act_on(turn, &wanted, sees, &act)
        });
        Ok(tried.await?.map_err(|error| cannot(error.to_string())))
    }

    async fn watch(&self, asker: &Asker, job: JobRef) -> Result<Answer, Stopped> {
        if self.watchers().count() >= WATCHERS_MAX {
            let text = format!("{WATCHERS_MAX} watchers are there, the most a base serves");
            return Ok(refused(RefusalKind::Cannot, format!("{text}; try again later")));
        }
        let begin = |turn: &mut Turn<'_>, id: JobId| {
            let (watcher, queue) = Watcher::new();
            for event in beginning(turn, id) {
                queue.push(&Arc::new(event));
            }
            turn.register(id, queue);
            Ok(watcher)
        };
        Ok(match self.on_job(asker, job, begin).await? {
            Ok(watcher) => Answer::Watch(watcher),
            Err(refusal) => Answer::Reply(Reply::Refused(refusal)),
        })
    }

    async fn nodes(&self) -> Result<Answer, Stopped> {
        let rows = self.run(|turn| {
            let jobs = turn.table().open_jobs_by_node();
            let known = turn.nodes().known();
            known
                .map(|row| {
                    let jobs = jobs.get(&row.name).copied().unwrap_or(0);
                    (row.name.clone(), row.labels(), jobs)
                })
                .collect::<Vec<_>>()
        });
        let infos = rows.await?.into_iter().map(|(name, labels, jobs)| {
            let link = self.session().link(&name);
            NodeInfo {
                name: name.to_string(),
                address: link.address,
                labels,
                state: link.state,
                jobs,
                rtt_ms: link.rtt_ms,
            }
        });
        Ok(Answer::Reply(Reply::Nodes(infos.collect())))
    }

    async fn forget(&self, name: Name) -> Result<Answer, Stopped> {
        if self.session().link(&name).state == NodeState::Up {
            let text = format!("node {name} is connected; stop it before it is forgotten");
            return Ok(refused(RefusalKind::Cannot, text));
        }
        let forgotten = self.run(|turn| {
            let row = turn.nodes_mut().forget(&name)?;
            turn.write(Write::Node(row));
            turn.input(Input::NodeForgotten { node: name.clone() });
            Some(())
        });
        Ok(match forgotten.await? {
            Some(()) => Answer::Reply(Reply::Done),
            None => refused(RefusalKind::Cannot, nodes::unknown(&name)),
        })
    }

    async fn label(&self, node: Name, labels: Vec<(String, String)>) -> Result<Answer, Stopped> {
        let labelled = self.run(|turn| {
            let row = turn.nodes_mut().label(&node, labels)?;
            turn.write(Write::Node(row));
            Ok::<_, String>(())
        });
        Ok(match labelled.await? {
            Ok(()) => Answer::Reply(Reply::Done),
            Err(text) => refused(RefusalKind::Cannot, text),
        })
    }

    async fn servers(
        &self,
        asker: &Asker,
        job: JobId,
        hash: shared::seal::Hash,
    ) -> Result<Answer, Stopped> {
        let list = self.run(|turn| turn.table().servers(job, &asker.name).cloned()).await?;
        Ok(match list.filter(|list| list.hash() == hash) {
            Some(list) => Answer::Reply(Reply::Servers(list.as_ref().clone())),
            None => refused(RefusalKind::Cannot, format!("unknown job {job}")),
        })
    }
}

/// A number of nodes that the selection does not have can never be reached.
fn check_quorum(quorum: Quorum, selected: usize) -> Result<(), String> {
    match quorum {
        Quorum::Count(count) if usize::try_from(count).is_ok_and(|count| count <= selected) => {
            Ok(())
        }
        Quorum::Count(count) => Err(format!(
            "a quorum of {count} nodes is more than the {selected} that are selected; lower \
             --quorum or select more nodes"
        )),
        Quorum::All | Quorum::Percent(_) => Ok(()),
    }
}

fn check_rate(rate_bps: Option<u64>) -> Result<(), String> {
    match rate_bps {
        Some(0) => Err("a rate of 0 bit/s sends nothing; leave it out for no limit".to_owned()),
        Some(_) | None => Ok(()),
    }
}

fn act_on<R>(
    turn: &mut Turn<'_>,
    wanted: &JobRef,
    sees: Option<&Name>,
    act: &impl Fn(&mut Turn<'_>, JobId) -> Result<R, TableError>,
) -> Result<R, TableError> {
    let id = turn.table().resolve(wanted, sees)?;
    act(turn, id)
}

/// What a watcher is told first: that the job was created, and where it stands.
fn beginning(turn: &Turn<'_>, id: JobId) -> Vec<Event> {
    let table = turn.table();
    let (Some(head), Some(status)) = (table.head(id), table.status(id)) else {
        return Vec::new();
    };
    let event = |at_ms, body| Event { job: id.to_string(), at: rfc3339(at_ms), body };
    let now = turn.wall_ms();
    let mut events = vec![event(head.created_ms, EventBody::Created)];
    if status.state.is_closed() {
        let view = table.view(id).map(|view| EventBody::Closed(Box::new(view)));
        events.extend(view.map(|body| event(status.closed_ms.unwrap_or(now), body)));
        return events;
    }
    events.extend(status.quorum.then(|| event(now, EventBody::Quorum)));
    events.extend(table.progress(id).map(|body| event(now, body)));
    events
}

/// A name for a job that came without: unique, since the id's end is random.
fn made_up_name(id: JobId) -> Result<Name, String> {
    let text = id.to_string();
    let end = text.rsplit('-').next().unwrap_or_default();
    Name::new(format!("job-{end}")).map_err(|error| error.to_string())
}

fn cannot(text: String) -> Refusal {
    Refusal { kind: RefusalKind::Cannot, text }
}

fn refused(kind: RefusalKind, text: String) -> Answer {
    Answer::Reply(Reply::Refused(Refusal { kind, text }))
}

fn answer(result: Result<Reply, Refusal>) -> Answer {
    Answer::Reply(result.unwrap_or_else(Reply::Refused))
}

/// The effect as an event that watchers get, if it is one.
pub(super) fn event_of(effect: &Effect) -> Option<(JobId, Event)> {
    match effect {
        Effect::Event { job, at_ms, body } => {
            let event = Event { job: job.to_string(), at: rfc3339(*at_ms), body: body.clone() };
            Some((*job, event))
        }
        _ => None,
    }
}
