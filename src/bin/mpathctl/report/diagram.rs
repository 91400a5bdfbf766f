//! Guest, LUN, groups and paths as a picture: what carries commands now is drawn thick.

use maud::{Markup, html};
use vhost_user_scsi_mpath::control::{LunReport, PathReport};

use super::ink::{self, WIDTH, clipped, px};
use crate::carriers::carriers;
use crate::human;
use crate::topology::{Group, groups};

/// With more paths than this the table alone is easier to read.
const PATHS_MAX: usize = 32;

const PATH_HEIGHT: f64 = 44.0;
const PATH_GAP: f64 = 8.0;
/// Above a group's paths, for its name; and below.
const GROUP_HEAD: f64 = 24.0;
const GROUP_FOOT: f64 = 8.0;
const GROUP_GAP: f64 = 10.0;
/// Guest and LUN.
const BOX_HEIGHT: f64 = 76.0;
const GUEST: (f64, f64) = (0.5, 130.0);
const LUN: (f64, f64) = (190.0, 220.0);
const PATHS: (f64, f64) = (520.0, 425.0);

/// The picture.
pub fn draw(name: &str, lun: &LunReport, paths: &[PathReport]) -> Markup {
    if paths.is_empty() || paths.len() > PATHS_MAX {
        return html! { p class="quiet" { (paths.len()) " paths; see the table." } };
    }
    let groups = groups(paths);
    let carriers = carriers(paths);
    let guest = if lun.connected { "connected" } else { "not connected" };
    let height = groups.iter().map(group_height).sum::<f64>().max(BOX_HEIGHT + 2.0);
    let middle = height / 2.0;
    let tops = groups.iter().scan(0.0, |top, group| {
        let own = *top;
        *top += group_height(group);
        Some(own)
    });
    html! {
        svg class="topology" viewBox={"0 0 " (px(WIDTH)) " " (px(height))} role="img" aria-label="Topology" {
            (edge(GUEST.0 + GUEST.1, middle, LUN.0, middle, if lun.connected { "carries" } else { "" }))
            (box_of(GUEST, middle, &[("Guest", "strong"), (guest, "quiet")]))
            (box_of(LUN, middle, &[
                (&clipped(name, 28), "strong"),
                (&about(lun), "quiet"),
                (lun.state.as_str(), &format!("strong {}", ink::lun(lun.state))),
            ]))
            @for (group, top) in groups.iter().zip(tops) {
                rect class="group" x=(px(PATHS.0 - 10.0)) y=(px(top + 0.5)) rx="8"
                    width=(px(PATHS.1 + 20.0 - 5.5)) height=(px(group_height(group) - GROUP_GAP)) {}
                text class="quiet" x=(px(PATHS.0)) y=(px(top + 16.0)) { (title(group)) }
                @for (at, path) in group.paths.iter().enumerate() {
                    @let y = top + GROUP_HEAD + at as f64 * (PATH_HEIGHT + PATH_GAP);
                    @let carries = carriers.iter().any(|one| one.name == path.name);
                    (edge(LUN.0 + LUN.1, middle, PATHS.0, y + PATH_HEIGHT / 2.0, style(path, carries)))
                    (path_box(path, y))
                }
            }
        }
    }
}

fn group_height(group: &Group<'_>) -> f64 {
    GROUP_HEAD + group.paths.len() as f64 * (PATH_HEIGHT + PATH_GAP) - PATH_GAP
        + GROUP_FOOT
        + GROUP_GAP
}

/// What the array calls it, as far as there is room.
fn about(lun: &LunReport) -> String {
    let words = [&lun.vendor, &lun.product].map(|word| word.as_deref().unwrap_or_default().trim());
    let size = match (lun.blocks, lun.block_size) {
        (Some(blocks), Some(size)) => human::size(blocks.saturating_mul(u64::from(size))),
        _ => String::new(),
    };
    clipped(format!("{} {size}", words.join(" ").trim()).trim(), 34)
}

fn title(group: &Group<'_>) -> String {
    let number = group.number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    format!("Target port group {number}, {}", group.status)
}

fn style(path: &PathReport, carries: bool) -> &'static str {
    match (carries, ink::path(path.state)) {
        (true, _) => "carries",
        (false, "good") => "",
        (false, trouble) => trouble,
    }
}

fn edge(x1: f64, y1: f64, x2: f64, y2: f64, class: &str) -> Markup {
    let half = px((x1 + x2) / 2.0);
    let (x1, y1, x2, y2) = (px(x1), px(y1), px(x2), px(y2));
    html! { path class={"edge " (class)} d={"M" (x1) " " (y1) "C" (half) " " (y1) " " (half) " " (y2) " " (x2) " " (y2)} {} }
}

fn box_of((x, width): (f64, f64), middle: f64, lines: &[(&str, &str)]) -> Markup {
    let first = middle + 4.5 - (lines.len() - 1) as f64 * 9.0;
    html! {
        rect class="box" x=(px(x)) y=(px(middle - BOX_HEIGHT / 2.0)) rx="8" width=(px(width)) height=(px(BOX_HEIGHT)) {}
        @for (at, (text, class)) in lines.iter().enumerate() {
            text class=(class) text-anchor="middle" x=(px(x + width / 2.0)) y=(px(first + at as f64 * 18.0)) { (text) }
        }
    }
}

fn path_box(path: &PathReport, y: f64) -> Markup {
    let (x, width) = PATHS;
    let right = px(x + width - 12.0);
    html! {
        g {
            title { (path.name) ": " (path.state) @if !path.reason.is_empty() { ", " (path.reason) } }
            rect class="box" x=(px(x)) y=(px(y)) rx="6" width=(px(width - 5.5)) height=(px(PATH_HEIGHT)) {}
            rect class={(ink::path(path.state)) " fill"} x=(px(x)) y=(px(y)) rx="2" width="5" height=(px(PATH_HEIGHT)) {}
            text class="strong" x=(px(x + 16.0)) y=(px(y + 18.0)) { (clipped(&path.name, 36)) }
            text class={"strong " (ink::path(path.state))} text-anchor="end" x=(right) y=(px(y + 18.0)) { (path.state) }
            text class="quiet" x=(px(x + 16.0)) y=(px(y + 35.0)) { (ink::middle_clipped(&path.address, 40)) }
            text class="quiet" text-anchor="end" x=(right) y=(px(y + 35.0)) { (path.access_state) }
        }
    }
}
