//! `orlop repo diff`: what differs between two recovery points.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use futures::TryStreamExt;
use repository::diff::{self, FileChange};
use repository::tree::TreePath;
use repository::{RecoveryPoint, Repository, Root, RootKind, table};
use serde::Serialize;

use super::PlaceArgs;
use super::open::{explain, explain_tree, has_files, point, roots};
use super::path::{inside, tree_path};
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The first recovery point, or `latest`
    old: String,
    /// The second one
    new: String,
    /// Only this volume (namespace/claim) or folder
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Only this file or folder and what is below it
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
}

/// One line of what differs; in JSON there is one to a line, and the last one sums up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "change")]
enum Line {
    /// Only one of the recovery points has this content.
    ContentAdded {
        content: String,
    },
    ContentRemoved {
        content: String,
    },
    /// A content is stored in another way, so nothing in it can be compared.
    ContentKind {
        content: String,
    },
    Added {
        content: String,
        path: String,
    },
    Removed {
        content: String,
        path: String,
    },
    Changed {
        content: String,
        path: String,
        changed: Vec<&'static str>,
    },
    /// Bytes of a volume or a stream.
    Range {
        content: String,
        offset: u64,
        length: u64,
    },
    /// A volume or a stream has another size.
    Size {
        content: String,
        old: u64,
        new: u64,
    },
    Summary(Sum),
}

/// What differs in all.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sum {
    equal: bool,
    added: u64,
    removed: u64,
    changed_type: u64,
    changed_content: u64,
    changed_metadata: u64,
    /// In volumes and streams.
    ranges: u64,
    changed_bytes: u64,
}

/// What the objects of an application are called here, beside the contents.
const OBJECTS: &str = "objects";

/// Prints lines as they are found, so that a long list takes no memory; the first failure to print ends it.
struct Printer {
    format: Format,
    printed: Result<()>,
    lines: u64,
}

pub(super) async fn run(place: &PlaceArgs, args: &DiffArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let (old, new) = (point(&repository, &args.old).await?, point(&repository, &args.new).await?);
    let path = args.path.as_deref().map(tree_path).transpose()?;
    let mut printer = Printer { format, printed: Ok(()), lines: 0 };
    let mut sum = Sum::default();
    for (old, new) in pairs(&old, &new, args.volume.as_deref())? {
        compare(&repository, (old, new), path.as_ref(), &mut printer, &mut sum).await?;
    }
    if args.volume.is_none() && path.is_none() {
        compare_objects(&repository, &old, &new, &mut printer, &mut sum).await?;
    }
    sum.equal = printer.lines == 0;
    let equal = sum.equal;
    printer.print(&Line::Summary(sum));
    printer.printed?;
    Ok(if equal { Exit::Succeeded } else { Exit::Failed })
}

type Pair<'a> = (Option<&'a Root>, Option<&'a Root>);

/// The contents of both by their names.
fn pairs<'a>(old: &'a RecoveryPoint, new: &'a RecoveryPoint, name: Option<&str>) -> Result<Vec<Pair<'a>>> {
    if let Some(name) = name {
        return match (old.root(name), new.root(name)) {
            (None, None) => roots(new, Some(name)).map(|_| Vec::new()),
            pair => Ok(vec![pair]),
        };
    }
    // What is alone in both is meant, also when an image lies in another file.
    if let ([old], [new]) = (&old.roots[..], &new.roots[..])
        && old.kind == new.kind
    {
        return Ok(vec![(Some(old), Some(new))]);
    }
    let both = old.roots.iter().map(|root| (Some(root), new.root(&root.name)));
    let added = new.roots.iter().filter(|root| old.root(&root.name).is_none()).map(|root| (None, Some(root)));
    Ok(both.chain(added).collect())
}

async fn compare(
    repository: &Repository,
    (old, new): Pair<'_>,
    path: Option<&TreePath>,
    printer: &mut Printer,
    sum: &mut Sum,
) -> Result<()> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) if old.kind == new.kind => (old, new),
        (Some(old), Some(_)) => {
            printer.print(&Line::ContentKind { content: old.name.clone() });
            return Ok(());
        }
        (Some(old), None) => {
            printer.print(&Line::ContentRemoved { content: old.name.clone() });
            return Ok(());
        }
        (None, Some(new)) => {
            printer.print(&Line::ContentAdded { content: new.name.clone() });
            return Ok(());
        }
        (None, None) => return Ok(()),
    };
    let (name, what) = (&new.name, format!("compare {}", new.name));
    if new.kind == RootKind::Tree {
        let top = match path {
            Some(path) => inside(repository, new, path.clone()).await?,
            None => TreePath::root(),
        };
        let mut tell = |path: &TreePath, change| printer.print(&file_line(name, path, change));
        let counted = diff::tree(repository, &old.table, &new.table, &top, &mut tell).await;
        let counts = counted.map_err(|e| explain_tree(what, e))?;
        sum.added += counts.added;
        sum.removed += counts.removed;
        sum.changed_type += counts.kind;
        sum.changed_content += counts.content;
        sum.changed_metadata += counts.metadata;
        return Ok(());
    }
    if path.is_some() {
        return has_files(new);
    }
    if old.bytes != new.bytes {
        printer.print(&Line::Size { content: name.clone(), old: old.bytes, new: new.bytes });
    }
    let mut tell = |range: std::ops::Range<u64>| {
        printer.print(&Line::Range { content: name.clone(), offset: range.start, length: range.end - range.start });
    };
    let found = diff::volume(repository, old, new, &mut tell).await.map_err(|e| explain(what, e))?;
    sum.ranges += found.ranges;
    sum.changed_bytes += found.bytes;
    Ok(())
}

/// Compares the objects of an application.
async fn compare_objects(
    repository: &Repository,
    old: &RecoveryPoint,
    new: &RecoveryPoint,
    printer: &mut Printer,
    sum: &mut Sum,
) -> Result<()> {
    let content = OBJECTS.to_owned();
    let (old, new) = match (old.objects, new.objects) {
        (None, None) => return Ok(()),
        (Some(_), None) => {
            printer.print(&Line::ContentRemoved { content });
            return Ok(());
        }
        (None, Some(_)) => {
            printer.print(&Line::ContentAdded { content });
            return Ok(());
        }
        (Some(old), Some(new)) => (old, new),
    };
    let mut differences = std::pin::pin!(table::differences(repository, old, new));
    while let Some(found) = differences.try_next().await.map_err(|e| explain("compare the objects", e))? {
        let (content, path) = (content.clone(), object_name(&found.key));
        printer.print(&match (found.old, found.new) {
            (None, _) => {
                sum.added += 1;
                Line::Added { content, path }
            }
            (_, None) => {
                sum.removed += 1;
                Line::Removed { content, path }
            }
            _ => {
                sum.changed_content += 1;
                Line::Changed { content, path, changed: vec!["content"] }
            }
        });
    }
    Ok(())
}

/// `Kind.group/namespace/name` of the key of an object.
fn object_name(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    match text.split('\0').collect::<Vec<_>>()[..] {
        [_, "", kind, "", name] => format!("{kind}/{name}"),
        [_, group, kind, "", name] => format!("{kind}.{group}/{name}"),
        [_, "", kind, namespace, name] => format!("{kind}/{namespace}/{name}"),
        [_, group, kind, namespace, name] => format!("{kind}.{group}/{namespace}/{name}"),
        _ => text.escape_default().to_string(),
    }
}

fn file_line(content: &str, path: &TreePath, change: FileChange) -> Line {
    let (content, path) = (content.to_owned(), path.to_string());
    match change {
        FileChange::Added => Line::Added { content, path },
        FileChange::Removed => Line::Removed { content, path },
        FileChange::Changed(changed) => {
            let parts = [(changed.kind, "type"), (changed.content, "content")];
            let mut names: Vec<_> = parts.into_iter().filter_map(|(is, name)| is.then_some(name)).collect();
            names.extend(changed.metadata);
            Line::Changed { content, path, changed: names }
        }
    }
}

impl Printer {
    fn print(&mut self, line: &Line) {
        self.lines += 1;
        if self.printed.is_ok() {
            self.printed = text(self.format, line).and_then(|text| output::print(&text));
        }
    }
}

fn text(format: Format, line: &Line) -> Result<String> {
    match format {
        Format::Json => {
            let text = serde_json::to_string(line).map_err(|e| Error::new("write JSON").because(e))?;
            Ok(format!("{text}\n"))
        }
        Format::Yaml => Ok(format!("---\n{}", output::yaml(line)?)),
        Format::Name => Ok(name(line)),
        Format::Table => Ok(for_people(line)),
    }
}

/// What the line is about.
fn name(line: &Line) -> String {
    match line {
        Line::ContentAdded { content } | Line::ContentRemoved { content } | Line::ContentKind { content } => {
            format!("{content}\n")
        }
        Line::Added { content, path } | Line::Removed { content, path } | Line::Changed { content, path, .. } => {
            format!("{content}: {path}\n")
        }
        Line::Range { content, .. } | Line::Size { content, .. } => format!("{content}\n"),
        Line::Summary(_) => String::new(),
    }
}

fn for_people(line: &Line) -> String {
    match line {
        Line::ContentAdded { content } => format!("added     {content}, all of it\n"),
        Line::ContentRemoved { content } => format!("removed   {content}, all of it\n"),
        Line::ContentKind { content } => format!("changed   {content}: stored in another way\n"),
        Line::Added { content, path } => format!("added     {content}: {path}\n"),
        Line::Removed { content, path } => format!("removed   {content}: {path}\n"),
        Line::Changed { content, path, changed } => format!("changed   {content}: {path} ({})\n", changed.join(", ")),
        Line::Range { content, offset, length } => format!("changed   {content}: {length} bytes at {offset}\n"),
        Line::Size { content, old, new } => format!("changed   {content}: its size, {new} instead of {old} bytes\n"),
        Line::Summary(sum) => summed(sum),
    }
}

fn summed(sum: &Sum) -> String {
    if sum.equal {
        return "Nothing differs.\n".to_owned();
    }
    let mut text = format!(
        "\n{} added, {} removed; changed in type: {}, in content: {}, in metadata: {}.\n",
        sum.added, sum.removed, sum.changed_type, sum.changed_content, sum.changed_metadata
    );
    if sum.ranges > 0 {
        let ranges = human::count(sum.ranges, "range", "ranges");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} in {ranges} of volumes and streams differ.", human::bytes(sum.changed_bytes));
    }
    text
}
