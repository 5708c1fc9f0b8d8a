//! What no peer does: a copy to another repository, a repair from it, an export to restic's format, and a volume that is served.
//!
//! The data is what the other tables have: an image, bytes that do not compress, and small files. Peaks must not grow with the repository.

use crate::data::Data;
use crate::measure::{Cost, size_of};
use crate::place::{Kind, Place};
use crate::tool::{Peer, Tools};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use wait4::Wait4;

/// The most memory that each of them may take, in MiB, whatever the size of the repository.
const MOST_MIB: u64 = 128;
const HERE: &str = "care";
const THERE: &str = "copies";
/// One of so many packs is lost before the repair.
const LOST_OF: usize = 2;

/// One of the rows.
struct Row {
    what: &'static str,
    cost: Cost,
    /// Plain bytes that were moved.
    bytes: u64,
}

/// Measures; gives a table, and whether the bounds hold.
pub(crate) fn measure(orlop: &Path, folder: &Path, data: &Data) -> Result<(String, bool)> {
    eprintln!("bench: copies, repairs, exports, served volumes");
    let place = Place::start(Kind::Folder, folder)?;
    let tools = Tools::find(orlop, folder)?;
    for repository in [HERE, THERE] {
        tools.init(Peer::Orlop, &place, repository)?;
    }
    tools.backup_image(Peer::Orlop, &place, HERE, ("image", &data.image), None)?;
    // Only folders are stored as files.
    let noise = folder.join("noise-folder");
    std::fs::create_dir(&noise)?;
    std::fs::hard_link(&data.noise, noise.join("noise"))?;
    tools.backup_path(Peer::Orlop, &place, HERE, ("noise", &noise))?;
    tools.backup_path(Peer::Orlop, &place, HERE, ("tree", &data.tree))?;
    let rows = use_it(&tools, &place, folder, data)?;
    std::fs::remove_dir_all(&noise)?;
    for repository in [HERE, THERE] {
        place.remove(repository)?;
    }
    let mut text = "### Copies, repairs, exports, served volumes\n\n\
                    | | CPU s | wall s | MiB/s | peak MiB | wanted | |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut good = true;
    for Row { what, cost, bytes } in rows {
        let holds = cost.peak >> 20 <= MOST_MIB;
        good &= holds;
        let (wall, peak) = (cost.wall.as_secs_f64(), cost.peak >> 20);
        let speed = bytes as f64 / f64::from(1 << 20) / wall.max(1e-9);
        let state = if holds { "holds" } else { "**missed**" };
        let cpu = cost.cpu.as_secs_f64();
        writeln!(text, "| {what} | {cpu:.2} | {wall:.2} | {speed:.0} | {peak} | ≤ {MOST_MIB} MiB | {state} |")?;
    }
    text.push('\n');
    Ok((text, good))
}

fn use_it(tools: &Tools, place: &Place, folder: &Path, data: &Data) -> Result<Vec<Row>> {
    let image = std::fs::metadata(&data.image)?.len();
    let bytes = image + std::fs::metadata(&data.noise)?.len() + size_of(&data.tree)?;
    let there = place.orlop_url(THERE);
    let mut copy = tools.orlop(place, HERE);
    copy.args(["copy", "--to", &there, "--to-password-file"]).arg(tools.password());
    let mut rows = vec![Row { what: "everything copied to another repository", cost: tools.run(&mut copy)?, bytes }];

    let lost = lose_packs(&folder.join("store").join(HERE))?;
    let mut repair = tools.orlop(place, HERE);
    repair.args(["repair", "--from", &there, "--from-password-file"]).arg(tools.password());
    let what = "every second pack lost, and repaired from there";
    rows.push(Row { what, cost: tools.run(&mut repair)?, bytes: lost });
    tools.run(tools.orlop(place, HERE).args(["check", "--read-data"]))?;

    let exported = folder.join("exported");
    let mut export = tools.orlop(place, HERE);
    export.args(["export", "image", "noise", "tree", "--to", &format!("restic:{}", exported.display())]);
    export.arg("--to-password-file").arg(tools.password());
    rows.push(Row { what: "everything exported to restic's format", cost: tools.run(&mut export)?, bytes });
    std::fs::remove_dir_all(&exported)?;

    match serve(tools, place)? {
        Some(cost) => rows.push(Row { what: "the image served, and read by nbdcopy", cost, bytes: image }),
        None => eprintln!("bench: nbdcopy is not installed (libnbd-bin), so no volume is served"),
    }
    Ok(rows)
}

/// Takes every second pack away; gives the bytes of these.
fn lose_packs(repository: &Path) -> Result<u64> {
    let (mut packs, mut folders) = (Vec::<PathBuf>::new(), vec![repository.join("domains/default/packs")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { packs.push(path) }
        }
    }
    packs.sort();
    let mut bytes = 0;
    for pack in packs.iter().step_by(LOST_OF) {
        bytes += std::fs::metadata(pack)?.len();
        std::fs::remove_file(pack)?;
    }
    Ok(bytes)
}

/// Serves the image until nbdcopy has read all of it; gives what that cost the server, in the time of the copy. None without nbdcopy.
fn serve(tools: &Tools, place: &Place) -> Result<Option<Cost>> {
    if Command::new("nbdcopy").arg("--version").output().is_err() {
        return Ok(None);
    }
    let mut server = tools.orlop(place, HERE);
    let mut server = server.args(["serve", "image", "-o", "name"]).stdout(Stdio::piped()).spawn().context("serve")?;
    let output = server.stdout.take().context("read where the volume is served")?;
    let mut uri = String::new();
    let read = BufReader::new(output).read_line(&mut uri).context("read where the volume is served");
    let started = Instant::now();
    let copied = Command::new("nbdcopy").args([uri.trim(), "null:"]).status().context("run nbdcopy");
    let wall = started.elapsed();
    let id = Pid::from_child(&server);
    kill_process(id, Signal::TERM).context("end the server")?;
    let used = server.wait4().context("wait for the server")?;
    read?;
    ensure!(copied?.success() && used.status.success(), "nbdcopy or the server failed");
    Ok(Some(Cost { cpu: used.rusage.utime + used.rusage.stime, wall, peak: used.rusage.maxrss }))
}
