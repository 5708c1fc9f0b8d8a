//! Folders.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use super::support::{Place, described, noise, point, require_restic, said_by};

/// Things of all kinds, as far as this user may make them.
fn fill(data: &Path) {
    let long = "n".repeat(255);
    fs::create_dir_all(data.join("sub folder/deeper")).unwrap();
    fs::create_dir(data.join("empty folder")).unwrap();
    fs::write(data.join("sub folder/large"), noise(9 << 20, 1)).unwrap();
    fs::write(data.join("sub folder.beside"), "sorts between").unwrap();
    fs::write(data.join("empty"), "").unwrap();
    fs::write(data.join(&long), "long").unwrap();
    for name in [&b"not \xff text"[..], b"\"quoted\" <&> \\back\nline\t", "é…\u{a0}\u{85}😀".as_bytes(), b"100%"] {
        fs::write(data.join(OsStr::from_bytes(name)), name).unwrap();
    }
    for number in 0..300 {
        fs::write(data.join(format!("sub folder/deeper/{number}")), format!("small {number}")).unwrap();
    }
    let sparse = File::create(data.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(&noise(5000, 2), 3_000_001).unwrap();
    sparse.write_all_at(&noise(70_000, 3), 30 << 20).unwrap();
    fs::write(data.join("one"), "three names").unwrap();
    fs::hard_link(data.join("one"), data.join("sub folder/two")).unwrap();
    fs::hard_link(data.join("one"), data.join("three")).unwrap();
    symlink("one", data.join("link")).unwrap();
    symlink("../nowhere/é", data.join("sub folder/dangling")).unwrap();
    said_by("mkfifo", &["fifo"], data);
    said_by("setfattr", &["-n", "user.orlop", "-v", "value", "one"], data);
    said_by("setfattr", &["-n", "user.folder", "-v", "0x00ff01", "empty folder"], data);
    fs::set_permissions(data.join("empty"), fs::Permissions::from_mode(0o4710)).unwrap();
    fs::set_permissions(data.join("empty folder"), fs::Permissions::from_mode(0o3775)).unwrap();
    said_by("touch", &["-h", "-d", "1969-12-31T23:59:58.5Z", "link", "empty"], data);
    said_by("touch", &["-d", "2038-01-19T03:14:08.123456789Z", "sub folder/large", "sub folder"], data);
    if sandbox::skip::lacks_root().is_none() {
        said_by("mknod", &["null", "c", "1", "3"], data);
        said_by("mknod", &["loop", "b", "7", "300"], data);
        said_by("chown", &["-h", "4000000000:12345", "three", "link"], data);
        said_by("setfacl", &["-m", "u:1234:rw", "one"], data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_back_from_restic_as_it_was() {
    require_restic!();
    let place = Place::new().await;
    let data = place.path("data");
    fill(&data);
    let point = place.backup("first").await;
    let exported = place.export(&[point]).await;
    assert!(exported[0].changed.is_empty(), "{exported:?}");
    place.check();

    let snapshots = place.snapshots();
    assert_eq!(snapshots.len(), 1);
    let snapshot = &snapshots[0];
    assert_eq!(snapshot["time"], "2026-11-25T10:11:12.5Z");
    assert_eq!(snapshot["hostname"], "machine");
    assert_eq!(snapshot["paths"], json!([data]));
    let tags = json!(["orlop", "first", format!("repository={}", place.repository.id())]);
    assert_eq!((&snapshot["tags"], &snapshot["id"]), (&tags, &json!(exported[0].snapshot)));

    let restored = place.restore("latest").join(data.strip_prefix("/").unwrap());
    assert_eq!(described(&restored), described(&data));
    said_by(
        "diff",
        &["-r", "--no-dereference", "-x", "fifo", "-x", "null", "-x", "loop", ".", restored.to_str().unwrap()],
        &data,
    );
    let inode = |name: &str| fs::metadata(restored.join(name)).unwrap().ino();
    assert!(inode("one") == inode("sub folder/two") && inode("one") == inode("three"));

    let file = data.join("sub folder/two");
    assert_eq!(place.restic(&["dump", "latest", file.to_str().unwrap()]), "three names");
    let listed = place.restic(&["ls", "latest", data.join("sub folder").to_str().unwrap()]);
    assert!(listed.contains("/sub folder/large\n"), "{listed}");
}

/// If the listings are not written as restic writes them, it stores them again, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn listings_are_those_that_restic_itself_writes() {
    require_restic!();
    let place = Place::new().await;
    let data = place.path("data");
    fill(&data);
    // Attributes are sorted by name in Orlop's, and in restic's as the file system gives them.
    if sandbox::skip::lacks_root().is_none() {
        said_by("setfacl", &["-b", "one"], &data);
    }
    let point = place.backup("first").await;
    place.export(&[point]).await;
    let ours = listing(&place, &place.snapshots()[0], &data);
    place.restic(&["backup", "--host", "judge", data.to_str().unwrap()]);
    let theirs = place.snapshots().into_iter().find(|snapshot| snapshot["hostname"] == "judge").unwrap();
    assert_eq!(comparable(&ours), comparable(&listing(&place, &theirs, &data)));
    place.check();
}

/// The listing of a folder in a snapshot, byte for byte.
fn listing(place: &Place, snapshot: &Value, folder: &Path) -> String {
    let mut tree = snapshot["tree"].as_str().unwrap().to_owned();
    for name in folder.components().skip(1) {
        let listing: Value = serde_json::from_str(&place.restic(&["cat", "blob", &tree])).unwrap();
        let mut nodes = listing["nodes"].as_array().unwrap().iter();
        let node = nodes.find(|node| node["name"] == name.as_os_str().to_str().unwrap()).unwrap();
        tree = node["subtree"].as_str().unwrap().to_owned();
    }
    place.restic(&["cat", "blob", &tree])
}

/// A listing without what Orlop does not store, and without where restic cuts: names of owners, and the names of blobs.
fn comparable(listing: &str) -> String {
    let cut = |text: &str, from: &str, to: char| {
        let mut parts = text.split(from);
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |mut text, part| {
            text.push_str(&part[part.find(to).unwrap() + 1..]);
            text
        })
    };
    let without_users = cut(listing, "\"user\":\"", ',');
    let without_groups = cut(&without_users, "\"group\":\"", ',');
    let without_content = cut(&without_groups, "\"content\":[", ']');
    cut(&without_content, "\"subtree\":\"", '"')
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_export_stores_what_is_new_and_a_third_nothing() {
    require_restic!();
    let place = Place::new().await;
    fs::write(place.path("data/large"), noise(12 << 20, 1)).unwrap();
    let mut first = place.backup("first").await;
    let exported = place.export(&[first.clone()]).await;
    assert!(exported[0].new_bytes > 12 << 20, "{exported:?}");
    fs::write(place.path("data/new"), "new").unwrap();
    let second = place.backup("second").await;
    let exported = place.export(&[first.clone(), second.clone()]).await;
    assert_eq!([exported[0].existed, exported[1].existed], [true, false]);
    assert!(exported[1].new_bytes < 10_000, "{exported:?}");
    assert_eq!(exported[1].bytes, (12 << 20) + 3);
    let exported = place.export(&[second]).await;
    assert!(exported[0].existed && exported[0].new_bytes == 0, "{exported:?}");
    place.check();
    assert_eq!(place.snapshots().len(), 2);
    // The same files in a recovery point of another name cost their snapshot.
    first.id = "again".parse().unwrap();
    let exported = place.export(&[first]).await;
    assert_eq!((exported[0].existed, exported[0].new_bytes), (false, 0));
    place.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_restic_made_is_taken_and_restic_goes_on_in_ours() {
    require_restic!();
    let place = Place::new().await;
    fs::write(place.path("data/file"), noise(3 << 20, 1)).unwrap();
    place.restic(&["init", "--repository-version", "2"]);
    place.restic(&["backup", "--host", "machine", place.path("data").to_str().unwrap()]);
    let point = place.backup("first").await;
    place.export(std::slice::from_ref(&point)).await;
    place.check();
    assert_eq!(place.snapshots().len(), 2);
    place.restic(&["forget", "--prune", "--keep-last", "1", "--group-by", "host"]);
    place.check();

    fs::rename(place.path("restic"), place.path("theirs")).unwrap();
    place.export(&[point]).await;
    place.restic(&["backup", place.path("data").to_str().unwrap()]);
    place.restic(&["prune", "--max-unused", "0"]);
    place.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_contents_are_one_snapshot() {
    require_restic!();
    let place = Place::new().await;
    for folder in ["a", "a/inner", "b"] {
        fs::create_dir_all(place.path("data").join(folder)).unwrap();
        fs::write(place.path("data").join(folder).join("file"), folder).unwrap();
    }
    let writer = place.repository.writer(&"several".parse().unwrap()).await.unwrap();
    let mut roots = Vec::new();
    for (name, folder) in [("/x/a", "a"), ("/x/a/inner", "a/inner"), ("/y", "b")] {
        roots.push(place.tree(&writer, name, &place.path("data").join(folder)).await);
    }
    roots.push(place.stream(&writer, "dump.sql", b"select").await);
    let mut point = point("several", roots);
    point.complete = false;
    place.publish(writer, &mut point).await;
    place.export(&[point]).await;
    place.check();
    let restored = place.restore("latest");
    for (path, content) in [
        ("x/a/file", "a"),
        ("x/a/inner/file", "a/inner"),
        ("x_a_inner/file", "a/inner"),
        ("y/file", "b"),
        ("dump.sql", "select"),
    ] {
        assert_eq!(fs::read_to_string(restored.join(path)).unwrap(), content, "{path}");
    }
    let snapshot = &place.snapshots()[0];
    assert_eq!(snapshot["paths"], json!(["/dump.sql", "/x/a", "/x_a_inner", "/y"]));
    assert_eq!(snapshot["tags"][3], "incomplete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_from_its_top_is_the_top_of_the_snapshot() {
    require_restic!();
    let place = Place::new().await;
    fs::write(place.path("data/file"), "x").unwrap();
    let writer = place.repository.writer(&"whole".parse().unwrap()).await.unwrap();
    let mut point = point("whole", vec![place.tree(&writer, "/", &place.path("data")).await]);
    place.publish(writer, &mut point).await;
    place.export(&[point]).await;
    place.check();
    assert_eq!(fs::read_to_string(place.restore("latest").join("file")).unwrap(), "x");
}
