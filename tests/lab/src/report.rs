//! What the scenario table did, as JSON and as one page with plots.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;
use distributary_tests::{fleet::Outcome, scenario::Scenario};
use plotters::prelude::*;
use serde::Serialize;

use crate::{fleet::Ran, lab::LabReport};

/// How far lab and virtual WAN may be apart, as a share, and what may be missed of a short time.
pub(crate) const AGREE: f64 = 0.25;
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
    /// Why it does not hold, if it does not.
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
    pub(crate) virtual_s: Option<f64>,
    pub(crate) equal: bool,
}

impl Entry {
    /// Judges a run.
    pub(crate) fn new(
        scenario: &Scenario,
        ran: Ran,
        virtual_wan: &Outcome,
    ) -> anyhow::Result<Self> {
        let plot = plot(scenario, &ran, virtual_wan)?;
        let nodes = scenario.nodes.iter().enumerate().map(|(at, site)| Node {
            path: site.path,
            up: site.up,
            down: site.down,
            lab_s: ran.took.get(at).copied().flatten().map(|took| took.as_secs_f64()),
            virtual_s: virtual_wan.took.get(&(1, at)).map(Duration::as_secs_f64),
            equal: ran.equal.get(at).copied().unwrap_or(false),
        });
        let nodes: Vec<Node> = nodes.collect();
        let base_up = ran.lab.links.iter().find(|link| link.link == "base up");
        let lab_dropped = base_up.map_or(0.0, |link| share(link.queue_dropped, link.offered));
        let virtual_up = virtual_wan.base_up.unwrap_or_default();
        let mut misses: Vec<String> = nodes.iter().enumerate().filter_map(judge).collect();
        if ran.exit != Some(0) {
            misses.push(format!("push ended with {:?}", ran.exit));
        }
        Ok(Self {
            name: scenario.name,
            about: scenario.about,
            base_up: scenario.base_up,
            bytes: scenario.bytes,
            nodes,
            misses,
            dropped: [lab_dropped, share(virtual_up.queue_dropped, virtual_up.offered)],
            lab: ran.lab,
            plot,
        })
    }
}

fn judge((at, node): (usize, &Node)) -> Option<String> {
    if !node.equal {
        return Some(format!("n{at} does not hold what was pushed"));
    }
    let (Some(lab), Some(virtual_wan)) = (node.lab_s, node.virtual_s) else {
        return Some(format!("n{at} did not become complete"));
    };
    let apart = (lab - virtual_wan).abs();
    let agree = apart <= AGREE_LEAST.max(AGREE * virtual_wan);
    (!agree).then(|| format!("n{at} took {lab:.1} s, {virtual_wan:.1} s in the virtual WAN"))
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
        let times = [seconds(node.lab_s), seconds(node.virtual_s)].join("</td><td>");
        format!(
            "<tr><td>n{at}</td><td>{path}</td><td>{up}</td><td>{down}</td><td>{times}</td></tr>\n"
        )
    };
    let rows: String = entry.nodes.iter().enumerate().map(row).collect();
    let problems = entry.misses.iter().chain(&entry.lab.invalid);
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
