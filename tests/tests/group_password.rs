//! A group whose clients need a password, and a node that was given another one.

use anyhow::{Context, Result};
use cli::rig::Rig;
use redis::aio::MultiplexedConnection;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;
use understudy_tests::real::{LIMIT, Story, build, connect, run, start, until};

const PASSWORD: &str = "open sesame";

/// A file that only we may read.
fn secret(folder: &Path, name: &str, text: &str) -> Result<String> {
    let file = folder.join(name);
    fs::write(&file, format!("{text}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(file.display().to_string())
}

async fn guarded(nodes: usize) -> Result<(TempDir, Story)> {
    let folder = tempfile::tempdir()?;
    let file = secret(folder.path(), "password", PASSWORD)?;
    let story = start(build()?.nodes(nodes).instance("password_file", &format!("\"{file}\""))).await?;
    Ok((folder, story))
}

async fn log_in(address: SocketAddr, password: &str) -> Result<MultiplexedConnection> {
    let mut client = connect(address).await?;
    redis::cmd("AUTH").arg(password).query_async::<()>(&mut client).await?;
    Ok(client)
}

/// Writes through the proxy as a client with the password does; tries again while the group changes its master.
async fn write(rig: &Rig, key: &str) -> Result<()> {
    until("a write through the proxy", async || {
        let mut client = log_in(rig.proxy_addr(), PASSWORD).await?;
        redis::cmd("SET").arg(key).arg("v").query_async::<()>(&mut client).await?;
        Ok(Some(()))
    })
    .await
}

async fn read(rig: &Rig, key: &str) -> Result<Option<String>> {
    let mut client = log_in(rig.proxy_addr(), PASSWORD).await?;
    Ok(redis::cmd("GET").arg(key).query_async(&mut client).await?)
}

#[tokio::test]
async fn clients_need_the_password_and_it_holds_over_a_takeover() -> Result<()> {
    let (_folder, story) = guarded(3).await?;
    let before = story.cast().await?;
    for node in story.node_names() {
        let mut stranger = connect(story.database_addr(&node)?).await?;
        let answer: redis::RedisResult<()> = redis::cmd("GET").arg("k").query_async(&mut stranger).await;
        let refusal = answer.err().with_context(|| format!("{node} lets anybody in"))?;
        assert_eq!(refusal.code(), Some("NOAUTH"), "{node}: {refusal}");
    }
    assert!(log_in(story.proxy_addr(), "friend").await.is_err(), "a wrong password is let in");
    write(&story, "before").await?;
    story.kill_database(&before.master)?;
    story.taken_over(&before.master).await?;
    write(&story, "after").await?;
    story.cast().await?;
    assert_eq!(read(&story, "before").await?.as_deref(), Some("v"));
    for name in story.node_names() {
        assert!(!story.log(&name)?.contains(PASSWORD), "the password stands in the log of {name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_node_with_another_password_says_so_and_harms_nobody() -> Result<()> {
    let (folder, mut story) = guarded(3).await?;
    let before = story.cast().await?;
    let odd = before.spares[0].clone();
    let other = secret(folder.path(), "other", "open barley")?;
    let right = folder.path().join("password").display().to_string();
    story.kill_node(&odd)?;
    story.edit(&odd, &right, &other)?;
    story.restart_agent(&odd)?;

    let words = format!("the password files of this node and of {odd} differ");
    until("a word of it in the master's log", async || Ok(story.log(&before.master)?.contains(&words).then_some(())))
        .await?;
    let said = story.wait_until("the odd node listed as ill", LIMIT, |s| {
        s.member(&odd).is_some_and(|m| !m.healthy && m.position.is_some())
    });
    let said = said.await?;
    assert_eq!((said.active_master(), said.hot_replica()), (Some(before.master.as_str()), Some(before.hot.as_str())));
    let words = format!("the password files of this node and of {} differ", before.master);
    until("a word of it in its own log", async || Ok(story.log(&odd)?.contains(&words).then_some(()))).await?;
    write(&story, "meanwhile").await?;

    story.edit(&odd, &other, &right)?;
    story.kill_node(&odd)?;
    story.restart_agent(&odd)?;
    assert_eq!(story.cast().await?, before, "with the right password it follows as before");
    assert_eq!(read(&story, "meanwhile").await?.as_deref(), Some("v"));
    let said = story.log(&odd)?.matches(&words).count();
    assert_eq!(said, 1, "it is said once, not with every beat");
    Ok(())
}

#[test]
fn a_password_file_that_everybody_may_read_is_a_fault() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = secret(folder.path(), "password", PASSWORD)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let agent = folder.path().join("agent.toml");
    let text = format!(
        "[node]\nname = \"db1\"\naddress = \"127.0.0.1\"\ndata_dir = \"{0}/agent\"\n\n[[instance]]\ngroup = \"g\"\n\
         engine = \"redis\"\nport = 6379\ndata_dir = \"{0}/redis\"\npassword_file = \"{file}\"\n",
        folder.path().display()
    );
    fs::write(&agent, text)?;
    run(&["check", &agent.display().to_string()])?.holds(&["instance[0].password_file", "chmod"])?;
    let said = run(&["agent", "--config", &agent.display().to_string()])?;
    assert_eq!(said.code, 78, "{said:?}");
    Ok(())
}
