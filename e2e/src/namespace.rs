//! A network namespace of one test.

use std::{
    fs::File,
    net::Ipv6Addr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fd::AsFd,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with nothing but loopback. The thread that makes it moves into it, and with it every
/// process and every thread which that thread starts from then on. Dropping it moves the thread back and
/// removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    former: File,
}

impl Namespace {
    /// Makes a namespace and moves this thread into it.
    ///
    /// Errors: no rights (root is needed), or `ip` is missing.
    pub fn enter() -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tandem-{}-{number}", std::process::id());
        let former = File::open("/proc/thread-self/ns/net").context("this thread's namespace")?;
        run("ip", &["netns", "add", &name])?;
        let namespace = Self { name, former };
        let inside = File::open(format!("/run/netns/{}", namespace.name)).context("the new namespace")?;
        move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network))
            .context("the thread cannot enter the namespace")?;
        run("ip", &["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec NAME` by hand.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the loopback interface another IPv6 address; of IPv4 it has 127.0.0.0/8.
    ///
    /// Errors: `ip` refuses.
    pub fn add_address(&self, address: Ipv6Addr) -> Result<()> {
        run("ip", &["-6", "address", "add", &format!("{address}/128"), "dev", "lo", "nodad"])
    }

    /// Loses every packet from now on between two addresses or networks, both ways, until [`Self::heal`].
    ///
    /// Errors: `nft` refuses.
    pub fn cut(&self, one: &str, other: &str) -> Result<()> {
        run("nft", &["add", "table", "ip", "cut"])?;
        run("nft", &["add", "chain", "ip", "cut", "in", "{ type filter hook input priority 0; }"])?;
        for (from, to) in [(one, other), (other, one)] {
            run("nft", &["add", "rule", "ip", "cut", "in", "ip", "saddr", from, "ip", "daddr", to, "drop"])?;
        }
        Ok(())
    }

    /// Loses from now on what one address sends to a TCP port of another, until [`Self::heal`]: the other's
    /// own requests still get through.
    ///
    /// Errors: `nft` refuses.
    pub fn cut_service(&self, from: &str, to: &str, port: u16) -> Result<()> {
        run("nft", &["add", "table", "ip", "cut"])?;
        run("nft", &["add", "chain", "ip", "cut", "in", "{ type filter hook input priority 0; }"])?;
        let port = port.to_string();
        let rule = ["ip", "saddr", from, "ip", "daddr", to, "tcp", "dport", &port, "drop"];
        run("nft", &[&["add", "rule", "ip", "cut", "in"], &rule[..]].concat())
    }

    /// Ends all cuts.
    ///
    /// Errors: `nft` refuses.
    pub fn heal(&self) -> Result<()> {
        run("nft", &["delete", "table", "ip", "cut"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = move_into_link_name_space(self.former.as_fd(), Some(LinkNameSpaceType::Network));
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program} cannot be run: end-to-end tests need iproute2 and nftables"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
