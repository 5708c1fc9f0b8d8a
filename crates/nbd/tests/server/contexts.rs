//! Contexts beside `base:allocation`: a family of them, one for each snapshot.

use super::client::{ACK, Client, ERROR, contexts_data};
use super::judges::{good, has, nbdsh};
use super::memory::{BLOCK, Served};
use block::testing::Memory;
use serde_json::Value;

const BLOCKS: usize = 64;

/// A device of which blocks were written after the first snapshot, and others after the second.
fn changed() -> Memory {
    let memory = Memory::writable(&[1; BLOCKS * BLOCK]);
    memory.snapshot("first");
    memory.set(5 * BLOCK as u64, &[2; 3 * BLOCK]);
    memory.snapshot("second");
    memory.set(60 * BLOCK as u64, &[3; BLOCK]);
    memory
}

async fn names(client: &mut Client, option: u32, queries: &[&str]) -> Vec<String> {
    client.send_option(option, &contexts_data("disk", queries)).await;
    let mut names = Vec::new();
    loop {
        match client.option_reply(option).await {
            reply if reply.kind == ACK => return names,
            reply => names.push(String::from_utf8(reply.data[4..].to_vec()).unwrap()),
        }
    }
}

#[tokio::test]
async fn a_family_is_listed_by_its_begin_and_each_is_had_by_its_name() {
    let (served, _) = Served::of(changed());
    let mut client = Client::greet(&served.socket, 3).await;
    client.option(8, &[]).await;
    let (first, second) = ("orlop:changed-since=first", "orlop:changed-since=second");
    const LIST: u32 = 9;
    const SET: u32 = 10;
    assert_eq!(names(&mut client, LIST, &[]).await, ["base:allocation", first, second]);
    assert_eq!(names(&mut client, LIST, &["orlop:"]).await, [first, second]);
    assert_eq!(names(&mut client, LIST, &["orlop:changed-since="]).await, [first, second]);
    assert_eq!(names(&mut client, LIST, &[second, "orlop:", "base:"]).await, [second, first, "base:allocation"]);
    assert_eq!(names(&mut client, LIST, &["orlop:changed-since=none", "orlop:chang"]).await, Vec::<String>::new());
    assert_eq!(names(&mut client, SET, &["orlop:", "orlop:changed-since="]).await, Vec::<String>::new());
    assert_eq!(names(&mut client, SET, &[second, "base:allocation", first]).await, [second, "base:allocation", first]);
    let many: Vec<_> = (0..40).map(|number| format!("orlop:changed-since={number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(names(&mut client, SET, &many).await, Vec::<String>::new(), "there are none of these");
    served.end().await;
}

#[tokio::test]
async fn a_connection_has_no_more_contexts_than_its_answers_can_carry() {
    let memory = Memory::new(&[1; BLOCK]);
    let snapshots: Vec<_> = (0..20).map(|number| format!("orlop:changed-since={number}")).collect();
    (0..20).for_each(|number| memory.snapshot(&number.to_string()));
    let (served, _) = Served::of(memory);
    let mut client = Client::greet(&served.socket, 3).await;
    client.option(8, &[]).await;
    let wanted: Vec<_> = snapshots.iter().map(String::as_str).collect();
    assert_eq!(client.option(10, &contexts_data("disk", &wanted)).await.kind, ERROR + 9);
    assert_eq!(names(&mut client, 10, &wanted[..16]).await, wanted[..16]);
    served.end().await;
}

fn stretches(map: &Value) -> Vec<(u64, u64, u64)> {
    let number = |value: &Value| value.as_u64().unwrap() / BLOCK as u64;
    let all = map.as_array().unwrap().iter();
    all.map(|part| (number(&part["offset"]), number(&part["length"]), part["type"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn libnbd_and_qemu_see_what_has_changed() {
    if !has("nbdinfo") || !has("qemu-img") || !has("nbdsh") {
        skips::skip!("nbdinfo, nbdsh or qemu-img is missing: run tools/setup");
    }
    let (served, _) = Served::of(changed());
    let uri = served.uri("disk");
    let about: Value = serde_json::from_slice(&good("nbdinfo", &["--json", &uri]).await).unwrap();
    let contexts = ["base:allocation", "orlop:changed-since=first", "orlop:changed-since=second"];
    assert_eq!(about["exports"][0]["contexts"], serde_json::json!(contexts));
    for (snapshot, expected) in [
        ("first", vec![(0, 5, 0), (5, 3, 1), (8, 52, 0), (60, 1, 1), (61, 3, 0)]),
        ("second", vec![(0, 60, 0), (60, 1, 1), (61, 3, 0)]),
    ] {
        let map = format!("--map=orlop:changed-since={snapshot}");
        let map: Value = serde_json::from_slice(&good("nbdinfo", &["--json", &map, &uri]).await).unwrap();
        assert_eq!(stretches(&map), expected, "{snapshot}");
    }
    // To QEMU it is a bitmap of dirty blocks, which it shows as what has data.
    let socket = served.socket.display();
    let options = format!(
        "driver=nbd,server.type=unix,server.path={socket},export=disk,x-dirty-bitmap=orlop:changed-since=first"
    );
    let map: Value =
        serde_json::from_slice(&good("qemu-img", &["map", "--output=json", "--image-opts", &options]).await).unwrap();
    let dirty: Vec<_> = map.as_array().unwrap().iter().filter(|part| part["data"] == false).collect();
    let starts: Vec<_> = dirty.iter().map(|part| part["start"].as_u64().unwrap() / BLOCK as u64).collect();
    assert_eq!(starts, [5, 60], "{map}");
    // Two contexts in one question.
    let script = format!(
        "h.add_meta_context('base:allocation'); h.add_meta_context('orlop:changed-since=second')\n\
         h.connect_uri('{uri}')\n\
         found = {{}}\n\
         def extent(name, offset, entries, error): found[name] = entries\n\
         h.block_status({}, 0, extent)\n\
         print(found)",
        BLOCKS * BLOCK
    );
    let said = String::from_utf8(nbdsh(&script).await).unwrap();
    let expected = "{'base:allocation': [262144, 0], 'orlop:changed-since=second': [245760, 0, 4096, 1, 12288, 0]}";
    assert_eq!(said.trim(), expected);
    served.end().await;
}

#[tokio::test]
async fn nbdsh_and_qemu_io_write_trim_zero_and_flush() {
    if !has("nbdsh") || !has("qemu-io") {
        skips::skip!("nbdsh or qemu-io is missing: run tools/setup");
    }
    let (served, memory) = Served::of(Memory::writable(&[1; BLOCKS * BLOCK]));
    let uri = served.uri("disk");
    let script = format!(
        "h.connect_uri('{uri}')\n\
         h.pwrite(b'x' * 8192, 4096, nbd.CMD_FLAG_FUA)\n\
         h.trim(4096, 16384)\n\
         h.zero(4096, 32768, nbd.CMD_FLAG_NO_HOLE)\n\
         h.flush()\n\
         assert h.pread(8192, 4096) == b'x' * 8192\n\
         h.shutdown()"
    );
    nbdsh(&script).await;
    let io =
        ["-f", "raw", "-c", "write -P 9 64k 64k", "-c", "write -z 128k 64k", "-c", "discard 192k 4k", "-c", "flush"];
    good("qemu-io", &[&io[..], &["-c", "read -P 9 64k 64k", &uri]].concat()).await;
    let mut expected = vec![1; BLOCKS * BLOCK];
    expected[4096..4096 + 8192].fill(b'x');
    expected[16384..16384 + 4096].fill(0);
    expected[32768..32768 + 4096].fill(0);
    expected[64 << 10..128 << 10].fill(9);
    expected[128 << 10..196 << 10].fill(0);
    assert!(memory.bytes() == expected);
    assert!(memory.flushes.load(std::sync::atomic::Ordering::SeqCst) >= 2);
    served.end().await;
}
