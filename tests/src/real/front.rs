//! A proxy of a test's own, beside the rig's.

use super::{Story, until};
use anyhow::{Context, Result};
use cli::rig::{Process, free_port, http, understudy_binary};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

/// The proxy. Dropped, it is gone.
pub struct Front {
    _process: Process,
    listeners: Vec<SocketAddr>,
    http: SocketAddr,
}

impl Front {
    /// Starts a proxy for the story's group that finds Consul at `consul`, with a listener for each of `listeners`, which
    /// are more lines of TOML for it; waits until it knows the group.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn start(story: &Story, name: &str, consul: &str, listeners: &[&str]) -> Result<Self> {
        let address = || Ok::<_, anyhow::Error>(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        let http = address()?;
        let mut text = format!(
            "[proxy]\nname = \"{name}\"\naddress = \"127.0.0.1\"\n\n[consul]\naddresses = [\"{consul}\"]\n\n\
             [http]\nlisten = \"{http}\"\n"
        );
        let mut bound = Vec::new();
        for lines in listeners {
            let listen = address()?;
            let group = story.group();
            write!(text, "\n[[listener]]\nlisten = \"{listen}\"\ngroups = [\"{group}\"]\n{lines}\n")?;
            bound.push(listen);
        }
        let folder = story.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("proxy.toml");
        std::fs::write(&file, text)?;
        let program = understudy_binary()?;
        let args = ["proxy".as_ref(), "--config".as_ref(), file.as_os_str()];
        let log = story.folder().join("logs").join(format!("{name}.log"));
        let process = Process::start(name, &program, args, &folder, &log)?;
        let front = Self { _process: process, listeners: bound, http };
        until("a proxy that knows the group", async || Ok((front.counted("epoch").await? > 0).then_some(()))).await?;
        Ok(front)
    }

    /// Where the listener of this place in the list listens.
    pub fn listener(&self, place: usize) -> SocketAddr {
        self.listeners[place]
    }

    /// A figure of its group, named without `understudy_proxy_`.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn counted(&self, name: &str) -> Result<u64> {
        counted(self.http, name).await
    }
}

/// A figure of a proxy's one group, named without `understudy_proxy_`.
///
/// # Errors
/// When it does not say.
pub async fn counted(proxy_http: SocketAddr, name: &str) -> Result<u64> {
    let page = http().get(format!("http://{proxy_http}/metrics")).send().await?.error_for_status()?.text().await?;
    let sample = format!("understudy_proxy_{name}{{");
    let line = page.lines().find(|line| line.starts_with(&sample)).with_context(|| format!("no {name} in\n{page}"))?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}
