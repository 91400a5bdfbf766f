use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn reading(name: &str) -> Reading {
    let totals = Totals::default();
    Reading { name: name.into(), state: PathState::Up, inflight: 0, last_answer: None, totals }
}

fn lun(seconds: u64) -> LunPoint {
    let at = UNIX_EPOCH + Duration::from_secs(seconds);
    LunPoint { at, state: LunState::Healthy, queued: 2 }
}

fn failover(from: &str, to: &str, commands: u64) -> Event {
    Event::Failover { from: from.into(), to: to.into(), commands }
}

#[test]
fn points_tell_of_the_time_since_the_one_before() {
    let start = Instant::now();
    let mut history = History::new(start);
    let mut path = reading("a");
    path.totals.reads = 100;
    path.totals.latency[3] = 100;
    history.take(lun(10), [(PathId(0), path.clone())].into(), start);
    path.totals.reads = 104;
    path.totals.read_bytes = 4096;
    path.totals.latency[4] = 3;
    path.totals.latency[11] = 1;
    path.totals.latency_sum_us = 400;
    path.totals.errors[0] = 1;
    history.take(lun(11), [(PathId(0), path)].into(), start + SECOND);
    let report = history.report();
    assert_eq!((report.interval, &*report.times), (1.0, &[10.0, 11.0][..]));
    assert_eq!((&*report.lun.queued, report.lun.state[1]), (&[2, 2][..], LunState::Healthy));
    let path = &report.paths[0];
    assert_eq!((&*path.name, path.state[0]), ("a", Some(PathState::Up)));
    assert_eq!((&*path.commands, path.bytes[1]), (&[Some(0), Some(4)][..], Some(4096)));
    assert_eq!((&*path.mean_us, path.errors[1]), (&[None, Some(100)][..], Some(1)));
    assert_eq!(path.longest_us, [None, Some(2048)]);
}

#[test]
fn silence_is_counted_from_the_last_answer_while_commands_are_under_way() {
    let start = Instant::now();
    let mut history = History::new(start);
    let mut path = reading("a");
    let mut second = 0;
    let mut take = |path: &Reading| {
        history.take(
            lun(second),
            [(PathId(0), path.clone())].into(),
            start + second as u32 * SECOND,
        );
        second += 1;
        history.report().paths[0].silent_us.last().copied().flatten().unwrap_or_default()
    };
    assert_eq!(take(&path), 0);
    path.inflight = 4;
    path.totals.reads = 7;
    path.last_answer = Some(start + Duration::from_millis(400));
    assert_eq!(take(&path), 600_000);
    assert_eq!(take(&path), 1_600_000);
    path.inflight = 0;
    assert_eq!(take(&path), 0);
    // The last answer is long ago by now and says nothing of a command that was sent just now.
    path.inflight = 1;
    assert_eq!(take(&path), 0);
    assert_eq!(take(&path), 1_000_000);
}

#[test]
fn points_are_bounded_and_those_of_all_paths_end_together() {
    let start = Instant::now();
    let mut history = History::new(start);
    for second in 0..HISTORY_POINTS_MAX as u64 + 5 {
        let mut paths = BTreeMap::from([(PathId(0), reading("a"))]);
        if second >= 600 {
            paths.insert(PathId(1), reading("late"));
        }
        history.take(lun(second), paths, start);
    }
    let report = history.report();
    assert_eq!((report.times.len(), report.times[0]), (HISTORY_POINTS_MAX, 5.0));
    let [old, late] = &*report.paths else { panic!("{:?}", report.paths) };
    assert_eq!((old.state.len(), late.state.len()), (HISTORY_POINTS_MAX, HISTORY_POINTS_MAX));
    assert_eq!(late.state.iter().flatten().count(), 5);
    assert_eq!(
        (late.state[HISTORY_POINTS_MAX - 6], late.commands[HISTORY_POINTS_MAX - 1]),
        (None, Some(0))
    );
    // Gone, and another in its place.
    history.take(lun(999), [(PathId(1), reading("other"))].into(), start);
    let report = history.report();
    assert_eq!(report.paths.len(), 1);
    assert_eq!(report.paths[0].state.iter().flatten().count(), 1);
}

#[test]
fn events_are_bounded_and_failovers_of_a_second_are_one() {
    let mut history = History::new(Instant::now());
    let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
    history.hear(at(1000), failover("a", "b", 3));
    history.hear(at(1100), failover("a", "c", 1));
    history.hear(at(1900), failover("a", "b", 2));
    history.hear(at(2500), failover("a", "b", 7));
    let events = history.report().events;
    let commands: Vec<u64> =
        events.iter().filter_map(|event| event["data"]["commands"].as_u64()).collect();
    assert_eq!(commands, [5, 1, 7]);
    assert_eq!(
        (&events[0]["event"], &events[0]["timestamp"]["seconds"]),
        (&"FAILOVER".into(), &1.into())
    );
    for blocks in 0..HISTORY_EVENTS_MAX as u64 {
        history.hear(at(3000), Event::LunResized { blocks });
    }
    let events = history.report().events;
    assert_eq!((events.len(), &events[0]["data"]["blocks"]), (HISTORY_EVENTS_MAX, &0.into()));
}
