//! Requests with secrets in them, which are wiped from memory when the request is done with, however it ends.

use crate::proto::{AttachRequest, ChangeSecretRequest, CreateVolumeRequest, TrimVolumeRequest};
use std::ops::Deref;
use zeroize::Zeroize;

/// What has secrets in it.
pub(crate) trait Secretive {
    /// Each of them.
    fn secrets(&mut self) -> impl Iterator<Item = &mut Vec<u8>>;
}

macro_rules! secretive {
    ($($request:ident: $($secret:ident)*,)*) => {
        $(
            impl Secretive for $request {
                fn secrets(&mut self) -> impl Iterator<Item = &mut Vec<u8>> {
                    [$(&mut self.$secret),*].into_iter()
                }
            }
        )*
    };
}

secretive! {
    AttachRequest: secret,
    ChangeSecretRequest: old_secret new_secret,
    CreateVolumeRequest: secret,
    TrimVolumeRequest: secret,
}

/// A request whose secrets go with it.
pub(crate) struct Wiped<T: Secretive>(T);

impl<T: Secretive> Wiped<T> {
    pub(crate) fn new(request: T) -> Self {
        Self(request)
    }
}

impl<T: Secretive> Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Secretive> Drop for Wiped<T> {
    fn drop(&mut self) {
        self.0.secrets().for_each(Zeroize::zeroize);
    }
}
