//! The screen for fixed reports, and what keys do to it.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use vhost_user_scsi_mpath::config::IoPolicy;
use vhost_user_scsi_mpath::control::{Counters, HedgeStats, PathState, PathStats, StatsReport};

use super::draw::draw;
use super::feed::{Sample, Told, Wish};
use super::model::{Act, Key, Model};
use crate::tests::{lun, paths};

fn counters(commands: u64, us: u64) -> Counters {
    Counters {
        reads: commands,
        read_bytes: commands * 4096,
        latency_sum_us: commands * us,
        ..Counters::default()
    }
}

/// Two reports, a second apart.
fn model() -> Model {
    let mut model = Model::new(vec!["lun0".to_owned()]);
    let start = Instant::now();
    for (second, of_left, of_right) in [(0, 0, 0), (1, 4000, 0), (2, 9000, 1000)] {
        let stats = |name: &str, counters| PathStats { name: name.to_owned(), counters };
        let stats = StatsReport {
            lun: counters(of_left + of_right, 130),
            paths: vec![
                stats("right", counters(of_right, 800)),
                stats("left", counters(of_left, 200 * second)),
                stats("left-2", counters(0, 0)),
            ],
            hedges: HedgeStats::default(),
        };
        let at = start + Duration::from_secs(second);
        model.hear(Told::Sample(Box::new(Sample { at, lun: lun(), paths: paths(), stats })));
    }
    model.hear(Told::Event("12:00:00 PATH_STATE_CHANGED left-2: up -> failed (cut)".into()));
    model
}

fn screen(model: &Model, width: u16, height: u16) -> (String, bool) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, true)).unwrap();
    let coloured = |terminal: &Terminal<TestBackend>| {
        terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset)
    };
    let colours = coloured(&terminal);
    terminal.draw(|frame| draw(frame, model, false)).unwrap();
    assert!(!coloured(&terminal), "no colours were asked for");
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in 0..height {
        let line: String = (0..width).map(|column| buffer[(column, row)].symbol()).collect();
        text += line.trim_end();
        text.push('\n');
    }
    (text, colours)
}

#[test]
fn screen_shows_lun_paths_and_events() {
    let expected = "\
lun0 3600140505200a986f0043c9afa1fd077 10G
state=degraded policy=service-time no-path=queue inflight=3 queued=0
6000 commands/s, 24.6 MB/s, mean latency 130us; guest connected
PATH   STATE       ACCESS        SHARE INFL    IOPS    MB/s LATENCY
right  up          non-optimized   17%    0    1000     4.1   800us   █
left   up          optimized       83%    3    5000    20.5   560us  ▂▆
left-2 failed      optimized        0%    0       0     0.0       -
EVENTS
12:00:00 PATH_STATE_CHANGED left-2: up -> failed (cut)




f: fail  r: reinstate  p: policy  q: quit
";
    let (text, colours) = screen(&model(), 80, 14);
    assert_eq!(text, expected);
    assert!(colours);
}

#[test]
fn screen_of_any_size_is_drawn() {
    let model = model();
    for (width, height) in [(80, 24), (40, 10), (20, 5), (8, 3), (1, 1), (300, 80)] {
        let (text, _) = screen(&model, width, height);
        assert_eq!(text.lines().count(), usize::from(height));
    }
    let (text, _) = screen(&model, 80, 24);
    assert!(text.contains("left-2 failed") && text.contains("EVENTS"), "{text}");
}

#[test]
fn nothing_is_done_before_a_yes() {
    let mut model = model();
    assert_eq!(model.press(Key::Down), Act::Nothing);
    assert_eq!(model.press(Key::Letter('f')), Act::Nothing);
    let (text, _) = screen(&model, 80, 24);
    assert!(text.ends_with("It alone carries the commands. Stop using left? y/n\n"), "{text}");
    assert_eq!(model.press(Key::Enter), Act::Nothing);
    assert_eq!(model.word, "nothing was changed");
    model.press(Key::Letter('f'));
    assert_eq!(model.press(Key::Letter('y')), Act::Wish(Wish::Fail("left".into())));
    assert!(model.question.is_none());
}

#[test]
fn reinstating_is_for_paths_that_were_failed_by_hand() {
    let mut model = model();
    model.press(Key::Letter('r'));
    assert!(model.question.is_none());
    let now = model.now.as_mut().unwrap();
    now.sample.paths[0].state = PathState::Disabled;
    model.press(Key::Letter('r'));
    assert_eq!(model.press(Key::Letter('y')), Act::Wish(Wish::Reinstate("right".into())));
}

#[test]
fn policies_are_gone_through_before_one_is_taken() {
    let mut model = model();
    model.press(Key::Letter('p'));
    let (question, _) = model.question.as_ref().unwrap();
    assert_eq!(question, "Switch the policy from service-time to numa? (p: another)");
    model.press(Key::Letter('p'));
    assert_eq!(model.press(Key::Letter('y')), Act::Wish(Wish::Policy(IoPolicy::RoundRobin)));
}

#[test]
fn several_backends_are_a_list_to_choose_from() {
    let mut model = Model::new(vec!["a".into(), "b".into()]);
    assert_eq!(model.watched(), None);
    let (text, _) = screen(&model, 80, 8);
    assert!(text.contains("2 backends run on this host") && text.contains("> a\n  b\n"), "{text}");
    model.press(Key::Down);
    model.press(Key::Down);
    model.press(Key::Enter);
    assert_eq!(model.watched(), Some(1));
    let (text, _) = screen(&model, 80, 8);
    assert!(text.starts_with("b: waiting for the first report"), "{text}");
    model.press(Key::Escape);
    assert_eq!(model.watched(), None);
    assert_eq!(model.press(Key::Letter('q')), Act::Quit);
}

#[test]
fn control_c_ends_it_even_while_it_asks() {
    let mut model = model();
    model.press(Key::Letter('p'));
    assert_eq!(model.press(Key::Interrupt), Act::Quit);
}

#[test]
fn memory_is_bounded() {
    let mut model = model();
    for second in 0..5000_u64 {
        model.hear(Told::Event(second.to_string()));
        let sample = model.now.as_ref().unwrap().sample.clone();
        model.hear(Told::Sample(Box::new(sample)));
    }
    assert!(model.events.len() < 1000 && model.history["left"].len() < 1000);
}
