//! The message header and iovecs of a `SENDMSG`, kept in place until the send completes, and used again.

use crate::base::limits::SEND_PARTS_MAX;
use crate::io::SendChain;

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

    /// Points the header at the unsent slices of `chain` and returns its address, which holds while `self` is not moved out of
    /// its box and neither `self` nor the chain's parts change.
    pub fn point_at(&mut self, chain: &SendChain) -> *const libc::msghdr {
        let mut count = 0;
        for slice in chain.slices(SEND_PARTS_MAX) {
            self.parts[count] =
                libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
            count += 1;
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = count;
        &raw const self.header
    }
}
