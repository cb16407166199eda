//! Following another instance, with all that it may take: told once whom to follow, the engine goes on by itself, and
//! says meanwhile how far it is.

use std::time::{Duration, Instant};

use election::{Address, Copying, Marker, Nonce, Secret};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::history::{self, Own, Verdict};
use super::probe::Answer;
use super::rebuild::{self, Plan, Tail};
use super::{Postgres, config, link, marker, slots};
use crate::engine::EngineError;
use crate::engine::progress::Progress;

/// How long an operation waits for the source's answer. After that the next probes look for it.
const PATIENCE: Duration = Duration::from_millis(700);

/// Between two questions to a source that is away, or not as far.
const AGAIN: Duration = Duration::from_millis(200);

/// A link that is down this long may never come up: the source is asked whether it can.
const STUCK: Duration = Duration::from_secs(3);

/// How long a source may take to come to its first checkpoint in a new timeline.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(8);

/// Between two tries to make the copy anew.
const REBUILD_AGAIN: Duration = Duration::from_secs(2);

/// Whom to follow.
#[derive(Debug, Clone)]
struct Wish {
    source: Address,
    channel: Nonce,
    secret: Secret,
    /// Whether the data may be replaced for it.
    may_replace: bool,
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Pursuit {
    wish: Option<Wish>,
    /// What this run has been found to be a beginning of.
    fits: Option<Address>,
    /// That one has a slot for this copy.
    slot: bool,
    asking: Option<JoinHandle<Result<Verdict, sqlx::Error>>>,
    /// What was asked about.
    asked: Option<Own>,
    not_before: Option<Instant>,
    down_since: Option<Instant>,
    parted_since: Option<Instant>,
    rebuild: Option<Rebuild>,
}

/// A copy under construction.
#[derive(Debug)]
struct Rebuild {
    stage: Stage,
    /// Of whom.
    source: Address,
    /// What is to be saved of the former copy.
    tail: Option<Tail>,
    /// Whether winding back was worth a try.
    rewind: bool,
    progress: Progress,
}

#[derive(Debug)]
enum Stage {
    /// The server is down, and its folder is worked on.
    Making(JoinHandle<Result<bool, EngineError>>),
    /// It was started with what was made, and takes no connections yet.
    Starting,
    /// It failed, and is tried again.
    Failed,
}

impl Pursuit {
    /// Whom it was told to follow.
    pub(super) fn follows(&self) -> Option<(Address, Nonce)> {
        self.wish.as_ref().map(|wish| (wish.source.clone(), wish.channel.clone()))
    }

    /// Whether there is no copy at this moment.
    pub(super) fn is_rebuilding(&self) -> bool {
        self.rebuild.is_some()
    }

    /// How far the copy is that is being made, while there is none.
    pub(super) fn copying(&self) -> Option<Copying> {
        self.rebuild.as_ref().map(|rebuild| rebuild.progress.now())
    }

    /// Another run was met: whether it fits is not known.
    pub(super) fn forget_run(&mut self) {
        self.fits = None;
        self.stop_asking();
    }

    /// Whether its server runs, and has not answered yet.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.rebuild, Some(Rebuild { stage: Stage::Starting, .. }))
    }

    /// It has answered: there is a copy.
    pub(super) fn has_come_back(&mut self) {
        if self.is_starting() {
            self.rebuild = None;
        }
    }

    /// Follows nobody any more.
    pub(super) fn give_up(&mut self) {
        self.stop_asking();
        self.stop_making();
        *self = Self::default();
    }

    /// Makes no copy any more; gives what was to be saved of the former one.
    fn stop_making(&mut self) -> Option<Tail> {
        let rebuild = self.rebuild.take()?;
        if let Stage::Making(task) = rebuild.stage {
            // Its tool ends with it.
            task.abort();
        }
        rebuild.tail
    }

    /// Whether a copy is being made of another than who is to be followed.
    fn makes_another(&self) -> bool {
        let Some(Rebuild { stage: Stage::Making(task), source, .. }) = &self.rebuild else { return false };
        !task.is_finished() && self.wish.as_ref().is_some_and(|wish| wish.source != *source)
    }

    fn stop_asking(&mut self) {
        if let Some(task) = self.asking.take() {
            task.abort();
        }
    }

    fn is_early(&self) -> bool {
        self.not_before.is_some_and(|at| Instant::now() < at)
    }
}

impl Postgres {
    /// Follows `source` from now on.
    pub(super) async fn follow(
        &mut self,
        source: &Address,
        channel: Option<&(Nonce, Secret)>,
        may_replace: bool,
    ) -> Result<(), EngineError> {
        let before = self.pursuit.wish.take();
        if before.as_ref().is_none_or(|wish| wish.source != *source) {
            self.pursuit.slot = false;
        }
        let wish = match (channel, before) {
            (Some((name, secret)), _) => {
                let (channel, secret) = (name.clone(), secret.clone());
                Wish { source: source.clone(), channel, secret, may_replace }
            }
            (None, Some(before)) => Wish { source: source.clone(), may_replace, ..before },
            (None, None) => Wish { may_replace, ..self.recall(source)? },
        };
        self.pursuit.wish = Some(wish);
        (self.pursuit.not_before, self.pursuit.down_since) = (None, None);
        self.pursuit.stop_asking();
        if self.pursuit.is_starting() {
            // What was wound back takes no connections before it has been fed, and its source of before may be gone.
            return self.point();
        }
        if self.pursuit.makes_another() {
            self.begin_again();
        }
        if self.pursuit.is_rebuilding() {
            return Ok(());
        }
        if self.pursuit.fits.as_ref() == Some(source) {
            return self.point();
        }
        // What is left to do is done by this and the next probes.
        let (answer, marker) = match self.ask().await {
            Ok(seen) => seen,
            // The same, of one that was made by an earlier run of this agent.
            Err(error) if link::is_not_ready(&error) && self.is_incomplete() => return self.point(),
            Err(_) => return Ok(()),
        };
        self.pursue(&answer, marker.as_ref()).await;
        if let Some(asking) = &mut self.pursuit.asking {
            let said = tokio::time::timeout(PATIENCE, asking).await;
            if let Ok(said) = said {
                self.pursuit.asking = None;
                self.conclude(said.unwrap_or(Err(sqlx::Error::WorkerCrashed))).await;
            }
        }
        Ok(())
    }

    /// An agent that was started anew is told to follow with the password that its server has, and under the name that the
    /// master waits for: under another, its acknowledgements would count for nothing.
    fn recall(&self, source: &Address) -> Result<Wish, EngineError> {
        let path = self.setup.data_dir.join(config::PASSFILE);
        let text = std::fs::read_to_string(&path).map_err(EngineError::io("read", &path))?;
        let (channel, secret) = config::read_passfile(&text);
        Ok(Wish { source: source.clone(), channel, secret, may_replace: false })
    }

    /// Lets what is under way go on.
    pub(super) async fn advance(&mut self) {
        if self.pursuit.asking.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(asking) = self.pursuit.asking.take()
        {
            let said = asking.await.unwrap_or(Err(sqlx::Error::WorkerCrashed));
            self.conclude(said).await;
        }
        let early = self.pursuit.is_early();
        let Some(rebuild) = &mut self.pursuit.rebuild else { return };
        let done = match &mut rebuild.stage {
            Stage::Failed if !early => return self.begin_again(),
            Stage::Failed => return,
            Stage::Starting if self.supervisor.life().ended().is_some() => {
                Err(EngineError::StartFailed { why: "it ended with the copy that was made".to_owned() })
            }
            Stage::Starting => return,
            Stage::Making(task) if !task.is_finished() => return,
            Stage::Making(task) => match task.await {
                Ok(Ok(slot)) => {
                    let wished = self.pursuit.wish.as_ref().map(|wish| &wish.source);
                    self.pursuit.slot = slot && wished == Some(&rebuild.source);
                    self.come_back().await
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Err(EngineError::StartFailed { why: "the work on it was given up".to_owned() }),
            },
        };
        let stage = match done {
            Ok(()) => Stage::Starting,
            Err(error) => {
                warn!(group = self.setup.group, "the copy could not be made: {}", crate::error_chain(&error));
                self.pursuit.not_before = Some(Instant::now() + REBUILD_AGAIN);
                Stage::Failed
            }
        };
        if let Some(rebuild) = &mut self.pursuit.rebuild {
            rebuild.stage = stage;
        }
    }

    /// Starts the server with the copy that was made, fed from the start: before it is, it is not whole.
    async fn come_back(&mut self) -> Result<(), EngineError> {
        let Some(live) = self.live_wished() else { return Ok(()) };
        info!(group = self.setup.group, "the copy is made; it catches up");
        self.launch(&live).await
    }

    /// Whether what is there says of itself that it may not be whole.
    fn is_incomplete(&self) -> bool {
        self.setup.data_dir.join(rebuild::INCOMPLETE).exists()
    }

    /// Compares what is wished with what is, and does the next thing about the difference.
    pub(super) async fn pursue(&mut self, answer: &Answer, marker: Option<&Marker>) {
        // It answers, so it has been fed all it takes.
        if self.is_incomplete()
            && let Err(error) = self.setup.remove(rebuild::INCOMPLETE)
        {
            warn!(group = self.setup.group, "{}", crate::error_chain(&error));
        }
        let Some(wished) = self.source_text() else { return };
        let pursuit = &mut self.pursuit;
        if !answer.recovery || pursuit.asking.is_some() || pursuit.is_early() {
            return;
        }
        if answer.source == wished {
            if answer.is_fed() {
                pursuit.down_since = None;
                pursuit.fits = pursuit.wish.as_ref().map(|wish| wish.source.clone());
                pursuit.slot = !answer.slot.is_empty();
                return;
            }
            let since = *pursuit.down_since.get_or_insert_with(Instant::now);
            if since.elapsed() < STUCK {
                return;
            }
            pursuit.down_since = None;
        }
        let Some(wish) = pursuit.wish.clone() else { return };
        let own = self.own_history(answer);
        self.pursuit.asked = Some(own.clone());
        self.epoch_seen(marker);
        let compare = async move { link::answered(history::compare(&own, &wish.source, &wish.secret)).await };
        self.pursuit.asking = Some(tokio::spawn(compare));
    }

    /// What there is to compare.
    pub(super) fn own_history(&self, answer: &Answer) -> Own {
        Own {
            system: answer.system.clone(),
            timeline: answer.timeline.unwrap_or_default(),
            end: answer.position().0,
            segment: answer.segment(),
            wal: self.setup.data().join("pg_wal"),
            address: self.setup.address(),
            receiving: answer.receiver.is_some(),
        }
    }

    /// The epoch that the copy's data are of: what is saved of them is named after it.
    fn epoch_seen(&mut self, marker: Option<&Marker>) {
        self.data_epoch = marker.map_or(0, |marker| marker.epoch);
    }

    async fn conclude(&mut self, said: Result<Verdict, sqlx::Error>) {
        self.pursuit.not_before = Some(Instant::now() + AGAIN);
        match said {
            Ok(Verdict::Fits { slot }) => {
                self.pursuit.slot = slot;
                self.pursuit.fits = self.pursuit.wish.as_ref().map(|wish| wish.source.clone());
                if let Err(error) = self.point() {
                    warn!(group = self.setup.group, "{}", crate::error_chain(&error));
                }
            }
            Ok(Verdict::Ahead) => {
                info!(group = self.setup.group, "the source is not as far as this copy; asking again")
            }
            Ok(Verdict::Parted { .. } | Verdict::Apart | Verdict::Foreign)
                if self.pursuit.wish.as_ref().is_some_and(|wish| !wish.may_replace) =>
            {
                // To be told again whom to follow, as hot replica or as a spare.
                self.pursuit.wish = None;
                info!(
                    group = self.setup.group,
                    "this copy cannot go on from its source; it stays while it is hot replica"
                );
            }
            Ok(Verdict::Parted { fork: Some(_), rewindable: false }) if self.may_yet_be_rewound() => {}
            Ok(Verdict::Parted { fork, rewindable }) => {
                info!(
                    group = self.setup.group,
                    ?fork,
                    rewindable,
                    "this copy has what its source does not: it is saved"
                );
                let epoch = self.data_epoch;
                let tail = self.pursuit.asked.take().map(|own| Tail { own, fork, epoch });
                self.rebuild(tail, rewindable && fork.is_some());
            }
            // It was told to follow before its marker could be read: these are another group's data, and stay.
            Ok(Verdict::Foreign) if self.data_epoch != 0 => {
                self.pursuit.not_before = Some(Instant::now() + REBUILD_AGAIN);
                let (group, node) = (&self.setup.group, &self.setup.site.node);
                warn!(
                    group,
                    "these data are of another cluster, and have a marker: nothing is touched; `understudy reinit {group} \
                     {node}` throws them away"
                );
            }
            Ok(Verdict::Apart | Verdict::Foreign) => {
                info!(group = self.setup.group, "this copy has nothing that its source could go on from: it is cloned");
                self.rebuild(None, false);
            }
            Err(error) => tracing::debug!(group = self.setup.group, %error, "the source gives no answer"),
        }
    }

    /// The source was promoted, or follows one that was, a moment ago: `pg_rewind` can tell the histories apart only when
    /// it has taken a checkpoint since. Worth some seconds, since a clone may take hours.
    fn may_yet_be_rewound(&mut self) -> bool {
        // Without this the tool knows nothing of copies that feed copies.
        self.program.major >= 15
            && self.pursuit.parted_since.get_or_insert_with(Instant::now).elapsed() < CHECKPOINT_PATIENCE
    }

    /// Begins again with a copy that could not be made, or is of another than who is to be followed.
    fn begin_again(&mut self) {
        let (Some(rebuild), Some(wish)) = (&self.pursuit.rebuild, &self.pursuit.wish) else { return };
        let (same, rewind) = (rebuild.source == wish.source, rebuild.rewind);
        if self.is_incomplete() {
            self.rebuild(None, false);
        } else if same {
            self.rebuild(None, rewind);
        } else {
            // Nothing is destroyed yet: it is started as it was, and compared with its new source.
            self.pursuit.stop_making();
        }
    }

    /// Begins to make the copy anew, or begins again.
    fn rebuild(&mut self, tail: Option<Tail>, rewind: bool) {
        let Some(wish) = self.pursuit.wish.clone() else { return };
        self.pursuit.parted_since = None;
        let before = self.pursuit.stop_making();
        let tail = tail.or(before);
        self.hang_up();
        let plan = Plan {
            group: self.setup.group.clone(),
            program: self.program.clone(),
            account: self.setup.account.clone(),
            folder: self.setup.data_dir.clone(),
            data: self.setup.data(),
            address: self.setup.address(),
            source: wish.source.clone(),
            channel: wish.channel,
            secret: wish.secret,
            tail: tail.clone(),
            rewind,
        };
        let (server, progress) = (self.supervisor.handle(), Progress::default());
        let work = rebuild::run(plan, server, self.turns.clone(), progress.clone());
        let stage = Stage::Making(tokio::spawn(work));
        self.pursuit.rebuild = Some(Rebuild { stage, source: wish.source, tail, rewind, progress });
    }

    /// Where the server is to replicate from, as its setting.
    fn source_text(&self) -> Option<String> {
        let wish = self.pursuit.wish.as_ref()?;
        let name = config::standby_name(&self.setup.address(), &wish.channel);
        let passfile = self.setup.data_dir.join(config::PASSFILE);
        Some(config::source(&wish.source, marker::role_of(&wish.secret), &name, &passfile))
    }

    /// The same with the slot it is to use there.
    fn live_wished(&self) -> Option<config::Live> {
        let slot = if self.pursuit.slot { slots::name(&self.setup.address()) } else { String::new() };
        Some(config::Live { source: self.source_text()?, slot, ..config::Live::sealed() })
    }

    /// Lets the server replicate from where it is wished. Takes effect a moment later.
    fn point(&mut self) -> Result<(), EngineError> {
        let (Some(live), Some(wish)) = (self.live_wished(), &self.pursuit.wish) else { return Ok(()) };
        let passfile = config::passfile(&wish.channel, wish.secret.reveal());
        self.setup.write(&self.setup.data_dir.join(config::PASSFILE), &passfile)?;
        self.setup.write(&self.setup.data_dir.join(config::LIVE), &live.text())?;
        if let Some(handle) = self.supervisor.handle() {
            handle.signal(rustix::process::Signal::HUP);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Node;

    fn wish(port: u16) -> Wish {
        let (channel, secret) = (Nonce::from("n"), Secret::new("s"));
        Wish { source: Address::new("127.0.0.1", port), channel, secret, may_replace: true }
    }

    /// One that is told to follow who listens at port 1, where nobody does.
    async fn told(stage: Stage, source: u16) -> Node<Postgres> {
        let mut node = Node::<Postgres>::prepared();
        node.open().await.unwrap();
        let (source, progress) = (wish(source).source, Progress::default());
        let rebuild = Rebuild { stage, source, tail: None, rewind: true, progress };
        node.engine().pursuit = Pursuit { wish: Some(wish(1)), rebuild: Some(rebuild), ..Pursuit::default() };
        node
    }

    fn making() -> Stage {
        Stage::Making(tokio::spawn(std::future::pending()))
    }

    fn rewinds(node: &mut Node<Postgres>) -> Option<(u16, bool)> {
        node.engine().pursuit.rebuild.as_ref().map(|rebuild| (rebuild.source.port, rebuild.rewind))
    }

    async fn follow(node: &mut Node<Postgres>, port: u16) {
        let Wish { source, channel, secret, .. } = wish(port);
        node.engine().follow(&source, Some(&(channel, secret)), true).await.unwrap();
    }

    #[tokio::test]
    async fn a_copy_of_another_is_given_up() {
        let mut node = told(making(), 1).await;
        follow(&mut node, 1).await;
        assert_eq!(rewinds(&mut node), Some((1, true)), "the source is the same");
        follow(&mut node, 2).await;
        assert_eq!(rewinds(&mut node), None, "nothing is destroyed: it is compared with its new source first");

        let mut node = told(making(), 1).await;
        std::fs::write(node.config.data_dir.join(rebuild::INCOMPLETE), "").unwrap();
        follow(&mut node, 2).await;
        assert_eq!(rewinds(&mut node), Some((2, false)), "there is nothing left but to clone it");
    }

    #[tokio::test]
    async fn what_failed_is_wound_back_in_the_next_try_while_nothing_is_destroyed() {
        let mut node = told(Stage::Failed, 1).await;
        node.engine().advance().await;
        assert_eq!(rewinds(&mut node), Some((1, true)));

        let mut node = told(Stage::Failed, 2).await;
        node.engine().advance().await;
        assert_eq!(rewinds(&mut node), None, "it was to be wound back to another's history");

        let mut node = told(Stage::Failed, 1).await;
        std::fs::write(node.config.data_dir.join(rebuild::INCOMPLETE), "").unwrap();
        node.engine().advance().await;
        assert_eq!(rewinds(&mut node), Some((1, false)));
    }

    #[tokio::test]
    async fn a_slot_at_another_source_is_none_at_this_one() {
        for (source, slot) in [(1, true), (2, false)] {
            let task = tokio::spawn(async { Ok(true) });
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
            let mut node = told(Stage::Making(task), source).await;
            node.engine().advance().await;
            assert_eq!(node.engine().pursuit.slot, slot, "{source}");
        }
    }
}
