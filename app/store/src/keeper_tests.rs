//! A store that panics, or cannot be opened, or does not answer: who asks is answered, and it works again by itself.

use std::sync::Arc;
use std::time::Duration;

use health::Reason;
use kvs::upload::{Answer, Request, Settled};
use kvs::{FragmentId, RunId};

use crate::testing::{TestFiles, Trouble, fragment};
use crate::{Files as _, Options, RealFiles, Spool};

fn options() -> Options {
    let mut options = Options::new("/spool", 1 << 30, 1);
    options.segment_bytes = 5000;
    options
}

fn id(sequence: u64) -> FragmentId {
    FragmentId { run: RunId::new(1), sequence }
}

fn after(seconds: u64) -> (clock::Clock, impl AsyncFn(u64)) {
    let clock = clock::Clock::simulated(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
    (clock.clone(), async move |seconds| clock.sleep(Duration::from_secs(seconds)).await)
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_what_was_being_written_and_the_spool_opens_again_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, (clock, wait)) = (TestFiles::default(), after(1_795_186_073));
    let options = Options { folder: folder.path().join("spool"), ..options() };
    let spool = Spool::open_inline(options, Arc::new(files.clone()), clock).expect("it opens");
    let mut camera = spool.camera("cam");
    let mut ask = |sequence: u64| {
        camera.ask(Request::Write(fragment(1, sequence, 1000)));
        camera.try_next().expect("each is answered")
    };
    for n in 1..=4 {
        assert!(matches!(ask(n), Answer::Written { .. }));
    }
    // The first one is opened again at once, the next after a second.
    files.plan(files.changes(), Trouble::Panic);
    assert!(matches!(ask(5), Answer::NotWritten { .. }));
    let problem = spool.problem().borrow().clone().expect("it is told");
    assert!(problem.reason == Reason::Crashed && problem.found.contains("change "), "{problem}");
    assert!(matches!(ask(5), Answer::Written { .. }));
    assert_eq!(*spool.problem().borrow(), None);
    files.plan(files.changes(), Trouble::Panic);
    assert!(matches!(ask(6), Answer::NotWritten { .. }));
    assert!(matches!(ask(6), Answer::NotWritten { .. }), "it rests");
    assert!(spool.problem().borrow().is_some());
    wait(2).await;
    assert!(matches!(ask(6), Answer::Written { .. }));
    camera.ask(Request::List { after: None, most: 99 });
    let Some(Answer::Listed { fragments, .. }) = camera.try_next() else { panic!("it is answered") };
    let listed: Vec<_> = fragments.iter().map(|spooled| spooled.end.summary.id.sequence).collect();
    assert_eq!(listed, [1, 2, 3, 4, 5, 6]);
    spool.close();
}

#[tokio::test(start_paused = true)]
async fn what_was_confirmed_shortly_before_a_panic_is_known_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, (clock, _)) = (TestFiles::default(), after(1_795_186_073));
    let options = Options { folder: folder.path().join("spool"), ..options() };
    let spool = Spool::open_inline(options, Arc::new(files.clone()), clock).expect("it opens");
    let mut camera = spool.camera("cam");
    for n in 1..=6 {
        camera.ask(Request::Write(fragment(1, n, 1000)));
    }
    assert!((1..=4).all(|n| camera.ask(Request::Settle(id(n), Settled::Persisted(None)))));
    files.plan(files.changes(), Trouble::Panic);
    camera.ask(Request::Write(fragment(1, 7, 1000)));
    // Nobody has asked for anything since: this is known from the request itself.
    camera.ask(Request::Settle(id(5), Settled::Persisted(None)));
    camera.ask(Request::List { after: None, most: 99 });
    let mut answers: Vec<_> = std::iter::from_fn(|| camera.try_next()).collect();
    let Some(Answer::Listed { fragments, .. }) = answers.pop() else { panic!("{answers:?}") };
    let listed: Vec<_> = fragments.iter().map(|spooled| spooled.end.summary.id.sequence).collect();
    assert_eq!(listed, [6]);
    assert!(matches!(answers.last(), Some(Answer::NotWritten { .. })), "{answers:?}");
    spool.close();
}

#[test]
fn the_thread_survives_a_panic_and_answers_whoever_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = TestFiles::default();
    let options = Options { folder: folder.path().join("spool"), ..options() };
    let spool = Spool::start(options, Arc::new(files.clone()), clock::Clock::system());
    let mut camera = spool.camera("cam");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut ask = |sequence: u64| {
        camera.ask(Request::Write(fragment(1, sequence, 1000)));
        runtime.block_on(camera.next())
    };
    assert!(matches!(ask(1), Answer::Written { .. }));
    files.plan(files.changes(), Trouble::Panic);
    assert!(matches!(ask(2), Answer::NotWritten { .. }));
    assert!(matches!(ask(2), Answer::Written { .. }), "the first time at once");
    spool.close();
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_cannot_be_opened_is_tried_again_and_says_why_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clock, wait) = after(1_795_186_073);
    let path = folder.path().join("spool");
    std::fs::write(&path, b"a file where a folder should be").expect("written");
    let options = Options { folder: path.clone(), ..options() };
    let spool = Spool::start_inline(options.clone(), Arc::new(RealFiles), clock.clone());
    let mut camera = spool.camera("cam");
    let mut ask = |request| {
        camera.ask(request);
        camera.try_next()
    };
    for _ in 0..3 {
        let problem = spool.problem().borrow().clone().expect("it is told");
        assert!(problem.reason == Reason::DiskFailed && problem.fix.is_some(), "{problem}");
        assert!(matches!(ask(Request::Write(fragment(1, 1, 1000))), Some(Answer::NotWritten { .. })));
        assert!(matches!(ask(Request::List { after: None, most: 9 }), Some(Answer::NotListed)));
        assert!(matches!(ask(Request::Read(id(1))), Some(Answer::NotRead { .. })), "and not as damaged");
        wait(70).await;
    }
    std::fs::remove_file(&path).expect("removed");
    wait(70).await;
    assert!(matches!(ask(Request::Write(fragment(1, 1, 1000))), Some(Answer::Written { .. })));
    assert_eq!(*spool.problem().borrow(), None);
    // Another process has it: that ends too.
    let other = Spool::start_inline(options, Arc::new(RealFiles), clock);
    assert!(other.problem().borrow().as_ref().is_some_and(|problem| problem.found.contains("another")));
    spool.close();
    drop((camera, spool));
    wait(70).await;
    let mut camera = other.camera("cam");
    camera.ask(Request::Read(id(1)));
    assert!(matches!(camera.try_next(), Some(Answer::Read { cluster: Some(_), .. })));
    assert_eq!((other.problem().borrow().clone(), other.newest_run()), (None, Some(RunId::new(1))));
}

#[test]
fn a_folder_that_is_removed_while_it_is_used_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { folder: folder.path().join("spool"), segment_bytes: 2500, ..options() };
    let spool =
        Spool::open_inline(options.clone(), Arc::new(RealFiles), clock::Clock::system()).expect("it opens");
    let mut camera = spool.camera("cam");
    let mut written = |n| {
        camera.ask(Request::Write(fragment(1, n, 1000)));
        matches!(camera.try_next(), Some(Answer::Written { .. }))
    };
    assert!(written(1));
    std::fs::remove_dir_all(options.cameras()).expect("removed");
    assert!((2..=6).all(&mut written), "an open segment has no name any more, the next one has");
    assert!(!RealFiles.list(&options.cameras().join("cam")).expect("it is there").is_empty());
}

#[test]
fn a_disk_that_does_not_answer_is_asked_again_before_a_fragment_is_given_up() {
    let (folder, files) = (tempfile::tempdir().expect("a folder"), TestFiles::default());
    let options = Options { folder: folder.path().join("spool"), ..options() };
    let spool = Spool::open_inline(options.clone(), Arc::new(files.clone()), clock::Clock::system());
    let spool = spool.expect("it opens");
    let mut camera = spool.camera("cam");
    camera.ask(Request::Write(fragment(1, 1, 1000)));
    camera.try_next().expect("it is written");
    let mut read = || {
        camera.ask(Request::Read(id(1)));
        camera.try_next().expect("it is answered")
    };
    files.unreadable(true);
    assert!(matches!(read(), Answer::NotRead { .. }));
    assert!(spool.problem().borrow().is_some());
    files.unreadable(false);
    assert!(matches!(read(), Answer::Read { cluster: Some(_), .. }));
    files.unreadable(true);
    let answers: Vec<_> = (0..3).map(|_| read()).collect();
    assert!(matches!(
        answers[..],
        [Answer::NotRead { .. }, Answer::NotRead { .. }, Answer::Read { cluster: None, .. }]
    ));
}
