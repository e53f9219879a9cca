//! What the scenario table did, as JSON and as one page with plots.

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::Context as _;
use distributary_tests::{
    fleet::Outcome,
    scenario::{Scenario, Site},
};
use plotters::prelude::*;
use serde::Serialize;

use crate::{fleet::Ran, lab::LabReport};

/// Seeds of the virtual WAN: who of nodes that feed each other is first is chance.
pub(crate) const SEEDS: u64 = 10;
/// How far the lab may be from what the virtual WAN does with these seeds, as a share, and what
/// may be missed of a short time.
const AGREE: f64 = 0.25;
const AGREE_LEAST: f64 = 0.5;
const PLOT: (u32, u32) = (640, 300);

/// A scenario in the lab and in the virtual WAN.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) base_up: &'static str,
    pub(crate) bytes: u64,
    pub(crate) nodes: Vec<Node>,
    /// What did not arrive whole.
    pub(crate) faults: Vec<String>,
    /// Which times are not those of the virtual WAN.
    pub(crate) misses: Vec<String>,
    pub(crate) lab: LabReport,
    /// Packets that the base's queue dropped, as a share: lab, virtual WAN.
    pub(crate) dropped: [f64; 2],
    #[serde(skip)]
    plot: String,
}

/// One node of a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) path: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    /// Seconds until it was complete, from the job's creation.
    pub(crate) lab_s: Option<f64>,
    pub(crate) virtual_s: Option<Range>,
    pub(crate) equal: bool,
}

/// The least and the most of some figures.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Range {
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Range {
    fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        figures.fold(None, |range, figure| {
            let Self { least, most } = range.unwrap_or(Self { least: figure, most: figure });
            Some(Self { least: least.min(figure), most: most.max(figure) })
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}-{:.1}", self.least, self.most)
    }
}

impl Entry {
    /// Judges a run of the lab by those of the virtual WAN. Of nodes with the same links the first
    /// is compared with the first, and so on.
    pub(crate) fn new(
        scenario: &Scenario,
        ran: Ran,
        virtual_wan: &[Outcome],
    ) -> anyhow::Result<Self> {
        let first = virtual_wan.first().context("no run of the virtual WAN")?;
        let plot = plot(scenario, &ran, first)?;
        let seconds = |took: Option<Duration>| took.map(|took| took.as_secs_f64());
        let of_lab: Vec<_> = ran.took.iter().copied().map(seconds).collect();
        let count = scenario.nodes.len();
        let of_virtual = virtual_wan.iter().map(|run| -> Vec<_> {
            (0..count).map(|node| seconds(run.took.get(&(1, node)).copied())).collect()
        });
        let of_virtual: Vec<_> = of_virtual.collect();
        let nodes = scenario.nodes.iter().enumerate().map(|(at, site)| Node {
            path: site.path,
            up: site.up,
            down: site.down,
            lab_s: of_lab.get(at).copied().flatten(),
            virtual_s: {
                let place = place_among_alike(scenario, at, &of_lab);
                let alike = of_virtual.iter().map(|took| in_place(scenario, at, took, place));
                Range::of(alike.flatten())
            },
            equal: ran.equal.get(at).copied().unwrap_or(false),
        });
        let nodes: Vec<Node> = nodes.collect();
        let base_up = ran.lab.links.iter().find(|link| link.link == "base up");
        let lab_dropped = base_up.map_or(0.0, |link| share(link.queue_dropped, link.offered));
        let virtual_up = first.base_up.unwrap_or_default();
        // What a run took that says nothing is not compared.
        let is_valid = ran.lab.invalid.is_empty();
        let compared = nodes.iter().enumerate().filter(|_| is_valid);
        let misses = compared.filter_map(compare).collect();
        let mut faults: Vec<String> = nodes.iter().enumerate().filter_map(judge).collect();
        if ran.exit != Some(0) {
            faults.push(format!("push ended with {:?}", ran.exit));
        }
        Ok(Self {
            name: scenario.name,
            about: scenario.about,
            base_up: scenario.base_up,
            bytes: scenario.bytes,
            nodes,
            faults,
            misses,
            dropped: [lab_dropped, share(virtual_up.queue_dropped, virtual_up.offered)],
            lab: ran.lab,
            plot,
        })
    }
}

/// The nodes with the same links as the one at `at`, the quickest first.
fn alike(scenario: &Scenario, at: usize, took: &[Option<f64>]) -> Vec<(usize, Option<f64>)> {
    let Some(own) = scenario.nodes.get(at) else { return Vec::new() };
    let is_alike = |site: &Site| (site.path, site.up, site.down) == (own.path, own.up, own.down);
    let nodes = scenario.nodes.iter().zip(took.iter().copied()).enumerate();
    let alike = nodes.filter(|(_, (site, _))| is_alike(site)).map(|(at, (_, took))| (at, took));
    let mut alike: Vec<_> = alike.collect();
    let never = f64::INFINITY;
    alike.sort_by(|(_, a), (_, b)| a.unwrap_or(never).total_cmp(&b.unwrap_or(never)));
    alike
}

fn place_among_alike(scenario: &Scenario, at: usize, took: &[Option<f64>]) -> usize {
    let alike = alike(scenario, at, took);
    alike.iter().position(|(node, _)| *node == at).unwrap_or(0)
}

fn in_place(scenario: &Scenario, at: usize, took: &[Option<f64>], place: usize) -> Option<f64> {
    alike(scenario, at, took).get(place).and_then(|(_, took)| *took)
}

fn judge((at, node): (usize, &Node)) -> Option<String> {
    if !node.equal {
        return Some(format!("n{at} does not hold what was pushed"));
    }
    let is_complete = node.lab_s.is_some() && node.virtual_s.is_some();
    (!is_complete).then(|| format!("n{at} did not become complete"))
}

fn compare((at, node): (usize, &Node)) -> Option<String> {
    let (lab, virtual_wan) = node.lab_s.zip(node.virtual_s)?;
    let Range { least, most } = virtual_wan;
    let least = least - AGREE_LEAST.max(AGREE * least);
    let most = most + AGREE_LEAST.max(AGREE * most);
    let agree = (least..=most).contains(&lab);
    (!agree).then(|| format!("n{at} took {lab:.1} s, {virtual_wan} s in the virtual WAN"))
}

#[expect(clippy::cast_precision_loss, reason = "packets of a run are far below 2^53")]
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

/// Writes `scenarios.json` and `scenarios.html` into `folder`.
pub(crate) fn write(folder: &Path, entries: &[Entry]) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let json = serde_json::json!({
        "v": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "scenarios": entries,
    });
    fs::write(folder.join("scenarios.json"), serde_json::to_string_pretty(&json)?)?;
    fs::write(folder.join("scenarios.html"), page(entries))?;
    Ok(())
}

fn page(entries: &[Entry]) -> String {
    let sections: String = entries.iter().map(section).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Scenarios</title>\n\
         <style>body{{font:15px sans-serif;max-width:720px;margin:2em auto}}\
         table{{border-collapse:collapse}}td,th{{padding:2px 10px;text-align:left}}\
         .miss{{color:#b00}}</style>\n<h1>Scenarios</h1>\n\
         <p>Durable share of the content at each node over time. Lines: the lab, with real \
         processes. Dots: the virtual WAN.</p>\n{sections}</html>\n"
    )
}

fn section(entry: &Entry) -> String {
    let seconds = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.1} s"));
    let row = |(at, node): (usize, &Node)| {
        let Node { path, up, down, .. } = node;
        let virtual_s = node.virtual_s.map_or("-".to_owned(), |range| format!("{range} s"));
        let times = [seconds(node.lab_s), virtual_s].join("</td><td>");
        format!(
            "<tr><td>n{at}</td><td>{path}</td><td>{up}</td><td>{down}</td><td>{times}</td></tr>\n"
        )
    };
    let rows: String = entry.nodes.iter().enumerate().map(row).collect();
    let problems = entry.faults.iter().chain(&entry.misses).chain(&entry.lab.invalid);
    let problems: String = problems.map(|miss| format!("<p class=\"miss\">{miss}</p>\n")).collect();
    let [lab, virtual_wan] = entry.dropped.map(|share| format!("{:.2} %", 100.0 * share));
    format!(
        "<h2>{}</h2>\n<p>{}. {:.0} MB, base's uplink {}; its queue dropped {lab} ({virtual_wan} in \
         the virtual WAN).</p>\n{problems}{}\n<table><tr><th>node<th>path<th>up<th>down<th>lab\
         <th>virtual WAN</tr>\n{rows}</table>\n",
        entry.name,
        entry.about,
        megabytes(entry.bytes),
        entry.base_up,
        entry.plot
    )
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The share of the content at a node from time to time.
fn curve(
    node: usize,
    bytes: u64,
    progress: &[(Duration, Vec<u64>)],
) -> impl Iterator<Item = (f64, f64)> {
    let at = move |(time, nodes): &(Duration, Vec<u64>)| {
        let there = nodes.get(node).copied().unwrap_or(0);
        (time.as_secs_f64(), 100.0 * share(there, bytes))
    };
    progress.iter().map(at).collect::<Vec<_>>().into_iter()
}

fn plot(scenario: &Scenario, ran: &Ran, virtual_wan: &Outcome) -> anyhow::Result<String> {
    let times = ran.progress.iter().chain(&virtual_wan.progress).map(|(time, _)| *time);
    let end = times.max().unwrap_or_default().as_secs_f64().max(1.0);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, PLOT).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(44)
            .build_cartesian_2d(0.0..end, 0.0..100.0)?;
        chart.configure_mesh().x_desc("s").y_desc("%").light_line_style(TRANSPARENT).draw()?;
        for node in 0..scenario.nodes.len() {
            let color = Palette99::pick(node).to_rgba();
            let lab = curve(node, scenario.bytes, &ran.progress);
            chart.draw_series(LineSeries::new(lab, color.stroke_width(2)))?;
            let virtual_wan = curve(node, scenario.bytes, &virtual_wan.progress);
            let dots = virtual_wan.step_by(2).map(|at| Circle::new(at, 2, color.filled()));
            chart.draw_series(dots)?;
        }
        root.present()?;
    }
    Ok(svg)
}
