//! What goes to standard output: tables for people, JSON, YAML and names for programs.
//!
//! Resources are printed as the API server has them, without `managedFields`; what is not a resource is printed as a struct whose fields
//! the guide lists. Progress and notes go to standard error, so that standard output can always be piped.

use std::io::{ErrorKind, Write};

use clap::ValueEnum;
use comfy_table::{Cell, Table, presets};
use kube::{Resource, ResourceExt};
use serde::Serialize;

use crate::error::{Error, Result};

/// How to print what a command found or did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // No documentation comments on these: help would give each a paragraph.
    #[default]
    Table,
    Json,
    Yaml,
    Name,
}

/// The option that every command with a result has.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// How to print the result
    #[arg(
        short = 'o',
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "table",
        global = true,
        help_heading = "Output"
    )]
    output: Format,
    /// The same as --output json
    #[arg(long, conflicts_with = "output", global = true, help_heading = "Output")]
    json: bool,
}

impl OutputArgs {
    /// The format that was asked for.
    pub(crate) fn format(self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// Writes to standard output. A reader that has gone away, such as `head`, is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// As [`print`], for what need not be text.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::new("write to standard output").because(e)),
        _ => Ok(()),
    }
}

/// A value as pretty JSON, with a line end.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::new("write JSON").because(e))?;
    text.push('\n');
    Ok(text)
}

/// A value as YAML, with a line end.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_saphyr::to_string(value).map_err(|e| Error::new("write YAML").because(e))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// A value in the format that was asked for; `table` and `name` are asked for their text only when they are wanted.
pub(crate) fn render<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce() -> String,
    name: impl FnOnce() -> String,
) -> Result<String> {
    match format {
        Format::Table => Ok(table()),
        Format::Name => Ok(name()),
        Format::Json => json(value),
        Format::Yaml => yaml(value),
    }
}

/// What `-o name` prints for a resource, as `kubectl` does: `applicationbackup.orlop.io/nightly`.
pub(crate) fn resource_name<K: Resource<DynamicType = ()>>(resource: &K) -> String {
    format!("{}.{}/{}", K::kind(&()).to_lowercase(), K::group(&()), resource.name_any())
}

/// One resource in the format that was asked for.
pub(crate) fn resource<K>(format: Format, resource: &K, table: impl FnOnce() -> String) -> Result<String>
where
    K: Resource<DynamicType = ()> + Serialize + Clone,
{
    let mut shown = resource.clone();
    shown.meta_mut().managed_fields = None;
    render(format, &shown, table, || format!("{}\n", resource_name(resource)))
}

/// Many resources in the format that was asked for; for programs as a `List`.
pub(crate) fn resources<K>(format: Format, resources: &[K], table: impl FnOnce() -> String) -> Result<String>
where
    K: Resource<DynamicType = ()> + Serialize + Clone,
{
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List<K> {
        api_version: &'static str,
        kind: &'static str,
        items: Vec<K>,
    }
    let mut items = resources.to_vec();
    for item in &mut items {
        item.meta_mut().managed_fields = None;
    }
    let list = List { api_version: "v1", kind: "List", items };
    render(format, &list, table, || resources.iter().map(|r| format!("{}\n", resource_name(r))).collect())
}

/// A table in the style of `kubectl`: no rules, capital headings, columns as wide as they need.
pub(crate) fn table<H, R>(header: H, rows: impl IntoIterator<Item = R>) -> String
where
    H: IntoIterator<Item: Into<Cell>>,
    R: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.into_iter().map(Into::into).collect::<Vec<Cell>>());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| Cell::new(one_line(&cell))).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Line ends become spaces, so that a message does not tear a table.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Lines of `name: value`, the values below each other.
pub(crate) fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let fields: Vec<_> = fields.into_iter().collect();
    let width = fields.iter().map(|(name, _)| name.len() + 1).max().unwrap_or_default();
    fields.iter().map(|(name, value)| format!("{:width$}  {value}\n", format!("{name}:"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_below_their_headings() {
        let text = table(
            ["NAME", "PHASE"],
            [["a".to_owned(), "Succeeded".to_owned()], ["nightly".to_owned(), "Running\nstill".to_owned()]],
        );
        assert_eq!(text, "NAME      PHASE\na         Succeeded\nnightly   Running still\n");
    }

    #[test]
    fn values_of_fields_are_below_each_other() {
        assert_eq!(fields([("Name", "a".into()), ("Message", "b".into())]), "Name:     a\nMessage:  b\n");
    }

    #[test]
    fn a_resource_is_named_as_kubectl_names_it() {
        let backup = api::ApplicationBackup::new("nightly", api::ApplicationBackupSpec::default());
        assert_eq!(resource_name(&backup), "applicationbackup.orlop.io/nightly");
    }
}
