// SPDX-License-Identifier: Apache-2.0
//! peers: the rows of tools/bench/peers.c for stores in Rust, with the same options and output.
//!
//! As there, put and batch return when the change is visible; a durable one, or flush, when it
//! survives power loss. sled keeps what is not flushed in the memory of the process. Readers of redb
//! keep one read transaction for a whole row. emdb (the crate) is measured without and with its
//! range index; removals of crates without batches are single calls.

use std::fs;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Instant;

const KEY: usize = 24;
const RANGE_ENTRIES: usize = 10;

type Key = [u8; KEY];
type Pair = (Key, Option<Vec<u8>>);
type Keys<'a> = &'a mut dyn FnMut() -> Option<Key>;

fn touch(value: &[u8]) -> u64 {
    match (value.first(), value.last()) {
        (Some(a), Some(b)) => u64::from(*a) + u64::from(*b),
        _ => 0,
    }
}

/// A store, opened in an empty directory. Everything panics when something fails.
trait Peer: Send + Sync {
    fn put(&self, key: &Key, value: &[u8], durable: bool);
    /// None: remove the key.
    fn batch(&self, pairs: &[Pair], durable: bool);
    fn flush(&self);
    /// What the store calls a flush, when it makes nothing durable. False: there is no such thing.
    fn weak_flush(&self) -> bool {
        false
    }
    fn gets(&self, keys: Keys) -> u64;
    /// None: no ranges.
    fn ranges(&self, keys: Keys) -> Option<u64>;
    /// False: cannot.
    fn compact(&mut self) -> bool;
}

// ---- emdb, the crate ----

struct EmdbPeer {
    db: emdb::Emdb,
    ranges: bool,
}

impl EmdbPeer {
    fn open(dir: &Path, ranges: bool) -> Box<dyn Peer> {
        let db = emdb::Emdb::builder()
            .path(dir.join("store"))
            .enable_range_scans(ranges)
            .build()
            .expect("emdb: open");
        Box::new(EmdbPeer { db, ranges })
    }
}

impl Peer for EmdbPeer {
    fn put(&self, key: &Key, value: &[u8], durable: bool) {
        self.db.insert(key.as_slice(), value).expect("emdb: insert");
        if durable {
            self.flush();
        }
    }
    fn batch(&self, pairs: &[Pair], durable: bool) {
        if pairs.iter().all(|(_, v)| v.is_some()) {
            self.db
                .insert_many(pairs.iter().map(|(k, v)| (k, v.as_ref().unwrap())))
                .expect("emdb: insert_many");
        } else {
            for (key, _) in pairs {
                self.db.remove(key).expect("emdb: remove");
            }
        }
        if durable {
            self.flush();
        }
    }
    fn flush(&self) {
        self.db.flush().expect("emdb: flush");
    }
    fn gets(&self, keys: Keys) -> u64 {
        let mut sum = 0;
        while let Some(key) = keys() {
            let value = self.db.get_zerocopy(key).expect("emdb: get");
            sum += touch(value.expect("emdb: a key is missing").as_slice());
        }
        sum
    }
    fn ranges(&self, keys: Keys) -> Option<u64> {
        if !self.ranges {
            return None;
        }
        let mut sum = 0;
        while let Some(key) = keys() {
            for (k, v) in self.db.iter_from(key).expect("emdb: range").take(RANGE_ENTRIES) {
                sum += u64::from(k[0]) + touch(&v);
            }
        }
        Some(sum)
    }
    fn compact(&mut self) -> bool {
        self.db.compact().expect("emdb: compact");
        self.flush();
        true
    }
}

// ---- redb ----

const TABLE: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("kv");

struct RedbPeer(redb::Database);

impl RedbPeer {
    fn open(dir: &Path) -> Box<dyn Peer> {
        Box::new(RedbPeer(
            redb::Database::create(dir.join("store")).expect("redb: create"),
        ))
    }
    fn write(&self, durability: redb::Durability, change: impl FnOnce(&mut redb::Table<&[u8], &[u8]>)) {
        let mut txn = self.0.begin_write().expect("redb: begin");
        txn.set_durability(durability);
        change(&mut txn.open_table(TABLE).expect("redb: table"));
        txn.commit().expect("redb: commit");
    }
    fn table(&self) -> redb::ReadOnlyTable<&'static [u8], &'static [u8]> {
        let txn = self.0.begin_read().expect("redb: begin");
        txn.open_table(TABLE).expect("redb: table")
    }
}

impl Peer for RedbPeer {
    /// Eventual is fdatasync, too, on Linux; so puts without flush are None, which is in memory only.
    fn put(&self, key: &Key, value: &[u8], durable: bool) {
        let durability = if durable { redb::Durability::Immediate } else { redb::Durability::None };
        self.write(durability, |table| {
            table.insert(key.as_slice(), value).expect("redb: insert");
        });
    }
    fn batch(&self, pairs: &[Pair], durable: bool) {
        let durability = if durable { redb::Durability::Immediate } else { redb::Durability::Eventual };
        self.write(durability, |table| {
            for (key, value) in pairs {
                match value {
                    Some(v) => table.insert(key.as_slice(), v.as_slice()),
                    None => table.remove(key.as_slice()),
                }
                .expect("redb: insert or remove");
            }
        });
    }
    fn flush(&self) {
        self.write(redb::Durability::Immediate, |_| ());
    }
    fn gets(&self, keys: Keys) -> u64 {
        let table = self.table();
        let mut sum = 0;
        while let Some(key) = keys() {
            let value = table.get(key.as_slice()).expect("redb: get");
            sum += touch(value.expect("redb: a key is missing").value());
        }
        sum
    }
    fn ranges(&self, keys: Keys) -> Option<u64> {
        let table = self.table();
        let mut sum = 0;
        while let Some(key) = keys() {
            let range = table.range(key.as_slice()..).expect("redb: range");
            for entry in range.take(RANGE_ENTRIES) {
                let (k, v) = entry.expect("redb: range");
                sum += u64::from(k.value()[0]) + touch(v.value());
            }
        }
        Some(sum)
    }
    fn compact(&mut self) -> bool {
        self.0.compact().expect("redb: compact");
        true
    }
}

// ---- sled ----

/// flush() of sled 0.34 writes with sync_file_range(2), which neither empties the cache of the disk nor
/// makes the file's size durable: not what a flush of the others means. So its file is synced as well.
struct SledPeer(sled::Db, fs::File);

impl SledPeer {
    fn open(dir: &Path) -> Box<dyn Peer> {
        let config = sled::Config::new()
            .path(dir.join("store"))
            .cache_capacity(3 << 30);
        let db = config.open().expect("sled: open");
        let file = fs::File::open(dir.join("store/db")).expect("sled: its file");
        Box::new(SledPeer(db, file))
    }
}

impl Peer for SledPeer {
    fn put(&self, key: &Key, value: &[u8], durable: bool) {
        self.0.insert(key, value).expect("sled: insert");
        if durable {
            self.flush();
        }
    }
    fn batch(&self, pairs: &[Pair], durable: bool) {
        let mut batch = sled::Batch::default();
        for (key, value) in pairs {
            match value {
                Some(v) => batch.insert(key, v.as_slice()),
                None => batch.remove(key),
            }
        }
        self.0.apply_batch(batch).expect("sled: apply_batch");
        if durable {
            self.flush();
        }
    }
    fn flush(&self) {
        self.weak_flush();
        self.1.sync_data().expect("sled: sync");
    }
    fn gets(&self, keys: Keys) -> u64 {
        let mut sum = 0;
        while let Some(key) = keys() {
            let value = self.0.get(key).expect("sled: get");
            sum += touch(&value.expect("sled: a key is missing"));
        }
        sum
    }
    fn ranges(&self, keys: Keys) -> Option<u64> {
        let mut sum = 0;
        while let Some(key) = keys() {
            let from = (Bound::Included(key), Bound::<Key>::Unbounded);
            for entry in self.0.range(from).take(RANGE_ENTRIES) {
                let (k, v) = entry.expect("sled: range");
                sum += u64::from(k[0]) + touch(&v);
            }
        }
        Some(sum)
    }
    fn weak_flush(&self) -> bool {
        self.0.flush().expect("sled: flush");
        true
    }
    fn compact(&mut self) -> bool {
        false
    }
}

// ---- The rows; see bench.h for the numbers ----

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fill(buf: &mut [u8], mut seed: u64) {
    for part in buf.chunks_mut(8) {
        let bytes = random(&mut seed).to_le_bytes();
        part.copy_from_slice(&bytes[..part.len()]);
    }
}

fn make_key(i: u64) -> Key {
    let mut key = [0; KEY];
    fill(&mut key, i * 2 + 1);
    key
}

fn make_value(i: u64, len: usize) -> Vec<u8> {
    let mut value = vec![0; len];
    fill(&mut value, i * 2);
    value
}

struct Config {
    records: u64,
    batch: u64,
    durable: u64,
    groups: u64,
    singles: u64,
    gets: u64,
    ranges: u64,
    value_len: usize,
    engine: String,
    dir: PathBuf,
}

impl Config {
    fn row(&self, name: &str, unit: &str, value: f64) {
        println!(
            "{{\"bench\":\"peers\",\"engine\":\"{}\",\"row\":\"{name}\",\"unit\":\"{unit}\",\"value\":{value:.6},\"records\":{}}}",
            self.engine, self.records
        );
    }
}

fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => disk_bytes(&e.path()),
            Ok(m) => m.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Seconds; making the records is not timed.
fn write_batches(c: &Config, db: &dyn Peer, from: u64, n: u64, size: u64, durable: bool, remove: bool) -> f64 {
    let mut secs = 0.0;
    let mut first = from;
    while first < from + n {
        let end = (first + size).min(from + n);
        let pairs: Vec<Pair> = (first..end)
            .map(|i| (make_key(i), (!remove).then(|| make_value(i, c.value_len))))
            .collect();
        let start = Instant::now();
        db.batch(&pairs, durable);
        secs += start.elapsed().as_secs_f64();
        first = end;
    }
    let start = Instant::now();
    if !durable {
        db.flush();
    }
    secs + start.elapsed().as_secs_f64()
}

fn write_singles(c: &Config, db: &dyn Peer, from: u64, n: u64, durable: bool) -> f64 {
    let mut secs = 0.0;
    for i in from..from + n {
        let (key, value) = (make_key(i), make_value(i, c.value_len));
        let start = Instant::now();
        db.put(&key, &value, durable);
        secs += start.elapsed().as_secs_f64();
    }
    secs
}

/// As many puts, each with what the store itself calls a flush.
fn write_weakly(c: &Config, db: &dyn Peer, from: u64) -> Option<f64> {
    let mut secs = 0.0;
    if !db.weak_flush() {
        return None;
    }
    for i in from..from + c.durable {
        let (key, value) = (make_key(i), make_value(i, c.value_len));
        let start = Instant::now();
        db.put(&key, &value, false);
        db.weak_flush();
        secs += start.elapsed().as_secs_f64();
    }
    Some(secs)
}

fn bench_writes(c: &Config, db: &dyn Peer) -> u64 {
    let secs = write_batches(c, db, 0, c.records, c.batch, false, false);
    let mut have = c.records;
    c.row("bulk load", "rec/s", c.records as f64 / secs);
    let secs = write_singles(c, db, have, c.durable, true);
    have += c.durable;
    c.row("put + flush", "op/s", c.durable as f64 / secs);
    if let Some(secs) = write_weakly(c, db, have) {
        have += c.durable;
        c.row("put + its own flush, not durable", "op/s", c.durable as f64 / secs);
    }
    let n = c.groups * 1000;
    let secs = write_batches(c, db, have, n, 1000, true, false);
    have += n;
    c.row("batches of 1000 + flush", "rec/s", n as f64 / secs);
    let secs = write_singles(c, db, have, c.singles, false);
    have += c.singles;
    c.row("put, no flush", "op/s", c.singles as f64 / secs);
    db.flush();
    have
}

/// Operations per second of all threads together; None: the store cannot do that.
fn read_threads(db: &dyn Peer, have: u64, threads: u64, total: u64, range: bool, seed: u64) -> Option<f64> {
    let barrier = Barrier::new(threads as usize);
    let each = total / threads;
    let times: Vec<Option<(Instant, Instant)>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|i| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut state = (seed * 64 + i) << 32;
                    let mut left = each;
                    let mut keys = || {
                        left = left.checked_sub(1)?;
                        Some(make_key(random(&mut state) % have))
                    };
                    barrier.wait();
                    let start = Instant::now();
                    let sum = if range { db.ranges(&mut keys)? } else { db.gets(&mut keys) };
                    std::hint::black_box(sum);
                    Some((start, Instant::now()))
                })
            })
            .collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    let times: Option<Vec<_>> = times.into_iter().collect();
    let times = times?;
    let start = times.iter().map(|t| t.0).min().unwrap();
    let end = times.iter().map(|t| t.1).max().unwrap();
    Some((each * threads) as f64 / (end - start).as_secs_f64())
}

fn bench_reads(c: &Config, db: &dyn Peer, have: u64) {
    for (name, threads, seed) in [("get", 1, 1), ("get again", 1, 1), ("get, 4 threads", 4, 2), ("get, 8 threads", 8, 3)] {
        c.row(name, "op/s", read_threads(db, have, threads, c.gets, false, seed).unwrap());
    }
    if let Some(rate) = read_threads(db, have, 1, c.ranges, true, 4) {
        c.row("ranges of 10", "op/s", rate);
    }
}

fn bench_removes(c: &Config, db: &mut dyn Peer, have: u64) {
    let size = |n: u64| disk_bytes(&c.dir) as f64 / n as f64;
    c.row("size", "B/rec", size(have));
    let half = have / 2;
    let secs = write_batches(c, db, 0, half, c.batch, false, true);
    c.row("remove half", "rec/s", half as f64 / secs);
    c.row("size with half removed", "B/rec", size(have - half));
    let start = Instant::now();
    if db.compact() {
        c.row("compaction", "s", start.elapsed().as_secs_f64());
        c.row("size compacted", "B/rec", size(have - half));
    }
}

const ENGINES: [(&str, &str); 4] = [
    ("emdb-rs", "crate emdb 1.0.3, values by reference"),
    ("emdb-rs-ranges", "the same with its range index"),
    ("redb", "crate redb 2.6.4; a batch is a commit with fdatasync, a put without flush one in memory only; one read transaction a row"),
    ("sled", "crate sled 0.34.7, 3 GiB cache; its flush and fdatasync; without flush in the process's memory only"),
];

fn usage() -> ! {
    eprintln!("usage: peers [-n -b -v -d -m -p -g -r NUMBER] ENGINE DIR\n       peers -L");
    std::process::exit(2)
}

fn parse() -> Config {
    let mut c = Config {
        records: 5_000_000,
        batch: 50_000,
        durable: 1000,
        groups: 100,
        singles: 50_000,
        gets: 1_000_000,
        ranges: 500_000,
        value_len: 150,
        engine: String::new(),
        dir: PathBuf::new(),
    };
    let mut rest = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "-L" {
            for (name, settings) in ENGINES {
                println!("{name}\t{settings}");
            }
            std::process::exit(0);
        }
        if !arg.starts_with('-') {
            rest.push(arg);
            continue;
        }
        let n: u64 = args.next().and_then(|v| v.parse().ok()).filter(|n| *n > 0).unwrap_or_else(|| usage());
        match arg.as_str() {
            "-n" => c.records = n,
            "-b" => c.batch = n,
            "-v" => c.value_len = n as usize,
            "-d" => c.durable = n,
            "-m" => c.groups = n,
            "-p" => c.singles = n,
            "-g" => c.gets = n,
            "-r" => c.ranges = n,
            _ => usage(),
        }
    }
    if rest.len() != 2 || !ENGINES.iter().any(|e| e.0 == rest[0]) {
        usage();
    }
    c.engine = rest[0].clone();
    c.dir = Path::new(&rest[1]).join(format!("peers.{}.{}", rest[0], std::process::id()));
    c
}

fn main() {
    let c = parse();
    fs::create_dir(&c.dir).expect("the store's directory");
    let mut db = match c.engine.as_str() {
        "emdb-rs" => EmdbPeer::open(&c.dir, false),
        "emdb-rs-ranges" => EmdbPeer::open(&c.dir, true),
        "redb" => RedbPeer::open(&c.dir),
        _ => SledPeer::open(&c.dir),
    };
    let have = bench_writes(&c, db.as_ref());
    bench_reads(&c, db.as_ref(), have);
    bench_removes(&c, db.as_mut(), have);
    drop(db);
    fs::remove_dir_all(&c.dir).expect("removing the store");
}
