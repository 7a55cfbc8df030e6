use std::sync::Arc;

use super::*;
use crate::epoch;
use crate::testing::bare_chunk;

const S: Duration = Duration::from_secs(1);
const T0: u64 = 1_795_186_073_000;

fn number(n: u64) -> FragmentNumber {
    FragmentNumber::new(n, T0 + n * 2_000, 7)
}

fn start(n: u64) -> ChunkStart {
    ChunkStart {
        number: Some(number(n)),
        server_timestamp_ms: Some(T0 + n * 2_000),
        producer_timestamp_ms: Some(T0 + n * 2_000),
        tracks: Arc::default(),
    }
}

fn row(n: u64, producer_ms: u64) -> Fragment {
    Fragment {
        fragment_number: number(n).to_string(),
        fragment_size_in_bytes: 1,
        producer_timestamp: seconds(producer_ms),
        server_timestamp: seconds(T0 + n * 2_000),
        fragment_length_in_milliseconds: 2_000,
    }
}

fn list(
    numbers: std::ops::RangeInclusive<u64>,
    change: impl FnOnce(&mut FragmentListConfig),
) -> FragmentList {
    let mut config = FragmentListConfig::default();
    change(&mut config);
    FragmentList::new(Wanted::Numbers(numbers.map(number).collect()), config).expect("valid")
}

fn fetch(list: &mut FragmentList) -> Vec<u64> {
    match list.next_action(epoch() + S * 3_600) {
        ListAction::Fetch(numbers) => {
            list.opened();
            numbers.into_iter().map(FragmentNumber::sequence).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// A whole chunk of three blocks; how it began.
fn chunk(list: &mut FragmentList, n: u64) -> Turn {
    let turn = list.chunk_begins(&start(n));
    if turn != Turn::No {
        (0..3).for_each(|_| list.block());
    }
    list.chunk_ends(&bare_chunk(start(n), true));
    turn
}

fn skips(list: &mut FragmentList) -> Vec<(u64, SkipReason)> {
    std::iter::from_fn(|| list.next_skip()).map(|skip| (skip.before.sequence(), skip.why)).collect()
}

#[test]
fn a_list_is_asked_for_in_batches_and_ends() {
    let mut list = list(1..=5, |config| config.batch = 2);
    assert_eq!((list.state(), list.left()), (SourceState::Disconnected, Some(5)));
    for batch in [vec![1, 2], vec![3, 4], vec![5]] {
        assert_eq!(fetch(&mut list), batch);
        for n in batch {
            let turn = if n == 1 { Turn::Apart } else { Turn::Next };
            assert_eq!(chunk(&mut list, n), turn);
        }
        list.ended();
    }
    assert_eq!((list.next_action(epoch()), skips(&mut list)), (ListAction::End, vec![]));
    assert_eq!(list.state(), SourceState::Disconnected);
}

#[test]
fn a_range_is_listed_in_order_and_of_two_that_begin_together_the_later_one_counts() {
    let by = FragmentSelectorType::ProducerTimestamp;
    let wanted = Wanted::Range { by, from_ms: T0, to_ms: T0 + 9_000 };
    let mut list = FragmentList::new(wanted, FragmentListConfig::default()).expect("valid");
    let ListAction::List(selector) = list.next_action(epoch()) else { panic!("it lists first") };
    assert_eq!(selector.timestamp_range.start_timestamp, seconds(T0));
    assert_eq!((list.left(), list.state()), (None, SourceState::Connecting));
    // Number 4 is the second try of number 2, 9 was uploaded late.
    let rows = [row(4, T0 + 2_000), row(3, T0 + 4_000), row(9, T0), row(2, T0 + 2_000)];
    list.listed(&rows).expect("numbers");
    assert_eq!(fetch(&mut list), [9, 4, 3]);
    assert_eq!(skips(&mut list), [(2, SkipReason::Duplicate)]);
    let wrong = Fragment { fragment_number: "12x".to_owned(), ..row(1, T0) };
    let error = list.listed(&[wrong]).expect_err("no number").to_string();
    assert_eq!(error, "ListFragments names `12x`, which is no fragment number");
}

#[test]
fn what_comes_out_of_its_turn_is_asked_for_one_by_one_and_nothing_is_lost() {
    let mut list = list(1..=3, |_| {});
    assert_eq!(fetch(&mut list), [1, 2, 3]);
    assert_eq!(
        [chunk(&mut list, 3), chunk(&mut list, 1), chunk(&mut list, 2)],
        [Turn::No, Turn::Apart, Turn::Next]
    );
    list.ended();
    assert_eq!(fetch(&mut list), [3], "not in a batch any more");
    assert_eq!(chunk(&mut list, 3), Turn::Next);
    list.ended();
    assert_eq!((list.next_action(epoch()), skips(&mut list)), (ListAction::End, vec![]));
}

#[test]
fn a_cut_chunk_is_gone_on_with() {
    let mut list = list(1..=2, |_| {});
    fetch(&mut list);
    assert_eq!(list.chunk_begins(&start(1)), Turn::Apart);
    list.block();
    list.chunk_ends(&bare_chunk(start(1), false));
    list.failed(ReadFailureKind::Soon, epoch(), 0.5);
    assert_eq!((list.state(), list.connection_resets()), (SourceState::Reconnecting, 1));
    assert_eq!(list.next_action(epoch()), ListAction::Wait(epoch() + S * 2));
    assert_eq!(fetch(&mut list), [1, 2]);
    assert_eq!(chunk(&mut list, 1), Turn::Again { blocks: 1 });
    assert_eq!(chunk(&mut list, 2), Turn::Next);
}

#[test]
fn what_is_not_there_is_told_and_what_follows_comes() {
    let absent =
        |code: &str| Failure { number: Some(number(1)), code: code.to_owned(), message: String::new() };
    // By a notice in the answer.
    let mut noticed = list(1..=2, |_| {});
    fetch(&mut noticed);
    assert!(noticed.noticed(&absent("4000")));
    assert_eq!(chunk(&mut noticed, 2), Turn::Apart);
    noticed.ended();
    assert_eq!(skips(&mut noticed), [(1, SkipReason::Gone)]);
    assert_eq!(noticed.next_action(epoch()), ListAction::End);
    assert!(!noticed.noticed(&absent("5000")), "the service's own trouble says nothing of the fragment");
    // By an answer without it: alone it gets another chance.
    let mut silent = list(1..=2, |_| {});
    fetch(&mut silent);
    silent.ended();
    assert_eq!(fetch(&mut silent), [1]);
    silent.ended();
    assert_eq!((skips(&mut silent), fetch(&mut silent)), (vec![(1, SkipReason::Gone)], vec![2]));
    // By a refusal of the whole call.
    let mut refused = list(1..=2, |_| {});
    fetch(&mut refused);
    refused.failed(ReadFailureKind::Refused, epoch(), 0.5);
    assert_eq!(fetch(&mut refused), [1]);
    refused.failed(ReadFailureKind::Refused, epoch(), 0.5);
    assert_eq!((skips(&mut refused), fetch(&mut refused)), (vec![(1, SkipReason::Gone)], vec![2]));
}

#[test]
fn what_cannot_be_read_is_tried_alone_and_then_told() {
    let mut list = list(1..=3, |_| {});
    fetch(&mut list);
    assert_eq!(chunk(&mut list, 1), Turn::Apart);
    list.failed(ReadFailureKind::Unreadable, epoch(), 0.5);
    assert_eq!(fetch(&mut list), [2]);
    list.failed(ReadFailureKind::Unreadable, epoch(), 0.5);
    assert_eq!((skips(&mut list), fetch(&mut list)), (vec![(2, SkipReason::Unreadable)], vec![3]));
    assert_eq!(chunk(&mut list, 3), Turn::Apart);
}

#[test]
fn errors_without_a_fragment_in_between_are_fatal_in_the_end() {
    let mut list = list(1..=2, |config| config.max_consecutive_errors = Some(3));
    let delays = [(ReadFailureKind::Soon, 2), (ReadFailureKind::TooManyReaders, 10)];
    for (kind, seconds) in delays {
        fetch(&mut list);
        list.failed(kind, epoch(), 0.5);
        assert_eq!(list.next_action(epoch()), ListAction::Wait(epoch() + S * seconds));
    }
    fetch(&mut list);
    list.failed(ReadFailureKind::Soon, epoch(), 0.5);
    assert_eq!((list.next_action(epoch()), list.state()), (ListAction::GiveUp, SourceState::Failed));
}

#[test]
fn values_out_of_range_are_refused() {
    let check = |change: fn(&mut FragmentListConfig)| {
        let mut config = FragmentListConfig::default();
        change(&mut config);
        config.check().expect_err("refused").to_string()
    };
    assert_eq!(check(|config| config.batch = 1_001), "batch is 1001, expected 1 to 1000 fragments");
    assert!(check(|config| config.reconnect_delay = Duration::ZERO).starts_with("reconnect_delay is 0ns"));
    assert_eq!(
        check(|config| config.backoff_multiplier = 0.5),
        "backoff_multiplier is 0.5, expected 1.0 to 10.0"
    );
    assert_eq!(
        check(|config| config.max_consecutive_errors = Some(0)),
        "max_consecutive_errors is 0, expected at least 1"
    );
    let by = FragmentSelectorType::ServerTimestamp;
    let backwards = Wanted::Range { by, from_ms: 2, to_ms: 1 };
    assert!(FragmentList::new(backwards, FragmentListConfig::default()).is_err());
}
