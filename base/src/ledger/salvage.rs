//! A ledger whose file is broken beyond its rows: what can be read is moved to a new file.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::load::{self, Damage, Pages, Scan};
use super::write::{PUT_JOB, PUT_LINE, PUT_LIST, PUT_META, PUT_NODE};

/// Copies every whole row of `from` to `to`, and names those that are not.
///
/// # Errors
/// Only those of writing `to`.
pub(super) async fn copy(
    from: &mut SqliteConnection,
    to: &mut SqliteConnection,
    damage: &mut Damage,
) -> Result<(), sqlx::Error> {
    for scan in [&load::META, &load::NODES, &load::LISTS, &load::JOBS, &load::LINES] {
        let mut pages = Pages::of(scan);
        loop {
            let rows = pages.next(from, damage).await;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                match check(scan, row) {
                    Ok(()) => put(scan, row, to).await?,
                    Err(text) if scan.table == load::JOBS.table => damage.add_lossy(text),
                    Err(text) => damage.add(text),
                }
            }
        }
    }
    Ok(())
}

fn check(scan: &Scan, row: &SqliteRow) -> Result<(), String> {
    match scan.table {
        "meta" => load::read_meta(row).map(drop),
        "nodes" => load::read_node(row).map(drop),
        "lists" => load::read_list(row).map(drop),
        "jobs" => load::read_job(row).map(drop),
        _ => load::read_line(row).map(drop),
    }
}

async fn put(scan: &Scan, row: &SqliteRow, to: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let blob = |column: &str| row.try_get::<Vec<u8>, _>(column);
    let number = |column: &str| row.try_get::<i64, _>(column);
    let query = match scan.table {
        "meta" => {
            let query = sqlx::query(PUT_META).bind(text("key")?);
            query.bind(number("value")?).bind(blob("sum")?)
        }
        "nodes" => sqlx::query(PUT_NODE).bind(text("name")?).bind(blob("body")?).bind(blob("sum")?),
        "lists" => sqlx::query(PUT_LIST).bind(blob("hash")?).bind(blob("names")?),
        "jobs" => {
            let query = sqlx::query(PUT_JOB).bind(blob("id")?);
            let query = query.bind(text("client")?).bind(text("name")?);
            let query = query.bind(blob("servers")?);
            let query = query.bind(blob("head")?).bind(blob("head_sum")?);
            let query = query.bind(text("state")?).bind(number("closed_us")?);
            query.bind(blob("status")?).bind(blob("status_sum")?)
        }
        _ => {
            let query = sqlx::query(PUT_LINE).bind(blob("job")?).bind(text("node")?);
            query.bind(blob("body")?).bind(blob("sum")?)
        }
    };
    query.execute(to).await.map(drop)
}
