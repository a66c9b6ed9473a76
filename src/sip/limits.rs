//! Every limit on what comes from the wire, in one place. Beyond a limit a message is refused or dropped, never truncated.

/// The longest message, head and body together, in bytes. Offsets of header lines are 16 bits wide because of it.
pub const MESSAGE: usize = 64 * 1024;
/// The most header lines in one message.
pub const HEADERS: usize = 128;
/// The most Via values in one message; more is a loop or an attack.
pub const VIAS: usize = 64;
/// The longest method, in bytes (RFC 4475 3.1.1.2 has one of 43).
pub const METHOD: usize = 64;
/// The longest Call-ID, tag or branch, in bytes (RFC 4475 3.1.1.7 has some of 300).
pub const IDENTIFIER: usize = 1024;
/// The longest request URI, in bytes.
pub const URI: usize = 4096;
/// The longest header name, in bytes.
pub const NAME: usize = 256;
/// The most Contact values in one request.
pub const CONTACTS: usize = 32;
/// CSeq numbers stay below this (RFC 3261 8.1.1.5).
pub const CSEQ: u32 = 1 << 31;
/// The most parts in a multipart body.
pub const PARTS: usize = 16;
/// How deep multipart bodies may nest.
pub const DEPTH: usize = 2;
