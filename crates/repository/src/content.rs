//! Looking at one content of a recovery point, whatever its kind.

use crate::point::{Root, RootKind};
use crate::progress::NoProgress;
use crate::repository::Repository;
use crate::tree::{self, VerifyOptions};
use crate::volume::{self, Map};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Why a content cannot be relied on, or was not looked at.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It is a tree.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// It is a volume or a stream.
    #[error(transparent)]
    Volume(#[from] volume::Error),
}

impl ContentError {
    /// Whether bytes in the repository are lost or changed.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Tree(error) => error.is_damage(),
            Self::Volume(error) => error.is_damage(),
        }
    }
}

/// Looks that everything is there that a content refers to, in the directories of its packs, without reading its data.
pub async fn check_content(repo: &Repository, root: &Root, cancel: &CancellationToken) -> Result<(), ContentError> {
    let map = match root.kind {
        RootKind::Tree => {
            let options = VerifyOptions { references: true, cancel: cancel.clone(), ..VerifyOptions::default() };
            tree::verify(repo, &root.table, None, &options, Arc::new(NoProgress)).await?;
            return Ok(());
        }
        RootKind::Volume => Map::volume(repo, root.table, root.bytes),
        RootKind::Stream => Map::stream(repo, root.table, root.bytes),
    };
    Ok(volume::check(&map, true, cancel).await?)
}
