//! Stages with their times, and the table of them.

use std::time::{Duration, Instant};

use comfy_table::{ContentArrangement, Table, presets};

/// Characters of a line of the table, so that it fits into a README.
const TABLE_WIDTH: u16 = 120;

/// What was done, in order, with how long it took and what is worth knowing about it.
#[derive(Debug, Default)]
pub struct Stages {
    done: Vec<(String, Duration, String)>,
}

impl Stages {
    /// Does one stage and notes it. The stage's result is its note and a value.
    ///
    /// # Errors
    /// Those of the stage, with its name.
    pub async fn run<T>(
        &mut self,
        name: &str,
        stage: impl Future<Output = anyhow::Result<(String, T)>>,
    ) -> anyhow::Result<T> {
        let begin = Instant::now();
        eprintln!("… {name}");
        let (note, value) = stage.await.map_err(|e| e.context(name.to_owned()))?;
        eprintln!("  {:5.1} s  {note}", begin.elapsed().as_secs_f64());
        self.done.push((name.to_owned(), begin.elapsed(), note));
        Ok(value)
    }

    /// All stages as a table, the sum last.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_BORDERS_ONLY_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(TABLE_WIDTH)
            .set_header(["stage", "seconds", "what happened"]);
        for (name, time, note) in &self.done {
            table.add_row([name.clone(), format!("{:.1}", time.as_secs_f64()), note.clone()]);
        }
        let sum: Duration = self.done.iter().map(|(_, time, _)| *time).sum();
        table.add_row(["together".to_owned(), format!("{:.1}", sum.as_secs_f64()), String::new()]);
        table.to_string()
    }
}
