//! Disks that take no writes: a master hands over, a hot replica is let go, an agent that cannot remember says so and
//! changes nothing. Each test runs itself again in a mount namespace of its own, where it may mount small disks: they
//! are gone with it, however it ends.

use anyhow::{Context, Result};
use cli::page::GroupStatus;
use config::Engine;
use election::Role;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use understudy_tests::real::{
    Cast, LIMIT, SWING, Story, build, connect, copy, info, quick, said, start, start_unready, until, writes_go_on,
};

/// Set where a test runs in a mount namespace of its own.
const INSIDE: &str = "UNDERSTUDY_TEST_MOUNTS";

/// Room for the data of a test, not for more.
const SIZE: &str = "size=48m";

/// Set by whoever knows that disks cannot be mounted where the tests run, and does without these.
const WITHOUT: &str = "UNDERSTUDY_WITHOUT_MOUNTS";

/// Runs the test of this name in a namespace of its own; true when this is that run. Root may make one, others may
/// where the system lets them be root in a user namespace. Where neither works the test fails: one that did nothing and
/// passed would be taken for one that was run.
fn inside(test: &str) -> Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let way = ["--mount", "--mount --map-root-user"].into_iter().find(|way| {
        let mut probe = Command::new("unshare");
        probe.args(way.split(' ')).args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    let Some(way) = way else {
        let wanted = std::env::var_os(WITHOUT).is_none_or(|set| set != "1");
        anyhow::ensure!(
            !wanted,
            "this user may not mount a disk, not even in a namespace of its own (`unshare --mount --map-root-user` is \
             refused): run the tests as root, or set {WITHOUT}=1 to do without the tests of failing disks"
        );
        eprintln!("{test}: NOT RUN, as {WITHOUT}=1 says");
        return Ok(false);
    };
    let this = std::env::current_exe()?;
    let mut again = Command::new("unshare");
    again.args(way.split(' ')).arg(this).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let said = said(&mut again)?;
    print!("{}{}", said.out, said.err);
    anyhow::ensure!(said.code == 0, "{test}: exit code {}, see above", said.code);
    Ok(false)
}

fn mount(args: &[&str], at: &Path) -> Result<()> {
    let told = Command::new("mount").args(args).arg(at).output()?;
    anyhow::ensure!(told.status.success(), "mount {args:?}: {}", String::from_utf8_lossy(&told.stderr));
    Ok(())
}

/// A kind of disk, and how it comes to take no writes.
#[derive(Clone, Copy)]
enum Disk {
    /// Somebody else fills it.
    Full,
    /// The kernel gives it up after a fault and lets nobody write any more, not even to files that are open: unlike a
    /// disk that is remounted read-only, which is refused while a database has files on it. Only root may mount such.
    ReadOnly,
}

impl Disk {
    fn mount(self, at: &Path) -> Result<()> {
        match self {
            Self::Full => mount(&["-t", "tmpfs", "-o", SIZE, "tmpfs"], at),
            Self::ReadOnly => {
                let image = at.with_extension("disk");
                std::fs::File::create(&image)?.set_len(64 << 20)?;
                let made = said(Command::new("/sbin/mkfs.ext4").arg("-q").arg(&image))?;
                anyhow::ensure!(made.code == 0, "mkfs.ext4: {made:?}");
                mount(&["-o", "loop,errors=remount-ro", image.to_str().context("no text")?], at)
            }
        }
    }

    fn fail(self, at: &Path) -> Result<()> {
        match self {
            Self::Full => fill(at).map(drop),
            Self::ReadOnly => {
                mount(&["-o", "remount,abort"], at)?;
                let kind = std::fs::write(at.join("probe"), "x").map_err(|error| error.kind());
                anyhow::ensure!(kind == Err(ErrorKind::ReadOnlyFilesystem), "the disk still takes writes: {kind:?}");
                Ok(())
            }
        }
    }
}

/// Stops the agent and the database of a node in an orderly way, puts a small disk in place of a folder with all that is
/// in it, and starts the node again.
async fn small_disk(story: &mut Story, node: &str, folder: PathBuf, disk: Disk) -> Result<()> {
    let left = story.leave_agent(node, LIMIT).await?.context("the agent did not leave")?;
    anyhow::ensure!(left.success(), "{left}");
    story.kill_database(node)?;
    let aside = folder.with_extension("aside");
    until("the end of the database", async || Ok(story.database_pid(node).is_err().then_some(()))).await?;
    std::fs::rename(&folder, &aside)?;
    std::fs::create_dir(&folder)?;
    disk.mount(&folder)?;
    copy(&aside, &folder)?;
    Ok(story.restart_agent(node)?)
}

/// What takes the room.
fn ballast(folder: &Path) -> PathBuf {
    folder.join("ballast")
}

/// Takes all the room that is left on the disk of `folder`. The file can be removed again.
fn fill(folder: &Path) -> Result<PathBuf> {
    use std::io::{Seek, SeekFrom, Write};
    let path = ballast(folder);
    let mut file = std::fs::File::create(&path)?;
    // Most of it in one step: nobody has time to see it coming.
    let free = rustix::fs::statvfs(folder)?;
    let most = (free.f_bavail * free.f_frsize).saturating_sub(1 << 20);
    if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, most).is_ok() {
        file.seek(SeekFrom::Start(most))?;
    }
    // Ever smaller pieces: not a byte is left.
    for size in [1 << 20, 1 << 12, 1] {
        let piece = vec![0; size];
        while file.write_all(&piece).is_ok() {}
    }
    Ok(path)
}

/// A group of three whose `node` has its data on a small disk and the role that is asked for.
async fn three(pick: fn(&Cast) -> &String, disk: Disk) -> Result<(Story, Cast, String)> {
    let mut story = start(build()?.nodes(3).policy("flap_pause", "\"1s\"")).await?;
    let cast = story.cast().await?;
    let node = pick(&cast).clone();
    let data = story.data(&node);
    small_disk(&mut story, &node, data, disk).await?;
    let cast = story.cast().await?;
    Ok((story, cast, node))
}

/// A write that a full disk cuts short tears the append-only file: once the agent says that the file is whole, the
/// database must come back from it.
async fn comes_back(story: &Story, node: &str) -> Result<()> {
    let whole = async || {
        let database = story.agent(node).await?.database;
        Ok(database.status().is_some_and(|status| status.persisted).then_some(()))
    };
    until("a file that a crash leaves whole", whole).await?;
    let run = story.agent(node).await?.database.status().map(|status| status.incarnation.clone());
    story.kill_database(node)?;
    let back = async || {
        let said = story.agent(node).await?;
        let now = said.database.status().map(|status| status.incarnation.clone());
        anyhow::ensure!(now.is_some() && now != run && said.healthy, "{}", said.reason);
        Ok(Some(()))
    };
    until("the database, back from its own file", back).await
}

async fn a_master_hands_over(disk: Disk) -> Result<()> {
    let (story, cast, node) = three(|cast| &cast.hot, disk).await?;
    if cast.master != node {
        story.switchover(Some(&node)).await?;
    }
    let before = story.cast().await?;
    assert_eq!(before.master, node);
    let mut writer = story.client("disk").await?;
    let since = Instant::now();
    disk.fail(&story.data(&node))?;
    let status = story.taken_over(&node).await?;
    assert_eq!((status.active_master(), status.epoch), (Some(before.hot.as_str()), before.epoch + 1));
    writer.wait_for_acks(SWING, since, LIMIT).await?;
    let last = story.history().await?.pop().context("no history")?;
    assert!(last.reason.contains("disk"), "{}", last.reason);
    assert_eq!(last.data_loss, None);
    if let Disk::Full = disk {
        std::fs::remove_file(ballast(&story.data(&node)))?;
        let after = story.cast().await?;
        story.chain(&after).await?;
        comes_back(&story, &node).await?;
    }
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

async fn a_hot_replica_is_let_go(disk: Disk) -> Result<()> {
    let (story, cast, node) = three(|cast| &cast.spares[0], disk).await?;
    if cast.hot != node {
        // The other one makes room: of the two copies the healthy one is certified.
        story.kill_database(&cast.hot)?;
    }
    story.wait_until("the small disk as hot replica", LIMIT, |s| s.hot_replica() == Some(node.as_str())).await?;
    let before = story.cast().await?;
    assert_eq!((&before.hot, before.epoch), (&node, cast.epoch));
    let mut writer = story.client("disk").await?;
    let since = Instant::now();
    disk.fail(&story.data(&node))?;
    let other = before.spares[0].as_str();
    let status = story.wait_until("the other copy as hot replica", LIMIT, |s| s.hot_replica() == Some(other)).await?;
    assert_eq!((status.active_master(), status.epoch), (Some(before.master.as_str()), before.epoch));
    writer.wait_for_acks(SWING, since, LIMIT).await?;
    if let Disk::Full = disk {
        std::fs::remove_file(ballast(&story.data(&node)))?;
        let after = story.cast().await?;
        assert_eq!(after.spares, [node.as_str()]);
        comes_back(&story, &node).await?;
    }
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_master_whose_disk_is_full_hands_over() -> Result<()> {
    if inside("a_master_whose_disk_is_full_hands_over")? {
        return a_master_hands_over(Disk::Full).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_master_whose_disk_is_read_only_hands_over() -> Result<()> {
    if inside("a_master_whose_disk_is_read_only_hands_over")? {
        return a_master_hands_over(Disk::ReadOnly).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_hot_replica_whose_disk_is_full_is_let_go() -> Result<()> {
    if inside("a_hot_replica_whose_disk_is_full_is_let_go")? {
        return a_hot_replica_is_let_go(Disk::Full).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_hot_replica_whose_disk_is_read_only_is_let_go() -> Result<()> {
    if inside("a_hot_replica_whose_disk_is_read_only_is_let_go")? {
        return a_hot_replica_is_let_go(Disk::ReadOnly).await;
    }
    Ok(())
}

/// With `appendfsync everysec` and nobody to hand over to, Redis goes on after a write that was cut short, behind a hole in
/// its file. Writes of some size: one of them does not fit.
#[tokio::test]
async fn a_file_torn_by_a_full_disk_is_mended_before_it_is_needed() -> Result<()> {
    if !inside("a_file_torn_by_a_full_disk_is_mended_before_it_is_needed")? {
        return Ok(());
    }
    let mut story = start_unready(build()?.nodes(1).proxies(0).policy("durability", "\"async\"")).await?;
    let open = |status: &GroupStatus| status.active_master() == Some("db1");
    story.wait_until("an open master", LIMIT, open).await?;
    let data = story.data("db1");
    small_disk(&mut story, "db1", data.clone(), Disk::Full).await?;
    let address = story.database_addr("db1")?;
    let mut client = until("its database", async || Ok(connect(address).await.ok())).await?;
    let mut written = 0_u64;
    let value = vec![b'x'; 1500];
    let mut write = async || {
        let outcome: Result<(), redis::RedisError> =
            redis::cmd("SET").arg(format!("key {written}")).arg(&value).query_async(&mut client).await;
        written += u64::from(outcome.is_ok());
        outcome
    };
    // Redis begins a new file then, and opens that one so that a write cut short is followed by a hole.
    redis::cmd("BGREWRITEAOF").exec_async(&mut story.as_agent("db1").await?).await?;
    let rewritten = async || {
        let info = info(address, "persistence").await?;
        let is = |key: &str, value: &str| info.get(key).is_some_and(|found| found == value);
        Ok((is("aof_rewrite_in_progress", "0") && is("aof_rewrite_scheduled", "0")).then_some(()))
    };
    until("the end of the rewrite", rewritten).await?;
    // What begins a page finds room in it for a part of what follows.
    until("a write", async || Ok(write().await.ok())).await?;
    fill(&data)?;
    let full = async || match write().await {
        Err(error) if error.code() == Some("MISCONF") => Ok(Some(())),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(None),
    };
    until("a disk that is full", full).await?;
    let noticed = async || {
        let said = story.agent("db1").await?;
        Ok(said.database.status().is_some_and(|status| !status.disk_ok).then_some(()))
    };
    until("the agent to notice", noticed).await?;
    std::fs::remove_file(ballast(&data))?;
    until("a write after that", async || Ok(write().await.ok())).await?;
    comes_back(&story, "db1").await?;
    let mut client = connect(address).await?;
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut client).await?;
    assert_eq!(keys, written);
    Ok(())
}

/// The master's agent cannot write; `heal` lets it.
async fn remembers_nothing(mut story: Story, before: Cast, heal: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut writer = story.client("forgetful").await?;
    // A master writes down now and then how far its marker has come; a lost hot replica makes it write down more.
    story.kill_node(&before.hot)?;
    let reason = story.says(&before.master, "memory_fails").await?;
    assert!(reason.contains("cannot remember") && reason.contains("serving goes on"), "{reason}");
    let stuck = story.status().await?;
    assert_eq!((stuck.active_master(), stuck.epoch), (Some(before.master.as_str()), before.epoch));
    // It serves: reads are answered.
    let mut client = connect(story.database_addr(&before.master)?).await?;
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut client).await?;
    assert!(keys >= SWING as u64, "{keys}");
    heal()?;
    writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
    story.restart_agent(&before.hot)?;
    let after = story.cast().await?;
    assert_eq!((&after.master, after.epoch), (&before.master, before.epoch));
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_agent_whose_disk_is_full_says_so_and_serving_goes_on() -> Result<()> {
    if !inside("an_agent_whose_disk_is_full_says_so_and_serving_goes_on")? {
        return Ok(());
    }
    let mut story = start(build()?.nodes(3)).await?;
    let node = story.cast().await?.spares[0].clone();
    let memory = story.memory(&node);
    small_disk(&mut story, &node, memory.clone(), Disk::Full).await?;
    story.cast().await?;
    story.switchover(Some(&node)).await?;
    let before = story.cast().await?;
    assert_eq!(before.master, node);
    let ballast = fill(&memory)?;
    remembers_nothing(story, before, || Ok(std::fs::remove_file(ballast)?)).await
}

#[tokio::test]
async fn an_agent_whose_disk_is_read_only_says_so_and_serving_goes_on() -> Result<()> {
    if !inside("an_agent_whose_disk_is_read_only_says_so_and_serving_goes_on")? {
        return Ok(());
    }
    let story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let memory = story.memory(&before.master);
    // What is open stays as it was; nothing new can be written.
    mount(&["--bind", memory.to_str().context("no text")?], &memory)?;
    mount(&["-o", "remount,bind,ro"], &memory)?;
    let at = memory.clone();
    remembers_nothing(story, before, || mount(&["-o", "remount,bind,rw"], &at)).await
}

/// A group whose nodes each have a disk of their own; the folder they are mounted in goes with it.
async fn on_disks(engine: Engine) -> Result<(Story, TempDir)> {
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711))?;
    for node in ["db1", "db2", "db3"] {
        let data = folder.path().join(node).join(engine.as_str());
        std::fs::create_dir_all(&data)?;
        mount(&["-t", "tmpfs", "-o", "size=400m,mode=755", "tmpfs"], &data)?;
    }
    let builder = quick(engine)?.folder(folder.path());
    let builder = match engine {
        Engine::Postgres => builder.setting("max_wal_size", "\"64MB\"").setting("wal_keep_size", "\"0\""),
        _ => builder,
    };
    Ok((start(builder).await?, folder))
}

/// Runs the test of this name where `inside` says, if it can be run.
async fn as_root<F: Future<Output = Result<()>>>(test: &str, act: impl FnOnce() -> F) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root may give the folder of a disk to the user that the server runs as");
        return Ok(());
    }
    if inside(test)? { act().await } else { Ok(()) }
}

async fn a_sql_master_hands_over(engine: Engine) -> Result<()> {
    let (story, _folder) = on_disks(engine).await?;
    let before = story.cast().await?;
    let mut writer = story.client("full").await?;
    let full = Instant::now();
    fill(&story.data(&before.master))?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writes_go_on(&writer, full).await?;
    std::fs::remove_file(ballast(&story.data(&before.master)))?;
    let after = story.cast().await?;
    assert!(after.master == before.hot && after.spares.contains(&before.master), "{before:?} {after:?}");
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

async fn a_sql_hot_replica_is_let_go(engine: Engine) -> Result<()> {
    let (story, _folder) = on_disks(engine).await?;
    let before = story.cast().await?;
    let mut writer = story.client("full").await?;
    let full = Instant::now();
    fill(&story.data(&before.hot))?;
    let other = before.spares[0].as_str();
    let status = story.wait_until("the other copy as hot replica", LIMIT, |s| s.hot_replica() == Some(other)).await?;
    assert_eq!((status.active_master(), status.epoch), (Some(before.master.as_str()), before.epoch));
    writes_go_on(&writer, full).await?;
    std::fs::remove_file(ballast(&story.data(&before.hot)))?;
    let after = story.cast().await?;
    assert_eq!(after.spares, [before.hot.as_str()]);
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

/// MariaDB waits for room for as long as it takes, and answers nobody meanwhile: its agent ends that.
#[tokio::test]
async fn a_mariadb_master_whose_disk_is_full_at_once_hands_over() -> Result<()> {
    as_root("a_mariadb_master_whose_disk_is_full_at_once_hands_over", || a_sql_master_hands_over(Engine::Mariadb)).await
}

/// A MariaDB that found no room looks again only after 60 s, however soon there is room.
#[tokio::test]
async fn a_mariadb_master_whose_disk_was_full_for_a_moment_does_not_wait_for_a_minute() -> Result<()> {
    let test = "a_mariadb_master_whose_disk_was_full_for_a_moment_does_not_wait_for_a_minute";
    as_root(test, || async {
        let (story, _folder) = on_disks(Engine::Mariadb).await?;
        let before = story.cast().await?;
        let mut writer = story.client("full").await?;
        let full = Instant::now();
        let ballast = fill(&story.data(&before.master))?;
        let mut last = (writer.acked(), Instant::now());
        until("a server that waits for room, or has been ended already", async || {
            if writer.acked() != last.0 {
                last = (writer.acked(), Instant::now());
            }
            let other = story.agent(&before.hot).await?.role == Some(Role::Master);
            Ok((other || last.1.elapsed() > Duration::from_millis(300)).then_some(()))
        })
        .await?;
        std::fs::remove_file(ballast)?;
        writes_go_on(&writer, full).await?;
        assert!(full.elapsed() < Duration::from_secs(30), "writes went on after {:?} only", full.elapsed());
        story.cast().await?;
        assert_eq!(story.lost(&mut writer).await?, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mariadb_hot_replica_whose_disk_is_full_is_let_go() -> Result<()> {
    as_root("a_mariadb_hot_replica_whose_disk_is_full_is_let_go", || a_sql_hot_replica_is_let_go(Engine::Mariadb)).await
}

#[tokio::test]
async fn a_postgres_master_whose_disk_is_full_hands_over() -> Result<()> {
    as_root("a_postgres_master_whose_disk_is_full_hands_over", || a_sql_master_hands_over(Engine::Postgres)).await
}

#[tokio::test]
async fn a_postgres_hot_replica_whose_disk_is_full_is_let_go() -> Result<()> {
    as_root("a_postgres_hot_replica_whose_disk_is_full_is_let_go", || a_sql_hot_replica_is_let_go(Engine::Postgres))
        .await
}
