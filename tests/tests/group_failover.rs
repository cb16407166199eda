//! The master dies, its node dies, it hangs and wakes: a client behind the proxy goes on writing and loses nothing.

use anyhow::{Context, Result};
use cli::rig::Writer;
use redis::aio::MultiplexedConnection;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use understudy_tests::real::{Cast, LIMIT, SWING, Story, attached, build, connect, info_number, start, until};

/// How many clients are attached to a master that hangs.
const ATTACHED: usize = 20;

/// What a woken master may still say `OK` to. Each attached client had one request under way, and may get a few more in
/// before the first turn of the server's loop in which it notices that its replica has left. Without the guard it would
/// be thousands.
const AFTER_WAKING: usize = ATTACHED * 10;

/// The agent of a node that died waits up to 25 s for its former session to end.
async fn back_as_spare(story: &Story, node: &str) -> Result<Cast> {
    let what = format!("{node} back as a healthy spare");
    let nodes = story.node_names().len();
    story.wait_until(&what, LIMIT, |s| s.is_whole(nodes)).await?;
    let cast = story.cast().await?;
    assert!(cast.spares.iter().any(|spare| spare == node), "{node} in {cast:?}");
    story.chain(&cast).await?;
    Ok(cast)
}

async fn writes_go_on(writer: &Writer, since: Instant) -> Result<()> {
    Ok(writer.wait_for_acks(SWING, since, LIMIT).await?)
}

#[tokio::test]
async fn the_masters_redis_is_killed_under_load_and_the_spare_needs_no_copy() -> Result<()> {
    let story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    story.chain(&before).await?;
    let successor = story.database_addr(&before.hot)?;
    let (full, partial) = syncs(successor).await?;
    let mut writer = story.client("kill").await?;

    let died = story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()), "only the certified copy may take over");
    assert_eq!(status.epoch, before.epoch + 1);
    writes_go_on(&writer, died).await?;

    let after = back_as_spare(&story, &before.master).await?;
    assert_eq!((&after.master, &after.hot), (&before.hot, &before.spares[0]), "the spare is certified next");
    let (full_after, partial_after) = syncs(successor).await?;
    assert_eq!(full_after, full, "the spare was copied anew");
    assert!(partial_after > partial, "the spare went on where it was: {partial} {partial_after}");
    assert_eq!(story.lost(&mut writer).await?, 0);

    let last = story.history().await?.pop().context("no history")?;
    assert_eq!((last.epoch, last.master.as_str()), (before.epoch + 1, before.hot.as_str()));
    assert_eq!(last.previous.map(|node| node.to_string()), Some(before.master));
    assert!(last.reason.contains("master process died"), "{}", last.reason);
    assert_eq!(last.data_loss, None);
    Ok(())
}

/// Full and partial resyncs that a database has served.
async fn syncs(address: SocketAddr) -> Result<(u64, u64)> {
    Ok((info_number(address, "stats", "sync_full").await?, info_number(address, "stats", "sync_partial_ok").await?))
}

#[tokio::test]
async fn a_whole_node_dies_and_comes_back_as_a_spare() -> Result<()> {
    let mut story = start(build()?.nodes(3).policy("flap_pause", "\"1s\"")).await?;
    let before = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let mut writer = story.client("node").await?;

    let died = story.kill_node(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writes_go_on(&writer, died).await?;
    let hot = story.wait_until("the spare as hot replica", LIMIT, |s| s.hot_replica().is_some()).await?;
    assert_eq!(hot.hot_replica(), Some(before.spares[0].as_str()));
    let dead = hot.member(&before.master).context("the dead node is not listed")?;
    assert!(!dead.healthy, "{dead:?}");

    story.restart_agent(&before.master)?;
    let after = back_as_spare(&story, &before.master).await?;
    assert_eq!(after.epoch, before.epoch + 1, "its coming back is no takeover");
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_hung_master_is_fenced_when_it_wakes() -> Result<()> {
    let story = start(build()?.nodes(3).policy("flap_pause", "\"1s\"")).await?;
    let before = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let mut writer = story.client("hang").await?;
    let sleeper = story.database_addr(&before.master)?;
    let mut clients = Vec::new();
    for number in 0..ATTACHED {
        let mut client = connect(sleeper).await?;
        set(&mut client, number, 0).await?;
        clients.push(client);
    }

    let stopped = story.stop_node(&before.master)?;
    let pushing: Vec<_> = clients.into_iter().enumerate().map(|(n, c)| tokio::spawn(push(n, c))).collect();
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writes_go_on(&writer, stopped).await?;

    story.cont_node(&before.master)?;
    let mut acknowledged = 0;
    for client in pushing {
        acknowledged += client.await?;
    }
    assert!(acknowledged <= AFTER_WAKING, "the woken master acknowledged {acknowledged} writes");
    until("a fenced master", async || {
        let mut client = connect(sleeper).await?;
        match set(&mut client, ATTACHED, 0).await {
            Err(refusal) if refusal.code().is_some() => Ok(Some(())),
            other => anyhow::bail!("a write was answered with {other:?}"),
        }
    })
    .await?;
    back_as_spare(&story, &before.master).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

async fn set(client: &mut MultiplexedConnection, who: usize, number: usize) -> redis::RedisResult<()> {
    redis::cmd("SET").arg(format!("direct:{who}")).arg(number).query_async(client).await
}

/// Writes until it is refused or its connection ends; how many writes were acknowledged.
async fn push(who: usize, mut client: MultiplexedConnection) -> usize {
    // The default limit of this library is shorter than the sleep.
    client.set_response_timeout(LIMIT);
    let mut acknowledged = 0;
    while set(&mut client, who, acknowledged + 1).await.is_ok() {
        acknowledged += 1;
    }
    acknowledged
}

#[tokio::test]
async fn of_four_nodes_the_other_spare_moves_and_the_old_password_is_void() -> Result<()> {
    let story = start(build()?.nodes(4)).await?;
    let before = story.cast().await?;
    story.chain(&before).await?;
    let successor = story.database_addr(&before.hot)?;
    // What the spares were given to follow the hot replica.
    let old = story.setting(&before.spares[0], "masterauth").await?;
    assert_eq!(log_in(successor, &old).await?, None, "it is in force until the takeover");
    let mut writer = story.client("four").await?;

    let died = story.kill_database(&before.master)?;
    story.taken_over(&before.master).await?;
    writes_go_on(&writer, died).await?;
    let after = back_as_spare(&story, &before.master).await?;
    assert_eq!(after.master, before.hot);
    assert!(before.spares.contains(&after.hot) && after.spares.len() == 2, "{after:?}");

    let refusal = log_in(successor, &old).await?.context("the former password still opens the master")?;
    assert!(refusal.contains("WRONGPASS"), "{refusal}");
    a_stranger_is_thrown_out(&story, &after).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

/// Even with the password in force nobody but the hot replica stays attached to the master.
async fn a_stranger_is_thrown_out(story: &Story, cast: &Cast) -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let master = story.database_addr(&cast.master)?;
    let password = story.setting(&cast.hot, "masterauth").await?;
    let mut stranger = tokio::net::TcpStream::connect(master).await?;
    let mut heard = vec![0; 64];
    // One after the other: the server does not begin a copy while it still owes an answer.
    for words in [format!("AUTH understudy-repl {password}"), "REPLCONF listening-port 1".to_owned()] {
        stranger.write_all(format!("{words}\r\n").as_bytes()).await?;
        let length = stranger.read(&mut heard).await?;
        assert_eq!(&heard[..length], b"+OK\r\n", "{}", String::from_utf8_lossy(&heard));
    }
    stranger.write_all(b"PSYNC ? -1\r\n").await?;
    let mut heard = Vec::new();
    let read = tokio::time::timeout(LIMIT, stranger.read_to_end(&mut heard)).await;
    let text = String::from_utf8_lossy(&heard);
    assert!(text.contains("FULLRESYNC"), "it was let in at first: {text}");
    read.context("a stranger stays attached to the master")?.ok();
    until("the hot replica alone behind the master", async || {
        let ports = attached(master).await?;
        anyhow::ensure!(ports == [story.database_addr(&cast.hot)?.port()], "{ports:?}");
        Ok(Some(()))
    })
    .await?;
    assert!(story.log(&cast.master)?.contains("alarm: a replication client that the record does not name"));
    Ok(())
}

/// The refusal of a login as a replica, if it is refused.
async fn log_in(address: SocketAddr, password: &str) -> Result<Option<String>> {
    let mut client = connect(address).await?;
    let answer: redis::RedisResult<String> =
        redis::cmd("AUTH").arg("understudy-repl").arg(password).query_async(&mut client).await;
    Ok(answer.err().map(|refusal| refusal.to_string()))
}

#[tokio::test]
async fn a_takeover_is_not_held_up_by_the_pause_when_the_death_is_known() -> Result<()> {
    // The pause concerns suspicion alone.
    let story = start(build()?.nodes(3).policy("flap_pause", "\"1h\"")).await?;
    let mut writer = story.client("twice").await?;
    for _ in 0..2 {
        let before = story.cast().await?;
        let died = story.kill_database(&before.master)?;
        story.taken_over(&before.master).await?;
        writes_go_on(&writer, died).await?;
        let gap = writer.longest_gap(died).context("no write after the fault")?;
        assert!(gap < Duration::from_secs(5), "writes stood still for {gap:?}");
        back_as_spare(&story, &before.master).await?;
    }
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_hung_database_is_killed_by_its_own_agent_and_handed_over() -> Result<()> {
    let story = start(build()?.nodes(3).policy("hang_after", "\"1s\"")).await?;
    let before = story.cast().await?;
    let mut writer = story.client("stuck").await?;
    let pid = story.database_pid(&before.master)?;
    let hung = story.stop_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writes_go_on(&writer, hung).await?;
    back_as_spare(&story, &before.master).await?;
    assert_ne!(story.database_pid(&before.master)?, pid, "the hung process was not killed");
    assert!(story.log(&before.master)?.contains("killing it"), "its agent does not say so");
    let reason = story.history().await?.pop().context("no history")?.reason;
    assert!(reason.contains("master process died"), "{reason}");
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_flushed_group_can_still_be_taken_over() -> Result<()> {
    // What shows whose data it is lies in the database as well, and FLUSHALL removes it.
    let story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let mut client = connect(story.proxy_addr()).await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut client).await?;
    let mut writer = story.client("flushed").await?;
    let died = story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writes_go_on(&writer, died).await?;
    back_as_spare(&story, &before.master).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}
