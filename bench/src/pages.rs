//! An image of an ext4 file system that holds the data directory of a PostgreSQL: real pages of tables and indexes.
//!
//! The rows are those of pgbench with a fixed seed, and of a table of orders with text, JSON and bytes of which a part compresses; all of it
//! follows from numbers. The server writes some transaction ids and times of its own, so two images are alike, not equal; both programs of a
//! run get the same one.

use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use rand::rngs::StdRng;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of an image, the part that the rows of orders fill; as much as leaves the file system some room, and zeros.
const ORDERS_SHARE: f64 = 0.48;
/// About how many bytes an order takes in table and index.
const ORDER_BYTES: f64 = 620.0;
/// Bytes of image for each unit of pgbench's own scale, of 15 MB.
const BYTES_PER_PGBENCH_SCALE: u64 = 128 << 20;

/// Words of documents and sources.
const WORDS: [&str; 64] = [
    "harbour",
    "vessel",
    "cargo",
    "return",
    "let",
    "self",
    "match",
    "the",
    "of",
    "and",
    "struct",
    "public",
    "static",
    "value",
    "index",
    "error",
    "request",
    "response",
    "config",
    "volume",
    "anchor",
    "sail",
    "wind",
    "if",
    "else",
    "while",
    "for",
    "result",
    "string",
    "number",
    "customer",
    "order",
    "invoice",
    "amount",
    "total",
    "street",
    "city",
    "country",
    "phone",
    "mail",
    "created",
    "updated",
    "status",
    "open",
    "closed",
    "pending",
    "shipped",
    "delivered",
    "weight",
    "height",
    "length",
    "colour",
    "green",
    "blue",
    "red",
    "north",
    "south",
    "east",
    "west",
    "first",
    "second",
    "third",
    "name",
    "id",
];

/// A word.
pub(crate) fn word(random: &mut StdRng) -> &'static str {
    WORDS[random.random_range(0..WORDS.len())]
}

/// The programs of PostgreSQL, and who runs them: the server refuses to run as root.
struct Postgres {
    programs: PathBuf,
    user: Option<(u32, u32)>,
    home: PathBuf,
}

/// Makes an image of `len` bytes; `folder` is used for the database meanwhile.
pub(crate) fn make_image(image: &Path, len: u64, folder: &Path) -> Result<()> {
    let postgres = Postgres::find(folder.join("postgres"))?;
    let filled = postgres.fill(len);
    postgres.stop();
    filled?;
    let file = fs::File::create(image)?;
    file.set_len(len)?;
    let seed = "0d6b1f0a-0000-4000-8000-000000000001";
    let mut mkfs = Command::new("/usr/sbin/mkfs.ext4");
    mkfs.args(["-q", "-F", "-U", seed, "-E", &format!("hash_seed={seed}"), "-d"]).arg(postgres.data()).arg(image);
    done(&mut mkfs)?;
    Ok(fs::remove_dir_all(&postgres.home)?)
}

/// Runs a program to its end.
fn done(command: &mut Command) -> Result<()> {
    let name = format!("{command:?}");
    let output = command.output().with_context(|| format!("run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} ended with {}: {said}", output.status);
    Ok(())
}

impl Postgres {
    fn find(home: PathBuf) -> Result<Self> {
        let versions =
            fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is missing: apt-get install postgresql")?;
        let mut found: Vec<PathBuf> = versions
            .filter_map(|version| Some(version.ok()?.path().join("bin")))
            .filter(|programs| programs.join("initdb").exists() && programs.join("pgbench").exists())
            .collect();
        found.sort();
        let programs = found.pop().context("initdb and pgbench are missing: apt-get install postgresql")?;
        fs::create_dir(&home)?;
        let user = match rustix::process::geteuid().is_root() {
            true => Some(user_of("postgres")?),
            false => None,
        };
        if let Some((user, group)) = user {
            std::os::unix::fs::chown(&home, Some(user), Some(group))?;
        }
        Ok(Self { programs, user, home })
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.home).env("PGHOST", &self.home).env("LC_ALL", "C");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Makes the database; it is stopped afterwards, so that its files are whole.
    fn fill(&self, len: u64) -> Result<()> {
        let data = self.data();
        done(self.command("initdb").args(["-N", "-A", "trust", "--no-instructions", "-U", "bench", "-D"]).arg(&data))?;
        // It listens on a socket in its own folder only. What is thrown away after a crash need not be synced.
        let settings = format!(
            "listen_addresses=''\nunix_socket_directories='{}'\nfsync=off\nfull_page_writes=off\nautovacuum=off\n\
             max_wal_size=64MB\nmin_wal_size=32MB\nwal_level=minimal\nmax_wal_senders=0\n",
            self.home.display()
        );
        let file = data.join("postgresql.conf");
        fs::write(&file, fs::read_to_string(&file)? + &settings)?;
        let log = self.home.join("log");
        done(self.command("pg_ctl").args(["start", "-w", "-D"]).arg(&data).arg("-l").arg(&log))?;
        let scale = (len / BYTES_PER_PGBENCH_SCALE).max(1).to_string();
        done(self.command("pgbench").args(["-U", "bench", "-i", "-q", "-s", &scale, "postgres"]))?;
        done(self.command("pgbench").args(["-U", "bench", "-n", "-t", "2000", "--random-seed=17", "postgres"]))?;
        let orders = (len as f64 * ORDERS_SHARE / ORDER_BYTES).round();
        done(self.command("psql").args([
            "-U",
            "bench",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            &orders_of(orders),
            "postgres",
        ]))?;
        done(self.command("psql").args(["-U", "bench", "-q", "-c", "VACUUM", "-c", "CHECKPOINT", "postgres"]))
    }

    fn stop(&self) {
        // One that does not run any more needs no stop.
        if let Err(error) = done(self.command("pg_ctl").args(["stop", "-w", "-m", "fast", "-D"]).arg(self.data())) {
            eprintln!("bench: {error}");
        }
    }
}

/// Makes a table of orders: a document, an address, and 96 bytes that do not compress, of each; with an index besides the key.
fn orders_of(count: f64) -> String {
    format!(
        "CREATE TABLE orders (id bigint PRIMARY KEY, customer text, document jsonb, receipt bytea); \
         INSERT INTO orders SELECT i, 'customer ' || md5((i % 50021)::text), \
         jsonb_build_object('order', i, 'status', (ARRAY['open', 'shipped', 'delivered', 'returned'])[1 + i % 4], \
         'amount', (i::bigint * 7919) % 100000, 'note', 'to be left at the gate of house ' || (i * 31) % 997, \
         'lines', jsonb_build_array(md5(i::text), md5((i / 3)::text), 'article ' || i % 977)), \
         decode(md5(i::text || 'a') || md5(i::text || 'b') || md5(i::text || 'c') || md5(i::text || 'd'), 'hex') \
         FROM generate_series(1, {count}) i; \
         CREATE INDEX ON orders (customer);"
    )
}

/// The numbers of a user and its group.
fn user_of(name: &str) -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    for line in users.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [user, _, id, group, ..] = fields[..]
            && user == name
        {
            return Ok((id.parse()?, group.parse()?));
        }
    }
    bail!("there is no user {name}, and PostgreSQL does not run as root")
}
