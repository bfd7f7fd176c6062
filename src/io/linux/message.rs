//! The message header and iovecs of a sendmsg(2), kept in place until the send completes, and used again.

use crate::base::limits::{SEND_BYTES_MAX, SEND_PARTS_MAX};
use crate::io::SendChain;

/// A closed peer is an error, not a signal.
pub const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL;

pub struct Message {
    header: libc::msghdr,
    parts: [libc::iovec; SEND_PARTS_MAX],
}

impl Message {
    pub fn new() -> Box<Message> {
        let part = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: `msghdr` is a C structure of integers and pointers, for which all zeros is valid.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Message { header, parts: [part; SEND_PARTS_MAX] })
    }

    /// Points the header at the unsent slices of `chain`, as many as fit, without the first `skip` bytes and up to [`SEND_BYTES_MAX`]
    /// with them. Returns its address, which holds while `self` is not moved out of its box and neither `self` nor the chain's parts
    /// change; and how many bytes these are.
    pub fn point_at(&mut self, chain: &SendChain, skip: usize) -> (*const libc::msghdr, usize) {
        let (mut count, mut bytes, room) = (0, 0, SEND_BYTES_MAX.saturating_sub(skip));
        let mut skip = skip;
        for whole in chain.slices(usize::MAX) {
            if count == SEND_PARTS_MAX || bytes == room {
                break;
            }
            let slice = &whole[skip.min(whole.len())..];
            skip -= whole.len() - slice.len();
            if slice.is_empty() {
                continue;
            }
            let slice = &slice[..slice.len().min(room - bytes)];
            bytes += slice.len();
            self.parts[count] =
                libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
            count += 1;
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = count;
        (&raw const self.header, bytes)
    }
}
