//! nginx over a folder of backups, with `autoindex`: the well-behaved HTTP server.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::Signal;

use super::{
    LOCAL,
    error::{Doing, Result, find_program},
    port::on_free_port,
    scratch::Scratch,
    server::Server,
};

const PROGRAMS: &[&str] = &["/usr/sbin/nginx", "/usr/local/nginx/sbin/nginx"];

/// A running nginx. It lists and serves every folder under its root.
#[derive(Debug)]
pub struct Nginx {
    root: PathBuf,
    port: u16,
    server: Server,
    scratch: Arc<Scratch>,
}

impl Nginx {
    /// Starts nginx over a new, empty folder.
    pub(super) fn start(scratch: &Arc<Scratch>) -> Result<Nginx> {
        let folder = scratch.new_folder("nginx")?;
        let root = folder.join("www");
        scratch.make_folder(&root)?;
        on_free_port(|port| {
            let configuration = include_str!("nginx.conf")
                .replace("@PORT@", &port.to_string())
                .replace("@FOLDER@", &folder.display().to_string());
            let configuration_path = folder.join("nginx.conf");
            scratch.write(&configuration_path, configuration)?;
            let mut command = scratch.account().command(find_program(PROGRAMS)?);
            command
                .current_dir(&folder)
                .args(["-e", "stderr", "-p"])
                .arg(&folder)
                .arg("-c")
                .arg(configuration_path);
            let log = folder.join("server.log");
            let mut server = Server::spawn(scratch, "nginx", &mut command, log, Signal::TERM)?;
            // A name that only ours can have, so that no other server's answer is taken for it.
            server.wait_until_ready(port, || answers(port, &folder))?;
            Ok(Nginx { root: root.clone(), port, server, scratch: Arc::clone(scratch) })
        })
    }

    /// The port, on [`LOCAL`] and [`super::FAR`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder behind `/`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder behind `/<name>/`.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        self.scratch.make_folder(&path)?;
        Ok(path)
    }

    /// The requests so far: one line each, as `METHOD /path STATUS bytes "Range"`.
    pub fn requests(&self) -> Result<Vec<String>> {
        let path = self.root.with_file_name("access.log");
        let log = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
        Ok(log.lines().map(str::to_owned).collect())
    }
}

/// Asks for `/.stage` and looks for our folder's name in the answer.
fn answers(port: u16, folder: &Path) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((LOCAL, port))?;
        stream.write_all(b"GET /.stage HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(&folder.display().to_string()))
}
