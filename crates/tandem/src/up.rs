//! `tandem up`: every server of a deployment as its own supervised process.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use node::{Deployment, READY_LINE};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use topology::{Role, Server, Topology};

use crate::{phones, serve};

/// How long a server may take until it says that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a server may take to end after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Lines of a server's log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 5;

/// What a supervisor of one server reports.
enum Report {
    Ready(String, u32),
    Ended(String, ExitStatus),
}

/// Starts every server, prints how to use them, and supervises them until SIGINT or SIGTERM.
pub async fn run(dir: &Path, restart_after: Duration) -> Result<()> {
    let deployment = Deployment::at(dir);
    let topology = serve::read_topology(&deployment.topology())?;
    let (reports, mut inbox) = mpsc::channel(64);
    let (stop, stopped) = watch::channel(false);
    let mut supervisors = Vec::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let deployment = Arc::new(deployment);
    for server in &topology.servers {
        let mut child = start(&deployment, server)?;
        let pid = child.process.id().unwrap_or(0);
        if let Err(error) = ready(&mut child.process).await {
            let log = last_lines(&log_path(&deployment, server));
            let _ = stop.send(true);
            return Err(error.context(format!("{} did not start:\n{log}", server.name)));
        }
        println!("{:<10} ready, process {pid}", server.name);
        let supervisor = supervise(
            Arc::clone(&deployment),
            server.clone(),
            child,
            restart_after,
            stopped.clone(),
            reports.clone(),
        );
        supervisors.push(tokio::spawn(supervisor));
    }
    print!("{}", instructions(dir, &topology, &deployment, restart_after));
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            report = inbox.recv() => match report {
                Some(Report::Ready(name, pid)) => println!("{name:<10} ready again, process {pid}"),
                Some(Report::Ended(name, status)) => {
                    println!("{name:<10} ended ({status}); next start in {} s", restart_after.as_secs());
                }
                None => break,
            },
        }
    }
    println!("stopping");
    let _ = stop.send(true);
    for supervisor in supervisors {
        supervisor.await.context("a supervisor failed")?;
    }
    Ok(())
}

/// A server's process. It ends when its standard input closes, so that it never outlives this one.
struct Running {
    process: Child,
    input: Option<ChildStdin>,
}

async fn supervise(
    deployment: Arc<Deployment>,
    server: Server,
    mut child: Running,
    restart_after: Duration,
    mut stop: watch::Receiver<bool>,
    reports: mpsc::Sender<Report>,
) {
    loop {
        tokio::select! {
            status = child.process.wait() => {
                if let Ok(status) = status {
                    let _ = reports.send(Report::Ended(server.name.to_string(), status)).await;
                }
            }
            () = told(&mut stop) => return end(child).await,
        }
        loop {
            tokio::select! {
                () = sleep(restart_after) => {}
                () = told(&mut stop) => return,
            }
            if let Ok(mut started) = start(&deployment, &server)
                && ready(&mut started.process).await.is_ok()
            {
                child = started;
                break;
            }
        }
        let pid = child.process.id().unwrap_or(0);
        let _ = reports.send(Report::Ready(server.name.to_string(), pid)).await;
    }
}

/// Done when it is time to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _sender_gone = stop.wait_for(|stop| *stop).await.map(drop);
}

fn start(deployment: &Deployment, server: &Server) -> Result<Running> {
    let log = open_log(&log_path(deployment, server))?;
    let program = std::env::current_exe().context("this program's own file")?;
    let mut process = Command::new(program)
        .arg("serve")
        .arg("--topology")
        .arg(deployment.topology())
        .arg("--server")
        .arg(server.name.as_str())
        .arg("--until-stdin-closes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} cannot be started", server.name))?;
    let input = process.stdin.take();
    Ok(Running { process, input })
}

/// Waits until a server says that it is ready, and goes on reading what it says.
async fn ready(child: &mut Child) -> Result<()> {
    let stdout = child.stdout.take().context("a server's output")?;
    let mut lines = BufReader::new(stdout).lines();
    let first = timeout(READY_WITHIN, lines.next_line())
        .await
        .map_err(|_| anyhow!("not ready within {} s", READY_WITHIN.as_secs()))?;
    match first {
        Ok(Some(line)) if line == READY_LINE => {}
        Ok(_) | Err(_) => {
            let status = child.wait().await.context("its end")?;
            bail!("it ended with {status}");
        }
    }
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(())
}

/// Asks a server to end, and makes it end when it does not.
async fn end(mut child: Running) {
    drop(child.input.take());
    if timeout(END_WITHIN, child.process.wait()).await.is_err() {
        let _ = child.process.kill().await;
    }
}

fn log_path(deployment: &Deployment, server: &Server) -> PathBuf {
    deployment.server(&server.name).join("log")
}

fn open_log(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("{} cannot be written", path.display()))
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// What `tandem up` prints once all servers are ready.
fn instructions(dir: &Path, topology: &Topology, deployment: &Deployment, restart_after: Duration) -> String {
    let mut text = String::from("\nlistening:\n");
    for server in &topology.servers {
        let listen = &server.listen;
        let list = |addresses: &[std::net::SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let role = topology.pool(&server.pool).map_or(Role::Control, |pool| pool.role);
        text.push_str(&format!("  {:<10} {:<10} {:<10}", server.name, server.pool, role));
        for (name, addresses) in listen.phones() {
            if !addresses.is_empty() {
                text.push_str(&format!(" {name} {}", list(addresses)));
            }
        }
        text.push('\n');
    }
    text.push_str(&softphone_instructions(topology, deployment));
    let dir = dir.display();
    text.push_str(&format!(
        "\nlogs: {dir}/servers/NAME/log   users and passwords: {dir}/users.csv\n\
         look: tandem pool status --dir {dir}\n\
         kill a data centre: kill -9 PROCESS of east1; its baresip phones register at west after the\n\
         takeover time and are called there; to call out, start them as {dir}/phones/USER-at-west.\n\
         A server that ended is started again after {} s. Ctrl-C stops all.\n",
        restart_after.as_secs()
    ));
    text
}

/// How to start the ready-made phones, where `tandem init` made some.
fn softphone_instructions(topology: &Topology, deployment: &Deployment) -> String {
    let mut text = String::new();
    for pool in topology.home_pools() {
        for user in phones::made(deployment, topology, &pool.name) {
            let folder = phones::folder(deployment, &user);
            text.push_str(&format!(
                "  {user} homed on {}:  baresip -f {folder}   or   linphonec -c {folder}/linphonerc\n",
                pool.name,
                folder = folder.display()
            ));
        }
    }
    if text.is_empty() {
        return text;
    }
    let domain = topology.default_domain().map(ToString::to_string).unwrap_or_default();
    format!(
        "\nregister softphones, one in each terminal:\n{text}  \
         in baresip: /dial sip:USER@{domain}, /accept, /hangup, /contact_next then /message TEXT, /quit\n  \
         in linphonec: call sip:USER@{domain}, answer, terminate, chat sip:USER@{domain} TEXT, quit;\n  \
         where there is no sound device, baresip echoes and linphonec needs: soundcard use files\n"
    )
}
