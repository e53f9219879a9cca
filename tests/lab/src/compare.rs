//! All senders over the same links, as a table and a picture.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};
use distributary_tests::flows::cell::{Measured, Sender, cells};
use plotters::prelude::*;

use crate::{
    back_end::BackEnd,
    table::{self, SENDERS},
};

/// Cells of the congestion table, all of 100 Mbit/s, each the figure of one trouble.
const CELLS: [(&str, &str); 6] = [
    ("50 ms, 0 % loss, queue 1 BDP", "clean"),
    ("50 ms, 1 % loss, queue 1 BDP", "1 % loss"),
    ("50 ms, 3 % loss, queue 1 BDP", "3 % loss"),
    ("200 ms, 1 % loss, queue 1 BDP", "200 ms, 1 %"),
    ("50 ms, 0 % loss, queue 0.1 BDP", "short queue"),
    ("50 ms, 0 % loss, queue 4 BDP", "long queue"),
];
const SIZE: (u32, u32) = (900, 720);
/// What a plot shows of a measurement, and up to where.
type Figure = (&'static str, f64, fn(&Measured) -> f64);
const FIGURES: [Figure; 3] = [
    ("goodput, Mbit/s", 115.0, |it| it.goodput),
    ("dropped by the queue, %", 65.0, |it| it.dropped),
    ("round trip, times the path's", 5.5, |it| it.rtt),
];

/// Runs all senders over all cells and writes `compare.md` and `compare.svg` into `folder`; says
/// whether every run can be relied upon.
pub(crate) fn run(folder: &Path, back_end: BackEnd) -> anyhow::Result<bool> {
    let mut rows: Vec<(Sender, Vec<Measured>)> = Vec::new();
    let mut valid = true;
    let mut text = String::from("| sender |");
    CELLS.iter().for_each(|(_, short)| text += &format!(" {short} |"));
    text += "\n|---|";
    text += &"---|".repeat(CELLS.len());
    println!("{text}");
    for sender in SENDERS {
        let mut row = format!("| {} |", sender.name());
        let mut measured = Vec::new();
        for (name, _) in CELLS {
            let all = cells(sender)?;
            let cell = all.iter().find(|cell| cell.name.contains(name));
            let cell = cell.with_context(|| format!("no cell {name:?}"))?;
            let ran = table::run_until_valid(cell, 1, back_end)?;
            let (it, says) = (Measured::of(cell, &ran.report), ran.lab.invalid.is_empty());
            let note = if says { "" } else { " (invalid)" };
            valid &= says;
            // The kernel does not say what TCP's round trip is.
            let rtt = if it.rtt > 0.0 { format!("{:.2}", it.rtt) } else { "-".to_owned() };
            row += &format!(" {:.1}, {:.2} %, {rtt}{note} |", it.goodput, it.dropped);
            measured.push(it);
        }
        println!("{row}");
        text = text + "\n" + &row;
        rows.push((sender, measured));
    }
    ensure!(!rows.is_empty(), "nobody sends");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(folder.join("compare.md"), text + "\n")?;
    fs::write(folder.join("compare.svg"), plot(&rows)?)?;
    Ok(valid)
}

/// Groups of bars: a group for each cell, a bar for each sender.
fn plot(rows: &[(Sender, Vec<Measured>)]) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let areas = root.split_evenly((FIGURES.len(), 1));
        for (area, (what, most, figure)) in areas.iter().zip(FIGURES) {
            // A place is left free for the legend.
            let across = 0.0..whole(CELLS.len() + 1);
            let mut chart = ChartBuilder::on(area)
                .margin(6)
                .x_label_area_size(10)
                .y_label_area_size(56)
                .build_cartesian_2d(across, 0.0..most)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_labels(0)
                .y_desc(what)
                .light_line_style(TRANSPARENT)
                .draw()?;
            let names = CELLS.iter().enumerate().map(|(cell, (_, short))| {
                Text::new(*short, (whole(cell) + 0.1, most), ("sans-serif", 13))
            });
            chart.draw_series(names)?;
            for (at, (sender, measured)) in rows.iter().enumerate() {
                let color = Palette99::pick(at).to_rgba();
                let width = 0.8 / whole(rows.len());
                let bars = measured.iter().enumerate().map(|(cell, it)| {
                    let left = whole(cell) + 0.1 + width * whole(at);
                    let top = figure(it).min(most);
                    Rectangle::new([(left, 0.0), (left + 0.9 * width, top)], color.filled())
                });
                let legend =
                    move |(x, y)| Rectangle::new([(x, y - 4), (x + 10, y + 4)], color.filled());
                chart.draw_series(bars)?.label(sender.name()).legend(legend);
            }
            chart.configure_series_labels().background_style(WHITE.mix(0.8)).draw()?;
        }
        root.present()?;
    }
    Ok(svg)
}

#[expect(clippy::cast_precision_loss, reason = "some cells and senders")]
fn whole(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_names_every_sender_and_cell() {
        let measured =
            |goodput, dropped, rtt| Measured { goodput, dropped, rtt, ..Measured::default() };
        let rows: Vec<_> = SENDERS
            .into_iter()
            .map(|sender| (sender, vec![measured(95.0, 1.0, 1.1); CELLS.len()]))
            .collect();
        let svg = plot(&rows).unwrap();
        let names = SENDERS.iter().map(|sender| sender.name());
        for name in names.chain(CELLS.iter().map(|(_, short)| *short)) {
            assert!(svg.contains(name), "{name}");
        }
        let bars = svg.matches("<rect").count();
        assert!(bars >= FIGURES.len() * CELLS.len() * SENDERS.len(), "{bars}");
    }
}
