//! The keeper itself: one thread, which waits for messages.

use super::MOST_LEN;
use super::message::{Answer, Operation, Outcome, Request};
use super::socket::{self, Flaw, Received};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Clients at once. A node has one server, for a moment two; one more is told so, and closed.
const MOST_CLIENTS: usize = 64;
/// What is kept at once: more block devices than a node attaches.
const MOST_KEPT: usize = 4096;
/// Descriptors for all that, and some for the process itself.
const MOST_DESCRIPTORS: u64 = (MOST_KEPT + MOST_CLIENTS + 64) as u64;
/// Clients that wait to be accepted.
const BACKLOG: i32 = 16;
/// How long a keeper that keeps nothing waits for a client: a server that begins again within it finds the same one, and for one that comes later
/// another keeper is as good.
const LINGER: Duration = Duration::from_secs(10);

/// Why a keeper cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another keeper is there.
    #[error("a keeper listens at {path} already", path = .0.display())]
    InUse(PathBuf),
    /// The system said no.
    #[error("{action} {path}", path = .path.display())]
    System {
        /// What was asked.
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// What it said.
        source: Errno,
    },
}

/// Holds connections for others.
///
/// It does not allocate for what it is sent beyond its limits, opens no file and has no other thread: there is little that it could die of.
#[derive(Debug)]
pub struct KeeperServer {
    listener: OwnedFd,
    /// Given up for a moment to tell a client that there is no descriptor left for him.
    spare: Option<OwnedFd>,
    /// There was none either: until one is free, nobody is listened to who is not here yet. He would be there again at once, and for ever.
    deaf: bool,
    clients: Vec<Client>,
    kept: BTreeMap<String, Kept>,
    next: u64,
    linger: Duration,
}

#[derive(Debug)]
struct Client {
    id: u64,
    socket: OwnedFd,
    process: u32,
}

#[derive(Debug)]
struct Kept {
    descriptor: OwnedFd,
    state: Vec<u8>,
    /// The client that holds it, and its process.
    holder: Option<(u64, u32)>,
}

impl KeeperServer {
    /// Listens on a path, in place of a keeper that has ended. The process gets as many descriptors as it may and a keeper needs.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let system = |action| move |source| BindError::System { action, path: path.to_owned(), source };
        let address = SocketAddrUnix::new(path).map_err(system("listen on"))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let listener = made.map_err(system("make a socket for"))?;
        // Nobody may connect before the permissions are set: what is not yet listened on refuses.
        match rustix::net::bind(&listener, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_if_left(path, &address)?;
                rustix::net::bind(&listener, &address).map_err(system("listen on"))?;
            }
            other => other.map_err(system("listen on"))?,
        }
        rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR).map_err(system("make private"))?;
        rustix::net::listen(&listener, BACKLOG).map_err(system("listen on"))?;
        raise_limit();
        let spare = Some(another(&listener).map_err(system("listen on"))?);
        let (clients, kept) = (Vec::new(), BTreeMap::new());
        Ok(Self { listener, spare, deaf: false, clients, kept, next: 0, linger: LINGER })
    }

    /// The same, where it waits so long for a client while it keeps nothing; else 10 seconds.
    #[must_use]
    pub fn with_linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Serves until `stop` can be read from, or is closed at its other end; what is kept is closed then. It ends by itself when for a while there was
    /// neither a client nor anything kept: whoever has started it has ended, and left nothing.
    pub fn run(mut self, stop: impl AsFd) -> Result<(), Errno> {
        let mut idle = Instant::now();
        loop {
            let stop = stop.as_fd();
            let wanted = if self.deaf { PollFlags::empty() } else { PollFlags::IN };
            let mut waited = vec![PollFd::new(&stop, PollFlags::IN), PollFd::new(&self.listener, wanted)];
            waited.extend(self.clients.iter().map(|client| PollFd::new(&client.socket, PollFlags::IN)));
            let is_idle = self.clients.is_empty() && self.kept.is_empty();
            let left = is_idle.then(|| self.linger.saturating_sub(idle.elapsed()));
            let found = match poll(&mut waited, left.and_then(|left| left.try_into().ok()).as_ref()) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if found == 0 && left.is_some_and(|left| left.is_zero()) {
                // Who comes from here on is not heard, and learns that before he relies on it: see `Keeper::connect`.
                return Ok(());
            }
            let ready: Vec<bool> = waited.iter().map(|one| !one.revents().is_empty()).collect();
            drop(waited);
            if ready[0] {
                return Ok(());
            }
            let ids: Vec<u64> = self.clients.iter().map(|client| client.id).collect();
            for (id, _) in ids.into_iter().zip(&ready[2..]).filter(|(_, ready)| **ready) {
                self.hear(id);
            }
            if ready[1] {
                self.accept();
            }
            self.recover();
            if !is_idle {
                idle = Instant::now();
            }
        }
    }

    fn accept(&mut self) {
        let socket = match self.next_client() {
            Ok(socket) => socket,
            Err(Errno::MFILE | Errno::NFILE) => {
                self.deaf = self.spare.take().is_none();
                if let Ok(socket) = self.next_client() {
                    turn_away(&socket, "the keeper has as many descriptors open as it may (RLIMIT_NOFILE)");
                }
                return;
            }
            Err(_) => return,
        };
        if self.clients.len() >= MOST_CLIENTS {
            return turn_away(&socket, &format!("all {MOST_CLIENTS} places of the keeper are taken"));
        }
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&socket) else { return };
        let process = u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or_default();
        self.clients.push(Client { id: self.next, socket, process });
        self.next += 1;
    }

    fn next_client(&self) -> Result<OwnedFd, Errno> {
        rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    /// Has a descriptor to spare again as soon as there is one.
    fn recover(&mut self) {
        if self.spare.is_none() {
            self.spare = another(&self.listener).ok();
            self.deaf &= self.spare.is_none();
        }
    }

    /// Takes one message of a client, and answers it. One that breaks off, sends what is none, or does not take its answer, is left.
    fn hear(&mut self, id: u64) {
        let Some(client) = self.clients.iter().find(|client| client.id == id) else { return };
        let process = client.process;
        let received = match socket::receive(&client.socket, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) | Ok(None) => return self.leave(id),
            Ok(Some(received)) => received,
        };
        let Received { bytes, descriptor, flaw } = received;
        let (answer, given) = match (flaw, Request::decode(&bytes)) {
            (Some(flaw), _) => (Answer::refused(&told(flaw)), None),
            (None, Ok(request)) => self.answer(request, descriptor, (id, process)),
            (None, Err(fault)) => (Answer::refused(&fault.to_string()), None),
        };
        let given = given.and_then(|name| self.kept.get(&name)).map(|kept| kept.descriptor.as_fd());
        let Some(client) = self.clients.iter().find(|client| client.id == id) else { return };
        if socket::send(&client.socket, &answer.encode(), given, SendFlags::DONTWAIT).is_err() {
            self.leave(id);
        }
    }

    /// The client has ended, and so holds nothing.
    fn leave(&mut self, id: u64) {
        self.clients.retain(|client| client.id != id);
        for kept in self.kept.values_mut().filter(|kept| kept.holder.is_some_and(|(holder, _)| holder == id)) {
            kept.holder = None;
        }
    }

    /// The answer, and under which name the descriptor is kept that goes with it.
    fn answer(
        &mut self,
        request: Request,
        descriptor: Option<OwnedFd>,
        client: (u64, u32),
    ) -> (Answer, Option<String>) {
        let Request { operation, name, state } = request;
        if operation == Operation::Next {
            let after = (Bound::Excluded(name), Bound::Unbounded);
            let found = self.kept.range::<String, _>(after).next().map(|(name, _)| name.clone());
            let answer = found.map(|name| Answer { name, ..Answer::new(Outcome::Done) });
            return (answer.unwrap_or(Answer::new(Outcome::Absent)), None);
        }
        let holder = self.kept.get(&name).and_then(|kept| kept.holder).filter(|(id, _)| *id != client.0);
        if let Some((_, process)) = holder {
            return (Answer::new(Outcome::Held(process)), None);
        }
        match (operation, descriptor) {
            (Operation::Keep, None) => (Answer::refused("there is no descriptor with the message"), None),
            (Operation::Keep, Some(_)) if self.kept.len() >= MOST_KEPT && !self.kept.contains_key(&name) => {
                (Answer::refused(&format!("{MOST_KEPT} are kept already")), None)
            }
            (Operation::Keep, Some(descriptor)) => {
                self.kept.insert(name, Kept { descriptor, state, holder: Some(client) });
                (Answer::new(Outcome::Done), None)
            }
            (Operation::Take, _) => match self.kept.get_mut(&name) {
                None => (Answer::new(Outcome::Absent), None),
                Some(kept) => {
                    kept.holder = Some(client);
                    (Answer { state: kept.state.clone(), ..Answer::new(Outcome::Done) }, Some(name))
                }
            },
            (Operation::Drop | Operation::Next, _) => {
                let gone = self.kept.remove(&name).is_some();
                (Answer::new(if gone { Outcome::Done } else { Outcome::Absent }), None)
            }
        }
    }
}

/// Why a message is refused that did not come as it was sent.
fn told(flaw: Flaw) -> String {
    match flaw {
        Flaw::Long => format!("the message is longer than {MOST_LEN} bytes"),
        Flaw::Several => "more than one descriptor came with the message".to_owned(),
        Flaw::NoRoom => {
            "it has as many descriptors open as it may (RLIMIT_NOFILE), and could not take the one that came; raise its limit, or detach devices"
                .to_owned()
        }
    }
}

fn turn_away(client: &OwnedFd, why: &str) {
    tracing::warn!("a client of the keeper was turned away: {why}");
    // He may have gone already.
    let _ = socket::send(client, &Answer::refused(why).encode(), None, SendFlags::DONTWAIT);
}

/// A second descriptor of the same.
fn another(of: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(of, 0)
}

/// Shells and managers of services give a process fewer descriptors than it may have.
fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(MOST_DESCRIPTORS, |most| most.min(MOST_DESCRIPTORS));
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(%error, "the keeper keeps fewer than {MOST_KEPT}: its limit of descriptors could not be raised");
    }
}

/// Removes a socket that nobody listens on, and nothing else.
fn remove_if_left(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let system = |action| move |source| BindError::System { action, path: path.to_owned(), source };
    let about = rustix::fs::lstat(path).map_err(system("look at"))?;
    if FileType::from_raw_mode(about.st_mode) != FileType::Socket {
        return Err(system("make a socket of")(Errno::EXIST));
    }
    let flags = SocketFlags::CLOEXEC;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    match rustix::net::connect(probe.map_err(system("make a socket for"))?, address) {
        Err(Errno::CONNREFUSED) => rustix::fs::unlink(path).map_err(system("remove")),
        Err(source) => Err(system("look who listens on")(source)),
        Ok(()) => Err(BindError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Keeper, KeeperError};
    use super::*;
    use rustix::fd::BorrowedFd;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg, sockopt};
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::sync::mpsc;

    struct Running {
        folder: tempfile::TempDir,
        stop: OwnedFd,
        thread: std::thread::JoinHandle<Result<(), Errno>>,
    }

    impl Running {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let server = KeeperServer::bind(&folder.path().join("keeper")).unwrap();
            let (waits, stop) = rustix::pipe::pipe().unwrap();
            let thread = std::thread::spawn(move || server.run(waits));
            Self { folder, stop, thread }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("keeper")
        }

        fn client(&self) -> Keeper {
            Keeper::connect(&self.path()).unwrap()
        }

        fn end(self) {
            drop(self.stop);
            self.thread.join().unwrap().unwrap();
        }
    }

    fn socket_of_a_client() -> OwnedFd {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        // A keeper that says nothing is a failure, and no reason to wait for ever.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(20))).unwrap();
        socket
    }

    fn file() -> std::fs::File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn what_is_kept_can_be_taken_when_its_holder_has_gone() {
        let keeper = Running::start();
        let (first, second) = (keeper.client(), keeper.client());
        let kept = file();
        assert!(first.take("vol").unwrap().is_none());
        first.keep("vol", b"state", kept.as_fd()).unwrap();
        first.keep("a", b"", kept.as_fd()).unwrap();
        let held = second.take("vol").map(|_| ()).unwrap_err();
        assert!(matches!(held, KeeperError::Held { process, .. } if process == std::process::id()), "{held}");
        assert!(matches!(second.keep("vol", b"", kept.as_fd()), Err(KeeperError::Held { .. })));
        assert!(matches!(second.forget("vol"), Err(KeeperError::Held { .. })));
        assert_eq!(second.names().unwrap(), ["a", "vol"]);
        drop(first);
        // The keeper hears of it before it hears the next question.
        let taken = second.take("vol").unwrap().expect("it is kept");
        assert_eq!(taken.state, b"state");
        let about = std::fs::File::from(taken.descriptor).metadata().unwrap();
        assert_eq!(about.ino(), kept.metadata().unwrap().ino());
        // It stays with the keeper, with what its holder says now.
        second.keep("vol", b"later", kept.as_fd()).unwrap();
        assert_eq!(second.take("vol").unwrap().unwrap().state, b"later");
        second.forget("vol").unwrap();
        second.forget("vol").unwrap();
        assert_eq!(second.names().unwrap(), ["a"]);
        keeper.end();
    }

    #[test]
    fn who_sends_what_is_no_message_is_told_and_others_are_served() {
        let keeper = Running::start();
        let client = keeper.client();
        let other = socket_of_a_client();
        rustix::net::connect(&other, &SocketAddrUnix::new(keeper.path()).unwrap()).unwrap();
        let mut newer = Request { operation: Operation::Take, name: "a".into(), state: Vec::new() }.encode();
        newer[4] = 9;
        for wrong in [&b"GET / HTTP/1.1"[..], &newer, &[0xff; 4096]] {
            socket::send(&other, wrong, None, SendFlags::empty()).unwrap();
            refused(&other);
        }
        // What comes longer than a message, or with more than one descriptor, is told why, and the connection goes on.
        socket::send(&other, &[1; 5000], None, SendFlags::empty()).unwrap();
        assert_eq!(refused(&other), "the message is longer than 4096 bytes");
        let keep = Request { operation: Operation::Keep, name: "a".into(), state: Vec::new() }.encode();
        let kept = file();
        for count in [2, 9] {
            send_several(&other, &keep, &vec![kept.as_fd(); count]);
            assert_eq!(refused(&other), "more than one descriptor came with the message");
        }
        socket::send(&other, &keep, None, SendFlags::empty()).unwrap();
        assert_eq!(refused(&other), "there is no descriptor with the message");
        assert!(matches!(client.forget(""), Err(KeeperError::Name(_))));
        assert!(client.names().unwrap().is_empty());
        keeper.end();
    }

    /// The next message, which is a refusal, and its reason.
    fn refused(client: &OwnedFd) -> String {
        let received = socket::receive(client, RecvFlags::empty()).unwrap().expect("the keeper goes on with it");
        let answer = Answer::decode(&received.bytes).unwrap();
        assert_eq!(answer.outcome, Outcome::Refused);
        String::from_utf8(answer.state).unwrap()
    }

    fn send_several(client: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        sendmsg(client, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn at_its_limit_of_descriptors_a_keeper_says_so_and_goes_on() {
        let keeper = Running::start();
        let (client, kept, late) = (keeper.client(), file(), socket_of_a_client());
        client.keep("a", b"state", kept.as_fd()).unwrap();
        // The keeper is in this process, so what is full here is full there; the last that there was room for is the client's.
        let limit = getrlimit(Resource::Nofile);
        let lowest = rustix::io::fcntl_dupfd_cloexec(&kept, 0).unwrap();
        let full = Rlimit { current: Some(u64::try_from(lowest.as_raw_fd()).unwrap()), ..limit };
        drop(lowest);
        setrlimit(Resource::Nofile, full).unwrap();
        let (more, other) = (client.keep("b", b"", kept.as_fd()), client.names());
        let at = SocketAddrUnix::new(keeper.path()).unwrap();
        rustix::net::connect(&late, &at).unwrap();
        let turned_away = refused(&late);
        let taken = client.take("a").map(|_| ());
        let still = client.names();
        setrlimit(Resource::Nofile, limit).unwrap();
        let said = more.unwrap_err().to_string();
        assert!(said.contains("RLIMIT_NOFILE"), "{said}");
        assert_eq!((other.unwrap(), still.unwrap()), (vec!["a".to_owned()], vec!["a".to_owned()]));
        assert!(turned_away.contains("RLIMIT_NOFILE"), "{turned_away}");
        assert!(matches!(taken, Err(KeeperError::System { source: Errno::MFILE, .. })), "{taken:?}");
        // With room again all goes on, for the client that was there and for others.
        client.keep("b", b"", kept.as_fd()).unwrap();
        assert_eq!(client.take("a").unwrap().unwrap().state, b"state");
        assert_eq!(keeper.client().names().unwrap(), ["a", "b"]);
        keeper.end();
    }

    #[test]
    fn a_client_that_there_is_no_place_for_learns_why() {
        let keeper = Running::start();
        let mut clients: Vec<_> = (0..MOST_CLIENTS).map(|_| keeper.client()).collect();
        // Each is there for certain, and not only on his way.
        for client in &clients {
            assert!(client.names().unwrap().is_empty());
        }
        let said = Keeper::connect(&keeper.path()).unwrap_err().to_string();
        assert_eq!(said, "the keeper refused: all 64 places of the keeper are taken");
        clients.pop();
        assert!(keeper.client().names().unwrap().is_empty());
        keeper.end();
    }

    /// How a keeper ends by itself, within a time that is long for it.
    fn ends(ended: &mpsc::Receiver<Result<(), Errno>>) -> bool {
        ended.recv_timeout(Duration::from_secs(20)).is_ok_and(|ended| ended == Ok(()))
    }

    #[test]
    fn a_keeper_ends_when_there_is_nobody_and_nothing_is_kept_and_not_before() {
        const LINGER: Duration = Duration::from_millis(40);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keeper");
        let bind = || KeeperServer::bind(&path).unwrap().with_linger(LINGER);
        let run = |server: KeeperServer| {
            let ((waits, stop), (sender, ended)) = (rustix::pipe::pipe().unwrap(), mpsc::channel());
            std::thread::spawn(move || sender.send(server.run(waits)));
            (stop, ended)
        };
        let lives_on = |ended: &mpsc::Receiver<Result<(), Errno>>| {
            ended.recv_timeout(5 * LINGER) == Err(mpsc::RecvTimeoutError::Timeout)
        };
        // Whoever has started it has died before he came to it.
        let (_stop, ended) = run(bind());
        assert!(ends(&ended));
        assert!(Keeper::connect(&path).is_err());
        // As long as somebody is there, or something is kept, it stays.
        let server = bind();
        let client = comes(&server, &path);
        let (_stop, ended) = run(server);
        let client = client.join().unwrap().unwrap();
        assert!(lives_on(&ended));
        client.keep("vol", b"", file().as_fd()).unwrap();
        drop(client);
        assert!(lives_on(&ended));
        let client = Keeper::connect(&path).unwrap();
        assert!(client.take("vol").unwrap().is_some());
        client.forget("vol").unwrap();
        assert!(lives_on(&ended));
        drop(client);
        assert!(ends(&ended));
    }

    /// A client who is on the list of those who wait to be accepted.
    fn comes(server: &KeeperServer, path: &Path) -> std::thread::JoinHandle<Result<Keeper, KeeperError>> {
        let path = path.to_owned();
        let client = std::thread::spawn(move || Keeper::connect(&path));
        poll(&mut [PollFd::new(&server.listener, PollFlags::IN)], None).unwrap();
        client
    }

    #[test]
    fn who_comes_to_a_keeper_that_is_ending_learns_it_before_he_relies_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keeper");
        let server = KeeperServer::bind(&path).unwrap();
        let client = comes(&server, &path);
        drop(server);
        let told = client.join().unwrap().map(|_| ());
        assert!(matches!(told, Err(KeeperError::System { .. })), "{told:?}");
        drop(KeeperServer::bind(&path).unwrap());
    }

    #[test]
    fn there_is_one_keeper_at_a_path_and_one_that_has_ended_is_replaced() {
        let keeper = Running::start();
        let path = keeper.path();
        assert!(matches!(KeeperServer::bind(&path), Err(BindError::InUse(_))));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let Running { folder, stop, thread } = keeper;
        drop(stop);
        thread.join().unwrap().unwrap();
        assert!(Keeper::connect(&path).is_err());
        drop(KeeperServer::bind(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        assert!(KeeperServer::bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
        drop(folder);
    }
}
