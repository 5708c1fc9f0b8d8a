//! Paths in recovery points, as people write them: relative to the top of a content, or as the file was called where it was backed up.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use repository::tree::{self, TreePath};
use repository::{RecoveryPoint, Repository, Root};

use super::open::{explain_tree, root};
use crate::error::{Error, Result};

/// A path that a person wrote, relative to the top of a tree; a slash at its begin means the top.
pub(super) fn tree_path(path: &Path) -> Result<TreePath> {
    let mut tree_path = TreePath::root();
    for component in path.components() {
        match component {
            Component::Normal(name) => tree_path = tree_path.child(name.as_bytes()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::usage(format!("{}: a path in a recovery point has no ..", path.display())));
            }
        }
    }
    Ok(tree_path)
}

/// What of a path comes after the name of a content, where it begins with that.
fn after_name(name: &str, path: &TreePath) -> Option<TreePath> {
    let folder = tree_path(Path::new(name)).ok().filter(|folder| *folder != TreePath::root())?;
    let is_within = *path == folder || path.is_below(&folder);
    let rest = path.components().skip(folder.components().count());
    is_within.then(|| rest.fold(TreePath::root(), |path, name| path.child(name)))
}

/// The contents whose names a path begins with.
pub(super) fn roots_with<'a>(point: &'a RecoveryPoint, path: &TreePath) -> Vec<&'a Root> {
    point.roots.iter().filter(|root| after_name(&root.name, path).is_some()).collect()
}

/// The one content that is meant: by its name, or because the path begins with that.
pub(super) fn root_with<'a>(point: &'a RecoveryPoint, name: Option<&str>, path: Option<&TreePath>) -> Result<&'a Root> {
    if let (None, Some(path)) = (name, path)
        && let [root] = roots_with(point, path)[..]
    {
        return Ok(root);
    }
    root(point, name)
}

/// The path in a tree. Where there is nothing at it, and it begins with the name of the content, it means what comes after that.
pub(super) async fn inside(repository: &Repository, root: &Root, path: TreePath) -> Result<TreePath> {
    let Some(rest) = after_name(&root.name, &path) else { return Ok(path) };
    let what = || format!("look for {path} in {}", root.name);
    let there = tree::entry(repository, &root.table, &path).await.map_err(|e| explain_tree(what(), e))?;
    Ok(if there.is_some() { path } else { rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_top() {
        for (text, expected) in [
            ("", Some(".")),
            ("/", Some(".")),
            ("a/b", Some("a/b")),
            ("/a//b/", Some("a/b")),
            ("./a", Some("a")),
            ("../a", None),
        ] {
            let found = tree_path(Path::new(text)).ok().map(|path| path.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_path_may_begin_with_the_name_of_the_content() {
        for (name, path, expected) in [
            ("/srv/data", "/srv/data/a/b", Some("a/b")),
            ("/srv/data", "srv/data", Some(".")),
            ("shop/data", "shop/data/a", Some("a")),
            ("/srv/data", "/srv/database", None),
            ("/srv/data", "a/b", None),
            ("/", "/a", None),
            ("../x", "/a", None),
        ] {
            let path = tree_path(Path::new(path)).expect("a path");
            let rest = after_name(name, &path).map(|path| path.to_string());
            assert_eq!(rest.as_deref(), expected, "{name} {path}");
        }
    }
}
