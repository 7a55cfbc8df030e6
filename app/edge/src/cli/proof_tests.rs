use std::sync::Arc;

use kvs::proof::records::{Book, BookConfig, Cause, Context, Row, RowState, RowTimes};
use kvs::{FragmentId, RunId};
use store::{ProofOptions, Proofs, RealFiles};

use super::*;

/// 2026-11-20T14:48:00Z
const START_MS: u64 = 1_795_186_080_000;

fn row(n: u64) -> Row {
    let timecode_ms = START_MS + n * 2000;
    let at = Some(timecode_ms + 2300);
    Row {
        id: FragmentId { run: RunId::new(7), sequence: n + 1 },
        timecode_ms,
        end_ms: timecode_ms + 1960,
        bytes: Some(1000),
        blocks: Some(50),
        sums: None,
        number: None,
        state: RowState::Persisted,
        text: None,
        times: RowTimes { complete: at, persisted: at, listed: at, identical: at, ..RowTimes::default() },
    }
}

/// A box that has recorded five minutes with two cameras; fragments 70 and 71 of the first found no room.
struct Recorded {
    folder: tempfile::TempDir,
    _running: Proofs,
}

fn recorded() -> Recorded {
    let folder = tempfile::tempdir().expect("a folder");
    let proofs = Proofs::open(ProofOptions::new(folder.path()), Arc::new(RealFiles)).expect("it opens");
    for name in ["front", "yard"] {
        let (mut camera, resumed) = proofs.camera(name, &format!("box/{name}")).expect("it resumes");
        let mut book = Book::new(BookConfig::default(), resumed.chain, None, [], START_MS);
        for minute in 0..5 {
            let mut rows: Vec<_> = (minute * 30..=minute * 30 + 30).map(row).collect();
            for row in rows.iter_mut().filter(|row| name == "front" && [71, 72].contains(&row.id.sequence)) {
                (row.state, row.text) =
                    (RowState::Bad(Cause::SpoolFull), Some("no room, \"full\"".to_owned()));
            }
            let now_ms = START_MS + (minute + 1) * 60_000 + 5000;
            let context = Context { looks: true, now_ms, ..Context::default() };
            book.turn(&rows, &mut camera, &context).map_err(|(_, error)| error).expect("written");
        }
    }
    Recorded { folder, _running: proofs }
}

impl Recorded {
    /// Exit code and output of a command line.
    fn run(&self, arguments: &[&str]) -> Result<(u8, String), String> {
        #[derive(clap::Parser)]
        struct Arguments {
            #[command(subcommand)]
            command: Proof,
        }
        let folder = self.folder.path().to_str().expect("text");
        let has_place = arguments.contains(&"--file");
        let place: &[&str] = if has_place { &[] } else { &["--folder", folder] };
        let line = ["proof"].iter().chain(arguments).chain(place);
        let parsed = <Arguments as clap::Parser>::try_parse_from(line).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        let code = execute(parsed.command, &mut out)?;
        Ok((code, String::from_utf8(out).expect("text")))
    }

    fn ran(&self, arguments: &[&str]) -> (u8, String) {
        self.run(arguments).expect("it can be read")
    }

    fn file(&self, camera: &str) -> PathBuf {
        self.folder.path().join("cameras").join(camera).join("0000000001.proofs")
    }

    fn lines(&self, camera: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(camera)).expect("it is there");
        text.lines().map(str::to_owned).collect()
    }

    fn write(&self, camera: &str, lines: &[String]) {
        std::fs::write(self.file(camera), lines.join("\n") + "\n").expect("written");
    }
}

#[test]
fn minutes_are_shown_while_the_daemon_runs() {
    let recorded = recorded();
    let (code, text) = recorded.ran(&["show", "--camera", "front"]);
    assert_eq!((code, text.lines().count()), (0, 7), "{text}");
    let gap = text.lines().nth(3).expect("the third minute");
    assert!(gap.starts_with("2026-11-20T14:50:00Z  front"), "{gap}");
    let fields: Vec<_> = gap.split_whitespace().skip(2).take(6).collect();
    assert_eq!(fields, ["gap", "30", "28", "28", "28", "1"], "{gap}");
    assert_eq!(text.lines().last(), Some("minutes: 1 gap, 4 ok"));
    let range = ["show", "--from", "2026-11-20T14:49:30Z", "--to", "2026-11-20T14:51:00Z", "--json"];
    let (_, text) = recorded.ran(&range);
    let minutes: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let told: Vec<_> = minutes.iter().map(|one| (one["camera"].as_str(), one["verdict"].as_str())).collect();
    let (front, yard) = (Some("front"), Some("yard"));
    let (ok, gap) = (Some("ok"), Some("gap"));
    assert_eq!(told, [(front, ok), (yard, ok), (front, gap), (yard, ok)]);
    assert_eq!(recorded.ran(&["show", "--from", "2030-01-01T00:00:00Z"]).0, 1, "nothing is there");
}

#[test]
fn gaps_say_which_seconds_and_why() {
    let recorded = recorded();
    let (code, text) = recorded.ran(&["gaps"]);
    assert_eq!((code, text.lines().count()), (0, 2), "{text}");
    let gap: Vec<_> = text.lines().last().expect("a gap").split_whitespace().collect();
    assert_eq!(gap[..4], ["2026-11-20T14:50:20Z", "2026-11-20T14:50:23.96Z", "3.9", "front"], "{text}");
    assert!(text.contains("spool_full: no room"), "{text}");
    assert_eq!(recorded.ran(&["gaps", "--camera", "yard"]), (0, "no gaps\n".to_owned()));
}

#[test]
fn records_are_exported_as_csv_json_and_as_lines_that_check_again() {
    let recorded = recorded();
    let (_, csv) = recorded.ran(&["export", "--camera", "front"]);
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.splitn(18, ',').collect()).collect();
    assert_eq!((rows.len(), rows.iter().all(|row| row.len() == 18)), (6, true), "{csv}");
    assert_eq!(
        (rows[3][3], rows[3][10], rows[3][17]),
        ("gap", "3.960", "\"no room, \"\"full\"\"\""),
        "{csv}"
    );
    let (_, json) = recorded.ran(&["export", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Vec<Value>>(&json).expect("JSON").len(), 10);
    let (_, lines) =
        recorded.ran(&["export", "--format", "lines", "--camera", "yard", "--from", "2026-11-20T14:48:00Z"]);
    let file = recorded.folder.path().join("yard.lines");
    std::fs::write(&file, &lines).expect("written");
    let path = file.to_str().expect("text");
    let (code, text) = recorded.ran(&["check", "--file", path]);
    assert_eq!((code, text.starts_with("yard: whole, records 0 to 5")), (0, true), "{text}");
}

#[test]
fn whatever_was_done_to_a_record_is_found_and_named() {
    let whole = recorded();
    let (code, text) = whole.ran(&["check"]);
    assert_eq!((code, text.lines().count()), (0, 2), "{text}");
    let head = text.lines().next().and_then(|line| line.rsplit(' ').next()).expect("a head").to_owned();
    type Deed = fn(&mut Vec<String>);
    let deeds: [(&str, Deed, &str); 6] = [
        ("changed", |lines| lines[3] = lines[3].replace("\"gap\"", "\"ok\""), "record 3 was changed"),
        ("removed", |lines| drop(lines.remove(2)), "records 2 to 2 were removed"),
        ("moved", |lines| lines.swap(1, 2), "record 1 was moved: it stands behind record 2"),
        ("added", |lines| lines.insert(3, lines[2].clone()), "record 2 was added"),
        ("cut off", |lines| lines.truncate(4), "the chain ends with 3, and record 5 was written"),
        ("overwritten", |lines| lines[4] = "x".to_owned(), "line 5 of 0000000001.proofs is no record"),
    ];
    for (name, deed, expected) in deeds {
        let recorded = recorded();
        let mut lines = recorded.lines("front");
        deed(&mut lines);
        recorded.write("front", &lines);
        let (code, text) = recorded.ran(&["check"]);
        assert!(code == 1 && text.contains(expected), "{name}: {text}");
        assert!(text.contains("yard: whole"), "{name}: the other one is not blamed: {text}");
        let (code, json) = recorded.ran(&["check", "--json", "--camera", "yard"]);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            (code, json["whole"].as_bool(), json["chains"][0]["n"].as_u64()),
            (0, Some(true), Some(5))
        );
    }
    // All of it written anew, index and all: only whoever was told of the head knows.
    let forged = recorded();
    let camera = forged.folder.path().join("cameras/front");
    std::fs::remove_dir_all(&camera).expect("removed");
    std::fs::create_dir(&camera).expect("made");
    let mut chain = kvs::proof::records::Chain::new("box/front", None);
    let lines: Vec<_> = (0..6)
        .map(|at| {
            let line = chain.next(Entry::Begin { text: "forged".to_owned() }, at);
            chain.add(&line);
            line.to_string()
        })
        .collect();
    forged.write("front", &lines);
    std::fs::remove_file(forged.folder.path().join("ledger.sqlite")).expect("removed");
    let (code, text) = forged.ran(&["check", "--camera", "front"]);
    assert!(code == 0 && text.contains("only --head can tell"), "{text}");
    let (code, text) = forged.ran(&["check", "--head", &format!("front={head}")]);
    assert!(code == 1 && text.contains("record 5 is not the one that was told"), "{text}");
}

#[test]
fn bad_input_is_told_with_what_to_change() {
    let recorded = recorded();
    let cases: [(&[&str], &str); 7] = [
        (&["show", "--camera", "attic"], "no records of camera `attic`; there are: front, yard"),
        (&["check", "--camera", "attic"], "no records of camera `attic`; there are: front, yard"),
        (&["show", "--from", "yesterday"], "write 2026-11-30T11:00:00Z"),
        (
            &["gaps", "--from", "2026-11-30T11:00:00Z", "--to", "2026-11-30T10:00:00Z"],
            "--from is not before --to",
        ),
        (&["check", "--head", "front=5"], "expected CAMERA=N:SUM"),
        (&["check", "--head", "front=x:y"], "expected CAMERA=N:SUM"),
        (&["check", "--file", "/no/such/file"], "No such file"),
    ];
    for (arguments, expected) in cases {
        let error = recorded.run(arguments).expect_err("it is refused");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    std::fs::remove_dir_all(recorded.folder.path().join("cameras")).expect("removed");
    let error = recorded.run(&["show"]).expect_err("it is refused");
    assert!(error.contains("kvs-edge run makes it"), "{error}");
}
