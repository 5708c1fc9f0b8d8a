//! `s3s-fs` with what it lacks to stand in for a real bucket.
//!
//! Met in version 0.14.1, and mended here, because a backup repository relies on it:
//!
//! * `If-None-Match` and `If-Match` are looked at before the body is received and not again, so that two writers who
//!   both create an object both succeed. Here writers of one key wait for each other.
//! * A put into a bucket that does not exist makes the bucket. Here it is refused.
//! * A prefix of keys, which is a directory, answers `HEAD` as if it were an object, and `GET` breaks off. Here neither
//!   exists.
//! * A listing fails when a file vanishes while it goes on. Here deletions wait for listings.
//! * A key that is too long for the name of its metadata file fails after its data were written. Here it is refused
//!   before.
//!
//! Left as they are: a body whose checksum is wrong has replaced the object when the error is answered; metadata of
//! deleted objects stay; each page of a listing walks the whole bucket; listings have no entity tags.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use async_trait::async_trait;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::{Mutex, MutexGuard, RwLock};

/// Locks that the keys share out among themselves: enough that the writers of a test seldom wait without need.
const KEY_LOCKS: usize = 64;

/// Bytes that a bucket's name and a key may have together: `s3s-fs` makes one file name of both in base 64, and an
/// upload's number and fixed parts 74 more bytes, and file names end at 255.
const LONGEST_NAME_BYTES: usize = 130;

pub(super) struct Store {
    files: FileSystem,
    root: PathBuf,
    key_locks: Vec<Mutex<()>>,
    /// Held shared by whoever lists, and alone by whoever deletes.
    tree: RwLock<()>,
}

impl Store {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let files = FileSystem::new(root).map_err(|error| anyhow::anyhow!("{error:?}"));
        Ok(Self {
            files: files.with_context(|| format!("open {} as an S3 store", root.display()))?,
            root: root.to_owned(),
            key_locks: (0..KEY_LOCKS).map(|_| Mutex::new(())).collect(),
            tree: RwLock::new(()),
        })
    }

    /// Checks that a key can be written, and keeps others from writing it.
    async fn writing(&self, bucket: &str, key: &str) -> S3Result<MutexGuard<'_, ()>> {
        if !self.root.join(bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        if bucket.len() + key.len() > LONGEST_NAME_BYTES {
            return Err(s3_error!(KeyTooLongError));
        }
        let mut hasher = DefaultHasher::new();
        (bucket, key).hash(&mut hasher);
        let index = hasher.finish() % KEY_LOCKS as u64;
        let index = usize::try_from(index).map_err(|_| s3_error!(InternalError))?;
        Ok(self.key_locks[index].lock().await)
    }

    /// Checks that a name that may be read is not that of a directory.
    fn reading(&self, bucket: &str, key: &str) -> S3Result<()> {
        if self.root.join(bucket).is_dir() && self.root.join(bucket).join(key).is_dir() {
            return Err(s3_error!(NoSuchKey));
        }
        Ok(())
    }
}

/// Implements methods of [`S3`] by those of `s3s-fs`, after what the second word says must be done before.
macro_rules! forward {
    ($(fn $method:ident($request:ident: $input:ty) -> $output:ty { $($before:tt)* })*) => {
        #[async_trait]
        impl S3 for Store {
            $(async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                forward!(@before self, request, $($before)*);
                self.files.$method(request).await
            })*
        }
    };
    (@before $self:ident, $request:ident, write) => {
        let _writing = $self.writing(&$request.input.bucket, &$request.input.key).await?;
    };
    (@before $self:ident, $request:ident, read) => { $self.reading(&$request.input.bucket, &$request.input.key)?; };
    (@before $self:ident, $request:ident, list) => { let _listing = $self.tree.read().await; };
    (@before $self:ident, $request:ident, delete) => { let _deleting = $self.tree.write().await; };
    (@before $self:ident, $request:ident,) => {};
}

forward! {
    fn create_bucket(request: CreateBucketInput) -> CreateBucketOutput {}
    fn head_bucket(request: HeadBucketInput) -> HeadBucketOutput {}
    fn get_bucket_location(request: GetBucketLocationInput) -> GetBucketLocationOutput {}
    fn list_buckets(request: ListBucketsInput) -> ListBucketsOutput {}
    fn delete_bucket(request: DeleteBucketInput) -> DeleteBucketOutput { delete }
    fn put_object(request: PutObjectInput) -> PutObjectOutput { write }
    fn copy_object(request: CopyObjectInput) -> CopyObjectOutput { write }
    fn get_object(request: GetObjectInput) -> GetObjectOutput { read }
    fn head_object(request: HeadObjectInput) -> HeadObjectOutput { read }
    fn delete_object(request: DeleteObjectInput) -> DeleteObjectOutput { delete }
    fn delete_objects(request: DeleteObjectsInput) -> DeleteObjectsOutput { delete }
    fn list_objects(request: ListObjectsInput) -> ListObjectsOutput { list }
    fn list_objects_v2(request: ListObjectsV2Input) -> ListObjectsV2Output { list }
    fn create_multipart_upload(request: CreateMultipartUploadInput) -> CreateMultipartUploadOutput { write }
    fn upload_part(request: UploadPartInput) -> UploadPartOutput {}
    fn upload_part_copy(request: UploadPartCopyInput) -> UploadPartCopyOutput {}
    fn list_parts(request: ListPartsInput) -> ListPartsOutput {}
    fn complete_multipart_upload(request: CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput { write }
    fn abort_multipart_upload(request: AbortMultipartUploadInput) -> AbortMultipartUploadOutput {}
}
