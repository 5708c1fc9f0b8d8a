//! Messages over a socket, with a descriptor or without.

use super::MOST_LEN;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Sends a message; with `flags` for whether to wait.
pub(super) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags | SendFlags::NOSIGNAL).map(|_| ())
}

/// A message, and the descriptor that came with it.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptor: Option<OwnedFd>,
    /// Why this is not all that was sent.
    pub(super) flaw: Option<Flaw>,
}

/// What became of a message that did not come as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is longer than messages are.
    Long,
    /// Several descriptors came with it, and none was taken.
    Several,
    /// A descriptor did, and this process has as many open as it may.
    NoRoom,
}

/// Receives a message; nothing when the other side has gone.
pub(super) fn receive(socket: impl AsFd, flags: RecvFlags) -> Result<Option<Received>, Errno> {
    let mut bytes = vec![0; MOST_LEN];
    // Room for some more, which are closed: one that does not fit would be a truncated message.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut slices, &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let flaw = if received.flags.contains(ReturnFlags::TRUNC) {
        Some(Flaw::Long)
    } else if descriptors.len() > 1 {
        Some(Flaw::Several)
    } else if received.flags.contains(ReturnFlags::CTRUNC) {
        Some(Flaw::NoRoom)
    } else {
        None
    };
    bytes.truncate(received.bytes);
    let descriptor = if flaw.is_none() { descriptors.pop() } else { None };
    Ok((received.bytes > 0).then_some(Received { bytes, descriptor, flaw }))
}
